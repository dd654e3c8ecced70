/* text_directory.c: the text side of a Hugging Face directory.
 *
 *     tokenizer.json            the vocabulary
 *     tokenizer_config.json     special tokens (strings, or objects with "content"); chat_template: a string, or a list of
 *                               {"name": "default" | "tool_use" | ..., "template"}
 *     special_tokens_map.json   special tokens that tokenizer_config.json lacks (older models)
 *     chat_template.jinja       the template; wins. additional_chat_templates/NAME.jinja: named ones beside it
 *     chat_template.json        {"chat_template": ...}: of processors
 *     generation_config.json    eos_token_id (integer or list), temperature, top_p, top_k
 *     config.json               eos_token_id, bos_token_id, max_position_embeddings; those of a multimodal model in text_config
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/text/text_private.h"

#define MAX_JSON_BYTES ((size_t)512 << 20)

/* The JSON object in a file that need not be there: 0 with *doc NULL. -1 when it is there and no object. */
static int read_optional(const char *dir, const char *name, yyjson_doc **doc, struct err *err)
{
	char *path = file_join(dir, name);
	int rc = 0;

	*doc = NULL;
	if (file_exists(path)) {
		*doc = json_parse_file(path, MAX_JSON_BYTES, ERR_MODEL, err);
		if (!*doc)
			rc = -1;
		else if (!yyjson_is_obj(yyjson_doc_get_root(*doc)))
			rc = err_set(err, ERR_MODEL, "%s: an object is expected, not %s", path, json_type_name(yyjson_doc_get_root(*doc)));
	}
	free(path);
	return rc;
}

/* A special token is a string or an AddedToken object. */
static void take_token(struct text *t, const char *name, yyjson_val *v)
{
	if (yyjson_is_obj(v))
		v = yyjson_obj_get(v, "content");
	if (yyjson_is_str(v))
		text_name_token(t, name, yyjson_get_str(v), yyjson_get_len(v));
}

static void take_tokens(struct text *t, yyjson_val *config, yyjson_val *overruled_by)
{
	static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
	                                    "pad_token", "cls_token", "mask_token"};
	yyjson_val *key, *value;
	size_t i, max;

	/* null in tokenizer_config.json says "none" and is not filled from the older file. */
	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!yyjson_obj_get(overruled_by, names[i]))
			take_token(t, names[i], yyjson_obj_get(config, names[i]));
	yyjson_obj_foreach (yyjson_obj_get(config, "extra_special_tokens"), i, max, key, value)
		take_token(t, yyjson_get_str(key), value);
}

static int take_template_file(struct text *t, const char *path, const char *name, struct err *err)
{
	struct buf source = {0};
	int rc = 0;

	if (file_exists(path)) {
		rc = file_read(path, (size_t)4 << 20, &source, ERR_MODEL, err);
		if (rc == 0)
			text_take_template(t, name, buf_str(&source), source.len);
	}
	buf_release(&source);
	return rc;
}

static void take_template(struct text *t, yyjson_val *v)
{
	yyjson_val *item;
	size_t i, max;

	if (yyjson_is_str(v))
		text_take_template(t, "default", yyjson_get_str(v), yyjson_get_len(v));
	yyjson_arr_foreach (v, i, max, item) {
		yyjson_val *name = yyjson_obj_get(item, "name"), *source = yyjson_obj_get(item, "template");

		if (yyjson_is_str(name) && yyjson_is_str(source))
			text_take_template(t, yyjson_get_str(name), yyjson_get_str(source), yyjson_get_len(source));
	}
}

static int read_templates(struct text *t, const char *dir, yyjson_val *tokenizer_config, struct err *err)
{
	char *path = file_join(dir, "chat_template.jinja"), *tool_path = file_join(dir, "additional_chat_templates/tool_use.jinja");
	yyjson_doc *doc = NULL;
	int rc = take_template_file(t, path, "default", err);

	if (rc == 0)
		rc = take_template_file(t, tool_path, "tool_use", err);
	/* A template file replaces whatever the JSON files hold. */
	if (rc == 0 && !t->template_source && !t->tool_template_source) {
		take_template(t, yyjson_obj_get(tokenizer_config, "chat_template"));
		rc = t->template_source ? 0 : read_optional(dir, "chat_template.json", &doc, err);
		if (rc == 0 && doc)
			take_template(t, yyjson_obj_get(yyjson_doc_get_root(doc), "chat_template"));
		yyjson_doc_free(doc);
	}
	free(path);
	free(tool_path);
	return rc;
}

/* eos_token_id: an integer or a list of them. */
static void take_stops(struct text *t, yyjson_val *v)
{
	yyjson_val *item;
	size_t i, max;

	if (yyjson_is_int(v))
		text_add_stop(t, yyjson_get_sint(v));
	yyjson_arr_foreach (v, i, max, item)
		if (yyjson_is_int(item))
			text_add_stop(t, yyjson_get_sint(item));
}

