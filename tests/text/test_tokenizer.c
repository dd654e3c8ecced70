/* Tests of the tokenizer: golden cases of every part (tokenizer_cases.jsonl, made by scripts/make-tokenizer-cases.py with the
 * tokenizers package), long words, damaged files, the streaming detokenizer. */
#include "engine/text/tokenizer.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/text/unicode.h"
#include "tests/check.h"

static const char *source_path(const char *name)
{
	static char path[4096];
	const char *root = getenv("TOKENMILL_SOURCE");

	snprintf(path, sizeof(path), "%s/%s", root ? root : ".", name);
	return path;
}

static int hex_to_bytes(const char *hex, struct buf *out)
{
	unsigned b;

	for (; hex[0] && hex[1]; hex += 2) {
		if (sscanf(hex, "%2x", &b) != 1)
			return -1;
		buf_addc(out, (char)b);
	}
	return 0;
}

static int same_ids(yyjson_val *expected, const struct token_list *got)
{
	size_t i, max;
	yyjson_val *v;

	if (yyjson_arr_size(expected) != got->n)
		return 0;
	yyjson_arr_foreach (expected, i, max, v) {
		if (yyjson_get_sint(v) != got->ids[i])
			return 0;
	}
	return 1;
}

static int decode_equals(const struct tokenizer *t, const struct token_list *ids, int skip_special, yyjson_val *expected)
{
	struct buf whole = {0}, stream = {0};
	struct detokenizer *d = detokenizer_new(t, skip_special);
	int same = 1;

	tokenizer_decode(t, ids->ids, ids->n, skip_special, &whole);
	for (size_t i = 0; i <= ids->n; i++) {
		size_t was = stream.len;

		if (i < ids->n)
			detokenizer_add(d, ids->ids[i], &stream);
		else
			detokenizer_flush(d, &stream);
		if (stream.len > was)
			same = same && utf8_valid(stream.data + was, stream.len - was);
	}
	same = same && whole.len == yyjson_get_len(expected) && memcmp(buf_str(&whole), yyjson_get_str(expected), whole.len) == 0 &&
	       stream.len == whole.len && memcmp(buf_str(&stream), buf_str(&whole), whole.len) == 0;
	if (!same)
		printf("decoded \"%s\", streamed \"%s\"\n", buf_str(&whole), buf_str(&stream));
	detokenizer_free(d);
	buf_release(&whole);
	buf_release(&stream);
	return same;
}

static void check_text(const struct tokenizer *t, struct encoder *e, yyjson_val *v, int line)
{
	static const unsigned flags[] = {ENCODE_PLAIN, ENCODE_ADD_SPECIAL, ENCODE_NO_PARSE};
	yyjson_val *text = yyjson_arr_get(v, 0);
	struct buf bytes = {0};
	struct err err = {0};

	if (yyjson_is_str(text))
		buf_add(&bytes, yyjson_get_str(text), yyjson_get_len(text));
	else
		CHECK_INT(hex_to_bytes(yyjson_get_str(yyjson_obj_get(text, "hex")), &bytes), 0);
	for (size_t k = 0; k < 3; k++) {
		struct token_list ids = {0};

		if (encoder_encode(e, buf_str(&bytes), bytes.len, flags[k], &ids, &err) != 0) {
			printf("line %d: %s\n", line, err.msg);
			CHECK(0);
		} else if (!same_ids(yyjson_arr_get(v, k + 1), &ids)) {
			printf("line %d: \"%s\" flags %u:", line, buf_str(&bytes), flags[k]);
			for (size_t i = 0; i < ids.n; i++)
				printf(" %d", ids.ids[i]);
			printf("\n");
			CHECK(0);
		}
		if (k == 0 && (!decode_equals(t, &ids, 0, yyjson_arr_get(v, 4)) || !decode_equals(t, &ids, 1, yyjson_arr_get(v, 5)))) {
			printf("line %d: \"%s\"\n", line, buf_str(&bytes));
			CHECK(0);
		}
		token_list_release(&ids);
	}
	buf_release(&bytes);
}

/* A case names its model; put the model itself there. */
static char *complete_json(yyjson_val *tokenizer, yyjson_val *model, size_t *n)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_val_mut_copy(doc, tokenizer);
	char *json;

	yyjson_mut_doc_set_root(doc, root);
	yyjson_mut_obj_remove_key(root, "model");
	yyjson_mut_obj_add_val(doc, root, "model", yyjson_val_mut_copy(doc, model));
	json = yyjson_mut_write(doc, 0, n);
	yyjson_mut_doc_free(doc);
	return json;
}

