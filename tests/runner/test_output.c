/* Output lines, byte for byte where it matters. scripts/check-openai.py holds whole runs against the official client. */
#include "tests/check.h"

#include "base/json.h"
#include "runner/output.h"
#include "runner/partial.h"

static struct text *text;
static struct output_rules rules;

static struct row_request parse(const char *line)
{
	static const struct row_rules row_rules = {.n_vocab = TEXT_BYTES_N_VOCAB};
	struct row_request r;
	struct row_fault f;

	if (row_parse(line, strlen(line), &row_rules, &r, &f) != 0) {
		printf("%s\n", f.message);
		CHECK(!"row is good");
	}
	return r;
}

/* The line's body for these samples. */
static char *body(const char *row, const struct sample_result *samples)
{
	struct row_request r = parse(row);
	struct buf line = {0}, echo = {0}, out = {0};
	yyjson_doc *doc;

	buf_adds(&echo, "prompt:");
	output_success(&line, &rules, "key", 3, &r, &echo, samples, 11);
	doc = json_parse(line.data, line.len, ERR_OTHER, NULL);
	CHECK(doc != NULL);
	json_write(&out, yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "response"), "body"));
	yyjson_doc_free(doc);
	row_release(&r);
	buf_release(&line);
	buf_release(&echo);
	return buf_detach(&out);
}

TEST(plain_answers)
{
	int32_t tokens[] = {'h', 'i', TEXT_BYTES_END};
	struct sample_result s = {
	    .reason = FINISH_STOP, .text = "hi", .n_text = 2, .tokens = tokens, .n_tokens = 3, .stop_id = TEXT_BYTES_END};
	char *got;

	got = body("{\"prompt\":\"a\"}", &s);
	CHECK(strncmp(got, "{\"id\":\"cmpl-", 12) == 0);
	CHECK(strstr(got, "\",\"object\":\"text_completion\",\"created\":0,\"model\":\"served\",\"system_fingerprint\":\"fp_"
	                  "0123456789\",\"choices\":[{\"index\":0,"
	                  "\"text\":\"hi\",\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":11,"
	                  "\"completion_tokens\":3,"
	                  "\"total_tokens\":14}}") != NULL);
	free(got);
	got = body("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"model\":\"mine\"}", &s);
	CHECK(strncmp(got, "{\"id\":\"chatcmpl-", 16) == 0);
	CHECK(strstr(got, "\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"mine\",\"system_fingerprint\":\"fp_"
	                  "0123456789\",\"choices\":[{\"index\":0,"
	                  "\"message\":{\"role\":\"assistant\",\"content\":\"hi\",\"refusal\":null},\"logprobs\":null,\"finish_"
	                  "reason\":\"stop\"}],"
	                  "\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3,\"total_tokens\":14}}") != NULL);
	free(got);
	got = body("{\"prompt\":\"a\",\"echo\":true}", &s);
	CHECK(strstr(got, "\"text\":\"prompt:hi\"") != NULL);
	free(got);
}

/* "é" is two tokens: neither is text. The chat form shows U+FFFD and the bytes, the other form names the bytes. */
TEST(logprobs)
{
	int32_t tokens[] = {'h', 0xC3, 0xA9, TEXT_BYTES_END};
	struct token_logprob lp[] = {{'h', -0.5f},   {'h', -0.5f},        {0xC3, -1.25f}, {0xC3, -0.1f},
	                             {'x', -0.01f},  {0xA9, -INFINITY},   {0xA9, 0},      {0xA9, 0},
	                             {'\"', -3e-5f}, {TEXT_BYTES_END, -1}, {'a', -1},      {'b', -1}};
	struct sample_result s = {.reason = FINISH_STOP,
	                          .text = "h\xC3\xA9",
	                          .n_text = 3,
	                          .tokens = tokens,
	                          .n_tokens = 4,
	                          .logprobs = lp,
	                          .stop_id = TEXT_BYTES_END};
	char *got = body("{\"prompt\":\"a\",\"logprobs\":2}", &s);

	CHECK(strstr(got, "\"logprobs\":{\"tokens\":[\"h\",\"bytes:\\\\xc3\",\"bytes:\\\\xa9\"],\"token_logprobs\":[-0.5,-0.1,0.0],"
	                  "\"top_logprobs\":["
	                  "{\"h\":-0.5,\"bytes:\\\\xc3\":-1.25},{\"x\":-0.01,\"bytes:\\\\xa9\":-9999.0,\"bytes:\\\\xc3\":-0.1},"
	                  "{\"bytes:\\\\xa9\":0.0,\"\\\"\":-0.00003}],\"text_offset\":[0,1,1]}") != NULL);
	free(got);
	got = body("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":true,\"top_logprobs\":2}", &s);
	CHECK(strstr(got, "\"logprobs\":{\"content\":[{\"token\":\"h\",\"logprob\":-0.5,\"bytes\":[104],\"top_logprobs\":[{"
	                  "\"token\":\"h\",\"logprob\":-0.5,"
	                  "\"bytes\":[104]},{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-1.25,\"bytes\":[195]}]},{\"token\":"
	                  "\"\xEF\xBF\xBD\",\"logprob\":-0.1,"
	                  "\"bytes\":[195],") != NULL);
	CHECK(!strstr(got, "<|end|>"));
	free(got);
}

