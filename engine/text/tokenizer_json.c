/* tokenizer_json.c: a tokenizer from a Hugging Face tokenizer.json. */
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

static int load_vocab(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	yyjson_val *key, *id;
	size_t i, max;

	if (!yyjson_is_obj(v))
		return err_set(err, ERR_MODEL, "model: \"vocab\" is %s, not an object", json_type_name(v));
	vocab_reserve(&t->vocab, yyjson_obj_size(v));
	yyjson_obj_foreach (v, i, max, key, id) {
		if (!yyjson_is_uint(id) || yyjson_get_uint(id) >= MAX_IDS)
			return err_set(err, ERR_MODEL, "model: vocab: \"%.60s\" has no id below %d", yyjson_get_str(key), MAX_IDS);
		vocab_add(&t->vocab, (int32_t)yyjson_get_uint(id), yyjson_get_str(key), yyjson_get_len(key));
	}
	return 0;
}

/* A merge as "a b" or ["a", "b"]. */
static int split_merge(yyjson_val *m, const char *part[2], size_t n[2])
{
	if (yyjson_is_str(m)) {
		const char *s = yyjson_get_str(m), *space = memchr(s, ' ', yyjson_get_len(m));

		if (!space || memchr(space + 1, ' ', yyjson_get_len(m) - (size_t)(space + 1 - s)))
			return -1;
		part[0] = s;
		n[0] = (size_t)(space - s);
		part[1] = space + 1;
		n[1] = yyjson_get_len(m) - n[0] - 1;
		return 0;
	}
	if (!yyjson_is_arr(m) || yyjson_arr_size(m) != 2)
		return -1;
	for (size_t i = 0; i < 2; i++) {
		yyjson_val *s = yyjson_arr_get(m, i);

		if (!yyjson_is_str(s))
			return -1;
		part[i] = yyjson_get_str(s);
		n[i] = yyjson_get_len(s);
	}
	return 0;
}

static int load_merges(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	struct buf whole = {0};
	yyjson_val *m;
	size_t i, max;
	uint32_t rank = 0;
	int status = 0;

	if (!yyjson_is_arr(v))
		return err_set(err, ERR_MODEL, "model: \"merges\" is %s, not an array", json_type_name(v));
	bpe_merges_reserve(&t->bpe, yyjson_arr_size(v));
	yyjson_arr_foreach (v, i, max, m) {
		const char *part[2];
		size_t n[2];
		int32_t id[3];

		if (yyjson_is_str(m) && strncmp(yyjson_get_str(m), "#version", 8) == 0)
			continue;
		if (split_merge(m, part, n) != 0) {
			status = err_set(err, ERR_MODEL, "model: merge %zu is not a pair of tokens", i);
			break;
		}
		buf_reset(&whole);
		buf_add(&whole, part[0], n[0]);
		buf_add(&whole, part[1], n[1]);
		id[0] = vocab_find(&t->vocab, part[0], n[0]);
		id[1] = vocab_find(&t->vocab, part[1], n[1]);
		id[2] = vocab_find(&t->vocab, buf_str(&whole), whole.len);
		if (id[0] < 0 || id[1] < 0 || id[2] < 0) {
			size_t k = id[0] < 0 ? 0 : 1;
			const char *missing = id[0] < 0 || id[1] < 0 ? part[k] : whole.data;
			size_t len = id[0] < 0 || id[1] < 0 ? n[k] : whole.len;

			status = err_set(err, ERR_MODEL, "model: merge %zu: token \"%.*s\" is not in the vocabulary", i,
			                 (int)(len > 60 ? 60 : len), missing);
			break;
		}
		/* An empty part would give a token that merges with nothing into itself, for ever. */
		if (n[0] == 0 || n[1] == 0) {
			status = err_set(err, ERR_MODEL, "model: merge %zu has an empty part", i);
			break;
		}
		bpe_add_merge(&t->bpe, id[0], id[1], rank++, id[2]);
	}
	buf_release(&whole);
	return status;
}

static int refuse_text(yyjson_val *model, const char *key, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(model, key);

	if (v && !yyjson_is_null(v) && !yyjson_equals_str(v, ""))
		return err_set(err, ERR_MODEL, "model: \"%s\" is not supported", key);
	return 0;
}

static int get_model_flag(yyjson_val *model, const char *key, int *out, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(model, key);

	if (v && !yyjson_is_null(v) && !yyjson_is_bool(v))
		return err_set(err, ERR_MODEL, "model: \"%s\" is %s, not a boolean", key, json_type_name(v));
	*out = yyjson_get_bool(v);
	return 0;
}

static int load_model(struct tokenizer *t, yyjson_val *model, struct err *err)
{
	yyjson_val *type = yyjson_obj_get(model, "type"), *dropout = yyjson_obj_get(model, "dropout");
	yyjson_val *unk = yyjson_obj_get(model, "unk_token");
	struct bpe *b = &t->bpe;

	if (!yyjson_is_obj(model))
		return err_set(err, ERR_MODEL, "\"model\" is %s, not an object", json_type_name(model));
	if (type && !yyjson_equals_str(type, "BPE"))
		return err_set(err, ERR_MODEL, "model type %.40s is not supported, only BPE",
		               yyjson_is_str(type) ? yyjson_get_str(type) : json_type_name(type));
	if (dropout && !yyjson_is_null(dropout) && !(yyjson_is_num(dropout) && yyjson_get_num(dropout) == 0))
		return err_set(err, ERR_MODEL, "model: \"dropout\" is for training; it makes ids random");
	if (refuse_text(model, "continuing_subword_prefix", err) != 0 || refuse_text(model, "end_of_word_suffix", err) != 0 ||
	    get_model_flag(model, "fuse_unk", &b->fuse_unk, err) != 0 ||
	    get_model_flag(model, "byte_fallback", &b->byte_fallback, err) != 0 ||
	    get_model_flag(model, "ignore_merges", &b->ignore_merges, err) != 0)
		return -1;
	if (load_vocab(t, yyjson_obj_get(model, "vocab"), err) != 0 || load_merges(t, yyjson_obj_get(model, "merges"), err) != 0)
		return -1;
	b->unk_id = -1;
	if (unk && !yyjson_is_null(unk)) {
		if (!yyjson_is_str(unk))
			return err_set(err, ERR_MODEL, "model: \"unk_token\" is %s, not a string", json_type_name(unk));
		b->unk_id = vocab_find(&t->vocab, yyjson_get_str(unk), yyjson_get_len(unk));
		b->unk_is_missing = b->unk_id < 0;
	}
	return 0;
}

