/* model_gguf.c: a model from a GGUF file.
 *
 * Keys are "<architecture>.<key>" (GGUF specification; llama.cpp's llama-model.cpp for defaults and for what the specification
 * leaves open). The converter stores llama's query and key rows permuted so that rotated pairs are neighbours; gemma's
 * norms have their 1 added.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model/model_load.h"

/* Metadata of one architecture. */
struct keys {
	const struct gguf *g;
	char arch[32];
	char name[128]; /* "<arch>.<key>" of the last call */
};

static const char *full_key(struct keys *k, const char *key)
{
	snprintf(k->name, sizeof(k->name), "%s.%s", k->arch, key);
	return k->name;
}

/* An integer, or an array of equal integers (llama.cpp allows one per layer). 1 found, 0 absent, -1 error. */
static int find_int(struct keys *k, const char *key, int *out, struct err *err)
{
	const char *name = full_key(k, key);
	enum gguf_type type;
	uint64_t u = 0;
	int64_t first = 0, x = 0;
	size_t n;

	if (!gguf_has(k->g, name))
		return 0;
	if (gguf_find_array(k->g, name, &type, &n)) {
		if (n == 0 || !gguf_array_i64(k->g, name, 0, &first) || first < 0)
			return err_set(err, ERR_MODEL, "%s is not made of integers", name);
		for (size_t i = 1; i < n; i++) {
			if (!gguf_array_i64(k->g, name, i, &x) || x != first)
				return err_set(err, ERR_MODEL, "%s differs from layer to layer, which is not supported", name);
		}
		u = (uint64_t)first;
	} else if (!gguf_find_u64(k->g, name, &u)) {
		return err_set(err, ERR_MODEL, "%s is not an integer", name);
	}
	if (u > INT_MAX)
		return err_set(err, ERR_MODEL, "%s is %llu, too large", name, (unsigned long long)u);
	*out = (int)u;
	return 1;
}

static int get_int(struct keys *k, const char *key, int *out, struct err *err)
{
	int found = find_int(k, key, out, err);

	if (found == 0)
		return err_set(err, ERR_MODEL, "%s is missing", full_key(k, key));
	return found < 0 ? -1 : 0;
}

/* 1 found, 0 absent, -1 error. */
static int find_number(struct keys *k, const char *key, double *out, struct err *err)
{
	const char *name = full_key(k, key);
	uint64_t u = 0;

	if (!gguf_has(k->g, name))
		return 0;
	if (gguf_find_u64(k->g, name, &u))
		*out = (double)u;
	else if (!gguf_find_f64(k->g, name, out))
		return err_set(err, ERR_MODEL, "%s is not a number", name);
	if (!isfinite(*out))
		return err_set(err, ERR_MODEL, "%s is %g", name, *out);
	return 1;
}

static int load_sizes(struct keys *k, struct model_config *c, struct err *err)
{
	double eps = 0;
	int value_length, n_experts = 0, found;

	if (get_int(k, "block_count", &c->n_layers, err) < 0 || get_int(k, "embedding_length", &c->hidden, err) < 0 ||
		get_int(k, "feed_forward_length", &c->ffn_hidden, err) < 0 ||
		get_int(k, "context_length", &c->n_context, err) < 0 || get_int(k, "attention.head_count", &c->n_heads, err) < 0)
		return -1;
	if (find_int(k, "expert_count", &n_experts, err) < 0)
		return -1;
	if (n_experts > 0)
		return err_set(err, ERR_MODEL, "%s is %d: mixtures of experts are not supported", full_key(k, "expert_count"),
			n_experts);
	c->n_kv_heads = c->n_heads;
	if (find_int(k, "attention.head_count_kv", &c->n_kv_heads, err) < 0)
		return -1;
	c->head_dim = c->n_heads > 0 ? c->hidden / c->n_heads : 0;
	if (find_int(k, "attention.key_length", &c->head_dim, err) < 0)
		return -1;
	value_length = c->head_dim;
	if (find_int(k, "attention.value_length", &value_length, err) < 0)
		return -1;
	if (value_length != c->head_dim)
		return err_set(err, ERR_MODEL, "%s is %d, but keys have %d elements", full_key(k, "attention.value_length"),
			value_length, c->head_dim);
	found = find_number(k, "attention.layer_norm_rms_epsilon", &eps, err);
	if (found == 0)
		return err_set(err, ERR_MODEL, "%s is missing", full_key(k, "attention.layer_norm_rms_epsilon"));
	c->norm_eps = (float)eps;
	return found < 0 ? -1 : 0;
}

