/* partial.c: unfinished rows to bytes and back. */
#include "runner/partial.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static const char magic[4] = {'T', 'M', 'P', '1'};

struct sample_head {
	uint8_t reason, by_stop_string;
	uint16_t width;
	int32_t stop_id;
	uint32_t n_tokens, n_text;
};

void partial_write(struct buf *out, const struct sample_result *samples, int n, int width)
{
	uint32_t count = (uint32_t)n;

	buf_add(out, magic, sizeof(magic));
	buf_add(out, &count, sizeof(count));
	for (int i = 0; i < n; i++) {
		const struct sample_result *s = &samples[i];
		struct sample_head h = {.reason = (uint8_t)s->reason,
		                        .by_stop_string = (uint8_t)s->by_stop_string,
		                        .width = (uint16_t)width,
		                        .stop_id = s->stop_id,
		                        .n_tokens = (uint32_t)s->n_tokens,
		                        .n_text = s->reason == FINISH_NONE ? 0 : (uint32_t)s->n_text};

		buf_add(out, &h, sizeof(h));
		buf_add(out, s->tokens, s->n_tokens * sizeof(*s->tokens));
		buf_add(out, s->logprobs, s->n_tokens * (size_t)width * sizeof(*s->logprobs));
		buf_add(out, s->text, h.n_text);
	}
}

struct reader {
	const unsigned char *p;
	size_t left;
};

/* n bytes, copied; a NUL behind them. NULL when there are not so many. */
static void *take(struct reader *r, size_t n)
{
	void *copy;

	if (n > r->left)
		return NULL;
	copy = xmemdup((const char *)r->p, n);
	r->p += n;
	r->left -= n;
	return copy;
}

static int read_head(struct reader *r, struct sample_head *h)
{
	if (sizeof(*h) > r->left)
		return -1;
	memcpy(h, r->p, sizeof(*h));
	r->p += sizeof(*h);
	r->left -= sizeof(*h);
	return 0;
}

static int read_sample(struct reader *r, struct sample_result *s, int width, int32_t n_vocab)
{
	struct sample_head h;

	if (read_head(r, &h) < 0 || h.width != width || h.reason > FINISH_LENGTH)
		return -1;
	s->reason = h.reason;
	s->by_stop_string = h.by_stop_string;
	s->stop_id = h.stop_id;
	s->n_tokens = h.n_tokens;
	s->n_text = h.n_text;
	s->tokens = take(r, s->n_tokens * sizeof(*s->tokens));
	if (width)
		s->logprobs = take(r, s->n_tokens * (size_t)width * sizeof(*s->logprobs));
	s->text = take(r, h.n_text);
	if (!s->tokens || (width && !s->logprobs) || !s->text)
		return -1;
	for (size_t i = 0; i < s->n_tokens; i++)
		if (s->tokens[i] < 0 || s->tokens[i] >= n_vocab)
			return -1;
	return 0;
}

void sample_result_release(struct sample_result *s)
{
	free(s->text);
	free(s->tokens);
	free(s->logprobs);
	*s = (struct sample_result){.stop_id = -1};
}

int partial_read(const void *data, size_t n_bytes, struct sample_result *samples, int n, int width, int32_t n_vocab)
{
	struct reader r = {data, n_bytes};
	uint32_t count;
	int ok;

	for (int i = 0; i < n; i++)
		samples[i] = (struct sample_result){.stop_id = -1};
	if (n_bytes < 8 || memcmp(data, magic, sizeof(magic)) != 0)
		return -1;
	memcpy(&count, r.p + 4, sizeof(count));
	r.p += 8;
	r.left -= 8;
	ok = count == (uint32_t)n;
	for (int i = 0; ok && i < n; i++)
		ok = read_sample(&r, &samples[i], width, n_vocab) == 0;
	if (ok && r.left == 0)
		return 0;
	for (int i = 0; i < n; i++)
		sample_result_release(&samples[i]);
	return -1;
}
