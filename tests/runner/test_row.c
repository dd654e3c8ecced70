/* Rows: what is taken, what is refused and how it is said. Cases are lines of a table, so that anyone can add one. */
#include "tests/check.h"

#include "base/json.h"
#include "runner/row.h"

static yyjson_doc *defaults_doc;

static struct row_rules rules_of(const char *defaults)
{
	struct row_rules r = {.n_vocab = 1000, .developer_is_system = 1};

	yyjson_doc_free(defaults_doc);
	defaults_doc = defaults ? json_parse(defaults, strlen(defaults), ERR_OTHER, NULL) : NULL;
	r.defaults = yyjson_doc_get_root(defaults_doc);
	return r;
}

/* The batch row whose body is the text. */
static char *chat(const char *members)
{
	struct buf b = {0};

	buf_addf(&b,
	         "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/chat/"
	         "completions\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s%s}}",
	         *members ? "," : "", members);
	return buf_detach(&b);
}

static char *completion(const char *members)
{
	struct buf b = {0};

	buf_addf(&b, "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"hi\"%s%s}}",
	         *members ? "," : "", members);
	return buf_detach(&b);
}

static void check_fault(const char *line, const char *param, const char *code, const char *message)
{
	struct row_rules rules = rules_of(NULL);
	struct row_request r;
	struct row_fault f;
	int rc = row_parse(line, strlen(line), &rules, &r, &f);

	if (rc != -1 || strcmp(f.param, param) != 0 || strcmp(f.code, code) != 0 || !strstr(f.message, message)) {
		printf("for %.300s\n", line);
		CHECK_INT(rc, -1);
		CHECK_STR(f.param, param);
		CHECK_STR(f.code, code);
		CHECK_STR(f.message, message);
	}
	CHECK_INT(f.status, rc < 0 ? 400 : 0);
	row_release(&r);
}

