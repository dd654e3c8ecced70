/* text.c: opening what a model has for text, and chat prompts. */
#include "engine/text/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/text/text_private.h"

void text_name_token(struct text *t, const char *name, const char *token, size_t n)
{
	for (int i = 0; i < t->n_named_tokens; i++)
		if (strcmp(t->named_tokens[i].name, name) == 0)
			return;
	if (t->n_named_tokens < (int)(sizeof(t->named_tokens) / sizeof(*t->named_tokens)))
		t->named_tokens[t->n_named_tokens++] = (struct text_named_token){xstrdup(name), xmemdup(token, n)};
}

static const char *named_token(const struct text *t, const char *name)
{
	for (int i = 0; i < t->n_named_tokens; i++)
		if (strcmp(t->named_tokens[i].name, name) == 0)
			return t->named_tokens[i].text;
	return NULL;
}

void text_add_stop(struct text *t, int64_t id)
{
	if (id < 0 || id > INT32_MAX)
		return;
	for (int i = 0; i < t->n_stop_ids; i++)
		if (t->stop_ids[i] == id)
			return;
	if (t->n_stop_ids < (int)(sizeof(t->stop_ids) / sizeof(*t->stop_ids)))
		t->stop_ids[t->n_stop_ids++] = (int32_t)id;
}

void text_add_stop_named(struct text *t, const char *token)
{
	text_add_stop(t, tokenizer_find(t->tokenizer, token, strlen(token)));
}

void text_take_template(struct text *t, const char *name, const char *source, size_t n)
{
	char **to = strcmp(name, "default") == 0    ? &t->template_source
	            : strcmp(name, "tool_use") == 0 ? &t->tool_template_source
	                                            : NULL;

	if (to && !*to)
		*to = xmemdup(source, n);
}

static int32_t find_token(const struct text *t, const char *token)
{
	return token ? tokenizer_find(t->tokenizer, token, strlen(token)) : -1;
}

static void compile_templates(struct text *t)
{
	struct err err = {0};

	if (t->template_source)
		t->chat_template = template_compile(t->template_source, strlen(t->template_source), &err);
	if (t->tool_template_source && !err.code)
		t->tool_template = template_compile(t->tool_template_source, strlen(t->tool_template_source), &err);
	if (err.code)
		t->template_error = xstrdup(err.msg);
}

/* Does the post-processor put BOS before a text? Ask it. */
static int puts_bos(const struct text *t, struct err *err)
{
	struct encoder *e = encoder_new(t->tokenizer);
	struct token_list with = {0}, without = {0};
	int rc = -1;

	if (encoder_encode(e, "a", 1, ENCODE_ADD_SPECIAL, &with, err) == 0 &&
	    encoder_encode(e, "a", 1, ENCODE_PLAIN, &without, err) == 0)
		rc = t->bos_id >= 0 && with.n > without.n && with.ids[0] == t->bos_id && !(without.n && without.ids[0] == t->bos_id);
	token_list_release(&with);
	token_list_release(&without);
	encoder_free(e);
	return rc;
}

static void hash_text(struct sha256 *h, const char *s)
{
	/* With its length, so that one text cannot pass for two. */
	uint64_t n = s ? strlen(s) + 1 : 0;

	sha256_add(h, &n, sizeof(n));
	if (s)
		sha256_add(h, s, n - 1);
}

/* What follows from what was read. h gets what else changes a prompt's tokens. */
static int finish(struct text *t, struct sha256 *h, struct err *err)
{
	t->bos_token = named_token(t, "bos_token");
	t->eos_token = named_token(t, "eos_token");
	t->pad_token = named_token(t, "pad_token");
	t->unk_token = named_token(t, "unk_token");
	if (t->bos_id < 0)
		t->bos_id = find_token(t, t->bos_token);
	if (t->eos_id < 0)
		t->eos_id = find_token(t, t->eos_token);
	if (t->eos_id < 0 && t->n_stop_ids)
		t->eos_id = t->stop_ids[0];
	text_add_stop(t, t->eos_id);
	t->add_bos = puts_bos(t, err);
	if (t->add_bos < 0)
		return -1;
	compile_templates(t);
	hash_text(h, t->template_source);
	hash_text(h, t->tool_template_source);
	for (int i = 0; i < t->n_named_tokens; i++) {
		hash_text(h, t->named_tokens[i].name);
		hash_text(h, t->named_tokens[i].text);
	}
	hash_text(h, t->add_bos ? "bos" : "");
	return 0;
}

