/* model_hf.c: a model from a Hugging Face directory: config.json and safetensors.
 *
 * Keys, defaults and the spellings of several generations of config.json follow transformers (configuration_*.py of each
 * family, modeling_rope_utils.py for the rope keys). A default there is a default here: published configurations rely on them.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model_load.h"

#define CONFIG_BYTES_MAX (16u << 20)

/* What a family's configuration class assumes where the file says nothing. 0: must be given, or follows from the rest. */
static const struct family {
	const char *architecture, *model_type;
	enum model_family family;
	int n_heads, n_kv_heads, head_dim, n_context, window;
	int tied;
	double theta;
} families[] = {
	{"LlamaForCausalLM", "llama", MODEL_LLAMA, 0, 0, 0, 2048, 0, 0, 1e4},
	{"MistralForCausalLM", "mistral", MODEL_LLAMA, 0, 8, 0, 131072, 4096, 0, 1e4},
	{"Qwen2ForCausalLM", "qwen2", MODEL_QWEN2, 0, 32, 0, 32768, 4096, 0, 1e4},
	{"Qwen3ForCausalLM", "qwen3", MODEL_QWEN3, 0, 32, 128, 32768, 4096, 0, 1e4},
	{"Gemma3ForCausalLM", "gemma3_text", MODEL_GEMMA3, 8, 4, 256, 131072, 4096, 1, 1e6},
	{"Gemma3ForConditionalGeneration", "gemma3", MODEL_GEMMA3, 8, 4, 256, 131072, 4096, 1, 1e6},
};

struct loader {
	struct model *m;
	const struct family *family;
	yyjson_val *root;
	yyjson_val *text; /* root, or its text_config */
	int max_positions; /* max_position_embeddings, before any stretching */
};

/* The value unless it is missing or null. */
static yyjson_val *find(yyjson_val *obj, const char *key)
{
	yyjson_val *v = yyjson_obj_get(obj, key);

	return yyjson_is_null(v) ? NULL : v;
}

/* The number, or *out as it is when there is none. */
static int read_number(yyjson_val *obj, const char *key, double *out, struct err *err)
{
	yyjson_val *v = find(obj, key);

	if (!v)
		return 0;
	if (!yyjson_is_num(v))
		return err_set(err, ERR_MODEL, "%s is %s, not a number", key, json_type_name(v));
	*out = yyjson_get_num(v);
	return 0;
}

static int read_int(yyjson_val *obj, const char *key, int *out, struct err *err)
{
	double x = *out;

	if (read_number(obj, key, &x, err) < 0)
		return -1;
	if (x != trunc(x) || x < 0 || x > INT_MAX)
		return err_set(err, ERR_MODEL, "%s is %.17g, not a size", key, x);
	*out = (int)x;
	return 0;
}

static int get_int(yyjson_val *obj, const char *key, int *out, struct err *err)
{
	if (!find(obj, key))
		return err_set(err, ERR_MODEL, "%s is missing", key);
	return read_int(obj, key, out, err);
}

static int read_bool(yyjson_val *obj, const char *key, int *out, struct err *err)
{
	yyjson_val *v = find(obj, key);

	if (v && !yyjson_is_bool(v))
		return err_set(err, ERR_MODEL, "%s is %s, not a boolean", key, json_type_name(v));
	if (v)
		*out = yyjson_get_bool(v);
	return 0;
}

/* NULL when missing or not a string. */
static const char *find_text(yyjson_val *obj, const char *key)
{
	return yyjson_get_str(yyjson_obj_get(obj, key));
}

static int find_family(struct loader *l, struct err *err)
{
	yyjson_val *list = yyjson_obj_get(l->root, "architectures");
	const char *name = yyjson_get_str(yyjson_arr_get_first(list)), *type = find_text(l->root, "model_type");

	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]) && !l->family; i++) {
		if (name ? strcmp(families[i].architecture, name) == 0 : type && strcmp(families[i].model_type, type) == 0)
			l->family = &families[i];
	}
	if (!l->family)
		return err_set(err, ERR_MODEL, "architecture \"%.100s\" is not supported (LlamaForCausalLM, MistralForCausalLM, "
			"Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma3ForCausalLM and Gemma3ForConditionalGeneration are)",
			name ? name : type ? type : "none");
	l->m->config.family = l->family->family;
	snprintf(l->m->config.family_name, sizeof(l->m->config.family_name), "%s", l->family->model_type);
	l->text = l->root;
	if (find(l->root, "text_config"))
		l->text = find(l->root, "text_config");
	if (!yyjson_is_obj(l->text))
		return err_set(err, ERR_MODEL, "text_config is %s, not an object", json_type_name(l->text));
	return 0;
}

