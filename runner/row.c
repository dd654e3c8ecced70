/* row.c: the envelope of a row (batch or plain), its name, its prompt. Parameters are params.c's, messages are messages.c's. */
#include "runner/row.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int row_fault_set(struct row_fault *f, const char *param, const char *code, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (f->message[0])
		return -1;
	f->status = 400;
	f->type = "invalid_request_error";
	snprintf(f->param, sizeof(f->param), "%s", param ? param : "");
	snprintf(f->code, sizeof(f->code), "%s", code ? code : "");
	va_start(ap, fmt);
	vsnprintf(f->message, sizeof(f->message), fmt, ap);
	va_end(ap);
	/* A long value may have been cut inside a character. */
	n = strlen(f->message);
	if (n == sizeof(f->message) - 1) {
		while (n > 0 && ((unsigned char)f->message[n - 1] & 0xC0) == 0x80)
			n--;
		if (n > 0 && ((unsigned char)f->message[n - 1] & 0x80))
			n--;
		f->message[n] = '\0';
	}
	return -1;
}

void row_position_key(int64_t row, char out[ROW_POSITION_KEY_BYTES])
{
	snprintf(out, ROW_POSITION_KEY_BYTES, "row-%08lld", (long long)row);
}

static int read_id(struct row_request *r, yyjson_val *v, const char *name, struct row_fault *f)
{
	const char *s = yyjson_get_str(v);
	size_t n = yyjson_get_len(v);

	/* Data sets often number their rows in a field "id"; custom_id is the API's and a string. */
	if (strcmp(name, "id") == 0 && yyjson_is_int(v)) {
		char digits[32];

		if (yyjson_is_uint(v))
			snprintf(digits, sizeof(digits), "%llu", (unsigned long long)yyjson_get_uint(v));
		else
			snprintf(digits, sizeof(digits), "%lld", (long long)yyjson_get_sint(v));
		n = strlen(digits);
		r->custom_id = arena_strdup(&r->arena, digits, n);
		r->n_custom_id = n;
		return 0;
	}
	if (!yyjson_is_str(v))
		return row_fault_set(f, name, "invalid_type", "%s must be a string, it is %s", name, json_type_name(v));
	if (n == 0 || n > ROW_MAX_ID_BYTES)
		return row_fault_set(f, name, "invalid_value", "%s must have 1 to %d bytes, it has %zu", name, ROW_MAX_ID_BYTES, n);
	if (memchr(s, '\0', n))
		return row_fault_set(f, name, "invalid_value", "%s must not contain a NUL character", name);
	r->custom_id = s;
	r->n_custom_id = n;
	return 0;
}

/* An array of ids, into the row's arena. */
static int read_ids(struct row_request *r, yyjson_val *v, const struct row_rules *rules, struct row_fault *f)
{
	size_t i, max;
	yyjson_val *id;

	r->n_prompt_ids = yyjson_arr_size(v);
	r->prompt_ids = arena_alloc(&r->arena, (r->n_prompt_ids + 1) * sizeof(*r->prompt_ids));
	yyjson_arr_foreach (v, i, max, id) {
		int64_t n = yyjson_is_uint(id) && yyjson_get_uint(id) <= INT32_MAX ? (int64_t)yyjson_get_uint(id) : -1;

		if (!yyjson_is_int(id))
			return row_fault_set(f, "prompt", "invalid_type", "prompt[%zu] must be a token id (integer), it is %s", i,
			                     json_type_name(id));
		if (n < 0 || n >= rules->n_vocab)
			return row_fault_set(f, "prompt", "invalid_value",
			                     "prompt[%zu] is not a token id of this model, which has ids 0 to %d", i, rules->n_vocab - 1);
		r->prompt_ids[i] = (int32_t)n;
	}
	return 0;
}

static int read_prompt(struct row_request *r, yyjson_val *v, const struct row_rules *rules, struct row_fault *f)
{
	yyjson_val *first = yyjson_arr_get_first(v);

	/* The API takes several prompts in one request; a list of one is the same as that one. */
	if (yyjson_is_arr(v) && (yyjson_is_str(first) || yyjson_is_arr(first))) {
		if (yyjson_arr_size(v) != 1)
			return row_fault_set(f, "prompt", "unsupported_value", "prompt is a list of %zu prompts; give each its own row",
			                     yyjson_arr_size(v));
		v = first;
	}
	if (yyjson_is_str(v)) {
		r->prompt = yyjson_get_str(v);
		r->n_prompt = yyjson_get_len(v);
		return 0;
	}
	if (!yyjson_is_arr(v))
		return row_fault_set(f, "prompt", "invalid_type", "prompt must be a string or an array of token ids, it is %s",
		                     json_type_name(v));
	if (yyjson_arr_size(v) == 0)
		return row_fault_set(f, "prompt", "invalid_value", "prompt is an empty array");
	return read_ids(r, v, rules, f);
}

