/* tokenizer_json_parts.c: the normaliser, pre-tokenizer, decoder and post-processor of tokenizer.json. What is not known is
 * refused by its name: a part that is left out in silence would give other ids. */
#include <stdlib.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

/* A string field: its bytes (not copied), or NULL and *err. */
static const char *get_string(yyjson_val *v, const char *key, size_t *n, struct err *err)
{
	yyjson_val *s = yyjson_obj_get(v, key);

	if (!yyjson_is_str(s)) {
		err_set(err, ERR_MODEL, "\"%s\" is %s, not a string", key, json_type_name(s));
		return NULL;
	}
	*n = yyjson_get_len(s);
	return yyjson_get_str(s);
}

/* A boolean field; `otherwise` when it is missing or null. */
static int get_flag(yyjson_val *v, const char *key, int otherwise, int *out, struct err *err)
{
	yyjson_val *b = yyjson_obj_get(v, key);

	*out = otherwise;
	if (b && !yyjson_is_null(b)) {
		if (!yyjson_is_bool(b))
			return err_set(err, ERR_MODEL, "\"%s\" is %s, not a boolean", key, json_type_name(b));
		*out = yyjson_get_bool(b);
	}
	return 0;
}

/* A string of exactly one character. */
static const char *get_char(yyjson_val *v, const char *key, size_t *n, struct err *err)
{
	const char *s = get_string(v, key, n, err);

	if (s && (*n == 0 || utf8_size((unsigned char)s[0]) != *n)) {
		err_set(err, ERR_MODEL, "\"%s\" is not one character", key);
		return NULL;
	}
	return s;
}

/* {"String": "..."} or {"Regex": "..."}: a text to look for, or a regex; an empty text is an empty regex. */
static int get_pattern(yyjson_val *v, const char **s, size_t *n, int *is_regex, struct err *err)
{
	yyjson_val *p = yyjson_obj_get(v, "pattern");

	*is_regex = yyjson_obj_get(p, "Regex") != NULL;
	*s = get_string(p, *is_regex ? "Regex" : "String", n, err);
	if (!*s)
		return err_context(err, "\"pattern\"");
	if (*n == 0)
		*is_regex = 1;
	return 0;
}

static int is_type(yyjson_val *v, const char *name)
{
	return yyjson_equals_str(yyjson_obj_get(v, "type"), name);
}

static int refuse_type(yyjson_val *v, const char *what, struct err *err)
{
	yyjson_val *type = yyjson_obj_get(v, "type");

	if (!yyjson_is_str(type))
		return err_set(err, ERR_MODEL, "%s without a type", what);
	return err_set(err, ERR_MODEL, "%s type \"%.60s\" is not supported", what, yyjson_get_str(type));
}

/* The parts of a Sequence, each by `load`. */
static int load_sequence(struct tokenizer *t, yyjson_val *v, const char *key,
                         int (*load)(struct tokenizer *, yyjson_val *, struct err *), struct err *err)
{
	yyjson_val *list = yyjson_obj_get(v, key), *part;
	size_t i, max;

	if (!yyjson_is_arr(list))
		return err_set(err, ERR_MODEL, "Sequence: \"%s\" is %s, not an array", key, json_type_name(list));
	yyjson_arr_foreach (list, i, max, part) {
		if (load(t, part, err) != 0)
			return -1;
	}
	return 0;
}

