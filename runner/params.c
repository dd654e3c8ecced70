/* params.c: the parameters of a row, in one table: name, which kinds of row take it, how its value is read.
 *
 * Meaning is the OpenAI API's and, for what that lacks, vLLM's of the same name. JSON null is "not given", since clients write
 * their unset fields so. The table is sorted by name (params_read searches it by halves; a test checks the order).
 */
#include "runner/row.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { CHAT = ROW_CHAT, TEXT = ROW_COMPLETION, BOTH = ROW_CHAT | ROW_COMPLETION };

struct param;
typedef int (*param_set_fn)(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                            struct row_fault *f);
struct param {
	const char *name;
	int kinds;
	param_set_fn set;
	size_t offset; /* of the field in struct row_request, for set_float, set_int and set_bool */
	double min, max;
};

static int bad_type(const struct param *p, const char *expected, yyjson_val *v, struct row_fault *f)
{
	return row_fault_set(f, p->name, "invalid_type", "%s must be %s, it is %s", p->name, expected, json_type_name(v));
}

static int bad_value(const struct param *p, const char *expected, yyjson_val *v, struct row_fault *f)
{
	struct buf text = {0};

	json_write(&text, v);
	row_fault_set(f, p->name, "invalid_value", "%s must be %s, it is %.100s%s", p->name, expected, buf_str(&text),
	              text.len > 100 ? "..." : "");
	buf_release(&text);
	return -1;
}

/* What x should have been. A limit that is only what the field can hold is told to who is above it. */
static void range_text(const struct param *p, const char *kind, double x, char *out, size_t cap)
{
	if (p->max >= INT32_MAX && !(x > p->max))
		snprintf(out, cap, "%s of at least %.9g", kind, p->min);
	else
		snprintf(out, cap, "%s from %.10g to %.10g", kind, p->min, p->max);
}

static int set_float(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                     struct row_fault *f)
{
	char expected[80];
	double x = yyjson_get_num(v);

	range_text(p, "a number", x, expected, sizeof(expected));
	if (!yyjson_is_num(v))
		return bad_type(p, expected, v, f);
	if (!(x >= p->min && x <= p->max))
		return bad_value(p, expected, v, f);
	*(float *)((char *)r + p->offset) = (float)x;
	return 0;
}

/* As set_float, but the lower end itself is not allowed. */
static int set_float_above(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                           struct row_fault *f)
{
	char expected[80];

	if (p->max >= INT32_MAX && !(yyjson_get_num(v) > p->max))
		snprintf(expected, sizeof(expected), "a number above %.9g", p->min);
	else
		snprintf(expected, sizeof(expected), "a number above %.9g, at most %.10g", p->min, p->max);
	if (!yyjson_is_num(v))
		return bad_type(p, expected, v, f);
	/* Compared as float: what is stored must be above the limit, too. */
	if (!((float)yyjson_get_num(v) > (float)p->min && yyjson_get_num(v) <= p->max))
		return bad_value(p, expected, v, f);
	*(float *)((char *)r + p->offset) = (float)yyjson_get_num(v);
	return 0;
}

/* An integer, also when written as 16.0. */
static int get_int(yyjson_val *v, double min, double max, int64_t *out)
{
	double x = yyjson_get_num(v);

	if (!yyjson_is_num(v) || x != trunc(x) || x < min || x > max)
		return -1;
	*out = (int64_t)x;
	return 0;
}

static int set_int(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                   struct row_fault *f)
{
	char expected[80];
	int64_t n;

	range_text(p, "an integer", yyjson_get_num(v), expected, sizeof(expected));
	if (!yyjson_is_num(v))
		return bad_type(p, expected, v, f);
	if (get_int(v, p->min, p->max, &n) < 0)
		return bad_value(p, expected, v, f);
	*(int *)((char *)r + p->offset) = (int)n;
	return 0;
}

static int set_bool(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                    struct row_fault *f)
{
	if (!yyjson_is_bool(v))
		return bad_type(p, "true or false", v, f);
	*(int *)((char *)r + p->offset) = yyjson_get_bool(v);
	return 0;
}

static int set_nothing(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                       struct row_fault *f)
{
	return 0;
}

