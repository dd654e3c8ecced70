/* test_text.c: what a model directory or GGUF file says about text, and chat prompts made from it. */
#include "engine/text/text.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/check.h"
#include "tests/text/gguf_build.h"

/* Bytes a..d and three special tokens; a text gets <s> in front. */
static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"added_tokens\":["
    "{\"id\":4,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":"
    "true},"
    "{\"id\":5,\"content\":\"</"
    "s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true},"
    "{\"id\":6,\"content\":\"<|im_end|>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
    "\"special\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"
    "regex\":true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":"
    "\"B\",\"type_id\":0}}],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[4],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":"
    "null,"
    "\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3},\"merges\":[]}}";

static int n_dirs;

/* A model directory of its own, with a tokenizer.json and these files: name, content, ..., NULL. */
static struct text *open_with(struct err *err, const char *const *files)
{
	char dir[32], *path;
	struct text *t;

	snprintf(dir, sizeof(dir), "model%d", n_dirs++);
	mkdir(dir, 0777);
	path = file_join(dir, "tokenizer.json");
	CHECK_INT(file_write_atomic(path, tokenizer_json, strlen(tokenizer_json), err), 0);
	free(path);
	for (; *files; files += 2) {
		path = file_join(dir, files[0]);
		CHECK_INT(file_write_atomic(path, files[1], strlen(files[1]), err), 0);
		free(path);
	}
	t = text_open(dir, err);
	if (!t)
		printf("%s\n", err->msg);
	return t;
}
#define OPEN(err, ...) open_with(err, (const char *const[]){__VA_ARGS__, NULL})

static void check_chat(const struct text *t, const char *request, int add_prompt, const char *expected)
{
	struct err err = {0};
	yyjson_doc *doc = json_parse(request, strlen(request), ERR_INPUT, &err);
	yyjson_val *root = yyjson_doc_get_root(doc);
	struct buf out = {0};

	CHECK(doc != NULL);
	if (text_render_chat(t, yyjson_obj_get(root, "messages"), yyjson_obj_get(root, "tools"), yyjson_obj_get(root, "kwargs"),
	                     add_prompt, 0, &out, &err) == 0) {
		CHECK_STR(buf_str(&out), expected);
	} else {
		CHECK_INT(err.code, ERR_ROW);
		CHECK_STR(err.msg, expected);
	}
	yyjson_doc_free(doc);
	buf_release(&out);
}

#define TEMPLATE                                                                                                               \
	"{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt "              \
	"%}[assistant]{% endif %}"                                                                                                 \
	"{{ eos_token if flag is defined }}{{ tools | tojson }}{{ documents }}{{ pad_token is defined }}"
#define QUOTED "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"

