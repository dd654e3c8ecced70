/* job_status.c: the store read once over: attempts, then all shards by one listing, then what is merged. */
#include "queue/job_status.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/schema.h"

/* ---- workers ---- */

/* A claim's attempt among those that were read; NULL: it never wrote a heartbeat. */
static struct worker_status *worker_find(struct job_status *s, const struct claim *c)
{
	for (size_t i = 0; i < s->n_workers; i++)
		if (s->workers[i].attempt.worker == c->worker && strcmp(s->workers[i].attempt.id, c->attempt) == 0)
			return &s->workers[i];
	return NULL;
}

static int name_is_there(char **names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return 1;
	return 0;
}

static int has_crash_mark(char **names, size_t n, const struct attempt *a)
{
	char *name = attempt_crash_name(a->worker, a->id);
	int is = name_is_there(names, n, name + strlen("events/"));

	free(name);
	return is;
}

/* claimant: what a claim of it tells, CLAIMANT_UNKNOWN where there is none to look at. */
static void worker_judge(struct worker_status *w, enum claimant claimant)
{
	if (w->attempt.state == ATTEMPT_ENDED)
		w->state = WORKER_ENDED;
	else if (w->has_crashed || claimant == CLAIMANT_GONE)
		w->state = WORKER_GONE;
	else
		w->state = w->age_s > STATUS_SILENT_S ? WORKER_SILENT : WORKER_RUNNING;
}

/* A heartbeat does not tell the boot or the pid namespace: only a host's name, and a pid that nobody has there. */
static int is_gone_here(const struct attempt *a, const struct claim *here)
{
	return strcmp(a->host, here->host) == 0 && a->pid > 0 && a->pid <= INT32_MAX && kill((pid_t)a->pid, 0) < 0 && errno == ESRCH;
}

static void worker_measure(struct worker_status *w)
{
	const struct attempt *a = &w->attempt;
	double ready_s = a->wall_s - a->load_s;
	int64_t now_ms = clock_unix_ms();

	w->age_s = now_ms > a->updated_unix_ms ? (double)(now_ms - a->updated_unix_ms) / 1000 : 0;
	w->rows_per_s = ready_s > 0 ? (double)a->rows / ready_s : 0;
}

static int read_workers(struct job *j, struct job_status *s, struct err *err)
{
	char **names;
	size_t n, cap = 0;
	struct claim here;

	if (store_list(j->store, "events", &names, &n, err) < 0)
		return -1;
	claim_begin(&here, 0, NULL);
	claim_end(&here);
	for (size_t i = 0; i < n; i++) {
		size_t length = strlen(names[i]);
		struct err ignored = {0};
		struct worker_status w = {0};
		int rc;

		if (length < 5 || strcmp(names[i] + length - 5, ".json") != 0)
			continue;
		rc = attempt_read(j->store, names[i], &w.attempt, &ignored);
		s->n_unreadable += rc < 0;
		if (rc != 1)
			continue;
		worker_measure(&w);
		w.has_crashed = has_crash_mark(names, n, &w.attempt);
		worker_judge(&w, is_gone_here(&w.attempt, &here) ? CLAIMANT_GONE : CLAIMANT_UNKNOWN);
		MEM_GROW(s->workers, cap, s->n_workers + 1);
		s->workers[s->n_workers++] = w;
	}
	store_names_free(names, n);
	return 0;
}

/* ---- shards ---- */

