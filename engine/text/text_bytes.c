/* text_bytes.c: the text side of no model. Each byte is a token; written as a tokenizer.json, so that nothing below knows. */
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "engine/text/text_private.h"
#include "engine/text/tokenizer_private.h"

static const char template_source[] =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

static void write_tokenizer(struct buf *b)
{
	buf_adds(b,
	         "{\"added_tokens\":[{\"id\":256,\"content\":\"<|end|>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
	         "\"normalized\":false,\"special\":true}],\"normalizer\":null,"
	         "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"post_processor\":null,"
	         "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
	for (int c = 0; c < 256; c++) {
		struct buf name = {0};
		char byte = (char)c;

		byte_alphabet_encode(&byte, 1, &name);
		json_write_string(b, name.data, name.len);
		buf_addf(b, ":%d,", c);
		buf_release(&name);
	}
	buf_addf(b, "\"<|end|>\":%d},\"merges\":[]}}", TEXT_BYTES_END);
}

int text_read_bytes(struct text *t, const char *path, struct sha256 *h, struct err *err)
{
	struct buf b = {0};

	(void)path;
	write_tokenizer(&b);
	sha256_add(h, b.data, b.len);
	t->tokenizer = tokenizer_open_json_memory(b.data, b.len, err);
	buf_release(&b);
	if (!t->tokenizer)
		return -1;
	text_take_template(t, "default", template_source, strlen(template_source));
	text_add_stop(t, TEXT_BYTES_END);
	t->n_context = TEXT_BYTES_N_CONTEXT;
	return 0;
}
