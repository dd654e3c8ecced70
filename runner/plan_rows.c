/* plan_rows.c: three batches of lines go round: one is being added to the plan and one read (thread 0), while the third is
 * parsed and tokenized (all threads, thread 0 as soon as it is done with the others). */
#include "runner/plan_rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/workers.h"
#include "runner/prompt.h"
#include "runner/signals.h"

enum { BATCH_ROWS = 512, BATCH_BYTES = 4 << 20 };

struct plan_item {
	/* from the reader */
	size_t text_at, n_text; /* in the batch's text */
	size_t source_at;       /* in the batch's text, NUL-terminated */
	int64_t line;
	int too_long;
	/* from the parser */
	int is_bad;
	struct row_fault fault;
	struct buf id;   /* custom_id; empty when the row has none */
	struct buf tags; /* row_tags */
	int64_t n_prompt, max_output;
	double cost, saving, expected; /* as in struct plan_row; tokens of all answers */
	int can_fold;
	unsigned char fold_key[32];
	size_t n_prefix;
	unsigned char prefix[PREFIX_KEY_MAX_BYTES];
};

struct plan_batch {
	struct plan_item items[BATCH_ROWS];
	size_t n;
	struct buf text;
};

struct planner {
	struct work_counter next_item;
	struct job_plan *plan;
	const struct plan_options *o;
	struct cost_model cost;
	const struct input_list *files;
	struct job_inputs *inputs;
	struct plan_totals *totals;
	struct plan_batch *batches[3];
	int reading, parsing, adding; /* which batch is where */
	struct prompt_maker *makers;  /* one for each thread */
	/* reader */
	struct input *in;
	size_t next_file;
	int64_t n_file_rows;
	/* adder */
	int64_t n_told;
	struct buf line;
	struct err err; /* of reading or adding */
};

size_t plan_prefix_key(const int32_t *ids, size_t n, unsigned char out[PREFIX_KEY_MAX_BYTES])
{
	uint64_t h = 0;
	size_t used = 0;

	for (size_t i = 0; i + PREFIX_BLOCK_TOKENS <= n && used < PREFIX_KEY_MAX_BYTES; i += PREFIX_BLOCK_TOKENS, used += 4) {
		h = hash64(ids + i, PREFIX_BLOCK_TOKENS * sizeof(*ids), h);
		for (int k = 0; k < 4; k++)
			out[used + (size_t)k] = (unsigned char)(h >> (56 - 8 * k));
	}
	return used;
}

/* ---- read ---- */

static int next_file(struct planner *p)
{
	struct job_input *in;

	if (p->next_file == p->files->n)
		return 0;
	in = inputs_add(p->inputs, p->files->paths[p->next_file]);
	p->in = input_open(in->name, 0, &p->err);
	p->next_file++;
	p->n_file_rows = 0;
	return p->in ? 1 : -1;
}

static void end_file(struct planner *p)
{
	struct job_input *in = &p->inputs->items[p->inputs->n - 1];

	input_digest(p->in, in->sha256, &in->n_bytes);
	in->n_rows = p->n_file_rows;
	input_close(p->in);
	p->in = NULL;
}

/* Fill the batch as far as its limits go. An empty one: nothing is left. */
static int read_batch(struct planner *p, struct plan_batch *b)
{
	b->n = 0;
	buf_reset(&b->text);
	while (b->n < BATCH_ROWS && b->text.len < BATCH_BYTES) {
		struct input_line l;
		struct plan_item *it = &b->items[b->n];
		const char *previous = b->n ? b->text.data + it[-1].source_at : NULL;
		int r;

		if (!p->in) {
			r = next_file(p);
			if (r <= 0)
				return r;
		}
		r = input_next(p->in, &l, &p->err);
		if (r < 0)
			return -1;
		if (r == 0) {
			end_file(p);
			continue;
		}
		it->line = l.line;
		it->too_long = l.too_long;
		if (previous && strcmp(previous, l.source) == 0) {
			it->source_at = it[-1].source_at;
		} else {
			it->source_at = b->text.len;
			buf_add(&b->text, l.source, strlen(l.source) + 1);
		}
		it->text_at = b->text.len;
		it->n_text = l.n;
		buf_add(&b->text, l.text, l.n);
		b->n++;
		p->n_file_rows++;
	}
	return 0;
}