/* Rows with a result in these segments, and how many of them failed. 1: one of them is gone; on the last look it counts as damaged. */
static int count_segments(struct job *j, struct job_status *s, const char *dir, const struct segment_name *list, size_t n, int is_last_look,
                          int64_t *n_done, int64_t *n_failed, struct err *err)
{
	struct row_map rows = {0};
	int64_t n_damaged = 0;
	int rc = 0;

	*n_failed = 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		char *path = segment_path(dir, list[i].epoch, list[i].sequence);
		struct store_file f = {0};
		struct database db = {0};
		struct err fault = {0};
		sqlite3_stmt *stmt = NULL;
		int step = -1;

		rc = store_fetch(j->store, path, &f, err);
		free(path);
		if (rc < 0)
			break;
		if (rc == 1 && database_open_immutable(&db, f.path, SEGMENT_APPLICATION_ID, &fault) == 0)
			stmt = database_prepare(&db, "SELECT row, is_error FROM result INDEXED BY result_done", &fault);
		while (stmt && (step = database_step(&db, stmt, &fault)) == 1) {
			struct row_slot *slot = row_map_put(&rows, sqlite3_column_int64(stmt, 0));

			*n_failed += slot->state != ROW_DONE && sqlite3_column_int(stmt, 1) != 0;
			slot->state = ROW_DONE;
		}
		sqlite3_finalize(stmt);
		database_close(&db);
		store_file_release(&f);
		n_damaged += step < 0;
		rc = step < 0 && !is_last_look;
	}
	*n_done = (int64_t)rows.n;
	if (rc == 0)
		s->n_damaged += n_damaged;
	row_map_release(&rows);
	return rc;
}

/* Who has an unfinished shard. 1: its claim is not there any more. */
static int look_at_claim(struct job *j, struct job_status *s, const char *dir, const struct shard_listing *l, struct err *err)
{
	char *name = path_format("%s/claim-%04d", dir, l->epoch);
	struct claim claim;
	struct worker_status *w;
	enum claimant claimant;
	int rc = claim_read(&claim, j->store, name, err);

	free(name);
	if (rc <= 0)
		return rc < 0 ? -1 : 1;
	claimant = claim_claimant(&claim);
	w = worker_find(s, &claim);
	if (w)
		worker_judge(w, claimant);
	if (l->released >= l->epoch || claimant == CLAIMANT_GONE || (w && (w->state == WORKER_ENDED || w->state == WORKER_GONE))) {
		s->n_orphaned++;
		return 0;
	}
	s->n_held++;
	s->n_held_silent += w && w->state == WORKER_SILENT;
	if (w)
		w->n_held++;
	return 0;
}

/* A complete merge has counted failed rows already; folded ones, though, it counts once more. */
static int counts_are_merged(const struct job *j, const struct job_status *s)
{
	return s->merged == MERGED_STATE_COMPLETE && j->n_folded_rows == 0;
}

static int look_at_done(struct job *j, struct job_status *s, int64_t shard, const char *dir, int is_last_look, int64_t *n_failed, struct err *err)
{
	struct segment_name *marked;
	size_t n;
	int64_t n_found;
	int rc;

	*n_failed = 0;
	if (!store_dir(j->store) || counts_are_merged(j, s))
		return 0;
	if (done_read(j->store, dir, j->shards[shard].n_rows, &marked, &n, err) < 0)
		return -1;
	rc = count_segments(j, s, dir, marked, n, is_last_look, &n_found, n_failed, err);
	free(marked);
	return rc;
}

/* listed: as it was found with all others. */
static int look_at_shard(struct job *j, struct job_status *s, int64_t shard, const struct shard_listing *listed, double *done_cost, struct err *err)
{
	char *dir = job_shard_dir(j, shard);
	int64_t n_rows = j->shards[shard].n_rows, n_done = 0, n_failed = 0;
	int rc = 1, is_done = 0;

	for (int look = 0; rc == 1 && look < LOOKS; look++) {
		struct shard_listing again = {0};
		const struct shard_listing *l = listed;

		if (look > 0) {
			look_again_wait(look - 1);
			rc = shard_listing_read(&again, j->store, dir, err);
			l = &again;
			if (rc < 0)
				break;
		}
		is_done = l->is_done;
		n_done = n_rows;
		rc = l->is_done ? look_at_done(j, s, shard, dir, look == LOOKS - 1, &n_failed, err)
		                : count_segments(j, s, dir, l->segments, l->n_segments, look == LOOKS - 1, &n_done, &n_failed, err);
		if (rc == 0 && !l->is_done && l->epoch > 0)
			rc = look_at_claim(j, s, dir, l, err);
		else if (rc == 0 && !l->is_done)
			s->n_unclaimed++;
		shard_listing_release(&again);
	}
	free(dir);
	if (rc < 0)
		return -1;
	s->n_shards_done += is_done;
	s->n_done += n_done;
	s->n_failed += n_failed;
	*done_cost += n_rows > 0 ? j->shards[shard].cost * (double)n_done / (double)n_rows : 0;
	return 0;
}

