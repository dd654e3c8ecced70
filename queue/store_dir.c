/* store_dir.c: a directory as a store. Works on local disks and on network file systems whose locks mean nothing, whose caches
 * are stale, and whose server may do what it was asked for and lose the reply (RFC 1813, 4.5): each step is one that can be
 * told to have been done already. rename(2): the name leads to the file that was written (same inode). link(2): the temporary
 * file has two names (open(2), O_EXCL). Creation that fails on an existing name: the same bytes are there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "queue/layout.h"
#include "queue/store_private.h"

/* Waits between tries: 7 s in all. A full disk is not waited for so long: it is seldom a moment's. */
enum { TRIES = 8, TRIES_FULL = 5 };

static int may_pass(int e)
{
	return e == EIO || e == ESTALE || e == ETIMEDOUT || e == EAGAIN || e == EBUSY || e == EINTR || e == ENOSPC || e == EDQUOT;
}

/* After a failure with errno e: waits and returns 1 when another try makes sense. */
static int try_again(int *try, int e)
{
	int most = e == ENOSPC || e == EDQUOT ? TRIES_FULL : TRIES;
	int ms = 50 << *try;

	if (!may_pass(e) || ++*try >= most)
		return 0;
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
	return 1;
}

static char *full_path(const struct store *s, const char *name)
{
	return store_name(s, name);
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return !slash ? xstrdup(".") : slash == path ? xstrdup("/") : xmemdup(path, (size_t)(slash - path));
}

static int sync_parent(const char *path)
{
	char *parent = parent_of(path);
	int try = 0, rc;

	do {
		int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		rc = fd < 0 ? -1 : fsync(fd);
		/* Some file systems have no fsync of directories and say EINVAL. */
		if (fd >= 0 && rc < 0 && (errno == EINVAL || errno == ENOTSUP))
			rc = 0;
		if (fd >= 0) {
			int saved = errno;

			close(fd);
			errno = saved;
		}
	} while (rc < 0 && try_again(&try, errno));
	free(parent);
	return rc;
}

/* ---- files that appear whole ---- */

struct temporary {
	char *path;
	dev_t device;
	ino_t inode;
};

/* A finished, durable file beside `path`; its directory is made when it is not there. errno on -1, and no file is left. */
static int temporary_write(struct temporary *t, const char *path, const void *data, size_t n)
{
	static _Thread_local unsigned counter;
	struct stat st;
	int fd, saved;

	t->path = path_format("%s.tmp-%ld-%llx-%u", path, (long)getpid(), (unsigned long long)clock_unix_ms(), counter++);
	fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0 && errno == ENOENT) {
		char *parent = parent_of(path);
		struct err ignored = {0};

		errno = ESTALE; /* for a failure without one of its own: made, and not seen yet */
		if (file_make_dirs(parent, &ignored) == 0)
			fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd < 0 && errno == ENOENT)
			errno = ESTALE;
		free(parent);
	}
	if (fd < 0)
		goto fail;
	if (file_write_all(fd, data, n) < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0) {
		saved = errno;
		close(fd);
		unlink(t->path);
		errno = saved;
		goto fail;
	}
	/* NFS reports a full disk as late as here. */
	if (close(fd) < 0) {
		saved = errno;
		unlink(t->path);
		errno = saved;
		goto fail;
	}
	t->device = st.st_dev;
	t->inode = st.st_ino;
	return 0;
fail:
	saved = errno;
	free(t->path);
	t->path = NULL;
	errno = saved;
	return -1;
}

static void temporary_remove(struct temporary *t)
{
	int saved = errno;

	if (t->path)
		unlink(t->path);
	free(t->path);
	t->path = NULL;
	errno = saved;
}

/* Move a file onto its name; a lost reply shows itself in that the name has the inode already. The second try of what was done
 * says that the file is not there, while this host may still believe that the name is not, either: it is asked again until its
 * cache has given that up. */
static int rename_onto(const char *from, const char *to, dev_t device, ino_t inode)
{
	int try = 0;

	while (rename(from, to) < 0) {
		int saved = errno;
		struct stat st;

		if (stat(to, &st) == 0 && st.st_dev == device && st.st_ino == inode)
			break;
		errno = saved;
		if (!try_again(&try, saved == ENOENT ? ESTALE : saved)) {
			errno = saved;
			return -1;
		}
	}
	return 0;
}

