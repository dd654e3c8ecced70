/* engine_fake.c: answers drawn from a hash.
 *
 * The whole answer is worked out when a request is submitted; the steps only let it out bit by bit:
 *
 *     submit: words drawn, the end found      waiting ----> running ----> ended, kept for the next request
 *                                              room in the batch   n_done == n_tokens
 *
 * A word is a token whose text is the same wherever it stands, so the text of an answer is its words one after another and
 * needs no detokenizer.
 */
#include "engine/engine_fake.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/engine_ops.h"

enum {
	MAX_WORDS = 4096,
	WORD_BYTES = 16,
	STEP_TOKENS = 32, /* of each row in a step, when there is no rate */
	DEFAULT_BATCH = 256,
	MIN_STEPS = 2, /* of a row that crashes or hangs: it has been seen to run */
};
#define STEP_S 0.01 /* how long a step takes at most when there is a rate */
#define FAIL_MESSAGE "the fake engine gives this row up, as fail= asks"

struct word {
	int32_t id;
	uint32_t n;
	char text[WORD_BYTES];
};

enum fault { FAULT_NONE = 0, FAULT_CRASH = 1, FAULT_HANG = 2 };

struct fake_request {
	struct fake_request *next; /* waiting, or free */
	void *user;
	int32_t *tokens; /* [n_tokens] */
	size_t n_tokens, tokens_cap, n_done, n_partial, n_prompt;
	struct buf text;
	struct token_logprob *logprobs; /* [n_tokens, width] */
	size_t logprobs_cap, width;
	enum finish_reason reason; /* at its end */
	char *stop_string;
	int32_t stop_id;
	int32_t factor, credit; /* a slow row is given tokens, and takes one of `factor` */
	enum fault fault;
	int n_steps;
	double submitted_s, admitted_s, first_s;
};

struct fake_engine {
	struct engine base; /* first: ops, plan */
	struct fake_options o;
	const struct text *text;
	struct word *words;
	uint32_t n_words;
	struct fake_request **running; /* [max_batch] in the order of admission */
	size_t n_running, n_waiting, turn;
	struct fake_request *waiting, **waiting_end, *spare;
	double opened_s, due_s, tokens_due;
	int64_t n_ended;
	struct engine_stats stats;
};

static const struct engine_ops fake_ops;

/* ---- words ---- */

static int is_word(const struct buf *text)
{
	for (size_t i = 0; i < text->len; i++)
		if (text->data[i] < ' ' || text->data[i] > '~')
			return 0;
	return text->len > 0 && text->len < WORD_BYTES;
}

/* Behind another word it must read as it does alone: SentencePiece drops a space in front of the first. */
static int reads_the_same(const struct text *t, int32_t before, const struct buf *before_text, int32_t id,
                          const struct buf *text)
{
	int32_t ids[2] = {before, id};
	struct buf both = {0};
	int same;

	tokenizer_decode(t->tokenizer, ids, 2, 1, &both);
	same = both.len == before_text->len + text->len && memcmp(both.data + before_text->len, text->data, text->len) == 0;
	buf_release(&both);
	return same;
}

static int collect_words(struct fake_engine *e, struct err *err)
{
	int32_t n_vocab = tokenizer_n_vocab(e->text->tokenizer), before = -1;
	struct buf text = {0}, before_text = {0};

	e->words = xcalloc(MAX_WORDS, sizeof(*e->words));
	for (int32_t id = 0; id < n_vocab && e->n_words < MAX_WORDS; id++) {
		struct word *w = &e->words[e->n_words];

		if (tokenizer_is_special(e->text->tokenizer, id) || !tokenizer_token(e->text->tokenizer, id, NULL))
			continue;
		buf_reset(&text);
		tokenizer_decode(e->text->tokenizer, &id, 1, 1, &text);
		if (!is_word(&text) || (before >= 0 && !reads_the_same(e->text, before, &before_text, id, &text)))
			continue;
		w->id = before = id;
		w->n = (uint32_t)text.len;
		memcpy(w->text, text.data, text.len);
		buf_reset(&before_text);
		buf_add(&before_text, text.data, text.len);
		e->n_words++;
	}
	buf_release(&text);
	buf_release(&before_text);
	return e->n_words ? 0
	                  : err_set(err, ERR_MODEL, "the fake engine finds no word of plain ASCII among the %d tokens", n_vocab);
}

