/* detokenizer.c: ids to text, one token at a time. tokenizer_decode is the same machine fed with all ids, so that the two
 * cannot disagree.
 *
 * The decoders of tokenizer.json turn a list of tokens into a list of tokens, one after the other; their concatenation is the
 * text. Here each is a stage that gets tokens as they come and passes on what can no longer change:
 *
 *   Replace, Strip, Metaspace   work on each token alone
 *   ByteFallback                holds a run of <0xNN> tokens until it ends: it is one string if all of it is UTF-8, and U+FFFD
 *                               for each byte if not
 *   ByteLevel                   makes one token of all; holds the bytes of an unfinished character
 *   Fuse                        makes one token of all
 *
 * After the last two, the one token comes in parts. Stages that can work on parts (Strip at the start, Fuse) do; if others
 * follow, the whole is kept until the flush.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

struct stage {
	struct buf held;
	size_t n_seen;  /* tokens; in Strip on parts: characters that may still be stripped, counted down */
	int parts;      /* what comes in is one token in parts */
	int keep_whole; /* merges, and what follows cannot work on parts */
};

struct detokenizer {
	const struct tokenizer *t;
	int skip_special;
	int any;
	struct regex_scratch *regex;
	struct buf work[2]; /* of the stages that rewrite a token */
	struct stage stages[MAX_STEPS];
};

void decoder_release(struct decoder *d)
{
	regex_free(d->regex);
	free(d->text);
	free(d->content);
}

static int merges(const struct decoder *d)
{
	return d->kind == DECODER_BYTE_LEVEL || d->kind == DECODER_FUSE;
}

struct detokenizer *detokenizer_new(const struct tokenizer *t, int skip_special)
{
	struct detokenizer *d = xcalloc(1, sizeof(*d));
	int parts = 0;

	d->t = t;
	d->skip_special = skip_special;
	for (size_t i = 0; i < t->n_decoders; i++) {
		const struct decoder *dec = &t->decoders[i];
		struct stage *s = &d->stages[i];

		if (dec->regex && !d->regex)
			d->regex = regex_scratch_new();
		s->parts = parts;
		if (parts && dec->kind == DECODER_STRIP)
			s->n_seen = dec->start;
		if (merges(dec)) {
			for (size_t j = i + 1; j < t->n_decoders; j++)
				if (t->decoders[j].kind != DECODER_FUSE && (t->decoders[j].kind != DECODER_STRIP || t->decoders[j].stop > 0))
					s->keep_whole = 1;
			parts = !s->keep_whole;
		}
	}
	return d;
}

void detokenizer_free(struct detokenizer *d)
{
	if (!d)
		return;
	regex_scratch_free(d->regex);
	buf_release(&d->work[0]);
	buf_release(&d->work[1]);
	for (size_t i = 0; i < MAX_STEPS; i++)
		buf_release(&d->stages[i].held);
	free(d);
}

static void push(struct detokenizer *d, size_t i, const char *s, size_t n, struct buf *out);

/* <0xNN>: the byte, else -1. A sign in place of the first digit passes, as in Rust's from_str_radix. */
static int fallback_byte(const char *s, size_t n)
{
	int value = 0;

	if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
		return -1;
	for (int i = 3; i < 5; i++) {
		int c = (unsigned char)s[i], v;

		if (i == 3 && c == '+')
			continue;
		v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (v < 0)
			return -1;
		value = value * 16 + v;
	}
	return value;
}

static void end_fallback_run(struct detokenizer *d, size_t i, struct buf *out)
{
	struct stage *s = &d->stages[i];

	if (s->held.len == 0)
		return;
	if (utf8_valid(s->held.data, s->held.len)) {
		push(d, i + 1, s->held.data, s->held.len, out);
	} else {
		for (size_t k = 0; k < s->held.len; k++)
			push(d, i + 1, "\xEF\xBF\xBD", 3, out);
	}
	buf_reset(&s->held);
}

/* How many bytes at the end of s may still become a character. */
static size_t unfinished(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;

	for (size_t k = 1; k <= 3 && k <= n; k++) {
		size_t bad;
		int cut;

		if ((p[n - k] & 0xC0) == 0x80)
			continue;
		return !utf8_check(p + n - k, p + n, &bad, &cut) && cut ? k : 0;
	}
	return 0;
}

static void push_bytes(struct detokenizer *d, size_t i, const char *s, size_t n, struct buf *out)
{
	struct buf *held = &d->stages[i].held, *text = &d->work[0];
	size_t done;

	if (!byte_alphabet_decode(s, n, held))
		buf_add(held, s, n);
	if (d->stages[i].keep_whole || held->len == 0)
		return;
	done = held->len - unfinished(held->data, held->len);
	if (done == 0)
		return;
	buf_reset(text);
	utf8_add_lossy(text, held->data, done);
	push(d, i + 1, text->data, text->len, out);
	memmove(held->data, held->data + done, held->len - done);
	buf_truncate(held, held->len - done);
}

static size_t same_char(const struct decoder *dec, const char *s, size_t n)
{
	return n >= dec->n_text && memcmp(s, dec->text, dec->n_text) == 0 ? dec->n_text : 0;
}

static void push_strip(struct detokenizer *d, size_t i, const char *s, size_t n, struct buf *out)
{
	const struct decoder *dec = &d->t->decoders[i];
	struct stage *st = &d->stages[i];
	size_t left = st->parts ? st->n_seen : dec->start;

	while (left > 0 && n > 0) {
		if (!same_char(dec, s, n)) {
			left = 0;
			break;
		}
		s += dec->n_text;
		n -= dec->n_text;
		left--;
	}
	if (st->parts)
		st->n_seen = left;
	else
		for (size_t k = 0; k < dec->stop && n >= dec->n_text && same_char(dec, s + n - dec->n_text, dec->n_text); k++)
			n -= dec->n_text;
	push(d, i + 1, s, n, out);
}

