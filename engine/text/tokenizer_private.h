/* tokenizer_private.h: the parts behind tokenizer.h.
 *
 * Text runs through them in this order, as in the tokenizers package:
 *
 *   bytes -> UTF-8 -> added tokens split out (added.c, set 0) -> normaliser (tokenizer_normalize.c) -> added tokens that match
 * after normalising (set 1) -> pre-tokenizer: a list of steps, each of which cuts pieces into pieces (pretokenize.c) -> words
 *   -> BPE (bpe.c) -> ids, between the post-processor's prefix and suffix.
 *
 * A byte-level tokenizer writes each byte as a character of its own alphabet (0x20 as U+0120). Words are not rewritten here:
 * the vocabulary is translated back to bytes when it is loaded (bpe->raw), and words are looked up as they are.
 */
#ifndef TOKENMILL_ENGINE_TOKENIZER_PRIVATE_H
#define TOKENMILL_ENGINE_TOKENIZER_PRIVATE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/errors.h"
#include "engine/text/regex.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"

#define MAX_IDS (1 << 22)          /* of a vocabulary; the largest in use have 2^18 */
#define MAX_STEPS 24               /* of a normaliser, a pre-tokenizer or a decoder */
#define MAX_TEXT ((size_t)1 << 30) /* bytes in one call */

/* --- vocab.c: ids to texts and back. Texts of any bytes, at most 2^32 bytes in all. --- */

struct vocab_entry {
	uint32_t at, n; /* n UINT32_MAX: the id has no text */
};
struct vocab_slot {
	uint32_t hash;
	int32_t id; /* -1 free */
};
struct vocab {
	struct buf text;
	struct vocab_entry *entries; /* [n_ids] */
	size_t n_ids, cap;
	struct vocab_slot *slots; /* open addressing, at most half full */
	size_t n_slots;
	size_t n_texts;
};
void vocab_reserve(struct vocab *v, size_t n_texts);                  /* before the first add: how many will come */
void vocab_add(struct vocab *v, int32_t id, const char *s, size_t n); /* a text that is there gets the new id */
void vocab_release(struct vocab *v);
int32_t vocab_find(const struct vocab *v, const char *s, size_t n);
const char *vocab_text(const struct vocab *v, int32_t id, size_t *n); /* NULL for none */

uint64_t hash_text(const void *p, size_t n);

/* --- bpe.c, bpe_build.c --- */

struct bpe_merge {
	uint64_t pair; /* left << 32 | right; UINT64_MAX free */
	uint32_t rank; /* lower first */
	int32_t id;    /* of the result */
};