/* ---- an answer ---- */

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t scramble(uint64_t x)
{
	x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
	x = (x ^ x >> 27) * 0x94D049BB133111EBu;
	return x ^ x >> 31;
}

/* Number k of the stream. */
static uint64_t draw(uint64_t stream, uint64_t k)
{
	return scramble(stream + (k + 1) * 0x9E3779B97F4A7C15u);
}

/* A row is chosen with probability p; salt tells apart what it is chosen for. */
static int is_chosen(uint64_t row, uint64_t salt, double p)
{
	return (double)(draw(row, salt) >> 11) * 0x1p-53 < p;
}

static int is_one_of(const int32_t *ids, int32_t n, int32_t id)
{
	for (int32_t i = 0; i < n; i++)
		if (ids[i] == id)
			return 1;
	return 0;
}

/* The first stop string that ends behind byte `from`; the text is cut there. */
static int find_stop(struct fake_request *r, const struct sampling *s, size_t from)
{
	const char *first = NULL, *which = NULL;

	for (int32_t i = 0; i < s->n_stop; i++) {
		size_t n = strlen(s->stop[i]), start = from > n ? from - n : 0;
		const char *at = n ? memmem(r->text.data + start, r->text.len - start, s->stop[i], n) : NULL;

		if (at && (!first || at < first)) {
			first = at;
			which = s->stop[i];
		}
	}
	if (!first)
		return 0;
	r->stop_string = xstrdup(which);
	buf_truncate(&r->text, (size_t)(first - r->text.data) + (s->include_stop ? strlen(which) : 0));
	return 1;
}

/* Does the answer end with the token just added? */
static int ends_here(struct fake_request *r, const struct sampling *s, int32_t id, const struct word *w)
{
	size_t before = r->text.len;

	if (r->n_tokens >= (size_t)s->min_tokens && is_one_of(s->stop_ids, s->n_stop_ids, id)) {
		r->stop_id = id;
		if (s->include_stop)
			buf_add(&r->text, w->text, w->n);
		return 1;
	}
	buf_add(&r->text, w->text, w->n);
	return s->n_stop && r->n_tokens >= (size_t)s->min_tokens && find_stop(r, s, before);
}

static void write_answer(const struct fake_engine *e, struct fake_request *r, const struct sampling *s, uint64_t stream,
                         size_t n)
{
	int plain = !s->n_stop && !s->n_stop_ids;
	char *text;

	MEM_GROW(r->tokens, r->tokens_cap, n + 1);
	buf_reserve(&r->text, (n + 1) * WORD_BYTES);
	text = r->text.data;
	for (size_t i = 0; i < n; i++) {
		const struct word *w = &e->words[(draw(stream, i) >> 32) * e->n_words >> 32];

		r->tokens[i] = w->id;
		if (plain) {
			memcpy(text, w->text, WORD_BYTES);
			text += w->n;
			continue;
		}
		r->n_tokens = i + 1;
		if (ends_here(r, s, w->id, w)) {
			r->reason = FINISH_STOP;
			return;
		}
	}
	r->n_tokens = n;
	if (plain) {
		r->text.len = (size_t)(text - r->text.data);
		*text = '\0';
	}
}

/* Everything about the answer: how long, how it ends, what it says. */
static void prepare_answer(const struct fake_engine *e, struct fake_request *r, const struct engine_request *q)
{
	const struct sampling *s = &q->sampling;
	uint64_t in[4] = {s->seed, s->key, 0, hash64(q->prompt, q->n_prompt * sizeof(*q->prompt), 1)}, row, stream;
	size_t room = (size_t)(e->base.plan.max_context - (int32_t)q->n_prompt), limit = (size_t)s->max_tokens, n;

	row = hash64(in, sizeof(in), 2);
	in[2] = s->sample;
	stream = hash64(in, sizeof(in), 3);
	if (limit > room)
		limit = room;
	n = (size_t)e->o.shortest + (size_t)(draw(stream, ~(uint64_t)0) % (uint64_t)(e->o.longest - e->o.shortest + 1));
	if (n < (size_t)s->min_tokens)
		n = (size_t)s->min_tokens;
	r->reason = FINISH_STOP;
	if (s->ignore_eos || n >= limit) {
		n = limit;
		r->reason = FINISH_LENGTH;
	}
	write_answer(e, r, s, stream, n);
	r->factor = is_chosen(row, 1, e->o.slow_share) ? e->o.slow_factor : 1;
	if (is_chosen(row, 2, e->o.fail_share)) {
		r->reason = FINISH_ERROR;
		r->n_tokens = (r->n_tokens + 1) / 2;
	}
	if (s->n_logprobs >= 0) {
		r->width = (size_t)s->n_logprobs + 1;
		MEM_GROW(r->logprobs, r->logprobs_cap, r->n_tokens * r->width + 1);
		for (size_t i = 0; i < r->n_tokens * r->width; i++)
			r->logprobs[i] = (struct token_logprob){i % r->width ? -1 : r->tokens[i / r->width], 0};
	}
}

