/* plan.c: planning begins (who may plan, where) and takes rows in: each goes into plan.db (key, hash, place) and, with its input, into a
 * sorter by prefix. Neither grows memory with the number of rows. plan_commit.c cuts and publishes. */
#include "queue/plan_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/schema.h"

/* What a job directory may hold before job.json is there: the traces of a planner that died. lost+found: a volume's own. */
static int is_ours(const char *name)
{
	static const char *const known[] = {"plan.db", "shards", "events", "lost+found"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(name, known[i]) == 0)
			return 1;
	return name_number(name, "plan-claim") >= 0 || name_number(name, "plan-beat") >= 0 || name_number(name, "planning") >= 0 || strncmp(name, "plan-0001-", 10) == 0 ||
	       ((strncmp(name, "plan-claim-", 11) == 0 || strncmp(name, "plan-beat-", 10) == 0) && strstr(name, ".tmp-")) || strncmp(name, "job.json.tmp-", 13) == 0;
}

/* "job.json.tmp-..." and "job-0002.json.tmp-...": a planner died while it committed. */
static int is_torn_commit(const char *name)
{
	return strncmp(name, "job", 3) == 0 && strstr(name, ".json.tmp-");
}

/* Is this name, which was listed, the commit of the plan that is to be made? Then *err says so. Asked for by name it was not there yet. */
static int is_committed(const struct job_plan *p, const char *name, struct err *err)
{
	if (job_commit_generation(name) < p->generation)
		return 0;
	err_set(err, p->from ? ERR_FENCED : ERR_RETRY, "%s: another process planned it just now", store_place(p->store));
	return 1;
}

