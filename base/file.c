/* file.c: reading, mapping, and atomic appearance of files. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

int file_map_open(struct file_map *m, const char *path, enum err_code code, struct err *err)
{
	struct stat st;
	void *p = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, code, "%s", path);
	if (fstat(fd, &st) < 0) {
		err_sys(err, code, "%s", path);
		close(fd);
		return -1;
	}
	if (!S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, code, "%s: not a regular file", path);
	}
	if (st.st_size > 0) {
		p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED) {
			err_sys(err, code, "%s: cannot map %lld bytes", path, (long long)st.st_size);
			close(fd);
			return -1;
		}
	}
	close(fd);
	m->data = p;
	m->n_bytes = (size_t)st.st_size;
	return 0;
}

void file_map_close(struct file_map *m)
{
	if (m->data)
		munmap((void *)m->data, m->n_bytes);
	*m = (struct file_map){0};
}

int file_read(const char *path, size_t max_bytes, struct buf *out, enum err_code code, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t start = out->len;
	struct stat st;

	if (fd < 0)
		return err_sys(err, code, "%s", path);
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		close(fd);
		return err_set(err, code, "%s: is a directory", path);
	}
	for (;;) {
		ssize_t n;

		buf_reserve(out, 65536);
		n = read(fd, out->data + out->len, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_sys(err, code, "%s", path);
			close(fd);
			return -1;
		}
		out->len += (size_t)n;
		out->data[out->len] = '\0';
		if (out->len - start > max_bytes) {
			close(fd);
			return err_set(err, code, "%s: larger than %zu bytes", path, max_bytes);
		}
		if (n == 0)
			break;
	}
	close(fd);
	return 0;
}

int file_write_all(int fd, const void *data, size_t n_bytes)
{
	const unsigned char *p = data;

	while (n_bytes > 0) {
		ssize_t k = write(fd, p, n_bytes);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -1;
		p += k;
		n_bytes -= (size_t)k;
	}
	return 0;
}

static void parent_dir(const char *path, struct buf *out)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		buf_adds(out, ".");
	else
		buf_add(out, path, slash == path ? 1 : (size_t)(slash - path));
}

/* A finished, durable temporary file beside `path`; its name in *tmp. */
static int write_temporary(const char *path, const void *data, size_t n_bytes, struct buf *tmp, struct err *err)
{
	static _Thread_local unsigned counter;
	int fd;

	buf_addf(tmp, "%s.tmp-%ld-%llx-%u", path, (long)getpid(), (unsigned long long)clock_unix_ms(), counter++);
	fd = open(tmp->data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return err_sys(err, ERR_STORAGE, "%s", tmp->data);
	if (file_write_all(fd, data, n_bytes) < 0 || fsync(fd) < 0) {
		err_sys(err, ERR_STORAGE, "%s", tmp->data);
		close(fd);
		unlink(tmp->data);
		return -1;
	}
	/* NFS reports a full disk as late as here. */
	if (close(fd) < 0) {
		err_sys(err, ERR_STORAGE, "%s", tmp->data);
		unlink(tmp->data);
		return -1;
	}
	return 0;
}

int file_write_atomic(const char *path, const void *data, size_t n_bytes, struct err *err)
{
	struct buf tmp = {0}, dir = {0};
	int rc = -1;

	if (write_temporary(path, data, n_bytes, &tmp, err) < 0)
		goto out;
	if (rename(tmp.data, path) < 0) {
		err_sys(err, ERR_STORAGE, "%s", path);
		unlink(tmp.data);
		goto out;
	}
	parent_dir(path, &dir);
	rc = file_sync_dir(dir.data, err);
out:
	buf_release(&tmp);
	buf_release(&dir);
	return rc;
}

int file_make_dirs(const char *path, struct err *err)
{
	char *p = xstrdup(path);
	int rc = 0;

	for (char *s = p + 1;; s++) {
		char c = *s;

		if (c != '/' && c != '\0')
			continue;
		*s = '\0';
		if (mkdir(p, 0777) < 0 && errno != EEXIST) {
			rc = err_sys(err, ERR_STORAGE, "%s", p);
			break;
		}
		*s = c;
		if (c == '\0')
			break;
	}
	if (rc == 0 && !file_is_dir(p))
		rc = err_set(err, ERR_STORAGE, "%s: exists and is not a directory", p);
	free(p);
	return rc;
}

int file_sync_dir(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, ERR_STORAGE, "%s", path);
	/* Some file systems have no fsync of directories and say EINVAL. */
	if (fsync(fd) < 0 && errno != EINVAL && errno != ENOTSUP) {
		err_sys(err, ERR_STORAGE, "%s", path);
		close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

int file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

int file_is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *file_join(const char *dir, const char *name)
{
	struct buf b = {0};

	buf_adds(&b, dir);
	if (b.len > 0 && b.data[b.len - 1] != '/')
		buf_addc(&b, '/');
	buf_adds(&b, name);
	return buf_detach(&b);
}