static void push_metaspace(struct detokenizer *d, size_t i, const char *s, size_t n, struct buf *out)
{
	const struct decoder *dec = &d->t->decoders[i];
	struct buf text = {0};
	int first = d->stages[i].n_seen++ == 0;

	for (size_t k = 0; k < n;) {
		size_t size = same_char(dec, s + k, n - k);

		if (!size)
			buf_addc(&text, s[k++]);
		else if (!first || !dec->prepend)
			buf_addc(&text, ' ');
		k += size;
	}
	push(d, i + 1, buf_str(&text), text.len, out);
	buf_release(&text);
}

static void push_replace(struct detokenizer *d, size_t i, const char *s, size_t n, struct buf *out)
{
	const struct decoder *dec = &d->t->decoders[i];
	struct buf text = {0};
	struct err err = {0};

	/* A pattern that gives up leaves the token as it is: there is no one to tell. */
	if (n > 0 &&
	    replace_text(dec->regex, dec->text, dec->n_text, dec->content, dec->n_content, d->regex, s, n, &text, &err) != 0) {
		buf_reset(&text);
		buf_add(&text, s, n);
	}
	push(d, i + 1, buf_str(&text), text.len, out);
	buf_release(&text);
}

static void push(struct detokenizer *d, size_t i, const char *s, size_t n, struct buf *out)
{
	int byte;

	if (i == d->t->n_decoders) {
		buf_add(out, s, n);
		return;
	}
	switch (d->t->decoders[i].kind) {
	case DECODER_BYTE_LEVEL:
		push_bytes(d, i, s, n, out);
		break;
	case DECODER_BYTE_FALLBACK:
		byte = fallback_byte(s, n);
		if (byte >= 0) {
			buf_addc(&d->stages[i].held, (char)byte);
		} else {
			end_fallback_run(d, i, out);
			push(d, i + 1, s, n, out);
		}
		break;
	case DECODER_FUSE:
		if (d->stages[i].keep_whole)
			buf_add(&d->stages[i].held, s, n);
		else
			push(d, i + 1, s, n, out);
		break;
	case DECODER_REPLACE:
		push_replace(d, i, s, n, out);
		break;
	case DECODER_STRIP:
		push_strip(d, i, s, n, out);
		break;
	case DECODER_METASPACE:
		push_metaspace(d, i, s, n, out);
		break;
	}
}

void detokenizer_add(struct detokenizer *d, int32_t id, struct buf *out)
{
	const struct tokenizer *t = d->t;
	size_t n;
	const char *s = vocab_text(&t->decoded, id, &n);

	if (!s)
		s = tokenizer_token(t, id, &n);
	if (!s)
		return;
	if (d->skip_special && t->is_special[id])
		return;
	if (!t->has_decoder && d->any)
		buf_addc(out, ' ');
	d->any = 1;
	push(d, 0, s, n, out);
}

void detokenizer_flush(struct detokenizer *d, struct buf *out)
{
	for (size_t i = 0; i < d->t->n_decoders; i++) {
		struct stage *s = &d->stages[i];
		struct buf text = {0};

		if (s->held.len == 0)
			continue;
		if (d->t->decoders[i].kind == DECODER_BYTE_FALLBACK) {
			end_fallback_run(d, i, out);
			continue;
		}
		if (d->t->decoders[i].kind == DECODER_BYTE_LEVEL)
			utf8_add_lossy(&text, s->held.data, s->held.len);
		else
			buf_add(&text, s->held.data, s->held.len);
		buf_reset(&s->held);
		push(d, i + 1, text.data, text.len, out);
		buf_release(&text);
	}
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, int skip_special, struct buf *out)
{
	struct detokenizer *d = detokenizer_new(t, skip_special);

	for (size_t i = 0; i < n; i++)
		detokenizer_add(d, ids[i], out);
	detokenizer_flush(d, out);
	detokenizer_free(d);
}

void tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out)
{
	size_t n;
	const char *s = tokenizer_token(t, id, &n);
	struct buf work = {0};
	int byte;

	if (!s)
		return;
	if (t->is_special[id]) {
		buf_add(out, s, n);
		return;
	}
	buf_add(&work, s, n);
	for (size_t i = 0; i < t->n_decoders; i++) {
		const struct decoder *d = &t->decoders[i];
		struct buf next = {0};
		struct err err = {0};

		if (d->kind == DECODER_BYTE_FALLBACK && (byte = fallback_byte(work.data, work.len)) >= 0) {
			buf_reset(&work);
			buf_addc(&work, (char)byte);
			break;
		}
		if (d->kind == DECODER_BYTE_LEVEL) {
			if (byte_alphabet_decode(work.data, work.len, &next)) {
				buf_reset(&work);
				buf_add(&work, next.data, next.len);
			}
			buf_release(&next);
			break;
		}
		if ((d->kind == DECODER_REPLACE && !d->regex) || d->kind == DECODER_METASPACE) {
			const char *to = d->kind == DECODER_METASPACE ? " " : d->content;
			size_t n_to = d->kind == DECODER_METASPACE ? 1 : d->n_content;

			if (replace_text(NULL, d->text, d->n_text, to, n_to, NULL, work.data, work.len, &next, &err) == 0) {
				buf_reset(&work);
				buf_add(&work, buf_str(&next), next.len);
			}
			buf_release(&next);
		}
	}
	buf_add(out, work.data, work.len);
	buf_release(&work);
}
