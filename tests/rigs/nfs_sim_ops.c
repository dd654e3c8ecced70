/* nfs_sim_ops.c: the operations, as the kernel asks for them. Each has the same shape: shall it fail; do it; what does this
 * host know now. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/rigs/nfs_sim.h"

static struct sim *sim_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static double cache_time(struct sim *s)
{
	return fault_uniform(&s->faults) * s->cache_s;
}

/* An operation that reads: 1 when it was answered with a fault. */
static int refused_read(fuse_req_t req, const char *operation, const char *name)
{
	enum fault fault = fault_choose(&sim_of(req)->faults, FAULT_CLASS_READ, operation, name);

	if (fault == FAULT_NONE)
		return 0;
	fuse_reply_err(req, fault_refuses(fault));
	return 1;
}

/* ---- names ---- */

static void reply_entry(fuse_req_t req, struct node *n, const struct stat *st)
{
	struct sim *s = sim_of(req);
	struct fuse_entry_param e = {
	    .ino = node_ino(s, n), .attr = *st, .attr_timeout = cache_time(s), .entry_timeout = cache_time(s)};

	if (fuse_reply_entry(req, &e) == -ENOENT) /* the caller was interrupted */
		node_forget(s, n, 1);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sim *s = sim_of(req);
	struct fuse_entry_param none = {.entry_timeout = cache_time(s)};
	struct node *n;
	struct stat st;
	int rc;

	if (refused_read(req, "lookup", name))
		return;
	rc = node_lookup(s, node_from_ino(s, parent), name, &n, &st);
	if (rc == -ENOENT)
		fuse_reply_entry(req, &none); /* a cached absence */
	else if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		reply_entry(req, n, &st);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n_lookups)
{
	struct sim *s = sim_of(req);

	node_forget(s, node_from_ino(s, ino), n_lookups);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *forgets)
{
	struct sim *s = sim_of(req);

	for (size_t i = 0; i < n; i++)
		node_forget(s, node_from_ino(s, forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

/* A new name was made by a call that returned rc (0, or -1 with errno), under this fault: answer with its entry, or with what
 * went wrong. */
static void reply_new_name(fuse_req_t req, struct node *dir, const char *name, int rc, enum fault fault)
{
	struct sim *s = sim_of(req);
	struct node *n = NULL;
	struct stat st;

	rc = rc < 0 ? -errno : 0;
	if (rc == 0)
		node_changed(dir);
	if (rc == 0 && fault == FAULT_LOST)
		rc = -EIO;
	if (rc == 0 && fault == FAULT_LOST_RETRY)
		rc = -EEXIST;
	if (rc == 0)
		rc = node_lookup(s, dir, name, &n, &st);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		reply_entry(req, n, &st);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct sim *s = sim_of(req);
	struct node *dir = node_from_ino(s, parent);
	enum fault fault = fault_choose(&s->faults, FAULT_CLASS_NAME, "mkdir", name);

	if (fault_refuses(fault))
		fuse_reply_err(req, fault_refuses(fault));
	else
		reply_new_name(req, dir, name, mkdirat(dir->fd, name, mode), fault);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct sim *s = sim_of(req);
	struct node *dir = node_from_ino(s, parent);
	enum fault fault = fault_choose(&s->faults, FAULT_CLASS_NAME, "symlink", name);

	if (fault_refuses(fault))
		fuse_reply_err(req, fault_refuses(fault));
	else
		reply_new_name(req, dir, name, symlinkat(target, dir->fd, name), fault);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct sim *s = sim_of(req);
	struct node *n = node_from_ino(s, ino), *dir = node_from_ino(s, parent);
	enum fault fault = fault_choose(&s->faults, FAULT_CLASS_NAME, "link", name);
	char path[64];
	int rc;

	if (fault_refuses(fault)) {
		fuse_reply_err(req, fault_refuses(fault));
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", n->fd);
	rc = linkat(AT_FDCWD, path, dir->fd, name, AT_SYMLINK_FOLLOW);
	/* Even a refusal carries the file's attributes, its number of links among them (RFC 1813 3.3.15). Attributes alone: no lock
	 * is needed that the caller may hold. */
	if (fault == FAULT_LOST_RETRY || rc < 0) {
		int saved = errno;

		fuse_lowlevel_notify_inval_inode(s->session, ino, -1, 0);
		errno = saved;
	}
	reply_new_name(req, dir, name, rc, fault);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
	struct sim *s = sim_of(req);
	struct node *dir = node_from_ino(s, parent), *n;
	enum fault fault = fault_choose(&s->faults, FAULT_CLASS_REMOVE, flags ? "rmdir" : "unlink", name);
	nlink_t n_links = 0;
	int rc = -fault_refuses(fault);

	if (rc == 0) {
		n = node_known(s, dir, name, &n_links);
		if (n && n_links == 1)
			n->is_removed_here = 1;
		rc = unlinkat(dir->fd, name, flags) < 0 ? -errno : 0;
		if (rc < 0 && n && n_links == 1)
			n->is_removed_here = 0;
		if (rc == 0)
			node_changed(dir);
		if (rc == 0 && fault != FAULT_NONE)
			rc = fault == FAULT_LOST ? -EIO : -ENOENT;
	}
	fuse_reply_err(req, -rc);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, AT_REMOVEDIR);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags)
{
	struct sim *s = sim_of(req);
	struct node *from = node_from_ino(s, parent), *to = node_from_ino(s, new_parent), *replaced;
	enum fault fault = fault_choose(&s->faults, FAULT_CLASS_REMOVE, "rename", new_name);
	nlink_t n_links = 0;
	int rc = flags ? -EINVAL : -fault_refuses(fault);

	if (rc == 0) {
		replaced = node_known(s, to, new_name, &n_links);
		if (replaced && n_links == 1)
			replaced->is_removed_here = 1;
		rc = renameat(from->fd, name, to->fd, new_name) < 0 ? -errno : 0;
		if (rc < 0 && replaced && n_links == 1)
			replaced->is_removed_here = 0;
		if (rc == 0) {
			node_changed(from);
			node_changed(to);
		}
		if (rc == 0 && fault != FAULT_NONE)
			rc = fault == FAULT_LOST ? -EIO : -ENOENT;
	}
	fuse_reply_err(req, -rc);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[4097];
	ssize_t n;

	if (refused_read(req, "readlink", "-"))
		return;
	n = readlinkat(node_from_ino(sim_of(req), ino)->fd, "", target, sizeof(target) - 1);
	if (n < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	target[n] = '\0';
	fuse_reply_readlink(req, target);
}

/* ---- attributes ---- */

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	struct stat st;
	int rc;

	if (ino != FUSE_ROOT_ID && refused_read(req, "getattr", "-"))
		return;
	rc = node_stat(node_from_ino(s, ino), &st);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_attr(req, &st, cache_time(s));
}

static int set_attributes(struct sim *s, struct node *n, const struct stat *attr, int to_set)
{
	char path[64];
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	snprintf(path, sizeof(path), "/proc/self/fd/%d", n->fd);
	if ((to_set & FUSE_SET_ATTR_MODE) && chmod(path, attr->st_mode) < 0)
		return -errno;
	if ((to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) &&
	    fchownat(n->fd, "", to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
	             to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1, AT_EMPTY_PATH) < 0)
		return -errno;
	if (to_set & FUSE_SET_ATTR_SIZE) {
		int rc = node_commit(s, n, 0, "truncate");

		if (rc < 0)
			return rc;
		if (truncate(path, attr->st_size) < 0)
			return -errno;
	}
	if (to_set & FUSE_SET_ATTR_ATIME)
		times[0] = to_set & FUSE_SET_ATTR_ATIME_NOW ? (struct timespec){.tv_nsec = UTIME_NOW} : attr->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME)
		times[1] = to_set & FUSE_SET_ATTR_MTIME_NOW ? (struct timespec){.tv_nsec = UTIME_NOW} : attr->st_mtim;
	if ((to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) && utimensat(AT_FDCWD, path, times, 0) < 0)
		return -errno;
	return 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	struct node *n = node_from_ino(s, ino);
	struct stat st;
	int rc;

	if (refused_read(req, "setattr", "-"))
		return;
	rc = set_attributes(s, n, attr, to_set);
	if (rc == 0)
		rc = node_stat(n, &st);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_attr(req, &st, cache_time(s));
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct sim *s = sim_of(req);
	struct statvfs v;

	if (fstatvfs(s->root.fd, &v) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	if (fault_disk_is_full(&s->faults))
		v.f_bfree = v.f_bavail = 0;
	fuse_reply_statfs(req, &v);
}

/* ---- files ---- */

struct handle {
	int fd;
	int is_writable;
};

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

static void handle_new(struct fuse_file_info *fi, int fd)
{
	struct handle *h = xmalloc(sizeof(*h));

	h->fd = fd;
	h->is_writable = (fi->flags & O_ACCMODE) != O_RDONLY;
	fi->fh = (uintptr_t)h;
}

static void handle_free(struct fuse_file_info *fi)
{
	close(handle_of(fi)->fd);
	free(handle_of(fi));
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	struct node *dir = node_from_ino(s, parent), *n = NULL;
	enum fault fault = fault_choose(&s->faults, FAULT_CLASS_CREATE, "create", name);
	struct fuse_entry_param e = {0};
	int fd = -1, rc = -fault_refuses(fault);

	if (rc == 0) {
		fd = openat(dir->fd, name, (fi->flags & (O_ACCMODE | O_EXCL | O_TRUNC)) | O_CREAT | O_CLOEXEC, mode);
		rc = fd < 0 ? -errno : 0;
	}
	if (rc == 0) {
		node_changed(dir);
		rc = fault == FAULT_LOST ? -EIO : node_lookup(s, dir, name, &n, &e.attr);
	}
	if (rc < 0) {
		if (fd >= 0)
			close(fd);
		fuse_reply_err(req, -rc);
		return;
	}
	e.ino = node_ino(s, n);
	e.attr_timeout = cache_time(s);
	e.entry_timeout = cache_time(s);
	handle_new(fi, fd);
	if (fuse_reply_create(req, &e, fi) == -ENOENT) {
		handle_free(fi);
		node_forget(s, n, 1);
	}
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	struct node *n = node_from_ino(s, ino);
	struct stat st;
	int fd;

	if (refused_read(req, "open", "-"))
		return;
	/* Close-to-open: what was cached of its attributes is asked for again. Its pages go as well, as FOPEN_KEEP_CACHE is not
	 * given. A file that is gone makes the kernel look up its name once more. */
	fd = node_stat(n, &st);
	if (fd == 0)
		fd = node_open(n, fi->flags);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	fuse_lowlevel_notify_inval_inode(s->session, ino, -1, 0);
	handle_new(fi, fd);
	if (fuse_reply_open(req, fi) == -ENOENT)
		handle_free(fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	struct node *n = node_from_ino(s, ino);
	struct stat st;
	char *data;
	ssize_t k;
	int rc;

	if (refused_read(req, "read", "-"))
		return;
	rc = node_commit(s, n, 0, "read");
	if (rc == 0)
		rc = node_stat(n, &st);
	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	data = xmalloc(size);
	k = pread(handle_of(fi)->fd, data, size, offset);
	if (k < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, data, (size_t)k);
	free(data);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	int rc = node_write(s, node_from_ino(s, ino), data, size, offset);

	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_write(req, size);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);

	fuse_reply_err(req, handle_of(fi)->is_writable ? -node_commit(s, node_from_ino(s, ino), 1, "close") : 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);

	fuse_reply_err(req, -node_commit(s, node_from_ino(s, ino), 1, "fsync"));
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	handle_free(fi);
	fuse_reply_err(req, 0);
}

/* ---- directories ---- */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sim *s = sim_of(req);
	struct node *dir = node_from_ino(s, ino);
	struct listing *l = NULL;
	struct stat st;
	int rc;

	if (refused_read(req, "opendir", "-"))
		return;
	rc = node_stat(dir, &st);
	if (rc == 0)
		rc = node_list(s, dir, &l);
	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	fi->fh = (uintptr_t)l;
	if (fuse_reply_open(req, fi) == -ENOENT)
		listing_release(dir, l);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const struct listing *l = (const struct listing *)(uintptr_t)fi->fh;
	char *data;
	size_t used = 0;

	if (refused_read(req, "readdir", "-"))
		return;
	data = xmalloc(size);
	for (size_t i = (size_t)offset; i < l->n; i++) {
		struct stat st = {.st_ino = l->entries[i].ino, .st_mode = l->entries[i].type};
		size_t n = fuse_add_direntry(req, data + used, size - used, l->entries[i].name, &st, (off_t)i + 1);

		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, data, used);
	free(data);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	listing_release(node_from_ino(sim_of(req), ino), (struct listing *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0); /* names are the server's, and durable there before it answers */
}

/* ---- locks: granted to everybody ---- */

static void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	lock->l_type = F_UNLCK;
	fuse_reply_lock(req, lock);
}

static void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	fuse_reply_err(req, 0);
}

static void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int operation)
{
	fuse_reply_err(req, 0);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE; /* bytes wait here, where their loss can be told */
}

const struct fuse_lowlevel_ops nfs_sim_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .getlk = op_getlk,
    .setlk = op_setlk,
    .flock = op_flock,
};