/* ---- requests ---- */

static int check_request(const struct fake_engine *e, const struct engine_request *q, struct err *err)
{
	const struct sampling *s = &q->sampling;
	int32_t n_vocab = tokenizer_n_vocab(e->text->tokenizer);

	if (q->n_prompt == 0)
		return err_set(err, ERR_ROW, "the prompt has no tokens");
	if (q->n_prompt + (size_t)(s->max_tokens > 0) > (size_t)e->base.plan.max_context)
		return err_set(err, ERR_ROW, "prompt has %zu tokens; with one for the answer the limit is %d", q->n_prompt,
		               e->base.plan.max_context);
	if (s->max_tokens < 0)
		return err_set(err, ERR_ROW, "max_tokens is %d", s->max_tokens);
	for (size_t i = 0; i < q->n_prompt; i++)
		if (q->prompt[i] < 0 || q->prompt[i] >= n_vocab)
			return err_set(err, ERR_ROW, "prompt: token id %d at place %zu is not in 0..%d", q->prompt[i], i, n_vocab - 1);
	return 0;
}

static enum fault find_fault(const struct fake_engine *e, const struct engine_request *q)
{
	enum fault fault = FAULT_NONE;
	struct buf text = {0};

	if (!e->o.crash_word[0] && !e->o.hang_word[0])
		return FAULT_NONE;
	tokenizer_decode(e->text->tokenizer, q->prompt, q->n_prompt, 0, &text);
	if (e->o.crash_word[0] && memmem(buf_str(&text), text.len, e->o.crash_word, strlen(e->o.crash_word)))
		fault = FAULT_CRASH;
	else if (e->o.hang_word[0] && memmem(buf_str(&text), text.len, e->o.hang_word, strlen(e->o.hang_word)))
		fault = FAULT_HANG;
	buf_release(&text);
	return fault;
}

static struct fake_request *request_new(struct fake_engine *e)
{
	struct fake_request *r = e->spare, kept;

	if (!r)
		return xcalloc(1, sizeof(*r));
	e->spare = r->next;
	kept = *r;
	*r = (struct fake_request){.tokens = kept.tokens,
	                           .tokens_cap = kept.tokens_cap,
	                           .text = kept.text,
	                           .logprobs = kept.logprobs,
	                           .logprobs_cap = kept.logprobs_cap};
	buf_reset(&r->text);
	return r;
}

static void request_keep(struct fake_engine *e, struct fake_request *r)
{
	free(r->stop_string);
	r->stop_string = NULL;
	r->next = e->spare;
	e->spare = r;
}

static void request_free(struct fake_request *r)
{
	free(r->stop_string);
	free(r->tokens);
	free(r->logprobs);
	buf_release(&r->text);
	free(r);
}

static int submit(struct engine *engine, const struct engine_request *q, struct err *err)
{
	struct fake_engine *e = (struct fake_engine *)engine;
	struct fake_request *r;

	if (check_request(e, q, err) < 0)
		return -1;
	r = request_new(e);
	r->user = q->user;
	r->stop_id = -1;
	r->n_prompt = q->n_prompt;
	prepare_answer(e, r, q);
	for (size_t i = 0; i < q->n_partial; i++)
		if (i >= r->n_tokens || q->partial[i] != r->tokens[i]) {
			request_keep(e, r);
			return err_set(err, ERR_ENGINE, "a row goes on from %zu tokens, but token %zu is not what was generated before",
			               q->n_partial, i);
		}
	r->n_done = r->n_partial = q->n_partial;
	r->fault = find_fault(e, q);
	r->submitted_s = clock_seconds();
	*e->waiting_end = r;
	e->waiting_end = &r->next;
	e->n_waiting++;
	return 0;
}