TEST(faults_of_a_row)
{
	static const struct {
		const char *line, *param, *code, *message;
	} cases[] = {
	    {"{", "", "invalid_json", "not valid JSON"},
	    {"[1]", "", "invalid_json", "a row must be a JSON object, it is array"},
	    {"{\"prompt\":\"\xff\"}", "", "invalid_json", "not valid JSON"},
	    {"{\"prompt\":\"a\"} x", "", "invalid_json", "not valid JSON"},
	    {"{}", "messages", "missing_required_parameter", "none of messages, prompt"},
	    {"{\"prompt\":\"a\",\"messages\":[]}", "messages", "invalid_value", "both prompt and messages"},
	    {"{\"prompt\":\"a\",\"id\":\"x\",\"custom_id\":\"y\"}", "id", "invalid_value", "they differ"},
	    {"{\"prompt\":\"a\",\"custom_id\":\"\"}", "custom_id", "invalid_value", "1 to 1024 bytes"},
	    {"{\"prompt\":\"a\",\"custom_id\":5}", "custom_id", "invalid_type", "must be a string, it is integer"},
	    {"{\"prompt\":\"a\",\"custom_id\":true}", "custom_id", "invalid_type", "must be a string, it is boolean"},
	    {"{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}", "custom_id", "missing_required_parameter",
	     "custom_id is missing"},
	    {"{\"custom_id\":7,\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}", "custom_id", "invalid_type",
	     "it is integer"},
	    {"{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{}}", "method", "missing_required_parameter",
	     "method is missing"},
	    {"{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{}}", "method", "invalid_method",
	     "it is GET"},
	    {"{\"custom_id\":\"a\",\"method\":\"POST\",\"body\":{}}", "url", "missing_required_parameter", "url is missing"},
	    {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{}}", "url", "invalid_url",
	     "it is /v1/embeddings"},
	    {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\"}", "body", "missing_required_parameter",
	     "body is missing"},
	    {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":[]}", "body", "invalid_type",
	     "it is array"},
	    {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}", "prompt",
	     "missing_required_parameter", "prompt is missing"},
	    {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"},\"temprature\":1}",
	     "temprature", "unknown_parameter", "unknown field 'temprature'"},
	    {"{\"prompt\":[]}", "prompt", "invalid_value", "empty array"},
	    {"{\"prompt\":[1,1000]}", "prompt", "invalid_value", "prompt[1] is not a token id"},
	    {"{\"prompt\":[1,-1]}", "prompt", "invalid_value", "prompt[1] is not a token id"},
	    {"{\"prompt\":[1,99999999999]}", "prompt", "invalid_value", "prompt[1] is not a token id"},
	    {"{\"prompt\":[1,1.5]}", "prompt", "invalid_type", "prompt[1] must be a token id (integer), it is number"},
	    {"{\"prompt\":[\"a\",\"b\"]}", "prompt", "unsupported_value", "a list of 2 prompts"},
	    {"{\"prompt\":{}}", "prompt", "invalid_type", "it is object"},
	    {"{\"messages\":\"hi\"}", "messages", "invalid_type", "messages must be an array, it is string"},
	    {"{\"messages\":[]}", "messages", "invalid_value", "empty array"},
	    {"{\"messages\":[\"hi\"]}", "messages", "invalid_type", "messages[0] must be an object, it is string"},
	    {"{\"messages\":[{\"content\":\"hi\"}]}", "messages", "missing_required_parameter",
	     "messages[0].role must be a string, it is missing"},
	    {"{\"messages\":[{\"role\":\"robot\",\"content\":\"hi\"}]}", "messages", "invalid_value", "it is \"robot\""},
	    {"{\"messages\":[{\"role\":\"user\"}]}", "messages", "missing_required_parameter",
	     "messages[0].content must be a string, it is missing"},
	    {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages", "invalid_type",
	     "messages[0].content must be a string, it is null"},
	    {"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "messages", "invalid_type", "it is integer"},
	    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}", "messages",
	     "unsupported_value", "messages[0].content[0] has type \"image_url\"; only text is supported"},
	    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "messages", "invalid_type",
	     "text must be a string, it is missing"},
	    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]}", "messages", "invalid_type",
	     "messages[0].tool_calls[0].function.name must be a string"},
	    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{x\"}}]}]}",
	     "messages", "invalid_value", "must be the JSON text of an object"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check_fault(cases[i].line, cases[i].param, cases[i].code, cases[i].message);
}

