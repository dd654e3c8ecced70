/* pretokenize.c: cuts a text into the words that BPE sees, step by step. Each step cuts every piece on its own, so the steps
 * nest: a piece goes through all the later ones before its neighbour is looked at. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

void step_release(struct step *s)
{
	regex_free(s->regex);
	free(s->text);
}

static int emit(struct encoder *e, size_t step, const char *s, size_t from, size_t to, int at_start, struct token_list *out,
                struct err *err)
{
	if (from == to)
		return 0;
	return pretokenize(e, step + 1, s + from, to - from, at_start && from == 0, out, err);
}

static void add_span(struct level *l, size_t *n, size_t start, size_t end, int match)
{
	MEM_GROW(l->spans, l->cap, *n + 1);
	l->spans[(*n)++] = (struct span){start, end, match};
}

/* The pieces of a step cover the text: matches and what is between them. As the package does it, an empty match right where the
 * one before it ended does not count, and the search goes on a character later. */
static int find_spans(struct encoder *e, const struct step *st, struct level *l, const char *s, size_t n, size_t *n_spans,
                      struct err *err)
{
	size_t from = 0, covered = 0, start, end;
	int any = 0, found;

	*n_spans = 0;
	while (from <= n) {
		if (st->scan) {
			size_t size = 0;

			for (start = from; start < n; start += utf8_size((unsigned char)s[start])) {
				size = st->scan((const unsigned char *)s + start, (const unsigned char *)s + n);
				if (size > 0)
					break;
			}
			end = start + size;
			found = size > 0;
		} else if (st->regex) {
			found = regex_find(st->regex, e->regex, s, n, from, &start, &end, err);
		} else {
			const char *at = memmem(s + from, n - from, st->text, st->n_text);

			start = at ? (size_t)(at - s) : n;
			end = start + st->n_text;
			found = at != NULL;
		}
		if (found < 0)
			return -1;
		if (!found)
			break;
		if (start == end && any && start == covered) {
			if (start == n)
				break;
			from = start + utf8_size((unsigned char)s[start]);
			continue;
		}
		if (start > covered)
			add_span(l, n_spans, covered, start, 0);
		add_span(l, n_spans, start, end, 1);
		covered = from = end;
		any = 1;
	}
	if (covered < n)
		add_span(l, n_spans, covered, n, 0);
	return 0;
}

static void find_char_spans(const struct step *st, struct level *l, const char *s, size_t n, size_t *n_spans)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t covered = 0, size;

	*n_spans = 0;
	for (size_t i = 0; i < n; i += size) {
		if (!(unicode_bits(utf8_get(p + i, &size)) & st->flags))
			continue;
		if (i > covered)
			add_span(l, n_spans, covered, i, 0);
		add_span(l, n_spans, i, i + size, 1);
		covered = i + size;
	}
	if (covered < n)
		add_span(l, n_spans, covered, n, 0);
}

/* \w+|[^\w\s]+ are the matches; what is between them goes. */
static void find_word_spans(struct level *l, const char *s, size_t n, size_t *n_spans)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t size = 1, start = 0;
	unsigned kind = 0; /* of the run from start on: 1 word, 2 other, 0 space */

	*n_spans = 0;
	for (size_t i = 0; i <= n; i += size) {
		unsigned bits = i < n ? unicode_bits(utf8_get(p + i, &size)) : UNICODE_SPACE;
		unsigned now = bits & UNICODE_RUST_WORD ? 1 : bits & UNICODE_SPACE ? 0 : 2;

		if (i == n)
			size = 1;
		if (now == kind && i < n)
			continue;
		if (kind != 0)
			add_span(l, n_spans, start, i, 0);
		start = i;
		kind = now;
	}
}

/* Join spans as the behaviour says; see SplitDelimiterBehavior in the package. In place; *n becomes the number of pieces. */
static void join_spans(enum split_behavior behavior, int invert, struct span *s, size_t *n)
{
	size_t k = 0;
	int before = 0;

	for (size_t i = 0; i < *n; i++) {
		struct span now = s[i];
		int match = now.match != invert;

		switch (behavior) {
		case SPLIT_ISOLATED:
			s[k++] = now;
			break;
		case SPLIT_REMOVED:
			if (!match)
				s[k++] = now;
			break;
		case SPLIT_CONTIGUOUS:
			if (match == before && k > 0)
				s[k - 1].end = now.end;
			else
				s[k++] = now;
			break;
		case SPLIT_MERGED_WITH_PREVIOUS:
			if (match && !before && k > 0)
				s[k - 1].end = now.end;
			else
				s[k++] = now;
			break;
		case SPLIT_MERGED_WITH_NEXT:
			if (!match && before && k > 0)
				s[k - 1].end = now.end;
			else
				s[k++] = now;
			break;
		}
		before = match;
	}
	*n = k;
}