static int refuse_quantized(yyjson_val *obj, const char *key, struct err *err)
{
	yyjson_val *v = find(obj, key);
	const char *method = find_text(v, "quant_method");

	if (v)
		return err_set(err, ERR_MODEL, "%s: weights quantised by \"%.100s\" are not supported (F32, F16 and BF16 are)", key,
			method ? method : "an unnamed method");
	return 0;
}

static int load_sizes(struct loader *l, struct err *err)
{
	struct model_config *c = &l->m->config;
	const struct family *f = l->family;
	double eps = 1e-6;

	if (get_int(l->text, "num_hidden_layers", &c->n_layers, err) < 0 || get_int(l->text, "hidden_size", &c->hidden, err) < 0 ||
		get_int(l->text, "intermediate_size", &c->ffn_hidden, err) < 0)
		return -1;
	c->n_heads = f->n_heads;
	if ((f->n_heads ? read_int : get_int)(l->text, "num_attention_heads", &c->n_heads, err) < 0)
		return -1;
	/* An explicit null is not the class's default: it means as many as heads, and hidden / heads. */
	c->n_kv_heads = f->n_kv_heads && !yyjson_obj_get(l->text, "num_key_value_heads") ? f->n_kv_heads : c->n_heads;
	c->head_dim = f->head_dim && !yyjson_obj_get(l->text, "head_dim") ? f->head_dim : c->n_heads ? c->hidden / c->n_heads : 0;
	c->n_context = f->n_context;
	if (read_int(l->text, "num_key_value_heads", &c->n_kv_heads, err) < 0 ||
		read_int(l->text, "head_dim", &c->head_dim, err) < 0 ||
		read_int(l->text, "max_position_embeddings", &c->n_context, err) < 0 ||
		read_number(l->text, "rms_norm_eps", &eps, err) < 0)
		return -1;
	c->norm_eps = (float)eps;
	l->max_positions = c->n_context;
	return 0;
}

static int load_activation(struct loader *l, struct err *err)
{
	struct model_config *c = &l->m->config;
	const char *key = c->family == MODEL_GEMMA3 ? "hidden_activation" : "hidden_act";
	yyjson_val *v = find(l->text, key);
	const char *name = v ? yyjson_get_str(v) : c->family == MODEL_GEMMA3 ? "gelu_pytorch_tanh" : "silu";

	if (name && (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0))
		c->activation = ACT_SILU;
	else if (name && strcmp(name, "gelu_pytorch_tanh") == 0)
		c->activation = ACT_GELU_TANH;
	else
		return err_set(err, ERR_MODEL, "%s \"%.100s\" is not supported (silu and gelu_pytorch_tanh are)", key,
			name ? name : "?");
	return 0;
}

static int load_switches(struct loader *l, struct err *err)
{
	struct model_config *c = &l->m->config;
	double scalar = c->head_dim, logit_cap = 0;
	int bidirectional = 0, mlp_bias = 0;

	c->embed_scale = 1;
	if (read_bool(l->text, "mlp_bias", &mlp_bias, err) < 0)
		return -1;
	if (mlp_bias)
		return err_set(err, ERR_MODEL, "mlp_bias: biases of the feed-forward layers are not supported");
	if (c->family == MODEL_GEMMA3) {
		scalar = 256;
		if (read_number(l->text, "query_pre_attn_scalar", &scalar, err) < 0 ||
			read_number(l->text, "final_logit_softcapping", &logit_cap, err) < 0 ||
			read_bool(l->text, "use_bidirectional_attention", &bidirectional, err) < 0)
			return -1;
		if (bidirectional)
			return err_set(err, ERR_MODEL, "use_bidirectional_attention is not supported");
		c->embed_scale = sqrtf((float)c->hidden);
		l->m->norm_offset = 1;
	}
	c->attention_scale = (float)(1 / sqrt(scalar));
	c->logit_softcap = (float)logit_cap;
	/* gemma3's attn_logit_softcapping stays unread: transformers never applies it, and no released model sets it. */
	return load_activation(l, err);
}