static int load_scaling(struct keys *k, struct rope_spec *s, struct model_config *c, struct err *err)
{
	struct gguf_string type;
	char name[32];
	double attn_factor = 1, log_multiplier = 0, ext_factor = 1, linear = 0;

	if (find_number(k, "rope.scale_linear", &linear, err) < 0) /* written by early converters */
		return -1;
	if (linear != 0 && linear != 1) {
		s->scaling = ROPE_LINEAR;
		s->factor = linear;
	}
	if (!gguf_find_string(k->g, full_key(k, "rope.scaling.type"), &type))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(type.n < 31 ? type.n : 31), type.s);
	if (!rope_scaling_find(name, &s->scaling) || s->scaling == ROPE_LLAMA3)
		return err_set(err, ERR_MODEL, "%s is \"%s\", which is not supported (none, linear and yarn are)", k->name, name);
	if (s->scaling == ROPE_DEFAULT)
		return 0;
	s->factor = 1;
	s->original_context = c->n_context;
	if (find_number(k, "rope.scaling.factor", &s->factor, err) < 0)
		return -1;
	if (s->factor == 0) /* llama.cpp: not scaled */
		s->factor = 1;
	if (s->scaling != ROPE_YARN)
		return 0;
	if (find_number(k, "rope.scaling.original_context_length", &s->original_context, err) < 0 ||
		find_number(k, "rope.scaling.attn_factor", &attn_factor, err) < 0 ||
		find_number(k, "rope.scaling.yarn_attn_factor", &s->attention_factor, err) < 0 ||
		find_number(k, "rope.scaling.yarn_beta_fast", &s->beta_fast, err) < 0 ||
		find_number(k, "rope.scaling.yarn_beta_slow", &s->beta_slow, err) < 0 ||
		find_number(k, "rope.scaling.yarn_ext_factor", &ext_factor, err) < 0 ||
		find_number(k, "rope.scaling.yarn_log_multiplier", &log_multiplier, err) < 0)
		return -1;
	if (ext_factor >= 0 && ext_factor != 1)
		return err_set(err, ERR_MODEL, "%s is %g, which is not supported (1 is)", full_key(k, "rope.scaling.yarn_ext_factor"),
			ext_factor);
	if (log_multiplier != 0) {
		s->mscale = 1;
		s->mscale_all_dim = log_multiplier;
	}
	if (attn_factor != 1)
		return err_set(err, ERR_MODEL, "%s is %g, which is not supported (1 is)", full_key(k, "rope.scaling.attn_factor"),
			attn_factor);
	if (s->original_context * s->factor > c->n_context && s->original_context * s->factor < INT_MAX)
		c->n_context = (int)(s->original_context * s->factor);
	return 0;
}

static int load_rope(struct keys *k, struct model_config *c, struct err *err)
{
	struct rope_spec s = {.dim = c->head_dim, .head_dim = c->head_dim, .theta = 10000, .beta_fast = 32, .beta_slow = 1,
		.attention_factor = -1};
	struct rope_spec local;

	if (find_int(k, "rope.dimension_count", &s.dim, err) < 0 || find_number(k, "rope.freq_base", &s.theta, err) < 0 ||
		load_scaling(k, &s, c, err) < 0)
		return -1;
	s.divisors = gguf_find_tensor(k->g, "rope_freqs.weight");
	if (rope_init(&c->rope, &s, err) < 0)
		return -1;
	local = s;
	if (c->family == MODEL_GEMMA3) {
		/* Gemma 3's sliding layers are neither scaled nor of the same base. */
		local = (struct rope_spec){.dim = s.dim, .head_dim = s.head_dim, .theta = 10000};
		if (find_number(k, "rope.freq_base_swa", &local.theta, err) < 0)
			return -1;
	}
	if (rope_init(&c->rope_local, &local, err) < 0)
		return -1;
	c->rope.interleaved = c->rope_local.interleaved = c->family == MODEL_LLAMA;
	return 0;
}

/* Which layers slide: for gemma3 all but every sixth (or as the file says), for llama (mistral) all when there is a window. */
static int load_sliding(struct keys *k, struct model *m, struct err *err)
{
	struct model_config *c = &m->config;
	const char *pattern_key = "attention.sliding_window_pattern";
	enum gguf_type type;
	int window = 0, period = 6, per_layer;
	int64_t slides;
	size_t n;

	if (c->family != MODEL_GEMMA3 && c->family != MODEL_LLAMA)
		return 0;
	if (find_int(k, "attention.sliding_window", &window, err) < 0)
		return -1;
	if (window == 0)
		return c->family == MODEL_LLAMA ? 0
			: err_set(err, ERR_MODEL, "%s is missing", full_key(k, "attention.sliding_window"));
	per_layer = gguf_find_array(k->g, full_key(k, pattern_key), &type, &n);
	if (per_layer && n != (size_t)c->n_layers)
		return err_set(err, ERR_MODEL, "%s has %zu entries for %d layers", k->name, n, c->n_layers);
	if (!per_layer && find_int(k, pattern_key, &period, err) < 0)
		return -1;
	for (int i = 0; i < c->n_layers; i++) {
		if (per_layer) {
			if (!gguf_array_i64(k->g, full_key(k, pattern_key), (size_t)i, &slides))
				return err_set(err, ERR_MODEL, "%s is not made of booleans", k->name);
			m->layers[i].sliding = slides != 0;
		} else {
			/* A period of 0 or 1: every or no layer slides, as set_swa_pattern in llama.cpp has it. */
			m->layers[i].sliding = c->family == MODEL_LLAMA || period == 0 || i % period < period - 1;
		}
		if (m->layers[i].sliding)
			c->sliding_window = window;
	}
	return 0;
}