/* A token that ended the answer and is part of the text is part of the log-probabilities; one that the text hides is not. */
TEST(included_stop_token)
{
	int32_t tokens[] = {'h', '!'}, special[] = {'h', TEXT_BYTES_END};
	struct token_logprob lp[] = {{'h', -1}, {'!', -2}}, special_lp[] = {{'h', -1}, {TEXT_BYTES_END, -2}};
	struct sample_result s = {
	    .reason = FINISH_STOP, .text = "h!", .n_text = 2, .tokens = tokens, .n_tokens = 2, .logprobs = lp, .stop_id = '!'};
	char *got = body("{\"prompt\":\"a\",\"logprobs\":0,\"stop_token_ids\":[33],\"include_stop_str_in_output\":true}", &s);

	CHECK(strstr(got, "\"tokens\":[\"h\",\"!\"],\"token_logprobs\":[-1.0,-2.0]") != NULL);
	free(got);
	s = (struct sample_result){.reason = FINISH_STOP,
	                           .text = "h",
	                           .n_text = 1,
	                           .tokens = special,
	                           .n_tokens = 2,
	                           .logprobs = special_lp,
	                           .stop_id = TEXT_BYTES_END};
	got = body("{\"prompt\":\"a\",\"logprobs\":0,\"include_stop_str_in_output\":true}", &s);
	CHECK(strstr(got, "\"tokens\":[\"h\"],") != NULL);
	free(got);
	got = body("{\"prompt\":\"a\",\"logprobs\":0,\"include_stop_str_in_output\":true,\"skip_special_tokens\":false}", &s);
	CHECK(strstr(got, "\"tokens\":[\"h\",\"") != NULL);
	free(got);
}

/* What a stop string cut off is not shown in the log-probabilities either, but counts as generated. */
TEST(stop_string_cuts_logprobs)
{
	int32_t tokens[] = {'a', 'b', 'E', 'N', 'D'};
	struct token_logprob lp[] = {{'a', -1}, {'b', -2}, {'E', -3}, {'N', -4}, {'D', -5}};
	struct sample_result s = {.reason = FINISH_STOP,
	                          .text = "ab",
	                          .n_text = 2,
	                          .tokens = tokens,
	                          .n_tokens = 5,
	                          .logprobs = lp,
	                          .stop_id = -1,
	                          .by_stop_string = 1};
	char *got = body("{\"prompt\":\"a\",\"logprobs\":0,\"stop\":\"END\"}", &s);

	CHECK(strstr(got, "\"tokens\":[\"a\",\"b\"],\"token_logprobs\":[-1.0,-2.0],\"top_logprobs\":null,\"text_offset\":[0,1]}") !=
	      NULL);
	CHECK(strstr(got, "\"completion_tokens\":5") != NULL);
	free(got);
	s.text = "abEND";
	s.n_text = 5;
	got = body("{\"prompt\":\"a\",\"logprobs\":0,\"stop\":\"END\",\"include_stop_str_in_output\":true}", &s);
	CHECK(strstr(got, "\"text_offset\":[0,1,2,3,4]") != NULL);
	free(got);
}

TEST(no_token_at_all)
{
	struct sample_result s = {.reason = FINISH_LENGTH, .stop_id = -1};
	char *got = body("{\"prompt\":\"a\",\"logprobs\":1,\"max_tokens\":0}", &s);

	CHECK(strstr(got, "\"text\":\"\",\"logprobs\":{\"tokens\":[],\"token_logprobs\":[],\"top_logprobs\":[],\"text_offset\":[]},"
	                  "\"finish_reason\":\"length\"") != NULL);
	free(got);
}