static int load_one_normalizer(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	static const struct {
		const char *name;
		enum unicode_form form;
	} forms[] = {{"NFC", FORM_NFC}, {"NFD", FORM_NFD}, {"NFKC", FORM_NFKC}, {"NFKD", FORM_NFKD}};
	struct normalizer *m;
	const char *s, *content;
	size_t n, n_content;
	int is_regex;

	if (is_type(v, "Sequence"))
		return load_sequence(t, v, "normalizers", load_one_normalizer, err);
	if (t->n_normalizers == MAX_STEPS)
		return err_set(err, ERR_MODEL, "more than %d parts", MAX_STEPS);
	m = &t->normalizers[t->n_normalizers];
	*m = (struct normalizer){0};
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (is_type(v, forms[i].name)) {
			m->form = forms[i].form;
			t->n_normalizers++;
			return 0;
		}
	}
	if (is_type(v, "Lowercase")) {
		m->kind = NORMALIZER_LOWER;
	} else if (is_type(v, "ByteLevel")) {
		m->kind = NORMALIZER_BYTES;
	} else if (is_type(v, "Strip")) {
		m->kind = NORMALIZER_STRIP;
		if (get_flag(v, "strip_left", 0, &m->strip_left, err) != 0 || get_flag(v, "strip_right", 0, &m->strip_right, err) != 0)
			return -1;
	} else if (is_type(v, "Prepend")) {
		m->kind = NORMALIZER_PREPEND;
		s = get_string(v, "prepend", &n, err);
		if (!s)
			return -1;
		m->text = xmemdup(s, n);
		m->n_text = n;
	} else if (is_type(v, "Replace")) {
		m->kind = NORMALIZER_REPLACE;
		if (get_pattern(v, &s, &n, &is_regex, err) != 0 || !(content = get_string(v, "content", &n_content, err)))
			return -1;
		if (is_regex && !(m->regex = regex_new(s, n, err)))
			return -1;
		m->text = xmemdup(s, n);
		m->n_text = n;
		m->content = xmemdup(content, n_content);
		m->n_content = n_content;
	} else {
		return refuse_type(v, "normalizer", err);
	}
	t->n_normalizers++;
	return 0;
}

int load_normalizer(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	if (yyjson_is_null(v) || !v)
		return 0;
	return load_one_normalizer(t, v, err) != 0 ? err_context(err, "normalizer") : 0;
}

static struct step *add_step(struct tokenizer *t, enum step_kind kind, struct err *err)
{
	if (t->n_steps == MAX_STEPS) {
		err_set(err, ERR_MODEL, "more than %d parts", MAX_STEPS);
		return NULL;
	}
	t->steps[t->n_steps] = (struct step){.kind = kind};
	return &t->steps[t->n_steps++];
}

int add_regex_step(struct tokenizer *t, const char *pattern, size_t n, enum split_behavior behavior, int invert,
                   struct err *err)
{
	struct step *s = add_step(t, STEP_SPLIT, err);

	if (!s)
		return -1;
	s->behavior = behavior;
	s->invert = invert;
	s->scan = scan_find(pattern, n);
	if (!s->scan && !(s->regex = regex_new(pattern, n, err)))
		return -1;
	return 0;
}

static int get_behavior(yyjson_val *v, int required, enum split_behavior *out, struct err *err)
{
	static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
	yyjson_val *b = yyjson_obj_get(v, "behavior");

	*out = SPLIT_ISOLATED;
	if (!b && !required)
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (yyjson_equals_str(b, names[i])) {
			*out = (enum split_behavior)i;
			return 0;
		}
	}
	return err_set(err, ERR_MODEL, "unknown \"behavior\" %.40s", yyjson_is_str(b) ? yyjson_get_str(b) : json_type_name(b));
}

static int load_split(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	enum split_behavior behavior;
	const char *s;
	size_t n;
	int is_regex, invert;
	struct step *st;

	if (get_pattern(v, &s, &n, &is_regex, err) != 0 || get_behavior(v, 1, &behavior, err) != 0 ||
	    get_flag(v, "invert", 0, &invert, err) != 0)
		return -1;
	if (is_regex)
		return add_regex_step(t, s, n, behavior, invert, err);
	st = add_step(t, STEP_SPLIT, err);
	if (!st)
		return -1;
	st->behavior = behavior;
	st->invert = invert;
	st->text = xmemdup(s, n);
	st->n_text = n;
	return 0;
}

/* "first", "always", "never"; add_prefix_space false, its forerunner, means never. */
static int get_prepend(yyjson_val *v, enum prepend_scheme *out, struct err *err)
{
	yyjson_val *scheme = yyjson_obj_get(v, "prepend_scheme");
	int add;

	*out = PREPEND_ALWAYS;
	if (yyjson_equals_str(scheme, "first"))
		*out = PREPEND_FIRST;
	else if (yyjson_equals_str(scheme, "never"))
		*out = PREPEND_NEVER;
	else if (scheme && !yyjson_equals_str(scheme, "always"))
		return err_set(err, ERR_MODEL, "unknown \"prepend_scheme\"");
	if (get_flag(v, "add_prefix_space", 1, &add, err) != 0)
		return -1;
	if (!add && *out != PREPEND_NEVER) {
		if (scheme)
			return err_set(err, ERR_MODEL, "\"add_prefix_space\" and \"prepend_scheme\" contradict each other");
		return err_set(err, ERR_MODEL, "\"add_prefix_space\" false without \"prepend_scheme\" \"never\"");
	}
	return 0;
}

