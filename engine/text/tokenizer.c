/* tokenizer.c: what a tokenizer and an encoder are, and the way of a text through them. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

void token_list_add(struct token_list *l, int32_t id)
{
	MEM_GROW(l->ids, l->cap, l->n + 1);
	l->ids[l->n++] = id;
}

void token_list_release(struct token_list *l)
{
	free(l->ids);
	*l = (struct token_list){0};
}

/* The added tokens that match after normalising match in their normalised form, and decode to it. */
static int normalize_added(struct tokenizer *t, struct err *err)
{
	struct regex_scratch *scratch = regex_scratch_new();
	struct buf work[2] = {{0}, {0}};
	int status = 0, stripped;

	for (size_t i = 0; i < t->n_added && status == 0; i++) {
		struct added_token *a = &t->added[i];
		size_t n = a->n;
		const char *s;

		if (!a->normalized || t->n_normalizers == 0)
			continue;
		s = normalize_text(t->normalizers, t->n_normalizers, scratch, work, a->text, &n, &stripped, err);
		if (!s) {
			status = err_context(err, "added token %d", a->id);
		} else if (n != a->n || memcmp(s, a->text, n) != 0) {
			char *normal = xmemdup(s, n);

			free(a->text);
			a->text = normal;
			a->n = n;
			vocab_add(&t->decoded, a->id, s, n);
		}
		if (status == 0 && a->n == 0)
			status = err_set(err, ERR_MODEL, "added token %d is empty once normalised", a->id);
	}
	buf_release(&work[0]);
	buf_release(&work[1]);
	regex_scratch_free(scratch);
	return status;
}

int tokenizer_finish(struct tokenizer *t, struct err *err)
{
	struct vocab special = {0};
	size_t n_ids = t->vocab.n_ids > t->added_vocab.n_ids ? t->vocab.n_ids : t->added_vocab.n_ids;

	t->n_ids = (int32_t)n_ids;
	t->is_special = xcalloc(n_ids + 1, 1);
	for (size_t i = 0; i < t->n_added; i++)
		if (t->added[i].special)
			vocab_add(&special, (int32_t)i, t->added[i].text, t->added[i].n);
	if (normalize_added(t, err) != 0) {
		vocab_release(&special);
		return -1;
	}
	for (size_t i = 0; i < t->n_added; i++)
		if (vocab_find(&special, t->added[i].text, t->added[i].n) >= 0)
			t->is_special[t->added[i].id] = 1;
	vocab_release(&special);
	t->sets[0] = added_set_new(t->added, t->n_added, 0);
	t->sets[1] = added_set_new(t->added, t->n_added, 1);
	snprintf(t->description, sizeof(t->description), "%s BPE, %zu tokens, %zu added",
	         t->bpe.by_score ? "SentencePiece"
	         : t->bpe.raw    ? "byte-level"
	                         : "SentencePiece-style",
	         t->vocab.n_texts, t->n_added);
	return 0;
}

void tokenizer_free(struct tokenizer *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_added; i++)
		free(t->added[i].text);
	free(t->added);
	free(t->is_special);
	added_set_free(t->sets[0]);
	added_set_free(t->sets[1]);
	for (size_t i = 0; i < t->n_normalizers; i++)
		normalizer_release(&t->normalizers[i]);
	for (size_t i = 0; i < t->n_steps; i++)
		step_release(&t->steps[i]);
	for (size_t i = 0; i < t->n_decoders; i++)
		decoder_release(&t->decoders[i]);
	token_list_release(&t->prefix);
	token_list_release(&t->suffix);
	bpe_release(&t->bpe);
	vocab_release(&t->vocab);
	vocab_release(&t->added_vocab);
	vocab_release(&t->decoded);
	free(t);
}

int32_t tokenizer_n_vocab(const struct tokenizer *t)
{
	return t->n_ids;
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *n)
{
	const char *s = vocab_text(&t->added_vocab, id, n);

	return s ? s : vocab_text(&t->vocab, id, n);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token, size_t n)
{
	int32_t id = vocab_find(&t->added_vocab, token, n);

	return id >= 0 ? id : vocab_find(&t->vocab, token, n);
}

int tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->n_ids && t->is_special[id];
}

const char *tokenizer_describe(const struct tokenizer *t)
{
	return t->description;
}

struct encoder *encoder_new(const struct tokenizer *t)
{
	struct encoder *e = xcalloc(1, sizeof(*e));

	e->t = t;
	e->regex = regex_scratch_new();
	bpe_scratch_init(&e->bpe);
	return e;
}

void encoder_free(struct encoder *e)
{
	if (!e)
		return;
	regex_scratch_free(e->regex);
	buf_release(&e->text);
	buf_release(&e->normal[0]);
	buf_release(&e->normal[1]);
	for (size_t i = 0; i < MAX_STEPS; i++) {
		free(e->levels[i].spans);
		buf_release(&e->levels[i].text);
	}
	bpe_scratch_release(&e->bpe);
	free(e);
}

/* The added tokens of one set split the text; what is between them goes on: to the normaliser from set 0, to the words from
 * set 1. */
static int encode_by_set(struct encoder *e, int set, const char *s, size_t n, int at_start, unsigned flags,
                         struct token_list *out, struct err *err);

static int encode_between(struct encoder *e, int set, const char *s, size_t n, int at_start, unsigned flags,
                          struct token_list *out, struct err *err)
{
	int stripped = 0;

	if (n == 0)
		return 0;
	if (set == 1)
		return pretokenize(e, 0, s, n, at_start, out, err);
	s = normalize_text(e->t->normalizers, e->t->n_normalizers, e->regex, e->normal, s, &n, &stripped, err);
	if (!s)
		return -1;
	return encode_by_set(e, 1, s, n, at_start && !stripped, flags, out, err);
}

static int encode_by_set(struct encoder *e, int set, const char *s, size_t n, int at_start, unsigned flags,
                         struct token_list *out, struct err *err)
{
	struct added_match m;
	size_t from = 0, done = 0;

	while (e->t->sets[set] && added_set_next(e->t->sets[set], s, n, (flags & ENCODE_NO_PARSE) != 0, &from, done, &m)) {
		if (done < m.start && encode_between(e, set, s + done, m.start - done, at_start && done == 0, flags, out, err) != 0)
			return -1;
		token_list_add(out, m.id);
		done = m.end;
	}
	return encode_between(e, set, s + done, n - done, at_start && done == 0, flags, out, err);
}

int encoder_encode(struct encoder *e, const char *text, size_t n, unsigned flags, struct token_list *out, struct err *err)
{
	const struct tokenizer *t = e->t;
	size_t was = out->n;

	if (n > MAX_TEXT)
		return err_set(err, ERR_ROW, "text has %zu bytes, limit is %zu", n, MAX_TEXT);
	if (!utf8_valid(text, n)) {
		buf_reset(&e->text);
		utf8_add_lossy(&e->text, text, n);
		text = buf_str(&e->text);
		n = e->text.len;
	}
	regex_scratch_restart(e->regex);
	if (flags & ENCODE_ADD_SPECIAL)
		for (size_t i = 0; i < t->prefix.n; i++)
			token_list_add(out, t->prefix.ids[i]);
	if (n > 0 && encode_by_set(e, 0, text, n, 1, flags, out, err) != 0) {
		out->n = was;
		return -1;
	}
	if (flags & ENCODE_ADD_SPECIAL)
		for (size_t i = 0; i < t->suffix.n; i++)
			token_list_add(out, t->suffix.ids[i]);
	return 0;
}
