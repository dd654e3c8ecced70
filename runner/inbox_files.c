/* inbox_files.c: looking at files, and writing down which. */
#include "runner/inbox_private.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "runner/input_path.h"

enum { READ_BYTES = 1 << 20 };

void inbox_files_release(struct inbox_files *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->files[i].name);
	free(l->files);
	*l = (struct inbox_files){0};
}

struct inbox_file *inbox_files_add(struct inbox_files *l, const char *name)
{
	MEM_GROW(l->files, l->cap, l->n + 1);
	l->files[l->n] = (struct inbox_file){.name = xstrdup(name)};
	return &l->files[l->n++];
}

static void take_stat(struct inbox_file *f, const struct stat *s)
{
	f->n_bytes = s->st_size;
	f->mtime_ns = (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec;
	f->ctime_ns = (int64_t)s->st_ctim.tv_sec * 1000000000 + s->st_ctim.tv_nsec;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int is_unfinished_name(const char *name)
{
	size_t n = strlen(name);

	return name[0] == '.' || (n > 4 && strcmp(name + n - 4, ".tmp") == 0) || (n > 5 && strcmp(name + n - 5, ".part") == 0);
}

/* Another name would not come back out of a batch's JSON as it was. */
static int has_utf8(const char *name)
{
	struct buf b = {0};
	struct err ignored = {0};
	yyjson_doc *d;
	int is;

	json_write_string(&b, name, strlen(name));
	d = json_parse(b.data, b.len, ERR_OTHER, &ignored);
	is = d && strcmp(yyjson_get_str(yyjson_doc_get_root(d)), name) == 0;
	yyjson_doc_free(d);
	buf_release(&b);
	return is;
}

int inbox_scan(const char *dir, struct inbox_files *out, struct err *err)
{
	char *roots[] = {(char *)dir, NULL};
	FTS *f = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
	size_t n_dir = strlen(dir);
	FTSENT *e;
	int rc = 0;

	if (!f)
		return err_sys(err, ERR_INPUT, "cannot read directory %s", dir);
	while (rc == 0 && (e = fts_read(f))) {
		if (e->fts_level > 0 && is_unfinished_name(e->fts_name)) {
			if (e->fts_info == FTS_D)
				fts_set(f, e, FTS_SKIP);
		} else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || (e->fts_info == FTS_NS && e->fts_errno != ENOENT)) {
			errno = e->fts_errno;
			rc = err_sys(err, ERR_INPUT, "cannot read %s", e->fts_path);
		} else if (e->fts_info == FTS_F && (input_path_is_rows(e->fts_path) || input_path_is_tar(e->fts_path))) {
			const char *name = e->fts_path + n_dir;

			name += strspn(name, "/");
			if (!has_utf8(name))
				log_warn("%s: its name is not UTF-8: ignored", e->fts_path);
			else if (e->fts_statp->st_size > 0) /* an empty one has no rows, or not yet */
				take_stat(inbox_files_add(out, name), e->fts_statp);
		}
	}
	fts_close(f);
	return rc;
}

int inbox_file_stat(const char *dir, struct inbox_file *f, struct err *err)
{
	char *path = file_join(dir, f->name);
	struct stat s;
	int rc = stat(path, &s) == 0 ? S_ISREG(s.st_mode) : errno == ENOENT || errno == ENOTDIR ? 0 : err_sys(err, ERR_INPUT, "%s", path);

	if (rc == 1)
		take_stat(f, &s);
	free(path);
	return rc;
}

int inbox_file_same(const struct inbox_file *a, const struct inbox_file *b)
{
	return a->n_bytes == b->n_bytes && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

int inbox_file_hash(const char *dir, struct inbox_file *f, struct err *err)
{
	char *path = file_join(dir, f->name), *bytes = xmalloc(READ_BYTES);
	struct inbox_file after = {.name = f->name};
	struct sha256 *h = sha256_new();
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 1;
	ssize_t n = 0;

	if (fd < 0)
		rc = errno == ENOENT ? 0 : err_sys(err, ERR_INPUT, "cannot read %s", path);
	while (rc == 1 && (n = read(fd, bytes, READ_BYTES)) != 0) {
		if (n > 0)
			sha256_add(h, bytes, (size_t)n);
		else if (errno != EINTR)
			rc = err_sys(err, ERR_INPUT, "cannot read %s", path);
	}
	sha256_finish(h, f->sha256);
	if (fd >= 0)
		close(fd);
	if (rc == 1)
		rc = inbox_file_stat(dir, &after, err);
	if (rc == 1 && !inbox_file_same(f, &after))
		rc = 0;
	free(bytes);
	free(path);
	return rc;
}

/* The same files give the same bytes, whoever writes. */
void inbox_batch_write(const char *dir, const struct inbox_file *files, size_t n, struct buf *out)
{
	buf_adds(out, "{\"format\":1,\"inbox\":");
	json_write_string(out, dir, strlen(dir));
	buf_adds(out, ",\"files\":[");
	for (size_t i = 0; i < n; i++) {
		buf_adds(out, i ? ",\n{\"name\":" : "\n{\"name\":");
		json_write_string(out, files[i].name, strlen(files[i].name));
		buf_addf(out, ",\"bytes\":%" PRId64 ",\"sha256\":\"%s\",\"mtime_ns\":%" PRId64 ",\"ctime_ns\":%" PRId64 "}", files[i].n_bytes,
		         files[i].sha256, files[i].mtime_ns, files[i].ctime_ns);
	}
	buf_adds(out, "\n]}\n");
}

int inbox_batch_parse(const char *text, size_t n, int number, struct inbox_files *out, struct err *err)
{
	yyjson_doc *d = json_parse(text, n, ERR_STORAGE, err);
	yyjson_val *root = yyjson_doc_get_root(d), *files = yyjson_obj_get(root, "files"), *v;
	size_t i, max;
	int rc = 0;

	if (!d)
		return -1;
	if (yyjson_get_int(yyjson_obj_get(root, "format")) != 1 || !yyjson_is_arr(files))
		rc = err_set(err, ERR_STORAGE, "it is no list of files that this program knows");
	yyjson_arr_foreach(files, i, max, v) {
		const char *name = yyjson_get_str(yyjson_obj_get(v, "name")), *sha = yyjson_get_str(yyjson_obj_get(v, "sha256"));
		struct inbox_file *f;

		if (rc < 0)
			break;
		if (!name || !*name || !sha || strlen(sha) != SHA256_HEX_BYTES - 1 || !yyjson_is_int(yyjson_obj_get(v, "bytes"))) {
			rc = err_set(err, ERR_STORAGE, "file %zu has no name, size or hash", i + 1);
			break;
		}
		f = inbox_files_add(out, name);
		memcpy(f->sha256, sha, SHA256_HEX_BYTES);
		f->n_bytes = yyjson_get_sint(yyjson_obj_get(v, "bytes"));
		f->mtime_ns = yyjson_get_sint(yyjson_obj_get(v, "mtime_ns"));
		f->ctime_ns = yyjson_get_sint(yyjson_obj_get(v, "ctime_ns"));
		f->batch = number;
	}
	yyjson_doc_free(d);
	return rc;
}
