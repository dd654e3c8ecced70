/* model.h: a model's shape and weights, as they lie in the file.
 *
 * One struct for all families; a family is a handful of switches here, not a copy of the forward pass. Sources: GGUF, or a Hugging Face
 * directory (config.json and safetensors, single or with an index). Files are mapped; tensors borrow from the maps until
 * model_free. The backend takes what it needs (and may repack) and can then let the pages go with model_drop_pages.
 *
 * Immutable after open. An unsupported architecture, tensor type, rope scaling or activation is refused by name.
 */
#ifndef TOKENMILL_ENGINE_MODEL_H
#define TOKENMILL_ENGINE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"
#include "engine/file/tensor.h"

enum model_family { MODEL_LLAMA = 1, MODEL_QWEN2 = 2, MODEL_QWEN3 = 3, MODEL_GEMMA3 = 4 }; /* llama: with mistral */
enum activation { ACT_SILU = 1, ACT_GELU_TANH = 2 };

/* Rotary embedding of one kind of layer. Angle of position p and pair i: p * inv_freq[i]; cos and sin are multiplied by
 * `attention_factor` (yarn; 1 otherwise). Scaling (linear, llama3, yarn) is already in inv_freq: see model_rope.c with sources. */
struct rope {
	float *inv_freq; /* [rope_dim / 2] */
	int dim;         /* elements of a head that are rotated; the rest passes through */
	float attention_factor;
	int interleaved; /* 1: pairs are (2i, 2i+1), GGUF's llama layout; 0: (i, i + dim/2), Hugging Face's */
};

struct model_config {
	enum model_family family;
	char family_name[32];   /* as the file calls it: "llama", "mistral", "qwen2", ... */
	int n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn_hidden, n_vocab; /* n_vocab: rows of the output matrix */
	int n_context;          /* positions the model was made for (after rope scaling) */
	float norm_eps;
	enum activation activation;
	float embed_scale;      /* 1; gemma: sqrt(hidden) */
	float attention_scale;  /* on q.k: 1/sqrt(head_dim), gemma: 1/sqrt(query_pre_attn_scalar) */
	float logit_softcap;    /* 0: none; cap * tanh(x / cap) on the logits */
	float attention_softcap; /* 0: none */
	int sliding_window;     /* positions a sliding layer sees, itself included; 0: no layer slides */
	int tied_output;        /* output matrix is the embedding */
	struct rope rope;       /* layers that see everything */
	struct rope rope_local; /* sliding layers of gemma3; elsewhere equal to rope */
};

/* Absent tensors have data NULL. Matrices are [outputs, inputs]. Norm weights are as in the file; norm_offset is added. */
struct model_layer {
	struct tensor attn_norm, q, k, v, o;
	struct tensor q_bias, k_bias, v_bias, o_bias;
	struct tensor q_norm, k_norm;               /* [head_dim], qwen3 and gemma3 */
	struct tensor post_attn_norm, post_ffn_norm; /* gemma3: after attention / feed-forward, before the residual add */
	struct tensor ffn_norm, gate, up, down;
	int sliding;                                /* attention sees only sliding_window positions and uses rope_local */
};

struct model {
	struct model_config config;
	float norm_offset;          /* gemma from Hugging Face: weights are stored minus 1; elsewhere 0 */
	struct tensor embed;        /* [n_vocab, hidden] */
	struct tensor output;       /* [n_vocab, hidden]; the same as embed when tied */
	struct tensor final_norm;
	struct model_layer *layers; /* [n_layers] */
	size_t weight_bytes;        /* bytes of all tensors used, in the file */
	int64_t n_parameters;
	char fingerprint[65];       /* SHA-256 over config, names, types, shapes and sampled content: see model_fingerprint */
	struct model_files *files;  /* maps and readers; private */
};

/* path: a .gguf file, or a Hugging Face directory. NULL and *err (ERR_MODEL) on failure. */
struct model *model_open(const char *path, struct err *err);
void model_free(struct model *m);
/* The tensors' pages of the page cache need not stay resident; data stays valid. */
void model_drop_pages(const struct model *m);
/* Human-readable: family, shape, tensor types by share, context, rope, sliding layers, bytes, KV bytes per token in f16. */
void model_describe(const struct model *m, struct buf *out);

#endif
