/* fuzz_template.c: any bytes as a template, rendered with a conversation under small limits. */
#include <stdint.h>
#include <string.h>

#include "base/json.h"
#include "engine/text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char vars[] =
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi \xC3\xA9\"},{\"role\":\"assistant\",\"content\":null,"
	    "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,true]}}}]}],\"s\":\"Hello "
	    "World\",\"n\":7,\"l\":[3,1,2],"
	    "\"d\":{\"a\":1,\"b\":\"x\"},\"bos_token\":\"<s>\"}";
	static yyjson_doc *doc;
	struct template_limits limits = {.max_output_bytes = 1 << 16, .max_steps = 20000};
	struct err err = {0};
	struct buf out = {0};
	struct chat_template *t = template_compile((const char *)data, size, &err);

	if (!doc)
		doc = json_parse(vars, strlen(vars), ERR_INPUT, NULL);
	if (t)
		template_render(t, yyjson_doc_get_root(doc), &limits, &out, &err);
	template_free(t);
	buf_release(&out);
	return 0;
}