struct bpe {
	const struct vocab *vocab; /* of the model */
	int raw;
	struct vocab raw_words;   /* raw and ignore_merges: the tokens as bytes */
	struct bpe_merge *merges; /* open addressing */
	size_t n_merge_slots, n_merges;
	int ignore_merges, byte_fallback, fuse_unk;
	int32_t unk_id;            /* -1: characters that are unknown vanish */
	int unk_is_missing;        /* unk_token is named but not in the vocabulary: an error once it is needed */
	int32_t ascii_ids[256];    /* raw: of each byte; else of each ASCII character; -1 none */
	int32_t fallback_ids[256]; /* of <0x00> to <0xFF>; -1 none */
	uint64_t *adjacent;        /* bitmap over hash_pair: characters that stand side by side in some merge's result */
	int can_cut;               /* a word may be cut where two characters never stand side by side */
	/* Merging by score, as SentencePiece does it, is on texts: a character that is no token can still be part of one. Such
	 * characters are symbols too, from n_tokens on, and above them the 256 bytes of characters that are in no token. */
	int by_score;
	int32_t n_tokens, first_byte;
	struct vocab extra; /* id: symbol - n_tokens */
};
#define BPE_ADJACENT_BITS 20
static inline size_t hash_pair(uint32_t a, uint32_t b)
{
	return (size_t)(((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15u >> (64 - BPE_ADJACENT_BITS));
}
void bpe_merges_reserve(struct bpe *b, size_t n);
void bpe_add_merge(struct bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id); /* the last of equal pairs wins */
static inline const struct bpe_merge *bpe_find_merge(const struct bpe *b, uint32_t left, uint32_t right)
{
	uint64_t pair = (uint64_t)left << 32 | right, h = pair * 0x9E3779B97F4A7C15u;
	size_t mask = b->n_merge_slots - 1, i = (size_t)(h >> 32 ^ h >> 8) & mask;

	for (;; i = (i + 1) & mask) {
		if (b->merges[i].pair == pair)
			return &b->merges[i];
		if (b->merges[i].pair == UINT64_MAX)
			return NULL;
	}
}
/* With vocab and raw set: the merges from scores, every way to cut a token into two symbols, best score first. scores: [n_ids]
 */
int bpe_build_from_scores(struct bpe *b, const float *scores, struct err *err);
/* When vocabulary, merges and switches are there: the tables that follow from them. */
void bpe_finish(struct bpe *b);
void bpe_release(struct bpe *b);

struct bpe_symbol {
	int32_t id;
	int32_t prev, next; /* -1 none */
	uint32_t rank;      /* of the merge with the next one; UINT32_MAX none */
	int32_t merged;     /* its result */
};
struct word_cache;
struct bpe_scratch {
	struct bpe_symbol *symbols;
	size_t cap_symbols;
	uint64_t *heap; /* rank << 32 | position */
	size_t cap_heap;
	struct word_cache *cache;
};
void bpe_scratch_init(struct bpe_scratch *s);
void bpe_scratch_release(struct bpe_scratch *s);
/* One word of n > 0 bytes. -1 and *err (ERR_ROW) when it has an unknown character and the model has no token for it. */
int bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t n, struct token_list *out, struct err *err);

/* word_cache.c: what words became; of fixed size. */
struct word_cache *word_cache_new(void);
void word_cache_free(struct word_cache *c);
/* Append the word's ids: 1, or 0 when it is not there. */
int word_cache_find(const struct word_cache *c, const char *word, size_t n, struct token_list *out);
/* May decline, may replace another word. */
void word_cache_add(struct word_cache *c, const char *word, size_t n, const int32_t *ids, size_t n_ids);

/* --- byte_alphabet.c: GPT-2's printable stand-ins for bytes --- */
uint32_t byte_alphabet_char(unsigned char byte);
int byte_alphabet_byte(uint32_t c); /* -1: not of the alphabet */
/* Append the bytes that a token of the alphabet stands for: 1, or 0 and out unchanged if a character is not of it. */
int byte_alphabet_decode(const char *s, size_t n, struct buf *out);
void byte_alphabet_encode(const char *s, size_t n, struct buf *out);

/* --- added.c: tokens that are found in the text before anything else --- */

struct added_token {
	char *text; /* as matched: normalised if `normalized` */
	size_t n;
	int32_t id;
	unsigned special : 1, single_word : 1, lstrip : 1, rstrip : 1, normalized : 1;
};
struct added_set;                                                                            /* leftmost-longest matcher */
struct added_set *added_set_new(const struct added_token *tokens, size_t n, int normalized); /* NULL: no such token */
void added_set_free(struct added_set *s);
struct added_match {
	size_t start, end; /* of the token with the white space that it takes along */
	int32_t id;
};
/* The next token at or after *from (where the matcher goes on); `done`: end of what earlier matches took. 1 or 0. */
int added_set_next(const struct added_set *s, const char *text, size_t n, int no_special, size_t *from, size_t done,
                   struct added_match *m);

/* --- pretokenize.c, pretokenize_scan.c --- */

enum step_kind {
	STEP_SPLIT,        /* by regex, scan or string */
	STEP_SPLIT_CHARS,  /* every character with one of the flags is a delimiter */
	STEP_WORDS,        /* \w+|[^\w\s]+ of the regex crate */
	STEP_PREFIX_SPACE, /* ByteLevel's add_prefix_space */
	STEP_METASPACE,    /* spaces become `text`, put in front by prepend */
	STEP_BYTES,        /* bytes become characters of the byte alphabet; left out at the end of the list (bpe->raw) */
};
enum split_behavior {
	SPLIT_ISOLATED,
	SPLIT_REMOVED,
	SPLIT_MERGED_WITH_PREVIOUS,
	SPLIT_MERGED_WITH_NEXT,
	SPLIT_CONTIGUOUS,
};
enum prepend_scheme {
	PREPEND_NEVER,
	PREPEND_FIRST,
	PREPEND_ALWAYS,
};
/* Length of the match that begins at p, 0 for none. */
typedef size_t (*scan_fn)(const unsigned char *p, const unsigned char *end);
struct step {
	enum step_kind kind;
	enum split_behavior behavior;
	int invert;
	scan_fn scan; /* NULL: by regex, or by text */
	struct regex *regex;
	char *text;
	size_t n_text;
	unsigned flags;
	enum prepend_scheme prepend;
};
scan_fn scan_find(const char *pattern, size_t n); /* the hand-written equivalent of a regex, NULL if there is none */
extern const char scan_gpt2_pattern[];
void step_release(struct step *s);

/* --- tokenizer_normalize.c --- */

enum normalizer_kind {
	NORMALIZER_FORM,
	NORMALIZER_LOWER,
	NORMALIZER_PREPEND,
	NORMALIZER_REPLACE,
	NORMALIZER_STRIP,
	NORMALIZER_BYTES,
};
struct normalizer {
	enum normalizer_kind kind;
	enum unicode_form form;
	struct regex *regex; /* replace: NULL for a plain text */
	char *text;          /* what is replaced, or prepended */
	size_t n_text;
	char *content;
	size_t n_content;
	int strip_left, strip_right;
};
void normalizer_release(struct normalizer *n);
/* s itself, or the normalised text in one of the two buffers. *stripped: something at the start was taken away. NULL and *err.
 */
const char *normalize_text(const struct normalizer *list, size_t n_list, struct regex_scratch *scratch, struct buf work[2],
                           const char *s, size_t *n, int *stripped, struct err *err);
/* Append s with every match of the pattern replaced. */
int replace_text(const struct regex *regex, const char *text, size_t n_text, const char *content, size_t n_content,
                 struct regex_scratch *scratch, const char *s, size_t n, struct buf *out, struct err *err);

/* --- detokenizer.c --- */

enum decoder_kind {
	DECODER_BYTE_LEVEL,
	DECODER_BYTE_FALLBACK,
	DECODER_FUSE,
	DECODER_REPLACE,
	DECODER_STRIP,
	DECODER_METASPACE,
};
struct decoder {
	enum decoder_kind kind;
	struct regex *regex; /* as in struct normalizer */
	char *text;          /* replace: pattern; strip and metaspace: the character */
	size_t n_text;
	char *content;
	size_t n_content;
	size_t start, stop; /* strip */
	int prepend;        /* metaspace: the first token's go */
};
void decoder_release(struct decoder *d);

/* --- tokenizer.c --- */

struct tokenizer {
	struct vocab vocab;        /* the model's tokens, in their own alphabet */
	struct vocab added_vocab;  /* text of the added tokens; these win */
	int32_t n_ids;             /* highest id + 1 */
	unsigned char *is_special; /* [n_ids] */
	struct vocab decoded;      /* what added tokens decode to that match in a normalised form */
	struct bpe bpe;
	struct added_token *added;
	size_t n_added;
	struct added_set *sets[2]; /* before and after normalising */
	struct normalizer normalizers[MAX_STEPS];
	size_t n_normalizers;
	struct step steps[MAX_STEPS];
	size_t n_steps;
	struct decoder decoders[MAX_STEPS];
	size_t n_decoders;
	int has_decoder;                  /* 0: tokens are joined by spaces */
	struct token_list prefix, suffix; /* of the post-processor */
	char description[160];
};
/* After everything is loaded: sets of added tokens, description. */
int tokenizer_finish(struct tokenizer *t, struct err *err);

struct level { /* scratch of one step */
	struct span {
		size_t start, end;
		int match;
	} * spans;
	size_t cap;
	struct buf text;
};
struct encoder {
	const struct tokenizer *t;
	struct regex_scratch *regex;
	struct buf text, normal[2];
	struct level levels[MAX_STEPS];
	struct bpe_scratch bpe;
};
/* Cut one piece by the steps from `step` on and encode the words. at_start: the piece begins where the text begins. */
int pretokenize(struct encoder *e, size_t step, const char *s, size_t n, int at_start, struct token_list *out, struct err *err);

/* --- tokenizer_json_parts.c --- */
struct yyjson_val;
int load_normalizer(struct tokenizer *t, struct yyjson_val *v, struct err *err);
int load_pre_tokenizer(struct tokenizer *t, struct yyjson_val *v, struct err *err);
int load_decoder(struct tokenizer *t, struct yyjson_val *v, struct err *err);
int load_post_processor(struct tokenizer *t, struct yyjson_val *v, struct err *err);
int add_regex_step(struct tokenizer *t, const char *pattern, size_t n, enum split_behavior behavior, int invert,
                   struct err *err);

#endif
