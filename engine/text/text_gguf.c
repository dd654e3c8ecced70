/* text_gguf.c: the text side of a GGUF file (keys tokenizer.*, and the model's context length). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file/gguf.h"
#include "engine/text/text_private.h"

static void hash_key(struct sha256 *h, const struct gguf *g, const char *key)
{
	enum gguf_type type = GGUF_STRING;
	size_t n = 0;
	struct gguf_string s;
	uint64_t u;
	int64_t i64;
	double f;
	int b;

	sha256_add(h, key, strlen(key) + 1);
	if (gguf_find_array(g, key, &type, &n)) {
		for (size_t i = 0; i < n; i++) {
			if (gguf_array_string(g, key, i, &s)) {
				sha256_add(h, &s.n, sizeof(s.n));
				sha256_add(h, s.s, s.n);
			} else if (gguf_array_i64(g, key, i, &i64)) {
				sha256_add(h, &i64, sizeof(i64));
			} else if (gguf_array_f64(g, key, i, &f)) {
				sha256_add(h, &f, sizeof(f));
			}
		}
	} else if (gguf_find_string(g, key, &s)) {
		sha256_add(h, s.s, s.n);
	} else if (gguf_find_u64(g, key, &u)) {
		sha256_add(h, &u, sizeof(u));
	} else if (gguf_find_bool(g, key, &b)) {
		sha256_add(h, &b, sizeof(b));
	} else if (gguf_find_f64(g, key, &f)) {
		sha256_add(h, &f, sizeof(f));
	}
}

static int32_t token_id(const struct text *t, const struct gguf *g, const char *key)
{
	uint64_t id;
	size_t n;

	return gguf_find_u64(g, key, &id) && id <= INT32_MAX && tokenizer_token(t->tokenizer, (int32_t)id, &n) ? (int32_t)id : -1;
}

static void name_token(struct text *t, const char *name, int32_t id)
{
	size_t n = 0;
	const char *token = id < 0 ? NULL : tokenizer_token(t->tokenizer, id, &n);

	if (token)
		text_name_token(t, name, token, n);
}

static void read_special_tokens(struct text *t, const struct gguf *g)
{
	struct gguf_string model;
	int32_t unk = token_id(t, g, "tokenizer.ggml.unknown_token_id");

	t->bos_id = token_id(t, g, "tokenizer.ggml.bos_token_id");
	t->eos_id = token_id(t, g, "tokenizer.ggml.eos_token_id");
	/* SentencePiece vocabularies that do not say: llama.cpp's values. */
	if (gguf_find_string(g, "tokenizer.ggml.model", &model) && model.n == 5 && memcmp(model.s, "llama", 5) == 0) {
		if (!gguf_has(g, "tokenizer.ggml.bos_token_id"))
			t->bos_id = 1;
		if (!gguf_has(g, "tokenizer.ggml.eos_token_id"))
			t->eos_id = 2;
		if (!gguf_has(g, "tokenizer.ggml.unknown_token_id"))
			unk = 0;
	}
	name_token(t, "bos_token", t->bos_id);
	name_token(t, "eos_token", t->eos_id);
	name_token(t, "unk_token", unk);
	name_token(t, "pad_token", token_id(t, g, "tokenizer.ggml.padding_token_id"));
	name_token(t, "sep_token", token_id(t, g, "tokenizer.ggml.seperator_token_id"));
	name_token(t, "mask_token", token_id(t, g, "tokenizer.ggml.mask_token_id"));
}

/* What ends a generation: llama.cpp's set (src/llama-vocab.cpp, special_eog_ids), which goes by the tokens' names. In gpt-oss
 * <|end|> ends a message, not the turn. */
static void read_stops(struct text *t, const struct gguf *g)
{
	static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
	                                   "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
	                                   "tokenizer.ggml.fim_sep_token_id"};
	static const char *const names[] = {"<|eot_id|>",    "<|im_end|>",    "<|end|>",    "<|return|>",      "<|call|>",
	                                    "<end_of_turn>", "<|endoftext|>", "</s>",       "<|eom_id|>",      "<EOT>",
	                                    "_<EOT>",        "[EOT]",         "[EOS]",      "<|end_of_text|>", "<end_of_utterance>",
	                                    "<|fim_pad|>",   "<fim-pad>",     "<fim_pad>",  "<PAD>",           "[PAD]",
	                                    "<|fim_repo|>",  "<|repo_name|>", "<fim-repo>", "<REPO>",          "<reponame>",
	                                    "<|file_sep|>"};
	int harmony = tokenizer_find(t->tokenizer, "<|return|>", 10) >= 0;

	text_add_stop(t, t->eos_id);
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		text_add_stop(t, token_id(t, g, keys[i]));
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!(harmony && strcmp(names[i], "<|end|>") == 0))
			text_add_stop_named(t, names[i]);
}

static void read_model_values(struct text *t, const struct gguf *g)
{
	struct gguf_string architecture;
	char key[200];
	uint64_t u;
	double d;

	if (gguf_find_string(g, "general.architecture", &architecture) && architecture.n < 100) {
		snprintf(key, sizeof(key), "%.*s.context_length", (int)architecture.n, architecture.s);
		if (gguf_find_u64(g, key, &u) && u <= INT32_MAX)
			t->n_context = (int32_t)u;
	}
	if (gguf_find_f64(g, "general.sampling.temp", &d))
		t->default_temperature = d;
	if (gguf_find_f64(g, "general.sampling.top_p", &d))
		t->default_top_p = d;
	if (gguf_find_u64(g, "general.sampling.top_k", &u) && u <= INT32_MAX)
		t->default_top_k = (int)u;
}

int text_read_gguf(struct text *t, const char *path, struct sha256 *h, struct err *err)
{
	struct gguf *g = gguf_open(path, 0, err);
	struct gguf_string s;

	if (!g)
		return -1;
	t->tokenizer = tokenizer_open_gguf(g, err);
	if (!t->tokenizer) {
		err_context(err, "%s", path);
		gguf_free(g);
		return -1;
	}
	for (size_t i = 0; i < gguf_n_keys(g); i++)
		if (strncmp(gguf_key_at(g, i), "tokenizer.", 10) == 0)
			hash_key(h, g, gguf_key_at(g, i));
	read_special_tokens(t, g);
	read_stops(t, g);
	read_model_values(t, g);
	if (gguf_find_string(g, "tokenizer.chat_template", &s))
		text_take_template(t, "default", s.s, s.n);
	if (gguf_find_string(g, "tokenizer.chat_template.tool_use", &s))
		text_take_template(t, "tool_use", s.s, s.n);
	gguf_free(g);
	return 0;
}