/* Known to the API or to other engines, and would change the answer: said so instead of "unknown". */
static int set_unsupported(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                           struct row_fault *f)
{
	return row_fault_set(f, p->name, "unsupported_parameter", "%s is not supported", p->name);
}

static int set_model(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                     struct row_fault *f)
{
	if (!yyjson_is_str(v))
		return bad_type(p, "a string", v, f);
	r->model = yyjson_get_str(v);
	r->n_model = yyjson_get_len(v);
	return 0;
}

static int set_seed(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                    struct row_fault *f)
{
	if (!yyjson_is_int(v))
		return bad_type(p, "an integer of 64 bits", v, f);
	r->sampling.seed = yyjson_is_uint(v) ? yyjson_get_uint(v) : (uint64_t)yyjson_get_sint(v);
	r->own_seed = 1;
	return 0;
}

static int set_stop(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                    struct row_fault *f)
{
	size_t n = yyjson_is_str(v) ? 1 : yyjson_arr_size(v);
	const char **stop;

	if (!yyjson_is_str(v) && !yyjson_is_arr(v))
		return bad_type(p, "a string or an array of strings", v, f);
	if (n > ROW_MAX_STOPS)
		return row_fault_set(f, p->name, "invalid_value", "stop must have at most %d strings, it has %zu", ROW_MAX_STOPS, n);
	stop = arena_alloc(&r->arena, (n + 1) * sizeof(*stop));
	for (size_t i = 0; i < n; i++) {
		yyjson_val *s = yyjson_is_str(v) ? v : yyjson_arr_get(v, i);

		if (!yyjson_is_str(s))
			return row_fault_set(f, p->name, "invalid_type", "stop[%zu] must be a string, it is %s", i, json_type_name(s));
		if (yyjson_get_len(s) == 0 || memchr(yyjson_get_str(s), '\0', yyjson_get_len(s)))
			return row_fault_set(f, p->name, "invalid_value", "stop[%zu] must not be empty nor contain a NUL character", i);
		stop[i] = yyjson_get_str(s);
	}
	r->sampling.stop = stop;
	r->sampling.n_stop = (int32_t)n;
	return 0;
}

