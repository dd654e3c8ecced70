/* nfs_sim_node.c: what a client remembers of files and directories, and the bytes it has not sent yet. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/rigs/nfs_sim.h"

/* The Linux client starts to send long before memory is out; the size does not matter here. */
#define MOST_PENDING_BYTES ((size_t)8 << 20)

/* ---- the table ---- */

struct node *node_from_ino(struct sim *s, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &s->root : (struct node *)(uintptr_t)ino;
}

fuse_ino_t node_ino(struct sim *s, const struct node *n)
{
	return n == &s->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
}

static struct node **bucket(struct sim *s, dev_t dev, ino_t ino)
{
	return &s->buckets[(ino * 2654435761u + dev) % N_BUCKETS];
}

/* Under the table's lock. */
static struct node *find(struct sim *s, const struct stat *st)
{
	if (st->st_ino == s->root.ino && st->st_dev == s->root.dev)
		return &s->root;
	for (struct node *n = *bucket(s, st->st_dev, st->st_ino); n; n = n->next)
		if (n->ino == st->st_ino && n->dev == st->st_dev)
			return n;
	return NULL;
}

int node_lookup(struct sim *s, const struct node *dir, const char *name, struct node **out, struct stat *st)
{
	int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), rc;
	struct node *n;

	if (fd < 0)
		return -errno;
	if (fstatat(fd, "", st, AT_EMPTY_PATH) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	pthread_mutex_lock(&s->lock);
	n = find(s, st);
	if (n) {
		close(fd);
	} else {
		n = xcalloc(1, sizeof(*n));
		n->dev = st->st_dev;
		n->ino = st->st_ino;
		n->fd = fd;
		pthread_mutex_init(&n->lock, NULL);
		n->next = *bucket(s, n->dev, n->ino);
		*bucket(s, n->dev, n->ino) = n;
	}
	n->n_lookups++;
	pthread_mutex_unlock(&s->lock);
	*out = n;
	rc = node_stat(n, st);
	if (rc < 0)
		node_forget(s, n, 1);
	return rc;
}

struct node *node_known(struct sim *s, const struct node *dir, const char *name, nlink_t *n_links)
{
	struct stat st;
	struct node *n;

