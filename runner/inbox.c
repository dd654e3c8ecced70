/* inbox.c: which batch is next. */
#include "runner/inbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/job.h"
#include "queue/layout.h"
#include "queue/store.h"
#include "runner/inbox_private.h"
#include "runner/signals.h"

enum { MAX_BATCH_BYTES = 256 << 20, MAX_BATCHES = 999999 };

struct inbox {
	const struct inbox_options *o;
	struct store *store;         /* of the jobs */
	struct inbox_files taken;    /* files of batches 1..n_batches, in their order */
	struct inbox_file **by_name; /* [taken.n] sorted */
	char *ended;                 /* [n_ended + 1] 1: batch i is done or dismissed */
	int n_ended, n_batches;
	int current;                 /* the batch that was given last, 0: none */
	int has_looked;              /* for new files, and took all up */
	char *place;
	char **paths;
	size_t n_paths;
};

/* ---- batches that are there ---- */

static char *batch_name(int number, const char *suffix)
{
	return path_format("inbox/batch-%06d.%s", number, suffix);
}

/* A listing may be older than the newest marks: then a job is looked at once more, and marked again. */
static int read_ended(struct inbox *in, struct err *err)
{
	char **names;
	size_t n;

	if (store_list(in->store, "inbox", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		int number, end = 0;

		if (sscanf(names[i], "batch-%6d.%n", &number, &end) != 1 || number < 1 || end == 0 ||
		    (strcmp(names[i] + end, "done") != 0 && strcmp(names[i] + end, "dismissed") != 0))
			continue;
		if (number > in->n_ended) {
			in->ended = xrealloc(in->ended, (size_t)number + 1);
			memset(in->ended + in->n_ended + 1, 0, (size_t)(number - in->n_ended));
			in->n_ended = number;
		}
		in->ended[number] = 1;
	}
	store_names_free(names, n);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp((*(struct inbox_file *const *)a)->name, (*(struct inbox_file *const *)b)->name);
}

/* Those made since the last look, one after another by name: a listing could be too old. */
static int read_batches(struct inbox *in, struct err *err)
{
	struct buf b = {0};
	int before = in->n_batches, rc = 1;

	while (rc == 1 && in->n_batches < MAX_BATCHES) {
		char *name = batch_name(in->n_batches + 1, "json"), *whole = store_name(in->store, name);

		buf_reset(&b);
		rc = store_get(in->store, name, MAX_BATCH_BYTES, &b, err);
		if (rc == 1) {
			if (inbox_batch_parse(buf_str(&b), b.len, in->n_batches + 1, &in->taken, err) < 0)
				rc = err_context(err, "%s", whole);
			else
				in->n_batches++;
		}
		free(name);
		free(whole);
	}
	buf_release(&b);
	if (in->n_batches > before) {
		in->by_name = xrealloc(in->by_name, (in->taken.n + 1) * sizeof(*in->by_name));
		for (size_t i = 0; i < in->taken.n; i++)
			in->by_name[i] = &in->taken.files[i];
		qsort(in->by_name, in->taken.n, sizeof(*in->by_name), compare_names);
	}
	return rc < 0 ? -1 : 0;
}

/* The first file of that name in any batch; those that follow in by_name may have it, too. */
static size_t find_name(const struct inbox *in, const char *name)
{
	size_t low = 0, high = in->taken.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(in->by_name[middle]->name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Has a batch this very file? by_content: by its hash, else by what stat tells. */
static int is_taken(const struct inbox *in, const struct inbox_file *f, int by_content)
{
	for (size_t i = find_name(in, f->name); i < in->taken.n && strcmp(in->by_name[i]->name, f->name) == 0; i++)
		if (by_content ? strcmp(in->by_name[i]->sha256, f->sha256) == 0 : inbox_file_same(in->by_name[i], f))
			return 1;
	return 0;
}

/* ---- new files ---- */

static int settle(const struct inbox *in, struct err *err)
{
	double until = clock_seconds() + in->o->settle_s;

	while (clock_seconds() < until) {
		if (signals_received())
			return signals_drained(err);
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	return 0;
}

/* Append those that are complete and in no batch. */
static int find_new(struct inbox *in, struct inbox_files *out, struct err *err)
{
	struct inbox_files seen = {0};
	size_t n_new = 0, n_max = in->o->batch_files ? (size_t)in->o->batch_files : SIZE_MAX;
	int rc = inbox_scan(in->o->inbox, &seen, err);

	for (size_t i = 0; rc == 0 && i < seen.n; i++)
		n_new += !is_taken(in, &seen.files[i], 0);
	if (rc == 0 && n_new > 0)
		rc = settle(in, err);
	for (size_t i = 0; rc == 0 && i < seen.n && out->n < n_max; i++) {
		struct inbox_file now = seen.files[i];
		int is;

		if (is_taken(in, &now, 0))
			continue;
		is = inbox_file_stat(in->o->inbox, &now, err);
		if (is == 1 && inbox_file_same(&now, &seen.files[i])) {
			is = inbox_file_hash(in->o->inbox, &now, err);
			if (is == 1 && !is_taken(in, &now, 1)) {
				struct inbox_file *f = inbox_files_add(out, now.name);

				now.name = f->name;
				*f = now;
			}
		} else if (is == 1) {
			is = 0;
		}
		if (is == 0)
			log_info("%s/%s is being written: left for the next time", in->o->inbox, now.name);
		rc = is < 0 ? -1 : signals_received() ? signals_drained(err) : 0;
	}
	inbox_files_release(&seen);
	return rc;
}

/* 1: look at the batches again: there is a new one, of this process or another; 0: there are no new files; -1. */
static int make_batch(struct inbox *in, struct err *err)
{
	struct inbox_files files = {0};
	struct buf b = {0};
	char *name = batch_name(in->n_batches + 1, "json");
	int rc = find_new(in, &files, err);

	if (rc == 0 && files.n > 0 && in->n_batches == MAX_BATCHES)
		rc = err_set(err, ERR_INPUT, "%s has %d batches already: take another directory", in->o->jobs, MAX_BATCHES);
	if (rc == 0 && files.n > 0) {
		inbox_batch_write(in->o->inbox, files.files, files.n, &b);
		rc = store_create(in->store, name, b.data, b.len, err);
		/* What comes from now on is for the next firing: one that never ends would be none. Where another was quicker it may have more, or less. */
		if (rc == 1) {
			log_info("batch %06d: %zu new file%s of %s", in->n_batches + 1, files.n, files.n == 1 ? "" : "s", in->o->inbox);
			in->has_looked = !in->o->batch_files || files.n < (size_t)in->o->batch_files;
		}
		rc = rc < 0 ? -1 : 1;
	}
	free(name);
	buf_release(&b);
	inbox_files_release(&files);
	return rc;
}

/* ---- what is asked for ---- */

struct inbox *inbox_open(const struct inbox_options *o, struct err *err)
{
	struct inbox *in = xcalloc(1, sizeof(*in));

	in->o = o;
	in->ended = xcalloc(1, 1);
	if (!file_is_dir(o->inbox))
		err_set(err, ERR_INPUT, "--inbox %s is not a directory", o->inbox);
	else if ((in->store = store_open(o->jobs, err)) && store_prepare(in->store, err) == 0 && read_ended(in, err) == 0)
		return in;
	inbox_close(in);
	return NULL;
}

static void forget_paths(struct inbox *in)
{
	for (size_t i = 0; i < in->n_paths; i++)
		free(in->paths[i]);
	free(in->paths);
	in->paths = NULL;
	in->n_paths = 0;
}

void inbox_close(struct inbox *in)
{
	if (!in)
		return;
	forget_paths(in);
	inbox_files_release(&in->taken);
	store_close(in->store);
	free(in->by_name);
	free(in->ended);
	free(in->place);
	free(in);
}

/* The files from which the current batch can be planned: those that are as they were. */
static int choose_paths(struct inbox *in, struct err *err)
{
	int rc = 0;

	in->paths = xcalloc(in->taken.n + 1, sizeof(*in->paths));
	for (size_t i = 0; i < in->taken.n && rc >= 0; i++) {
		const struct inbox_file *f = &in->taken.files[i];
		struct inbox_file now = {.name = f->name};

		if (f->batch != in->current)
			continue;
		rc = inbox_file_stat(in->o->inbox, &now, err);
		if (rc == 1 && !inbox_file_same(&now, f)) {
			rc = inbox_file_hash(in->o->inbox, &now, err);
			rc = rc == 1 ? strcmp(now.sha256, f->sha256) == 0 : rc;
		}
		if (rc == 1)
			in->paths[in->n_paths++] = file_join(in->o->inbox, f->name);
		else if (rc == 0)
			log_warn("%s/%s is gone or has changed since batch %06d took it up, and is left out of it", in->o->inbox, f->name, in->current);
	}
	return rc < 0 ? -1 : 0;
}

static void move_files(struct inbox *in)
{
	struct buf to = {0}, dir = {0};

	for (size_t i = 0; i < in->taken.n; i++) {
		const struct inbox_file *f = &in->taken.files[i];
		struct inbox_file now = {.name = f->name};
		struct err e = {0};
		char *from;

		if (f->batch != in->current || inbox_file_stat(in->o->inbox, &now, &e) != 1 || !inbox_file_same(&now, f))
			continue; /* moved already, or a new file */
		buf_reset(&to);
		buf_addf(&to, "%s/batch-%06d/%s", in->o->move_done, in->current, f->name);
		buf_reset(&dir);
		buf_add(&dir, to.data, (size_t)(strrchr(to.data, '/') - to.data));
		from = file_join(in->o->inbox, f->name);
		if (file_make_dirs(dir.data, &e) < 0)
			log_warn("--move-done: %s", e.msg);
		else if (rename(from, to.data) != 0 && errno != ENOENT)
			log_warn("--move-done: cannot move %s to %s: %s", from, to.data, strerror(errno));
		free(from);
	}
	buf_release(&to);
	buf_release(&dir);
}

static int mark_done(struct inbox *in, struct err *err)
{
	char *name = batch_name(in->current, "done");
	int rc;

	if (in->o->move_done)
		move_files(in);
	rc = store_put(in->store, name, "{}\n", 3, err);
	free(name);
	return rc;
}

/* The current batch: 1: to be worked on, 0: it is done, -1. */
static int look_at(struct inbox *in, struct err *err)
{
	char *name = path_format("batch-%06d", in->current);
	int rc;

	free(in->place);
	in->place = store_name(in->store, name);
	free(name);
	forget_paths(in);
	rc = job_is_planned(in->place, err);
	if (rc == 1) {
		struct job *j = job_open(in->place, err);

		rc = j ? job_is_merged(j, err) : -1;
		job_close(j);
		if (rc == 1)
			rc = mark_done(in, err);
		else if (rc == 0)
			rc = 1;
		return rc;
	}
	if (rc < 0 || choose_paths(in, err) < 0)
		return -1;
	return in->n_paths > 0 ? 1 : mark_done(in, err);
}

int inbox_next(struct inbox *in, struct inbox_batch *batch, struct err *err)
{
	for (;;) {
		int rc;

		if (read_batches(in, err) < 0)
			return -1;
		while (in->current < in->n_batches) {
			in->current++;
			if (in->current <= in->n_ended && in->ended[in->current])
				continue;
			rc = look_at(in, err);
			if (rc < 0)
				return err_context(err, "batch %06d", in->current);
			if (rc == 0)
				continue;
			*batch = (struct inbox_batch){in->current, in->place, in->paths, in->n_paths};
			return 1;
		}
		if (in->has_looked)
			return 0;
		rc = make_batch(in, err);
		if (rc <= 0)
			return rc;
	}
}

int inbox_finish(struct inbox *in, struct err *err)
{
	struct job *j = job_open(in->place, err);
	int rc = j ? job_is_merged(j, err) : -1;

	job_close(j);
	return rc == 1 ? mark_done(in, err) : rc;
}