static int load_metaspace(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	enum prepend_scheme prepend;
	size_t n;
	const char *s = get_char(v, "replacement", &n, err);
	int cut;
	struct step *st;

	if (!s || get_prepend(v, &prepend, err) != 0 || get_flag(v, "split", 1, &cut, err) != 0)
		return -1;
	st = add_step(t, STEP_METASPACE, err);
	if (!st)
		return -1;
	st->prepend = prepend;
	st->text = xmemdup(s, n);
	st->n_text = n;
	if (!cut)
		return 0;
	st = add_step(t, STEP_SPLIT, err);
	if (!st)
		return -1;
	st->behavior = SPLIT_MERGED_WITH_NEXT;
	st->text = xmemdup(s, n);
	st->n_text = n;
	return 0;
}

static int load_byte_level(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	int prefix, cut;

	if (get_flag(v, "add_prefix_space", 1, &prefix, err) != 0 || get_flag(v, "use_regex", 1, &cut, err) != 0)
		return -1;
	if (prefix && !add_step(t, STEP_PREFIX_SPACE, err))
		return -1;
	if (cut && add_regex_step(t, scan_gpt2_pattern, strlen(scan_gpt2_pattern), SPLIT_ISOLATED, 0, err) != 0)
		return -1;
	return add_step(t, STEP_BYTES, err) ? 0 : -1;
}

static int load_one_pre_tokenizer(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	struct step *s;
	enum split_behavior behavior;
	int individual;

	if (is_type(v, "Sequence"))
		return load_sequence(t, v, "pretokenizers", load_one_pre_tokenizer, err);
	if (is_type(v, "ByteLevel"))
		return load_byte_level(t, v, err);
	if (is_type(v, "Split"))
		return load_split(t, v, err);
	if (is_type(v, "Metaspace"))
		return load_metaspace(t, v, err);
	if (is_type(v, "Digits")) {
		if (get_flag(v, "individual_digits", 0, &individual, err) != 0 || !(s = add_step(t, STEP_SPLIT_CHARS, err)))
			return -1;
		s->flags = UNICODE_NUMERIC;
		s->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
	} else if (is_type(v, "Punctuation")) {
		if (get_behavior(v, 0, &behavior, err) != 0 || !(s = add_step(t, STEP_SPLIT_CHARS, err)))
			return -1;
		s->flags = UNICODE_PUNCTUATION;
		s->behavior = behavior;
	} else if (is_type(v, "WhitespaceSplit")) {
		if (!(s = add_step(t, STEP_SPLIT_CHARS, err)))
			return -1;
		s->flags = UNICODE_SPACE;
		s->behavior = SPLIT_REMOVED;
	} else if (is_type(v, "Whitespace")) {
		if (!add_step(t, STEP_WORDS, err))
			return -1;
	} else {
		return refuse_type(v, "pre-tokenizer", err);
	}
	return 0;
}

int load_pre_tokenizer(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	if (yyjson_is_null(v) || !v)
		return 0;
	return load_one_pre_tokenizer(t, v, err) != 0 ? err_context(err, "pre_tokenizer") : 0;
}

static int get_count(yyjson_val *v, const char *key, size_t *out, struct err *err)
{
	yyjson_val *c = yyjson_obj_get(v, key);

	if (!yyjson_is_uint(c))
		return err_set(err, ERR_MODEL, "\"%s\" is not a count", key);
	*out = (size_t)yyjson_get_uint(c);
	return 0;
}