static int dir_put(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	char *path = full_path(s, name);
	struct temporary t = {0};
	int try = 0, rc;

	do
		rc = temporary_write(&t, path, data, n);
	while (rc < 0 && try_again(&try, errno));
	if (rc == 0 && (rc = rename_onto(t.path, path, t.device, t.inode)) < 0)
		temporary_remove(&t);
	free(t.path);
	if (rc == 0)
		rc = sync_parent(path);
	if (rc < 0)
		err_sys(err, ERR_STORAGE, "%s", path);
	free(path);
	return rc;
}

/* In place: a rename onto a file makes ext4 write the new one out at once (its mount option auto_da_alloc), which takes a millisecond. */
static int dir_note(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	char *path = full_path(s, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666), rc = -1;

	if (fd >= 0) {
		rc = file_write_all(fd, data, n) < 0 || ftruncate(fd, (off_t)n) < 0 ? -1 : 0;
		if (close(fd) < 0)
			rc = -1;
	}
	if (rc < 0)
		err_sys(err, ERR_STORAGE, "%s", path);
	free(path);
	return rc;
}

static int dir_put_file(struct store *s, const char *name, const char *from, struct err *err)
{
	char *path = full_path(s, name), *parent = parent_of(path);
	struct stat st;
	int rc = file_make_dirs(parent, err);

	if (rc == 0 && (file_sync(from, err) < 0 || stat(from, &st) < 0))
		rc = err_sys(err, ERR_STORAGE, "%s", from);
	if (rc == 0 && (rename_onto(from, path, st.st_dev, st.st_ino) < 0 || sync_parent(path) < 0))
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	free(path);
	free(parent);
	return rc;
}

/* Does the existing file hold these bytes? 1, 0, -1. */
static int holds(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	struct buf there = {0};
	struct err e = {0};
	int rc = store_get(s, name, n, &there, &e);

	if (rc == 1)
		rc = there.len == n && memcmp(buf_str(&there), data, n) == 0;
	else if (rc < 0 && there.len > n)
		rc = 0; /* longer than what we would have written */
	else if (rc < 0)
		err_set(err, e.code, "%s", e.msg);
	buf_release(&there);
	return rc;
}