TEST(faults_of_parameters)
{
	static const struct {
		int is_chat;
		const char *members, *param, *code, *message;
	} cases[] = {
	    {1, "\"temprature\":1", "temprature", "unknown_parameter", "unknown parameter 'temprature'"},
	    {1, "\"echo\":true", "echo", "unknown_parameter", "echo is not a parameter of a chat row"},
	    {0, "\"tools\":[]", "tools", "unknown_parameter", "tools is not a parameter of a completion row"},
	    {0, "\"custom_id\":\"x\"", "custom_id", "unknown_parameter", "unknown parameter"},
	    {1, "\"temperature\":\"hot\"", "temperature", "invalid_type", "temperature must be a number from 0 to 2, it is string"},
	    {1, "\"temperature\":-0.1", "temperature", "invalid_value", "must be a number from 0 to 2, it is -0.1"},
	    {1, "\"temperature\":2.1", "temperature", "invalid_value", "it is 2.1"},
	    {1, "\"top_p\":0", "top_p", "invalid_value", "a number above 0, at most 1, it is 0"},
	    {1, "\"top_p\":1e-60", "top_p", "invalid_value", "a number above 0"},
	    {1, "\"top_k\":-2", "top_k", "invalid_value", "an integer of at least -1, it is -2"},
	    {1, "\"top_k\":1.5", "top_k", "invalid_value", "it is 1.5"},
	    {1, "\"top_k\":3000000000", "top_k", "invalid_value", "an integer from -1 to 2147483647, it is 3000000000"},
	    {1, "\"min_p\":1.01", "min_p", "invalid_value", "from 0 to 1"},
	    {1, "\"n\":0", "n", "invalid_value", "from 1 to 128"},
	    {1, "\"n\":129", "n", "invalid_value", "from 1 to 128"},
	    {1, "\"n\":true", "n", "invalid_type", "it is boolean"},
	    {1, "\"max_tokens\":0", "max_tokens", "invalid_value", "at least 1"},
	    {1, "\"max_tokens\":-1", "max_tokens", "invalid_value", "at least 0"},
	    {1, "\"max_tokens\":5,\"max_completion_tokens\":6", "max_tokens", "invalid_value", "give one of them"},
	    {0, "\"max_completion_tokens\":6", "max_completion_tokens", "unknown_parameter", "not a parameter of a completion row"},
	    {1, "\"max_tokens\":5,\"min_tokens\":6", "min_tokens", "invalid_value", "more than max_tokens"},
	    {1, "\"stop\":[1]", "stop", "invalid_type", "stop[0] must be a string"},
	    {1, "\"stop\":\"\"", "stop", "invalid_value", "must not be empty"},
	    {1, "\"stop\":[\"a\\u0000b\"]", "stop", "invalid_value", "NUL"},
	    {1, "\"stop_token_ids\":[1000]", "stop_token_ids", "invalid_value", "from 0 to 999"},
	    {1, "\"seed\":1.5", "seed", "invalid_type", "an integer of 64 bits"},
	    {1, "\"presence_penalty\":3", "presence_penalty", "invalid_value", "from -2 to 2"},
	    {1, "\"repetition_penalty\":0", "repetition_penalty", "invalid_value", "a number above 0, it is 0"},
	    {1, "\"repetition_penalty\":3e38", "repetition_penalty", "invalid_value", "above 0, at most 2147483647, it is 3e38"},
	    {1, "\"logit_bias\":{\"x\":1}", "logit_bias", "invalid_value", "the key 'x'"},
	    {1, "\"logit_bias\":{\"1000\":1}", "logit_bias", "invalid_value", "the key '1000'"},
	    {1, "\"logit_bias\":{\"-1\":1}", "logit_bias", "invalid_value", "the key '-1'"},
	    {1, "\"logit_bias\":{\"1\":101}", "logit_bias", "invalid_value", "from -100 to 100"},
	    {1, "\"logit_bias\":{\"1\":1,\"01\":1}", "logit_bias", "invalid_value", "names token 1 twice"},
	    {1, "\"logprobs\":3", "logprobs", "invalid_type", "true or false in a chat row"},
	    {0, "\"logprobs\":true", "logprobs", "invalid_type", "an integer from 0 to 20 in a completion row"},
	    {0, "\"logprobs\":21", "logprobs", "invalid_value", "from 0 to 20"},
	    {1, "\"top_logprobs\":3", "top_logprobs", "invalid_value", "needs logprobs"},
	    {1, "\"logprobs\":true,\"top_logprobs\":21", "top_logprobs", "invalid_value", "from 0 to 20"},
	    {0, "\"echo\":true,\"logprobs\":1", "echo", "unsupported_value", "echo together with logprobs"},
	    {0, "\"suffix\":\"x\"", "suffix", "unsupported_parameter", "suffix"},
	    {0, "\"best_of\":3", "best_of", "unsupported_value", "best_of is 3"},
	    {1, "\"tools\":[{}]", "tools", "invalid_value", "tools[0]"},
	    {1, "\"tool_choice\":\"required\"", "tool_choice", "unsupported_value", "forced choice"},
	    {1, "\"tool_choice\":{\"type\":\"function\"}", "tool_choice", "unsupported_value", "forced choice"},
	    {1, "\"response_format\":{\"type\":\"json_object\"}", "response_format", "unsupported_value",
	     "\"json_object\" is not supported"},
	    {1, "\"chat_template_kwargs\":1", "chat_template_kwargs", "invalid_type", "must be an object"},
	    {1, "\"guided_json\":{}", "guided_json", "unsupported_parameter", "guided_json is not supported"},
	    {1, "\"reasoning_effort\":\"low\"", "reasoning_effort", "unsupported_parameter", "not supported"},
	    {1, "\"continue_final_message\":true,\"add_generation_prompt\":true", "continue_final_message", "invalid_value",
	     "both be true"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *line = cases[i].is_chat ? chat(cases[i].members) : completion(cases[i].members);

		check_fault(line, cases[i].param, cases[i].code, cases[i].message);
		free(line);
	}
}

static struct row_request parse_good(const char *line, const struct row_rules *rules)
{
	struct row_request r;
	struct row_fault f;

	if (row_parse(line, strlen(line), rules, &r, &f) != 0) {
		printf("for %.300s: %s\n", line, f.message);
		CHECK(!"row is good");
	}
	return r;
}

TEST(defaults_of_the_api)
{
	struct row_rules rules = rules_of(NULL);
	char *line = chat("");
	struct row_request r = parse_good(line, &rules);

	CHECK_INT(r.kind, ROW_CHAT);
	CHECK_STR(r.custom_id, "a");
	CHECK_INT(r.n, 1);
	CHECK_INT(r.max_tokens_given, 0);
	CHECK_INT(r.add_generation_prompt, 1);
	CHECK_INT(r.logprobs, 0);
	CHECK_INT(r.sampling.n_logprobs, -1);
	CHECK_NEAR(r.sampling.temperature, 1, 0);
	CHECK_NEAR(r.sampling.top_p, 1, 0);
	CHECK_NEAR(r.sampling.repetition_penalty, 1, 0);
	CHECK_INT(r.sampling.skip_special, 1);
	row_release(&r);
	free(line);

	/* A batch completion ends after 16 tokens, as in the API; a plain prompt row runs on as chat rows do. */
	line = completion("");
	r = parse_good(line, &rules);
	CHECK_INT(r.kind, ROW_COMPLETION);
	CHECK_INT(r.max_tokens_given, 1);
	CHECK_INT(r.sampling.max_tokens, 16);
	row_release(&r);
	free(line);
	r = parse_good("{\"prompt\":\"a\",\"id\":17}", &rules);
	CHECK_INT(r.max_tokens_given, 0);
	CHECK_STR(r.custom_id, "17");
	row_release(&r);
}

TEST(all_parameters)
{
	struct row_rules rules = rules_of(NULL);
	char *line = chat(
	    "\"model\":\"m\",\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.05,\"n\":3,\"max_completion_tokens\":7,"
	    "\"min_tokens\":2,\"stop\":[\"\\n\\n\",\"END\"],\"stop_token_ids\":[5,6],\"seed\":-1,\"presence_penalty\":0.1,"
	    "\"frequency_penalty\":-0.2,\"repetition_penalty\":1.1,\"logit_bias\":{\"50\":-100,\"7\":1.5},\"ignore_eos\":true,"
	    "\"logprobs\":true,\"top_logprobs\":4,\"include_stop_str_in_output\":true,\"skip_special_tokens\":false,"
	    "\"chat_template_kwargs\":{\"enable_thinking\":false},\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
	    ","
	    "\"tool_choice\":\"auto\",\"response_format\":{\"type\":\"text\"},\"stream\":true,\"stream_options\":{},\"user\":\"u\","
	    "\"service_tier\":\"auto\",\"store\":false,\"metadata\":{\"a\":\"b\"},\"parallel_tool_calls\":true,\"best_of\":3,"
	    "\"add_generation_prompt\":false");
	struct row_request r = parse_good(line, &rules);

	CHECK_INT(r.n_model, 1);
	CHECK_NEAR(r.sampling.temperature, 0.5, 0);
	CHECK_NEAR(r.sampling.top_p, 0.9, 1e-6);
	CHECK_INT(r.sampling.top_k, 40);
	CHECK_NEAR(r.sampling.min_p, 0.05, 1e-6);
	CHECK_INT(r.n, 3);
	CHECK_INT(r.sampling.max_tokens, 7);
	CHECK_INT(r.sampling.min_tokens, 2);
	CHECK_INT(r.sampling.n_stop, 2);
	CHECK_STR(r.sampling.stop[0], "\n\n");
	CHECK_STR(r.sampling.stop[1], "END");
	CHECK_INT(r.sampling.n_stop_ids, 2);
	CHECK_INT(r.sampling.stop_ids[1], 6);
	CHECK(r.own_seed && r.sampling.seed == UINT64_MAX);
	CHECK_NEAR(r.sampling.presence_penalty, 0.1, 1e-6);
	CHECK_NEAR(r.sampling.frequency_penalty, -0.2, 1e-6);
	CHECK_NEAR(r.sampling.repetition_penalty, 1.1, 1e-6);
	CHECK_INT(r.sampling.n_bias, 2);
	CHECK_INT(r.sampling.bias[0].id, 7);
	CHECK_NEAR(r.sampling.bias[1].bias, -100, 0);
	CHECK_INT(r.sampling.ignore_eos, 1);
	CHECK_INT(r.sampling.n_logprobs, 4);
	CHECK_INT(r.sampling.include_stop, 1);
	CHECK_INT(r.sampling.skip_special, 0);
	CHECK(r.tools && r.template_vars);
	CHECK_INT(r.add_generation_prompt, 0);
	row_release(&r);
	free(line);

	line = chat("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"none\",\"temperature\":"
	            "null,\"stop\":null");
	r = parse_good(line, &rules);
	CHECK(!r.tools);
	CHECK_NEAR(r.sampling.temperature, 1, 0);
	row_release(&r);
	free(line);

	line = completion("\"logprobs\":0,\"echo\":false,\"max_tokens\":0,\"suffix\":\"\"");
	r = parse_good(line, &rules);
	CHECK_INT(r.logprobs, 1);
	CHECK_INT(r.sampling.n_logprobs, 0);
	CHECK_INT(r.sampling.max_tokens, 0);
	row_release(&r);
	free(line);

	r = parse_good("{\"prompt\":[[1,2,999]]}", &rules);
	CHECK_INT(r.n_prompt_ids, 3);
	CHECK_INT(r.prompt_ids[2], 999);
	row_release(&r);
}

TEST(defaults_of_the_job)
{
	struct row_rules rules = rules_of("{\"temperature\":0,\"max_tokens\":50,\"logprobs\":2,\"tools\":[],\"stop\":[\"x\"]}");
	struct err err = {0};
	char *line;
	struct row_request r;

	CHECK_INT(row_check_defaults(&rules, &err), 0);
	line = chat("\"max_completion_tokens\":7");
	r = parse_good(line, &rules);
	CHECK_NEAR(r.sampling.temperature, 0, 0);
	CHECK_INT(r.sampling.max_tokens, 7);
	CHECK_INT(r.logprobs, 0);
	row_release(&r);
	free(line);
	line = completion("\"temperature\":0.5,\"stop\":\"y\"");
	r = parse_good(line, &rules);
	CHECK_NEAR(r.sampling.temperature, 0.5, 0);
	CHECK_INT(r.sampling.max_tokens, 50);
	CHECK_INT(r.sampling.n_logprobs, 2);
	CHECK_INT(r.sampling.n_stop, 1);
	CHECK_STR(r.sampling.stop[0], "y");
	row_release(&r);
	free(line);
}

TEST(wrong_defaults)
{
	static const struct {
		const char *defaults, *message;
	} cases[] = {
	    {"[]", "must be a JSON object of parameters, it is array"},
	    {"{\"temperature\":3}", "temperature must be a number from 0 to 2, it is 3"},
	    {"{\"tempature\":0}", "unknown parameter 'tempature'"},
	    {"{\"prompt\":\"x\"}", "'prompt' belongs to a row"},
	    {"{\"echo\":1}", "echo must be true or false"},
	    {"{\"logprobs\":\"yes\"}", "logprobs must be true, false or an integer"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct row_rules rules = rules_of(cases[i].defaults);
		struct err err = {0};

		CHECK_INT(row_check_defaults(&rules, &err), -1);
		CHECK_INT(err.code, ERR_USAGE);
		if (!strstr(err.msg, cases[i].message))
			CHECK_STR(err.msg, cases[i].message);
	}
}

static void check_messages(const char *messages, const char *expected)
{
	struct row_rules rules = rules_of(NULL);
	struct buf line = {0}, got = {0};
	struct row_request r;

	buf_addf(&line, "{\"messages\":%s}", messages);
	r = parse_good(line.data, &rules);
	json_write(&got, r.messages);
	CHECK_STR(got.data, expected);
	row_release(&r);
	buf_release(&line);
	buf_release(&got);
}

TEST(messages_as_templates_want_them)
{
	check_messages("[{\"role\":\"user\",\"content\":\"hi\",\"name\":\"x\"}]",
	               "[{\"role\":\"user\",\"content\":\"hi\",\"name\":\"x\"}]");
	check_messages(
	    "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}],\"x\":1}]",
	    "[{\"role\":\"user\",\"content\":\"a\\nb\",\"x\":1}]");
	check_messages("[{\"role\":\"developer\",\"content\":\"be\"},{\"role\":\"user\",\"content\":\"hi\"}]",
	               "[{\"role\":\"system\",\"content\":\"be\"},{\"role\":\"user\",\"content\":\"hi\"}]");
	check_messages("[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":"
	               "{\"name\":\"f\","
	               "\"arguments\":\"{\\\"x\\\": [1, "
	               "2]}\"}},{\"function\":{\"name\":\"g\",\"arguments\":\"\"}}]},{\"role\":\"tool\",\"content\":\"3\"}]",
	               "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":"
	               "{\"name\":\"f\","
	               "\"arguments\":{\"x\":[1,2]}}},{\"function\":{\"name\":\"g\",\"arguments\":{}}}]},{\"role\":\"tool\","
	               "\"content\":\"3\"}]");
}

TEST(deep_nesting)
{
	struct buf b = {0};

	buf_adds(&b, "{\"prompt\":");
	for (int i = 0; i < 100000; i++)
		buf_addc(&b, '[');
	for (int i = 0; i < 100000; i++)
		buf_addc(&b, ']');
	buf_addc(&b, '}');
	check_fault(b.data, "", "invalid_json", "nested deeper than 100 levels");
	check_fault("{\"prompt\":\"a\",\"prompt\":\"b\"}", "", "invalid_json", "two members \"prompt\"");
	check_fault("{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"content\":5}]}", "", "invalid_json", "two members \"content\"");
	buf_release(&b);
}

/* The table is searched by halves. */
TEST(parameters_are_sorted)
{
	size_t n = 0;

	while (params_name(n)) {
		if (n)
			CHECK(strcmp(params_name(n - 1), params_name(n)) < 0);
		n++;
	}
	CHECK(n > 50);
}

/* The custom_id of a row at fault is known wherever it can be read. */
TEST(id_survives_a_fault)
{
	struct row_rules rules = rules_of(NULL);
	struct row_request r;
	struct row_fault f;
	char *line = chat("\"temperature\":9");

	CHECK_INT(row_parse(line, strlen(line), &rules, &r, &f), -1);
	CHECK_STR(r.custom_id, "a");
	row_release(&r);
	free(line);
}

int main(void)
{
	RUN(faults_of_a_row);
	RUN(faults_of_parameters);
	RUN(defaults_of_the_api);
	RUN(all_parameters);
	RUN(defaults_of_the_job);
	RUN(wrong_defaults);
	RUN(messages_as_templates_want_them);
	RUN(deep_nesting);
	RUN(parameters_are_sorted);
	RUN(id_survives_a_fault);
	yyjson_doc_free(defaults_doc);
	return TEST_RESULT();
}
