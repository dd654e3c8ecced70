/* Fuzz gguf.c: any bytes are refused, or every accessor stays inside them. */
#include <stdint.h>

#include "tests/text/gguf_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int with_tensors = 0; with_tensors < 2; with_tensors++) {
		struct err err = {0};
		struct gguf *g = gguf_open_memory(data, size, with_tensors, &err);

		if (g)
			gguf_walk(g);
		else if (err.code != ERR_MODEL)
			BUG("refused without a reason");
		gguf_free(g);
	}
	return 0;
}
