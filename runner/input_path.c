/* input_path.c: from arguments to files. */
#include "runner/input_path.h"

#include <errno.h>
#include <fts.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "runner/input.h"

/* Does path[0, n) end in one of the suffixes? Returns the suffix' length or 0. */
static size_t ends_in(const char *path, size_t n, const char *const *suffixes)
{
	for (; *suffixes; suffixes++) {
		size_t k = strlen(*suffixes);

		if (n > k && strncasecmp(path + n - k, *suffixes, k) == 0)
			return k;
	}
	return 0;
}

static const char *const compressed[] = {".gz", ".zst", ".bz2", ".xz", NULL};

int input_path_is_rows(const char *path)
{
	static const char *const rows[] = {".jsonl", ".ndjson", ".json", NULL};
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	size_t n = strlen(base);

	if (base[0] == '.')
		return 0;
	return ends_in(base, n - ends_in(base, n, compressed), rows) > 0;
}

int input_path_is_tar(const char *path)
{
	static const char *const tar[] = {".tar", ".tgz", ".tzst", NULL};
	size_t n = strlen(path);

	return ends_in(path, n - ends_in(path, n, compressed), tar) > 0;
}

static void list_add(struct input_list *l, const char *path)
{
	MEM_GROW(l->paths, l->cap, l->n + 1);
	l->paths[l->n++] = xstrdup(path);
}

static void list_truncate(struct input_list *l, size_t n)
{
	while (l->n > n)
		free(l->paths[--l->n]);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int holds(const char *dir, const char *name)
{
	struct buf path = {0};
	int is;

	buf_addf(&path, "%s/%s", dir, name);
	is = access(path.data, F_OK) == 0;
	buf_release(&path);
	return is;
}

/* The output, also while it is being planned, or another job. */
static int is_job_directory(const struct input_list *l, const char *dir)
{
	struct stat a, b;

	if (l->output && stat(l->output, &a) == 0 && stat(dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return 1;
	return holds(dir, "job.json") && holds(dir, "plan.db");
}

static int add_directory(struct input_list *l, const char *dir, struct err *err)
{
	char *roots[] = {(char *)dir, NULL};
	/* Logical: links are followed (mounted volumes are full of them); fts reports cycles instead of walking them. */
	FTS *f = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
	size_t before = l->n;
	FTSENT *e;
	int r = 0;

	if (!f)
		return err_sys(err, ERR_INPUT, "cannot read directory %s", dir);
	while (r == 0 && (e = fts_read(f))) {
		if (e->fts_level > 0 && e->fts_name[0] == '.') {
			if (e->fts_info == FTS_D)
				fts_set(f, e, FTS_SKIP);
			continue;
		}
		if (e->fts_level > 0 && e->fts_info == FTS_D && is_job_directory(l, e->fts_path)) {
			fts_set(f, e, FTS_SKIP);
			continue;
		}
		if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS) {
			errno = e->fts_errno;
			r = err_sys(err, ERR_INPUT, "cannot read %s", e->fts_path);
		} else if (e->fts_info == FTS_F && (input_path_is_rows(e->fts_path) || input_path_is_tar(e->fts_path))) {
			list_add(l, e->fts_path);
		}
	}
	fts_close(f);
	if (r == 0 && l->n == before)
		r = err_set(err, ERR_INPUT,
		            "directory %s has no row files (*.jsonl, *.ndjson, *.json, each also .gz or .zst, or *.tar)", dir);
	return r;
}

static int add_one(struct input_list *l, const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return err_sys(err, ERR_INPUT, "input %s", path);
	if (S_ISDIR(st.st_mode))
		return add_directory(l, path, err);
	if (access(path, R_OK) != 0)
		return err_sys(err, ERR_INPUT, "input %s", path);
	list_add(l, path);
	return 0;
}

int input_list_add(struct input_list *l, const char *arg, struct err *err)
{
	size_t before = l->n;
	glob_t g;
	int r = 0;

	if (strcmp(arg, "-") == 0) {
		for (size_t i = 0; i < l->n; i++)
			if (strcmp(l->paths[i], "-") == 0)
				return err_set(err, ERR_USAGE, "standard input (-) can be given only once");
		list_add(l, arg);
		return 0;
	}
	/* A file whose name looks like a pattern is that file. */
	if (access(arg, F_OK) == 0 || !strpbrk(arg, "*?[")) {
		r = add_one(l, arg, err);
	} else {
		if (glob(arg, GLOB_BRACE, NULL, &g) != 0)
			return err_set(err, ERR_INPUT, "no file matches '%s'", arg);
		for (size_t i = 0; i < g.gl_pathc && r == 0; i++)
			if (!is_job_directory(l, g.gl_pathv[i]))
				r = add_one(l, g.gl_pathv[i], err);
		globfree(&g);
	}
	if (r != 0)
		list_truncate(l, before);
	return r;
}

void input_list_release(struct input_list *l)
{
	list_truncate(l, 0);
	free(l->paths);
	*l = (struct input_list){0};
}
