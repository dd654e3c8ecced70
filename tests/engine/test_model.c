/* Tests of model_open: the golden models of tests/engine/goldens, and configurations that must be refused or read in a certain
 * way. */
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model.h"
#include "engine/model/model_load.h"
#include "tests/check.h"
#include "tests/text/gguf_build.h"

static char *golden_path(const char *name)
{
	const char *root = getenv("TOKENMILL_SOURCE");
	struct buf b = {0};

	buf_addf(&b, "%s/tests/engine/goldens/%s", root ? root : ".", name);
	return buf_detach(&b);
}

static struct model *open_golden(const char *name)
{
	char *path = golden_path(name);
	struct err err = {0};
	struct model *m = model_open(path, &err);

	if (!m)
		printf("%s\n", err.msg);
	free(path);
	return m;
}

static const struct expected {
	const char *name;
	enum model_family family;
	int n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn_hidden, tied;
	int window;
	const char *sliding; /* s or f for each layer */
	int has_qkv_bias, has_o_bias;
	enum tensor_type q_type;
} expected[] = {
	{"tiny-chat", MODEL_LLAMA, 2, 64, 4, 2, 16, 128, 1, 0, "ff", 0, 0, TENSOR_BF16},
	{"llama", MODEL_LLAMA, 2, 36, 6, 2, 16, 72, 0, 0, "ff", 1, 1, TENSOR_F32},
	{"llama.gguf", MODEL_LLAMA, 2, 36, 6, 2, 16, 72, 0, 0, "ff", 1, 1, TENSOR_F32},
	{"llama-linear", MODEL_LLAMA, 2, 36, 6, 2, 16, 72, 1, 0, "ff", 0, 0, TENSOR_F16},
	{"llama3", MODEL_LLAMA, 3, 36, 6, 2, 16, 72, 0, 0, "fff", 0, 0, TENSOR_BF16},
	{"llama3.gguf", MODEL_LLAMA, 3, 36, 6, 2, 16, 72, 0, 0, "fff", 0, 0, TENSOR_BF16},
	{"llama-yarn", MODEL_LLAMA, 2, 36, 6, 2, 16, 72, 1, 0, "ff", 0, 0, TENSOR_BF16},
	{"llama-yarn.gguf", MODEL_LLAMA, 2, 36, 6, 2, 16, 72, 1, 0, "ff", 0, 0, TENSOR_BF16},
	{"mistral", MODEL_LLAMA, 2, 36, 3, 3, 16, 72, 0, 12, "ss", 0, 0, TENSOR_BF16},
	{"qwen2", MODEL_QWEN2, 2, 42, 7, 1, 8, 66, 0, 0, "ff", 1, 0, TENSOR_BF16},
	{"qwen2.gguf", MODEL_QWEN2, 2, 42, 7, 1, 8, 66, 0, 0, "ff", 1, 0, TENSOR_BF16},
	{"qwen2-sliding", MODEL_QWEN2, 3, 42, 7, 1, 8, 66, 1, 10, "fss", 1, 0, TENSOR_BF16},
	{"qwen3", MODEL_QWEN3, 2, 36, 6, 3, 16, 72, 1, 0, "ff", 0, 0, TENSOR_F16},
	{"qwen3.gguf", MODEL_QWEN3, 2, 36, 6, 3, 16, 72, 1, 0, "ff", 0, 0, TENSOR_F16},
	{"gemma3", MODEL_GEMMA3, 4, 36, 4, 2, 16, 72, 1, 8, "ssfs", 0, 0, TENSOR_BF16},
	{"gemma3.gguf", MODEL_GEMMA3, 4, 36, 4, 2, 16, 72, 1, 8, "ssfs", 0, 0, TENSOR_BF16},
	{"gemma3-old", MODEL_GEMMA3, 3, 36, 4, 2, 16, 72, 1, 8, "ssf", 0, 0, TENSOR_BF16},
	{"gemma3-vision", MODEL_GEMMA3, 2, 36, 4, 2, 16, 72, 1, 8, "sf", 0, 0, TENSOR_BF16},
	{"q8_0.gguf", MODEL_LLAMA, 2, 64, 4, 2, 16, 96, 1, 0, "ff", 0, 0, TENSOR_Q8_0},
	{"q4_0.gguf", MODEL_LLAMA, 2, 64, 4, 2, 16, 96, 1, 0, "ff", 0, 0, TENSOR_Q4_0},
	{"q4_1.gguf", MODEL_LLAMA, 2, 64, 4, 2, 16, 96, 1, 0, "ff", 0, 0, TENSOR_Q4_1},
	{"q5_0.gguf", MODEL_LLAMA, 2, 64, 4, 2, 16, 96, 1, 0, "ff", 0, 0, TENSOR_Q5_0},
	{"q5_1.gguf", MODEL_LLAMA, 2, 64, 4, 2, 16, 96, 1, 0, "ff", 0, 0, TENSOR_Q5_1},
	{"k-quants.gguf", MODEL_LLAMA, 1, 256, 8, 1, 32, 256, 1, 0, "f", 0, 0, TENSOR_Q3_K},
};

