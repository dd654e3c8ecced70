/* forward.c: embed, then for each layer attention and feed-forward with their residuals, then the final norm and the logits. */
#include "engine/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct layer {
	struct vec *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm; /* post_*: NULL except gemma3 */
	struct vec *q_norm, *k_norm;                                       /* NULL where the family has none */
	struct vec *q_bias, *k_bias, *v_bias, *o_bias;                     /* NULL likewise */
	struct weight *q, *k, *v, *o, *gate, *up, *down;
	int sliding;
};

struct forward {
	struct backend *backend;
	struct model_config config;
	struct weight *embed, *output;
	struct vec *final_norm;
	struct layer *layers; /* [n_layers] */
	/* Workspace, n = rows of the step. */
	float *x;        /* [n, hidden] residual stream */
	float *h;        /* [n, hidden] normed input of a block; its output where a norm follows */
	float *q;        /* [n, n_heads, head_dim] */
	float *k, *v;    /* [n, n_kv_heads, head_dim] */
	float *attended; /* [n, n_heads, head_dim] */
	float *gate, *up; /* [n, ffn_hidden] */
	float *final;    /* [max_logits, hidden] */
	float *logits;   /* [FORWARD_LOGIT_ROWS, n_vocab] */
};

struct sizes {
	size_t hidden, q, kv, ffn, final, logits; /* floats */
};

static struct sizes sizes_of(const struct model_config *c, int32_t max_tokens, int32_t max_logits)
{
	size_t n = (size_t)max_tokens, slab = max_logits < FORWARD_LOGIT_ROWS ? (size_t)max_logits : FORWARD_LOGIT_ROWS;

	return (struct sizes){
		.hidden = n * (size_t)c->hidden,
		.q = n * (size_t)c->n_heads * (size_t)c->head_dim,
		.kv = n * (size_t)c->n_kv_heads * (size_t)c->head_dim,
		.ffn = n * (size_t)c->ffn_hidden,
		.final = (size_t)max_logits * (size_t)c->hidden,
		.logits = slab * (size_t)c->n_vocab,
	};
}

size_t forward_workspace_bytes(const struct model_config *c, int32_t max_tokens, int32_t max_logits)
{
	struct sizes s = sizes_of(c, max_tokens, max_logits);

	return sizeof(float) * (2 * s.hidden + 2 * s.q + 2 * s.kv + 2 * s.ffn + s.final + s.logits);
}

/* Loading is a long list in which any item may fail: the first failure stays in err and the rest does nothing. */
struct loader {
	struct backend *b;
	float norm_offset;
	struct err *err;
	int failed;
};

static struct weight *load_weight(struct loader *l, const struct tensor *t)
{
	struct weight *w;

	if (l->failed || !t->data)
		return NULL;
	w = l->b->ops->weight_new(l->b, t, l->err);
	l->failed |= !w;
	return w;
}

static struct vec *load_vec(struct loader *l, const struct tensor *t, float offset)
{
	struct vec *v;

	if (l->failed || !t->data)
		return NULL;
	v = l->b->ops->vec_new(l->b, t, offset, l->err);
	l->failed |= !v;
	return v;
}

static float *take(struct loader *l, size_t n_floats)
{
	float *p = l->failed ? NULL : l->b->ops->alloc(l->b, n_floats, l->err);

	l->failed |= !p;
	return p;
}

static void load_layer(struct loader *l, struct layer *to, const struct model_layer *from)
{
	to->sliding = from->sliding;
	to->attn_norm = load_vec(l, &from->attn_norm, l->norm_offset);
	to->post_attn_norm = load_vec(l, &from->post_attn_norm, l->norm_offset);
	to->ffn_norm = load_vec(l, &from->ffn_norm, l->norm_offset);
	to->post_ffn_norm = load_vec(l, &from->post_ffn_norm, l->norm_offset);
	to->q_norm = load_vec(l, &from->q_norm, l->norm_offset);
	to->k_norm = load_vec(l, &from->k_norm, l->norm_offset);
	to->q_bias = load_vec(l, &from->q_bias, 0.0f);
	to->k_bias = load_vec(l, &from->k_bias, 0.0f);
	to->v_bias = load_vec(l, &from->v_bias, 0.0f);
	to->o_bias = load_vec(l, &from->o_bias, 0.0f);
	to->q = load_weight(l, &from->q);
	to->k = load_weight(l, &from->k);
	to->v = load_weight(l, &from->v);
	to->o = load_weight(l, &from->o);
	to->gate = load_weight(l, &from->gate);
	to->up = load_weight(l, &from->up);
	to->down = load_weight(l, &from->down);
}

