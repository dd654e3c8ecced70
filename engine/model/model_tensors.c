/* model_tensors.c: the tensors of every family, by the names of both kinds of file, and their placing.
 *
 * One table; a family is a bit in it. A tensor that the config asks for must be there with exactly the shape that the config
 * says, and a tensor that nobody asked for is refused: it would be a part of the model that we leave out.
 */
#include <stddef.h>
#include <string.h>

#include "base/buf.h"
#include "engine/file/name_index.h"
#include "engine/model/model_load.h"

enum extent { NONE, HIDDEN, HEAD, Q_WIDTH, KV_WIDTH, FFN }; /* sizes that the config gives */
enum need { ALWAYS, BIAS_QKV, BIAS_O };

#define IN(family) (1 << (family))
#define ALL (IN(MODEL_LLAMA) | IN(MODEL_QWEN2) | IN(MODEL_QWEN3) | IN(MODEL_GEMMA3))
#define GEMMA IN(MODEL_GEMMA3)

#define AT(member) offsetof(struct model_layer, member)

/* Of each layer. Names: gguf-py's constants.py; the modules of transformers' modeling_*.py. */
static const struct layer_tensor {
	size_t at;
	const char *gguf, *hf;
	enum extent rows, cols; /* cols NONE: a vector */
	int families;
	enum need need;
} layer_tensors[] = {
	{AT(attn_norm), "attn_norm.weight", "input_layernorm.weight", HIDDEN, NONE, ALL, ALWAYS},
	{AT(q), "attn_q.weight", "self_attn.q_proj.weight", Q_WIDTH, HIDDEN, ALL, ALWAYS},
	{AT(k), "attn_k.weight", "self_attn.k_proj.weight", KV_WIDTH, HIDDEN, ALL, ALWAYS},
	{AT(v), "attn_v.weight", "self_attn.v_proj.weight", KV_WIDTH, HIDDEN, ALL, ALWAYS},
	{AT(o), "attn_output.weight", "self_attn.o_proj.weight", HIDDEN, Q_WIDTH, ALL, ALWAYS},
	{AT(q_bias), "attn_q.bias", "self_attn.q_proj.bias", Q_WIDTH, NONE, ALL, BIAS_QKV},
	{AT(k_bias), "attn_k.bias", "self_attn.k_proj.bias", KV_WIDTH, NONE, ALL, BIAS_QKV},
	{AT(v_bias), "attn_v.bias", "self_attn.v_proj.bias", KV_WIDTH, NONE, ALL, BIAS_QKV},
	{AT(o_bias), "attn_output.bias", "self_attn.o_proj.bias", HIDDEN, NONE, ALL, BIAS_O},
	{AT(q_norm), "attn_q_norm.weight", "self_attn.q_norm.weight", HEAD, NONE, IN(MODEL_QWEN3) | GEMMA, ALWAYS},
	{AT(k_norm), "attn_k_norm.weight", "self_attn.k_norm.weight", HEAD, NONE, IN(MODEL_QWEN3) | GEMMA, ALWAYS},
	{AT(post_attn_norm), "post_attention_norm.weight", "post_attention_layernorm.weight", HIDDEN, NONE, GEMMA, ALWAYS},
	{AT(ffn_norm), "ffn_norm.weight", "pre_feedforward_layernorm.weight", HIDDEN, NONE, GEMMA, ALWAYS},
	{AT(ffn_norm), "ffn_norm.weight", "post_attention_layernorm.weight", HIDDEN, NONE, ALL & ~GEMMA, ALWAYS},
	{AT(post_ffn_norm), "post_ffw_norm.weight", "post_feedforward_layernorm.weight", HIDDEN, NONE, GEMMA, ALWAYS},
	{AT(gate), "ffn_gate.weight", "mlp.gate_proj.weight", FFN, HIDDEN, ALL, ALWAYS},
	{AT(up), "ffn_up.weight", "mlp.up_proj.weight", FFN, HIDDEN, ALL, ALWAYS},
	{AT(down), "ffn_down.weight", "mlp.down_proj.weight", HIDDEN, FFN, ALL, ALWAYS},
};

static int64_t extent_of(const struct model_config *c, enum extent e)
{
	switch (e) {
	case HIDDEN:
		return c->hidden;
	case HEAD:
		return c->head_dim;
	case Q_WIDTH:
		return (int64_t)c->n_heads * c->head_dim;
	case KV_WIDTH:
		return (int64_t)c->n_kv_heads * c->head_dim;
	case FFN:
		return c->ffn_hidden;
	default:
		return 0;
	}
}

struct placing {
	struct model *m;
	const struct tensor_source *source;
	struct name_index used; /* names placed so far */
	size_t n_used;
};

