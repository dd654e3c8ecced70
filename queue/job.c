/* job.c: opening a planned job, what it says of itself, and events. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/schema.h"

char *job_shard_dir(const struct job *j, int64_t shard)
{
	return path_format("%sshards/%05" PRId64, j->base, shard);
}

char *job_commit_name(int generation)
{
	return generation == 1 ? xstrdup("job.json") : path_format("job-%04d.json", generation);
}

void look_again_wait(int look)
{
	int ms = look < 5 ? 50 << look : 1000;

	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

int store_get_known(struct store *s, const char *name, size_t max_bytes, struct buf *out, struct err *err)
{
	int rc;

	for (int look = 0; (rc = store_get(s, name, max_bytes, out, err)) == 0 && look < LOOKS; look++)
		look_again_wait(look);
	return rc;
}

int store_fetch_known(struct store *s, const char *name, struct store_file *f, struct err *err)
{
	int rc;

	for (int look = 0; (rc = store_fetch(s, name, f, err)) == 0 && look < LOOKS; look++)
		look_again_wait(look);
	return rc;
}

int job_is_planned(const char *place, struct err *err)
{
	struct store *s = store_open(place, err);
	int rc = s ? store_exists(s, "job.json", err) : -1;

	store_close(s);
	return rc;
}

int job_commit_generation(const char *name)
{
	size_t n = strlen(name);
	char *stem;
	int64_t number;

	if (strcmp(name, "job.json") == 0)
		return 1;
	if (n < 9 || strncmp(name, "job-", 4) != 0 || strcmp(name + n - 5, ".json") != 0)
		return 0;
	stem = xmemdup(name, n - 5);
	number = name_number(stem, "job");
	free(stem);
	return number > 1 ? (int)number : 0;
}

static int get_count(yyjson_val *root, const char *name, int64_t *out, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	if (!yyjson_is_int(v) || yyjson_get_sint(v) < 0)
		return err_set(err, ERR_STORAGE, "\"%s\" is %s, expected a count", name, json_type_name(v));
	*out = yyjson_get_sint(v);
	return 0;
}

/* "shards": rows of each. */
static int read_shards(struct job *j, yyjson_val *root, struct err *err)
{
	yyjson_val *list = yyjson_obj_get(root, "shards"), *v;
	size_t i, max;

	if (!yyjson_is_arr(list))
		return err_set(err, ERR_STORAGE, "\"shards\" is %s, expected the shards' numbers of rows", json_type_name(list));
	j->n_shards = (int64_t)yyjson_arr_size(list);
	j->shards = xcalloc((size_t)j->n_shards + 1, sizeof(*j->shards));
	yyjson_arr_foreach(list, i, max, v)
	{
		if (!yyjson_is_int(v) || yyjson_get_sint(v) < 0)
			return err_set(err, ERR_STORAGE, "shard %zu has %s rows", i, json_type_name(v));
		j->shards[i].n_rows = yyjson_get_sint(v);
	}
	return 0;
}

/* "shard_costs" and "figures". */
static int read_figures(struct job *j, yyjson_val *root, struct err *err)
{
	yyjson_val *costs = yyjson_obj_get(root, "shard_costs"), *figures = yyjson_obj_get(root, "figures"), *v;
	struct plan_figures *f = &j->figures;
	size_t i, max;

	if (yyjson_arr_size(costs) != (size_t)j->n_shards)
		return err_set(err, ERR_STORAGE, "\"shard_costs\" has %zu members, there are %" PRId64 " shards", yyjson_arr_size(costs), j->n_shards);
	yyjson_arr_foreach(costs, i, max, v)
	{
		if (!yyjson_is_num(v) || !(yyjson_get_num(v) >= 0))
			return err_set(err, ERR_STORAGE, "shard %zu costs %s", i, json_type_name(v));
		j->shards[i].cost = yyjson_get_num(v);
	}
	f->expected_output_tokens = yyjson_get_num(yyjson_obj_get(figures, "expected_output_tokens"));
	v = yyjson_obj_get(figures, "cost");
	f->cost = yyjson_get_num(v);
	if (!yyjson_is_num(v))
		return err_set(err, ERR_STORAGE, "\"cost\" is %s, expected a number", json_type_name(v));
	return get_count(figures, "prompt_tokens", &f->prompt_tokens, err) < 0 || get_count(figures, "max_output_tokens", &f->max_output_tokens, err) < 0
	           ? -1
	           : get_count(figures, "shared_units", &f->shared_units, err);
}