static void check_config(const struct expected *e, const struct model *m)
{
	const struct model_config *c = &m->config;
	int is_gguf = strstr(e->name, ".gguf") != NULL, is_gemma = e->family == MODEL_GEMMA3;

	CHECK_INT(c->family, e->family);
	CHECK_INT(c->n_layers, e->n_layers);
	CHECK_INT(c->hidden, e->hidden);
	CHECK_INT(c->n_heads, e->n_heads);
	CHECK_INT(c->n_kv_heads, e->n_kv_heads);
	CHECK_INT(c->head_dim, e->head_dim);
	CHECK_INT(c->ffn_hidden, e->ffn_hidden);
	CHECK_INT(c->n_vocab, 320);
	CHECK_INT(c->n_context, 4096);
	CHECK_INT(c->tied_output, e->tied);
	CHECK(e->tied ? m->output.data == m->embed.data : m->output.data != m->embed.data);
	CHECK_INT(c->sliding_window, e->window);
	CHECK_INT(c->activation, is_gemma ? ACT_GELU_TANH : ACT_SILU);
	CHECK_NEAR(c->norm_eps, 1e-5, 1e-12);
	CHECK_NEAR(c->embed_scale, is_gemma ? 6 : 1, 0);
	CHECK_NEAR(c->attention_scale, strncmp(e->name, "gemma3-", 7) == 0 ? 1 / sqrt(24) : 1 / sqrt(c->head_dim), 1e-7);
	CHECK_NEAR(m->norm_offset, is_gemma && !is_gguf ? 1 : 0, 0);
	CHECK_INT(c->rope.interleaved, is_gguf && e->family == MODEL_LLAMA);
	CHECK_INT(c->rope_local.interleaved, c->rope.interleaved);
	CHECK_NEAR(c->logit_softcap, strcmp(e->name, "gemma3-old") == 0 ? 10 : 0, 0);
	CHECK_NEAR(c->attention_softcap, 0, 0); /* gemma3-old sets one, which transformers ignores */
	CHECK_INT(strlen(m->fingerprint), 64);
}

static void check_layers(const struct expected *e, const struct model *m)
{
	for (int i = 0; i < e->n_layers; i++) {
		const struct model_layer *l = &m->layers[i];
		int has_qk_norm = e->family == MODEL_QWEN3 || e->family == MODEL_GEMMA3, is_gemma = e->family == MODEL_GEMMA3;

		CHECK_INT(l->sliding, e->sliding[i] == 's');
		CHECK(l->attn_norm.data && l->k.data && l->v.data && l->o.data && l->ffn_norm.data && l->gate.data && l->up.data);
		CHECK_INT(l->down.shape[0], e->hidden);
		CHECK_INT(l->down.shape[1], e->ffn_hidden);
		CHECK_INT(l->q.shape[0], e->n_heads * e->head_dim);
		CHECK_INT(l->k.shape[0], e->n_kv_heads * e->head_dim);
		CHECK_INT(l->q_bias.data != NULL, e->has_qkv_bias);
		CHECK_INT(l->v_bias.data != NULL, e->has_qkv_bias);
		CHECK_INT(l->o_bias.data != NULL, e->has_o_bias);
		CHECK_INT(l->q_norm.data != NULL, has_qk_norm);
		CHECK_INT(l->post_attn_norm.data != NULL, is_gemma);
		CHECK_INT(l->post_ffn_norm.data != NULL, is_gemma);
	}
	CHECK_INT(m->layers[0].q.type, e->q_type);
}

static void check_frequencies(const char *name, const struct rope *r, yyjson_val *want)
{
	size_t i, max;
	yyjson_val *v;

	CHECK_INT(r->dim / 2, yyjson_arr_size(want));
	yyjson_arr_foreach(want, i, max, v)
	{
		double f = yyjson_get_num(v);

		/* transformers computes in f32, we in double: a little more than f32's rounding is the reference's own. */
		if (!(fabs((double)r->inv_freq[i] - f) <= 2e-6 * f)) {
			printf("%s: frequency %zu is %.9g, transformers has %.9g\n", name, i, (double)r->inv_freq[i], f);
			CHECK(0);
		}
	}
}

