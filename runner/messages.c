/* messages.c: the messages of a chat row, checked and brought into the form that chat templates are written for.
 *
 * What changes on the way, as in vLLM: content that is a list of text parts becomes one string (the texts, joined by a
 * newline), since most templates expect a string; the arguments of a tool call, a string of JSON in the API, become the object
 * they stand for; the role "developer", OpenAI's new name of "system", becomes "system" where the template does not know it.
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "runner/row.h"

static int check_part(yyjson_val *part, size_t i, size_t k, struct row_fault *f)
{
	yyjson_val *type = yyjson_obj_get(part, "type"), *text = yyjson_obj_get(part, "text");

	if (yyjson_is_str(part))
		return 0;
	if (!yyjson_is_obj(part) || !yyjson_is_str(type))
		return row_fault_set(f, "messages", "invalid_type",
		                     "messages[%zu].content[%zu] must be {\"type\": \"text\", \"text\": ...}", i, k);
	if (!yyjson_equals_str(type, "text"))
		return row_fault_set(f, "messages", "unsupported_value",
		                     "messages[%zu].content[%zu] has type \"%.40s\"; only text is supported", i, k,
		                     yyjson_get_str(type));
	if (!yyjson_is_str(text))
		return row_fault_set(f, "messages", "invalid_type", "messages[%zu].content[%zu].text must be a string, it is %s", i, k,
		                     json_type_name(text));
	return 0;
}

/* *changes: the content or a call must be rewritten. */
static int check_tool_calls(yyjson_val *calls, size_t i, int *changes, struct row_fault *f)
{
	size_t k, max;
	yyjson_val *call;

	if (!calls || yyjson_is_null(calls))
		return 0;
	if (!yyjson_is_arr(calls))
		return row_fault_set(f, "messages", "invalid_type", "messages[%zu].tool_calls must be an array, it is %s", i,
		                     json_type_name(calls));
	yyjson_arr_foreach (calls, k, max, call) {
		yyjson_val *function = yyjson_obj_get(call, "function"), *arguments = yyjson_obj_get(function, "arguments");

		if (!yyjson_is_str(yyjson_obj_get(function, "name")))
			return row_fault_set(f, "messages", "invalid_type", "messages[%zu].tool_calls[%zu].function.name must be a string",
			                     i, k);
		if (arguments && !yyjson_is_str(arguments) && !yyjson_is_obj(arguments))
			return row_fault_set(
			    f, "messages", "invalid_type",
			    "messages[%zu].tool_calls[%zu].function.arguments must be a string of JSON or an object, it is %s", i, k,
			    json_type_name(arguments));
		*changes |= yyjson_is_str(arguments);
	}
	return 0;
}

static int check_message(yyjson_val *m, size_t i, const struct row_rules *rules, int *changes, struct row_fault *f)
{
	static const char *const roles[] = {"system", "user", "assistant", "tool", "developer"};
	yyjson_val *role = yyjson_obj_get(m, "role"), *content = yyjson_obj_get(m, "content"), *part;
	size_t k, max;

	if (!yyjson_is_obj(m))
		return row_fault_set(f, "messages", "invalid_type", "messages[%zu] must be an object, it is %s", i, json_type_name(m));
	if (!yyjson_is_str(role))
		return row_fault_set(f, "messages", role ? "invalid_type" : "missing_required_parameter",
		                     "messages[%zu].role must be a string, it is %s", i, json_type_name(role));
	for (k = 0; k < sizeof(roles) / sizeof(*roles) && !yyjson_equals_str(role, roles[k]); k++)
		;
	if (k == sizeof(roles) / sizeof(*roles))
		return row_fault_set(f, "messages", "invalid_value",
		                     "messages[%zu].role must be system, developer, user, assistant or tool, it is \"%.40s\"", i,
		                     yyjson_get_str(role));
	*changes |= rules->developer_is_system && yyjson_equals_str(role, "developer");
	if (check_tool_calls(yyjson_obj_get(m, "tool_calls"), i, changes, f) < 0)
		return -1;
	if (!content || yyjson_is_null(content)) {
		if (!yyjson_equals_str(role, "assistant"))
			return row_fault_set(f, "messages", content ? "invalid_type" : "missing_required_parameter",
			                     "messages[%zu].content must be a string, it is %s", i, json_type_name(content));
		return 0;
	}
	if (yyjson_is_str(content))
		return 0;
	if (!yyjson_is_arr(content))
		return row_fault_set(f, "messages", "invalid_type",
		                     "messages[%zu].content must be a string or an array of parts, it is %s", i,
		                     json_type_name(content));
	yyjson_arr_foreach (content, k, max, part) {
		if (check_part(part, i, k, f) < 0)
			return -1;
	}
	*changes = 1;
	return 0;
}