static int find_biases(struct loader *l, enum model_biases *out, struct err *err)
{
	const char *type = l->family->model_type;
	int has = 0;

	if (read_bool(l->text, "attention_bias", &has, err) < 0)
		return -1;
	if (strcmp(type, "qwen2") == 0)
		*out = MODEL_BIAS_QKV;
	else
		*out = has && strcmp(type, "mistral") != 0 ? MODEL_BIAS_QKVO : MODEL_BIAS_NONE;
	return 0;
}

/* 1 sliding, 0 full, -1 error. */
static int read_layer_type(yyjson_val *types, int i, struct err *err)
{
	const char *name = yyjson_get_str(yyjson_arr_get(types, (size_t)i));

	if (name && strcmp(name, "sliding_attention") == 0)
		return 1;
	if (name && strcmp(name, "full_attention") == 0)
		return 0;
	return err_set(err, ERR_MODEL, "layer_types: \"%.100s\" is not supported (full_attention and sliding_attention are)",
		name ? name : "?");
}

static int load_sliding(struct loader *l, struct err *err)
{
	struct model_config *c = &l->m->config;
	yyjson_val *types = find(l->text, "layer_types");
	int is_mistral = strcmp(l->family->model_type, "mistral") == 0, is_gemma = c->family == MODEL_GEMMA3;
	int window = yyjson_obj_get(l->text, "sliding_window") ? 0 : l->family->window;
	int uses = is_mistral || is_gemma, first = 28, period = 6;

	if (c->family == MODEL_LLAMA && !is_mistral)
		return 0;
	if (read_int(l->text, "sliding_window", &window, err) < 0 || read_int(l->text, "max_window_layers", &first, err) < 0 ||
		read_int(l->text, "sliding_window_pattern", &period, err) < 0 ||
		(!uses && read_bool(l->text, "use_sliding_window", &uses, err) < 0))
		return -1;
	if (!uses)
		window = 0;
	if (is_mistral)
		types = NULL; /* transformers does not look at them either: all layers slide */
	if (types && (!yyjson_is_arr(types) || yyjson_arr_size(types) != (size_t)c->n_layers))
		return err_set(err, ERR_MODEL, "layer_types is not a list of %d names", c->n_layers);
	if (is_gemma && period == 0)
		return err_set(err, ERR_MODEL, "sliding_window_pattern is 0");
	for (int i = 0; i < c->n_layers; i++) {
		int slides = is_gemma ? (i + 1) % period != 0 : window > 0 && (is_mistral || i >= first);

		if (types)
			slides = read_layer_type(types, i, err);
		if (slides < 0)
			return -1;
		if (slides && window == 0)
			return err_set(err, ERR_MODEL, "layer %d slides, but sliding_window is not given or not used", i);
		l->m->layers[i].sliding = slides;
		if (slides)
			c->sliding_window = window;
	}
	return 0;
}

static int read_scaling_type(yyjson_val *dict, enum rope_scaling *out, struct err *err)
{
	yyjson_val *v = find(dict, "rope_type");
	const char *name;

	if (!v)
		v = find(dict, "type");
	name = v ? yyjson_get_str(v) : "default";
	if (!name || !rope_scaling_find(name, out))
		return err_set(err, ERR_MODEL, "rope scaling \"%.100s\" is not supported (default, linear, llama3 and yarn are)",
			name ? name : "?");
	return 0;
}

