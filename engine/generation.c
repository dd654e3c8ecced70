/* generation.c: growing one answer token by token. */
#include "engine/generation.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

static void *copy(struct arena *a, const void *p, size_t n_bytes)
{
	void *to;

	if (n_bytes == 0)
		return NULL;
	to = arena_alloc(a, n_bytes);
	memcpy(to, p, n_bytes);
	return to;
}

static void copy_sampling(struct generation *g, const struct sampling *from)
{
	struct sampling *s = &g->sampling;
	const char **stop;

	*s = *from;
	s->bias = copy(&g->arena, from->bias, (size_t)from->n_bias * sizeof(*from->bias));
	s->stop_ids = copy(&g->arena, from->stop_ids, (size_t)from->n_stop_ids * sizeof(*from->stop_ids));
	stop = arena_alloc(&g->arena, (size_t)from->n_stop * sizeof(*stop));
	for (int32_t i = 0; i < from->n_stop; i++) {
		size_t n = strlen(from->stop[i]);

		stop[i] = arena_strdup(&g->arena, from->stop[i], n);
		if (n > g->longest_stop)
			g->longest_stop = n;
	}
	s->stop = stop;
}

static void collect_banned(struct generation *g)
{
	const struct sampling *s = &g->sampling;

	g->banned = arena_alloc(&g->arena, (size_t)(g->text_info->n_stop_ids + s->n_stop_ids) * sizeof(*g->banned));
	for (int i = 0; i < g->text_info->n_stop_ids; i++)
		g->banned[g->n_banned++] = g->text_info->stop_ids[i];
	for (int32_t i = 0; i < s->n_stop_ids; i++)
		g->banned[g->n_banned++] = s->stop_ids[i];
}

static int check_ids(const int32_t *ids, size_t n, int32_t n_vocab, const char *what, struct err *err)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= n_vocab)
			return err_set(err, ERR_ROW, "%s: token id %d at place %zu is not in 0..%d", what, ids[i], i, n_vocab - 1);
	return 0;
}

static int check_request(const struct engine_request *r, int32_t n_vocab, int32_t max_context, struct err *err)
{
	const struct sampling *s = &r->sampling;

	if (r->n_prompt == 0)
		return err_set(err, ERR_ROW, "the prompt has no tokens");
	if (r->n_prompt + (size_t)(s->max_tokens > 0) > (size_t)max_context)
		return err_set(err, ERR_ROW, "prompt has %zu tokens; with one for the answer the limit is %d", r->n_prompt, max_context);
	if (s->max_tokens < 0 || r->n_partial > (size_t)s->max_tokens)
		return err_set(err, ERR_ROW, "%zu tokens are there already, max_tokens is %d", r->n_partial, s->max_tokens);
	if (check_ids(r->prompt, r->n_prompt, n_vocab, "prompt", err) < 0 || check_ids(r->partial, r->n_partial, n_vocab, "partial answer", err) < 0 ||
	    check_ids(s->stop_ids, (size_t)s->n_stop_ids, n_vocab, "stop_token_ids", err) < 0)
		return -1;
	for (int32_t i = 0; i < s->n_bias; i++)
		if (check_ids(&s->bias[i].id, 1, n_vocab, "logit_bias", err) < 0)
			return -1;
	return 0;
}

struct generation *generation_new(const struct engine_request *r, const struct text *text, int32_t n_vocab, int32_t max_context,
                                  struct err *err)
{
	struct generation *g;
	struct sequence *q;
	size_t n = r->n_prompt + r->n_partial, room, width;

	if (check_request(r, n_vocab, max_context, err) < 0)
		return NULL;
	g = xcalloc(1, sizeof(*g));
	q = &g->seq;
	g->user = r->user;
	g->text_info = text;
	g->stop_id = -1;
	copy_sampling(g, &r->sampling);
	/* What does not fit the context ends with reason length, as everywhere. */
	room = (size_t)max_context - r->n_prompt;
	if ((size_t)g->sampling.max_tokens > room)
		g->sampling.max_tokens = (int32_t)room;
	collect_banned(g);
	MEM_GROW(q->tokens, q->tokens_cap, n);
	memcpy(q->tokens, r->prompt, r->n_prompt * sizeof(*q->tokens));
	if (r->n_partial)
		memcpy(q->tokens + r->n_prompt, r->partial, r->n_partial * sizeof(*q->tokens));
	q->n_tokens = (int32_t)n;
	q->n_prompt = (int32_t)r->n_prompt;
	q->max_total = (int32_t)r->n_prompt + g->sampling.max_tokens;
	g->n_resumed = (int32_t)r->n_partial;
	g->detokenizer = detokenizer_new(text->tokenizer, g->sampling.skip_special);
	for (size_t i = 0; i < r->n_partial; i++)
		detokenizer_add(g->detokenizer, r->partial[i], &g->text);
	width = (size_t)g->sampling.n_logprobs + 1;
	if (g->sampling.n_logprobs >= 0 && r->n_partial && r->partial_logprobs) {
		MEM_GROW(g->logprobs, g->logprobs_cap, r->n_partial * width);
		memcpy(g->logprobs, r->partial_logprobs, r->n_partial * width * sizeof(*g->logprobs));
	}
	g->submitted_s = clock_seconds();
	return g;
}