static int parse_job_json(struct job *j, const char *text, size_t n, struct err *err)
{
	static const char mark[] = ",\"spec\":";
	yyjson_doc *doc = json_parse(text, n, ERR_STORAGE, err);
	yyjson_val *root = yyjson_doc_get_root(doc), *id, *spec, *base;
	const char *raw;
	int64_t format;
	int rc = -1;

	if (!doc || get_count(root, "format", &format, err) < 0)
		goto out;
	if (format != JOB_FORMAT) {
		err_set(err, ERR_STORAGE, "format %" PRId64 ", this program knows %d", format, JOB_FORMAT);
		goto out;
	}
	id = yyjson_obj_get(root, "plan_id");
	spec = yyjson_obj_get(root, "spec");
	if (!yyjson_is_str(id) || yyjson_get_len(id) != sizeof(j->plan_id) - 1 || !yyjson_is_obj(spec)) {
		err_set(err, ERR_STORAGE, "no \"plan_id\" or no \"spec\"");
		goto out;
	}
	memcpy(j->plan_id, yyjson_get_str(id), sizeof(j->plan_id));
	if (get_count(root, "rows", &j->n_rows, err) < 0 || get_count(root, "bad_rows", &j->n_bad_rows, err) < 0 ||
	    get_count(root, "folded_rows", &j->n_folded_rows, err) < 0 ||
	    read_shards(j, root, err) < 0 || read_figures(j, root, err) < 0)
		goto out;
	base = yyjson_obj_get(root, "base");
	if (!yyjson_is_str(base)) {
		err_set(err, ERR_STORAGE, "no \"base\"");
		goto out;
	}
	j->base = xstrdup(yyjson_get_str(base));
	/* The planner's spec is the last member and stands there byte for byte; what was edited since is written anew. */
	raw = memmem(text, n, mark, sizeof(mark) - 1);
	if (raw && n > 2 && memcmp(text + n - 2, "}\n", 2) == 0) {
		raw += sizeof(mark) - 1;
		j->spec = xmemdup(raw, (size_t)(text + n - 2 - raw));
	} else {
		struct buf b = {0};

		json_write(&b, spec);
		j->spec = buf_detach(&b);
	}
	rc = 0;
out:
	yyjson_doc_free(doc);
	return rc;
}

static int check_plan_id(struct job *j, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&j->plan, "SELECT plan_id FROM meta", err);
	int rc = s ? database_step(&j->plan, s, err) : -1;
	const char *id = rc == 1 ? (const char *)sqlite3_column_text(s, 0) : NULL;

	if (rc >= 0 && (!id || strcmp(id, j->plan_id) != 0))
		rc = err_set(err, ERR_STORAGE, "%s: belongs to another plan than job.json", j->plan.name);
	sqlite3_finalize(s);
	return rc < 0 ? -1 : 0;
}

struct database *job_plan_db(struct job *j, struct err *err)
{
	char *name;
	int rc;

	if (j->plan.db)
		return &j->plan;
	name = path_format("%splan.db", j->base);
	rc = store_fetch_known(j->store, name, &j->plan_file, err);
	if (rc == 0)
		err_set(err, ERR_STORAGE, "%s/%s: is missing", store_place(j->store), name);
	free(name);
	if (rc != 1)
		return NULL;
	if (database_open_immutable(&j->plan, j->plan_file.path, PLAN_APPLICATION_ID, err) < 0 || check_plan_id(j, err) < 0) {
		database_close(&j->plan);
		store_file_release(&j->plan_file);
		return NULL;
	}
	return &j->plan;
}

/* The newest plan's number; 0: there is none. A listing may be older than what one name tells (NFS keeps both, each for its own time), so the next
 * one is asked for by name. */
