/* prompt.c: render, tokenize, and see whether it fits. */
#include "runner/prompt.h"

#include <string.h>

#include "base/json.h"

void prompt_maker_init(struct prompt_maker *m, const struct text *text, int64_t now_unix_s, int32_t n_context)
{
	*m = (struct prompt_maker){
	    .text = text, .encoder = encoder_new(text->tokenizer), .now_unix_s = now_unix_s, .n_context = n_context};
}

void prompt_maker_release(struct prompt_maker *m)
{
	if (m->encoder)
		encoder_free(m->encoder);
	buf_release(&m->rendered);
	token_list_release(&m->ids);
	*m = (struct prompt_maker){0};
}

int prompt_knows_developer(const struct text *t)
{
	return t->template_source && strstr(t->template_source, "developer") != NULL;
}

static int is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Cut the rendering behind the final message's content, so that the model goes on with it. As transformers'
 * apply_chat_template(continue_final_message=True): templates may trim the content, so its trimmed form is looked for, and
 * trailing space is kept if the template kept it. */
static int cut_after_final_message(struct buf *text, const struct row_request *r, struct row_fault *f)
{
	yyjson_val *content = yyjson_obj_get(yyjson_arr_get_last(r->messages), "content");
	const char *s = yyjson_get_str(content);
	size_t n = yyjson_get_len(content), trimmed, at;

	while (n && is_space(*s)) {
		s++;
		n--;
	}
	for (trimmed = n; trimmed && is_space(s[trimmed - 1]);)
		trimmed--;
	if (trimmed <= text->len)
		for (at = text->len - trimmed + 1; at-- > 0;)
			if (memcmp(text->data + at, s, trimmed) == 0) {
				int whole = at + n <= text->len && memcmp(text->data + at, s, n) == 0;

				buf_truncate(text, at + (whole ? n : trimmed));
				return 0;
			}
	return row_fault_set(f, "continue_final_message", "invalid_value",
	                     "the chat template does not show the last message as it is, so it cannot be continued");
}

int prompt_render(struct prompt_maker *m, const struct row_request *r, struct row_fault *f)
{
	struct err err = {0};

	buf_reset(&m->rendered);
	if (r->kind == ROW_COMPLETION) {
		if (r->prompt)
			buf_add(&m->rendered, r->prompt, r->n_prompt);
		else
			tokenizer_decode(m->text->tokenizer, r->prompt_ids, r->n_prompt_ids, r->sampling.skip_special, &m->rendered);
		return 0;
	}
	if (!m->text->chat_template)
		return row_fault_set(f, "messages", "no_chat_template", "the model has no chat template; use a prompt row");
	if (text_render_chat(m->text, r->messages, r->tools, r->template_vars, r->add_generation_prompt, m->now_unix_s,
	                     &m->rendered, &err) < 0)
		return row_fault_set(f, "messages", "template_error", "chat template: %s", err.msg);
	return r->continue_final_message ? cut_after_final_message(&m->rendered, r, f) : 0;
}

static int check_length(struct prompt_maker *m, struct row_request *r, struct row_fault *f)
{
	const char *what = r->kind == ROW_CHAT ? "messages" : "prompt";
	int64_t n = (int64_t)m->ids.n, limit = m->n_context;
	int64_t output = r->max_tokens_given ? r->sampling.max_tokens : 1;

	if (n == 0)
		return row_fault_set(f, what, "invalid_value", "the %s gives no token at all", what);
	if (n + output > limit) {
		if (r->max_tokens_given)
			return row_fault_set(
			    f, what, "context_length_exceeded",
			    "This model's maximum context length is %lld tokens. However, you requested %lld tokens (%lld in the %s, "
			    "%lld in the completion). Please reduce the length of the %s or completion.",
			    (long long)limit, (long long)(n + output), (long long)n, what, (long long)output, what);
		return row_fault_set(
		    f, what, "context_length_exceeded",
		    "This model's maximum context length is %lld tokens. However, your %s resulted in %lld tokens. Please reduce "
		    "the length of the %s.",
		    (long long)limit, what, (long long)n, what);
	}
	if (!r->max_tokens_given)
		r->sampling.max_tokens = (int32_t)(limit - n);
	return 0;
}

int prompt_make(struct prompt_maker *m, struct row_request *r, struct row_fault *f)
{
	struct err err = {0};
	unsigned flags = r->kind == ROW_COMPLETION && r->add_special_tokens ? ENCODE_ADD_SPECIAL : ENCODE_PLAIN;

	m->ids.n = 0;
	if (r->prompt_ids) {
		for (size_t i = 0; i < r->n_prompt_ids; i++)
			token_list_add(&m->ids, r->prompt_ids[i]);
	} else {
		/* A chat template writes the special tokens itself. */
		if (prompt_render(m, r, f) < 0)
			return -1;
		if (encoder_encode(m->encoder, buf_str(&m->rendered), m->rendered.len, flags, &m->ids, &err) < 0)
			return row_fault_set(f, r->kind == ROW_CHAT ? "messages" : "prompt", "tokenizer_error", "%s", err.msg);
	}
	return check_length(m, r, f);
}