void generation_free(struct generation *g)
{
	if (!g)
		return;
	detokenizer_free(g->detokenizer);
	buf_release(&g->text);
	arena_release(&g->arena);
	free(g->logprobs);
	free(g->seq.tokens);
	free(g->seq.blocks);
	free(g);
}

static int is_stop_id(const struct generation *g, int32_t id)
{
	for (int i = 0; !g->sampling.ignore_eos && i < g->text_info->n_stop_ids; i++)
		if (g->text_info->stop_ids[i] == id)
			return 1;
	for (int32_t i = 0; i < g->sampling.n_stop_ids; i++)
		if (g->sampling.stop_ids[i] == id)
			return 1;
	return 0;
}

/* The first stop string that ends at or after byte `from`; the text is cut there. */
static int find_stop(struct generation *g, size_t from)
{
	size_t start = from > g->longest_stop ? from - g->longest_stop : 0, best = (size_t)-1, best_len = 0;

	for (int32_t i = 0; i < g->sampling.n_stop; i++) {
		const char *stop = g->sampling.stop[i];
		size_t n = strlen(stop);
		const char *at = n ? memmem(buf_str(&g->text) + start, g->text.len - start, stop, n) : NULL;

		if (at && (size_t)(at - g->text.data) < best) {
			best = (size_t)(at - g->text.data);
			best_len = n;
			g->stop_string = stop;
		}
	}
	if (!g->stop_string)
		return 0;
	buf_truncate(&g->text, g->sampling.include_stop ? best + best_len : best);
	return 1;
}

enum finish_reason generation_add(struct generation *g, int32_t id, const struct token_logprob *top)
{
	const struct sampling *s = &g->sampling;
	size_t before = g->text.len, width = (size_t)s->n_logprobs + 1, n_output;
	int stopped = is_stop_id(g, id);

	if (g->first_token_s == 0)
		g->first_token_s = clock_seconds();
	sequence_append(&g->seq, id);
	n_output = (size_t)generation_n_output(g);
	if (top && s->n_logprobs >= 0) {
		MEM_GROW(g->logprobs, g->logprobs_cap, n_output * width);
		memcpy(g->logprobs + (n_output - 1) * width, top, width * sizeof(*top));
	}
	/* min_tokens keeps stop tokens from being sampled before their time; stop strings wait as well (vLLM). */
	if (!stopped || s->include_stop)
		detokenizer_add(g->detokenizer, id, &g->text);
	if (stopped) {
		g->stop_id = id;
		detokenizer_flush(g->detokenizer, &g->text);
		return FINISH_STOP;
	}
	if (s->n_stop > 0 && n_output >= (size_t)(s->min_tokens > 0 ? s->min_tokens : 0) && find_stop(g, before))
		return FINISH_STOP;
	if (g->seq.n_tokens >= g->seq.max_total) {
		detokenizer_flush(g->detokenizer, &g->text);
		return FINISH_LENGTH;
	}
	return FINISH_NONE;
}

struct engine_result generation_result(struct generation *g, enum finish_reason reason, const char *error)
{
	double now = clock_seconds();
	double admitted = g->admitted_s ? g->admitted_s : now, first = g->first_token_s ? g->first_token_s : now;

	return (struct engine_result){
		.user = g->user,
		.reason = reason,
		.error = error,
		.tokens = g->seq.tokens + g->seq.n_prompt,
		.n_tokens = (size_t)generation_n_output(g),
		.text = buf_str(&g->text),
		.n_text = g->text.len,
		.stop_string = g->stop_string,
		.stop_id = g->stop_id,
		.logprobs = g->sampling.n_logprobs >= 0 ? g->logprobs : NULL,
		.n_prompt = (size_t)g->seq.n_prompt,
		.n_cached = (size_t)g->seq.n_cached,
		.n_recomputed = (size_t)g->seq.n_recomputed + (size_t)g->n_resumed,
		.wait_s = admitted - g->submitted_s,
		.prefill_s = first - admitted,
		.decode_s = now - first,
	};
}