static int newest_generation(struct store *s, int *generation, struct err *err)
{
	char **names;
	size_t n;
	int rc;

	*generation = 0;
	if (store_list(s, "", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (job_commit_generation(names[i]) > *generation)
			*generation = job_commit_generation(names[i]);
	store_names_free(names, n);
	do {
		char *next = job_commit_name(*generation + 1);

		rc = store_exists(s, next, err);
		*generation += rc == 1;
		free(next);
	} while (rc == 1);
	return rc;
}

int job_check_current(struct job *j, struct err *err)
{
	char *name = job_commit_name(j->generation + 1);
	int rc = store_exists(j->store, name, err);

	free(name);
	if (rc == 1)
		return err_set(err, ERR_FENCED, "%s: was planned anew meanwhile; its rows are in other shards now", store_place(j->store));
	return rc;
}

struct job *job_open(const char *place, struct err *err)
{
	struct job *j = xcalloc(1, sizeof(*j));
	struct buf text = {0};
	char *name = NULL;
	int rc;

	j->store = store_open(place, err);
	if (!j->store || newest_generation(j->store, &j->generation, err) < 0)
		goto fail;
	if (j->generation == 0) {
		err_set(err, ERR_USAGE, "%s is not a job: there is no %s/job.json", place, place);
		goto fail;
	}
	name = job_commit_name(j->generation);
	rc = store_get_known(j->store, name, (size_t)256 << 20, &text, err);
	if (rc == 0)
		err_set(err, ERR_STORAGE, "it vanished");
	if (rc <= 0 || parse_job_json(j, buf_str(&text), text.len, err) < 0) {
		err_context(err, "%s/%s", place, name);
		goto fail;
	}
	free(name);
	buf_release(&text);
	return j;
fail:
	free(name);
	buf_release(&text);
	job_close(j);
	return NULL;
}

void job_close(struct job *j)
{
	if (!j)
		return;
	if (j->open)
		BUG("job closed while a shard is open");
	database_close(&j->plan);
	store_file_release(&j->plan_file);
	pick_free(j->pick);
	free(j->shards);
	free(j->spec);
	free(j->base);
	store_close(j->store);
	free(j);
}

const char *job_spec(const struct job *j)
{
	return j->spec;
}

int job_generation(const struct job *j)
{
	return j->generation;
}

int job_is_deterministic(const struct job *j)
{
	struct err ignored = {0};
	yyjson_doc *doc = json_parse(j->spec, strlen(j->spec), ERR_OTHER, &ignored);
	int is = !doc || !yyjson_is_false(yyjson_obj_get(yyjson_doc_get_root(doc), "deterministic"));

	yyjson_doc_free(doc);
	return is;
}

int64_t job_n_rows(const struct job *j)
{
	return j->n_rows;
}

int64_t job_n_folded_rows(const struct job *j)
{
	return j->n_folded_rows;
}

int64_t job_n_bad_rows(const struct job *j)
{
	return j->n_bad_rows;
}

int64_t job_shard_n_rows(const struct job *j, int64_t shard)
{
	return j->shards[shard].n_rows;
}

double job_shard_cost(const struct job *j, int64_t shard)
{
	return j->shards[shard].cost;
}

const struct plan_figures *job_figures(const struct job *j)
{
	return &j->figures;
}

int64_t job_n_shards(const struct job *j)
{
	return j->n_shards;
}

/* Rows with a result in any segment of a shard that is not marked done. 1: a file that was listed is gone. Damaged ones do not count: their rows
 * will run again. */
static int count_done(struct store *s, const char *dir, const struct shard_listing *l, int64_t *count, struct err *err)
{
	struct row_map rows = {0};
	int rc = 0, is_damaged;

	for (size_t i = 0; i < l->n_segments && rc == 0; i++) {
		char *path = segment_path(dir, l->segments[i].epoch, l->segments[i].sequence);
		struct err fault = {0};
		struct segment_reader *r;
		int64_t row;

		rc = segment_reader_open(&r, s, path, &is_damaged, &fault);
		while (rc == 1 && (is_damaged = segment_reader_next_done(r, &row, &fault)) == 1)
			row_map_put(&rows, row);
		free(path);
		segment_reader_close(r);
		if (rc < 0 && !is_damaged)
			err_set(err, fault.code, "%s", fault.msg);
		rc = rc == 0 ? 1 : rc < 0 && !is_damaged ? -1 : 0;
	}
	*count = (int64_t)rows.n;
	row_map_release(&rows);
	return rc;
}

static int count_shard(struct job *j, int64_t shard, int64_t *count, struct err *err)
{
	char *dir = job_shard_dir(j, shard);
	int rc = 1;

	*count = j->shards[shard].n_rows;
	for (int look = 0; look < LOOKS && rc == 1 && !j->shards[shard].is_done; look++) {
		struct shard_listing l;

		if (look > 0)
			look_again_wait(look - 1);
		rc = shard_listing_read(&l, j->store, dir, err);
		if (rc == 0 && l.is_done)
			j->shards[shard].is_done = 1;
		else if (rc == 0)
			rc = count_done(j->store, dir, &l, count, err);
		shard_listing_release(&l);
	}
	if (j->shards[shard].is_done)
		*count = j->shards[shard].n_rows;
	free(dir);
	return rc < 0 ? -1 : 0;
}

int64_t job_n_done_rows(struct job *j, struct err *err)
{
	int64_t n = 0, count;

	for (int64_t i = 0; i < j->n_shards; i++) {
		if (count_shard(j, i, &count, err) < 0)
			return -1;
		n += count;
	}
	return n;
}

int job_all_done(struct job *j, struct err *err)
{
	for (int64_t i = 0; i < j->n_shards; i++) {
		char *dir, *name;
		int rc;

		if (j->shards[i].is_done)
			continue;
		dir = job_shard_dir(j, i);
		name = path_format("%s/done", dir);
		rc = store_exists(j->store, name, err);
		free(name);
		free(dir);
		if (rc <= 0)
			return rc;
		j->shards[i].is_done = 1;
	}
	return 1;
}

void job_set_lines(struct job *j, const struct job_lines *lines)
{
	j->lines = *lines;
}

struct store *job_store(struct job *j)
{
	return j->store;
}