static int dir_create(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	char *path = full_path(s, name);
	struct temporary t = {0};
	struct stat st;
	int try = 0, rc, e;

	for (;;) {
		rc = temporary_write(&t, path, data, n);
		if (rc < 0) {
			if (try_again(&try, errno))
				continue;
			err_sys(err, ERR_STORAGE, "%s", path);
			break;
		}
		e = link(t.path, path) < 0 ? errno : 0;
		/* The reply may be lost after the link was made: two names tell. */
		if (e == 0 || (stat(t.path, &st) == 0 && st.st_nlink == 2)) {
			rc = 1;
		} else if (e == EEXIST) {
			rc = holds(s, name, data, n, err);
		} else {
			temporary_remove(&t);
			/* ENOENT: somebody took the temporary file for a dead process's, and cleared it away. */
			if (try_again(&try, e == ENOENT ? ESTALE : e))
				continue;
			errno = e;
			rc = err_sys(err, ERR_STORAGE, "%s", path);
		}
		temporary_remove(&t);
		break;
	}
	if (rc == 1 && sync_parent(path) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	free(path);
	return rc;
}

/* ---- reading ---- */

static int dir_get(struct store *s, const char *name, size_t max_bytes, struct buf *out, struct err *err)
{
	char *path = full_path(s, name);
	size_t start = out->len;
	int try = 0, rc;

	for (;;) {
		struct err e = {0};

		errno = 0;
		rc = file_read(path, max_bytes, out, ERR_STORAGE, &e);
		if (rc == 0) {
			rc = 1;
			break;
		}
		if (errno == ENOENT || errno == ENOTDIR) {
			rc = 0;
			break;
		}
		if (!try_again(&try, errno)) {
			err_set(err, e.code, "%s", e.msg);
			break;
		}
		out->len = start;
	}
	free(path);
	return rc;
}

static int dir_exists(struct store *s, const char *name, struct err *err)
{
	char *path = full_path(s, name);
	struct stat st;
	int try = 0, rc;

	while ((rc = stat(path, &st)) < 0 && errno != ENOENT && errno != ENOTDIR && try_again(&try, errno))
		;
	if (rc == 0)
		rc = 1;
	else if (errno == ENOENT || errno == ENOTDIR)
		rc = 0;
	else
		err_sys(err, ERR_STORAGE, "%s", path);
	free(path);
	return rc;
}

static int dir_fetch(struct store *s, const char *name, struct store_file *f, struct err *err)
{
	int rc = dir_exists(s, name, err);

	if (rc == 1)
		f->path = full_path(s, name);
	return rc;
}

/* ---- listings ---- */

/* Names below path with what they are; a path that is not there is empty. */
static int read_names(const char *path, char ***names, size_t *n, struct err *err)
{
	int try = 0;

	for (;;) {
		struct err e = {0};

		errno = 0;
		if (dir_list(path, names, n, &e) == 0)
			return 0;
		if (errno == ENOENT)
			return 0;
		if (!try_again(&try, errno))
			return err_set(err, e.code, "%s", e.msg);
	}
}

static int dir_list_one(struct store *s, const char *dir, char ***names, size_t *n, struct err *err)
{
	char *path = full_path(s, dir);
	int rc = read_names(path, names, n, err);

	free(path);
	return rc;
}

struct tree_names {
	char **names;
	size_t n, cap;
};

/* 1: a directory, 0: not, or gone by now, or not seen yet by this host: its listing told the name; -1. */
static int is_directory(const char *path, struct err *err)
{
	struct stat st;
	int try = 0;

	while (lstat(path, &st) < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		if (!try_again(&try, errno))
			return err_sys(err, ERR_STORAGE, "%s", path);
	}
	return S_ISDIR(st.st_mode) ? 1 : 0;
}

static int walk(const char *path, const char *prefix, struct tree_names *out, struct err *err)
{
	char **names = NULL;
	size_t n = 0;
	int rc = read_names(path, &names, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++) {
		char *child = path_format("%s/%s", path, names[i]), *name = path_format("%s%s", prefix, names[i]);

		rc = is_directory(child, err);
		if (rc == 1) {
			char *below = path_format("%s/", name);

			rc = walk(child, below, out, err);
			free(below);
		} else if (rc == 0) {
			MEM_GROW(out->names, out->cap, out->n + 1);
			out->names[out->n++] = name;
			name = NULL;
		}
		free(name);
		free(child);
	}
	names_free(names, n);
	return rc;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int dir_list_tree(struct store *s, const char *dir, char ***names, size_t *n, struct err *err)
{
	char *path = full_path(s, dir);
	struct tree_names t = {0};
	int rc = walk(path, "", &t, err);

	free(path);
	if (rc < 0) {
		names_free(t.names, t.n);
		return -1;
	}
	if (t.n > 1)
		qsort(t.names, t.n, sizeof(*t.names), by_text);
	*names = t.names;
	*n = t.n;
	return 0;
}

/* ---- removing, opening ---- */

static int dir_remove(struct store *s, const char *name, struct err *err)
{
	char *path = full_path(s, name);
	int try = 0, rc;

	while ((rc = unlink(path)) < 0 && errno != ENOENT && try_again(&try, errno))
		;
	if (rc < 0)
		rc = errno == ENOENT ? 0 : err_sys(err, ERR_STORAGE, "%s", path);
	free(path);
	return rc;
}

static int dir_remove_tree(struct store *s, const char *dir, struct err *err)
{
	char *path = full_path(s, dir);
	int try = 0, rc;

	for (;;) {
		struct err e = {0};

		errno = 0;
		rc = tree_remove(path, &e);
		if (rc == 0 || !(errno == ENOTEMPTY || may_pass(errno)) || ++try == TRIES) {
			if (rc < 0)
				err_set(err, e.code, "%s", e.msg);
			break;
		}
	}
	free(path);
	return rc;
}

static int dir_prepare(struct store *s, struct err *err)
{
	return file_make_dirs(s->place, err);
}

static void dir_close(struct store *s)
{
	free(s->place);
	free(s);
}

static const struct store_ops dir_ops = {
    .close = dir_close,
    .prepare = dir_prepare,
    .create = dir_create,
    .put = dir_put,
    .note = dir_note,
    .put_file = dir_put_file,
    .get = dir_get,
    .exists = dir_exists,
    .fetch = dir_fetch,
    .list = dir_list_one,
    .list_tree = dir_list_tree,
    .remove = dir_remove,
    .remove_tree = dir_remove_tree,
};

struct store *store_dir_open(const char *place, struct err *err)
{
	struct store *s;
	size_t n = strlen(place);

	if (n == 0) {
		err_set(err, ERR_USAGE, "the job's directory has an empty name");
		return NULL;
	}
	while (n > 1 && place[n - 1] == '/')
		n--;
	s = xcalloc(1, sizeof(*s));
	s->ops = &dir_ops;
	s->place = xmemdup(place, n);
	s->dir = s->place;
	return s;
}