/* read: 0 or -1 and *err. */
static struct text *open_with(int (*read)(struct text *t, const char *path, struct sha256 *h, struct err *err), const char *path,
                              struct err *err)
{
	struct text *t = xcalloc(1, sizeof(*t));
	struct sha256 *h = sha256_new();
	int rc;

	t->bos_id = t->eos_id = -1;
	t->default_temperature = t->default_top_p = NAN;
	t->default_top_k = -1;
	rc = read(t, path, h, err);
	if (rc == 0)
		rc = finish(t, h, err);
	sha256_finish(h, t->fingerprint);
	if (rc) {
		text_free(t);
		return NULL;
	}
	return t;
}

struct text *text_open(const char *path, struct err *err)
{
	return open_with(file_is_dir(path) ? text_read_directory : text_read_gguf, path, err);
}

struct text *text_open_bytes(struct err *err)
{
	return open_with(text_read_bytes, "bytes", err);
}

void text_free(struct text *t)
{
	if (!t)
		return;
	tokenizer_free(t->tokenizer);
	template_free(t->chat_template);
	template_free(t->tool_template);
	free(t->template_source);
	free(t->tool_template_source);
	free(t->template_error);
	for (int i = 0; i < t->n_named_tokens; i++) {
		free(t->named_tokens[i].name);
		free(t->named_tokens[i].text);
	}
	free(t);
}

/* A member that is there and not null. */
static yyjson_val *get_set(yyjson_val *object, const char *name)
{
	yyjson_val *v = yyjson_obj_get(object, name);

	return yyjson_is_null(v) ? NULL : v;
}

/* A message as transformers' apply_chat_template (5.x) hands it to the template: without members that are null; reasoning,
 * under whatever of its three names it came, as thinking (in front) and as reasoning_content. */
static yyjson_mut_val *normal_message(yyjson_mut_doc *doc, yyjson_val *message)
{
	yyjson_mut_val *out = yyjson_mut_obj(doc);
	yyjson_val *content = get_set(message, "reasoning_content"), *thinking = get_set(message, "thinking"), *key, *value;
	yyjson_val *reasoning = content ? content : thinking ? thinking : get_set(message, "reasoning");
	size_t i, max;

	if (reasoning)
		yyjson_mut_obj_add_val(doc, out, "thinking", yyjson_val_mut_copy(doc, thinking ? thinking : reasoning));
	yyjson_obj_foreach (message, i, max, key, value) {
		if (!yyjson_is_null(value) && !(reasoning && yyjson_equals_str(key, "thinking")))
			yyjson_mut_obj_add(out, yyjson_val_mut_copy(doc, key), yyjson_val_mut_copy(doc, value));
	}
	if (reasoning && !content)
		yyjson_mut_obj_add_val(doc, out, "reasoning_content", yyjson_val_mut_copy(doc, reasoning));
	return out;
}

/* kwargs over special tokens over the four that are always there. */
static int add_variables(yyjson_mut_doc *doc, yyjson_mut_val *vars, const struct text *t, yyjson_val *kwargs, struct err *err)
{
	static const char *const not_variables[] = {"messages", "chat_template", "tokenize", "conversation"};
	yyjson_val *key, *value;
	size_t i, max;

	for (int k = 0; k < t->n_named_tokens; k++)
		if (!yyjson_obj_get(kwargs, t->named_tokens[k].name))
			yyjson_mut_obj_add_str(doc, vars, t->named_tokens[k].name, t->named_tokens[k].text);
	yyjson_obj_foreach (kwargs, i, max, key, value) {
		const char *name = yyjson_get_str(key);

		for (size_t k = 0; k < sizeof(not_variables) / sizeof(*not_variables); k++)
			if (strcmp(name, not_variables[k]) == 0)
				return err_set(err, ERR_ROW, "chat_template_kwargs: \"%s\" cannot be set here", name);
		yyjson_mut_obj_add(vars, yyjson_val_mut_copy(doc, key), yyjson_val_mut_copy(doc, value));
	}
	return 0;
}

