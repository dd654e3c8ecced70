/* tokenizer_gguf.c: a tokenizer from the vocabulary inside a GGUF file (keys tokenizer.ggml.*).
 *
 * The file holds tokens and merges, or scores, but of the pre-tokenizer only a name (tokenizer.ggml.pre, given by llama.cpp's
 * conversion). Behind each name stands what the tokenizer.json of those models says, so that ids are those of the Hugging Face
 * tokenizer; llama.cpp's own tables (src/llama-vocab.cpp) differ from that in leaving out NFC.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/file/gguf.h"
#include "engine/text/tokenizer_private.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K(number) CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define CASED(contractions, number)                                                                                            \
	"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" contractions                   \
	"|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" contractions "|" number       \
	"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define KIMI_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"

/* Lists of patterns, each of which isolates its matches in what the one before left. */
#define DIGITS "Digits" /* the pre-tokenizer of that name, not a pattern */
#define MAX_PATTERNS 6
typedef const char *const pattern_list[MAX_PATTERNS + 1];

static pattern_list gpt2 = {scan_gpt2_pattern};
static pattern_list digits_gpt2 = {DIGITS, scan_gpt2_pattern};
static pattern_list llama3 = {CL100K("\\p{N}{1,3}")};
static pattern_list qwen2 = {CL100K("\\p{N}")};
static pattern_list qwen35 = {CONTRACTIONS
                              "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES};
static pattern_list jais2 = {
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)"
                 "|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)"
                 "|\\s{1,2}(?!\\S)|\\s{1}"};
static pattern_list gpt4o = {CASED(CONTRACTIONS "?", "\\p{N}{1,3}")};
static pattern_list tekken = {CASED("", "\\p{N}")};
static pattern_list kimi_k2 = {"[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" CONTRACTIONS
                               "?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "+" KIMI_LOWER "*" CONTRACTIONS
                               "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES};
static pattern_list youtu = {
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    CASED(CONTRACTIONS "?", "\\p{N}")};
#define DEEPSEEK_WORDS                                                                                                         \
	("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "                       \
	 "?[\\p{P}\\p{S}]+[\r\n]*"                                                                                                 \
	 "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
static pattern_list deepseek_v3 = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_WORDS};
static pattern_list deepseek_llm = {
    "[\r\n]",
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-"
    "ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-"
    "ℓℕℙ-"
    "ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-"
    "𐓻"
    "𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
    "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
    "\\s+$",
    "[一-龥ࠀ-一가-퟿]+",
    "\\p{N}+"};
static pattern_list deepseek_coder = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"};
static pattern_list falcon = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", scan_gpt2_pattern, "[0-9][0-9][0-9]"};
static pattern_list fallback = {"[\\p{P}\\$\\+<=>\\^~\\|]+", scan_gpt2_pattern, "\\p{N}+", "[0-9][0-9][0-9]"};
static pattern_list bloom = {" ?[^(\\s|.,!?…。，、।۔،)]+"};
static pattern_list viking = {" ?[^(\\s|.,!?…。，、।۔،)]+", "\\p{N}"};
static pattern_list bailingmoe = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
                                  "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"};
static pattern_list seed_coder = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES};
static pattern_list exaone_moe = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}"
                                               "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"};