	if (fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return NULL;
	*n_links = S_ISDIR(st.st_mode) ? 1 : st.st_nlink;
	pthread_mutex_lock(&s->lock);
	n = find(s, &st);
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void listing_unref(struct listing *l)
{
	if (!l || --l->n_users > 0)
		return;
	for (size_t i = 0; i < l->n; i++)
		free(l->entries[i].name);
	free(l->entries);
	free(l);
}

static void drop_pending(struct node *n)
{
	while (n->first) {
		struct pending_write *w = n->first;

		n->first = w->next;
		free(w);
	}
	n->last = NULL;
	n->n_pending_bytes = 0;
	n->pending_end = 0;
}

void node_forget(struct sim *s, struct node *n, uint64_t n_lookups)
{
	struct node **p;

	if (n == &s->root)
		return;
	pthread_mutex_lock(&s->lock);
	n->n_lookups -= n_lookups;
	if (n->n_lookups > 0) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	for (p = bucket(s, n->dev, n->ino); *p != n; p = &(*p)->next)
		;
	*p = n->next;
	pthread_mutex_unlock(&s->lock);
	drop_pending(n);
	listing_unref(n->listing);
	pthread_mutex_destroy(&n->lock);
	close(n->fd);
	free(n);
}

int node_stat(struct node *n, struct stat *st)
{
	int rc = 0;

	pthread_mutex_lock(&n->lock);
	if (fstatat(n->fd, "", st, AT_EMPTY_PATH) < 0)
		rc = -errno;
	else if (st->st_nlink == 0 && !n->is_removed_here)
		rc = -ESTALE;
	else if (n->first && n->pending_end > st->st_size)
		st->st_size = n->pending_end;
	pthread_mutex_unlock(&n->lock);
	return rc;
}

int node_open(const struct node *n, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", n->fd);
	fd = open(path, (flags & (O_ACCMODE | O_TRUNC)) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* ---- written bytes ---- */

/* Under the node's lock. half: the first half of the bytes only, as a disk that fills up does. */
static int send_pending(struct node *n, int half)
{
	size_t left = half ? n->n_pending_bytes / 2 : n->n_pending_bytes;
	int fd = node_open(n, O_WRONLY), rc = fd < 0 ? fd : 0;

	for (struct pending_write *w = n->first; w && rc == 0 && left > 0; w = w->next) {
		size_t size = w->n < left ? w->n : left;

		for (size_t done = 0; done < size && rc == 0;) {
			ssize_t k = pwrite(fd, w->data + done, size - done, w->offset + (off_t)done);

			if (k < 0)
				rc = -errno;
			else
				done += (size_t)k;
		}
		left -= size;
	}
	if (fd >= 0)
		close(fd);
	drop_pending(n);
	return rc;
}

int node_commit(struct sim *s, struct node *n, int may_fail, const char *operation)
{
	int rc = 0;

	pthread_mutex_lock(&n->lock);
	if (n->first) {
		enum fault fault = may_fail ? fault_choose(&s->faults, FAULT_CLASS_COMMIT, operation, "-") : FAULT_NONE;
		int refused = fault_refuses(fault);

		rc = send_pending(n, refused != 0);
		if (refused)
			rc = -refused;
		else if (fault != FAULT_NONE)
			rc = -EIO;
	}
	if (rc < 0 && !may_fail)
		n->write_errno = -rc;
	if (may_fail && rc == 0 && n->write_errno)
		rc = -n->write_errno;
	if (may_fail)
		n->write_errno = 0; /* told once */
	pthread_mutex_unlock(&n->lock);
	return rc;
}

int node_write(struct sim *s, struct node *n, const char *data, size_t size, off_t offset)
{
	struct pending_write *w = xmalloc(sizeof(*w) + size);
	int is_much;

	w->next = NULL;
	w->offset = offset;
	w->n = size;
	memcpy(w->data, data, size);
	pthread_mutex_lock(&n->lock);
	if (n->last)
		n->last->next = w;
	else
		n->first = w;
	n->last = w;
	n->n_pending_bytes += size;
	if (offset + (off_t)size > n->pending_end)
		n->pending_end = offset + (off_t)size;
	is_much = n->n_pending_bytes > MOST_PENDING_BYTES;
	pthread_mutex_unlock(&n->lock);
	return is_much ? node_commit(s, n, 1, "write") : 0;
}

/* ---- listings ---- */

static int read_listing(const struct node *dir, struct listing **out)
{
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct listing *l;
	struct dirent *e;
	int rc;

	if (!d) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	l = xcalloc(1, sizeof(*l));
	l->n_users = 1;
	while ((e = readdir(d))) {
		MEM_GROW(l->entries, l->cap, l->n + 1);
		l->entries[l->n++] = (struct listing_entry){xstrdup(e->d_name), e->d_ino, DTTOIF(e->d_type)};
	}
	closedir(d);
	*out = l;
	return 0;
}

int node_list(struct sim *s, struct node *dir, struct listing **out)
{
	double now = clock_seconds();
	int rc = 0;

	pthread_mutex_lock(&dir->lock);
	if (!dir->listing || now >= dir->listing_ends) {
		listing_unref(dir->listing);
		dir->listing = NULL;
		rc = read_listing(dir, &dir->listing);
		dir->listing_ends = now + fault_uniform(&s->faults) * s->cache_s;
	}
	if (dir->listing) {
		*out = dir->listing;
		dir->listing->n_users++;
	}
	pthread_mutex_unlock(&dir->lock);
	return rc;
}

void listing_release(struct node *dir, struct listing *l)
{
	pthread_mutex_lock(&dir->lock);
	listing_unref(l);
	pthread_mutex_unlock(&dir->lock);
}

void node_changed(struct node *dir)
{
	pthread_mutex_lock(&dir->lock);
	listing_unref(dir->listing);
	dir->listing = NULL;
	pthread_mutex_unlock(&dir->lock);
}
