/* replan.c: a job that is planned is planned again: its input has grown, other shards are wanted, or failed rows are to be run once more. The
 * new plan is made beside the old one, which workers may go on with meanwhile, and takes its place by one exclusive creation:
 *
 *     job_replan_begin --job_plan_add, job_replan_add_same--> rows --job_plan_commit--> cut --plan_carry--> published
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "queue/lines.h"
#include "queue/plan_private.h"

void plan_follow(struct job_plan *p, struct job *from, struct job_replan *how)
{
	p->from = from;
	p->how = how;
	p->generation = from->generation + 1;
}

struct job_plan *job_replan_begin(struct job *from, struct job_replan *how, struct err *err)
{
	struct job_plan *p = xcalloc(1, sizeof(*p));

	plan_follow(p, from, how);
	claim_begin(&p->claim, 0, NULL);
	p->store = store_open(store_place(from->store), err);
	if (!p->store || plan_begin(p, err) < 0) {
		job_plan_abort(p);
		return NULL;
	}
	return p;
}

/* ---- the same rows again ---- */

/* All rows of a table as they are, but for column `placeholder` (-1: none): there a number stands for what is no NULL. */
static int copy_table(struct database *from, struct database *to, const char *table, int placeholder, struct err *err)
{
	char *sql = path_format("SELECT * FROM %s ORDER BY 1", table);
	sqlite3_stmt *read = database_prepare(from, sql, err), *write = NULL;
	int n = read ? sqlite3_column_count(read) : 0, rc = -1;
	struct buf b = {0};

	buf_addf(&b, "INSERT INTO %s VALUES(", table);
	for (int i = 0; i < n; i++)
		buf_adds(&b, i ? ",?" : "?");
	buf_addc(&b, ')');
	if (read)
		write = database_prepare(to, b.data, err);
	while (write && (rc = database_step(from, read, err)) == 1) {
		for (int i = 0; i < n; i++)
			if (i == placeholder && sqlite3_column_type(read, i) != SQLITE_NULL)
				sqlite3_bind_int64(write, i + 1, MAX_SHARDS);
			else
				sqlite3_bind_value(write, i + 1, sqlite3_column_value(read, i));
		if (database_step(to, write, err) < 0) {
			rc = -1;
			break;
		}
		sqlite3_reset(write);
	}
	sqlite3_finalize(read);
	sqlite3_finalize(write);
	buf_release(&b);
	free(sql);
	return rc;
}

/* The shards hold their rows in prefix order one after another: the place of a line stands for its prefix. It is one unit, so neighbours share
 * none: what they share in truth is in the cost of their shard already. */
static int add_shard_lines(struct job_plan *p, int64_t shard, int64_t *place, struct err *err)
{
	char *dir = job_shard_dir(p->from, shard), *name = path_format("%s/input.jsonl.zst", dir);
	struct store_file file = {0};
	struct line_reader *in = NULL;
	struct row_weight weight = {.cost = p->from->shards[shard].cost / (double)(p->from->shards[shard].n_rows + !p->from->shards[shard].n_rows)};
	const char *line;
	size_t n;
	int rc = store_fetch_known(p->from->store, name, &file, err);

	if (rc == 0)
		rc = err_set(err, ERR_STORAGE, "%s: %s is missing", store_place(p->from->store), name);
	if (rc == 1) {
		in = line_reader_open(file.path, LINES_ZSTD, err);
		rc = in ? 0 : -1;
	}
	while (rc == 0 && (rc = line_reader_next(in, &line, &n, err)) == 1) {
		unsigned char key[PLAN_PREFIX_UNIT];
		struct sorter_part parts[3] = {{&weight, sizeof(weight)}, {line, n}, {"\n", 1}};

		if (*place > UINT32_MAX) {
			rc = err_set(err, ERR_INPUT, "more than %u rows", UINT32_MAX);
			break;
		}
		for (int i = 0; i < PLAN_PREFIX_UNIT; i++)
			key[i] = (unsigned char)((uint64_t)*place >> (24 - 8 * i));
		++*place;
		rc = plan_beat(p, err);
		if (rc == 0)
			rc = sorter_add(p->rows, key, sizeof(key), parts, 3, err);
	}
	line_reader_close(in);
	store_file_release(&file);
	free(dir);
	free(name);
	return rc;
}

int job_replan_add_same(struct job_plan *p, struct err *err)
{
	struct database *old = job_plan_db(p->from, err);
	int64_t place = 0;

	if (!p->from || p->n_rows > 0)
		BUG("job_replan_add_same on a plan that has rows");
	if (!old || copy_table(old, &p->db, "source", -1, err) < 0 || copy_table(old, &p->db, "tag", -1, err) < 0 ||
	    copy_table(old, &p->db, "row", 5, err) < 0)
		return -1;
	for (int64_t i = 0; i < p->from->n_shards; i++)
		if (add_shard_lines(p, i, &place, err) < 0)
			return -1;
	p->n_rows = p->from->n_rows;
	p->n_bad_rows = p->from->n_bad_rows;
	p->n_folded_rows = p->from->n_folded_rows;
	p->figures = p->from->figures;
	p->figures.cost = 0; /* the cut sums it up */
	if (place != p->n_rows - p->n_bad_rows - p->n_folded_rows)
		return err_set(err, ERR_STORAGE, "%s: its shards have %" PRId64 " rows, the plan has %" PRId64, store_place(p->store), place,
		               p->n_rows - p->n_bad_rows - p->n_folded_rows);
	return 0;
}

/* ---- what was left behind ---- */

/* "plan-0002-...": 2; 0 for other names. */
static int base_generation(const char *name)
{
	char *stem;
	int64_t number;

	if (strncmp(name, "plan-", 5) != 0 || strspn(name + 5, "0123456789") < 4)
		return 0;
	stem = xmemdup(name, 5 + strspn(name + 5, "0123456789"));
	number = name[strlen(stem)] == '-' ? name_number(stem, "plan") : 0;
	free(stem);
	return number > 0 ? (int)number : 0;
}

/* Is it the base of the plan that its generation committed? 1, 0, -1. */
static int is_committed(struct store *s, const char *name, int generation, struct err *err)
{
	char *commit = job_commit_name(generation);
	struct buf b = {0};
	yyjson_doc *doc = NULL;
	const char *base;
	size_t n = strlen(name);
	int rc = store_get(s, commit, (size_t)256 << 20, &b, err);

	if (rc == 1) {
		doc = json_parse(buf_str(&b), b.len, ERR_STORAGE, err);
		base = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "base"));
		/* What cannot be read is not a reason to remove anything. */
		rc = !base ? 1 : strlen(base) == n + 1 && memcmp(base, name, n) == 0 && base[n] == '/';
	} else if (rc == 0) {
		rc = 1;
	}
	yyjson_doc_free(doc);
	buf_release(&b);
	free(commit);
	return rc;
}

int plan_sweep(struct store *s, int newest, struct err *err)
{
	char **names;
	size_t n;
	int rc = store_list(s, "", &names, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++) {
		int generation = base_generation(names[i]);

		if (generation < 1 || generation > newest)
			continue;
		rc = is_committed(s, names[i], generation, err);
		if (rc == 0)
			rc = store_remove_tree(s, names[i], err);
		else if (rc == 1)
			rc = 0;
	}
	store_names_free(names, n);
	return rc;
}
