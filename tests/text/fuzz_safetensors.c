/* Fuzz safetensors.c: any bytes are refused, or every tensor lies inside them. */
#include <stdint.h>

#include "engine/file/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = {0};
	struct safetensors *s = safetensors_open_memory(data, size, &err);

	if (!s && err.code != ERR_MODEL)
		BUG("refused without a reason");
	for (size_t i = 0; s && i < safetensors_n_tensors(s); i++) {
		struct tensor t;

		if (safetensors_find_tensor(s, safetensors_name_at(s, i), &t, &err) <= 0)
			continue;
		if ((const uint8_t *)t.data < data || t.n_bytes > size || (const uint8_t *)t.data > data + size - t.n_bytes)
			BUG("tensor %s lies outside of the file", t.name);
		if ((size_t)tensor_n_elements(&t) * (size_t)tensor_type_bytes(t.type) != t.n_bytes)
			BUG("tensor %s has not the size of its shape", t.name);
	}
	safetensors_free(s);
	return 0;
}