static int check_shape(const struct tensor *t, int64_t rows, int64_t cols, struct err *err)
{
	struct buf have = {0};
	int rc = 0, n_dims = cols ? 2 : 1;

	if (t->n_dims != n_dims || t->shape[0] != rows || (cols && t->shape[1] != cols)) {
		for (int i = 0; i < t->n_dims; i++)
			buf_addf(&have, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
		if (cols)
			rc = err_set(err, ERR_MODEL, "tensor %.200s: shape is [%s], the configuration says [%lld, %lld]", t->name,
				buf_str(&have), (long long)rows, (long long)cols);
		else
			rc = err_set(err, ERR_MODEL, "tensor %.200s: shape is [%s], the configuration says [%lld]", t->name, buf_str(&have),
				(long long)rows);
		buf_release(&have);
	}
	return rc;
}

/* 1: placed, 0: there is none, -1: error. rows 0: any number. */
static int place(struct placing *p, const char *name, int64_t rows, int64_t cols, struct tensor *out, struct err *err)
{
	struct tensor t = {0};
	int found = p->source->find(p->m->files, name, &t, err);

	if (found <= 0)
		return found;
	if (check_shape(&t, rows ? rows : t.shape[0], cols, err) < 0)
		return -1;
	if (!name_index_add(&p->used, t.name, p->n_used++))
		BUG("tensor %s placed twice", t.name);
	p->m->weight_bytes += t.n_bytes;
	p->m->n_parameters += tensor_n_elements(&t);
	*out = t;
	return 1;
}

static int place_required(struct placing *p, const char *name, int64_t rows, int64_t cols, struct tensor *out, struct err *err)
{
	int found = place(p, name, rows, cols, out, err);

	if (found == 0)
		return err_set(err, ERR_MODEL, "tensor %.200s is missing", name);
	return found < 0 ? -1 : 0;
}

static int place_layer(struct placing *p, int i, struct err *err)
{
	const struct model_config *c = &p->m->config;
	enum model_biases biases = p->source->biases;
	struct buf name = {0};
	int rc = 0;

	for (size_t k = 0; k < sizeof(layer_tensors) / sizeof(layer_tensors[0]) && rc == 0; k++) {
		const struct layer_tensor *t = &layer_tensors[k];
		struct tensor *out = (struct tensor *)((char *)&p->m->layers[i] + t->at);
		int64_t rows = extent_of(c, t->rows), cols = extent_of(c, t->cols);

		if (!(t->families & IN(c->family)))
			continue;
		buf_reset(&name);
		buf_addf(&name, p->source->is_gguf ? "%sblk.%d.%s" : "%slayers.%d.%s", p->source->prefix, i,
			p->source->is_gguf ? t->gguf : t->hf);
		if (t->need != ALWAYS && biases == MODEL_BIAS_IF_PRESENT)
			rc = place(p, name.data, rows, cols, out, err) < 0 ? -1 : 0;
		else if (t->need == ALWAYS || biases == MODEL_BIAS_QKVO || (t->need == BIAS_QKV && biases == MODEL_BIAS_QKV))
			rc = place_required(p, name.data, rows, cols, out, err);
	}
	buf_release(&name);
	return rc;
}

/* Some tools write a tied output matrix a second time. If the two differ, the configuration is wrong and both count, as in
 * transformers' tie_weights. 1: there is one and it differs, 0: not so, -1: error. */
static int head_differs(const struct placing *p, struct err *err)
{
	const struct tensor *embed = &p->m->embed;
	struct tensor t;
	int found = p->source->find(p->m->files, p->source->head_name, &t, err);

	if (found <= 0)
		return found;
	return t.type != embed->type || t.n_bytes != embed->n_bytes || memcmp(t.data, embed->data, t.n_bytes) != 0;
}

static int place_ends(struct placing *p, struct err *err)
{
	const struct tensor_source *s = p->source;
	struct model *m = p->m;
	struct model_config *c = &m->config;
	struct buf name = {0};
	int rc, found = 0;

	buf_addf(&name, "%s%s", s->prefix, s->is_gguf ? "token_embd.weight" : "embed_tokens.weight");
	rc = place_required(p, name.data, s->n_vocab, c->hidden, &m->embed, err);
	buf_reset(&name);
	buf_addf(&name, "%s%s", s->prefix, s->is_gguf ? "output_norm.weight" : "norm.weight");
	if (rc == 0)
		rc = place_required(p, name.data, c->hidden, 0, &m->final_norm, err);
	buf_release(&name);
	if (rc < 0)
		return -1;
	if (m->embed.shape[0] > 1 << 28)
		return err_set(err, ERR_MODEL, "tensor %s: %lld rows are too many", m->embed.name, (long long)m->embed.shape[0]);
	c->n_vocab = (int)m->embed.shape[0];
	if (s->tied == 1)
		found = head_differs(p, err);
	if (s->tied != 1 || found > 0)
		found = place(p, s->head_name, c->n_vocab, c->hidden, &m->output, err);
	if (found < 0)
		return -1;
	if (s->tied == 0 && !found)
		return err_set(err, ERR_MODEL, "tensor %s is missing", s->head_name);
	c->tied_output = !found;
	if (!found)
		m->output = m->embed;
	return 0;
}

static int check_leftovers(const struct placing *p, struct err *err)
{
	const struct tensor_source *s = p->source;
	size_t position;

	for (size_t i = 0; i < s->count(p->m->files); i++) {
		const char *name = s->name_at(p->m->files, i);

		if (name_index_find(&p->used, name, &position) || s->may_ignore(name))
			continue;
		if (strcmp(name, s->head_name) == 0) /* a copy of the embedding */
			continue;
		return err_set(err, ERR_MODEL, "tensor %.200s is not part of a %s model of %d layers as its configuration describes it",
			name, p->m->config.family_name, p->m->config.n_layers);
	}
	return 0;
}

int model_place_tensors(struct model *m, const struct tensor_source *source, struct err *err)
{
	struct placing p = {.m = m, .source = source};
	int rc;

	name_index_init(&p.used, source->count(m->files) + 1);
	rc = place_ends(&p, err);
	for (int i = 0; i < m->config.n_layers && rc == 0; i++)
		rc = place_layer(&p, i, err);
	if (rc == 0)
		rc = check_leftovers(&p, err);
	name_index_release(&p.used);
	return rc;
}
