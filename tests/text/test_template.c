/* test_template.c: chat templates. template_cases.jsonl holds templates with what Jinja2 makes of them
 * (scripts/diff-template.py
 * --write-cases); the rest is what Jinja2 cannot tell: limits, messages, template_uses, threads. */
#include "engine/text/template.h"

#include <pthread.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/check.h"

#define NOW 1753747200 /* as in scripts/diff-template.py */

static char *render_with(const char *source, const char *vars, const struct template_limits *limits, struct err *err)
{
	yyjson_doc *doc = json_parse(vars, strlen(vars), ERR_INPUT, err);
	struct chat_template *t = template_compile(source, strlen(source), err);
	struct buf out = {0};
	char *text = NULL;

	if (doc && t && template_render(t, yyjson_doc_get_root(doc), limits, &out, err) == 0)
		text = xstrdup(buf_str(&out));
	template_free(t);
	yyjson_doc_free(doc);
	buf_release(&out);
	return text;
}

static void check_text(const char *source, const char *vars, const char *expected)
{
	struct err err = {0};
	char *text = render_with(source, vars, NULL, &err);

	if (!text)
		printf("%s\n", err.msg);
	CHECK_STR(text, expected);
	free(text);
}

static void check_error(const char *source, const char *vars, enum err_code code, const char *expected)
{
	struct err err = {0};
	char *text = render_with(source, vars, NULL, &err);

	CHECK(!text);
	CHECK_INT(err.code, code);
	CHECK_STR(err.msg, expected);
	free(text);
}

/* "tests/text" beside this source, wherever the test runs. */
static char *beside(const char *name)
{
	const char *slash = strrchr(__FILE__, '/');
	char *folder = xmemdup(__FILE__, slash ? (size_t)(slash - __FILE__) : 0), *path, *from_root;
	const char *root = getenv("TOKENMILL_SOURCE");

	path = file_join(slash ? folder : ".", name);
	if (root && path[0] != '/') {
		from_root = file_join(root, path);
		free(path);
		path = from_root;
	}
	free(folder);
	return path;
}

/* {"template", "vars", "out" or "error"}; the first line is {"vars"} alone, for all cases that have none. */
static void check_case(const char *line, size_t n, int number, yyjson_val *default_vars)
{
	struct template_limits limits = {.now_unix_s = NOW};
	struct err err = {0};
	yyjson_doc *doc = json_parse(line, n, ERR_INPUT, &err);
	yyjson_val *root = yyjson_doc_get_root(doc), *expected = yyjson_obj_get(root, "out"), *vars = yyjson_obj_get(root, "vars");
	const char *source = yyjson_get_str(yyjson_obj_get(root, "template"));
	struct chat_template *t = doc ? template_compile(source, strlen(source), &err) : NULL;
	struct buf out = {0};
	int ok = t && template_render(t, vars ? vars : default_vars, &limits, &out, &err) == 0;

	CHECK(doc != NULL);
	if (ok != (expected != NULL) ||
	    (ok && (out.len != yyjson_get_len(expected) || memcmp(buf_str(&out), yyjson_get_str(expected), out.len)))) {
		printf("case %d: %s\n", number, source);
		CHECK_STR(ok ? buf_str(&out) : err.msg,
		          expected ? yyjson_get_str(expected) : yyjson_get_str(yyjson_obj_get(root, "error")));
	}
	template_free(t);
	yyjson_doc_free(doc);
	buf_release(&out);
}

TEST(same_as_jinja2)
{
	char *path = beside("template_cases.jsonl");
	struct buf text = {0};
	struct err err = {0};
	yyjson_doc *first = NULL;
	int number = 0;

	CHECK_INT(file_read(path, (size_t)64 << 20, &text, ERR_INPUT, &err), 0);
	for (char *line = text.data, *end; line && *line; line = end + 1) {
		end = strchr(line, '\n');
		if (!end)
			break;
		if (number++ == 0)
			first = json_parse(line, (size_t)(end - line), ERR_INPUT, &err);
		else
			check_case(line, (size_t)(end - line), number, yyjson_obj_get(yyjson_doc_get_root(first), "vars"));
	}
	CHECK(number > 1000);
	yyjson_doc_free(first);
	free(path);
	buf_release(&text);
}