static int read_shards(struct job *j, struct job_status *s, double *done_cost, struct err *err)
{
	char *root = path_format("%sshards", j->base), **names;
	size_t n, at = 0;
	int rc = store_list_tree(j->store, root, &names, &n, err);

	free(root);
	for (int64_t shard = 0; shard < j->n_shards && rc == 0; shard++) {
		char *prefix = path_format("%05" PRId64 "/", shard);
		size_t skip = strlen(prefix), first, end;
		struct shard_listing l;

		/* Names ascend by byte: from 100000 on that is not by number. */
		for (first = shard < 100000 ? at : 0; first < n && strncmp(names[first], prefix, skip) != 0; first++)
			;
		for (end = first; end < n && strncmp(names[end], prefix, skip) == 0; end++)
			;
		if (end > first)
			at = end;
		shard_listing_take(&l, names + first, end - first, skip);
		rc = look_at_shard(j, s, shard, &l, done_cost, err);
		shard_listing_release(&l);
		free(prefix);
	}
	store_names_free(names, n);
	return rc;
}

/* ---- the rest ---- */

/* *manifest_failed: rows with an error record that is not the plan's and was not made by closing; of a complete merge. */
static int read_merged(struct job *j, struct job_status *s, int64_t *manifest_failed, struct err *err)
{
	struct buf text = {0};
	int rc = store_get(j->store, "merged/manifest.json", (size_t)64 << 20, &text, err);

	*manifest_failed = 0;
	if (rc == 1) {
		struct err ignored = {0};
		yyjson_doc *doc = json_parse(buf_str(&text), text.len, ERR_STORAGE, &ignored);
		yyjson_val *root = yyjson_doc_get_root(doc);

		if (!yyjson_equals_str(yyjson_obj_get(root, "plan_id"), j->plan_id))
			s->merged = MERGED_STATE_OLDER_PLAN;
		else if (yyjson_is_true(yyjson_obj_get(root, "complete")))
			s->merged = MERGED_STATE_COMPLETE;
		else
			s->merged = yyjson_obj_get(root, "close_code") ? MERGED_STATE_CLOSED : MERGED_STATE_PARTIAL;
		*manifest_failed = yyjson_get_sint(yyjson_obj_get(root, "failed")) - j->n_bad_rows;
		yyjson_doc_free(doc);
	}
	buf_release(&text);
	return rc < 0 ? -1 : 0;
}