TEST(faults)
{
	struct row_fault f = {0};
	struct buf line = {0};

	row_fault_set(&f, "temperature", "invalid_value", "temperature must be %s", "\"cool\"");
	output_fault(&line, &rules, "row-00000001", 12, NULL, 0, &f);
	CHECK(strstr(line.data, "\"custom_id\":\"row-00000001\",\"response\":{\"status_code\":400,") != NULL);
	CHECK(strstr(line.data, "\"body\":{\"error\":{\"message\":\"temperature must be "
	                        "\\\"cool\\\"\",\"type\":\"invalid_request_error\",\"param\":\"temperature\","
	                        "\"code\":\"invalid_value\"}}},\"error\":null}") != NULL);
	buf_reset(&line);
	f = (struct row_fault){0};
	row_fault_set(&f, NULL, NULL, "no");
	output_fault(&line, &rules, "row-00000001", 12, "mine", 4, &f);
	CHECK(strstr(line.data, "\"custom_id\":\"mine\"") && strstr(line.data, "\"param\":null,\"code\":null"));
	buf_release(&line);
}

/* Ids: equal for equal setup and key, else different. */
TEST(ids)
{
	struct output_rules other = rules;
	struct row_fault f = {.status = 400, .type = "t", .message = "m"};
	struct buf a = {0}, b = {0}, c = {0}, d = {0};

	other.setup = "1123456789012345678901234567890123456789012345678901234567890123";
	output_fault(&a, &rules, "x", 1, "id", 2, &f);
	output_fault(&b, &rules, "x", 1, "id", 2, &f);
	output_fault(&c, &rules, "y", 1, "id", 2, &f);
	output_fault(&d, &other, "x", 1, "id", 2, &f);
	CHECK_STR(a.data, b.data);
	CHECK(strcmp(a.data, c.data) != 0);
	CHECK(strcmp(a.data, d.data) != 0);
	buf_release(&a);
	buf_release(&b);
	buf_release(&c);
	buf_release(&d);
}

static int same_sample(const struct sample_result *a, const struct sample_result *b, int width)
{
	return a->reason == b->reason && a->n_tokens == b->n_tokens && a->n_text == b->n_text && a->stop_id == b->stop_id &&
	       a->by_stop_string == b->by_stop_string && memcmp(a->tokens, b->tokens, a->n_tokens * sizeof(*a->tokens)) == 0 &&
	       (!width || memcmp(a->logprobs, b->logprobs, a->n_tokens * (size_t)width * sizeof(*a->logprobs)) == 0) &&
	       memcmp(a->text, b->text, a->n_text) == 0;
}

/* Written and read again; cut anywhere or with a bit changed it is refused or gives ids of the vocabulary, never more. */
TEST(partial_state)
{
	int32_t tokens[] = {'a', 'b', 'c'};
	struct token_logprob lp[] = {{'a', -1}, {'b', -2}, {'c', -3}, {'a', -1}, {'b', -2}, {'c', -3}};
	struct sample_result s[2] =
	    {{.reason = FINISH_NONE, .text = "", .tokens = tokens, .n_tokens = 3, .logprobs = lp, .stop_id = -1},
	     {.reason = FINISH_STOP,
	      .text = "ab",
	      .n_text = 2,
	      .tokens = tokens,
	      .n_tokens = 2,
	      .logprobs = lp,
	      .stop_id = 'b',
	      .by_stop_string = 1}},
	                     got[2];
	struct buf b = {0};

	partial_write(&b, s, 2, 2);
	CHECK_INT(partial_read(b.data, b.len, got, 2, 2, TEXT_BYTES_N_VOCAB), 0);
	CHECK(same_sample(&s[0], &got[0], 2) && same_sample(&s[1], &got[1], 2));
	sample_result_release(&got[0]);
	sample_result_release(&got[1]);
	CHECK_INT(partial_read(b.data, b.len, got, 1, 2, TEXT_BYTES_N_VOCAB), -1);
	CHECK_INT(partial_read(b.data, b.len, got, 2, 3, TEXT_BYTES_N_VOCAB), -1);
	CHECK_INT(partial_read(b.data, b.len, got, 2, 2, 'b'), -1);
	for (size_t n = 0; n < b.len; n++)
		CHECK_INT(partial_read(b.data, n, got, 2, 2, TEXT_BYTES_N_VOCAB), -1);
	for (size_t i = 0; i < b.len * 8; i++) {
		b.data[i / 8] ^= (char)(1 << (i % 8));
		if (partial_read(b.data, b.len, got, 2, 2, TEXT_BYTES_N_VOCAB) == 0) {
			for (int k = 0; k < 2; k++) {
				for (size_t t = 0; t < got[k].n_tokens; t++)
					CHECK(got[k].tokens[t] >= 0 && got[k].tokens[t] < TEXT_BYTES_N_VOCAB);
				sample_result_release(&got[k]);
			}
		}
		b.data[i / 8] ^= (char)(1 << (i % 8));
	}
	buf_release(&b);
}

