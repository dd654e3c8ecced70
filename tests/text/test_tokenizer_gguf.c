/* Tests of tokenizers from GGUF vocabularies, on small files built here. What SentencePiece merging gives was worked out by
 * hand from its rule: the best score first, the leftmost of equals. Real vocabularies are compared by
 * scripts/diff-tokenizer.py. */
#include "base/mem.h"
#include "engine/file/gguf.h"
#include "engine/text/tokenizer.h"
#include "tests/check.h"

struct piece {
	const char *text;
	float score;
	int type;
};

static void add_u32(struct buf *b, uint32_t v)
{
	buf_add(b, &v, sizeof(v));
}

static void add_text(struct buf *b, const char *s)
{
	uint64_t n = strlen(s);

	buf_add(b, &n, sizeof(n));
	buf_add(b, s, n);
}

static void add_string_key(struct buf *b, const char *key, const char *value)
{
	add_text(b, key);
	add_u32(b, GGUF_STRING);
	add_text(b, value);
}

static void add_flag_key(struct buf *b, const char *key, int value)
{
	add_text(b, key);
	add_u32(b, GGUF_BOOL);
	buf_addc(b, (char)value);
}

static void add_array_key(struct buf *b, const char *key, enum gguf_type type, uint64_t n)
{
	add_text(b, key);
	add_u32(b, GGUF_ARRAY);
	add_u32(b, type);
	buf_add(b, &n, sizeof(n));
}

static void begin_file(struct buf *b, uint64_t n_keys)
{
	uint64_t n_tensors = 0;

	buf_adds(b, "GGUF");
	add_u32(b, 3);
	buf_add(b, &n_tensors, sizeof(n_tensors));
	buf_add(b, &n_keys, sizeof(n_keys));
}

static void add_pieces(struct buf *b, const struct piece *p, size_t n)
{
	add_array_key(b, "tokenizer.ggml.tokens", GGUF_STRING, n);
	for (size_t i = 0; i < n; i++)
		add_text(b, p[i].text);
	add_array_key(b, "tokenizer.ggml.scores", GGUF_F32, n);
	for (size_t i = 0; i < n; i++)
		buf_add(b, &p[i].score, sizeof(p[i].score));
	add_array_key(b, "tokenizer.ggml.token_type", GGUF_I32, n);
	for (size_t i = 0; i < n; i++)
		add_u32(b, (uint32_t)p[i].type);
}

static struct tokenizer *open_file(const struct buf *b, struct err *err)
{
	struct gguf *g = gguf_open_memory(b->data, b->len, 0, err);
	struct tokenizer *t = g ? tokenizer_open_gguf(g, err) : NULL;

	gguf_free(g);
	return t;
}

static void check_ids(const struct tokenizer *t, const char *text, unsigned flags, const char *expected, const char *decoded)
{
	struct encoder *e = encoder_new(t);
	struct token_list ids = {0};
	struct buf got = {0};
	struct err err = {0};

	CHECK_INT(encoder_encode(e, text, strlen(text), flags, &ids, &err), 0);
	for (size_t i = 0; i < ids.n; i++)
		buf_addf(&got, "%s%d", i ? " " : "", ids.ids[i]);
	CHECK_STR(buf_str(&got), expected);
	buf_reset(&got);
	tokenizer_decode(t, ids.ids, ids.n, 1, &got);
	CHECK_STR(buf_str(&got), decoded);
	token_list_release(&ids);
	buf_release(&got);
	encoder_free(e);
}

TEST(sentencepiece)
{
	/* 0 unknown, 1 and 2 control; q is in no token of its own, only in "qb"; there are byte tokens for E2 82 AC (the euro sign)
	 * only */
	static const struct piece pieces[] = {
	    {"<unk>", 0, 2},  {"<s>", 0, 3},    {"</s>", 0, 3},   {"\u2581", -9, 1}, {"a", -9, 1},        {"b", -9, 1},
	    {"ab", -2, 1},    {"ba", -1, 1},    {"aa", -3, 1},    {"aab", -3, 1},    {"\u2581a", -4, 1},  {"qb", -5, 1},
	    {"<0xE2>", 0, 6}, {"<0x82>", 0, 6}, {"<0xAC>", 0, 6}, {"\n\n", 0, 4},    {"\u2581ab", -2, 1}, {"<0x0A>", 0, 6},
	};
	struct buf b = {0};
	struct err err = {0};
	struct tokenizer *t;

	begin_file(&b, 6);
	add_string_key(&b, "tokenizer.ggml.model", "llama");
	add_pieces(&b, pieces, sizeof(pieces) / sizeof(pieces[0]));
	add_text(&b, "tokenizer.ggml.bos_token_id");
	add_u32(&b, GGUF_U32);
	add_u32(&b, 1);
	add_flag_key(&b, "tokenizer.ggml.add_space_prefix", 1);
	t = open_file(&b, &err);
	CHECK_STR(err.msg, "");
	CHECK(t != NULL);
	check_ids(t, "", ENCODE_ADD_SPECIAL, "1", "");
	check_ids(t, "ab", ENCODE_ADD_SPECIAL, "1 16", "ab"); /* ab is better than the space with a, and then both */
	check_ids(t, "bab", 0, "3 7 5", "bab");               /* ba beats ab */
	check_ids(t, "aaa", 0, "3 8 4", "aaa");               /* the left aa of two; then no token has the space and aa */
	check_ids(t, "qb", 0, "3 11", "qb");                  /* a part that is no token itself */
	check_ids(t, "\xE2\x82\xAC", 0, "3 12 13 14", "\xE2\x82\xAC");
	check_ids(t, "q", 0, "3 0", "");                          /* no byte token: unknown, which is special */
	check_ids(t, "a\n\nb\n", 0, "10 15 3 5 17", "a\n\n b\n"); /* user defined: found first; the space goes before each part */
	check_ids(t, "<s>a", 0, "1 10", "a");
	tokenizer_free(t);
	buf_release(&b);
}