size_t forward_weight_bytes(const struct model *m, size_t (*matrix_bytes)(const struct tensor *t))
{
	size_t n = matrix_bytes(&m->embed), n_floats = (size_t)tensor_n_elements(&m->final_norm);

	if (m->output.data != m->embed.data)
		n += matrix_bytes(&m->output);
	for (int i = 0; i < m->config.n_layers; i++) {
		const struct model_layer *l = &m->layers[i];
		const struct tensor *matrices[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
		const struct tensor *vecs[] = {&l->attn_norm, &l->post_attn_norm, &l->ffn_norm, &l->post_ffn_norm, &l->q_norm, &l->k_norm,
		                               &l->q_bias, &l->k_bias, &l->v_bias, &l->o_bias};

		for (size_t k = 0; k < sizeof(matrices) / sizeof(*matrices); k++)
			n += matrices[k]->data ? matrix_bytes(matrices[k]) : 0;
		for (size_t k = 0; k < sizeof(vecs) / sizeof(*vecs); k++)
			n_floats += vecs[k]->data ? (size_t)tensor_n_elements(vecs[k]) : 0;
	}
	return n + n_floats * sizeof(float);
}

struct forward *forward_new(struct backend *b, const struct model *m, int32_t max_tokens, int32_t max_logits, struct err *err)
{
	struct forward *f = xcalloc(1, sizeof(*f));
	struct loader l = {.b = b, .norm_offset = m->norm_offset, .err = err};
	struct sizes s = sizes_of(&m->config, max_tokens, max_logits);

	f->backend = b;
	f->config = m->config;
	f->layers = xcalloc((size_t)m->config.n_layers, sizeof(*f->layers));
	f->embed = load_weight(&l, &m->embed);
	f->output = m->output.data == m->embed.data ? f->embed : load_weight(&l, &m->output);
	f->final_norm = load_vec(&l, &m->final_norm, m->norm_offset);
	for (int i = 0; i < m->config.n_layers; i++) {
		load_layer(&l, &f->layers[i], &m->layers[i]);
		/* What the backend has repacked need not be resident a second time. */
		model_drop_pages(m);
	}
	f->x = take(&l, s.hidden);
	f->h = take(&l, s.hidden);
	f->q = take(&l, s.q);
	f->k = take(&l, s.kv);
	f->v = take(&l, s.kv);
	f->attended = take(&l, s.q);
	f->gate = take(&l, s.ffn);
	f->up = take(&l, s.ffn);
	f->final = take(&l, s.final);
	f->logits = take(&l, s.logits);
	if (l.failed) {
		forward_free(f);
		return NULL;
	}
	return f;
}

void forward_free(struct forward *f)
{
	if (!f)
		return;
	/* Weights, vectors and workspace belong to the backend and go with it. */
	free(f->layers);
	free(f);
}

static void attention_block(struct forward *f, int index, const struct batch *batch)
{
	const struct backend_ops *ops = f->backend->ops;
	const struct model_config *c = &f->config;
	const struct layer *l = &f->layers[index];
	const struct rope *rope = l->sliding ? &c->rope_local : &c->rope;
	int32_t n = batch->n_tokens;

	ops->norm(f->backend, f->x, l->attn_norm, c->norm_eps, n, NULL, f->h);
	ops->linear(f->backend, f->h, n, (struct linear_out[]){
		{.w = l->q, .bias = l->q_bias, .out = f->q},
		{.w = l->k, .bias = l->k_bias, .out = f->k},
		{.w = l->v, .bias = l->v_bias, .out = f->v}}, 3);
	ops->rope_store(f->backend, index, f->q, f->k, f->v, l->q_norm, l->k_norm, c->norm_eps, rope);
	ops->attention(f->backend, index, f->q, c->attention_scale, c->attention_softcap, l->sliding ? c->sliding_window : 0, f->attended);
	if (l->post_attn_norm) {
		ops->linear(f->backend, f->attended, n, &(struct linear_out){.w = l->o, .bias = l->o_bias, .out = f->h}, 1);
		ops->norm_add(f->backend, f->x, f->h, l->post_attn_norm, c->norm_eps, n);
	} else {
		ops->linear(f->backend, f->attended, n, &(struct linear_out){.w = l->o, .bias = l->o_bias, .out = f->x, .accumulate = 1}, 1);
	}
}

static void feed_forward_block(struct forward *f, int index, const struct batch *batch)
{
	const struct backend_ops *ops = f->backend->ops;
	const struct model_config *c = &f->config;
	const struct layer *l = &f->layers[index];
	int32_t n = batch->n_tokens;

	ops->norm(f->backend, f->x, l->ffn_norm, c->norm_eps, n, NULL, f->h);
	ops->linear(f->backend, f->h, n, (struct linear_out[]){
		{.w = l->gate, .out = f->gate},
		{.w = l->up, .out = f->up}}, 2);
	ops->act_mul(f->backend, c->activation, f->gate, f->up, c->ffn_hidden);
	if (l->post_ffn_norm) {
		ops->linear(f->backend, f->gate, n, &(struct linear_out){.w = l->down, .out = f->h}, 1);
		ops->norm_add(f->backend, f->x, f->h, l->post_ffn_norm, c->norm_eps, n);
	} else {
		ops->linear(f->backend, f->gate, n, &(struct linear_out){.w = l->down, .out = f->x, .accumulate = 1}, 1);
	}
}

int forward_run(struct forward *f, const struct batch *batch, struct err *err)
{
	const struct backend_ops *ops = f->backend->ops;

	ops->begin(f->backend, batch);
	ops->embed(f->backend, f->embed, f->config.embed_scale, f->x);
	for (int i = 0; i < f->config.n_layers; i++) {
		attention_block(f, i, batch);
		feed_forward_block(f, i, batch);
	}
	if (batch->n_logits > 0)
		ops->norm(f->backend, f->x, f->final_norm, f->config.norm_eps, batch->n_logits, batch->logit_rows, f->final);
	return ops->finish(f->backend, err);
}

float *forward_logits(struct forward *f, int32_t first, int32_t n, struct err *err)
{
	const struct backend_ops *ops = f->backend->ops;
	size_t n_floats = (size_t)n * (size_t)f->config.n_vocab;
	float cap = f->config.logit_softcap, *logits;

	ops->linear(f->backend, f->final + (size_t)first * (size_t)f->config.hidden, n,
	            &(struct linear_out){.w = f->output, .out = f->logits}, 1);
	logits = ops->fetch(f->backend, f->logits, n_floats, err);
	if (logits && cap != 0.0f)
		for (size_t i = 0; i < n_floats; i++)
			logits[i] = cap * tanhf(logits[i] / cap);
	return logits;
}