/* What is there after n_done tokens. A row that still runs shows its words up to there. */
static struct engine_result result_of(const struct fake_engine *e, const struct fake_request *r, enum finish_reason reason,
                                      double now)
{
	double first = r->first_s ? r->first_s : now, admitted = r->admitted_s ? r->admitted_s : now;
	struct engine_result result = {.user = r->user,
	                               .reason = reason,
	                               .error = reason == FINISH_ERROR ? FAIL_MESSAGE : NULL,
	                               .tokens = r->tokens,
	                               .n_tokens = r->n_done,
	                               .text = buf_str(&r->text),
	                               .n_text = r->text.len,
	                               .stop_string = reason == FINISH_STOP ? r->stop_string : NULL,
	                               .stop_id = reason == FINISH_STOP ? r->stop_id : -1,
	                               .logprobs = r->width ? r->logprobs : NULL,
	                               .n_prompt = r->n_prompt,
	                               .n_recomputed = r->n_partial,
	                               .wait_s = admitted - r->submitted_s,
	                               .prefill_s = first - admitted,
	                               .decode_s = now - first};

	if (reason == FINISH_NONE || reason == FINISH_ERROR) {
		struct buf part = {0};

		tokenizer_decode(e->text->tokenizer, r->tokens, r->n_done, 1, &part);
		if (part.len < r->text.len)
			result.n_text = part.len;
		buf_release(&part);
	}
	return result;
}

/* ---- one step ---- */

static _Noreturn void crash(void)
{
	struct rlimit none = {0, 0};

	/* A test that crashes a thousand times need not leave a thousand core files. */
	setrlimit(RLIMIT_CORE, &none);
	signal(SIGSEGV, SIG_DFL);
	raise(SIGSEGV);
	abort();
}

static void do_faults(struct fake_engine *e, double now)
{
	if ((e->o.crash_after_rows && e->n_ended >= e->o.crash_after_rows) ||
	    (e->o.crash_after_s > 0 && now - e->opened_s >= e->o.crash_after_s))
		crash();
	for (size_t i = 0; i < e->n_running; i++) {
		struct fake_request *r = e->running[i];

		if (++r->n_steps < MIN_STEPS || r->fault == FAULT_NONE)
			continue;
		if (r->fault == FAULT_CRASH)
			crash();
		for (;;)
			pause();
	}
}

static void admit(struct fake_engine *e, double now)
{
	while (e->waiting && e->n_running < (size_t)e->base.plan.max_batch) {
		struct fake_request *r = e->waiting;

		e->waiting = r->next;
		if (!e->waiting)
			e->waiting_end = &e->waiting;
		e->n_waiting--;
		r->admitted_s = now;
		e->running[e->n_running++] = r;
		e->stats.prompt_tokens += r->n_prompt;
		e->stats.computed_tokens += r->n_prompt + r->n_partial;
		e->stats.recomputed_tokens += r->n_partial;
	}
}

/* The tokens of this step: so many for each running row, and one more for `more` of them. */
static void share_tokens(struct fake_engine *e, size_t *each, size_t *more)
{
	size_t n_rows = e->n_running, n;

	*each = STEP_TOKENS;
	*more = 0;
	if (e->o.rate > 0 && n_rows > 0) {
		e->tokens_due += e->o.rate * STEP_S;
		n = (size_t)e->tokens_due;
		e->tokens_due -= (double)n;
		*each = n / n_rows;
		*more = n % n_rows;
	}
}

/* Returns how many of the n it used up, which is more than it made if it is slow. */
static size_t advance(struct fake_engine *e, struct fake_request *r, size_t n, double now)
{
	size_t left = (r->n_tokens - r->n_done) * (size_t)r->factor - (size_t)r->credit, used;

	if (r->fault != FAULT_NONE)
		return n;
	used = n < left ? n : left;
	n = used + (size_t)r->credit;
	r->credit = (int32_t)(n % (size_t)r->factor);
	n /= (size_t)r->factor;
	if (n && r->first_s == 0)
		r->first_s = now;
	r->n_done += n;
	e->stats.output_tokens += n;
	e->stats.computed_tokens += n;
	return used;
}