static int load_one_decoder(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	struct decoder *d;
	const char *s = "", *content = "";
	size_t n = 0, n_content = 0;
	enum prepend_scheme prepend;
	int is_regex;

	if (is_type(v, "Sequence"))
		return load_sequence(t, v, "decoders", load_one_decoder, err);
	if (t->n_decoders == MAX_STEPS)
		return err_set(err, ERR_MODEL, "more than %d parts", MAX_STEPS);
	d = &t->decoders[t->n_decoders];
	*d = (struct decoder){0};
	if (is_type(v, "ByteLevel")) {
		d->kind = DECODER_BYTE_LEVEL;
	} else if (is_type(v, "ByteFallback")) {
		d->kind = DECODER_BYTE_FALLBACK;
	} else if (is_type(v, "Fuse")) {
		d->kind = DECODER_FUSE;
	} else if (is_type(v, "Replace")) {
		d->kind = DECODER_REPLACE;
		if (get_pattern(v, &s, &n, &is_regex, err) != 0 || !(content = get_string(v, "content", &n_content, err)))
			return -1;
		if (is_regex && !(d->regex = regex_new(s, n, err)))
			return -1;
	} else if (is_type(v, "Strip")) {
		d->kind = DECODER_STRIP;
		if (!(s = get_char(v, "content", &n, err)) || get_count(v, "start", &d->start, err) != 0 ||
		    get_count(v, "stop", &d->stop, err) != 0)
			return -1;
	} else if (is_type(v, "Metaspace")) {
		d->kind = DECODER_METASPACE;
		if (!(s = get_char(v, "replacement", &n, err)) || get_prepend(v, &prepend, err) != 0)
			return -1;
		d->prepend = prepend != PREPEND_NEVER;
	} else {
		return refuse_type(v, "decoder", err);
	}
	d->text = xmemdup(s, n);
	d->n_text = n;
	d->content = xmemdup(content, n_content);
	d->n_content = n_content;
	t->n_decoders++;
	return 0;
}

int load_decoder(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	if (yyjson_is_null(v) || !v)
		return 0;
	t->has_decoder = 1;
	return load_one_decoder(t, v, err) != 0 ? err_context(err, "decoder") : 0;
}

/* The special token of a template piece: all of its ids. */
static int add_template_token(yyjson_val *v, yyjson_val *piece, struct token_list *out, struct err *err)
{
	size_t n, i, max;
	const char *name = get_string(piece, "id", &n, err);
	yyjson_val *ids, *id;

	if (!name)
		return -1;
	ids = yyjson_obj_get(yyjson_obj_getn(yyjson_obj_get(v, "special_tokens"), name, n), "ids");
	if (!yyjson_is_arr(ids))
		return err_set(err, ERR_MODEL, "special token \"%.60s\" has no ids", name);
	yyjson_arr_foreach (ids, i, max, id) {
		if (!yyjson_is_uint(id) || yyjson_get_uint(id) >= MAX_IDS)
			return err_set(err, ERR_MODEL, "special token \"%.60s\" has a bad id", name);
		token_list_add(out, (int32_t)yyjson_get_uint(id));
	}
	return 0;
}

static int load_template(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	yyjson_val *single = yyjson_obj_get(v, "single"), *piece, *token;
	size_t i, max;
	int seen = 0;

	if (t->prefix.n > 0 || t->suffix.n > 0)
		return err_set(err, ERR_MODEL, "more than one TemplateProcessing");
	if (!yyjson_is_arr(single))
		return err_set(err, ERR_MODEL, "\"single\" is %s, not an array", json_type_name(single));
	yyjson_arr_foreach (single, i, max, piece) {
		token = yyjson_obj_get(piece, "SpecialToken");
		if (token) {
			if (add_template_token(v, token, seen ? &t->suffix : &t->prefix, err) != 0)
				return -1;
		} else if (yyjson_equals_str(yyjson_obj_get(yyjson_obj_get(piece, "Sequence"), "id"), "A") && !seen) {
			seen = 1;
		} else {
			return err_set(err, ERR_MODEL, "\"single\" must hold sequence A once and special tokens");
		}
	}
	return seen ? 0 : err_set(err, ERR_MODEL, "\"single\" does not hold sequence A");
}

static int load_one_post_processor(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	if (is_type(v, "Sequence"))
		return load_sequence(t, v, "processors", load_one_post_processor, err);
	if (is_type(v, "TemplateProcessing"))
		return load_template(t, v, err);
	if (is_type(v, "ByteLevel")) /* moves offsets only */
		return 0;
	return refuse_type(v, "post-processor", err);
}

int load_post_processor(struct tokenizer *t, yyjson_val *v, struct err *err)
{
	if (yyjson_is_null(v) || !v)
		return 0;
	return load_one_post_processor(t, v, err) != 0 ? err_context(err, "post_processor") : 0;
}