#define IGNORE_MERGES 1
#define ADD_BOS 2
#define NFC 4
static const struct {
	const char *name;
	pattern_list *patterns;
	unsigned flags;
} pre_tokenizers[] = {
    {"default", &fallback, 0},
    {"llama3", &llama3, IGNORE_MERGES | ADD_BOS},
    {"llama-v3", &llama3, IGNORE_MERGES | ADD_BOS},
    {"llama-bpe", &llama3, IGNORE_MERGES | ADD_BOS},
    {"falcon3", &llama3, IGNORE_MERGES | ADD_BOS},
    {"falcon-h1", &llama3, IGNORE_MERGES | ADD_BOS},
    {"pixtral", &llama3, IGNORE_MERGES | ADD_BOS},
    {"midm-2.0", &llama3, IGNORE_MERGES | ADD_BOS},
    {"lfm2", &llama3, IGNORE_MERGES | ADD_BOS},
    {"dbrx", &llama3, 0},
    {"smaug-bpe", &llama3, 0},
    {"chatglm-bpe", &llama3, 0},
    {"glm4", &llama3, IGNORE_MERGES},
    {"glm5", &llama3, IGNORE_MERGES},
    {"jais-2", &jais2, 0},
    {"deepseek-llm", &deepseek_llm, 0},
    {"deepseek-coder", &deepseek_coder, 0},
    {"deepseek-v3", &deepseek_v3, 0},
    {"hunyuan-dense", &deepseek_v3, 0},
    {"joyai-llm", &deepseek_v3, 0},
    {"youtu", &youtu, IGNORE_MERGES},
    {"falcon", &falcon, 0},
    {"mpt", &gpt2, NFC},
    {"olmo", &gpt2, NFC},
    {"gpt-2", &gpt2, 0},
    {"phi-2", &gpt2, 0},
    {"gigachat", &gpt2, 0},
    {"a.x-4.0", &gpt2, 0},
    {"mellum", &gpt2, 0},
    {"exaone4", &gpt2, 0},
    {"jais", &gpt2, 0},
    {"trillion", &gpt2, 0},
    {"granite-docling", &gpt2, 0},
    {"starcoder", &digits_gpt2, 0},
    {"refact", &digits_gpt2, 0},
    {"command-r", &digits_gpt2, NFC},
    {"smollm", &digits_gpt2, 0},
    {"codeshell", &digits_gpt2, 0},
    {"exaone", &digits_gpt2, 0},
    {"minerva-7b", &digits_gpt2, 0},
    {"mellum2", &digits_gpt2, 0},
    {"qwen2", &qwen2, NFC},
    {"deepseek-r1-qwen", &qwen2, NFC},
    {"kormo", &qwen2, NFC},
    {"megrez", &qwen2, NFC},
    {"stablelm2", &qwen2, NFC},
    {"hunyuan", &qwen2, 0},
    {"solar-open", &qwen2, 0},
    {"grok-2", &qwen2, 0},
    {"qwen35", &qwen35, NFC},
    {"gpt-4o", &gpt4o, 0},
    {"llama4", &gpt4o, 0},
    {"kanana2", &gpt4o, 0},
    {"minimax-m2", &gpt4o, 0},
    {"tekken", &tekken, IGNORE_MERGES | ADD_BOS},
    {"kimi-k2", &kimi_k2, 0},
    {"bloom", &bloom, 0},
    {"poro-chat", &bloom, 0},
    {"gpt3-finnish", &bloom, 0},
    {"viking", &viking, 0},
    {"bailingmoe", &bailingmoe, 0},
    {"bailingmoe2", &bailingmoe, 0},
    {"llada-moe", &bailingmoe, 0},
    {"seed-coder", &seed_coder, 0},
    {"exaone-moe", &exaone_moe, 0},
};

/* Values of tokenizer.ggml.token_type. */
enum token_type {
	TYPE_NORMAL = 1,
	TYPE_UNKNOWN = 2,
	TYPE_CONTROL = 3,
	TYPE_USER_DEFINED = 4,
	TYPE_UNUSED = 5,
	TYPE_BYTE = 6,
};

static int load_tokens(struct tokenizer *t, const struct gguf *g, struct err *err)
{
	enum gguf_type type;
	size_t n;

	if (!gguf_find_array(g, "tokenizer.ggml.tokens", &type, &n) || type != GGUF_STRING)
		return err_set(err, ERR_MODEL, "tokenizer.ggml.tokens is not an array of strings");
	if (n == 0 || n > MAX_IDS)
		return err_set(err, ERR_MODEL, "tokenizer.ggml.tokens has %zu tokens, limit is %d", n, MAX_IDS);
	vocab_reserve(&t->vocab, n);
	for (size_t i = 0; i < n; i++) {
		struct gguf_string s;

		if (!gguf_array_string(g, "tokenizer.ggml.tokens", i, &s) || !utf8_valid(s.s, s.n))
			return err_set(err, ERR_MODEL, "tokenizer.ggml.tokens: token %zu is not UTF-8", i);
		vocab_add(&t->vocab, (int32_t)i, s.s, s.n);
	}
	return 0;
}