static int get_token_flag(yyjson_val *v, const char *key, int otherwise)
{
	yyjson_val *flag = yyjson_obj_get(v, key);

	return flag ? yyjson_get_bool(flag) : otherwise;
}

/* Ids as the package gives them: the model's where the text is one of its tokens, else counted on from the model's size. The
 * file's own "id" is not looked at. Of equal texts the last counts. */
static int load_added(struct tokenizer *t, yyjson_val *list, struct err *err)
{
	struct vocab index = {0}; /* text to place in t->added */
	size_t i, max, cap = 0, next = t->vocab.n_texts;
	yyjson_val *v;
	int status = 0;

	if (!list || yyjson_is_null(list))
		return 0;
	if (!yyjson_is_arr(list))
		return err_set(err, ERR_MODEL, "\"added_tokens\" is %s, not an array", json_type_name(list));
	yyjson_arr_foreach (list, i, max, v) {
		yyjson_val *content = yyjson_obj_get(v, "content");
		const char *s = yyjson_get_str(content);
		size_t n = yyjson_get_len(content);
		struct added_token a = {0};
		int32_t at;

		if (!s) {
			status = err_set(err, ERR_MODEL, "added token %zu: \"content\" is %s, not a string", i, json_type_name(content));
			break;
		}
		if (n == 0)
			continue;
		at = vocab_find(&index, s, n);
		a.id = at >= 0 ? t->added[at].id : vocab_find(&t->vocab, s, n);
		if (a.id < 0)
			a.id = (int32_t)next++;
		if (a.id >= MAX_IDS) {
			status = err_set(err, ERR_MODEL, "more than %d tokens", MAX_IDS);
			break;
		}
		a.special = get_token_flag(v, "special", 0) & 1;
		a.single_word = get_token_flag(v, "single_word", 0) & 1;
		a.lstrip = get_token_flag(v, "lstrip", 0) & 1;
		a.rstrip = get_token_flag(v, "rstrip", 0) & 1;
		a.normalized = get_token_flag(v, "normalized", !a.special) & 1;
		if (at >= 0) {
			/* Once special, a text stays so for the package. */
			a.special |= t->added[at].special;
			free(t->added[at].text);
		} else {
			MEM_GROW(t->added, cap, t->n_added + 1);
			at = (int32_t)t->n_added++;
			vocab_add(&index, at, s, n);
			vocab_add(&t->added_vocab, a.id, s, n);
		}
		a.text = xmemdup(s, n);
		a.n = n;
		t->added[at] = a;
	}
	vocab_release(&index);
	return status;
}

static struct tokenizer *load(yyjson_val *root, struct err *err)
{
	struct tokenizer *t = xcalloc(1, sizeof(*t));

	unicode_init();
	t->bpe.unk_id = -1;
	if (!yyjson_is_obj(root) || !json_depth_within(root, 64)) {
		err_set(err, ERR_MODEL, "tokenizer is not a JSON object of sensible depth");
		goto fail;
	}
	t->bpe.vocab = &t->vocab;
	if (load_model(t, yyjson_obj_get(root, "model"), err) != 0 ||
	    load_normalizer(t, yyjson_obj_get(root, "normalizer"), err) != 0 ||
	    load_pre_tokenizer(t, yyjson_obj_get(root, "pre_tokenizer"), err) != 0 ||
	    load_decoder(t, yyjson_obj_get(root, "decoder"), err) != 0 ||
	    load_post_processor(t, yyjson_obj_get(root, "post_processor"), err) != 0 ||
	    load_added(t, yyjson_obj_get(root, "added_tokens"), err) != 0)
		goto fail;
	if (t->n_steps > 0 && t->steps[t->n_steps - 1].kind == STEP_BYTES) {
		t->n_steps--;
		t->bpe.raw = 1;
	}
	bpe_finish(&t->bpe);
	if (tokenizer_finish(t, err) != 0)
		goto fail;
	return t;
fail:
	tokenizer_free(t);
	return NULL;
}

struct tokenizer *tokenizer_open_json_memory(const char *json, size_t n_bytes, struct err *err)
{
	yyjson_doc *doc = json_parse(json, n_bytes, ERR_MODEL, err);
	struct tokenizer *t;

	if (!doc)
		return NULL;
	t = load(yyjson_doc_get_root(doc), err);
	yyjson_doc_free(doc);
	return t;
}

struct tokenizer *tokenizer_open_json(const char *path, struct err *err)
{
	struct file_map map = {0};
	struct tokenizer *t;

	if (file_map_open(&map, path, ERR_MODEL, err) != 0)
		return NULL;
	t = tokenizer_open_json_memory(map.data ? (const char *)map.data : "", map.n_bytes, err);
	if (!t)
		err_context(err, "%s", path);
	file_map_close(&map);
	return t;
}
