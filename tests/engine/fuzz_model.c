/* Fuzz model_open: an input that begins with "GGUF" is a GGUF file, any other the config.json beside the weights of the golden llama.
 * It is refused, or every tensor can be read as its shape says. Seeds: tests/engine/goldens. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "fuzz-model-XXXXXX";

static void remove_dir(void)
{
	static const char *const names[] = {"config.json", "model.safetensors", "model.gguf"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char *path = file_join(dir, names[i]);

		unlink(path);
		free(path);
	}
	rmdir(dir);
}

static void make_dir(void)
{
	const char *root = getenv("TOKENMILL_SOURCE");
	char *link, here[4096];
	struct buf target = {0};

	if (!mkdtemp(dir) || !getcwd(here, sizeof(here)))
		BUG("no directory to work in");
	buf_addf(&target, "%s/tests/engine/goldens/llama/model.safetensors", root ? root : here);
	link = file_join(dir, "model.safetensors");
	if (symlink(target.data, link) < 0)
		BUG("cannot link %s", link);
	buf_release(&target);
	free(link);
	atexit(remove_dir);
}

static void write_plain(const char *path, const uint8_t *data, size_t size)
{
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
		BUG("cannot write %s", path);
}

static void read_tensor(const struct tensor *t)
{
	int64_t cols = t->n_dims ? t->shape[t->n_dims - 1] : 0, rows = cols ? tensor_n_elements(t) / cols : 0;
	float *x;

	if (!t->data || cols > 1 << 20)
		return;
	x = xcalloc((size_t)cols, sizeof(*x));
	for (int64_t r = 0; r < rows; r += rows > 1 ? rows - 1 : 1) /* the first and the last row */
		dequantize_row(t->type, (const char *)t->data + (size_t)r * tensor_row_bytes(t->type, cols), x, cols);
	free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int is_gguf = size >= 4 && memcmp(data, "GGUF", 4) == 0;
	struct err err = {0};
	struct buf text = {0};
	struct model *m;
	char *path;

	if (strcmp(dir, "fuzz-model-XXXXXX") == 0)
		make_dir();
	path = file_join(dir, is_gguf ? "model.gguf" : "config.json");
	write_plain(path, data, size);
	m = model_open(is_gguf ? path : dir, &err);
	if (!m && err.code != ERR_MODEL)
		BUG("refused without a reason: %s", err.msg);
	if (m) {
		model_describe(m, &text);
		read_tensor(&m->embed);
		read_tensor(&m->output);
		read_tensor(&m->final_norm);
		for (int i = 0; i < m->config.n_layers; i++) {
			read_tensor(&m->layers[i].q);
			read_tensor(&m->layers[i].q_bias);
			read_tensor(&m->layers[i].q_norm);
			read_tensor(&m->layers[i].attn_norm);
			read_tensor(&m->layers[i].down);
		}
	}
	buf_release(&text);
	model_free(m);
	free(path);
	return 0;
}