/* ---- parse ---- */

static void identify_item(struct plan_item *it, const struct row_request *r, struct buf *identity)
{
	buf_reset(identity);
	row_identity(r, identity);
	it->can_fold = identity->len > 0;
	if (it->can_fold)
		sha256_bytes(identity->data, identity->len, it->fold_key);
}

/* What the row will cost, as far as it can be told before it runs. */
static void estimate_item(const struct planner *p, struct plan_item *it, const struct row_request *r)
{
	const struct sampling *s = &r->sampling;
	double output = output_lengths_expect(p->o->lengths, s->max_tokens);
	size_t units = it->n_prefix / PLAN_PREFIX_UNIT;
	struct row_cost c;

	/* Nothing but its limit ends it. */
	if (s->ignore_eos && !s->n_stop && !s->n_stop_ids)
		output = s->max_tokens;
	if (output < s->min_tokens)
		output = s->min_tokens < s->max_tokens ? s->min_tokens : s->max_tokens;
	c = estimate_row(&p->cost, (double)it->n_prompt, 0, output, r->n);
	it->expected = c.output_tokens;
	it->cost = c.prefill_s + c.decode_s;
	it->saving = units ? estimate_prefix(&p->cost, (double)(units * PREFIX_BLOCK_TOKENS)) / (double)units : 0;
}

static void parse_item(struct planner *p, struct plan_batch *b, struct plan_item *it, struct prompt_maker *m)
{
	struct row_request r = {0};
	const char *text = b->text.data + it->text_at;

	it->fault = (struct row_fault){0};
	it->n_prompt = it->max_output = 0;
	it->cost = it->saving = it->expected = 0;
	it->can_fold = 0;
	it->n_prefix = 0;
	buf_reset(&it->id);
	buf_reset(&it->tags);
	if (it->too_long) {
		row_fault_set(&it->fault, NULL, "line_too_long", "the line is longer than %zu bytes", (size_t)INPUT_MAX_LINE_BYTES);
	} else if (row_parse(text, it->n_text, p->o->rules, &r, &it->fault) == 0 && prompt_make(m, &r, &it->fault) == 0) {
		it->n_prompt = (int64_t)m->ids.n;
		it->max_output = (int64_t)r.n * r.sampling.max_tokens;
		it->n_prefix = plan_prefix_key(m->ids.ids, m->ids.n ? m->ids.n - 1 : 0, it->prefix);
		estimate_item(p, it, &r);
		if (p->o->fold)
			identify_item(it, &r, &m->rendered); /* the prompt's text is no longer needed */
	}
	it->is_bad = it->fault.message[0] != '\0';
	if (r.custom_id)
		buf_add(&it->id, r.custom_id, r.n_custom_id);
	row_tags(&r, &it->tags);
	row_release(&r);
}

/* ---- add ---- */

static void tell(struct planner *p, const char *source, int64_t line, const struct row_fault *f)
{
	p->totals->n_bad++;
	if (p->n_told++ >= p->o->n_faults_told)
		return;
	if (p->o->faults) {
		buf_adds(p->o->faults, p->n_told > 1 ? ",{\"source\":" : "{\"source\":");
		json_write_string(p->o->faults, source, strlen(source));
		buf_addf(p->o->faults, ",\"line\":%lld,\"message\":", (long long)line);
		json_write_string(p->o->faults, f->message, strlen(f->message));
		buf_addc(p->o->faults, '}');
	}
	if (p->o->max_bad_rows == 0)
		log_error("%s:%lld: %s", source, (long long)line, f->message);
	else
		log_warn("%s:%lld: %s", source, (long long)line, f->message);
}

