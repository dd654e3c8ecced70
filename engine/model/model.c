/* model.c: open a model of either kind, describe it, name it by its content. */
#include "engine/model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/model/model_load.h"

static const char *activation_name(enum activation a)
{
	return a == ACT_SILU ? "silu" : "gelu_tanh";
}

static int check_range(const char *what, int value, int max, struct err *err)
{
	if (value < 1 || value > max)
		return err_set(err, ERR_MODEL, "%s is %d, not between 1 and %d", what, value, max);
	return 0;
}

int model_check_config(const struct model_config *c, struct err *err)
{
	if (check_range("the number of layers", c->n_layers, 10000, err) < 0 ||
		check_range("the hidden size", c->hidden, 1 << 20, err) < 0 ||
		check_range("the number of attention heads", c->n_heads, 1 << 16, err) < 0 ||
		check_range("the number of key-value heads", c->n_kv_heads, 1 << 16, err) < 0 ||
		check_range("the size of a head", c->head_dim, 1 << 16, err) < 0 ||
		check_range("the feed-forward size", c->ffn_hidden, 1 << 24, err) < 0 ||
		check_range("the context length", c->n_context, 1 << 30, err) < 0)
		return -1;
	if (c->n_heads % c->n_kv_heads != 0)
		return err_set(err, ERR_MODEL, "%d attention heads cannot be shared by %d key-value heads", c->n_heads, c->n_kv_heads);
	if (!(c->norm_eps > 0 && c->norm_eps < 1))
		return err_set(err, ERR_MODEL, "the epsilon of the norms is %g, not between 0 and 1", (double)c->norm_eps);
	if (!(c->attention_scale > 0 && isfinite(c->attention_scale)))
		return err_set(err, ERR_MODEL, "the attention scale is %g, not positive", (double)c->attention_scale);
	if (!(c->logit_softcap >= 0 && isfinite(c->logit_softcap) && c->attention_softcap >= 0 && isfinite(c->attention_softcap)))
		return err_set(err, ERR_MODEL, "a soft cap is %g or %g, not positive", (double)c->logit_softcap,
			(double)c->attention_softcap);
	return 0;
}

/* Calls fn for every tensor that is used, in a fixed order. */
typedef void (*tensor_fn)(void *arg, const struct tensor *t);

static void each_tensor(const struct model *m, tensor_fn fn, void *arg)
{
	fn(arg, &m->embed);
	if (!m->config.tied_output)
		fn(arg, &m->output);
	fn(arg, &m->final_norm);
	for (int i = 0; i < m->config.n_layers; i++) {
		const struct model_layer *l = &m->layers[i];
		const struct tensor *all[] = {&l->attn_norm, &l->q, &l->k, &l->v, &l->o, &l->q_bias, &l->k_bias, &l->v_bias, &l->o_bias,
			&l->q_norm, &l->k_norm, &l->post_attn_norm, &l->post_ffn_norm, &l->ffn_norm, &l->gate, &l->up, &l->down};

		for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
			if (all[k]->data)
				fn(arg, all[k]);
		}
	}
}

static void add_rope(struct buf *b, const struct rope *r)
{
	buf_addf(b, "rope %d %d %.9g", r->dim, r->interleaved, (double)r->attention_factor);
	for (int i = 0; i < r->dim / 2; i++)
		buf_addf(b, " %.9g", (double)r->inv_freq[i]);
	buf_addc(b, '\n');
}

/* Everything that decides what the numbers of the tensors mean. */
static void add_config(struct buf *b, const struct model *m)
{
	const struct model_config *c = &m->config;

	buf_addf(b, "%d %d %d %d %d %d %d %d %d\n", (int)c->family, c->n_layers, c->hidden, c->n_heads, c->n_kv_heads, c->head_dim,
		c->ffn_hidden, c->n_vocab, c->n_context);
	buf_addf(b, "%.9g %d %.9g %.9g %.9g %.9g %d %d %.9g\n", (double)c->norm_eps, (int)c->activation, (double)c->embed_scale,
		(double)c->attention_scale, (double)c->logit_softcap, (double)c->attention_softcap, c->sliding_window, c->tied_output,
		(double)m->norm_offset);
	for (int i = 0; i < c->n_layers; i++)
		buf_addc(b, m->layers[i].sliding ? 's' : 'f');
	buf_addc(b, '\n');
	add_rope(b, &c->rope);
	add_rope(b, &c->rope_local);
}

#define FINGERPRINT_WHOLE_BYTES ((size_t)64 << 20) /* up to here every byte counts */
#define FINGERPRINT_SAMPLE_BYTES 4096
#define FINGERPRINT_N_SAMPLES 2048

struct fingerprint {
	struct sha256 *hash;
	size_t stride; /* a sample begins every so many bytes of a tensor; 0: all bytes */
};

static void add_tensor(void *arg, const struct tensor *t)
{
	struct fingerprint *f = arg;
	struct buf head = {0};
	const char *data = t->data;

	buf_addf(&head, "%s %d", t->name, (int)t->type);
	for (int i = 0; i < t->n_dims; i++)
		buf_addf(&head, " %" PRId64, t->shape[i]);
	buf_addc(&head, '\n');
	sha256_add(f->hash, head.data, head.len);
	buf_release(&head);
	if (f->stride == 0 || t->n_bytes <= 2 * FINGERPRINT_SAMPLE_BYTES) {
		sha256_add(f->hash, data, t->n_bytes);
		return;
	}
	for (size_t at = 0; at < t->n_bytes - FINGERPRINT_SAMPLE_BYTES; at += f->stride)
		sha256_add(f->hash, data + at, FINGERPRINT_SAMPLE_BYTES);
	sha256_add(f->hash, data + t->n_bytes - FINGERPRINT_SAMPLE_BYTES, FINGERPRINT_SAMPLE_BYTES);
}

