/* store_private.h: what a kind of store fills in. */
#ifndef TOKENMILL_QUEUE_STORE_PRIVATE_H
#define TOKENMILL_QUEUE_STORE_PRIVATE_H

#include "queue/store.h"

/* Each as the function of the same name in store.h. */
struct store_ops {
	void (*close)(struct store *s);
	int (*prepare)(struct store *s, struct err *err);
	int (*create)(struct store *s, const char *name, const void *data, size_t n, struct err *err);
	int (*put)(struct store *s, const char *name, const void *data, size_t n, struct err *err);
	int (*note)(struct store *s, const char *name, const void *data, size_t n, struct err *err);
	int (*put_file)(struct store *s, const char *name, const char *path, struct err *err);
	int (*get)(struct store *s, const char *name, size_t max_bytes, struct buf *out, struct err *err);
	int (*exists)(struct store *s, const char *name, struct err *err);
	int (*fetch)(struct store *s, const char *name, struct store_file *f, struct err *err);
	int (*list)(struct store *s, const char *dir, char ***names, size_t *n, struct err *err);
	int (*list_tree)(struct store *s, const char *dir, char ***names, size_t *n, struct err *err);
	int (*remove)(struct store *s, const char *name, struct err *err);
	int (*remove_tree)(struct store *s, const char *dir, struct err *err);
};

struct store { /* first member of a kind's own struct */
	const struct store_ops *ops;
	char *place; /* without a trailing slash */
	const char *dir; /* = place for a directory, else NULL */
};

struct store *store_dir_open(const char *place, struct err *err);
struct store *store_s3_open(const char *place, struct err *err);

#endif