TEST(refused)
{
	static const struct piece pieces[] = {{"a", 0, 1}, {"b", NAN, 1}};
	struct buf b = {0};
	struct err err = {0};

	begin_file(&b, 0);
	CHECK(open_file(&b, &err) == NULL);
	CHECK(strstr(err.msg, "tokenizer.ggml.model") != NULL);
	err_clear(&err);
	buf_reset(&b);
	begin_file(&b, 4);
	add_string_key(&b, "tokenizer.ggml.model", "llama");
	add_pieces(&b, pieces, 2);
	CHECK(open_file(&b, &err) == NULL);
	CHECK(strstr(err.msg, "token 1: score") != NULL);
	err_clear(&err);
	buf_reset(&b);
	begin_file(&b, 4);
	add_string_key(&b, "tokenizer.ggml.model", "t5");
	add_pieces(&b, pieces, 2);
	CHECK(open_file(&b, &err) == NULL);
	CHECK(strstr(err.msg, "\"t5\"") != NULL);
	err_clear(&err);
	buf_reset(&b);
	begin_file(&b, 5);
	add_string_key(&b, "tokenizer.ggml.model", "gpt2");
	add_string_key(&b, "tokenizer.ggml.pre", "unheard-of");
	add_pieces(&b, pieces, 2);
	CHECK(open_file(&b, &err) == NULL);
	CHECK(strstr(err.msg, "\"unheard-of\"") != NULL);
	buf_release(&b);
}

/* Every name of tokenizer.ggml.pre must have patterns that compile, and cut a text of all kinds without an error. */
TEST(all_pre_tokenizers)
{
	static const char *const names[] = {
	    "default",   "llama3",       "llama-v3",       "llama-bpe",   "falcon3",       "falcon-h1",  "pixtral",
	    "midm-2.0",  "lfm2",         "dbrx",           "smaug-bpe",   "chatglm-bpe",   "glm4",       "glm5",
	    "jais-2",    "deepseek-llm", "deepseek-coder", "deepseek-v3", "hunyuan-dense", "joyai-llm",  "youtu",
	    "falcon",    "mpt",          "olmo",           "gpt-2",       "phi-2",         "starcoder",  "refact",
	    "command-r", "smollm",       "codeshell",      "exaone",      "minerva-7b",    "qwen2",      "deepseek-r1-qwen",
	    "stablelm2", "hunyuan",      "grok-2",         "qwen35",      "gpt-4o",        "llama4",     "tekken",
	    "kimi-k2",   "bloom",        "poro-chat",      "viking",      "bailingmoe",    "seed-coder", "exaone-moe",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct buf b = {0};
		struct err err = {0};
		struct tokenizer *t;

		begin_file(&b, 5);
		add_string_key(&b, "tokenizer.ggml.model", "gpt2");
		add_string_key(&b, "tokenizer.ggml.pre", names[i]);
		add_array_key(&b, "tokenizer.ggml.tokens", GGUF_STRING, 3);
		add_text(&b, "a");
		add_text(&b, "\u0120");
		add_text(&b, "\u0120a");
		add_array_key(&b, "tokenizer.ggml.merges", GGUF_STRING, 1);
		add_text(&b, "\u0120 a");
		add_flag_key(&b, "tokenizer.ggml.add_bos_token", 0);
		t = open_file(&b, &err);
		if (!t) {
			printf("%s: %s\n", names[i], err.msg);
			CHECK(0);
		} else {
			/* only spaces and a's are in this vocabulary */
			check_ids(t, "x a 12345 it's \u6f22\u5b57 A\u0301.\n\n  a", 0, "2 1 1 1 1 1 2", " a      a");
		}
		tokenizer_free(t);
		buf_release(&b);
	}
}

int main(void)
{
	RUN(sentencepiece);
	RUN(refused);
	RUN(all_pre_tokenizers);
	return TEST_RESULT();
}
