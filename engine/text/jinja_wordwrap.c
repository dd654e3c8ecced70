/* jinja_wordwrap.c: the filter wordwrap: Python's textwrap.TextWrapper with expand_tabs and replace_whitespace off. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

struct wrapping {
	int64_t width;
	int break_long, on_hyphens;
	const struct jstr *newline;
};

/* A line of the text as code points: at[i] is the byte that character i begins at. */
struct line {
	const char *s;
	int32_t *c;
	size_t *at; /* [n + 1] */
	size_t n;
	size_t rest, rest_end; /* what is left of a word that was cut, still one piece; rest_end 0: none */
};

static int is_blank(int32_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static int is_letter(const struct line *l, size_t i)
{
	return i < l->n && unicode_is_word(l->c[i]) && !unicode_is_decimal(l->c[i]);
}

static int is_word_or_mark(const struct line *l, size_t i)
{
	return i < l->n && (unicode_is_word(l->c[i]) || (l->c[i] < 0x80 && l->c[i] && strchr("!\"'&.,?", l->c[i])));
}

/* Dashes from i on, at least two, with a word behind: their end, else 0. */
static size_t em_dash(const struct line *l, size_t i)
{
	size_t end = i;

	while (end < l->n && l->c[end] == '-')
		end++;
	return end >= i + 2 && end < l->n && unicode_is_word(l->c[end]) ? end : 0;
}

/* May the line be broken behind the hyphen at i? Between letters, two on each side, or a-b-. */
static int breaks_at_hyphen(const struct line *l, size_t i)
{
	int before = (i >= 2 && is_letter(l, i - 2) && is_letter(l, i - 1)) ||
	             (i >= 3 && is_letter(l, i - 3) && l->c[i - 2] == '-' && is_word_or_mark(l, i - 1));

	return l->c[i] == '-' && before && is_letter(l, i + 1) &&
	       (is_letter(l, i + 2) || (i + 2 < l->n && l->c[i + 2] == '-' && is_letter(l, i + 3)));
}

/* The pieces that a line may be broken between (TextWrapper.wordsep_re): white space, words, parts of words behind hyphens,
 * em-dashes between words. */
static size_t chunk_end(const struct line *l, size_t from, int on_hyphens)
{
	size_t i = from;

	if (l->rest_end && from == l->rest)
		return l->rest_end;
	if (is_blank(l->c[i])) {
		while (i < l->n && is_blank(l->c[i]))
			i++;
		return i;
	}
	if (on_hyphens && i > 0 && is_word_or_mark(l, i - 1) && em_dash(l, i))
		return em_dash(l, i);
	for (i++; i < l->n && !is_blank(l->c[i]); i++) {
		if (on_hyphens && breaks_at_hyphen(l, i))
			return i + 1;
		if (on_hyphens && l->c[i] == '-' && is_word_or_mark(l, i - 1) && em_dash(l, i))
			return i;
	}
	return i;
}

/* Where a word too long for any line is cut, when there is room for so many characters of it. */
static size_t cut_word(const struct line *l, size_t from, size_t room, int on_hyphens)
{
	size_t hyphen = from + room, other = from;

	if (!on_hyphens)
		return from + room;
	while (hyphen > from && l->c[hyphen - 1] != '-')
		hyphen--;
	if (hyphen <= from + 1)
		return from + room;
	while (other < hyphen - 1 && l->c[other] == '-')
		other++;
	return other < hyphen - 1 ? hyphen : from + room;
}

/* TextWrapper._wrap_chunks. Pieces end at ends[]; the text of an output line is what lies between two positions, since only
 * white space at its edges is dropped. */
static void wrap_line(struct render *r, struct line *l, const struct wrapping *w, struct buf *out)
{
	size_t at = 0, n_lines = 0;

	while (at < l->n && render_step(r, 1)) {
		size_t start, end, last, next = chunk_end(l, at, w->on_hyphens);
		int64_t room = w->width;

		if (n_lines && is_blank(l->c[at]))
			at = next;
		start = end = last = at;
		while (end < l->n && render_step(r, 1)) {
			next = chunk_end(l, end, w->on_hyphens);
			if ((int64_t)(next - end) > room)
				break;
			room -= (int64_t)(next - end);
			last = end;
			end = next;
		}
		if (end < l->n && (int64_t)(next - end) > w->width) {
			if (w->break_long) {
				last = end;
				end = l->rest = cut_word(l, end, (size_t)room, w->on_hyphens);
				l->rest_end = next;
			} else if (end == start) {
				last = end;
				end = next;
			}
		}
		at = end;
		/* A line drops the white space that is its last piece; an empty piece of a cut word stands in for it. */
		if (end > start && last < end && is_blank(l->c[last]))
			end = last;
		if (end > start) {
			if (n_lines++)
				text_add_str(r, out, w->newline);
			text_add(r, out, l->s + l->at[start], l->at[end] - l->at[start]);
		}
	}
}

static void wrap(struct render *r, const struct jstr *s, const struct wrapping *w, struct buf *out)
{
	struct line l = {.s = s->s, .n = s->n_chars};
	size_t at = 0;

	l.c = xcalloc(l.n + 1, sizeof(*l.c));
	l.at = xcalloc(l.n + 1, sizeof(*l.at));
	for (size_t i = 0; i < l.n; i++) {
		l.at[i] = at;
		l.c[i] = utf8_next(s->s, s->n, &at);
	}
	l.at[l.n] = at;
	wrap_line(r, &l, w, out);
	free(l.c);
	free(l.at);
}

struct jval filter_wordwrap(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"width", "break_long_words", "wrapstring", "break_on_hyphens"};
	struct wrapping w;
	struct jlist *lines;
	struct buf text = {0};
	struct jval a[4];

	if (args_bind(r, "wordwrap", args, 0, names, 4, a))
		return jval_none();
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (v.type != J_STR)
		return render_fail(r, "wordwrap: a string is expected, not '%s'", jval_type_name(v));
	w.width = arg_int(r, "wordwrap", a[0], 79);
	w.break_long = a[1].type == J_MISSING || jval_truth(r, a[1]);
	w.newline = a[2].type == J_MISSING || a[2].type == J_NONE ? jval_strz(r, "\n").str : arg_str(r, "wordwrap", a[2]);
	w.on_hyphens = a[3].type == J_MISSING || jval_truth(r, a[3]);
	lines = str_lines(r, v, 0);
	if (w.width <= 0 && lines->n)
		render_fail(r, "wordwrap: invalid width %lld (must be > 0)", (long long)w.width);
	for (size_t i = 0; i < lines->n && !r->failed; i++) {
		if (i)
			text_add_str(r, &text, w.newline);
		wrap(r, lines->items[i].str, &w, &text);
	}
	return jval_text(r, &text);
}