static yyjson_mut_val *copy_or_null(yyjson_mut_doc *doc, yyjson_val *v)
{
	return v ? yyjson_val_mut_copy(doc, v) : yyjson_mut_null(doc);
}

/* The variables of the template, or NULL after a failure. */
static yyjson_doc *make_variables(const struct text *t, yyjson_val *messages, yyjson_val *tools, yyjson_val *kwargs,
                                  int add_generation_prompt, struct err *err)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *vars = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
	yyjson_doc *out = NULL;
	yyjson_val *message;
	size_t i, max;

	yyjson_mut_doc_set_root(doc, vars);
	yyjson_arr_foreach (messages, i, max, message) {
		if (!yyjson_is_obj(message)) {
			err_set(err, ERR_ROW, "messages[%zu] is not an object but %s", i, json_type_name(message));
			goto out;
		}
		yyjson_mut_arr_append(list, normal_message(doc, message));
	}
	yyjson_mut_obj_add_val(doc, vars, "messages", list);
	if (!yyjson_obj_get(kwargs, "tools"))
		yyjson_mut_obj_add_val(doc, vars, "tools", copy_or_null(doc, tools));
	if (!yyjson_obj_get(kwargs, "documents"))
		yyjson_mut_obj_add_val(doc, vars, "documents", yyjson_mut_null(doc));
	if (!yyjson_obj_get(kwargs, "add_generation_prompt"))
		yyjson_mut_obj_add_bool(doc, vars, "add_generation_prompt", add_generation_prompt != 0);
	if (add_variables(doc, vars, t, kwargs, err) == 0)
		out = yyjson_mut_doc_imut_copy(doc, NULL);
out:
	yyjson_mut_doc_free(doc);
	return out;
}

int text_render_chat(const struct text *t, yyjson_val *messages, yyjson_val *tools, yyjson_val *kwargs,
                     int add_generation_prompt, int64_t now_unix_s, struct buf *out, struct err *err)
{
	struct template_limits limits = {.now_unix_s = now_unix_s};
	yyjson_val *given_tools = yyjson_obj_get(kwargs, "tools");
	struct chat_template *template = t->chat_template;
	yyjson_doc *vars;
	int rc;

	if (!given_tools)
		given_tools = tools;
	if (given_tools && !yyjson_is_null(given_tools) && t->tool_template)
		template = t->tool_template;
	if (t->template_error)
		return err_set(err, ERR_ROW, "the model's %s", t->template_error);
	if (!template)
		return err_set(err, ERR_ROW, "the model has no chat template; use a prompt instead of messages");
	if (!yyjson_is_arr(messages))
		return err_set(err, ERR_ROW, "messages is not an array but %s", json_type_name(messages));
	if (yyjson_arr_size(messages) == 0)
		return err_set(err, ERR_ROW, "messages is empty: a chat prompt needs at least one message");
	if (kwargs && !yyjson_is_obj(kwargs))
		return err_set(err, ERR_ROW, "chat_template_kwargs is not an object but %s", json_type_name(kwargs));
	if (!json_depth_within(messages, 200) || (tools && !json_depth_within(tools, 200)) ||
	    (kwargs && !json_depth_within(kwargs, 200)))
		return err_set(err, ERR_ROW, "messages, tools or chat_template_kwargs nested more than 200 deep");
	vars = make_variables(t, messages, tools, kwargs, add_generation_prompt, err);
	if (!vars)
		return -1;
	rc = template_render(template, yyjson_doc_get_root(vars), &limits, out, err);
	yyjson_doc_free(vars);
	return rc;
}
