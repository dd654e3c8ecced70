/* reasoning.c: counting between marks. */
#include "runner/reasoning.h"

void reasoning_marks_find(struct reasoning_marks *m, const struct tokenizer *t)
{
	m->open_id = tokenizer_find(t, "<think>", 7);
	m->close_id = tokenizer_find(t, "</think>", 8);
	m->is_known = m->open_id >= 0 && m->close_id >= 0;
}

int reasoning_is_open(const struct reasoning_marks *m, const int32_t *prompt, size_t n)
{
	/* Templates write "<think>\n" at most; a mark further up is a matter of the conversation. */
	for (size_t back = 1; m->is_known && back <= 3 && back <= n; back++) {
		if (prompt[n - back] == m->close_id)
			return 0;
		if (prompt[n - back] == m->open_id)
			return 1;
	}
	return 0;
}

size_t reasoning_count(const struct reasoning_marks *m, int is_open, const int32_t *tokens, size_t n)
{
	size_t count = 0;

	if (!m->is_known)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (tokens[i] == m->open_id)
			is_open = 1;
		count += (size_t)(is_open != 0);
		if (tokens[i] == m->close_id)
			is_open = 0;
	}
	return count;
}
