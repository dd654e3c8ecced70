/* Fuzzer of the tokenizer. The first byte of the input chooses: a tokenizer.json, all of the rest; a regular expression and a
 * text for it, separated by a NUL; or a text for small tokenizers of both kinds. Whatever opens must encode, decode in pieces
 * that are whole characters, and give the same ids again (the word cache then answers).
 *
 *     make VARIANT=fuzz build/fuzz/fuzz/fuzz_tokenizer && build/fuzz/fuzz/fuzz_tokenizer -max_total_time=60
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/regex.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MODEL                                                                                                                  \
	"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"\\u0120\":3,\"\\u0120a\":4,\"<0xE2>\":5,\"<0x82>\":6,"  \
	"\"<0xAC>\":7,"                                                                                                            \
	"\"\\u2581\":8,\"\\u2581a\":9,\"<s>\":10,\"\\u00c3\":11,\"\\u00a9\":12,\"\\u00c3\\u00a9\":13,\"<unk>\":14},\"merges\":["   \
	"\"a a\","                                                                                                                 \
	"\"\\u0120 a\",\"\\u2581 a\",\"\\u00c3 "                                                                                   \
	"\\u00a9\"],\"byte_fallback\":true,\"unk_token\":\"<unk>\"},\"added_tokens\":[{\"content\":\"<s>\","                       \
	"\"special\":true,\"lstrip\":true},{\"content\":\"Ab\",\"normalized\":true,\"rstrip\":true},{\"content\":\"b\",\"single_"  \
	"word\":true}]"

static const char *const small[] = {
    "{" MODEL ",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},"
              "\"decoder\":{\"type\":"
    "\"ByteLevel\"}}",
    "{" MODEL ",\"normalizer\":{\"type\":\"NFKD\"},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"},"
              "\"decoder\":{\"type\":"
    "\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" "
    "\"},{\"type\":\"ByteFallback\"},{\"type\":"
    "\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}",
    "{" MODEL ",\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
              "\"Whitespace\"},{"
    "\"type\":\"Punctuation\",\"behavior\":\"MergedWithNext\"},{\"type\":\"Digits\"}]}}",
};

static void run(const struct tokenizer *t, const char *text, size_t n)
{
	struct encoder *e = encoder_new(t);
	struct token_list ids = {0}, again = {0};
	struct err err = {0};

	for (unsigned flags = 0; flags < 4; flags++) {
		struct detokenizer *d = detokenizer_new(t, flags & 1);
		struct buf whole = {0}, stream = {0};

		ids.n = again.n = 0;
		if (encoder_encode(e, text, n, flags, &ids, &err) == 0) {
			if (encoder_encode(e, text, n, flags, &again, &err) != 0 || again.n != ids.n ||
			    (ids.n > 0 && memcmp(ids.ids, again.ids, ids.n * sizeof(*ids.ids)) != 0))
				abort();
		}
		tokenizer_decode(t, ids.ids, ids.n, flags & 1, &whole);
		for (size_t i = 0; i <= ids.n; i++) {
			size_t was = stream.len;

			if (i < ids.n)
				detokenizer_add(d, ids.ids[i], &stream);
			else
				detokenizer_flush(d, &stream);
			if (!utf8_valid(buf_str(&stream) + was, stream.len - was))
				abort();
		}
		if (whole.len != stream.len || memcmp(buf_str(&whole), buf_str(&stream), whole.len) != 0)
			abort();
		for (size_t i = 0; i < ids.n; i++)
			tokenizer_token_bytes(t, ids.ids[i], &whole);
		detokenizer_free(d);
		buf_release(&whole);
		buf_release(&stream);
		err_clear(&err);
	}
	token_list_release(&ids);
	token_list_release(&again);
	encoder_free(e);
}

static void run_regex(const char *pattern, size_t n)
{
	const char *text = memchr(pattern, '\0', n);
	struct err err = {0};
	struct regex *r;

	if (!text || !(r = regex_new(pattern, (size_t)(text - pattern), &err)))
		return;
	n -= (size_t)(text - pattern) + 1;
	text++;
	if (utf8_valid(text, n) && n < 100) {
		struct regex_scratch *s = regex_scratch_new();
		size_t start, end;

		for (size_t from = 0; from <= n && regex_find(r, s, text, n, from, &start, &end, &err) == 1;
		     from = end + (start == end))
			while (end + (start == end) < n && ((unsigned char)text[end + (start == end)] & 0xC0) == 0x80)
				end++;
		regex_scratch_free(s);
	}
	regex_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct err err = {0};
	struct tokenizer *t;
	const char *rest = (const char *)data + 1;

	if (n == 0)
		return 0;
	n--;
	switch (data[0] % 4) {
	case 0:
		run_regex(rest, n);
		break;
	case 1:
		t = tokenizer_open_json_memory(rest, n, &err);
		if (t)
			run(t, "a  <s>Ab\xE2\x82\xAC\xFF 12 b\n", 18);
		tokenizer_free(t);
		break;
	default:
		for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
			static struct tokenizer *opened[sizeof(small) / sizeof(small[0])]; /* as long as the process */

			if (!opened[i])
				opened[i] = tokenizer_open_json_memory(small[i], strlen(small[i]), &err);
			if (!opened[i])
				abort();
			run(opened[i], rest, n);
		}
	}
	return 0;
}