TEST(golden_cases)
{
	struct err err = {0};
	struct buf all = {0};
	yyjson_doc *models[32];
	int n_models = 0, n_texts = 0, line = 0;

	CHECK_INT(file_read(source_path("tests/text/tokenizer_cases.jsonl"), 16 << 20, &all, ERR_OTHER, &err), 0);
	for (char *p = all.data, *end; p && (end = strchr(p, '\n')) != NULL; p = end + 1) {
		yyjson_doc *doc = json_parse(p, (size_t)(end - p), ERR_OTHER, &err);
		yyjson_val *root = yyjson_doc_get_root(doc), *tokenizer = yyjson_obj_get(root, "tokenizer"), *text;
		struct tokenizer *t = NULL;
		size_t n, i, max;

		line++;
		if (!tokenizer) {
			models[n_models++] = doc;
			continue;
		}
		for (int m = 0; m < n_models; m++) {
			yyjson_val *model = yyjson_doc_get_root(models[m]);
			char *json;

			if (!yyjson_equals_str(yyjson_obj_get(tokenizer, "model"), yyjson_get_str(yyjson_obj_get(model, "model"))))
				continue;
			json = complete_json(tokenizer, yyjson_obj_get(model, "json"), &n);
			t = tokenizer_open_json_memory(json, n, &err);
			free(json);
		}
		if (!t) {
			printf("line %d: %s\n", line, err.msg);
			CHECK(0);
		} else {
			struct encoder *e = encoder_new(t);

			yyjson_arr_foreach (yyjson_obj_get(root, "texts"), i, max, text) {
				check_text(t, e, text, line);
				n_texts++;
			}
			encoder_free(e);
			tokenizer_free(t);
		}
		yyjson_doc_free(doc);
	}
	CHECK(n_texts > 1000);
	for (int m = 0; m < n_models; m++)
		yyjson_doc_free(models[m]);
	buf_release(&all);
}

#define SMALL_MODEL                                                                                                            \
	"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"aaaa\":3,\"ab\":4,\"\\u0120\":5,\"<s>\":6},"            \
	"\"merges\":[\"a a\",\"aa aa\",[\"a\",\"b\"]]}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"

TEST(long_words)
{
	static const char json[] = "{" SMALL_MODEL ",\"pre_tokenizer\":" BYTE_LEVEL "}";
	struct err err = {0};
	struct tokenizer *t = tokenizer_open_json_memory(json, strlen(json), &err);
	struct encoder *e;
	struct token_list ids = {0};
	struct buf text = {0};
	double start = clock_seconds();

	CHECK(t != NULL);
	e = encoder_new(t);
	for (int i = 0; i < 1000003; i++)
		buf_addc(&text, 'a');
	CHECK_INT(encoder_encode(e, text.data, text.len, 0, &ids, &err), 0);
	CHECK_INT(ids.n, 250002); /* 250000 of four, aa, a */
	CHECK_INT(ids.ids[0], 3);
	CHECK_INT(ids.ids[250000], 2);
	CHECK_INT(ids.ids[250001], 0);
	ids.n = 0;
	for (size_t i = 0; i < text.len; i++)
		text.data[i] = ' ';
	CHECK_INT(encoder_encode(e, text.data, text.len, 0, &ids, &err), 0);
	CHECK_INT(ids.n, 1000003);
	CHECK(clock_seconds() - start < 30);
	token_list_release(&ids);
	buf_release(&text);
	encoder_free(e);
	tokenizer_free(t);
}