/* The highest KIND-claim-NNNN in the store's root. 1 and *who, 0: none, -1. */
static int find_claim(struct store *st, const char *kind, struct claim *who, struct err *err)
{
	char **names, *name;
	size_t n;
	int64_t highest = -1;
	int rc;

	if (store_list(st, "", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (name_number(names[i], kind) > highest)
			highest = name_number(names[i], kind);
	store_names_free(names, n);
	if (highest < 0)
		return 0;
	name = path_format("%s-%04" PRId64, kind, highest);
	rc = claim_read(who, st, name, err);
	free(name);
	return rc;
}

int job_status_planner(const char *place, struct claim *who, int *is_gone, struct err *err)
{
	struct store *st = store_open(place, err);
	int rc = st ? find_claim(st, "plan-claim", who, err) : -1;

	*is_gone = rc == 1 && claim_claimant(who) == CLAIMANT_GONE;
	store_close(st);
	return rc;
}

static void add_sums(struct attempt *sums, const struct attempt *a)
{
	sums->wall_s += a->wall_s;
	sums->load_s += a->load_s;
	sums->busy_s += a->busy_s;
	sums->publish_s += a->publish_s;
	sums->rows += a->rows;
	sums->rows_failed += a->rows_failed;
	sums->prompt_tokens += a->prompt_tokens;
	sums->cached_tokens += a->cached_tokens;
	sums->output_tokens += a->output_tokens;
	sums->reasoning_tokens += a->reasoning_tokens;
	sums->recomputed_tokens += a->recomputed_tokens;
}

static int by_liveness(const void *pa, const void *pb)
{
	const struct worker_status *a = pa, *b = pb;

	if (a->state != b->state && (a->state <= WORKER_SILENT || b->state <= WORKER_SILENT))
		return a->state < b->state ? -1 : 1;
	if (a->attempt.updated_unix_ms != b->attempt.updated_unix_ms)
		return a->attempt.updated_unix_ms > b->attempt.updated_unix_ms ? -1 : 1;
	return (a->attempt.worker > b->attempt.worker) - (a->attempt.worker < b->attempt.worker);
}

/* After the shards: a claim may have told more of a worker than its heartbeat. */
static void sum_up(struct job *j, struct job_status *s, double done_cost)
{
	double left = (double)(s->n_to_run - s->n_done);

	for (size_t i = 0; i < s->n_workers; i++) {
		const struct worker_status *w = &s->workers[i];
		int is_live = w->state == WORKER_RUNNING || w->state == WORKER_SILENT;

		add_sums(&s->sums, &w->attempt);
		s->n_running += w->state == WORKER_RUNNING;
		s->n_silent += w->state == WORKER_SILENT;
		if (w->state == WORKER_RUNNING)
			s->rows_per_s += w->rows_per_s;
		s->has_budget |= w->attempt.spent_usd > 0 || w->attempt.ceiling_usd > 0;
		s->spent_usd += w->attempt.spent_usd;
		s->ceiling_usd += is_live && w->attempt.ceiling_usd > w->attempt.spent_usd ? w->attempt.ceiling_usd : w->attempt.spent_usd;
	}
	if (s->n_workers > 1)
		qsort(s->workers, s->n_workers, sizeof(*s->workers), by_liveness);
	/* Rows that are left may be dearer than those that are done: shards are long or short. */
	if (s->n_done > 0 && done_cost > 0 && j->figures.cost > done_cost)
		left = (j->figures.cost - done_cost) / (done_cost / (double)s->n_done);
	s->left_s = s->n_done >= s->n_to_run ? 0 : s->rows_per_s > 0 ? left / s->rows_per_s : -1;
	if (!s->failed_is_exact && s->sums.rows_failed > s->n_failed)
		s->n_failed = s->sums.rows_failed < s->n_done ? s->sums.rows_failed : s->n_done;
}

static int read_all(struct job *j, struct job_status *s, struct err *err)
{
	int64_t manifest_failed;
	double done_cost = 0;
	struct claim merger;
	int rc;

	if (read_merged(j, s, &manifest_failed, err) < 0 || read_workers(j, s, err) < 0 || read_shards(j, s, &done_cost, err) < 0 ||
	    (rc = find_claim(j->store, "merging-claim", &merger, err)) < 0)
		return -1;
	s->is_merging = rc == 1 && claim_claimant(&merger) != CLAIMANT_GONE;
	s->failed_is_exact = store_dir(j->store) || s->n_shards_done == 0;
	if (counts_are_merged(j, s)) {
		s->n_failed = manifest_failed;
		s->failed_is_exact = 1;
	}
	sum_up(j, s, done_cost);
	return 0;
}

int job_status_read(struct job *j, struct job_status *s, struct err *err)
{
	struct err fault = {0};
	int rc;

	*s = (struct job_status){.n_rows = j->n_rows, .n_bad = j->n_bad_rows, .n_folded = j->n_folded_rows, .n_shards = j->n_shards, .left_s = -1};
	for (int64_t i = 0; i < j->n_shards; i++)
		s->n_to_run += j->shards[i].n_rows;
	rc = read_all(j, s, &fault);
	/* A newer plan may have removed what this one's files are. */
	if (job_check_current(j, err) < 0)
		rc = -1;
	else if (rc < 0)
		*err = fault;
	if (rc < 0)
		job_status_release(s);
	return rc;
}

void job_status_release(struct job_status *s)
{
	free(s->workers);
	*s = (struct job_status){0};
}