/* The golden of NAME.gguf is NAME/golden.json or NAME.golden.json. */
static yyjson_doc *read_golden(const char *name)
{
	size_t n = strlen(name);
	int is_gguf = n > 5 && strcmp(name + n - 5, ".gguf") == 0;
	struct buf file = {0};
	struct err err = {0};
	yyjson_doc *doc;
	char *path;

	buf_add(&file, name, is_gguf ? n - 5 : n);
	buf_adds(&file, "/golden.json");
	path = golden_path(file.data);
	if (is_gguf && !file_exists(path)) {
		free(path);
		buf_truncate(&file, n - 5);
		buf_adds(&file, ".golden.json");
		path = golden_path(file.data);
	}
	doc = json_parse_file(path, 1 << 24, ERR_OTHER, &err);
	CHECK_STR(err.msg, "");
	free(path);
	buf_release(&file);
	return doc;
}

TEST(goldens)
{
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		const struct expected *e = &expected[i];
		struct model *m = open_golden(e->name);
		yyjson_doc *doc = read_golden(e->name);
		yyjson_val *rope = yyjson_obj_get(yyjson_doc_get_root(doc), "rope"), *local = yyjson_arr_get(rope, 2);
		struct buf text = {0};

		CHECK(m != NULL && doc != NULL);
		if (m && doc) {
			check_config(e, m);
			check_layers(e, m);
			check_frequencies(e->name, &m->config.rope, yyjson_arr_get(rope, 0));
			check_frequencies(e->name, &m->config.rope_local, local ? local : yyjson_arr_get(rope, 0));
			CHECK_NEAR(m->config.rope.attention_factor, yyjson_get_num(yyjson_arr_get(rope, 1)), 1e-6);
			model_drop_pages(m);
			model_describe(m, &text);
			CHECK(strstr(text.data, m->fingerprint) != NULL);
		}
		if (check_failed_now)
			printf("... in %s\n", e->name);
		buf_release(&text);
		yyjson_doc_free(doc);
		model_free(m);
	}
}

static float *decode(const struct tensor *t)
{
	int64_t n = tensor_n_elements(t), cols = t->shape[t->n_dims - 1];
	float *x = xcalloc((size_t)n, sizeof(*x));

	for (int64_t r = 0; r < n / cols; r++)
		dequantize_row(t->type, (const char *)t->data + (size_t)r * tensor_row_bytes(t->type, cols), x + r * cols, cols);
	return x;
}

/* Row of the GGUF that holds row r of the Hugging Face tensor, when pairs are neighbours. */
static int64_t permuted(int64_t r, int head_dim)
{
	int64_t head = r / head_dim, within = r % head_dim, half = head_dim / 2;

	return head * head_dim + within % half * 2 + within / half;
}

static void check_same(const struct tensor *hf, const struct tensor *gguf, float offset, int head_dim)
{
	float *a = decode(hf), *b = decode(gguf);
	int64_t n = tensor_n_elements(hf), cols = hf->n_dims == 2 ? hf->shape[1] : 1;

	CHECK_INT(n, tensor_n_elements(gguf));
	for (int64_t r = 0; r < n / cols; r++) {
		int64_t s = head_dim ? permuted(r, head_dim) : r;

		for (int64_t c = 0; c < cols; c++) {
			if (a[r * cols + c] + offset != b[s * cols + c]) {
				printf("%s and %s differ in row %lld\n", hf->name, gguf->name, (long long)r);
				CHECK(0);
				r = n;
				break;
			}
		}
	}
	free(a);
	free(b);
}

/* The two kinds of file hold the same model: rows permuted for llama, norms with their 1 for gemma. */
TEST(gguf_equals_hf)
{
	static const char *const names[] = {"llama", "llama3", "llama-yarn", "qwen2", "qwen3", "gemma3"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct buf file = {0};
		struct model *h = open_golden(names[i]), *g;
		int permutes = h->config.family == MODEL_LLAMA ? h->config.head_dim : 0;

		buf_addf(&file, "%s.gguf", names[i]);
		g = open_golden(file.data);
		check_same(&h->embed, &g->embed, 0, 0);
		check_same(&h->output, &g->output, 0, 0);
		check_same(&h->final_norm, &g->final_norm, h->norm_offset, 0);
		for (int k = 0; k < h->config.n_layers; k++) {
			const struct model_layer *a = &h->layers[k], *b = &g->layers[k];

			check_same(&a->q, &b->q, 0, permutes);
			check_same(&a->k, &b->k, 0, permutes);
			check_same(&a->v, &b->v, 0, 0);
			check_same(&a->o, &b->o, 0, 0);
			check_same(&a->down, &b->down, 0, 0);
			check_same(&a->attn_norm, &b->attn_norm, h->norm_offset, 0);
			check_same(&a->ffn_norm, &b->ffn_norm, h->norm_offset, 0);
			if (a->q_bias.data)
				check_same(&a->q_bias, &b->q_bias, 0, permutes);
			if (a->q_norm.data)
				check_same(&a->q_norm, &b->q_norm, h->norm_offset, 0);
			if (a->post_attn_norm.data)
				check_same(&a->post_attn_norm, &b->post_attn_norm, h->norm_offset, 0);
			if (a->post_ffn_norm.data)
				check_same(&a->post_ffn_norm, &b->post_ffn_norm, h->norm_offset, 0);
		}
		model_free(h);
		model_free(g);
		buf_release(&file);
	}
}