/* dict: rope_scaling, or rope_parameters, or what these say of one type of layers; NULL: nothing is said. */
static int load_rope(struct loader *l, yyjson_val *dict, double theta, struct rope *out, struct err *err)
{
	struct model_config *c = &l->m->config;
	struct rope_spec s = {.head_dim = c->head_dim, .theta = theta, .original_context = l->max_positions, .beta_fast = 32,
		.beta_slow = 1, .attention_factor = -1};
	double partial = 1, factor = 0;
	int truncates = 1;

	if (dict && !yyjson_is_obj(dict))
		return err_set(err, ERR_MODEL, "rope_scaling or rope_parameters is %s, not an object", json_type_name(dict));
	if (read_scaling_type(dict, &s.scaling, err) < 0 || read_number(dict, "rope_theta", &s.theta, err) < 0 ||
		read_number(l->text, "partial_rotary_factor", &partial, err) < 0 ||
		read_number(dict, "partial_rotary_factor", &partial, err) < 0)
		return -1;
	if (!(partial > 0 && partial <= 1))
		return err_set(err, ERR_MODEL, "partial_rotary_factor is %g, not between 0 and 1", partial);
	s.dim = (int)(c->head_dim * partial);
	if (s.scaling == ROPE_DEFAULT)
		return rope_init(out, &s, err);
	if (read_number(dict, "factor", &factor, err) < 0 ||
		read_number(dict, "original_max_position_embeddings", &s.original_context, err) < 0 ||
		read_number(l->text, "original_max_position_embeddings", &s.original_context, err) < 0 ||
		read_number(dict, "low_freq_factor", &s.low_freq_factor, err) < 0 ||
		read_number(dict, "high_freq_factor", &s.high_freq_factor, err) < 0 ||
		read_number(dict, "beta_fast", &s.beta_fast, err) < 0 || read_number(dict, "beta_slow", &s.beta_slow, err) < 0 ||
		read_number(dict, "attention_factor", &s.attention_factor, err) < 0 ||
		read_number(dict, "mscale", &s.mscale, err) < 0 || read_number(dict, "mscale_all_dim", &s.mscale_all_dim, err) < 0 ||
		read_bool(dict, "truncate", &truncates, err) < 0)
		return -1;
	s.no_truncate = !truncates;
	s.factor = find(dict, "factor") ? factor : s.scaling == ROPE_YARN ? l->max_positions / s.original_context : 0;
	if (rope_init(out, &s, err) < 0)
		return -1;
	/* A yarn configuration gives the context before or after stretching; what it is stretched to is the same. */
	if (s.scaling == ROPE_YARN && s.original_context * s.factor > c->n_context && s.original_context * s.factor < INT_MAX)
		c->n_context = (int)(s.original_context * s.factor);
	return 0;
}

/* Three spellings: rope_theta and rope_scaling; rope_parameters (transformers 5); rope_parameters by type of layer (gemma3). */
static int load_ropes(struct loader *l, struct err *err)
{
	struct model_config *c = &l->m->config;
	yyjson_val *scaling = find(l->text, "rope_scaling"), *parameters = find(l->text, "rope_parameters");
	yyjson_val *full = parameters ? find(parameters, "full_attention") : NULL;
	yyjson_val *sliding = parameters ? find(parameters, "sliding_attention") : NULL;
	double theta = l->family->theta, local_theta = 1e4;

	if (yyjson_is_obj(scaling) && yyjson_obj_size(scaling) == 0)
		scaling = NULL;
	if (read_number(l->text, "rope_theta", &theta, err) < 0 ||
		read_number(l->text, "rope_local_base_freq", &local_theta, err) < 0)
		return -1;
	if (c->family != MODEL_GEMMA3) {
		if (full || sliding)
			return err_set(err, ERR_MODEL, "rope_parameters by type of layer are not supported in this family");
		if (load_rope(l, scaling ? scaling : parameters, theta, &c->rope, err) < 0)
			return -1;
		return load_rope(l, scaling ? scaling : parameters, theta, &c->rope_local, err);
	}
	if (parameters && !full && !sliding && yyjson_obj_size(parameters) > 0)
		return err_set(err, ERR_MODEL, "rope_parameters are not given by type of layer");
	if (load_rope(l, scaling ? scaling : full, theta, &c->rope, err) < 0)
		return -1;
	return load_rope(l, sliding, local_theta, &c->rope_local, err);
}