TEST(reasoning)
{
	/* <think> is 1, </think> 2 */
	struct reasoning_marks m = {1, 1, 2}, none = {0};
	int32_t whole[] = {1, 7, 8, 2, 9, 9}, opened[] = {7, 8, 2, 9}, cut[] = {7, 8, 9}, twice[] = {1, 7, 2, 9, 1, 2};
	int32_t open_end[] = {5, 1, 10}, closed_end[] = {1, 10, 2, 10}, far[] = {1, 5, 5, 5};

	CHECK_INT(reasoning_count(&m, 0, whole, 6), 4);
	CHECK_INT(reasoning_count(&m, 1, opened, 4), 3);
	CHECK_INT(reasoning_count(&m, 1, cut, 3), 3);
	CHECK_INT(reasoning_count(&m, 0, cut, 3), 0);
	CHECK_INT(reasoning_count(&m, 0, twice, 6), 5);
	CHECK_INT(reasoning_count(&none, 1, whole, 6), 0);
	CHECK_INT(reasoning_is_open(&m, open_end, 3), 1);
	CHECK_INT(reasoning_is_open(&m, closed_end, 4), 0);
	CHECK_INT(reasoning_is_open(&m, far, 4), 0);
	CHECK_INT(reasoning_is_open(&none, open_end, 3), 0);
}

/* A line under another key is what would have been written for that key. */
static void check_renamed(const char *row, const struct sample_result *samples, const struct row_fault *fault)
{
	static const char *const keys[] = {"key", "another", "with \"quotes\" \\ and \xE2\x98\x83", "", "\",\"response\":{"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
			struct buf from = {0}, to = {0}, renamed = {0};
			struct row_request r = parse(row);
			struct err err = {0};

			if (fault) {
				output_fault(&from, &rules, keys[i], strlen(keys[i]), NULL, 0, fault);
				output_fault(&to, &rules, keys[k], strlen(keys[k]), NULL, 0, fault);
			} else {
				output_success(&from, &rules, keys[i], strlen(keys[i]), &r, NULL, samples, 11);
				output_success(&to, &rules, keys[k], strlen(keys[k]), &r, NULL, samples, 11);
			}
			CHECK_INT(output_renamed(&renamed, rules.setup, from.data, from.len, keys[k], strlen(keys[k]), &err), 0);
			CHECK_STR(renamed.data, to.data);
			/* What is cut in its head is no line. */
			for (size_t n = 0; n < 100 && n < from.len; n++) {
				struct err cut = {0};
				char *copy = xmemdup(from.data, n);

				buf_reset(&renamed);
				CHECK_INT(output_renamed(&renamed, rules.setup, copy, n, "x", 1, &cut), -1);
				free(copy);
			}
			row_release(&r);
			buf_release(&from);
			buf_release(&to);
			buf_release(&renamed);
		}
}

TEST(renamed)
{
	int32_t tokens[] = {'h', 'i', TEXT_BYTES_END};
	struct sample_result s[2] = {
	    {.reason = FINISH_STOP, .text = "hi", .n_text = 2, .tokens = tokens, .n_tokens = 3, .stop_id = TEXT_BYTES_END},
	    {.reason = FINISH_LENGTH, .text = "\"id\":\"cmpl-", .n_text = 11, .tokens = tokens, .n_tokens = 2, .stop_id = -1}};
	struct row_fault f = {.status = 500, .type = "server_error", .message = "the \"engine\" gave up"};

	check_renamed("{\"prompt\":\"a\",\"n\":2}", s, NULL);
	check_renamed("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"model\":\"mine\"}", s, NULL);
	check_renamed("{\"prompt\":\"a\"}", NULL, &f);
}