/* 0, 1 when the key is taken. */
static int add_row(struct planner *p, struct plan_row *row, const struct plan_item *it, const struct row_fault *f,
                   const char **source, int64_t *line)
{
	row->error_line = NULL;
	row->n_error_line = 0;
	if (f) {
		buf_reset(&p->line);
		output_fault(&p->line, p->o->output, row->key, row->n_key, it->id.len ? it->id.data : NULL, it->id.len, f);
		row->error_line = p->line.data;
		row->n_error_line = p->line.len;
	}
	return job_plan_add(p->plan, row, source, line, &p->err);
}

/* A key from the position; an earlier row may have that very word as its custom_id, then another one is tried. */
static int add_nameless(struct planner *p, struct plan_row *row, const struct plan_item *it, const struct row_fault *f)
{
	char key[ROW_POSITION_KEY_BYTES + 16];
	const char *source;
	int64_t line;
	int r = 1;

	row_position_key(p->totals->n_rows, key);
	for (int i = 2; r == 1; i++) {
		row->key = key;
		row->n_key = strlen(key);
		r = add_row(p, row, it, f, &source, &line);
		row_position_key(p->totals->n_rows, key);
		snprintf(key + strlen(key), 16, "~%d", i);
	}
	row->key = NULL;
	return r;
}

static int add_item(struct planner *p, struct plan_batch *b, struct plan_item *it)
{
	const char *source = b->text.data + it->source_at, *first_source = NULL, *base;
	int64_t first_line = 0;
	struct row_fault duplicate = {0};
	struct plan_row row = {
	    .key = buf_str(&it->id),
	    .n_key = it->id.len,
	    .source = source,
	    .line = it->line,
	    .input = b->text.data + it->text_at,
	    .n_input = it->n_text,
	    .n_prompt_tokens = it->n_prompt,
	    .max_output_tokens = it->max_output,
	    .expected_output_tokens = it->expected,
	    .prefix_key = it->prefix,
	    .n_prefix_key = it->n_prefix,
	    .cost = it->cost,
	    .prefix_saving = it->saving,
	    .fold_key = it->can_fold ? it->fold_key : NULL,
	    .tags = it->tags.data,
	    .n_tags = it->tags.len,
	};
	int r;

	p->totals->n_rows++;
	if (it->is_bad)
		tell(p, source, it->line, &it->fault);
	else
		p->totals->prompt_tokens += it->n_prompt;
	if (!it->id.len)
		return add_nameless(p, &row, it, it->is_bad ? &it->fault : NULL);
	r = add_row(p, &row, it, it->is_bad ? &it->fault : NULL, &first_source, &first_line);
	if (r != 1)
		return r;
	/* The name is taken. Paths are left out of the record: it should not depend on where the file lay. */
	base = strrchr(first_source, '/');
	row_fault_set(&duplicate, "custom_id", "duplicate_custom_id",
	              "custom_id '%.100s' is used twice: first in %s line %lld, again in line %lld", it->id.data,
	              base ? base + 1 : first_source, (long long)first_line, (long long)it->line);
	if (!it->is_bad) {
		tell(p, source, it->line, &duplicate);
		p->totals->prompt_tokens -= it->n_prompt;
	}
	row.n_prompt_tokens = row.max_output_tokens = 0;
	row.n_prefix_key = 0;
	row.fold_key = NULL;
	return add_nameless(p, &row, it, &duplicate);
}

static int add_batch(struct planner *p, struct plan_batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (add_item(p, b, &b->items[i]) < 0)
			return -1;
	b->n = 0;
	return 0;
}

/* ---- all together ---- */