TEST(directory)
{
	struct err err = {0};
	struct text *t =
	    OPEN(&err, "tokenizer_config.json",
	         "{\"bos_token\":{\"__type\":\"AddedToken\",\"content\":\"<s>\"},\"eos_token\":\"</s>\","
	         "\"pad_token\":null,\"chat_template\":\"" QUOTED "\",\"model_max_length\":1000000000000000019884624838656}",
	         "generation_config.json", "{\"eos_token_id\":[5,6],\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95}",
	         "config.json", "{\"eos_token_id\":5,\"text_config\":{\"max_position_embeddings\":4096}}",
	         "special_tokens_map.json", "{\"pad_token\":\"</s>\",\"unk_token\":{\"content\":\"a\"}}");

	if (!t) {
		CHECK(t != NULL);
		return;
	}
	CHECK_STR(t->bos_token, "<s>");
	CHECK_STR(t->eos_token, "</s>");
	CHECK(t->pad_token == NULL);
	CHECK_STR(t->unk_token, "a");
	CHECK_INT(t->bos_id, 4);
	CHECK_INT(t->eos_id, 5);
	CHECK_INT(t->n_stop_ids, 2);
	CHECK_INT(t->stop_ids[0], 5);
	CHECK_INT(t->stop_ids[1], 6);
	CHECK_INT(t->add_bos, 1);
	CHECK_INT(t->n_context, 4096);
	CHECK_NEAR(t->default_temperature, 0.6, 0);
	CHECK_NEAR(t->default_top_p, 0.95, 0);
	CHECK_INT(t->default_top_k, 20);
	CHECK_INT(strlen(t->fingerprint), 64);
	CHECK_STR(t->template_source, QUOTED);
	check_chat(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", 0, "<s>[user]hi");
	text_free(t);
}

TEST(nothing_but_a_tokenizer)
{
	struct err err = {0};
	struct text *t = OPEN(&err, "README", "");

	if (!t) {
		CHECK(t != NULL);
		return;
	}
	CHECK(!t->chat_template && !t->template_source && !t->bos_token);
	CHECK_INT(t->bos_id, -1);
	CHECK_INT(t->eos_id, -1);
	CHECK_INT(t->n_stop_ids, 0);
	CHECK_INT(t->n_context, 0);
	CHECK(isnan(t->default_temperature) && isnan(t->default_top_p));
	CHECK_INT(t->default_top_k, -1);
	check_chat(t, "{\"messages\":[]}", 0, "the model has no chat template; use a prompt instead of messages");
	text_free(t);
}

TEST(variables)
{
	struct err err = {0};
	struct text *t = OPEN(&err, "chat_template.jinja", TEMPLATE, "tokenizer_config.json",
	                      "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"chat_template\":\"not this one\"}");

	if (!t) {
		CHECK(t != NULL);
		return;
	}
	check_chat(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", 1, "<s>[user]hi[assistant]nullNoneFalse");
	check_chat(t,
	           "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tools\":[{\"a\":1}],\"kwargs\":{\"flag\":1,\"bos_"
	           "token\":\"B\","
	           "\"add_generation_prompt\":false,\"documents\":[]}}",
	           1, "B[user]hi</s>[{\"a\": 1}][]False");
	check_chat(t, "{\"messages\":[]}", 1, "messages is empty: a chat prompt needs at least one message");
	check_chat(t, "{\"messages\":{}}", 1, "messages is not an array but object");
	check_chat(t, "{\"messages\":[1]}", 1, "messages[0] is not an object but integer");
	check_chat(t, "{\"messages\":[{}],\"kwargs\":[]}", 1, "chat_template_kwargs is not an object but array");
	check_chat(t, "{\"messages\":[{}],\"kwargs\":{\"chat_template\":\"x\"}}", 1,
	           "chat_template_kwargs: \"chat_template\" cannot be set here");
	text_free(t);
}

/* As apply_chat_template of transformers 5. */
TEST(messages_as_the_template_sees_them)
{
	struct err err = {0};
	struct text *t = OPEN(&err, "chat_template.jinja", "{{ messages[0] | tojson }}");

	if (!t) {
		CHECK(t != NULL);
		return;
	}
	check_chat(t, "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":null,\"x\":{\"y\":null}}]}", 0,
	           "{\"role\": \"assistant\", \"x\": {\"y\": null}}");
	check_chat(t, "{\"messages\":[{\"role\":\"assistant\",\"reasoning\":\"r\"}]}", 0,
	           "{\"thinking\": \"r\", \"role\": \"assistant\", \"reasoning\": \"r\", \"reasoning_content\": \"r\"}");
	check_chat(t, "{\"messages\":[{\"role\":\"assistant\",\"reasoning_content\":\"r\",\"thinking\":\"t\"}]}", 0,
	           "{\"thinking\": \"t\", \"role\": \"assistant\", \"reasoning_content\": \"r\"}");
	check_chat(t, "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}", 0,
	           "{\"content\": [{\"type\": \"text\", \"text\": \"x\"}]}");
	text_free(t);
}

TEST(named_templates)
{
	struct err err = {0};
	struct text *t = OPEN(&err, "tokenizer_config.json",
	                      "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"R\"},{\"name\":\"tool_use\",\"template\":"
	                      "\"T{{ tools|length }}\"},{\"name\":\"default\",\"template\":\"D\"}]}");

	if (!t) {
		CHECK(t != NULL);
		return;
	}
	check_chat(t, "{\"messages\":[{}]}", 0, "D");
	check_chat(t, "{\"messages\":[{}],\"tools\":null}", 0, "D");
	check_chat(t, "{\"messages\":[{}],\"tools\":[1,2]}", 0, "T2");
	text_free(t);
}

TEST(template_that_does_not_compile)
{
	struct err err = {0};
	struct text *t = OPEN(&err, "chat_template.json", "{\"chat_template\":\"{% extends 'x' %}\"}");

	if (!t) {
		CHECK(t != NULL);
		return;
	}
	check_chat(t, "{\"messages\":[{}]}", 0, "the model's chat template line 1: the tag 'extends' is not supported");
	text_free(t);
}

/* Whatever changes a prompt's tokens changes the fingerprint. */
TEST(fingerprint)
{
	struct err err = {0};
	struct text *t[4] = {OPEN(&err, "chat_template.jinja", "a"), OPEN(&err, "chat_template.jinja", "b"),
	                     OPEN(&err, "chat_template.jinja", "a", "tokenizer_config.json", "{\"bos_token\":\"<s>\"}"),
	                     OPEN(&err, "chat_template.jinja", "a")};

	if (t[0] && t[1] && t[2] && t[3]) {
		CHECK(strcmp(t[0]->fingerprint, t[1]->fingerprint) != 0);
		CHECK(strcmp(t[0]->fingerprint, t[2]->fingerprint) != 0);
		CHECK_STR(t[0]->fingerprint, t[3]->fingerprint);
	}
	for (int i = 0; i < 4; i++)
		text_free(t[i]);
}

static void put_texts(struct gguf_build *g, const char *key, const char *const *texts, size_t n)
{
	put_key(g, key, GGUF_ARRAY);
	put_le(&g->b, GGUF_STRING, 4);
	put_le(&g->b, n, 8);
	for (size_t i = 0; i < n; i++)
		put_string(&g->b, texts[i]);
}

TEST(gguf)
{
	static const char *const tokens[] = {"a", "b", "ab", "<s>", "</s>", "<|im_end|>", "<unk>"}, *const merges[] = {"a b"};
	static const uint32_t types[] = {1, 1, 1, 3, 3, 3, 2};
	struct gguf_build g;
	struct err err = {0};
	struct text *t;

	gguf_build_begin(&g);
	put_text(&g, "general.architecture", "llama");
	put_u32(&g, "llama.context_length", 2048);
	put_text(&g, "tokenizer.ggml.model", "gpt2");
	put_text(&g, "tokenizer.ggml.pre", "gpt-2");
	put_texts(&g, "tokenizer.ggml.tokens", tokens, 7);
	put_key(&g, "tokenizer.ggml.token_type", GGUF_ARRAY);
	put_le(&g.b, GGUF_I32, 4);
	put_le(&g.b, 7, 8);
	for (int i = 0; i < 7; i++)
		put_le(&g.b, types[i], 4);
	put_texts(&g, "tokenizer.ggml.merges", merges, 1);
	put_u32(&g, "tokenizer.ggml.bos_token_id", 3);
	put_u32(&g, "tokenizer.ggml.eos_token_id", 4);
	put_u32(&g, "tokenizer.ggml.unknown_token_id", 6);
	put_u32(&g, "tokenizer.ggml.padding_token_id", 99);
	put_f32(&g, "general.sampling.temp", 0.5f);
	put_text(&g, "tokenizer.chat_template", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token }}");
	gguf_build_end(&g);
	CHECK_INT(file_write_atomic("model.gguf", g.b.data, g.b.len, &err), 0);
	buf_release(&g.b);
	t = text_open("model.gguf", &err);
	if (!t) {
		CHECK_STR(err.msg, "");
		return;
	}
	CHECK_STR(t->bos_token, "<s>");
	CHECK(t->pad_token == NULL);
	CHECK_INT(t->bos_id, 3);
	CHECK_INT(t->eos_id, 4);
	CHECK_INT(t->n_stop_ids, 2);
	CHECK_INT(t->stop_ids[0], 4);
	CHECK_INT(t->stop_ids[1], 5);
	CHECK_INT(t->n_context, 2048);
	CHECK_NEAR(t->default_temperature, 0.5, 0);
	check_chat(t, "{\"messages\":[{\"content\":\"x\"}]}", 0, "<s>x</s><unk>");
	text_free(t);
}

static void check_refused(const char *path, const char *part)
{
	struct err err = {0};
	struct text *t = text_open(path, &err);

	CHECK(t == NULL);
	CHECK_INT(err.code, ERR_MODEL);
	if (!strstr(err.msg, part))
		CHECK_STR(err.msg, part);
	text_free(t);
}

TEST(refused)
{
	struct err err = {0};

	mkdir("empty", 0777);
	check_refused("empty", "empty: no tokenizer.json there");
	check_refused("nowhere", "nowhere");
	mkdir("broken", 0777);
	CHECK_INT(file_write_atomic("broken/tokenizer.json", tokenizer_json, strlen(tokenizer_json), &err), 0);
	CHECK_INT(file_write_atomic("broken/tokenizer_config.json", "[1]", 3, &err), 0);
	check_refused("broken", "broken/tokenizer_config.json: an object is expected, not array");
	CHECK_INT(file_write_atomic("broken/tokenizer_config.json", "{", 1, &err), 0);
	check_refused("broken", "broken/tokenizer_config.json: not valid JSON");
}

int main(void)
{
	RUN(directory);
	RUN(nothing_but_a_tokenizer);
	RUN(variables);
	RUN(messages_as_the_template_sees_them);
	RUN(named_templates);
	RUN(template_that_does_not_compile);
	RUN(fingerprint);
	RUN(gguf);
	RUN(refused);
	return TEST_RESULT();
}
