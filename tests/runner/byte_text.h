/* byte_text.h: the smallest text side of a model: a byte-level tokenizer in which every byte is a token with its own number,
 * one special token <|end|> (256), and a chat template in one line. So ids and text can be worked out by hand. */
#ifndef TOKENMILL_TESTS_BYTE_TEXT_H
#define TOKENMILL_TESTS_BYTE_TEXT_H

#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/text/text.h"

enum { BYTE_TEXT_END = 256, BYTE_TEXT_VOCAB = 257 };

/* GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up, in order. */
static struct tokenizer *byte_text_tokenizer(struct err *err)
{
	struct buf b = {0};
	struct tokenizer *t;
	unsigned next = 256;

	buf_adds(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":256,\"content\":\"<|end|>"
	             "\",\"single_word\":false,"
	             "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,\"pre_"
	             "tokenizer\":{\"type\":\"ByteLevel\","
	             "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{"
	             "\"type\":\"ByteLevel\","
	             "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":"
	             "null,\"unk_token\":null,"
	             "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
	             "\"vocab\":{");
	for (unsigned c = 0; c < 256; c++) {
		int printable = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
		unsigned u = printable ? c : next++;
		char utf8[3] = {(char)(u < 0x80 ? u : 0xC0 | u >> 6), (char)(u < 0x80 ? 0 : 0x80 | (u & 63)), 0};

		json_write_string(&b, utf8, strlen(utf8));
		buf_addf(&b, ":%u,", c);
	}
	buf_adds(&b, "\"<|end|>\":256},\"merges\":[]}}");
	t = tokenizer_open_json_memory(b.data, b.len, err);
	buf_release(&b);
	return t;
}

static struct text *byte_text_new(struct err *err)
{
	static const char source[] =
	    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
	struct text *t = xcalloc(1, sizeof(*t));

	t->tokenizer = byte_text_tokenizer(err);
	t->template_source = xstrdup(source);
	t->chat_template = template_compile(source, strlen(source), err);
	t->bos_id = -1;
	t->eos_id = t->stop_ids[0] = BYTE_TEXT_END;
	t->n_stop_ids = 1;
	t->n_context = 4096;
	return t;
}

#endif