/* A model directory with the golden's weights and another config.json. Returns its path. */
static const char *make_dir(const char *golden, const char *config)
{
	static const char *const files[] = {"model.safetensors"};
	char *from = golden_path(golden);
	struct err err = {0};

	file_make_dirs("variant", &err);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char *target = file_join(from, files[i]), *link = file_join("variant", files[i]);

		unlink(link);
		CHECK_INT(symlink(target, link), 0);
		free(target);
		free(link);
	}
	CHECK_INT(file_write_atomic("variant/config.json", config, strlen(config), &err), 0);
	free(from);
	return "variant";
}

/* The golden's config.json with the members of `patch` (a JSON object) in place of its own; "key": "<absent>" removes. */
static char *patched_config(const char *golden, const char *patch)
{
	char *dir = golden_path(golden), *path = file_join(dir, "config.json");
	struct err err = {0};
	yyjson_doc *old = json_parse_file(path, 1 << 20, ERR_OTHER, &err);
	yyjson_doc *change = json_parse(patch, strlen(patch), ERR_OTHER, &err);
	yyjson_mut_doc *doc = yyjson_doc_mut_copy(old, NULL);
	size_t i, max;
	yyjson_val *key, *val;
	char *text;

	CHECK_STR(err.msg, "");
	yyjson_obj_foreach(yyjson_doc_get_root(change), i, max, key, val)
	{
		yyjson_mut_obj_remove_key(yyjson_mut_doc_get_root(doc), yyjson_get_str(key));
		if (!yyjson_equals_str(val, "<absent>"))
			yyjson_mut_obj_add(yyjson_mut_doc_get_root(doc), yyjson_val_mut_copy(doc, key), yyjson_val_mut_copy(doc, val));
	}
	text = yyjson_mut_write(doc, 0, NULL);
	yyjson_mut_doc_free(doc);
	yyjson_doc_free(old);
	yyjson_doc_free(change);
	free(path);
	free(dir);
	return text;
}

static struct model *open_patched(const char *golden, const char *patch, struct err *err)
{
	char *config = patched_config(golden, patch);
	struct model *m;

	*err = (struct err){0};
	m = model_open(make_dir(golden, config), err);
	free(config);
	return m;
}