static int load_switches(struct keys *k, struct model_config *c, struct err *err)
{
	double x = 0;

	c->activation = c->family == MODEL_GEMMA3 ? ACT_GELU_TANH : ACT_SILU;
	c->embed_scale = c->family == MODEL_GEMMA3 ? sqrtf((float)c->hidden) : 1;
	/* query_pre_attn_scalar is not in the file. Of the released gemma3 only 27B, with its 62 layers, has one that is not
	 * head_dim. */
	x = c->family == MODEL_GEMMA3 && c->n_layers == 62 ? c->hidden / (double)c->n_heads : c->head_dim;
	x = 1 / sqrt(x);
	if (find_number(k, "attention.scale", &x, err) < 0)
		return -1;
	c->attention_scale = (float)x;
	if (c->family != MODEL_GEMMA3)
		return 0;
	x = 0;
	if (find_number(k, "final_logit_softcapping", &x, err) < 0)
		return -1;
	c->logit_softcap = (float)x;
	x = 0;
	if (find_number(k, "attn_logit_softcapping", &x, err) < 0)
		return -1;
	c->attention_softcap = (float)x;
	return 0;
}

static int find_tensor(const struct model_files *files, const char *name, struct tensor *out, struct err *err)
{
	const struct tensor *t = gguf_find_tensor(files->gguf, name);

	if (t)
		*out = *t;
	return t != NULL;
}

static size_t count_tensors(const struct model_files *files)
{
	return gguf_n_tensors(files->gguf);
}

static const char *tensor_name_at(const struct model_files *files, size_t i)
{
	return gguf_tensor_at(files->gguf, i)->name;
}

static int may_ignore(const char *name)
{
	return strcmp(name, "rope_freqs.weight") == 0; /* read by load_rope */
}

static int load_family(struct keys *k, struct model_config *c, struct err *err)
{
	static const struct {
		const char *arch;
		enum model_family family;
	} known[] = {{"llama", MODEL_LLAMA}, {"qwen2", MODEL_QWEN2}, {"qwen3", MODEL_QWEN3}, {"gemma3", MODEL_GEMMA3}};
	struct gguf_string arch;

	if (!gguf_find_string(k->g, "general.architecture", &arch))
		return err_set(err, ERR_MODEL, "general.architecture is missing");
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (arch.n == strlen(known[i].arch) && memcmp(arch.s, known[i].arch, arch.n) == 0) {
			snprintf(k->arch, sizeof(k->arch), "%s", known[i].arch);
			snprintf(c->family_name, sizeof(c->family_name), "%s", known[i].arch);
			c->family = known[i].family;
			return 0;
		}
	}
	return err_set(err, ERR_MODEL, "architecture \"%.*s\" is not supported (llama, qwen2, qwen3 and gemma3 are)",
		(int)(arch.n < 100 ? arch.n : 100), arch.s);
}

static int load(struct model *m, struct err *err)
{
	struct model_config *c = &m->config;
	struct keys k = {.g = m->files->gguf};
	struct tensor_source source = {.is_gguf = 1, .prefix = "", .head_name = "output.weight", .biases = MODEL_BIAS_IF_PRESENT,
		.tied = -1, .find = find_tensor, .count = count_tensors, .name_at = tensor_name_at, .may_ignore = may_ignore};

	if (load_family(&k, c, err) < 0 || load_sizes(&k, c, err) < 0 || load_switches(&k, c, err) < 0 ||
		model_check_config(c, err) < 0)
		return -1;
	if (load_rope(&k, c, err) < 0)
		return -1;
	m->layers = xcalloc((size_t)c->n_layers, sizeof(*m->layers));
	if (load_sliding(&k, m, err) < 0)
		return -1;
	if (c->family == MODEL_QWEN2)
		source.biases = MODEL_BIAS_QKV;
	return model_place_tensors(m, &source, err);
}

int model_load_gguf(struct model *m, const char *path, struct err *err)
{
	m->files->gguf = gguf_open(path, 1, err);
	if (!m->files->gguf)
		return -1;
	if (load(m, err) < 0)
		return err_context(err, "%s", path);
	return 0;
}