static int is_envelope_key(const char *key, size_t n)
{
	static const char *const keys[] = {"custom_id", "method", "url", "body"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		if (strlen(keys[i]) == n && memcmp(keys[i], key, n) == 0)
			return 1;
	return 0;
}

/* The batch format's four fields; leaves kind and *body. */
static int read_envelope(struct row_request *r, yyjson_val *root, yyjson_val **body, struct row_fault *f)
{
	yyjson_val *method = yyjson_obj_get(root, "method"), *url = yyjson_obj_get(root, "url");
	yyjson_val *id = yyjson_obj_get(root, "custom_id"), *key, *val;
	size_t i, max;

	*body = yyjson_obj_get(root, "body");
	if (!id)
		return row_fault_set(f, "custom_id", "missing_required_parameter", "custom_id is missing");
	if (read_id(r, id, "custom_id", f) < 0)
		return -1;
	yyjson_obj_foreach (root, i, max, key, val) {
		if (!is_envelope_key(yyjson_get_str(key), yyjson_get_len(key)))
			return row_fault_set(f, yyjson_get_str(key), "unknown_parameter",
			                     "unknown field '%.60s'; a batch row has custom_id, method, url and body", yyjson_get_str(key));
	}
	if (!method)
		return row_fault_set(f, "method", "missing_required_parameter", "method is missing (\"POST\")");
	if (!yyjson_equals_str(method, "POST"))
		return row_fault_set(f, "method", "invalid_method", "method must be \"POST\", it is %s%.40s",
		                     yyjson_is_str(method) ? "" : json_type_name(method),
		                     yyjson_is_str(method) ? yyjson_get_str(method) : "");
	if (!url)
		return row_fault_set(f, "url", "missing_required_parameter",
		                     "url is missing (\"/v1/chat/completions\" or \"/v1/completions\")");
	if (yyjson_equals_str(url, "/v1/chat/completions"))
		r->kind = ROW_CHAT;
	else if (yyjson_equals_str(url, "/v1/completions"))
		r->kind = ROW_COMPLETION;
	else
		return row_fault_set(f, "url", "invalid_url",
		                     "url must be \"/v1/chat/completions\" or \"/v1/completions\", it is %s%.80s",
		                     yyjson_is_str(url) ? "" : json_type_name(url), yyjson_is_str(url) ? yyjson_get_str(url) : "");
	if (!*body)
		return row_fault_set(f, "body", "missing_required_parameter", "body is missing");
	if (!yyjson_is_obj(*body))
		return row_fault_set(f, "body", "invalid_type", "body must be an object, it is %s", json_type_name(*body));
	return 0;
}

static int read_plain(struct row_request *r, yyjson_val *root, struct row_fault *f)
{
	yyjson_val *id = yyjson_obj_get(root, "custom_id"), *other = yyjson_obj_get(root, "id");
	int has_prompt = yyjson_obj_get(root, "prompt") != NULL, has_messages = yyjson_obj_get(root, "messages") != NULL;

	r->is_plain = 1;
	if (id && other && !yyjson_equals(id, other))
		return row_fault_set(f, "id", "invalid_value", "the row has both custom_id and id, and they differ");
	if (id || other) {
		if (read_id(r, id ? id : other, id ? "custom_id" : "id", f) < 0)
			return -1;
	}
	if (has_prompt && has_messages)
		return row_fault_set(f, "messages", "invalid_value", "the row has both prompt and messages; one of them is the input");
	if (!has_prompt && !has_messages)
		return row_fault_set(f, "messages", "missing_required_parameter",
		                     "the row has none of messages, prompt, or custom_id + method + url + body (batch format)");
	r->kind = has_messages ? ROW_CHAT : ROW_COMPLETION;
	return 0;
}

static int read_body(struct row_request *r, yyjson_val *body, const struct row_rules *rules, struct row_fault *f)
{
	yyjson_val *messages = yyjson_obj_get(body, "messages"), *prompt = yyjson_obj_get(body, "prompt");

	/* First what the row is about: "messages is missing" says more than "prompt is not a parameter of a chat row". */
	if (r->kind == ROW_CHAT && (!messages || yyjson_is_null(messages)))
		return row_fault_set(f, "messages", "missing_required_parameter", "messages is missing%s",
		                     prompt ? "; a prompt belongs to /v1/completions" : "");
	if (r->kind == ROW_COMPLETION && (!prompt || yyjson_is_null(prompt)))
		return row_fault_set(f, "prompt", "missing_required_parameter", "prompt is missing%s",
		                     messages ? "; messages belong to /v1/chat/completions" : "");
	params_init(r);
	if (rules->defaults && params_read(r, rules->defaults, rules, 1, f) < 0)
		return -1;
	if (params_read(r, body, rules, 0, f) < 0 || params_finish(r, f) < 0)
		return -1;
	if (r->kind == ROW_CHAT)
		return messages_read(r, messages, rules, f);
	return read_prompt(r, prompt, rules, f);
}

int row_parse(const char *text, size_t n, const struct row_rules *rules, struct row_request *r, struct row_fault *f)
{
	struct err err = {0};
	yyjson_val *root, *body, *twice;

	*r = (struct row_request){0};
	*f = (struct row_fault){0};
	r->doc = json_parse(text, n, ERR_ROW, &err);
	if (!r->doc)
		return row_fault_set(f, NULL, "invalid_json", "%s", err.msg);
	root = yyjson_doc_get_root(r->doc);
	if (!yyjson_is_obj(root))
		return row_fault_set(f, NULL, "invalid_json", "a row must be a JSON object, it is %s", json_type_name(root));
	if (!json_depth_within(root, ROW_MAX_DEPTH))
		return row_fault_set(f, NULL, "invalid_json", "the row is nested deeper than %d levels", ROW_MAX_DEPTH);
	if (yyjson_obj_get(root, "body") || yyjson_obj_get(root, "url") || yyjson_obj_get(root, "method")) {
		if (read_envelope(r, root, &body, f) < 0)
			return -1;
	} else {
		if (read_plain(r, root, f) < 0)
			return -1;
		body = root;
	}
	/* Which of the two counts depends on who reads. */
	twice = json_find_duplicate(root);
	if (twice)
		return row_fault_set(f, NULL, "invalid_json", "the row has two members \"%.60s\" in one object", yyjson_get_str(twice));
	return read_body(r, body, rules, f);
}

static void add_tag(yyjson_mut_doc *tags, const char *key, size_t n_key, yyjson_val *value)
{
	struct buf text = {0};
	yyjson_mut_val *k = yyjson_mut_strncpy(tags, key, n_key);

	if (yyjson_is_str(value))
		buf_add(&text, yyjson_get_str(value), yyjson_get_len(value));
	else
		json_write_canonical(&text, value);
	yyjson_mut_obj_put(yyjson_mut_doc_get_root(tags), k, yyjson_mut_strncpy(tags, buf_str(&text), text.len));
	buf_release(&text);
}

void row_tags(const struct row_request *r, struct buf *out)
{
	yyjson_val *root = yyjson_doc_get_root(r->doc), *body = yyjson_obj_get(root, "body"), *user, *metadata, *key, *value;
	yyjson_mut_doc *tags;
	yyjson_doc *fixed;
	size_t i, max;

	if (!body)
		body = root;
	user = yyjson_obj_get(body, "user");
	metadata = yyjson_obj_get(body, "metadata");
	if (!root || !json_depth_within(root, ROW_MAX_DEPTH) || (!yyjson_is_str(user) && yyjson_obj_size(metadata) == 0))
		return;
	tags = yyjson_mut_doc_new(NULL);
	yyjson_mut_doc_set_root(tags, yyjson_mut_obj(tags));
	yyjson_obj_foreach (metadata, i, max, key, value)
		add_tag(tags, yyjson_get_str(key), yyjson_get_len(key), value);
	if (yyjson_is_str(user))
		add_tag(tags, "user", 4, user);
	fixed = yyjson_mut_doc_imut_copy(tags, NULL);
	json_write_canonical(out, yyjson_doc_get_root(fixed));
	yyjson_doc_free(fixed);
	yyjson_mut_doc_free(tags);
}

struct member {
	const char *name;
	size_t n_name;
	yyjson_val *value;
};

static int compare_members(const void *pa, const void *pb)
{
	const struct member *a = pa, *b = pb;
	int c = memcmp(a->name, b->name, a->n_name < b->n_name ? a->n_name : b->n_name);

	return c ? c : (a->n_name > b->n_name) - (a->n_name < b->n_name);
}

void row_identity(const struct row_request *r, struct buf *out)
{
	yyjson_val *root = yyjson_doc_get_root(r->doc), *body = r->is_plain ? root : yyjson_obj_get(root, "body"), *key, *value;
	struct member *members;
	size_t n = 0, i, max;

	if (r->sampling.temperature > 0 && !r->own_seed)
		return;
	members = xcalloc(yyjson_obj_size(body) + 1, sizeof(*members));
	yyjson_obj_foreach (body, i, max, key, value) {
		struct member m = {yyjson_get_str(key), yyjson_get_len(key), value};
		int is_name = r->is_plain && (strcmp(m.name, "custom_id") == 0 || strcmp(m.name, "id") == 0);

		if (!is_name && !yyjson_is_null(value) && params_matters(m.name, m.n_name))
			members[n++] = m;
	}
	qsort(members, n, sizeof(*members), compare_members);
	buf_addf(out, "%d", r->kind);
	for (i = 0; i < n; i++) {
		buf_addc(out, ',');
		json_write_string(out, members[i].name, members[i].n_name);
		buf_addc(out, ':');
		json_write_canonical(out, members[i].value);
	}
	free(members);
}

void row_release(struct row_request *r)
{
	yyjson_doc_free(r->messages_doc);
	yyjson_doc_free(r->doc);
	arena_release(&r->arena);
	*r = (struct row_request){0};
}
