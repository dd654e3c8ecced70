/* tokenizer_normalize.c: the normalisers of tokenizer.json. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

void normalizer_release(struct normalizer *n)
{
	regex_free(n->regex);
	free(n->text);
	free(n->content);
}

int replace_text(const struct regex *regex, const char *text, size_t n_text, const char *content, size_t n_content,
                 struct regex_scratch *scratch, const char *s, size_t n, struct buf *out, struct err *err)
{
	size_t from = 0, copied = 0, start, end;
	int any = 0, found;

	while (from <= n) {
		if (regex) {
			found = regex_find(regex, scratch, s, n, from, &start, &end, err);
			if (found < 0)
				return -1;
		} else {
			const char *at = n_text == 1 ? memchr(s + from, text[0], n - from) : memmem(s + from, n - from, text, n_text);

			found = at != NULL;
			start = at ? (size_t)(at - s) : n;
			end = start + n_text;
		}
		if (!found)
			break;
		if (start == end && any && start == copied) {
			if (start == n)
				break;
			from = start + utf8_size((unsigned char)s[start]);
			continue;
		}
		buf_add(out, s + copied, start - copied);
		buf_add(out, content, n_content);
		copied = from = end;
		any = 1;
		if (out->len > MAX_TEXT)
			return err_set(err, ERR_ROW, "text has more than %zu bytes once normalised", MAX_TEXT);
	}
	buf_add(out, s + copied, n - copied);
	return 0;
}

static const char *strip(const struct normalizer *m, const char *s, size_t *n, int *stripped)
{
	size_t size;

	while (m->strip_left && *n > 0 && unicode_bits(utf8_get((const unsigned char *)s, &size)) & UNICODE_SPACE) {
		s += size;
		*n -= size;
		*stripped = 1;
	}
	while (m->strip_right && *n > 0) {
		size_t at = *n - 1;

		while (((unsigned char)s[at] & 0xC0) == 0x80)
			at--;
		if (!(unicode_bits(utf8_get((const unsigned char *)s + at, &size)) & UNICODE_SPACE))
			break;
		*n = at;
	}
	return s;
}

const char *normalize_text(const struct normalizer *list, size_t n_list, struct regex_scratch *scratch, struct buf work[2],
                           const char *s, size_t *n, int *stripped, struct err *err)
{
	int turn = 0;

	*stripped = 0;
	for (size_t i = 0; i < n_list; i++) {
		const struct normalizer *m = &list[i];
		struct buf *out = &work[turn];

		if (m->kind == NORMALIZER_STRIP) {
			s = strip(m, s, n, stripped);
			continue;
		}
		if (*n == 0 && m->kind != NORMALIZER_REPLACE)
			continue;
		buf_reset(out);
		switch (m->kind) {
		case NORMALIZER_FORM:
			unicode_normalize(m->form, s, *n, out);
			break;
		case NORMALIZER_LOWER:
			unicode_lower(s, *n, out);
			break;
		case NORMALIZER_PREPEND:
			buf_add(out, m->text, m->n_text);
			buf_add(out, s, *n);
			break;
		case NORMALIZER_BYTES:
			byte_alphabet_encode(s, *n, out);
			break;
		default:
			/* The package finds no match in an empty text, not even an empty one. */
			if (*n > 0 && replace_text(m->regex, m->text, m->n_text, m->content, m->n_content, scratch, s, *n, out, err) != 0)
				return NULL;
		}
		s = buf_str(out);
		*n = out->len;
		if (*n > MAX_TEXT) {
			err_set(err, ERR_ROW, "text has more than %zu bytes once normalised", MAX_TEXT);
			return NULL;
		}
		turn = !turn;
	}
	return s;
}
