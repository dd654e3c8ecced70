/* model_load.h: what the loaders of the two kinds of model files share. Not for users of model.h.
 *
 * A loader (model_gguf.c, model_hf.c) fills model->config from its metadata, then describes its tensors as a
 * struct tensor_source and lets model_place_tensors find, check and count them; names and shapes of all families are one
 * table in model_tensors.c.
 */
#ifndef TOKENMILL_ENGINE_MODEL_LOAD_H
#define TOKENMILL_ENGINE_MODEL_LOAD_H

#include "engine/file/gguf.h"
#include "engine/file/safetensors.h"
#include "engine/model/model.h"

struct model_files { /* one of the two */
	struct gguf *gguf;
	struct safetensors *safetensors;
};

/* Both fill the zeroed model and leave what they opened in m->files, whether they succeed or not. */
int model_load_gguf(struct model *m, const char *path, struct err *err);
int model_load_hf(struct model *m, const char *dir, struct err *err);

enum model_biases { MODEL_BIAS_NONE, MODEL_BIAS_IF_PRESENT, MODEL_BIAS_QKV, MODEL_BIAS_QKVO };

struct tensor_source {
	int is_gguf;             /* which names */
	const char *prefix;      /* before "layers.0.", "embed_tokens.weight", "norm.weight"; "" for GGUF */
	const char *head_name;   /* the output matrix */
	enum model_biases biases;
	int tied; /* 1: the output matrix is the embedding (unless the file has a different one), 0: not, -1: if there is none */
	int n_vocab;             /* 0: whatever the embedding has */
	/* 1 and *out; 0 when there is none; -1 and *err when its type is not supported. */
	int (*find)(const struct model_files *files, const char *name, struct tensor *out, struct err *err);
	size_t (*count)(const struct model_files *files);
	const char *(*name_at)(const struct model_files *files, size_t i);
	/* Tensors of the file that a text model does without: 1. Any other that is left over is refused. */
	int (*may_ignore)(const char *name);
};

/* Places every tensor in m->layers and m, checks shapes, sets n_vocab, tied_output, weight_bytes and n_parameters. */
int model_place_tensors(struct model *m, const struct tensor_source *source, struct err *err);

/* The config is within sane bounds and consistent in itself; names the field otherwise. Before tensors are placed. */
int model_check_config(const struct model_config *c, struct err *err);

enum rope_scaling { ROPE_DEFAULT = 0, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct rope_spec {
	int dim, head_dim;                    /* rotated elements of a head, and all of them */
	double theta;
	enum rope_scaling scaling;
	double factor;                        /* all but default */
	double original_context;              /* llama3, yarn */
	double low_freq_factor, high_freq_factor; /* llama3 */
	double beta_fast, beta_slow;          /* yarn */
	double attention_factor;              /* yarn; negative: derived from factor and the mscales */
	double mscale, mscale_all_dim;        /* yarn; 0: not given */
	int no_truncate;                      /* yarn: keep the fractions of the correction range */
	const struct tensor *divisors;        /* NULL, or [dim / 2] F32: GGUF's rope_freqs.weight */
};

/* Fills *r but for `interleaved`; r->inv_freq is malloc'd. On failure *r is as before. */
int rope_init(struct rope *r, const struct rope_spec *spec, struct err *err);
/* 1 and *out for "default" (also "none"), "linear", "llama3", "yarn"; else 0. */
int rope_scaling_find(const char *name, enum rope_scaling *out);

#endif