/* Until the time for n_used tokens is over; a signal ends the wait, so that the caller sees it. */
static void wait_until_due(struct fake_engine *e, size_t n_used)
{
	double now = clock_seconds(), left;
	struct timespec t;

	e->due_s += (double)n_used / e->o.rate;
	if (e->due_s < now)
		e->due_s = now; /* what was missed is not made up for */
	left = e->due_s - now;
	t = (struct timespec){(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
	nanosleep(&t, NULL);
}

static long step(struct engine *engine, engine_result_fn fn, void *arg, struct err *err)
{
	struct fake_engine *e = (struct fake_engine *)engine;
	double start = clock_seconds();
	size_t each, more, n = 0, n_used = 0, n_began, turn;

	(void)err;
	admit(e, start);
	do_faults(e, start);
	share_tokens(e, &each, &more);
	n_began = e->n_running;
	/* Whose turn it is goes round, so that all rows get on however few tokens there are. */
	turn = n_began ? e->turn % n_began : 0;
	for (size_t i = 0; i < n_began; i++) {
		struct fake_request *r = e->running[i];
		size_t place = i >= turn ? i - turn : i + n_began - turn;

		n_used += advance(e, r, each + (place < more), start);
		if (r->n_done < r->n_tokens || r->fault != FAULT_NONE) {
			e->running[n++] = r;
			continue;
		}
		struct engine_result result = result_of(e, r, r->reason, start);

		e->n_ended++;
		fn(arg, &result);
		request_keep(e, r);
	}
	e->n_running = n;
	e->turn += more;
	e->stats.n_steps++;
	if (e->o.rate > 0)
		wait_until_due(e, n_used);
	e->stats.busy_s += clock_seconds() - start;
	return (long)(e->n_running + e->n_waiting);
}

/* ---- looking in ---- */

static size_t n_waiting(const struct engine *e)
{
	return ((const struct fake_engine *)e)->n_waiting;
}

static size_t n_running(const struct engine *e)
{
	return ((const struct fake_engine *)e)->n_running;
}

static void tell(struct fake_engine *e, const struct fake_request *r, engine_result_fn fn, void *arg)
{
	struct engine_result result = result_of(e, r, FINISH_NONE, clock_seconds());

	fn(arg, &result);
}

static void each_running(struct engine *engine, engine_result_fn fn, void *arg)
{
	struct fake_engine *e = (struct fake_engine *)engine;

	for (size_t i = 0; i < e->n_running; i++)
		tell(e, e->running[i], fn, arg);
	for (struct fake_request *r = e->waiting; r; r = r->next)
		tell(e, r, fn, arg);
}

static void get_stats(const struct engine *engine, struct engine_stats *s)
{
	const struct fake_engine *e = (const struct fake_engine *)engine;

	*s = e->stats;
	s->forward_s = s->busy_s;
	s->n_running = (int32_t)e->n_running;
	s->n_waiting = (int32_t)e->n_waiting;
}

/* ---- open and close ---- */

static void free_list(struct fake_request *r)
{
	for (struct fake_request *next; r; r = next) {
		next = r->next;
		request_free(r);
	}
}

static void close_fake(struct engine *engine)
{
	struct fake_engine *e = (struct fake_engine *)engine;

	for (size_t i = 0; i < e->n_running; i++)
		request_free(e->running[i]);
	free_list(e->waiting);
	free_list(e->spare);
	free(e->running);
	free(e->words);
	free(e);
}

static const struct engine_ops fake_ops = {
    .submit = submit,
    .step = step,
    .n_waiting = n_waiting,
    .n_running = n_running,
    .each_running = each_running,
    .get_stats = get_stats,
    .close = close_fake,
};

struct engine *engine_open_fake(const struct text *text, const struct fake_options *o, struct err *err)
{
	struct fake_engine *e = xcalloc(1, sizeof(*e));
	struct engine_plan *p = &e->base.plan;
	struct timespec load = {(time_t)o->load_s, (long)((o->load_s - (double)(time_t)o->load_s) * 1e9)};

	e->base.ops = &fake_ops;
	e->o = *o;
	e->text = text;
	e->waiting_end = &e->waiting;
	p->backend = "fake";
	p->n_threads = 1;
	p->max_batch = o->max_batch ? o->max_batch : DEFAULT_BATCH;
	p->chunk_tokens = p->max_batch * STEP_TOKENS;
	p->max_context = text->n_context > 0 ? text->n_context : TEXT_BYTES_N_CONTEXT;
	e->running = xcalloc((size_t)p->max_batch, sizeof(*e->running));
	if (collect_words(e, err) < 0) {
		close_fake(&e->base);
		return NULL;
	}
	nanosleep(&load, NULL); /* a signal cuts it short */
	e->opened_s = clock_seconds();
	return &e->base;
}