TEST(refused_configurations)
{
	static const struct {
		const char *golden, *patch, *message;
	} cases[] = {
		{"llama", "{\"architectures\":[\"FalconForCausalLM\"]}", "architecture \"FalconForCausalLM\" is not supported"},
		{"llama", "{\"architectures\":[\"MixtralForCausalLM\"]}", "\"MixtralForCausalLM\" is not supported"},
		{"llama", "{\"architectures\":\"<absent>\",\"model_type\":\"mamba\"}", "architecture \"mamba\" is not supported"},
		{"llama", "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}}", "quantised by \"awq\" are not supported"},
		{"llama", "{\"quantization_config\":{\"quant_method\":\"fp8\"}}", "\"fp8\""},
		{"llama", "{\"hidden_act\":\"relu\"}", "hidden_act \"relu\" is not supported"},
		{"llama", "{\"mlp_bias\":true}", "mlp_bias"},
		{"llama", "{\"attention_bias\":false}", "_proj.bias is not part of a llama model"},
		{"llama", "{\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":2}}",
			"rope scaling \"dynamic\" is not supported"},
		{"llama", "{\"rope_scaling\":{\"type\":\"su\"}}", "rope scaling \"su\""},
		{"llama", "{\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "rope scaling \"longrope\""},
		{"llama", "{\"rope_scaling\":{\"rope_type\":\"linear\"}}", "factor is 0, not positive"},
		{"llama", "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", "high_freq_factor is 0"},
		{"llama", "{\"rope_scaling\":[1]}", "is array, not an object"},
		{"llama", "{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":-1}}", "base frequency is -1"},
		{"llama", "{\"partial_rotary_factor\":1.5}", "partial_rotary_factor is 1.5"},
		{"llama", "{\"partial_rotary_factor\":0.2}", "3 rotated elements of a head of 16, not an even part"},
		{"llama", "{\"rms_norm_eps\":0}", "epsilon"},
		{"llama", "{\"rms_norm_eps\":\"1e-5\"}", "rms_norm_eps is string, not a number"},
		{"llama", "{\"num_attention_heads\":0}", "the number of attention heads is 0"},
		{"llama", "{\"num_key_value_heads\":4}", "6 attention heads cannot be shared by 4"},
		{"llama", "{\"num_key_value_heads\":0}", "the number of key-value heads is 0"},
		{"llama", "{\"num_hidden_layers\":-1}", "num_hidden_layers is -1"},
		{"llama", "{\"num_hidden_layers\":1e9}", "the number of layers is 1000000000"},
		{"llama", "{\"num_hidden_layers\":2.5}", "num_hidden_layers is 2.5"},
		{"llama", "{\"num_hidden_layers\":3}", "tensor model.layers.2.input_layernorm.weight is missing"},
		{"llama", "{\"num_hidden_layers\":1}", "tensor model.layers.1."},
		{"llama", "{\"num_hidden_layers\":\"<absent>\"}", "num_hidden_layers is missing"},
		{"llama", "{\"hidden_size\":48}", "shape is [320, 36], the configuration says [320, 48]"},
		{"llama", "{\"head_dim\":8}", "self_attn.q_proj.weight: shape is [96, 36], the configuration says [48, 36]"},
		{"llama", "{\"head_dim\":15}", "15 rotated elements"},
		{"llama", "{\"intermediate_size\":71}", "mlp.gate_proj.weight: shape is [72, 36], the configuration says [71, 36]"},
		{"llama", "{\"vocab_size\":319}", "model.embed_tokens.weight: shape is [320, 36], the configuration says [319, 36]"},
		{"llama", "{\"tie_word_embeddings\":1}", "tie_word_embeddings is integer, not a boolean"},
		{"tiny-chat", "{\"tie_word_embeddings\":false}", "tensor lm_head.weight is missing"},
		{"qwen2-sliding", "{\"layer_types\":[\"full_attention\"]}", "layer_types is not a list of 3 names"},
		{"qwen2-sliding", "{\"layer_types\":[\"full_attention\",\"linear_attention\",\"full_attention\"]}",
			"\"linear_attention\""},
		{"qwen2-sliding", "{\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"],"
			"\"use_sliding_window\":false}", "layer 1 slides, but sliding_window is not given or not used"},
		{"gemma3", "{\"use_bidirectional_attention\":true}", "use_bidirectional_attention is not supported"},
		{"gemma3", "{\"sliding_window\":null}", "layer 0 slides, but sliding_window is not given"},
		{"gemma3", "{\"query_pre_attn_scalar\":0}", "attention scale"},
		{"gemma3", "{\"rope_parameters\":{\"rope_type\":\"default\"}}", "rope_parameters are not given by type of layer"},
		{"gemma3-old", "{\"sliding_window_pattern\":0}", "sliding_window_pattern is 0"},
		{"gemma3-old", "{\"final_logit_softcapping\":-1}", "soft cap"},
		{"gemma3-vision", "{\"text_config\":7}", "text_config is integer, not an object"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err;
		struct model *m = open_patched(cases[i].golden, cases[i].patch, &err);

		if (m || err.code != ERR_MODEL || !strstr(err.msg, cases[i].message) || !strstr(err.msg, "variant")) {
			printf("%s: \"%s\", expected \"%s\"\n", cases[i].patch, err.msg, cases[i].message);
			CHECK(0);
		}
		model_free(m);
	}
}

TEST(accepted_configurations)
{
	struct err err;
	struct model *m = open_patched("llama", "{\"architectures\":\"<absent>\"}", &err);

	CHECK(m && m->config.family == MODEL_LLAMA);
	model_free(m);
	/* rope_scaling goes before rope_parameters; yarn without an original context stretches max_position_embeddings. */
	m = open_patched("llama", "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0},\"rope_theta\":5e5}", &err);
	CHECK(m && m->config.n_context == 16384);
	CHECK_NEAR(m->config.rope.attention_factor, 0.1 * log(4) + 1, 1e-6);
	CHECK(m && memcmp(m->config.rope.inv_freq, m->config.rope_local.inv_freq, sizeof(float) * 8) == 0);
	model_free(m);
	m = open_patched("llama",
		"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":1024}}", &err);
	CHECK(m && m->config.n_context == 4096);
	model_free(m);
	m = open_patched("llama", "{\"rope_scaling\":null,\"partial_rotary_factor\":0.5}", &err);
	CHECK(m && m->config.rope.dim == 8 && m->config.n_context == 4096);
	model_free(m);
	/* llama takes no notice of a window; mistral slides by default, and not when told null. */
	m = open_patched("llama", "{\"sliding_window\":7}", &err);
	CHECK(m && m->config.sliding_window == 0 && !m->layers[0].sliding);
	model_free(m);
	m = open_patched("mistral", "{\"sliding_window\":\"<absent>\"}", &err);
	CHECK(m && m->config.sliding_window == 4096 && m->layers[1].sliding);
	model_free(m);
	m = open_patched("mistral", "{\"sliding_window\":null}", &err);
	CHECK(m && m->config.sliding_window == 0 && !m->layers[1].sliding);
	model_free(m);
	m = open_patched("qwen2-sliding", "{\"use_sliding_window\":false,\"layer_types\":\"<absent>\"}", &err);
	CHECK(m && m->config.sliding_window == 0 && !m->layers[2].sliding);
	model_free(m);
	/* The configuration says tied, the file has another output matrix: transformers uses it, and so do we. */
	m = open_patched("llama", "{\"tie_word_embeddings\":true}", &err);
	CHECK(m && !m->config.tied_output && strcmp(m->output.name, "lm_head.weight") == 0);
	model_free(m);
}