static void join_parts(yyjson_mut_doc *doc, yyjson_mut_val *message, yyjson_val *content)
{
	struct buf text = {0};
	size_t k, max;
	yyjson_val *part;

	yyjson_arr_foreach (content, k, max, part) {
		yyjson_val *s = yyjson_is_str(part) ? part : yyjson_obj_get(part, "text");

		if (k)
			buf_addc(&text, '\n');
		buf_add(&text, yyjson_get_str(s), yyjson_get_len(s));
	}
	yyjson_mut_obj_replace(message, yyjson_mut_str(doc, "content"), yyjson_mut_strncpy(doc, buf_str(&text), text.len));
	buf_release(&text);
}

static int open_arguments(yyjson_mut_doc *doc, yyjson_mut_val *call, size_t i, size_t k, struct row_fault *f)
{
	yyjson_mut_val *function = yyjson_mut_obj_get(call, "function"), *arguments = yyjson_mut_obj_get(function, "arguments");
	const char *s = yyjson_mut_get_str(arguments);
	size_t n = yyjson_mut_get_len(arguments);
	yyjson_mut_val *object = NULL;

	if (!yyjson_mut_is_str(arguments))
		return 0;
	if (n == 0) {
		object = yyjson_mut_obj(doc);
	} else {
		yyjson_doc *parsed = json_parse(s, n, ERR_ROW, NULL);
		yyjson_val *root = yyjson_doc_get_root(parsed);

		if (yyjson_is_obj(root) && json_depth_within(root, ROW_MAX_DEPTH / 2))
			object = yyjson_val_mut_copy(doc, root);
		yyjson_doc_free(parsed);
	}
	if (!object)
		return row_fault_set(f, "messages", "invalid_value",
		                     "messages[%zu].tool_calls[%zu].function.arguments must be the JSON text of an object", i, k);
	yyjson_mut_obj_replace(function, yyjson_mut_str(doc, "arguments"), object);
	return 0;
}

static int rewrite(struct row_request *r, const struct row_rules *rules, struct row_fault *f)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_val_mut_copy(doc, r->messages), *m, *call;
	yyjson_arr_iter original = yyjson_arr_iter_with(r->messages);
	size_t i, max, k, n_calls;
	int rc = 0;

	yyjson_mut_doc_set_root(doc, root);
	yyjson_mut_arr_foreach(root, i, max, m)
	{
		yyjson_val *content = yyjson_obj_get(yyjson_arr_iter_next(&original), "content");

		if (yyjson_is_arr(content))
			join_parts(doc, m, content);
		if (rules->developer_is_system && yyjson_mut_equals_str(yyjson_mut_obj_get(m, "role"), "developer"))
			yyjson_mut_obj_replace(m, yyjson_mut_str(doc, "role"), yyjson_mut_str(doc, "system"));
		yyjson_mut_arr_foreach(yyjson_mut_obj_get(m, "tool_calls"), k, n_calls, call)
		{
			if (rc == 0)
				rc = open_arguments(doc, call, i, k, f);
		}
	}
	if (rc == 0) {
		r->messages_doc = yyjson_mut_doc_imut_copy(doc, NULL);
		r->messages = yyjson_doc_get_root(r->messages_doc);
	}
	yyjson_mut_doc_free(doc);
	return rc;
}

int messages_read(struct row_request *r, yyjson_val *messages, const struct row_rules *rules, struct row_fault *f)
{
	size_t i, max;
	yyjson_val *m;
	int changes = 0;

	if (!yyjson_is_arr(messages))
		return row_fault_set(f, "messages", "invalid_type", "messages must be an array, it is %s", json_type_name(messages));
	if (yyjson_arr_size(messages) == 0)
		return row_fault_set(f, "messages", "invalid_value", "messages is an empty array");
	yyjson_arr_foreach (messages, i, max, m) {
		if (check_message(m, i, rules, &changes, f) < 0)
			return -1;
	}
	r->messages = messages;
	if (r->continue_final_message) {
		m = yyjson_arr_get_last(messages);
		if (yyjson_is_null(yyjson_obj_get(m, "content")) || !yyjson_obj_get(m, "content"))
			return row_fault_set(f, "continue_final_message", "invalid_value",
			                     "continue_final_message needs content in the last message");
	}
	return changes ? rewrite(r, rules, f) : 0;
}
