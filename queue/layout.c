/* layout.c: names, listings, trees. */
#include "queue/layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

char *path_format(const char *fmt, ...)
{
	struct buf b = {0};
	va_list ap;

	va_start(ap, fmt);
	buf_vaddf(&b, fmt, ap);
	va_end(ap);
	return buf_detach(&b);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int dir_list(const char *path, char ***names, size_t *n, struct err *err)
{
	DIR *d = opendir(path);
	size_t cap = 0;
	struct dirent *e;

	*names = NULL;
	*n = 0;
	if (!d)
		return err_sys(err, ERR_STORAGE, "%s", path);
	while (errno = 0, (e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		MEM_GROW(*names, cap, *n + 1);
		(*names)[(*n)++] = xstrdup(e->d_name);
	}
	if (errno) {
		err_sys(err, ERR_STORAGE, "%s", path);
		names_free(*names, *n);
		*names = NULL;
		*n = 0;
		closedir(d);
		return -1;
	}
	closedir(d);
	if (*n > 1)
		qsort(*names, *n, sizeof(**names), by_name);
	return 0;
}

void names_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

int tree_remove(const char *path, struct err *err)
{
	char **names;
	size_t n;
	int rc = 0;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(err, ERR_STORAGE, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return unlink(path) < 0 && errno != ENOENT ? err_sys(err, ERR_STORAGE, "%s", path) : 0;
	if (dir_list(path, &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n && rc == 0; i++) {
		char *child = path_format("%s/%s", path, names[i]);

		rc = tree_remove(child, err);
		free(child);
	}
	names_free(names, n);
	if (rc == 0 && rmdir(path) < 0 && errno != ENOENT)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	return rc;
}

int file_sync(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return err_sys(err, ERR_STORAGE, "%s", path);
	if (fsync(fd) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	if (close(fd) < 0 && rc == 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	return rc;
}

int link_is(const char *path, const char *target)
{
	char found[256];
	ssize_t n = readlink(path, found, sizeof(found) - 1);

	return n > 0 && (size_t)n == strlen(target) && memcmp(found, target, (size_t)n) == 0;
}

int link_make(const char *path, const char *target, struct err *err)
{
	char *temporary = path_format("%s.tmp-%ld", path, (long)getpid());
	struct stat st;
	int rc = 0;

	if (link_is(path, target))
		goto out;
	if (lstat(path, &st) == 0 && !S_ISLNK(st.st_mode)) {
		rc = err_set(err, ERR_STORAGE, "%s: is in the way of the link to %s", path, target);
		goto out;
	}
	unlink(temporary);
	if (symlink(target, temporary) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", temporary);
	else if (rename(temporary, path) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	if (rc < 0)
		unlink(temporary);
out:
	free(temporary);
	return rc;
}

/* At least min_digits decimal digits from *s on; -1 when there are fewer or the number is absurd. Moves *s behind them. */
static int64_t parse_digits(const char **s, int min_digits)
{
	int64_t v = 0;
	int n = 0;

	for (; **s >= '0' && **s <= '9'; (*s)++, n++) {
		if (n == 9)
			return -1;
		v = v * 10 + (**s - '0');
	}
	return n < min_digits ? -1 : v;
}

int64_t name_number(const char *name, const char *prefix)
{
	size_t n = strlen(prefix);
	int64_t v;

	if (strncmp(name, prefix, n) != 0 || name[n] != '-')
		return -1;
	name += n + 1;
	v = parse_digits(&name, 4);
	return *name ? -1 : v;
}

int segment_name_parse(const char *name, struct segment_name *out)
{
	int64_t epoch, sequence;

	if (strncmp(name, "seg-", 4) != 0)
		return 0;
	name += 4;
	epoch = parse_digits(&name, 4);
	if (epoch < 0 || *name++ != '-')
		return 0;
	sequence = parse_digits(&name, 6);
	if (sequence < 0 || strcmp(name, ".db") != 0)
		return 0;
	*out = (struct segment_name){(int)epoch, (int)sequence};
	return 1;
}

static int by_segment(const void *pa, const void *pb)
{
	const struct segment_name *a = pa, *b = pb;

	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	return (a->sequence > b->sequence) - (a->sequence < b->sequence);
}

void shard_listing_take(struct shard_listing *l, char **names, size_t n, size_t skip)
{
	size_t cap = 0, unclean_cap = 0, at = 0;

	*l = (struct shard_listing){0};
	for (size_t i = 0; i < n; i++) {
		const char *name = names[i] + skip;
		int64_t claim = name_number(name, "claim"), release = name_number(name, "release"), flight = name_number(name, "flight");
		struct segment_name segment;

		if (claim > l->epoch)
			l->epoch = (int)claim;
		else if (release > l->released)
			l->released = (int)release;
		else if (strcmp(name, "done") == 0)
			l->is_done = 1;
		else if (strstr(name, ".tmp-"))
			l->n_temporary++;
		if (flight > 0) {
			MEM_GROW(l->unclean, unclean_cap, l->n_unclean + 1);
			l->unclean[l->n_unclean++] = (int)flight;
		}
		if (segment_name_parse(name, &segment)) {
			MEM_GROW(l->segments, cap, l->n_segments + 1);
			l->segments[l->n_segments++] = segment;
		}
	}
	/* Names ascend: flights come before releases. */
	for (size_t i = 0; i < n; i++) {
		int64_t release = name_number(names[i] + skip, "release");

		for (; release > 0 && at < l->n_unclean && l->unclean[at] <= release; at++)
			if (l->unclean[at] == release)
				memmove(l->unclean + at, l->unclean + at + 1, (--l->n_unclean - at) * sizeof(*l->unclean)), at--;
	}
	if (l->n_segments > 1)
		qsort(l->segments, l->n_segments, sizeof(*l->segments), by_segment);
}

int shard_listing_read(struct shard_listing *l, struct store *s, const char *shard_dir, struct err *err)
{
	char **names;
	size_t n;

	*l = (struct shard_listing){0};
	if (store_list(s, shard_dir, &names, &n, err) < 0)
		return -1;
	shard_listing_take(l, names, n, 0);
	store_names_free(names, n);
	return 0;
}

void shard_listing_release(struct shard_listing *l)
{
	free(l->segments);
	free(l->unclean);
	*l = (struct shard_listing){0};
}

int file_sum(const char *path, int64_t *n_bytes, char hex[SHA256_HEX_BYTES], struct err *err)
{
	struct sha256 *sum = sha256_new();
	struct file_map m = {0};
	int rc = file_map_open(&m, path, ERR_STORAGE, err);

	if (rc == 0)
		sha256_add(sum, m.data, m.n_bytes);
	*n_bytes = (int64_t)m.n_bytes;
	sha256_finish(sum, hex);
	file_map_close(&m);
	return rc;
}