static int set_stop_ids(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                        struct row_fault *f)
{
	size_t n = yyjson_arr_size(v), i, max;
	yyjson_val *id;
	int32_t *ids;

	if (!yyjson_is_arr(v))
		return bad_type(p, "an array of token ids", v, f);
	if (n > ROW_MAX_STOP_IDS)
		return row_fault_set(f, p->name, "invalid_value", "%s must have at most %d ids, it has %zu", p->name, ROW_MAX_STOP_IDS,
		                     n);
	ids = arena_alloc(&r->arena, (n + 1) * sizeof(*ids));
	yyjson_arr_foreach (v, i, max, id) {
		int64_t x;

		if (get_int(id, 0, rules->n_vocab - 1, &x) < 0)
			return row_fault_set(f, p->name, "invalid_value", "%s[%zu] must be a token id from 0 to %d", p->name, i,
			                     rules->n_vocab - 1);
		ids[i] = (int32_t)x;
	}
	r->sampling.stop_ids = ids;
	r->sampling.n_stop_ids = (int32_t)n;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	const struct logit_bias *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int set_logit_bias(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                          struct row_fault *f)
{
	size_t n = yyjson_obj_size(v), i, max;
	yyjson_val *key, *val;
	struct logit_bias *bias;

	if (!yyjson_is_obj(v))
		return bad_type(p, "an object of token id to bias", v, f);
	bias = arena_alloc(&r->arena, (n + 1) * sizeof(*bias));
	yyjson_obj_foreach (v, i, max, key, val) {
		char *end;
		long id = strtol(yyjson_get_str(key), &end, 10);
		double x = yyjson_get_num(val);

		if (yyjson_get_len(key) == 0 || yyjson_get_str(key)[0] < '0' || yyjson_get_str(key)[0] > '9' ||
		    end != yyjson_get_str(key) + yyjson_get_len(key) || id >= rules->n_vocab)
			return row_fault_set(f, p->name, "invalid_value",
			                     "logit_bias has the key '%.40s', which is no token id from 0 to %d", yyjson_get_str(key),
			                     rules->n_vocab - 1);
		if (!yyjson_is_num(val) || !(x >= -100 && x <= 100))
			return row_fault_set(f, p->name, "invalid_value", "logit_bias of token %ld must be a number from -100 to 100", id);
		bias[i] = (struct logit_bias){(int32_t)id, (float)x};
	}
	qsort(bias, n, sizeof(*bias), by_id);
	for (i = 1; i < n; i++)
		if (bias[i].id == bias[i - 1].id)
			return row_fault_set(f, p->name, "invalid_value", "logit_bias names token %d twice", bias[i].id);
	r->sampling.bias = bias;
	r->sampling.n_bias = (int32_t)n;
	return 0;
}

/* Chat: a boolean, with top_logprobs beside it. Completions: how many. */
static int set_logprobs(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                        struct row_fault *f)
{
	int64_t n;

	if (r->kind == ROW_CHAT) {
		if (!yyjson_is_bool(v))
			return bad_type(p, "true or false in a chat row (top_logprobs says how many)", v, f);
		r->logprobs = yyjson_get_bool(v);
		return 0;
	}
	if (!yyjson_is_num(v))
		return bad_type(p, "an integer from 0 to 20 in a completion row", v, f);
	if (get_int(v, 0, 20, &n) < 0)
		return bad_value(p, "an integer from 0 to 20", v, f);
	r->logprobs = 1;
	r->sampling.n_logprobs = (int32_t)n;
	return 0;
}

static int set_object(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                      struct row_fault *f)
{
	if (!yyjson_is_obj(v))
		return bad_type(p, "an object", v, f);
	*(yyjson_val **)((char *)r + p->offset) = v;
	return 0;
}

static int set_tools(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                     struct row_fault *f)
{
	size_t i, max;
	yyjson_val *tool;

	if (!yyjson_is_arr(v))
		return bad_type(p, "an array", v, f);
	yyjson_arr_foreach (v, i, max, tool) {
		yyjson_val *function = yyjson_obj_get(tool, "function");

		if (!yyjson_equals_str(yyjson_obj_get(tool, "type"), "function") || !yyjson_is_obj(function))
			return row_fault_set(f, p->name, "invalid_value",
			                     "tools[%zu] must be {\"type\": \"function\", \"function\": {...}}", i);
		if (!yyjson_is_str(yyjson_obj_get(function, "name")))
			return row_fault_set(f, p->name, "invalid_value", "tools[%zu].function.name must be a string", i);
	}
	r->tools = yyjson_arr_size(v) ? v : NULL;
	return 0;
}

static int set_tool_choice(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                           struct row_fault *f)
{
	if (!yyjson_equals_str(v, "auto") && !yyjson_equals_str(v, "none"))
		return row_fault_set(f, p->name, "unsupported_value",
		                     "tool_choice can be \"auto\" or \"none\"; a forced choice is not supported");
	r->tool_choice = v;
	return 0;
}

static int set_response_format(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                               struct row_fault *f)
{
	yyjson_val *type = yyjson_obj_get(v, "type");

	if (!yyjson_is_obj(v) || !yyjson_is_str(type))
		return bad_type(p, "an object with a type", v, f);
	if (!yyjson_equals_str(type, "text"))
		return row_fault_set(f, p->name, "unsupported_value",
		                     "response_format can only be {\"type\": \"text\"}; \"%.40s\" is not supported",
		                     yyjson_get_str(type));
	return 0;
}

static int set_modalities(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                          struct row_fault *f)
{
	if (yyjson_arr_size(v) != 1 || !yyjson_equals_str(yyjson_arr_get_first(v), "text"))
		return row_fault_set(f, p->name, "unsupported_value", "modalities can only be [\"text\"]");
	return 0;
}

static int set_suffix(struct row_request *r, yyjson_val *v, const struct param *p, const struct row_rules *rules,
                      struct row_fault *f)
{
	if (!yyjson_is_str(v))
		return bad_type(p, "a string", v, f);
	if (yyjson_get_len(v))
		return row_fault_set(f, p->name, "unsupported_parameter", "suffix (inserting text) is not supported");
	return 0;
}

#define FIELD(name) offsetof(struct row_request, name)
#define ANY_INT -2147483648.0, 2147483647.0
static const struct param params[] = {
    {"add_generation_prompt", CHAT, set_bool, FIELD(add_generation_prompt), 0, 0},
    {"add_special_tokens", TEXT, set_bool, FIELD(add_special_tokens), 0, 0},
    {"allowed_token_ids", BOTH, set_unsupported, 0, 0, 0},
    {"audio", CHAT, set_unsupported, 0, 0, 0},
    {"bad_words", BOTH, set_unsupported, 0, 0, 0},
    {"best_of", BOTH, set_int, FIELD(best_of), 1, ROW_MAX_N},
    {"chat_template", CHAT, set_unsupported, 0, 0, 0},
    {"chat_template_kwargs", CHAT, set_object, FIELD(template_vars), 0, 0},
    {"continue_final_message", CHAT, set_bool, FIELD(continue_final_message), 0, 0},
    {"documents", CHAT, set_unsupported, 0, 0, 0},
    {"echo", TEXT, set_bool, FIELD(echo), 0, 0},
    {"frequency_penalty", BOTH, set_float, FIELD(sampling.frequency_penalty), -2, 2},
    {"function_call", CHAT, set_unsupported, 0, 0, 0},
    {"functions", CHAT, set_unsupported, 0, 0, 0},
    {"guided_choice", BOTH, set_unsupported, 0, 0, 0},
    {"guided_grammar", BOTH, set_unsupported, 0, 0, 0},
    {"guided_json", BOTH, set_unsupported, 0, 0, 0},
    {"guided_regex", BOTH, set_unsupported, 0, 0, 0},
    {"ignore_eos", BOTH, set_bool, FIELD(sampling.ignore_eos), 0, 0},
    {"include_stop_str_in_output", BOTH, set_bool, FIELD(sampling.include_stop), 0, 0},
    {"length_penalty", BOTH, set_unsupported, 0, 0, 0},
    {"logit_bias", BOTH, set_logit_bias, 0, 0, 0},
    {"logits_processors", BOTH, set_unsupported, 0, 0, 0},
    {"logprobs", BOTH, set_logprobs, 0, 0, 0},
    {"max_completion_tokens", CHAT, set_int, FIELD(max_completion_tokens), 1, INT32_MAX},
    {"max_tokens", BOTH, set_int, FIELD(max_tokens), 0, INT32_MAX},
    {"messages", CHAT, set_nothing, 0, 0, 0},
    {"metadata", BOTH, set_nothing, 0, 0, 0},
    {"min_p", BOTH, set_float, FIELD(sampling.min_p), 0, 1},
    {"min_tokens", BOTH, set_int, FIELD(sampling.min_tokens), 0, INT32_MAX},
    {"modalities", CHAT, set_modalities, 0, 0, 0},
    {"model", BOTH, set_model, 0, 0, 0},
    {"n", BOTH, set_int, FIELD(n), 1, ROW_MAX_N},
    {"parallel_tool_calls", CHAT, set_nothing, 0, 0, 0},
    {"prediction", CHAT, set_unsupported, 0, 0, 0},
    {"presence_penalty", BOTH, set_float, FIELD(sampling.presence_penalty), -2, 2},
    {"priority", BOTH, set_nothing, 0, 0, 0},
    {"prompt", TEXT, set_nothing, 0, 0, 0},
    {"prompt_cache_key", BOTH, set_nothing, 0, 0, 0},
    {"prompt_cache_retention", BOTH, set_nothing, 0, 0, 0},
    {"prompt_logprobs", BOTH, set_unsupported, 0, 0, 0},
    {"reasoning_effort", CHAT, set_unsupported, 0, 0, 0},
    {"repetition_penalty", BOTH, set_float_above, FIELD(sampling.repetition_penalty), 0, INT32_MAX},
    {"response_format", CHAT, set_response_format, 0, 0, 0},
    {"safety_identifier", BOTH, set_nothing, 0, 0, 0},
    {"seed", BOTH, set_seed, 0, 0, 0},
    {"service_tier", BOTH, set_nothing, 0, 0, 0},
    {"skip_special_tokens", BOTH, set_bool, FIELD(sampling.skip_special), 0, 0},
    {"stop", BOTH, set_stop, 0, 0, 0},
    {"stop_token_ids", BOTH, set_stop_ids, 0, 0, 0},
    {"store", BOTH, set_nothing, 0, 0, 0},
    {"stream", BOTH, set_nothing, 0, 0, 0},
    {"stream_options", BOTH, set_nothing, 0, 0, 0},
    {"structured_outputs", BOTH, set_unsupported, 0, 0, 0},
    {"suffix", TEXT, set_suffix, 0, 0, 0},
    {"temperature", BOTH, set_float, FIELD(sampling.temperature), 0, 2},
    {"tool_choice", CHAT, set_tool_choice, 0, 0, 0},
    {"tools", CHAT, set_tools, 0, 0, 0},
    {"top_k", BOTH, set_int, FIELD(sampling.top_k), -1, INT32_MAX},
    {"top_logprobs", CHAT, set_int, FIELD(sampling.n_logprobs), 0, 20},
    {"top_p", BOTH, set_float_above, FIELD(sampling.top_p), 0, 1},
    {"use_beam_search", BOTH, set_unsupported, 0, 0, 0},
    {"user", BOTH, set_nothing, 0, 0, 0},
    {"verbosity", CHAT, set_unsupported, 0, 0, 0},
    {"web_search_options", CHAT, set_unsupported, 0, 0, 0},
};

static const struct param *param_find(const char *name)
{
	size_t low = 0, high = sizeof(params) / sizeof(*params);

	while (low < high) {
		size_t mid = (low + high) / 2;
		int c = strcmp(name, params[mid].name);

		if (c == 0)
			return &params[mid];
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

int params_matters(const char *name, size_t n)
{
	for (size_t i = 0; i < sizeof(params) / sizeof(*params); i++)
		if (strlen(params[i].name) == n && memcmp(params[i].name, name, n) == 0)
			return params[i].set != set_nothing || strcmp(name, "messages") == 0 || strcmp(name, "prompt") == 0;
	return 1;
}

const char *params_name(size_t i)
{
	return i < sizeof(params) / sizeof(*params) ? params[i].name : NULL;
}

void params_init(struct row_request *r)
{
	r->n = 1;
	r->add_generation_prompt = -1;
	r->add_special_tokens = 1;
	r->best_of = -1;
	r->sampling = (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .skip_special = 1, .n_logprobs = -1};
}

static int is_own_name(const struct row_request *r, const char *name)
{
	return r->is_plain && (strcmp(name, "custom_id") == 0 || strcmp(name, "id") == 0);
}

/* The two names of one limit. */
static int take_max_tokens(struct row_request *r, struct row_fault *f)
{
	if (r->max_tokens >= 0 && r->max_completion_tokens >= 0 && r->max_tokens != r->max_completion_tokens)
		return row_fault_set(f, "max_tokens", "invalid_value",
		                     "max_tokens is %d and max_completion_tokens is %d; give one of them", r->max_tokens,
		                     r->max_completion_tokens);
	if (r->kind == ROW_CHAT && r->max_tokens == 0)
		return row_fault_set(f, "max_tokens", "invalid_value", "max_tokens must be at least 1 in a chat row, it is 0");
	if (r->max_tokens >= 0 || r->max_completion_tokens >= 0) {
		r->sampling.max_tokens = r->max_tokens >= 0 ? r->max_tokens : r->max_completion_tokens;
		r->max_tokens_given = 1;
	}
	return 0;
}

int params_read(struct row_request *r, yyjson_val *body, const struct row_rules *rules, int is_default, struct row_fault *f)
{
	size_t i, max;
	yyjson_val *key, *v;

	r->max_tokens = r->max_completion_tokens = -1;
	yyjson_obj_foreach (body, i, max, key, v) {
		const char *name = yyjson_get_str(key);
		const struct param *p = strlen(name) == yyjson_get_len(key) ? param_find(name) : NULL;

		if (p && (p->kinds & (int)r->kind)) {
			/* Defaults serve both kinds of row; logprobs is a boolean for one and a number for the other. */
			if (is_default && p->set == set_logprobs && yyjson_is_bool(v) != (r->kind == ROW_CHAT))
				continue;
			if (!yyjson_is_null(v) && p->set(r, v, p, rules, f) < 0)
				return -1;
		} else if (p && is_default) {
			continue;
		} else if (p) {
			return row_fault_set(f, name, "unknown_parameter", "%s is not a parameter of a %s row", name,
			                     r->kind == ROW_CHAT ? "chat" : "completion");
		} else if (!is_own_name(r, name)) {
			return row_fault_set(f, name, "unknown_parameter", "unknown parameter '%.60s'", name);
		}
	}
	return take_max_tokens(r, f);
}

int params_finish(struct row_request *r, struct row_fault *f)
{
	struct sampling *s = &r->sampling;

	/* The API's default of a completion; plain rows go on until the model ends or the context is full, as chat rows do. */
	if (r->kind == ROW_COMPLETION && !r->is_plain && !r->max_tokens_given) {
		s->max_tokens = 16;
		r->max_tokens_given = 1;
	}
	if (r->max_tokens_given && s->min_tokens > s->max_tokens)
		return row_fault_set(f, "min_tokens", "invalid_value", "min_tokens is %d, more than max_tokens, which is %d",
		                     s->min_tokens, s->max_tokens);
	if (r->best_of >= 0 && r->best_of != r->n)
		return row_fault_set(f, "best_of", "unsupported_value", "best_of is %d; only best_of equal to n (%d) is supported",
		                     r->best_of, r->n);
	if (r->kind == ROW_CHAT) {
		if (!r->logprobs && s->n_logprobs > 0)
			return row_fault_set(f, "top_logprobs", "invalid_value", "top_logprobs needs logprobs to be true");
		s->n_logprobs = !r->logprobs ? -1 : s->n_logprobs < 0 ? 0 : s->n_logprobs;
		if (r->continue_final_message && r->add_generation_prompt == 1)
			return row_fault_set(f, "continue_final_message", "invalid_value",
			                     "continue_final_message and add_generation_prompt cannot both be true");
		if (r->add_generation_prompt < 0)
			r->add_generation_prompt = !r->continue_final_message;
		/* A model that is not to call tools is not told of them. */
		if (r->tool_choice && yyjson_equals_str(r->tool_choice, "none"))
			r->tools = NULL;
	} else if (r->echo && r->logprobs) {
		return row_fault_set(f, "echo", "unsupported_value", "echo together with logprobs is not supported");
	}
	return 0;
}

int row_check_defaults(const struct row_rules *rules, struct err *err)
{
	static const char *const not_defaults[] = {"messages", "prompt", "custom_id", "id", "model"};
	static const enum row_kind kinds[] = {ROW_CHAT, ROW_COMPLETION};
	size_t i, max;
	yyjson_val *key, *v;
	int r = 0;

	if (!yyjson_is_obj(rules->defaults))
		return err_set(err, ERR_USAGE, "must be a JSON object of parameters, it is %s", json_type_name(rules->defaults));
	yyjson_obj_foreach (rules->defaults, i, max, key, v) {
		for (size_t k = 0; k < sizeof(not_defaults) / sizeof(*not_defaults); k++)
			if (strcmp(yyjson_get_str(key), not_defaults[k]) == 0)
				return err_set(err, ERR_USAGE, "'%s' belongs to a row, not to the defaults", not_defaults[k]);
		if (strcmp(yyjson_get_str(key), "logprobs") == 0 && !yyjson_is_bool(v) && !yyjson_is_num(v) && !yyjson_is_null(v))
			return err_set(err, ERR_USAGE, "logprobs must be true, false or an integer, it is %s", json_type_name(v));
	}
	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds) && r == 0; k++) {
		struct row_request row = {.kind = kinds[k]};
		struct row_fault f = {0};

		params_init(&row);
		if (params_read(&row, rules->defaults, rules, 1, &f) < 0 || params_finish(&row, &f) < 0)
			r = err_set(err, ERR_USAGE, "%s", f.message);
		row_release(&row);
	}
	return r;
}
