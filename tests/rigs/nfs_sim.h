/* nfs_sim.h: a pass-through file system for tests that behaves as NFS mounted with `nolock` does. Started once for each
 * "client": two mounts of one backing directory are two hosts that share it.
 *
 *     process -> kernel (FUSE: names and attributes cached) -> nfs_sim of host a -+-> backing directory, the "server"
 *     process -> kernel                                     -> nfs_sim of host b -+
 *
 * What holds, and where it comes from (nfs(5), RFC 1813; the Linux client where they leave it open):
 * - fcntl and flock locks are granted to everybody.
 * - Names, also those that are missing, attributes and listings are cached for up to cache_s: what the other host does is seen
 * late. A host sees its own changes. Opening a file asks the server for its attributes (close-to-open); creating, linking and
 * renaming always do.
 * - Written bytes stay with the client until fsync, close, or a read; a full disk is told only then, and the bytes are lost.
 * - A file that the other host removed answers ESTALE, also to those who have it open; one that this host removed can still be
 * read.
 * - rename knows no flags (RENAME_EXCHANGE is EINVAL).
 * - Now and then an operation fails, or is done and its reply is lost: then the caller gets EIO (a soft mount), or the answer
 * to its second try (EEXIST, ENOENT).
 *
 * Errors are negative errno values here, as the kernel wants them positive only in its replies.
 */
#ifndef TOKENMILL_TESTS_NFS_SIM_H
#define TOKENMILL_TESTS_NFS_SIM_H

#define FUSE_USE_VERSION 35

#include <fuse3/fuse_lowlevel.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

/* ---- faults ---- */

enum fault {
	FAULT_NONE = 0,
	FAULT_EIO,        /* not done */
	FAULT_ESTALE,     /* not done */
	FAULT_ENOSPC,     /* not done; of written bytes the first half is */
	FAULT_LOST,       /* done; the caller gets EIO */
	FAULT_LOST_RETRY, /* done, and tried again: the caller gets the answer of that */
};

enum fault_class {
	FAULT_CLASS_READ,   /* look up, stat, open, read, list */
	FAULT_CLASS_COMMIT, /* written bytes on their way to the server */
	FAULT_CLASS_CREATE, /* a new file */
	FAULT_CLASS_NAME,   /* mkdir, symlink, link */
	FAULT_CLASS_REMOVE, /* unlink, rmdir, rename */
};

struct fault_source {
	double rate, read_rate; /* probability that one operation fails */
	char *control; /* directory, or NULL: faults are on. Else: on while it holds "faults"; the disk is full while it holds
	                  "full" */
	FILE *log;     /* one line for each fault: operation, kind, name; may be NULL */
	pthread_mutex_t lock; /* of the fields below and of the log */
	uint64_t random;
};

/* What is to happen to this operation; told to the log. Any thread. */
enum fault fault_choose(struct fault_source *f, enum fault_class class, const char *operation, const char *name);
/* The errno of a fault that keeps an operation from being done; 0 for the others. */
int fault_refuses(enum fault fault);
int fault_disk_is_full(struct fault_source *f);
double fault_uniform(struct fault_source *f); /* [0, 1) */

/* ---- nodes ---- */

/* A listing is shared by the directory's cache and the handles that read it. */
struct listing {
	int n_users; /* under the node's lock */
	size_t n, cap;
	struct listing_entry {
		char *name;
		ino_t ino;
		mode_t type;
	} * entries;
};

struct pending_write {
	struct pending_write *next;
	off_t offset;
	size_t n;
	char data[];
};

/* One file or directory that the kernel knows: it lives as long as the kernel remembers it. */
struct node {
	struct node *next; /* in its bucket */
	dev_t dev;
	ino_t ino;
	int fd;               /* O_PATH: holds on to the inode, so its number is not given to another file */
	uint64_t n_lookups;   /* under the table's lock */
	int is_removed_here;  /* its last name was taken away through this mount */
	pthread_mutex_t lock; /* of the fields below */
	struct pending_write *first, *last;
	size_t n_pending_bytes;
	off_t pending_end; /* size of the file once they are written */
	int write_errno;   /* a failure that fsync or close is to tell */
	struct listing *listing;
	double listing_ends; /* monotonic seconds */
};

#define N_BUCKETS 4096

struct sim {
	struct fuse_session *session;
	double cache_s; /* longest time that something stale is believed */
	struct fault_source faults;
	pthread_mutex_t lock; /* of the table */
	struct node root;
	struct node *buckets[N_BUCKETS];
};

struct node *node_from_ino(struct sim *s, fuse_ino_t ino);
fuse_ino_t node_ino(struct sim *s, const struct node *n);
/* The node of a name below dir, with one more lookup counted; *st as the kernel should see it. 0 or -errno. */
int node_lookup(struct sim *s, const struct node *dir, const char *name, struct node **out, struct stat *st);
/* The node of a name if the kernel knows it; NULL. It stays only as long as the kernel cannot forget it: during an operation on
 * that name. */
struct node *node_known(struct sim *s, const struct node *dir, const char *name, nlink_t *n_links);
void node_forget(struct sim *s, struct node *n, uint64_t n_lookups);
/* Attributes with what is written but not yet sent. -ESTALE: the other host removed it. */
int node_stat(struct node *n, struct stat *st);
/* Open the file itself again; 0.. or -errno. */
int node_open(const struct node *n, int flags);

/* Keep bytes for later. Sends them when they are many. */
int node_write(struct sim *s, struct node *n, const char *data, size_t size, off_t offset);
/* Send what is kept. may_fail: with faults, and what was kept back by an earlier failure. -errno: the bytes are lost. */
int node_commit(struct sim *s, struct node *n, int may_fail, const char *operation);

/* The directory's names as this host sees them; return it with listing_release. */
int node_list(struct sim *s, struct node *dir, struct listing **out);
void listing_release(struct node *dir, struct listing *l);
void node_changed(struct node *dir); /* by this host: the next listing is fresh */

/* ---- operations ---- */

extern const struct fuse_lowlevel_ops nfs_sim_ops;

#endif