TEST(every_truncated_config)
{
	char *config = patched_config("llama", "{}");
	size_t n = strlen(config);

	for (size_t i = 0; i < n; i++) {
		struct err err = {0};
		char *part = xmemdup(config, i);
		struct model *m = model_open(make_dir("llama", part), &err);

		CHECK(m == NULL && err.code == ERR_MODEL);
		model_free(m);
		free(part);
	}
	free(config);
}

TEST(paths)
{
	struct err err = {0};

	CHECK(model_open("absent", &err) == NULL);
	CHECK(strstr(err.msg, "absent: no such file or directory") != NULL);
	err = (struct err){0};
	file_make_dirs("empty", &err);
	CHECK(model_open("empty", &err) == NULL);
	CHECK(strstr(err.msg, "empty/config.json is missing: not a Hugging Face model directory") != NULL);
	err = (struct err){0};
	file_write_atomic("text.gguf", "hello", 5, &err);
	CHECK(model_open("text.gguf", &err) == NULL);
	CHECK_STR(err.msg, "text.gguf: not a GGUF file");
}

/* A one-layer llama of hidden size 8. */
static void build_llama(struct gguf_build *g)
{
	static const struct {
		const char *name;
		int cols, rows;
	} tensors[] = {
		{"token_embd.weight", 8, 10}, {"output_norm.weight", 8, 0}, {"blk.0.attn_norm.weight", 8, 0},
		{"blk.0.attn_q.weight", 8, 8}, {"blk.0.attn_k.weight", 8, 4}, {"blk.0.attn_v.weight", 8, 4},
		{"blk.0.attn_output.weight", 8, 8},
		{"blk.0.ffn_norm.weight", 8, 0}, {"blk.0.ffn_gate.weight", 8, 12}, {"blk.0.ffn_up.weight", 8, 12},
		{"blk.0.ffn_down.weight", 12, 8},
	};

	gguf_build_begin(g);
	put_text(g, "general.architecture", "llama");
	put_u32(g, "llama.block_count", 1);
	put_u32(g, "llama.context_length", 64);
	put_u32(g, "llama.embedding_length", 8);
	put_u32(g, "llama.feed_forward_length", 12);
	put_u32(g, "llama.attention.head_count", 2);
	put_u32(g, "llama.attention.head_count_kv", 1);
	put_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
	/* Keys that a test adds come before this. */
	for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++)
		put_tensor(g, tensors[i].name, TENSOR_F32, tensors[i].cols, tensors[i].rows);
}

static struct model *open_built(struct gguf_build *g, struct err *err)
{
	struct model *m;

	gguf_build_end(g);
	*err = (struct err){0};
	CHECK_INT(file_write_atomic("built.gguf", g->b.data, g->b.len, err), 0);
	m = model_open("built.gguf", err);
	buf_release(&g->b);
	return m;
}

/* The llama with more metadata, which must come before the tensors: `extra` holds the bytes of n_keys keys. */
static struct model *open_with(const struct gguf_build *extra, struct err *err)
{
	struct gguf_build g, all;
	size_t head;

	build_llama(&g);
	gguf_build_begin(&all);
	head = all.b.len;
	buf_add(&all.b, extra->b.data + head, extra->b.len - head);
	buf_add(&all.b, g.b.data + head, g.b.len - head);
	all.n_keys = extra->n_keys + g.n_keys;
	all.n_tensors = g.n_tensors;
	all.data_bytes = g.data_bytes;
	buf_release(&g.b);
	return open_built(&all, err);
}

static void expect_gguf_refusal(struct gguf_build *extra, const char *message)
{
	struct err err;
	struct model *m = open_with(extra, &err);

	if (m || err.code != ERR_MODEL || !strstr(err.msg, message) || strncmp(err.msg, "built.gguf: ", 12) != 0) {
		printf("\"%s\", expected \"%s\"\n", err.msg, message);
		CHECK(0);
	}
	model_free(m);
	buf_release(&extra->b);
	gguf_build_begin(extra);
}