static void work(void *arg, int thread, int n_threads)
{
	struct planner *p = arg;
	struct plan_batch *b = p->batches[p->parsing];
	size_t i;

	if (thread == 0 && p->err.code == ERR_NONE && add_batch(p, p->batches[p->adding]) == 0)
		read_batch(p, p->batches[p->reading]);
	while ((i = work_counter_take(&p->next_item, 4)) < b->n)
		for (size_t end = i + 4 < b->n ? i + 4 : b->n; i < end; i++)
			parse_item(p, b, &b->items[i], &p->makers[thread]);
}

static int run(struct planner *p, struct workers *team)
{
	int free_batch;

	if (read_batch(p, p->batches[p->reading]) < 0)
		return -1;
	do {
		/* read -> parse -> add -> read */
		free_batch = p->adding;
		p->adding = p->parsing;
		p->parsing = p->reading;
		p->reading = free_batch;
		work_counter_reset(&p->next_item);
		workers_run(team, work, p);
		if (signals_received())
			return signals_drained(&p->err);
		if (p->err.code != ERR_NONE)
			return -1;
	} while (p->batches[p->reading]->n || p->batches[p->parsing]->n);
	return 0;
}

static int conclude(struct planner *p)
{
	struct plan_totals *t = p->totals;

	if (p->n_told > p->o->n_faults_told)
		log_warn("and %lld more rows at fault", (long long)(p->n_told - p->o->n_faults_told));
	if (t->n_rows == 0)
		return err_set(&p->err, ERR_INPUT, "there is no row in %s%s", p->files->n ? p->files->paths[0] : "the input",
		               p->files->n > 1 ? " nor in the other input files" : "");
	for (size_t i = 0; i < p->inputs->n; i++)
		if (p->inputs->items[i].n_rows == 0)
			log_warn("%s has no row", p->inputs->items[i].name);
	if (p->o->max_bad_rows >= 0 && t->n_bad > p->o->max_bad_rows)
		return err_set(&p->err, ERR_INPUT, "%lld of %lld rows are at fault, at most %lld are allowed (%s); nothing was run",
		               (long long)t->n_bad, (long long)t->n_rows, (long long)p->o->max_bad_rows,
		               p->o->max_bad_rows ? "--max-bad-rows" : "--strict");
	return 0;
}

int plan_rows(struct job_plan *plan, const struct input_list *files, const struct plan_options *o, struct job_inputs *inputs,
              struct plan_totals *totals, struct err *err)
{
	struct planner *p = xcalloc(1, sizeof(*p));
	struct workers *team = workers_new(o->n_threads, err);
	int r = -1;

	*totals = (struct plan_totals){0};
	p->plan = plan;
	p->o = o;
	p->cost = o->cost.batch ? o->cost : cost_model_default();
	p->files = files;
	p->inputs = inputs;
	p->totals = totals;
	p->parsing = 1;
	p->adding = 2;
	for (int i = 0; i < 3; i++)
		p->batches[i] = xcalloc(1, sizeof(**p->batches));
	p->makers = xcalloc((size_t)o->n_threads, sizeof(*p->makers));
	for (int i = 0; i < o->n_threads; i++)
		prompt_maker_init(&p->makers[i], o->text, o->now_unix_s, o->n_context);
	if (team)
		r = run(p, team);
	if (r == 0)
		r = conclude(p);
	if (p->err.code != ERR_NONE)
		err_set(err, p->err.code, "%s", p->err.msg);
	for (int i = 0; i < o->n_threads; i++)
		prompt_maker_release(&p->makers[i]);
	free(p->makers);
	for (int i = 0; i < 3; i++) {
		for (size_t k = 0; k < BATCH_ROWS; k++) {
			buf_release(&p->batches[i]->items[k].id);
			buf_release(&p->batches[i]->items[k].tags);
		}
		buf_release(&p->batches[i]->text);
		free(p->batches[i]);
	}
	input_close(p->in);
	buf_release(&p->line);
	workers_free(team);
	free(p);
	return r;
}
