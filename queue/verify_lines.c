/* verify_lines.c: the merged lines against the records, row by row and byte by byte. Where the current line of a file is not the expected one, its
 * custom_id and the line after it tell what happened. Rows are numbered in input order, and so are the lines of a file that is whole:
 *
 *     current line's row      the line after it       so                              next
 *     the expected one        any                     altered                         line and row
 *     a later one, or none    is the expected line    current one is out of place     both lines and row
 *     a later one, or none    any other               expected row is missing         row
 *     an earlier one          any                     there twice, or out of place    line
 *     no row of the input     is the expected line    current one belongs to no row   line
 *     no row of the input     any other               altered beyond recognition      line and row */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "queue/verify_private.h"

enum { MAX_TOLD = 100000, NO_ROW = -1 };

static int read_line(struct merged_lines *m, const char **line, size_t *n, struct err *err)
{
	int rc = line_reader_next(m->reader, line, n, err);

	if (rc != 1)
		*line = NULL;
	return rc < 0 ? -1 : 0;
}

static int advance(struct merged_lines *m, struct err *err)
{
	if (m->is_held) {
		m->is_held = 0;
		m->line = m->ahead;
		m->n = m->n_ahead;
	} else if (read_line(m, &m->line, &m->n, err) < 0) {
		return -1;
	}
	m->number++;
	return 0;
}

static int look_ahead(struct merged_lines *m, struct err *err)
{
	if (m->is_held || !m->line)
		return 0;
	buf_reset(&m->held);
	buf_add(&m->held, m->line, m->n);
	m->line = buf_str(&m->held);
	m->is_held = 1;
	return read_line(m, &m->ahead, &m->n_ahead, err);
}

static int is_line(const char *line, size_t n, const char *expected, size_t n_expected)
{
	return line && n == n_expected && memcmp(line, expected, n) == 0;
}

int line_check_open(struct line_check *c, struct job *j, struct problems *p, struct err *err)
{
	struct database *plan = job_plan_db(j, err);

	*c = (struct line_check){.job = j, .problems = p, .files = {{.name = "results.jsonl"}, {.name = "errors.jsonl"}}};
	c->find_key = plan ? database_prepare(plan, "SELECT row FROM row WHERE key=?", err) : NULL;
	if (!c->find_key)
		return -1;
	for (int i = 0; i < 2; i++) {
		struct merged_lines *m = &c->files[i];
		char *name = path_format("merged/%s", m->name), *full = store_name(j->store, name);
		int rc = store_fetch(j->store, name, &m->file, err);

		if (rc == 0)
			err_set(err, ERR_STORAGE, "%s: is missing", full);
		else if (rc == 1)
			m->reader = line_reader_open(m->file.path, LINES_PLAIN, err);
		free(name);
		free(full);
		if (!m->reader || advance(m, err) < 0)
			return -1;
	}
	return 0;
}

void line_check_close(struct line_check *c)
{
	for (int i = 0; i < 2; i++) {
		line_reader_close(c->files[i].reader);
		store_file_release(&c->files[i].file);
		buf_release(&c->files[i].held);
	}
	sqlite3_finalize(c->find_key);
	row_map_release(&c->told);
	buf_release(&c->key);
	buf_release(&c->made);
}

/* The row whose key the current line carries, which c->key gets. */
static int64_t row_of_line(struct line_check *c, const struct merged_lines *m)
{
	struct err ignored = {0};
	yyjson_doc *doc = m->line ? json_parse(m->line, m->n, ERR_STORAGE, &ignored) : NULL;
	yyjson_val *id = yyjson_obj_get(yyjson_doc_get_root(doc), "custom_id");
	int64_t row = NO_ROW;

	buf_reset(&c->key);
	if (yyjson_is_str(id)) {
		buf_add(&c->key, yyjson_get_str(id), yyjson_get_len(id));
		sqlite3_reset(c->find_key);
		sqlite3_bind_text64(c->find_key, 1, buf_str(&c->key), c->key.len, SQLITE_STATIC, SQLITE_UTF8);
		if (database_step(job_plan_db(c->job, &ignored), c->find_key, &ignored) == 1)
			row = sqlite3_column_int64(c->find_key, 0);
		sqlite3_reset(c->find_key);
	}
	yyjson_doc_free(doc);
	return row;
}

static void tell_row(struct line_check *c, struct merged_lines *m, const struct ledger *l, int with_line, const char *what)
{
	struct err text = {0};

	ledger_fail(l, &text, ERR_STORAGE, what);
	if (with_line)
		err_context(&text, "%s:%" PRId64, m->name, m->number);
	else
		err_context(&text, "%s", m->name);
	problems_add(c->problems, "%s", text.msg);
	m->n_wrong++;
}

