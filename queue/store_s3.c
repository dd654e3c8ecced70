/* store_s3.c: a job's place in a bucket. A name is a key below the prefix; a "directory" is what keys have in common.
 *
 * One writer wins: PutObject with If-None-Match: * is refused (412) where the key exists ("Conditional writes", Amazon S3 User
 * Guide). A 412 may also be the answer to a second try whose first one was done while its reply was lost; so the object is
 * read, and our bytes there mean that we made it. A store that ignores the header would let every claim win: store_prepare
 * finds that out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/s3.h"
#include "queue/store_private.h"

/* Where the probe of store_prepare lies for a moment. No part of a job: listings leave it out, should one be left over. */
#define PROBE "exclusive-probe-"

struct store_s3 {
	struct store base;
	struct s3 *s3;
	char *bucket;
	char *prefix; /* of all keys: "" or "path/" */
};

static struct store_s3 *of(struct store *s)
{
	return (struct store_s3 *)s;
}

static char *key_of(const struct store_s3 *s, const char *name)
{
	struct buf b = {0};

	buf_addf(&b, "%s%s", s->prefix, name);
	return buf_detach(&b);
}

static void s3_store_close(struct store *base)
{
	struct store_s3 *s = of(base);

	s3_close(s->s3);
	free(s->bucket);
	free(s->prefix);
	free(s->base.place);
	free(s);
}

/* ---- objects ---- */

struct comparison {
	const char *data;
	size_t n, at;
	int differs;
};

static int on_compare(void *arg, const void *p, size_t n)
{
	struct comparison *c = arg;

	if (n > c->n - c->at || memcmp(c->data + c->at, p, n) != 0) {
		c->differs = 1;
		return -1;
	}
	c->at += n;
	return 0;
}

static int create_key(struct store_s3 *s, const char *key, const void *data, size_t n, struct err *err)
{
	/* The object may be removed between the two requests, and be created again by yet another: not for ever. */
	for (int i = 0; i < 10; i++) {
		struct comparison c = {.data = data, .n = n};
		int rc = s3_put_new(s->s3, s->bucket, key, data, n, err);

		if (rc != 0)
			return rc;
		rc = s3_get_stream(s->s3, s->bucket, key, 0, on_compare, &c, err);
		if (rc < 0)
			return -1;
		if (rc > 0)
			return !c.differs && c.at == n;
	}
	return err_set(err, ERR_STORAGE, "s3://%s/%s: is created and removed again and again", s->bucket, key);
}

static int s3_store_create(struct store *base, const char *name, const void *data, size_t n, struct err *err)
{
	char *key = key_of(of(base), name);
	int rc = create_key(of(base), key, data, n, err);

	free(key);
	return rc;
}

static int s3_store_put(struct store *base, const char *name, const void *data, size_t n, struct err *err)
{
	struct store_s3 *s = of(base);
	char *key = key_of(s, name);
	int rc = s3_put(s->s3, s->bucket, key, data, n, err);

	free(key);
	return rc;
}