static int load_merges(struct tokenizer *t, const struct gguf *g, struct err *err)
{
	static const char key[] = "tokenizer.ggml.merges";
	struct buf whole = {0};
	enum gguf_type type;
	int status = 0;
	size_t n;

	if (!gguf_find_array(g, key, &type, &n) || type != GGUF_STRING)
		return err_set(err, ERR_MODEL, "%s is not an array of strings", key);
	bpe_merges_reserve(&t->bpe, n);
	for (size_t i = 0; i < n && status == 0; i++) {
		struct gguf_string s = {"", 0};
		const char *space;
		size_t left;
		int32_t id[3] = {-1, -1, -1};

		gguf_array_string(g, key, i, &s);
		/* The space that separates is not the first character: some vocabularies have tokens with spaces. */
		space = s.n > 2 ? memchr(s.s + 1, ' ', s.n - 2) : NULL;
		if (space) {
			left = (size_t)(space - s.s);
			buf_reset(&whole);
			buf_add(&whole, s.s, left);
			buf_add(&whole, space + 1, s.n - left - 1);
			id[0] = vocab_find(&t->vocab, s.s, left);
			id[1] = vocab_find(&t->vocab, space + 1, s.n - left - 1);
			id[2] = vocab_find(&t->vocab, whole.data, whole.len);
		}
		if (id[0] < 0 || id[1] < 0 || id[2] < 0)
			status = err_set(err, ERR_MODEL, "%s: merge %zu \"%.*s\" is not two tokens that make a third", key, i,
			                 (int)(s.n > 60 ? 60 : s.n), s.s);
		else
			bpe_add_merge(&t->bpe, id[0], id[1], (uint32_t)i, id[2]);
	}
	buf_release(&whole);
	return status;
}

static int load_scores(struct tokenizer *t, const struct gguf *g, struct err *err)
{
	static const char key[] = "tokenizer.ggml.scores";
	float *scores;
	enum gguf_type type;
	int status = 0;
	size_t n;

	if (!gguf_find_array(g, key, &type, &n) || n != t->vocab.n_ids)
		return err_set(err, ERR_MODEL, "%s does not have a score for each token", key);
	scores = xreallocarray(NULL, n, sizeof(*scores));
	for (size_t i = 0; i < n && status == 0; i++) {
		double score = 0;

		if (!gguf_array_f64(g, key, i, &score))
			status = err_set(err, ERR_MODEL, "%s: score %zu is not a number", key, i);
		scores[i] = (float)score;
	}
	if (status == 0)
		status = bpe_build_from_scores(&t->bpe, scores, err);
	free(scores);
	return status;
}

/* Control and unknown tokens are special, user defined ones are found in the text like them. */
static int load_types(struct tokenizer *t, const struct gguf *g, struct err *err)
{
	static const char key[] = "tokenizer.ggml.token_type";
	enum gguf_type type;
	size_t n, cap = 0;

	if (!gguf_has(g, key))
		return 0;
	if (!gguf_find_array(g, key, &type, &n) || n != t->vocab.n_ids)
		return err_set(err, ERR_MODEL, "%s does not have a type for each token", key);
	for (size_t i = 0; i < n; i++) {
		int64_t kind = TYPE_NORMAL;
		size_t len;
		const char *s = vocab_text(&t->vocab, (int32_t)i, &len);
		struct added_token a = {.id = (int32_t)i};

		if (!gguf_array_i64(g, key, i, &kind))
			return err_set(err, ERR_MODEL, "%s: type %zu is not a number", key, i);
		if ((kind != TYPE_UNKNOWN && kind != TYPE_CONTROL && kind != TYPE_USER_DEFINED) || len == 0 ||
		    vocab_find(&t->vocab, s, len) != (int32_t)i)
			continue;
		a.special = kind != TYPE_USER_DEFINED;
		a.text = xmemdup(s, len);
		a.n = len;
		MEM_GROW(t->added, cap, t->n_added + 1);
		t->added[t->n_added++] = a;
		vocab_add(&t->added_vocab, a.id, s, len);
	}
	return 0;
}

static int load_gpt2(struct tokenizer *t, const struct gguf *g, int *add_bos, struct err *err)
{
	struct gguf_string pre = {"default", 7};
	size_t i;

	gguf_find_string(g, "tokenizer.ggml.pre", &pre);
	for (i = 0; i < sizeof(pre_tokenizers) / sizeof(pre_tokenizers[0]); i++)
		if (strlen(pre_tokenizers[i].name) == pre.n && memcmp(pre_tokenizers[i].name, pre.s, pre.n) == 0)
			break;
	if (i == sizeof(pre_tokenizers) / sizeof(pre_tokenizers[0]))
		return err_set(err, ERR_MODEL, "tokenizer.ggml.pre \"%.*s\" is not supported", (int)(pre.n > 60 ? 60 : pre.n), pre.s);
	t->bpe.raw = 1;
	t->bpe.ignore_merges = (pre_tokenizers[i].flags & IGNORE_MERGES) != 0;
	*add_bos = (pre_tokenizers[i].flags & ADD_BOS) != 0;
	if (pre_tokenizers[i].flags & NFC)
		t->normalizers[t->n_normalizers++] = (struct normalizer){.kind = NORMALIZER_FORM, .form = FORM_NFC};
	for (const char *const *p = *pre_tokenizers[i].patterns; *p; p++) {
		if (strcmp(*p, DIGITS) == 0)
			t->steps[t->n_steps++] =
			    (struct step){.kind = STEP_SPLIT_CHARS, .flags = UNICODE_NUMERIC, .behavior = SPLIT_ISOLATED};
		else if (add_regex_step(t, *p, strlen(*p), SPLIT_ISOLATED, 0, err) != 0)
			return -1;
	}
	t->decoders[t->n_decoders++] = (struct decoder){.kind = DECODER_BYTE_LEVEL};
	return load_merges(t, g, err);
}