static void remember(struct line_check *c, int64_t row)
{
	if (c->told.n < MAX_TOLD)
		row_map_put(&c->told, row);
}

/* The current line, of `row`, which is not the expected one. */
static void tell_line(struct line_check *c, struct merged_lines *m, int64_t row, const struct ledger *l)
{
	int is_late = row != NO_ROW && row_map_find(&c->told, row) != NULL;

	if (row == NO_ROW)
		problems_add(c->problems, "%s:%" PRId64 ": a record that belongs to no row of the input (key \"%.200s\")", m->name,
		             m->number, buf_str(&c->key));
	else
		problems_add(c->problems, "%s:%" PRId64 ": row %" PRId64 " (key \"%.200s\") stands there %s", m->name, m->number, row,
		             buf_str(&c->key), is_late || row > l->plan.row ? "out of its place" : "a second time");
	m->n_wrong++;
	if (row > l->plan.row)
		remember(c, row);
}

static void tell_missing(struct line_check *c, struct merged_lines *m, const struct ledger *l)
{
	/* Its line stood earlier, which has been told. */
	if (row_map_find(&c->told, l->plan.row))
		return;
	tell_row(c, m, l, 0, "is missing");
	remember(c, l->plan.row);
}

/* A row of a partial merge may have got its record later; then it was closed in errors.jsonl, or left out. 1, 0, -1. */
static int was_closed(struct line_check *c, const struct ledger *l, struct err *err)
{
	struct merged_lines *m = &c->files[1];

	if (!c->is_partial || !l->rules.close_code || !c->job->lines.closed)
		return 0;
	buf_reset(&c->made);
	c->job->lines.closed(c->job->lines.context, &c->made, l->plan.key, l->plan.n_key, l->rules.close_code);
	if (!is_line(m->line, m->n, buf_str(&c->made), c->made.len))
		return 0;
	return advance(m, err) < 0 ? -1 : 1;
}

/* A row for which there is no record to compare with. */
static int check_unknown(struct line_check *c, const struct ledger *l, struct err *err)
{
	for (int i = 0; i < 2 && c->has_damage; i++)
		if (row_of_line(c, &c->files[i]) == l->plan.row)
			return advance(&c->files[i], err) < 0 ? -1 : 1;
	if (!c->has_damage && !c->is_partial) {
		struct err text = {0};

		ledger_fail(l, &text, ERR_STORAGE, "has no result in any segment");
		problems_add(c->problems, "%s", text.msg);
	}
	return 1;
}

int line_check_row(struct line_check *c, const struct ledger *l, struct err *err)
{
	struct merged_lines *m = &c->files[l->is_error != 0];
	int rc;

	if (l->status == LEDGER_MISSING)
		return check_unknown(c, l, err);
	for (;;) {
		int64_t row;

		if (is_line(m->line, m->n, l->line, l->n_line))
			return advance(m, err) < 0 ? -1 : 1;
		if ((rc = was_closed(c, l, err)) != 0) {
			c->n_newer += rc == 1;
			return rc < 0 ? -1 : 0;
		}
		row = m->line ? row_of_line(c, m) : INT64_MAX;
		if (row == l->plan.row) {
			tell_row(c, m, l, 1, "is altered");
			return advance(m, err) < 0 ? -1 : 1;
		}
		if (look_ahead(m, err) < 0)
			return -1;
		if (row > l->plan.row) {
			if (m->line && is_line(m->ahead, m->n_ahead, l->line, l->n_line)) {
				tell_line(c, m, row, l);
				if (advance(m, err) < 0)
					return -1;
				continue;
			}
			if (c->is_partial && !c->files[0].n_wrong && !c->files[1].n_wrong) {
				c->n_newer++;
				return 0;
			}
			tell_missing(c, m, l);
			return 1;
		}
		if (row == NO_ROW && !is_line(m->ahead, m->n_ahead, l->line, l->n_line)) {
			tell_row(c, m, l, 1, "is altered or missing");
			return advance(m, err) < 0 ? -1 : 1;
		}
		tell_line(c, m, row, l);
		if (advance(m, err) < 0)
			return -1;
	}
}

int line_check_end(struct line_check *c, const struct ledger *l, struct err *err)
{
	for (int i = 0; i < 2; i++)
		while (c->files[i].line) {
			tell_line(c, &c->files[i], row_of_line(c, &c->files[i]), l);
			if (advance(&c->files[i], err) < 0)
				return -1;
		}
	return 0;
}