TEST(unanswered)
{
	struct buf a = {0}, b = {0}, renamed = {0};
	struct err err = {0};

	output_unanswered(&a, rules.setup, "k\"1", 3, "budget_exhausted", "not run");
	CHECK(strstr(a.data, ",\"custom_id\":\"k\\\"1\",\"response\":null,\"error\":{\"code\":\"budget_exhausted\",\"message\":\"not run\"}}"));
	output_unanswered(&b, rules.setup, "other", 5, "budget_exhausted", "not run");
	CHECK_INT(output_renamed(&renamed, rules.setup, a.data, a.len, "other", 5, &err), 0);
	CHECK_STR(renamed.data, b.data);
	buf_release(&a);
	buf_release(&b);
	buf_release(&renamed);
}

/* Which rows must have the same answer. */
static int same_identity(const char *a, const char *b)
{
	struct row_request x = parse(a), y = parse(b);
	struct buf p = {0}, q = {0};
	int same;

	row_identity(&x, &p);
	row_identity(&y, &q);
	same = p.len > 0 && p.len == q.len && memcmp(p.data, q.data, p.len) == 0;
	row_release(&x);
	row_release(&y);
	buf_release(&p);
	buf_release(&q);
	return same;
}

TEST(identity)
{
	static const char *const same[][2] = {
	    {"{\"prompt\":\"a\",\"temperature\":0}", "{\"temperature\":0.0e3,\"prompt\":\"a\",\"custom_id\":\"x\",\"user\":\"u\",\"metadata\":{\"a\":\"b\"}}"},
	    {"{\"prompt\":\"a\",\"temperature\":0}", "{\"id\":\"7\",\"prompt\":\"a\",\"temperature\":0,\"stop\":null}"},
	    {"{\"prompt\":\"a\",\"seed\":5}", "{\"prompt\":\"a\",\"seed\":5,\"custom_id\":\"x\"}"},
	    {"{\"prompt\":\"a\",\"seed\":5}",
	     "{\"custom_id\":\"x\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\",\"seed\":5,\"user\":\"u\"}}"},
	};
	static const char *const different[][2] = {
	    {"{\"prompt\":\"a\"}", "{\"prompt\":\"a\"}"}, /* both draw, each with numbers of its own */
	    {"{\"prompt\":\"a\",\"seed\":5}", "{\"prompt\":\"a\",\"seed\":6}"},
	    {"{\"prompt\":\"a\",\"temperature\":0}", "{\"prompt\":\"b\",\"temperature\":0}"},
	    {"{\"prompt\":\"a\",\"temperature\":0}", "{\"prompt\":\"a\",\"temperature\":0,\"max_tokens\":5}"},
	    {"{\"prompt\":\"a\",\"temperature\":0}", "{\"prompt\":\"a\",\"temperature\":0,\"model\":\"m\"}"},
	    {"{\"prompt\":\"a\",\"temperature\":0}", "{\"prompt\":\"a\",\"temperature\":0,\"logprobs\":1}"},
	    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":0}", "{\"prompt\":\"a\",\"temperature\":0}"},
	};

	for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
		if (!same_identity(same[i][0], same[i][1])) {
			printf("%s\n%s\n", same[i][0], same[i][1]);
			CHECK(!"the same");
		}
	for (size_t i = 0; i < sizeof(different) / sizeof(*different); i++)
		if (same_identity(different[i][0], different[i][1])) {
			printf("%s\n%s\n", different[i][0], different[i][1]);
			CHECK(!"different");
		}
}

int main(void)
{
	struct err err = {0};

	text = text_open_bytes(&err);
	CHECK_STR(err.msg, "");
	rules = (struct output_rules){.model = "served",
	                              .setup = "0123456789012345678901234567890123456789012345678901234567890123",
	                              .tokenizer = text->tokenizer};
	RUN(plain_answers);
	RUN(logprobs);
	RUN(included_stop_token);
	RUN(stop_string_cuts_logprobs);
	RUN(no_token_at_all);
	RUN(faults);
	RUN(ids);
	RUN(partial_state);
	RUN(renamed);
	RUN(unanswered);
	RUN(identity);
	text_free(text);
	RUN(reasoning);
	return TEST_RESULT();
}