static int load_sentencepiece(struct tokenizer *t, const struct gguf *g, struct err *err)
{
	static const char space[] = "\xE2\x96\x81"; /* U+2581 */
	int prefix = 1;
	uint64_t unk = 0;

	gguf_find_bool(g, "tokenizer.ggml.add_space_prefix", &prefix);
	gguf_find_u64(g, "tokenizer.ggml.unknown_token_id", &unk);
	t->bpe.unk_id = unk < t->vocab.n_ids ? (int32_t)unk : -1;
	if (prefix)
		t->normalizers[t->n_normalizers++] =
		    (struct normalizer){.kind = NORMALIZER_PREPEND, .text = xstrdup(space), .n_text = 3};
	t->normalizers[t->n_normalizers++] = (struct normalizer){
	    .kind = NORMALIZER_REPLACE, .text = xstrdup(" "), .n_text = 1, .content = xstrdup(space), .n_content = 3};
	t->decoders[t->n_decoders++] =
	    (struct decoder){.kind = DECODER_REPLACE, .text = xstrdup(space), .n_text = 3, .content = xstrdup(" "), .n_content = 1};
	t->decoders[t->n_decoders++] = (struct decoder){.kind = DECODER_BYTE_FALLBACK};
	t->decoders[t->n_decoders++] = (struct decoder){.kind = DECODER_FUSE};
	if (prefix)
		t->decoders[t->n_decoders++] = (struct decoder){.kind = DECODER_STRIP, .text = xstrdup(" "), .n_text = 1, .start = 1};
	return load_scores(t, g, err);
}

/* The token that is put in front or behind. */
static int load_edge(struct tokenizer *t, const struct gguf *g, const char *flag_key, const char *id_key, int add,
                     struct token_list *out, struct err *err)
{
	uint64_t id;

	gguf_find_bool(g, flag_key, &add);
	if (!add)
		return 0;
	if (!gguf_find_u64(g, id_key, &id) || id >= t->vocab.n_ids)
		return err_set(err, ERR_MODEL, "%s is missing or no token, but it is to be added to each text", id_key);
	token_list_add(out, (int32_t)id);
	return 0;
}

struct tokenizer *tokenizer_open_gguf(const struct gguf *g, struct err *err)
{
	struct tokenizer *t = xcalloc(1, sizeof(*t));
	struct gguf_string model = {"", 0};
	int add_bos = 0, known = 0;

	unicode_init();
	t->bpe.vocab = &t->vocab;
	t->bpe.unk_id = -1;
	t->has_decoder = 1;
	if (!gguf_find_string(g, "tokenizer.ggml.model", &model)) {
		err_set(err, ERR_MODEL, "file has no tokenizer (tokenizer.ggml.model)");
		goto fail;
	}
	if (load_tokens(t, g, err) != 0)
		goto fail;
	if (model.n == 4 && memcmp(model.s, "gpt2", 4) == 0) {
		known = 1;
		if (load_gpt2(t, g, &add_bos, err) != 0)
			goto fail;
	} else if (model.n == 5 && memcmp(model.s, "llama", 5) == 0) {
		known = add_bos = 1;
		if (load_sentencepiece(t, g, err) != 0)
			goto fail;
	}
	if (!known) {
		err_set(err, ERR_MODEL, "tokenizer.ggml.model \"%.*s\" is not supported", (int)(model.n > 60 ? 60 : model.n), model.s);
		goto fail;
	}
	if (load_types(t, g, err) != 0 ||
	    load_edge(t, g, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", add_bos, &t->prefix, err) != 0 ||
	    load_edge(t, g, "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", 0, &t->suffix, err) != 0)
		goto fail;
	bpe_finish(&t->bpe);
	if (tokenizer_finish(t, err) != 0)
		goto fail;
	return t;
fail:
	tokenizer_free(t);
	return NULL;
}
