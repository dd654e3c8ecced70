/* store.c: from a place's name to its kind, and what all kinds share. */
#include "queue/store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "queue/layout.h"
#include "queue/store_private.h"

int store_is_url(const char *place)
{
	return strncmp(place, "s3://", 5) == 0;
}

struct store *store_open(const char *place, struct err *err)
{
	return store_is_url(place) ? store_s3_open(place, err) : store_dir_open(place, err);
}

void store_close(struct store *s)
{
	if (s)
		s->ops->close(s);
}

const char *store_place(const struct store *s)
{
	return s->place;
}

const char *store_dir(const struct store *s)
{
	return s->dir;
}

/* statfs(2), linux/magic.h; those that headers do not have: Lustre, Ceph, SMB, GPFS. FUSE: GlusterFS, JuiceFS, s3fs and their like. */
int store_is_remote(const struct store *s)
{
	static const unsigned remote[] = {0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x00C36400, 0x65735546, 0x5346414F, 0x0BD00BD0, 0x47504653};
	struct statfs fs;

	if (!s->dir)
		return 1;
	if (statfs(s->dir, &fs) < 0)
		return 0;
	for (size_t i = 0; i < sizeof(remote) / sizeof(remote[0]); i++)
		if ((unsigned)fs.f_type == remote[i])
			return 1;
	return 0;
}

char *store_name(const struct store *s, const char *name)
{
	return *name ? path_format("%s/%s", s->place, name) : xstrdup(s->place);
}

int store_prepare(struct store *s, struct err *err)
{
	return s->ops->prepare(s, err);
}

int store_create(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	return s->ops->create(s, name, data, n, err);
}

int store_put(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	return s->ops->put(s, name, data, n, err);
}

int store_note(struct store *s, const char *name, const void *data, size_t n, struct err *err)
{
	return s->ops->note(s, name, data, n, err);
}

int store_put_file(struct store *s, const char *name, const char *path, struct err *err)
{
	return s->ops->put_file(s, name, path, err);
}

int store_get(struct store *s, const char *name, size_t max_bytes, struct buf *out, struct err *err)
{
	return s->ops->get(s, name, max_bytes, out, err);
}

int store_exists(struct store *s, const char *name, struct err *err)
{
	return s->ops->exists(s, name, err);
}

int store_fetch(struct store *s, const char *name, struct store_file *f, struct err *err)
{
	*f = (struct store_file){0};
	return s->ops->fetch(s, name, f, err);
}

void store_file_release(struct store_file *f)
{
	if (f->is_copy && f->path)
		unlink(f->path);
	free(f->path);
	*f = (struct store_file){0};
}

int store_list(struct store *s, const char *dir, char ***names, size_t *n, struct err *err)
{
	*names = NULL;
	*n = 0;
	return s->ops->list(s, dir, names, n, err);
}

int store_list_tree(struct store *s, const char *dir, char ***names, size_t *n, struct err *err)
{
	*names = NULL;
	*n = 0;
	return s->ops->list_tree(s, dir, names, n, err);
}

void store_names_free(char **names, size_t n)
{
	names_free(names, n);
}

int store_remove(struct store *s, const char *name, struct err *err)
{
	return s->ops->remove(s, name, err);
}

int store_remove_tree(struct store *s, const char *dir, struct err *err)
{
	return s->ops->remove_tree(s, dir, err);
}