/* Take the planning claim: the number after the highest, if the holder of that is surely gone. */
static int take_claim(struct job_plan *p, struct err *err)
{
	char **names;
	size_t n;
	int64_t highest = 0;
	int rc = -1;

	if (store_list(p->store, "", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		int64_t number = name_number(names[i], "plan-claim");

		if (is_committed(p, names[i], err))
			goto out;
		if (!p->from && !is_ours(names[i])) {
			err_set(err, ERR_INPUT, "%s: holds %s, which is not part of a job; name a new or empty directory", store_place(p->store), names[i]);
			goto out;
		}
		if (number > highest)
			highest = number;
	}
	if (highest > 0) {
		char *name = path_format("plan-claim-%04" PRId64, highest);
		struct claim holder;
		struct buf who = {0};
		enum claimant claimant = CLAIMANT_UNKNOWN;
		int found = claim_read(&holder, p->store, name, err);

		if (found == 1) {
			claim_describe(&holder, &who);
			claimant = claim_claimant(&holder);
			if (highest == p->judged)
				claimant = CLAIMANT_GONE;
			else if (claimant == CLAIMANT_ALIVE)
				err_set(err, ERR_RETRY, "%s: is being planned by %s; wait for it, or name another directory", store_place(p->store),
				        who.data);
			else if (claimant == CLAIMANT_UNKNOWN)
				err_set(err, ERR_RETRY, "%s: was being planned by %s, and cannot tell from here whether it still is; if not, remove %s",
				        store_place(p->store), who.data, name);
		} else if (found == 0) {
			err_set(err, ERR_RETRY, "%s: another process ended its planning just now", store_place(p->store));
		}
		buf_release(&who);
		free(name);
		if (claimant != CLAIMANT_GONE)
			goto out;
	}
	p->claim_number = highest + 1;
	p->claim_name = path_format("plan-claim-%04" PRId64, highest + 1);
	p->next_claim_name = path_format("plan-claim-%04" PRId64, highest + 2);
	rc = claim_create(&p->claim, p->store, p->claim_name, err);
	if (rc == 0)
		err_set(err, ERR_RETRY, "%s: another process began to plan it just now", store_place(p->store));
	else if (rc == 1)
		p->holds_claim = 1;
	rc = rc == 1 ? 0 : -1;
out:
	store_names_free(names, n);
	return rc;
}

/* Who holds the claim owns everything that has to do with planning: what dead planners left goes, their claims too (the holder's is the
 * highest). What they had published, but not committed, has names of its own and goes later (plan_sweep).
 * The listing is of after this host changed the directory, so it is not an old one: what it shows counts before anything is removed. */
static int clear_remains(struct job_plan *p, int before_planning, struct err *err)
{
	char **names;
	size_t n;
	int rc = 0;

	if (store_list(p->store, "", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n && rc == 0 && before_planning; i++)
		rc = is_committed(p, names[i], err) ? -1 : 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		int64_t claim = name_number(names[i], "plan-claim"), beat = name_number(names[i], "plan-beat");

		if ((claim >= 0 && claim < p->claim_number) || (beat >= 0 && beat <= p->claim_number) ||
		    name_number(names[i], "planning") >= 0 || is_torn_commit(names[i]))
			rc = store_remove_tree(p->store, names[i], err);
	}
	store_names_free(names, n);
	return rc;
}

static int open_database(struct job_plan *p, struct err *err)
{
	char *path = path_format("%s/plan.db", p->work_dir);
	int rc = database_create(&p->db, path, 4096, PLAN_APPLICATION_ID, PLAN_SCHEMA, err);

	free(path);
	/* One transaction for all rows; the cache bounds memory (48 MiB hold the upper levels of the key index for any size). */
	if (rc < 0 || database_exec(&p->db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-49152; BEGIN", err) < 0)
		return -1;
	/* OR IGNORE looks at the key before it changes anything; without a journal a constraint must not fail in the middle. */
	p->add_row = database_prepare(&p->db, "INSERT OR IGNORE INTO row VALUES(?,?,?,?,?,?,?,?,?,?,?)", err);
	p->find_key = database_prepare(&p->db, "SELECT source_name, line FROM row NATURAL JOIN source WHERE key=?", err);
	p->add_source = database_prepare(&p->db, "INSERT OR IGNORE INTO source(source_name) VALUES(?)", err);
	p->find_source = database_prepare(&p->db, "SELECT source FROM source WHERE source_name=?", err);
	p->add_tag = database_prepare(&p->db, "INSERT OR IGNORE INTO tag(json) VALUES(?)", err);
	p->find_tag = database_prepare(&p->db, "SELECT tags FROM tag WHERE json=?", err);
	return p->add_row && p->find_key && p->add_source && p->find_source && p->add_tag && p->find_tag ? 0 : -1;
}

/* Another planner may have been quicker. */
static int refuse_planned(struct job_plan *p, struct err *err)
{
	int rc;

	if (p->from)
		return job_check_current(p->from, err);
	rc = store_exists(p->store, "job.json", err);
	return rc == 1 ? err_set(err, ERR_INPUT, "%s: is planned already", store_place(p->store)) : rc;
}

static int make_work_dir(struct job_plan *p, struct err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (store_dir(p->store)) {
		p->work_dir = path_format("%s/planning-%04" PRId64, store_dir(p->store), p->claim_number);
		return 0;
	}
	p->work_dir = path_format("%s/tokenmill-planning-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(p->work_dir)) {
		err_sys(err, ERR_STORAGE, "%s", p->work_dir);
		free(p->work_dir);
		p->work_dir = NULL;
		return -1;
	}
	return 0;
}

int plan_begin(struct job_plan *p, struct err *err)
{
	char *path;
	int rc;

	if (refuse_planned(p, err) < 0 || take_claim(p, err) < 0)
		return -1;
	/* Another planner may have committed and removed its claim between the look and the claim. */
	if (refuse_planned(p, err) < 0)
		return -1;
	if (clear_remains(p, !p->from, err) < 0 || make_work_dir(p, err) < 0)
		return -1;
	path = path_format("%s/shards", p->work_dir);
	rc = file_make_dirs(path, err);
	free(path);
	if (rc < 0 || open_database(p, err) < 0)
		return -1;
	path = path_format("%s/rows.spill", p->work_dir);
	p->rows = sorter_new(path, SORT_BYTES);
	free(path);
	return 0;
}

struct job_plan *job_plan_begin(const char *place, struct err *err)
{
	struct job_plan *p = xcalloc(1, sizeof(*p));

	p->generation = 1;
	claim_begin(&p->claim, 0, NULL);
	p->store = store_open(place, err);
	if (!p->store || store_prepare(p->store, err) < 0 || plan_begin(p, err) < 0) {
		job_plan_abort(p);
		return NULL;
	}
	return p;
}

void plan_close(struct job_plan *p)
{
	sqlite3_finalize(p->add_row);
	sqlite3_finalize(p->find_key);
	sqlite3_finalize(p->add_source);
	sqlite3_finalize(p->find_source);
	sqlite3_finalize(p->add_tag);
	sqlite3_finalize(p->find_tag);
	sqlite3_finalize(p->add_fold);
	sqlite3_finalize(p->find_fold);
	p->add_fold = p->find_fold = NULL;
	database_close(&p->folds);
	p->add_row = p->find_key = p->add_source = p->find_source = p->add_tag = p->find_tag = NULL;
	database_close(&p->db);
	sorter_free(p->rows);
	p->rows = NULL;
}

void job_plan_abort(struct job_plan *p)
{
	struct err ignored = {0};

	if (!p)
		return;
	plan_close(p);
	if (p->holds_claim) {
		/* Who was overtaken has nothing to say any more: the rest is the successor's. */
		if (store_exists(p->store, p->next_claim_name, &ignored) == 0)
			clear_remains(p, 0, &ignored);
		/* Last, as only the holder may clean. */
		store_remove(p->store, p->claim_name, &ignored);
	}
	if (p->work_dir)
		tree_remove(p->work_dir, &ignored);
	claim_end(&p->claim);
	buf_release(&p->line);
	buf_release(&p->canonical);
	buf_release(&p->last_source);
	buf_release(&p->last_tags);
	store_close(p->store);
	free(p->claim_name);
	free(p->next_claim_name);
	free(p->work_dir);
	free(p);
}

void job_plan_set_shards(struct job_plan *p, int64_t n_shards)
{
	p->n_shards_wanted = n_shards;
}

/* The number of a text in a table of distinct ones; *last remembers the latest, since equal ones mostly come together. */
static int text_number(struct job_plan *p, sqlite3_stmt *add, sqlite3_stmt *find, const char *text, size_t n, struct buf *last,
                       int64_t *last_number, int64_t *number, struct err *err)
{
	if (*last_number > 0 && last->len == n && memcmp(buf_str(last), text, n) == 0) {
		*number = *last_number;
		return 0;
	}
	sqlite3_bind_text64(add, 1, text, n, SQLITE_STATIC, SQLITE_UTF8);
	if (database_step(&p->db, add, err) < 0)
		return -1;
	sqlite3_reset(add);
	sqlite3_bind_text64(find, 1, text, n, SQLITE_STATIC, SQLITE_UTF8);
	if (database_step(&p->db, find, err) != 1)
		return err_set(err, ERR_STORAGE, "%s: %.*s was not stored", p->db.name, (int)(n < 200 ? n : 200), text);
	*number = *last_number = sqlite3_column_int64(find, 0);
	sqlite3_reset(find);
	buf_reset(last);
	buf_add(last, text, n);
	return 0;
}

static int source_number(struct job_plan *p, const char *name, int64_t *number, struct err *err)
{
	return text_number(p, p->add_source, p->find_source, name, strlen(name), &p->last_source, &p->last_source_number, number, err);
}

static int tags_number(struct job_plan *p, const struct plan_row *row, int64_t *number, struct err *err)
{
	return text_number(p, p->add_tag, p->find_tag, row->n_tags ? row->tags : "{}", row->n_tags ? row->n_tags : 2, &p->last_tags,
	                   &p->last_tags_number, number, err);
}

/* Hash of the canonical form, or of the bytes where a row at fault is no JSON or nested so deep that writing it would recurse too far. */
static int hash_input(struct job_plan *p, const struct plan_row *row, unsigned char hash[32], struct err *err)
{
	struct err fault = {0};
	yyjson_doc *doc = json_parse(row->input ? row->input : "", row->input ? row->n_input : 0, ERR_INPUT, &fault);
	int rc = 0;

	if (doc && json_depth_within(yyjson_doc_get_root(doc), 200)) {
		buf_reset(&p->canonical);
		json_write_canonical(&p->canonical, yyjson_doc_get_root(doc));
		sha256_bytes(p->canonical.data, p->canonical.len, hash);
	} else if (row->error_line) {
		sha256_bytes(row->input ? row->input : "", row->input ? row->n_input : 0, hash);
	} else {
		rc = err_set(err, ERR_INPUT, "%s", doc ? "nested deeper than 200 levels" : fault.msg);
	}
	yyjson_doc_free(doc);
	return rc;
}

static int open_folds(struct job_plan *p, struct err *err)
{
	char *path = path_format("%s/folds.db", p->work_dir);
	int rc = database_create(&p->folds, path, 4096, FOLDS_APPLICATION_ID, FOLDS_SCHEMA, err);

	free(path);
	if (rc < 0 || database_exec(&p->folds, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-32768; BEGIN", err) < 0)
		return -1;
	p->add_fold = database_prepare(&p->folds, "INSERT INTO fold VALUES(?,?)", err);
	p->find_fold = database_prepare(&p->folds, "SELECT row FROM fold WHERE fold_key=?", err);
	return p->add_fold && p->find_fold ? 0 : -1;
}

/* The first row with this fold key, -1 in *first when there is none. */
static int find_fold(struct job_plan *p, const void *fold_key, int64_t *first, struct err *err)
{
	int rc;

	*first = -1;
	if (!p->find_fold && open_folds(p, err) < 0)
		return -1;
	sqlite3_bind_blob(p->find_fold, 1, fold_key, 32, SQLITE_STATIC);
	rc = database_step(&p->folds, p->find_fold, err);
	if (rc == 1)
		*first = sqlite3_column_int64(p->find_fold, 0);
	sqlite3_reset(p->find_fold);
	return rc < 0 ? -1 : 0;
}

static int add_fold(struct job_plan *p, const void *fold_key, struct err *err)
{
	int rc;

	sqlite3_bind_blob(p->add_fold, 1, fold_key, 32, SQLITE_STATIC);
	sqlite3_bind_int64(p->add_fold, 2, p->n_rows);
	rc = database_step(&p->folds, p->add_fold, err);
	sqlite3_reset(p->add_fold);
	return rc < 0 ? -1 : 0;
}

/* A row that will run: into the sorter that cuts shards. */
static int add_to_sorter(struct job_plan *p, const struct plan_row *row, struct err *err)
{
	struct row_weight weight = {row->cost > 0 ? row->cost : 1, row->prefix_saving > 0 ? row->prefix_saving : 0};

	buf_reset(&p->line);
	shard_line_write(&p->line, p->n_rows, row);
	p->figures.prompt_tokens += row->n_prompt_tokens;
	p->figures.max_output_tokens += row->max_output_tokens;
	p->figures.expected_output_tokens += row->expected_output_tokens;
	return sorter_add(p->rows, row->prefix_key, row->n_prefix_key,
	                  (struct sorter_part[]){{&weight, sizeof(weight)}, {p->line.data, p->line.len}}, 2, err);
}

int job_plan_add(struct job_plan *p, const struct plan_row *row, const char **first_source, int64_t *first_line, struct err *err)
{
	unsigned char hash[32];
	int64_t source = 0, tags = 0, same_as = -1;
	int rc;

	if (row->n_prefix_key > 1024)
		BUG("prefix key of %zu bytes, at most 1024 are allowed", row->n_prefix_key);
	if (plan_beat(p, err) < 0)
		return -1;
	if (hash_input(p, row, hash, err) < 0 || source_number(p, row->source, &source, err) < 0 ||
	    tags_number(p, row, &tags, err) < 0)
		goto fail;
	if (row->fold_key && !row->error_line && find_fold(p, row->fold_key, &same_as, err) < 0)
		goto fail;
	sqlite3_bind_int64(p->add_row, 1, p->n_rows);
	sqlite3_bind_text64(p->add_row, 2, row->key, row->n_key, SQLITE_STATIC, SQLITE_UTF8);
	sqlite3_bind_blob(p->add_row, 3, hash, sizeof(hash), SQLITE_STATIC);
	sqlite3_bind_int64(p->add_row, 4, source);
	sqlite3_bind_int64(p->add_row, 5, row->line);
	/* A number as wide as any shard's: filling it in later never makes a record grow and split its page. */
	if (row->error_line || same_as >= 0)
		sqlite3_bind_null(p->add_row, 6);
	else
		sqlite3_bind_int64(p->add_row, 6, MAX_SHARDS);
	sqlite3_bind_int64(p->add_row, 7, row->n_prompt_tokens);
	sqlite3_bind_int64(p->add_row, 8, row->max_output_tokens);
	sqlite3_bind_int64(p->add_row, 9, tags);
	sqlite3_bind_text64(p->add_row, 10, row->error_line, row->error_line ? row->n_error_line : 0, SQLITE_STATIC, SQLITE_UTF8);
	if (same_as >= 0)
		sqlite3_bind_int64(p->add_row, 11, same_as);
	else
		sqlite3_bind_null(p->add_row, 11);
	rc = database_step(&p->db, p->add_row, err);
	sqlite3_reset(p->add_row);
	if (rc < 0)
		goto fail;
	if (sqlite3_changes(p->db.db) == 0) {
		sqlite3_reset(p->find_key);
		sqlite3_bind_text64(p->find_key, 1, row->key, row->n_key, SQLITE_TRANSIENT, SQLITE_UTF8);
		if (database_step(&p->db, p->find_key, err) != 1)
			goto fail;
		if (first_source)
			*first_source = (const char *)sqlite3_column_text(p->find_key, 0);
		if (first_line)
			*first_line = sqlite3_column_int64(p->find_key, 1);
		return 1;
	}
	if (row->error_line) {
		p->n_bad_rows++;
	} else if (same_as >= 0) {
		p->n_folded_rows++;
	} else if (add_to_sorter(p, row, err) < 0 || (row->fold_key && add_fold(p, row->fold_key, err) < 0)) {
		goto fail;
	}
	p->n_rows++;
	return 0;
fail:
	return err_context(err, "row %" PRId64 " (%s:%" PRId64 ")", p->n_rows, row->source, row->line);
}
