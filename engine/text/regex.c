/* regex.c: compiling and matching with PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/regex.h"

#include <pcre2.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"

/* What a search may cost before it is called off. A sensible pre-tokenizer needs a few steps for each character. PCRE2's limits
 * count backtracking from one start; a pattern that looks ahead over the whole text from every start passes them and is still
 * quadratic
 * (\d{1,3}(?=(?:\d{3})*\b) on a megabyte of digits: minutes). So long texts are searched window by window, with an eye on the
 * processor time of the thread. */
#define MATCH_LIMIT 20000000u
#define HEAP_LIMIT_KIB (256u << 10)
#define JIT_STACK_MAX (16u << 20)
#define SHORT_TEXT (16u << 10) /* bytes; even quadratic is a fraction of a second */
#define WINDOW 4096u           /* starts */
#define CALLS_PER_LOOK 64
#define MAX_SECONDS 20.0

struct regex {
	pcre2_code *code;
};

struct regex_scratch {
	pcre2_match_data *match;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
	unsigned n_calls;
	double deadline; /* on the thread's clock; 0: not set yet */
};

struct regex *regex_new(const char *pattern, size_t n, struct err *err)
{
	struct buf translated = {0};
	struct regex *r = NULL;
	pcre2_compile_context *context = NULL;
	pcre2_code *code;
	int error, shown = (int)(n > 80 ? 80 : n);
	PCRE2_SIZE at;

	if (regex_translate(pattern, n, &translated, err) != 0) {
		err_context(err, "regular expression \"%.*s\"", shown, pattern);
		goto out;
	}
	context = pcre2_compile_context_create(NULL);
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	code = pcre2_compile((PCRE2_SPTR)buf_str(&translated), translated.len, PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT, &error, &at,
	                     context);
	if (!code) {
		PCRE2_UCHAR message[120];

		pcre2_get_error_message(error, message, sizeof(message));
		err_set(err, ERR_MODEL, "regular expression \"%.*s\": %s", shown, pattern, (const char *)message);
		goto out;
	}
	/* Where there is no JIT, pcre2_match interprets the same code. */
	pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
	r = xcalloc(1, sizeof(*r));
	r->code = code;
out:
	pcre2_compile_context_free(context);
	buf_release(&translated);
	return r;
}

void regex_free(struct regex *r)
{
	if (!r)
		return;
	pcre2_code_free(r->code);
	free(r);
}

struct regex_scratch *regex_scratch_new(void)
{
	struct regex_scratch *s = xcalloc(1, sizeof(*s));

	s->match = pcre2_match_data_create(1, NULL);
	s->context = pcre2_match_context_create(NULL);
	s->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_MAX, NULL);
	pcre2_set_match_limit(s->context, MATCH_LIMIT);
	pcre2_set_heap_limit(s->context, HEAP_LIMIT_KIB);
	pcre2_jit_stack_assign(s->context, NULL, s->stack);
	return s;
}

void regex_scratch_free(struct regex_scratch *s)
{
	if (!s)
		return;
	pcre2_match_data_free(s->match);
	pcre2_match_context_free(s->context);
	pcre2_jit_stack_free(s->stack);
	free(s);
}

void regex_scratch_restart(struct regex_scratch *s)
{
	s->deadline = 0;
}

static int is_late(struct regex_scratch *s)
{
	struct timespec t;
	double now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	now = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
	if (s->deadline == 0)
		s->deadline = now + MAX_SECONDS;
	return now > s->deadline;
}

static int give_up(size_t n, const char *why, struct err *err)
{
	return err_set(err, ERR_ROW, "regular expression of the tokenizer gave up on %zu bytes of text: %s", n, why);
}

int regex_find(const struct regex *r, struct regex_scratch *s, const char *text, size_t n, size_t from, size_t *start,
               size_t *end, struct err *err)
{
	const PCRE2_SIZE *ends;
	int status;

	for (size_t at = from, window = n > SHORT_TEXT ? WINDOW : n;;) {
		if (n > SHORT_TEXT && ++s->n_calls % CALLS_PER_LOOK == 0 && is_late(s))
			return give_up(n, "out of time", err);
		pcre2_set_offset_limit(s->context, n - at > window ? at + window : n);
		status = pcre2_match(r->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, s->match, s->context);
		if (status != PCRE2_ERROR_NOMATCH || n - at <= window)
			break;
		/* The next window begins at a character. */
		for (at += window; at < n && ((unsigned char)text[at] & 0xC0) == 0x80;)
			at++;
	}
	if (status == PCRE2_ERROR_NOMATCH)
		return 0;
	if (status < 0) {
		PCRE2_UCHAR message[120];

		pcre2_get_error_message(status, message, sizeof(message));
		return give_up(n, (const char *)message, err);
	}
	ends = pcre2_get_ovector_pointer(s->match);
	*start = ends[0];
	*end = ends[1];
	return 1;
}