static int find_tensor(const struct model_files *files, const char *name, struct tensor *out, struct err *err)
{
	return safetensors_find_tensor(files->safetensors, name, out, err);
}

static size_t count_tensors(const struct model_files *files)
{
	return safetensors_n_tensors(files->safetensors);
}

static const char *tensor_name_at(const struct model_files *files, size_t i)
{
	return safetensors_name_at(files->safetensors, i);
}

/* The vision half of gemma3, and frequencies that old checkpoints carry and everyone computes anew. */
static int may_ignore(const char *name)
{
	static const char *const prefixes[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
		"model.multi_modal_projector."};
	static const char suffix[] = ".rotary_emb.inv_freq";
	size_t n = strlen(name);

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return 1;
	}
	return n >= sizeof(suffix) && strcmp(name + n - (sizeof(suffix) - 1), suffix) == 0;
}

/* A text model stands alone, or inside a model of text and images in an older and a newer place. */
static void find_prefix(const struct safetensors *st, struct tensor_source *source)
{
	static const struct {
		const char *prefix, *embed, *head;
	} known[] = {
		{"model.", "model.embed_tokens.weight", "lm_head.weight"},
		{"language_model.model.", "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"},
		{"model.language_model.", "model.language_model.embed_tokens.weight", "lm_head.weight"},
	};

	for (size_t i = sizeof(known) / sizeof(known[0]); i-- > 0;) {
		struct tensor t;
		struct err ignored = {0};

		if (i == 0 || safetensors_find_tensor(st, known[i].embed, &t, &ignored) != 0) {
			source->prefix = known[i].prefix;
			source->head_name = known[i].head;
			return;
		}
	}
}

static int load_tensors(struct loader *l, const char *dir, struct err *err)
{
	struct tensor_source source = {.find = find_tensor, .count = count_tensors, .name_at = tensor_name_at,
		.may_ignore = may_ignore, .tied = l->family->tied};

	l->m->files->safetensors = safetensors_open_dir(dir, err);
	if (!l->m->files->safetensors)
		return -1;
	if (read_bool(l->root, "tie_word_embeddings", &source.tied, err) < 0 ||
		read_bool(l->text, "tie_word_embeddings", &source.tied, err) < 0 ||
		read_int(l->text, "vocab_size", &source.n_vocab, err) < 0 || find_biases(l, &source.biases, err) < 0)
		return -1;
	find_prefix(l->m->files->safetensors, &source);
	return model_place_tensors(l->m, &source, err);
}

static int load_config(struct loader *l, struct err *err)
{
	struct model *m = l->m;

	if (!yyjson_is_obj(l->root))
		return err_set(err, ERR_MODEL, "not a JSON object");
	if (find_family(l, err) < 0 || refuse_quantized(l->root, "quantization_config", err) < 0 ||
		refuse_quantized(l->text, "quantization_config", err) < 0 || refuse_quantized(l->root, "compression_config", err) < 0 ||
		load_sizes(l, err) < 0 || load_switches(l, err) < 0 || model_check_config(&m->config, err) < 0 ||
		load_ropes(l, err) < 0)
		return -1;
	m->layers = xcalloc((size_t)m->config.n_layers, sizeof(*m->layers));
	return load_sliding(l, err);
}

int model_load_hf(struct model *m, const char *dir, struct err *err)
{
	struct loader l = {.m = m};
	char *path = file_join(dir, "config.json");
	yyjson_doc *doc = NULL;
	int rc = -1;

	if (!file_exists(path)) {
		err_set(err, ERR_MODEL, "%s is missing: not a Hugging Face model directory", path);
		goto out;
	}
	doc = json_parse_file(path, CONFIG_BYTES_MAX, ERR_MODEL, err);
	if (!doc)
		goto out;
	l.root = yyjson_doc_get_root(doc);
	if (load_config(&l, err) < 0) {
		err_context(err, "%s", path);
		goto out;
	}
	rc = load_tensors(&l, dir, err);
	if (rc < 0)
		err_context(err, "%s", dir);
out:
	yyjson_doc_free(doc);
	free(path);
	return rc;
}