static int s3_store_put_file(struct store *base, const char *name, const char *path, struct err *err)
{
	struct store_s3 *s = of(base);
	char *key = key_of(s, name);
	int rc = s3_put_file(s->s3, s->bucket, key, path, err);

	if (rc == 0 && unlink(path) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	free(key);
	return rc;
}

static int s3_store_get(struct store *base, const char *name, size_t max_bytes, struct buf *out, struct err *err)
{
	struct store_s3 *s = of(base);
	char *key = key_of(s, name);
	int rc = s3_get(s->s3, s->bucket, key, max_bytes, out, err);

	free(key);
	return rc;
}

static int s3_store_exists(struct store *base, const char *name, struct err *err)
{
	struct store_s3 *s = of(base);
	char *key = key_of(s, name);
	struct s3_object object;
	int rc = s3_head(s->s3, s->bucket, key, &object, err);

	free(key);
	return rc;
}

static int s3_store_fetch(struct store *base, const char *name, struct store_file *f, struct err *err)
{
	struct store_s3 *s = of(base);
	const char *dir = getenv("TMPDIR");
	struct buf path = {0};
	char *key = key_of(s, name);
	int fd, rc;

	buf_addf(&path, "%s/tokenmill-XXXXXX", dir && *dir ? dir : "/tmp");
	fd = mkstemp(path.data);
	if (fd < 0) {
		rc = err_sys(err, ERR_STORAGE, "%s", path.data);
	} else {
		close(fd);
		rc = s3_get_file(s->s3, s->bucket, key, path.data, err);
	}
	if (rc == 1)
		*f = (struct store_file){.path = buf_detach(&path), .is_copy = 1};
	buf_release(&path);
	free(key);
	return rc;
}

static int s3_store_remove(struct store *base, const char *name, struct err *err)
{
	struct store_s3 *s = of(base);
	char *key = key_of(s, name);
	int rc = s3_remove(s->s3, s->bucket, key, err);

	free(key);
	return rc;
}

/* ---- listings ---- */

struct name_list {
	size_t n_skip; /* bytes of a key before the name */
	int is_tree, is_root;
	char **names;
	size_t n, cap;
};

static int on_name(void *arg, const char *key, int is_prefix, struct err *err)
{
	struct name_list *l = arg;
	const char *name = key + l->n_skip;
	size_t n = strlen(name);

	if (is_prefix && n > 0)
		n--; /* its delimiter */
	/* A key that ends in '/' is what some tools make for an empty folder. */
	if (n == 0 || (!is_prefix && name[n - 1] == '/') || (l->is_root && strncmp(name, PROBE, strlen(PROBE)) == 0))
		return 0;
	MEM_GROW(l->names, l->cap, l->n + 1);
	l->names[l->n++] = xmemdup(name, n);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "a" and "a/b" are both possible: "a" is one name. */
static void sort_names(struct name_list *l)
{
	size_t kept = 0;

	if (l->n == 0)
		return;
	qsort(l->names, l->n, sizeof(*l->names), compare_names);
	for (size_t i = 1; i < l->n; i++) {
		if (strcmp(l->names[i], l->names[kept]) == 0)
			free(l->names[i]);
		else
			l->names[++kept] = l->names[i];
	}
	l->n = kept + 1;
}

static int list(struct store_s3 *s, const char *dir, const char *delimiter, char ***names, size_t *n, struct err *err)
{
	struct name_list l = {.is_root = *dir == '\0'};
	struct buf prefix = {0};
	int rc;

	buf_addf(&prefix, "%s%s%s", s->prefix, dir, *dir ? "/" : "");
	l.n_skip = prefix.len;
	rc = s3_list(s->s3, s->bucket, buf_str(&prefix), delimiter, on_name, &l, err);
	buf_release(&prefix);
	if (rc < 0) {
		store_names_free(l.names, l.n);
		return -1;
	}
	sort_names(&l);
	*names = l.names;
	*n = l.n;
	return 0;
}

static int s3_store_list(struct store *base, const char *dir, char ***names, size_t *n, struct err *err)
{
	return list(of(base), dir, "/", names, n, err);
}

static int s3_store_list_tree(struct store *base, const char *dir, char ***names, size_t *n, struct err *err)
{
	return list(of(base), dir, NULL, names, n, err);
}

static int on_key(void *arg, const char *key, int is_prefix, struct err *err)
{
	struct name_list *l = arg;

	MEM_GROW(l->names, l->cap, l->n + 1);
	l->names[l->n++] = xstrdup(key);
	return 0;
}

/* One request for each: DeleteObjects is not everywhere, and it reports failures key by key. */
static int s3_store_remove_tree(struct store *base, const char *dir, struct err *err)
{
	struct store_s3 *s = of(base);
	struct name_list l = {0};
	struct buf prefix = {0};
	int rc;

	buf_addf(&prefix, "%s%s%s", s->prefix, dir, *dir ? "/" : "");
	rc = s3_list(s->s3, s->bucket, buf_str(&prefix), NULL, on_key, &l, err);
	for (size_t i = 0; i < l.n && rc == 0; i++)
		rc = s3_remove(s->s3, s->bucket, l.names[i], err);
	buf_release(&prefix);
	store_names_free(l.names, l.n);
	return rc;
}

/* ---- preparing ---- */

static int s3_store_prepare(struct store *base, struct err *err)
{
	struct store_s3 *s = of(base);
	struct buf name = {0};
	char first[S3_RANDOM_BYTES], second[S3_RANDOM_BYTES];
	char *key;
	int rc;

	s3_random(first);
	s3_random(second);
	buf_addf(&name, PROBE "%s", first);
	key = key_of(s, name.data);
	rc = create_key(s, key, first, strlen(first), err);
	if (rc == 0)
		err_set(err, ERR_STORAGE, "the new object %s is said to exist", key);
	if (rc == 1) {
		rc = create_key(s, key, second, strlen(second), err);
		if (rc == 1)
			err_set(err, ERR_STORAGE, "the store ignores If-None-Match: jobs with claims cannot run on it");
		rc = s3_remove(s->s3, s->bucket, key, err) < 0 || rc != 0 ? -1 : 0;
	} else {
		rc = -1;
	}
	if (rc < 0)
		err_context(err, "%s", s->base.place);
	free(key);
	buf_release(&name);
	return rc;
}

/* ---- opening ---- */

static const struct store_ops ops = {
	.close = s3_store_close,
	.prepare = s3_store_prepare,
	.create = s3_store_create,
	.put = s3_store_put,
	.note = s3_store_put,
	.put_file = s3_store_put_file,
	.get = s3_store_get,
	.exists = s3_store_exists,
	.fetch = s3_store_fetch,
	.list = s3_store_list,
	.list_tree = s3_store_list_tree,
	.remove = s3_store_remove,
	.remove_tree = s3_store_remove_tree,
};

struct store *store_s3_open(const char *place, struct err *err)
{
	struct store_s3 *s = xcalloc(1, sizeof(*s));
	size_t n = strlen(place);

	while (n > 5 && place[n - 1] == '/')
		n--;
	s->base = (struct store){.ops = &ops, .place = xmemdup(place, n)};
	if (s3_url_parse(s->base.place, &s->bucket, &s->prefix, err) < 0)
		goto fail;
	if (*s->prefix) {
		struct buf b = {0};

		buf_addf(&b, "%s/", s->prefix);
		free(s->prefix);
		s->prefix = buf_detach(&b);
	}
	s->s3 = s3_open(err);
	if (s->s3)
		return &s->base;
fail:
	s3_store_close(&s->base);
	return NULL;
}