static int read_generation_config(struct text *t, const char *dir, struct err *err)
{
	yyjson_val *root, *v;
	yyjson_doc *doc;

	if (read_optional(dir, "generation_config.json", &doc, err)) {
		yyjson_doc_free(doc);
		return -1;
	}
	root = yyjson_doc_get_root(doc);
	take_stops(t, yyjson_obj_get(root, "eos_token_id"));
	v = yyjson_obj_get(root, "temperature");
	if (yyjson_is_num(v))
		t->default_temperature = yyjson_get_num(v);
	v = yyjson_obj_get(root, "top_p");
	if (yyjson_is_num(v))
		t->default_top_p = yyjson_get_num(v);
	v = yyjson_obj_get(root, "top_k");
	if (yyjson_is_int(v) && yyjson_get_sint(v) >= 0 && yyjson_get_sint(v) <= INT32_MAX)
		t->default_top_k = (int)yyjson_get_sint(v);
	yyjson_doc_free(doc);
	return 0;
}

/* A member of config.json, or of the text_config inside. */
static yyjson_val *config_get(yyjson_val *root, const char *name)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	return v && !yyjson_is_null(v) ? v : yyjson_obj_get(yyjson_obj_get(root, "text_config"), name);
}

static int is_token(const struct text *t, yyjson_val *id)
{
	size_t n;

	return yyjson_is_int(id) && yyjson_get_sint(id) >= 0 && yyjson_get_sint(id) <= INT32_MAX &&
	       tokenizer_token(t->tokenizer, (int32_t)yyjson_get_sint(id), &n) != NULL;
}

static int read_config(struct text *t, const char *dir, yyjson_val *tokenizer_config, struct err *err)
{
	static const char *const lengths[] = {"max_position_embeddings", "n_positions", "max_sequence_length", "seq_length",
	                                      "n_ctx"};
	yyjson_val *root, *v;
	yyjson_doc *doc;

	if (read_optional(dir, "config.json", &doc, err)) {
		yyjson_doc_free(doc);
		return -1;
	}
	root = yyjson_doc_get_root(doc);
	take_stops(t, config_get(root, "eos_token_id"));
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths) && !t->n_context; i++) {
		v = config_get(root, lengths[i]);
		if (yyjson_is_int(v) && yyjson_get_sint(v) > 0 && yyjson_get_sint(v) <= INT32_MAX)
			t->n_context = (int32_t)yyjson_get_sint(v);
	}
	/* "No limit" is written as 10^30. */
	v = yyjson_obj_get(tokenizer_config, "model_max_length");
	if (!t->n_context && yyjson_is_int(v) && yyjson_get_sint(v) > 0 && yyjson_get_sint(v) <= INT32_MAX)
		t->n_context = (int32_t)yyjson_get_sint(v);
	/* Models whose tokenizer does not name them. */
	v = config_get(root, "bos_token_id");
	if (is_token(t, v) && !yyjson_obj_get(tokenizer_config, "bos_token"))
		t->bos_id = (int32_t)yyjson_get_sint(v);
	v = config_get(root, "eos_token_id");
	if (is_token(t, v) && !yyjson_obj_get(tokenizer_config, "eos_token"))
		t->eos_id = (int32_t)yyjson_get_sint(v);
	yyjson_doc_free(doc);
	return 0;
}

/* Chat models whose configuration forgets the token that ends a turn: those names that the template itself writes. In
 * gpt-oss <|end|> ends a message, not the turn. */
static void add_turn_ends(struct text *t)
{
	static const char *const names[] = {"<|im_end|>", "<|eot_id|>", "<|end|>",         "<end_of_turn>",      "<|return|>",
	                                    "<|call|>",   "<|eom_id|>", "<|end_of_text|>", "<end_of_utterance>", "<turn|>"};
	int harmony = tokenizer_find(t->tokenizer, "<|return|>", 10) >= 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && t->template_source; i++)
		if (strstr(t->template_source, names[i]) && !(harmony && strcmp(names[i], "<|end|>") == 0))
			text_add_stop_named(t, names[i]);
}

static int read_tokenizer(struct text *t, const char *dir, struct sha256 *h, struct err *err)
{
	char *path = file_join(dir, "tokenizer.json");
	struct buf json = {0};
	int rc = -1;

	if (!file_exists(path)) {
		err_set(err, ERR_MODEL, "%s: no tokenizer.json there", dir);
	} else if (file_read(path, MAX_JSON_BYTES, &json, ERR_MODEL, err) == 0) {
		sha256_add(h, buf_str(&json), json.len);
		t->tokenizer = tokenizer_open_json_memory(buf_str(&json), json.len, err);
		if (!t->tokenizer)
			err_context(err, "%s", path);
		else
			rc = 0;
	}
	buf_release(&json);
	free(path);
	return rc;
}

int text_read_directory(struct text *t, const char *path, struct sha256 *h, struct err *err)
{
	yyjson_doc *config = NULL, *map = NULL;
	yyjson_val *root;
	int rc = -1;

	if (read_tokenizer(t, path, h, err) || read_optional(path, "tokenizer_config.json", &config, err) ||
	    read_optional(path, "special_tokens_map.json", &map, err))
		goto out;
	root = yyjson_doc_get_root(config);
	take_tokens(t, root, NULL);
	take_tokens(t, yyjson_doc_get_root(map), root);
	if (read_templates(t, path, root, err) || read_config(t, path, root, err))
		goto out;
	for (int i = 0; i < t->n_named_tokens; i++)
		if (strcmp(t->named_tokens[i].name, "eos_token") == 0)
			text_add_stop_named(t, t->named_tokens[i].text);
	rc = read_generation_config(t, path, err);
	add_turn_ends(t);
out:
	yyjson_doc_free(config);
	yyjson_doc_free(map);
	return rc;
}