/* SHA-256 over the configuration and every tensor's name, type, shape and content: all of it when the model has at most 64 MiB,
 * else the first and last 4 KiB of each tensor and 4 KiB every so often between, about 2048 of them, so that it takes
 * milliseconds whatever the size. Two models that differ by training differ in every page; a single flipped bit of a
 * large model may go unseen. */
static void model_fingerprint(struct model *m)
{
	struct fingerprint f = {sha256_new(), 0};
	struct buf config = {0};

	if (m->weight_bytes > FINGERPRINT_WHOLE_BYTES) {
		f.stride = m->weight_bytes / FINGERPRINT_N_SAMPLES;
		f.stride -= f.stride % FINGERPRINT_SAMPLE_BYTES;
	}
	add_config(&config, m);
	sha256_add(f.hash, config.data, config.len);
	buf_release(&config);
	each_tensor(m, add_tensor, &f);
	sha256_finish(f.hash, m->fingerprint);
}

struct model *model_open(const char *path, struct err *err)
{
	struct model *m = xcalloc(1, sizeof(*m));
	int rc;

	m->files = xcalloc(1, sizeof(*m->files));
	if (!file_exists(path))
		rc = err_set(err, ERR_MODEL, "%s: no such file or directory", path);
	else if (file_is_dir(path))
		rc = model_load_hf(m, path, err);
	else
		rc = model_load_gguf(m, path, err);
	if (rc < 0) {
		model_free(m);
		return NULL;
	}
	model_fingerprint(m);
	return m;
}

void model_free(struct model *m)
{
	if (!m)
		return;
	free(m->layers);
	free(m->config.rope.inv_freq);
	free(m->config.rope_local.inv_freq);
	gguf_free(m->files->gguf);
	safetensors_free(m->files->safetensors);
	free(m->files);
	free(m);
}

static void drop_pages(void *arg, const struct tensor *t)
{
	uintptr_t page = *(const size_t *)arg, begin = (uintptr_t)t->data / page * page, end = (uintptr_t)t->data + t->n_bytes;

	/* The mapping is private and never written, so a dropped page is read from the file again when touched. */
	madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void model_drop_pages(const struct model *m)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	each_tensor(m, drop_pages, &page);
}

static void add_type_bytes(void *arg, const struct tensor *t)
{
	((size_t *)arg)[t->type] += t->n_bytes;
}

static void describe_rope(const struct model_config *c, struct buf *out)
{
	buf_addf(out, "rope             %d of %d elements%s", c->rope.dim, c->head_dim, c->rope.interleaved ? ", interleaved" : "");
	if (c->rope.attention_factor != 1)
		buf_addf(out, ", attention factor %g", (double)c->rope.attention_factor);
	buf_addf(out, ", frequencies 1 to %.3g\n", (double)c->rope.inv_freq[c->rope.dim / 2 - 1]);
}

void model_describe(const struct model *m, struct buf *out)
{
	const struct model_config *c = &m->config;
	size_t bytes[TENSOR_BF16 + 1] = {0}, kv = (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim * 4;
	int n_sliding = 0;
	const char *comma = "";

	for (int i = 0; i < c->n_layers; i++)
		n_sliding += m->layers[i].sliding;
	buf_addf(out, "family           %s\n", c->family_name);
	buf_addf(out, "parameters       %" PRId64 "\n", m->n_parameters);
	buf_addf(out, "layers           %d, hidden %d, feed-forward %d (%s)\n", c->n_layers, c->hidden, c->ffn_hidden,
		activation_name(c->activation));
	buf_addf(out, "heads            %d of %d, key-value heads %d\n", c->n_heads, c->head_dim, c->n_kv_heads);
	buf_addf(out, "vocabulary       %d, output matrix %s\n", c->n_vocab, c->tied_output ? "tied" : "separate");
	buf_addf(out, "context          %d\n", c->n_context);
	describe_rope(c, out);
	if (n_sliding > 0)
		buf_addf(out, "sliding          %d layers, window %d\n", n_sliding, c->sliding_window);
	if (c->logit_softcap > 0 || c->attention_softcap > 0)
		buf_addf(out, "soft caps        logits %g, attention %g\n", (double)c->logit_softcap, (double)c->attention_softcap);
	each_tensor(m, add_type_bytes, bytes);
	buf_adds(out, "tensor types     ");
	for (int t = 0; t <= TENSOR_BF16; t++) {
		if (bytes[t]) {
			buf_addf(out, "%s%s %.1f%%", comma, tensor_type_name((enum tensor_type)t),
				100.0 * (double)bytes[t] / (double)m->weight_bytes);
			comma = ", ";
		}
	}
	buf_addf(out, "\nweights          %zu bytes (%.2f GiB)\n", m->weight_bytes, (double)m->weight_bytes / (1 << 30));
	buf_addf(out, "KV cache         %zu bytes per token in F16\n", kv);
	buf_addf(out, "fingerprint      %s\n", m->fingerprint);
}