TEST(gguf_metadata)
{
	struct gguf_build x;
	struct err err;
	struct model *m;

	gguf_build_begin(&x);
	m = open_with(&x, &err);
	CHECK_STR(err.msg, "");
	CHECK(m && m->config.head_dim == 4 && m->config.n_vocab == 10 && m->config.tied_output && m->config.rope.dim == 4);
	CHECK(m && m->config.rope.interleaved && m->config.n_context == 64);
	CHECK_INT(m ? m->n_parameters : 0, 80 + 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 96);
	model_free(m);
	put_u32(&x, "llama.rope.dimension_count", 2);
	put_f32(&x, "llama.rope.freq_base", 500.0f);
	put_u32(&x, "llama.attention.sliding_window", 5);
	m = open_with(&x, &err);
	CHECK(m && m->config.rope.dim == 2 && m->layers[0].sliding && m->config.sliding_window == 5);
	model_free(m);
	buf_release(&x.b);
	gguf_build_begin(&x);
	put_text(&x, "llama.rope.scaling.type", "yarn");
	put_f32(&x, "llama.rope.scaling.factor", 4);
	put_u32(&x, "llama.rope.scaling.original_context_length", 64);
	m = open_with(&x, &err);
	CHECK(m && m->config.n_context == 256);
	CHECK_NEAR(m->config.rope.attention_factor, 0.1 * log(4) + 1, 1e-6);
	model_free(m);
	buf_release(&x.b);
	gguf_build_begin(&x);
	put_f32(&x, "llama.rope.scale_linear", 2);
	m = open_with(&x, &err);
	CHECK(m && m->config.rope.inv_freq[0] == 0.5f);
	model_free(m);
	buf_release(&x.b);
}

TEST(gguf_refusals)
{
	struct gguf_build x;

	gguf_build_begin(&x);
	put_u32(&x, "llama.expert_count", 8);
	expect_gguf_refusal(&x, "llama.expert_count is 8: mixtures of experts are not supported");
	put_text(&x, "llama.rope.scaling.type", "longrope");
	expect_gguf_refusal(&x, "llama.rope.scaling.type is \"longrope\", which is not supported");
	put_u32(&x, "llama.attention.value_length", 8);
	expect_gguf_refusal(&x, "llama.attention.value_length is 8, but keys have 4 elements");
	put_u32(&x, "llama.attention.key_length", 8);
	put_u32(&x, "llama.attention.value_length", 8);
	expect_gguf_refusal(&x, "blk.0.attn_q.weight: shape is [8, 8], the configuration says [16, 8]");
	put_f32(&x, "llama.rope.freq_base", NAN);
	expect_gguf_refusal(&x, "llama.rope.freq_base is nan");
	put_f32(&x, "llama.rope.freq_base", 0);
	expect_gguf_refusal(&x, "base frequency is 0");
	put_u32(&x, "llama.rope.dimension_count", 6);
	expect_gguf_refusal(&x, "6 rotated elements of a head of 4");
	put_text(&x, "llama.rope.dimension_count", "4");
	expect_gguf_refusal(&x, "llama.rope.dimension_count is not an integer");
	put_f32(&x, "llama.rope.scaling.yarn_ext_factor", 0.5f);
	put_text(&x, "llama.rope.scaling.type", "yarn");
	expect_gguf_refusal(&x, "yarn_ext_factor is 0.5, which is not supported");
	buf_release(&x.b);
}

/* The first key that is `key` gets another value of four bytes. */
static void set_u32(struct gguf_build *g, const char *key, uint32_t value)
{
	char *at = memmem(g->b.data, g->b.len, key, strlen(key));

	for (int i = 0; i < 4; i++)
		at[strlen(key) + 4 + (size_t)i] = (char)(value >> (8 * i));
}