TEST(lookups)
{
	static const char json[] = "{" SMALL_MODEL ",\"added_tokens\":[{\"content\":\"<s>\",\"special\":true},{\"content\":\"new\","
	                                           "\"special\":false}],\"decoder\":" BYTE_LEVEL "}";
	struct err err = {0};
	struct tokenizer *t = tokenizer_open_json_memory(json, strlen(json), &err);
	struct buf b = {0};
	size_t n;

	CHECK(t != NULL);
	CHECK_INT(tokenizer_n_vocab(t), 8);
	CHECK_INT(tokenizer_find(t, "new", 3), 7);
	CHECK_INT(tokenizer_find(t, "aaaa", 4), 3);
	CHECK_INT(tokenizer_find(t, "nope", 4), -1);
	CHECK_INT(tokenizer_is_special(t, 6), 1);
	CHECK_INT(tokenizer_is_special(t, 7), 0);
	CHECK_INT(tokenizer_is_special(t, 99), 0);
	CHECK(tokenizer_token(t, 8, &n) == NULL);
	CHECK(tokenizer_token(t, -1, &n) == NULL);
	tokenizer_token_bytes(t, 5, &b);
	CHECK_STR(buf_str(&b), " ");
	tokenizer_token_bytes(t, 6, &b);
	CHECK_STR(buf_str(&b), " <s>");
	buf_reset(&b);
	tokenizer_decode(t, (const int32_t[]){6, -5, 3, 1 << 30, 5}, 5, 1, &b);
	CHECK_STR(buf_str(&b), "aaaa ");
	buf_release(&b);
	tokenizer_free(t);
}

TEST(refused_files)
{
	static const struct {
		const char *json, *message;
	} cases[] = {
	    {"", "JSON"},
	    {"[]", "object"},
	    {"{}", "\"model\" is missing"},
	    {"{\"model\":{\"type\":\"Unigram\"}}", "Unigram"},
	    {"{\"model\":{\"type\":\"BPE\"}}", "vocab"},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "\"a\""},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}}", "\"a\""},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "token \"b\""},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "token \"aa\""},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "merge 0"},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\":1},\"merges\":[[\"a\",\"\"]]}}", "empty"},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"dropout\":0.1}}", "dropout"},
	    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix"},
	    {"{" SMALL_MODEL ",\"normalizer\":{\"type\":\"Precompiled\"}}", "normalizer: normalizer type \"Precompiled\""},
	    {"{" SMALL_MODEL ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "UnicodeScripts"},
	    {"{" SMALL_MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}}",
	     "\"(\""},
	    {"{" SMALL_MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Gone\"}}",
	     "Gone"},
	    {"{" SMALL_MODEL ",\"decoder\":{\"type\":\"CTC\"}}", "CTC"},
	    {"{" SMALL_MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", "BertProcessing"},
	    {"{" SMALL_MODEL ",\"added_tokens\":[{\"content\":7}]}", "added token 0"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = {0};
		struct tokenizer *t = tokenizer_open_json_memory(cases[i].json, strlen(cases[i].json), &err);

		if (t || err.code != ERR_MODEL || !strstr(err.msg, cases[i].message)) {
			printf("%s: \"%s\" is without %s\n", cases[i].json, err.msg, cases[i].message);
			CHECK(0);
		}
		tokenizer_free(t);
	}
}

/* An unknown character without an unknown token vanishes; with one that is not in the vocabulary it is an error of the row. */
TEST(missing_unknown_token)
{
	static const char json[] = "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"<unk>\"}}";
	struct err err = {0};
	struct tokenizer *t = tokenizer_open_json_memory(json, strlen(json), &err);
	struct encoder *e = encoder_new(t);
	struct token_list ids = {0};

	CHECK_INT(encoder_encode(e, "aa", 2, 0, &ids, &err), 0);
	CHECK_INT(ids.n, 2);
	CHECK_INT(encoder_encode(e, "axa", 3, 0, &ids, &err), -1);
	CHECK_INT(err.code, ERR_ROW);
	CHECK_INT(ids.n, 2);
	token_list_release(&ids);
	encoder_free(e);
	tokenizer_free(t);
}

TEST(normal_forms_of_hostile_marks)
{
	struct buf in = {0}, out = {0};
	double start = clock_seconds();

	buf_addc(&in, 'a');
	for (int i = 0; i < 200000; i++)
		buf_adds(&in, i % 2 ? "\u0316" : "\u0301");
	unicode_init();
	unicode_normalize(FORM_NFC, in.data, in.len, &out);
	CHECK_INT(out.len, in.len - 1); /* the first acute goes into the a, which takes a byte more */
	CHECK(memcmp(out.data, "\u00e1\u0316\u0316", 6) == 0);
	CHECK(clock_seconds() - start < 10);
	buf_release(&in);
	buf_release(&out);
}

int main(void)
{
	RUN(golden_cases);
	RUN(long_words);
	RUN(lookups);
	RUN(refused_files);
	RUN(missing_unknown_token);
	RUN(normal_forms_of_hostile_marks);
	return TEST_RESULT();
}