static int split(struct encoder *e, size_t step, const char *s, size_t n, int at_start, struct token_list *out, struct err *err)
{
	const struct step *st = &e->t->steps[step];
	struct level *l = &e->levels[step];
	size_t n_spans;

	if (st->kind == STEP_SPLIT_CHARS) {
		find_char_spans(st, l, s, n, &n_spans);
	} else if (st->kind == STEP_WORDS) {
		find_word_spans(l, s, n, &n_spans);
	} else if (find_spans(e, st, l, s, n, &n_spans, err) != 0) {
		return -1;
	}
	join_spans(st->behavior, st->invert, l->spans, &n_spans);
	for (size_t i = 0; i < n_spans; i++)
		if (emit(e, step, s, l->spans[i].start, l->spans[i].end, at_start, out, err) != 0)
			return -1;
	return 0;
}

/* The usual case, without a list of spans. */
static int split_by_scan(struct encoder *e, size_t step, const char *s, size_t n, int at_start, struct token_list *out,
                         struct err *err)
{
	scan_fn scan = e->t->steps[step].scan;
	const unsigned char *p = (const unsigned char *)s, *end = p + n;
	int last = step + 1 == e->t->n_steps;
	size_t covered = 0, size;

	for (size_t i = 0; i < n;) {
		size = scan(p + i, end);
		if (size == 0) {
			i += utf8_size(p[i]);
			continue;
		}
		if (covered < i && emit(e, step, s, covered, i, at_start, out, err) != 0)
			return -1;
		covered = i + size;
		if ((last ? bpe_encode(&e->t->bpe, &e->bpe, s + i, size, out, err)
		          : emit(e, step, s, i, covered, at_start, out, err)) != 0)
			return -1;
		i = covered;
	}
	return emit(e, step, s, covered, n, at_start, out, err);
}

static int starts_with(const char *s, size_t n, const char *text, size_t n_text)
{
	return n >= n_text && memcmp(s, text, n_text) == 0;
}

static void rewrite_metaspace(const struct step *st, const char *s, size_t n, int at_start, struct buf *out)
{
	if (st->prepend == PREPEND_ALWAYS || (st->prepend == PREPEND_FIRST && at_start))
		if (!starts_with(s, n, st->text, st->n_text) && s[0] != ' ')
			buf_add(out, st->text, st->n_text);
	for (size_t i = 0, from = 0; i <= n; i++) {
		if (i < n && s[i] != ' ')
			continue;
		buf_add(out, s + from, i - from);
		if (i < n)
			buf_add(out, st->text, st->n_text);
		from = i + 1;
	}
}

int pretokenize(struct encoder *e, size_t step, const char *s, size_t n, int at_start, struct token_list *out, struct err *err)
{
	const struct step *st;
	struct buf *text;

	if (step == e->t->n_steps)
		return bpe_encode(&e->t->bpe, &e->bpe, s, n, out, err);
	st = &e->t->steps[step];
	if (st->kind == STEP_SPLIT && st->scan && st->behavior == SPLIT_ISOLATED)
		return split_by_scan(e, step, s, n, at_start, out, err);
	if (st->kind == STEP_SPLIT || st->kind == STEP_SPLIT_CHARS || st->kind == STEP_WORDS)
		return split(e, step, s, n, at_start, out, err);
	text = &e->levels[step].text;
	buf_reset(text);
	if (st->kind == STEP_METASPACE) {
		rewrite_metaspace(st, s, n, at_start, text);
	} else if (st->kind == STEP_PREFIX_SPACE) {
		if (s[0] == ' ')
			return pretokenize(e, step + 1, s, n, at_start, out, err);
		buf_addc(text, ' ');
		buf_add(text, s, n);
	} else {
		byte_alphabet_encode(s, n, text);
	}
	if (text->len > MAX_TEXT)
		return err_set(err, ERR_ROW, "text has more than %zu bytes once rewritten", MAX_TEXT);
	return pretokenize(e, step + 1, text->data, text->len, at_start, out, err);
}