TEST(gguf_sizes)
{
	static const struct {
		const char *key;
		uint32_t value;
		const char *message;
	} cases[] = {
		{"llama.block_count", 0, "the number of layers is 0"},
		{"llama.block_count", 4000000000u, "llama.block_count is 4000000000, too large"},
		{"llama.block_count", 9999, "tensor blk.1.attn_norm.weight is missing"},
		{"llama.context_length", 0, "the context length is 0"},
		{"llama.embedding_length", 0, "the hidden size is 0"},
		{"llama.embedding_length", 16, "token_embd.weight: shape is [10, 8], the configuration says [10, 16]"},
		{"llama.feed_forward_length", 0, "the feed-forward size is 0"},
		{"llama.attention.head_count", 0, "the number of attention heads is 0"},
		{"llama.attention.head_count", 16, "the size of a head is 0"},
		{"llama.attention.head_count_kv", 0, "the number of key-value heads is 0"},
		{"llama.attention.head_count_kv", 3, "2 attention heads cannot be shared by 3"},
		{"llama.attention.layer_norm_rms_epsilon", 0x7FC00000, "llama.attention.layer_norm_rms_epsilon is nan"},
		{"llama.attention.layer_norm_rms_epsilon", 0, "epsilon of the norms is 0"},
		{"llama.attention.layer_norm_rms_epsilon", 0xBF800000, "epsilon of the norms is -1"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gguf_build g;
		struct err err;
		struct model *m;

		build_llama(&g);
		set_u32(&g, cases[i].key, cases[i].value);
		m = open_built(&g, &err);
		if (m || !strstr(err.msg, cases[i].message)) {
			printf("%s %u: \"%s\", expected \"%s\"\n", cases[i].key, cases[i].value, err.msg, cases[i].message);
			CHECK(0);
		}
		model_free(m);
	}
}

TEST(gguf_leftover_tensor)
{
	struct gguf_build g;
	struct err err;
	struct model *m;

	build_llama(&g);
	put_tensor(&g, "blk.0.ffn_gate.bias", TENSOR_F32, 12, 0);
	m = open_built(&g, &err);
	CHECK(m == NULL && strstr(err.msg, "tensor blk.0.ffn_gate.bias is not part of a llama model of 1 layers"));
	model_free(m);
	build_llama(&g);
	put_tensor(&g, "rope_freqs.weight", TENSOR_F32, 3, 0);
	m = open_built(&g, &err);
	CHECK(m == NULL && strstr(err.msg, "tensor rope_freqs.weight: not 2 numbers of F32"));
	model_free(m);
}

/* The same content gives the same name; another weight, or the same weights under another configuration, does not. */
TEST(fingerprint)
{
	struct gguf_build g;
	struct err err;
	struct model *m;
	char first[65], second[65];

	build_llama(&g);
	m = open_built(&g, &err);
	memcpy(first, m->fingerprint, 65);
	model_free(m);
	m = model_open("built.gguf", &err);
	CHECK_STR(m->fingerprint, first);
	model_free(m);
	build_llama(&g);
	gguf_build_end(&g);
	g.b.data[g.b.len - 1] ^= 1;
	CHECK_INT(file_write_atomic("built.gguf", g.b.data, g.b.len, &err), 0);
	buf_release(&g.b);
	m = model_open("built.gguf", &err);
	CHECK(strcmp(m->fingerprint, first) != 0);
	memcpy(second, m->fingerprint, 65);
	model_free(m);
	build_llama(&g);
	set_u32(&g, "llama.attention.layer_norm_rms_epsilon", 0x3A83126F);
	m = open_built(&g, &err);
	CHECK(m && strcmp(m->fingerprint, first) != 0 && strcmp(m->fingerprint, second) != 0);
	model_free(m);
}

static double number(yyjson_val *obj, const char *key, double otherwise)
{
	yyjson_val *v = yyjson_obj_get(obj, key);

	return v ? yyjson_get_num(v) : otherwise;
}

TEST(rope_scalings)
{
	char *path = golden_path("rope.json");
	struct err err = {0};
	yyjson_doc *doc = json_parse_file(path, 1 << 20, ERR_OTHER, &err);
	size_t i, max;
	yyjson_val *v;

	CHECK(yyjson_arr_size(yyjson_doc_get_root(doc)) >= 10);
	yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, v)
	{
		yyjson_val *p = yyjson_obj_get(v, "rope_parameters"), *truncate = yyjson_obj_get(p, "truncate");
		const char *type = yyjson_get_str(yyjson_obj_get(p, "rope_type"));
		struct rope r = {0};
		struct rope_spec s = {.dim = (int)number(v, "dim", 0), .head_dim = (int)number(v, "dim", 0),
			.theta = number(p, "rope_theta", 0),
			.factor = number(p, "factor", 0), .original_context = number(p, "original_max_position_embeddings", 0),
			.low_freq_factor = number(p, "low_freq_factor", 0), .high_freq_factor = number(p, "high_freq_factor", 0),
			.beta_fast = number(p, "beta_fast", 32), .beta_slow = number(p, "beta_slow", 1),
			.attention_factor = number(p, "attention_factor", -1), .mscale = number(p, "mscale", 0),
			.mscale_all_dim = number(p, "mscale_all_dim", 0), .no_truncate = yyjson_is_false(truncate)};

		CHECK(rope_scaling_find(type, &s.scaling));
		CHECK_INT(rope_init(&r, &s, &err), 0);
		check_frequencies(type, &r, yyjson_obj_get(v, "inv_freq"));
		CHECK_NEAR(r.attention_factor, number(v, "attention_factor", 0), 1e-6);
		free(r.inv_freq);
	}
	yyjson_doc_free(doc);
	free(path);
}

int main(void)
{
	RUN(goldens);
	RUN(gguf_equals_hf);
	RUN(rope_scalings);
	RUN(refused_configurations);
	RUN(accepted_configurations);
	RUN(every_truncated_config);
	RUN(paths);
	RUN(gguf_metadata);
	RUN(gguf_refusals);
	RUN(gguf_sizes);
	RUN(gguf_leftover_tensor);
	RUN(fingerprint);
	return TEST_RESULT();
}