TEST(chat)
{
	check_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
	           "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
	           "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"add_generation_prompt\":true}",
	           "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(messages_name_the_line)
{
	check_error("a\n{{ x.y }}", "{}", ERR_ROW, "chat template line 2: 'x' is undefined");
	check_error("{% set x = {} %}\n\n{{ x.y.z }}", "{}", ERR_ROW, "chat template line 3: 'dict object' has no attribute 'y'");
	check_error("{{ raise_exception('roles must alternate') }}", "{}", ERR_ROW, "roles must alternate");
	check_error("\n{% if x %}", "{}", ERR_MODEL,
	            "chat template line 2: unexpected end of template: 'elif' is missing for the block of line 2");
	check_error("{{ 1 | nope }}", "{}", ERR_MODEL, "chat template line 1: no filter named 'nope'");
	check_error("{{ x | pprint }}", "{}", ERR_MODEL, "chat template line 1: filter 'pprint' is not supported");
	check_error("{% include 'a' %}", "{}", ERR_MODEL, "chat template line 1: the tag 'include' is not supported");
	check_error("{% if x %}{{ 1 | nope }}{% endif %}{{ y }}", "{\"x\":1}", ERR_ROW,
	            "chat template line 1: no filter named 'nope'");
	check_error("{{ 2 ** 200 }}", "{}", ERR_ROW,
	            "chat template line 1: integer overflow: integers of more than 128 bits are not supported");
	check_error("{{ [].append(1) }}", "{}", ERR_ROW,
	            "chat template line 1: access to attribute 'append' of 'list' object is unsafe");
	check_error("\xff", "{}", ERR_MODEL, "chat template line 1: the template is not UTF-8");
}

static void check_stops(const char *source, const char *part)
{
	struct template_limits limits = {.max_output_bytes = 1 << 20, .max_steps = 300000};
	struct err err = {0};
	char *text = render_with(source, "{}", &limits, &err);

	CHECK(!text);
	CHECK(err.code == ERR_ROW || err.code == ERR_MODEL);
	if (!strstr(err.msg, part))
		CHECK_STR(err.msg, part);
	free(text);
}

TEST(limits)
{
	struct buf deep = {0};

	check_stops("{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}", "steps");
	check_stops("{{ 'x' * 10000000000 }}", "bytes");
	check_stops("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
	            "bytes");
	check_stops("{{ [1] * 100000000 }}", "steps");
	check_stops("{% for a in range(100000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}", "bytes");
	check_stops("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep");
	check_stops("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "deep");
	check_stops("{% set ns = namespace(a=[]) %}{% for i in range(9000) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}",
	            "deep");
	check_stops("{% set ns = namespace(a=(1,)) %}{% for i in range(9000) %}{% set ns.a = (ns.a,) %}{% endfor %}{{ {ns.a: 1} }}",
	            "deep");
	check_stops(
	    "{% set ns = namespace(a=[1]) %}{% for i in range(9000) %}{% set ns.a = ns.a | select %}{% endfor %}{{ ns.a | list }}",
	    "deep");
	check_stops("{% set b = 'x' * 1000000 %}{% for i in range(100000) %}{{ 'y' in b }}{% endfor %}", "steps");
	check_stops("{% set b = 'x' * 1000000 %}{% for i in range(100000) %}{{ b.rfind('xy') }}{% endfor %}", "steps");
	check_stops("{% set b = 'é' * 400000 %}{% for i in range(100000) %}{{ b[399999] }}{% endfor %}", "steps");
	check_stops("{{ ''.join(range(10)) }}", "string is expected");
	check_stops("{{ '%999999999d' % 1 }}", "bytes");
	check_stops("{{ 'x'.center(99999999999) }}", "bytes");
	for (int i = 0; i < 20000; i++)
		buf_adds(&deep, "{% if 1 %}");
	check_stops(buf_str(&deep), "deep");
	buf_reset(&deep);
	buf_adds(&deep, "{{ ");
	for (int i = 0; i < 20000; i++)
		buf_adds(&deep, "(");
	check_stops(buf_str(&deep), "deep");
	buf_reset(&deep);
	buf_adds(&deep, "{{ 1");
	for (int i = 0; i < 20000; i++)
		buf_adds(&deep, "+1");
	buf_adds(&deep, " }}");
	check_stops(buf_str(&deep), "nested parts");
	buf_reset(&deep);
	buf_adds(&deep, "{{ x");
	for (int i = 0; i < 20000; i++)
		buf_adds(&deep, " | trim");
	buf_adds(&deep, " }}");
	check_stops(buf_str(&deep), "nested parts");
	buf_release(&deep);
}

TEST(output_untouched_after_failure)
{
	const char *source = "some text {{ x.y }}";
	struct chat_template *t = template_compile(source, strlen(source), NULL);
	struct buf out = {0};
	struct err err = {0};

	buf_adds(&out, "before");
	CHECK_INT(template_render(t, NULL, NULL, &out, &err), -1);
	CHECK_STR(buf_str(&out), "before");
	template_free(t);
	buf_release(&out);
}

TEST(uses)
{
	const char *source = "{% if enable_thinking is defined %}{{ tools }}{% endif %}{% set mine = 1 %}{{ mine }}";
	struct chat_template *t = template_compile(source, strlen(source), NULL);

	CHECK_INT(template_uses(t, "enable_thinking"), 1);
	CHECK_INT(template_uses(t, "tools"), 1);
	CHECK_INT(template_uses(t, "messages"), 0);
	template_free(t);
}

/* A long conversation built by concatenation costs time in proportion to its length. */
TEST(concatenation_is_not_quadratic)
{
	const char *source = "{% set ns = namespace(s='') %}{% for i in range(50000) %}{% set ns.s = ns.s + 'some words of a "
	                     "message ' %}{% endfor %}"
	                     "{{ ns.s | length }}";

	check_text(source, "{}", "1200000");
}

static void *render_many(void *arg)
{
	const struct chat_template *t = arg;
	intptr_t ok = 1;

	for (int i = 0; i < 200; i++) {
		struct buf out = {0};
		struct err err = {0};

		ok &= template_render(t, NULL, NULL, &out, &err) == 0 && strcmp(buf_str(&out), "A0A1A2") == 0;
		buf_release(&out);
	}
	return (void *)ok;
}

TEST(threads_share_a_template)
{
	const char *source = "{% macro m(x) %}{{ 'a' | upper }}{{ x }}{% endmacro %}{% for i in range(3) %}{{ m(i) }}{% endfor %}";
	struct chat_template *t = template_compile(source, strlen(source), NULL);
	pthread_t threads[4];
	void *ok;

	for (int i = 0; i < 4; i++)
		CHECK_INT(pthread_create(&threads[i], NULL, render_many, t), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &ok);
		CHECK_INT((intptr_t)ok, 1);
	}
	template_free(t);
}

int main(void)
{
	RUN(same_as_jinja2);
	RUN(chat);
	RUN(messages_name_the_line);
	RUN(limits);
	RUN(output_untouched_after_failure);
	RUN(uses);
	RUN(concatenation_is_not_quadratic);
	RUN(threads_share_a_template);
	return TEST_RESULT();
}
