/* yaml_json.c: libyaml's events into yyjson values. A value is built when its last event has come, so an alias can only name a
 * value that is complete: no value can contain itself. */
#include "jobs/yaml_json.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "base/mem.h"

enum { DEPTH_MAX = 100, VALUES_MAX = 1000000, FILE_MAX_BYTES = 16 << 20 };

struct anchor {
	char *name;
	yyjson_mut_val *value;
	size_t n_values; /* in it, itself included */
};

struct reader {
	yaml_parser_t parser;
	const char *name;
	enum err_code code;
	struct err *err;
	yyjson_mut_doc *doc;
	struct anchor *anchors;
	size_t n_anchors, cap_anchors;
	size_t n_values;
};

static int fault(struct reader *r, const yaml_mark_t *at, const char *what, const char *which)
{
	err_set(r->err, r->code, "%s:%d: %s%s", r->name, (int)at->line + 1, what, which);
	return -1;
}

static int next_event(struct reader *r, yaml_event_t *e)
{
	if (yaml_parser_parse(&r->parser, e))
		return 0;
	err_set(r->err, r->code, "%s:%d: %s%s%s", r->name, (int)r->parser.problem_mark.line + 1,
	        r->parser.problem ? r->parser.problem : "cannot be read", r->parser.context ? " " : "",
	        r->parser.context ? r->parser.context : "");
	return -1;
}

/* ---- scalars ---- */

static int is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(text, *words) == 0)
			return 1;
	return 0;
}

/* Digits of a base with underscores between them, as in 0x_ff and 1_000. -1 when it is none or too large. */
static int read_digits(const char *p, int base, uint64_t *out)
{
	int any = 0;

	*out = 0;
	for (; *p; p++) {
		int d;

		if (*p == '_')
			continue;
		d = isdigit((unsigned char)*p) ? *p - '0' : isalpha((unsigned char)*p) ? tolower((unsigned char)*p) - 'a' + 10 : 99;
		if (d >= base || *out > (UINT64_MAX - (uint64_t)d) / (uint64_t)base)
			return -1;
		*out = *out * (uint64_t)base + (uint64_t)d;
		any = 1;
	}
	return any ? 0 : -1;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static int is_float(const char *p)
{
	size_t before, after = 0;

	p += *p == '-' || *p == '+';
	before = strspn(p, "0123456789");
	p += before;
	if (*p == '.') {
		after = strspn(++p, "0123456789");
		p += after;
	}
	if (!before && !after)
		return 0;
	if (*p == 'e' || *p == 'E') {
		p++;
		p += *p == '-' || *p == '+';
		after = strspn(p, "0123456789");
		p += after;
		if (!after)
			return 0;
	}
	return *p == '\0';
}

/* NULL: it is not a number. */
static yyjson_mut_val *number(struct reader *r, const char *text)
{
	const char *p = text + (*text == '-' || *text == '+');
	int negative = *text == '-', base = 10;
	uint64_t u;
	double x;

	if (!isdigit((unsigned char)*p) && *p != '.')
		return NULL;
	if (p[0] == '0' && p[1]) {
		base = p[1] == 'x' || p[1] == 'X' ? 16 : p[1] == 'b' || p[1] == 'B' ? 2 : 8;
		p += p[1] == 'x' || p[1] == 'X' || p[1] == 'b' || p[1] == 'B' || p[1] == 'o' || p[1] == 'O' ? 2 : 1;
	}
	if (read_digits(p, base, &u) == 0) {
		if (!negative)
			return yyjson_mut_uint(r->doc, u);
		if (u <= (uint64_t)INT64_MAX + 1)
			return yyjson_mut_sint(r->doc, (int64_t)(0 - u));
	}
	if (!is_float(text))
		return NULL;
	x = strtod(text, NULL);
	return isfinite(x) ? yyjson_mut_real(r->doc, x) : NULL;
}

static yyjson_mut_val *plain_scalar(struct reader *r, const char *text)
{
	static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", NULL};
	static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", NULL};
	static const char *const nothing[] = {"", "~", "null", "Null", "NULL", NULL};
	yyjson_mut_val *v;

	if (is_one_of(text, nothing))
		return yyjson_mut_null(r->doc);
	if (is_one_of(text, yes))
		return yyjson_mut_true(r->doc);
	if (is_one_of(text, no))
		return yyjson_mut_false(r->doc);
	v = number(r, text);
	return v ? v : yyjson_mut_strcpy(r->doc, text);
}

static yyjson_mut_val *scalar(struct reader *r, const yaml_event_t *e)
{
	const char *text = (const char *)e->data.scalar.value, *tag = (const char *)e->data.scalar.tag;
	size_t n = e->data.scalar.length;
	int is_plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

	if (tag && strcmp(tag, YAML_STR_TAG) != 0 && strcmp(tag, YAML_INT_TAG) != 0 && strcmp(tag, YAML_FLOAT_TAG) != 0 &&
	    strcmp(tag, YAML_BOOL_TAG) != 0 && strcmp(tag, YAML_NULL_TAG) != 0 && strcmp(tag, "!") != 0) {
		fault(r, &e->start_mark, "unknown tag ", tag);
		return NULL;
	}
	if ((tag && (strcmp(tag, YAML_STR_TAG) == 0 || strcmp(tag, "!") == 0)) || (!tag && !is_plain))
		return yyjson_mut_strncpy(r->doc, text, n);
	if (strlen(text) != n)
		return yyjson_mut_strncpy(r->doc, text, n);
	{
		static const char *const infinite[] = {".inf",  ".Inf",  ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
		                                       "-.Inf", "-.INF", ".nan", ".NaN",  ".NAN",  NULL};

		if (is_one_of(text, infinite)) {
			fault(r, &e->start_mark, "JSON has no number ", text);
			return NULL;
		}
	}
	return plain_scalar(r, text);
}

/* ---- values ---- */

static yyjson_mut_val *value_of(struct reader *r, const yaml_event_t *first, int depth);

static int remember(struct reader *r, const yaml_char_t *name, yyjson_mut_val *v, size_t n_values)
{
	if (!name)
		return 0;
	MEM_GROW(r->anchors, r->cap_anchors, r->n_anchors + 1);
	r->anchors[r->n_anchors++] = (struct anchor){xstrdup((const char *)name), v, n_values};
	return 0;
}

static yyjson_mut_val *copy_of(struct reader *r, const yaml_event_t *e)
{
	const char *name = (const char *)e->data.alias.anchor;

	for (size_t i = r->n_anchors; i-- > 0;) {
		if (strcmp(r->anchors[i].name, name) != 0)
			continue;
		r->n_values += r->anchors[i].n_values;
		if (r->n_values > VALUES_MAX) {
			fault(r, &e->start_mark, "too many values, through alias *", name);
			return NULL;
		}
		return yyjson_mut_val_mut_copy(r->doc, r->anchors[i].value);
	}
	fault(r, &e->start_mark, "no complete value has the anchor ", name);
	return NULL;
}

static yyjson_mut_val *sequence(struct reader *r, int depth)
{
	yyjson_mut_val *list = yyjson_mut_arr(r->doc), *v;
	yaml_event_t e;

	for (;;) {
		if (next_event(r, &e) < 0)
			return NULL;
		if (e.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&e);
			return list;
		}
		v = value_of(r, &e, depth + 1);
		yaml_event_delete(&e);
		if (!v)
			return NULL;
		yyjson_mut_arr_append(list, v);
	}
}

/* What `<<` brings: members that the mapping does not have itself. */
static void merge_one(struct reader *r, yyjson_mut_val *into, yyjson_mut_val *from)
{
	size_t i, max;
	yyjson_mut_val *k, *v;

	yyjson_mut_obj_foreach(from, i, max, k, v) if (!yyjson_mut_obj_getn(into, yyjson_mut_get_str(k), yyjson_mut_get_len(k)))
	    yyjson_mut_obj_add(into, yyjson_mut_val_mut_copy(r->doc, k), yyjson_mut_val_mut_copy(r->doc, v));
}

static int merge(struct reader *r, const yaml_mark_t *at, yyjson_mut_val *into, yyjson_mut_val *from)
{
	size_t i, max;
	yyjson_mut_val *v;

	if (yyjson_mut_is_obj(from)) {
		merge_one(r, into, from);
		return 0;
	}
	if (!yyjson_mut_is_arr(from))
		return fault(r, at, "<< must have a mapping or a list of mappings", "");
	yyjson_mut_arr_foreach(from, i, max, v)
	{
		if (!yyjson_mut_is_obj(v))
			return fault(r, at, "<< must have a mapping or a list of mappings", "");
		merge_one(r, into, v);
	}
	return 0;
}

static yyjson_mut_val *mapping(struct reader *r, int depth)
{
	yyjson_mut_val *object = yyjson_mut_obj(r->doc), *merged = NULL, *v;
	yaml_mark_t merged_at = {0};
	yaml_event_t k, e;

	for (;;) {
		yyjson_mut_val *key;
		int is_merge, rc;

		if (next_event(r, &k) < 0)
			return NULL;
		if (k.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&k);
			break;
		}
		if (k.type != YAML_SCALAR_EVENT) {
			fault(r, &k.start_mark, "a key must be plain text", "");
			yaml_event_delete(&k);
			return NULL;
		}
		key = yyjson_mut_strncpy(r->doc, (const char *)k.data.scalar.value, k.data.scalar.length);
		is_merge = k.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && k.data.scalar.length == 2 &&
		           memcmp(k.data.scalar.value, "<<", 2) == 0;
		rc = yyjson_mut_obj_getn(object, yyjson_mut_get_str(key), yyjson_mut_get_len(key)) || (is_merge && merged)
		         ? fault(r, &k.start_mark, "given twice: ", yyjson_mut_get_str(key))
		         : 0;
		if (rc == 0)
			remember(r, k.data.scalar.anchor, key, 1);
		merged_at = is_merge ? k.start_mark : merged_at;
		yaml_event_delete(&k);
		if (rc < 0 || next_event(r, &e) < 0)
			return NULL;
		v = value_of(r, &e, depth + 1);
		yaml_event_delete(&e);
		if (!v)
			return NULL;
		if (is_merge)
			merged = v;
		else
			yyjson_mut_obj_add(object, key, v);
	}
	return merged && merge(r, &merged_at, object, merged) < 0 ? NULL : object;
}

static yyjson_mut_val *value_of(struct reader *r, const yaml_event_t *first, int depth)
{
	size_t before = r->n_values;
	const yaml_char_t *anchor = NULL;
	yyjson_mut_val *v;

	if (++r->n_values > VALUES_MAX) {
		fault(r, &first->start_mark, "too many values", "");
		return NULL;
	}
	if (depth > DEPTH_MAX) {
		fault(r, &first->start_mark, "nested too deeply", "");
		return NULL;
	}
	switch (first->type) {
	case YAML_ALIAS_EVENT:
		return copy_of(r, first);
	case YAML_SCALAR_EVENT:
		anchor = first->data.scalar.anchor;
		v = scalar(r, first);
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = first->data.sequence_start.anchor;
		v = sequence(r, depth);
		break;
	default:
		anchor = first->data.mapping_start.anchor;
		v = mapping(r, depth);
	}
	if (v)
		remember(r, anchor, v, r->n_values - before);
	return v;
}

/* Stream and document; *root NULL: it is empty. */
static int read_stream(struct reader *r, yyjson_mut_val **root)
{
	yaml_event_t e;
	int rc = 0, end = 0;

	*root = NULL;
	while (rc == 0 && !end) {
		if (next_event(r, &e) < 0)
			return -1;
		switch (e.type) {
		case YAML_STREAM_END_EVENT:
			end = 1;
			break;
		case YAML_DOCUMENT_START_EVENT:
			if (*root)
				rc = fault(r, &e.start_mark, "a second document begins here", "");
			break;
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		default:
			*root = value_of(r, &e, 0);
			rc = *root ? 0 : -1;
		}
		yaml_event_delete(&e);
	}
	return rc;
}

yyjson_doc *yaml_to_json(const char *name, const char *text, size_t n, enum err_code code, struct err *err)
{
	struct reader r = {.name = name, .code = code, .err = err, .doc = yyjson_mut_doc_new(NULL)};
	yyjson_mut_val *root = NULL;
	yyjson_doc *out = NULL;

	if (!r.doc || !yaml_parser_initialize(&r.parser))
		BUG("out of memory");
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	if (read_stream(&r, &root) == 0) {
		yyjson_mut_doc_set_root(r.doc, root ? root : yyjson_mut_null(r.doc));
		out = yyjson_mut_doc_imut_copy(r.doc, NULL);
	}
	for (size_t i = 0; i < r.n_anchors; i++)
		free(r.anchors[i].name);
	free(r.anchors);
	yaml_parser_delete(&r.parser);
	yyjson_mut_doc_free(r.doc);
	return out;
}

yyjson_doc *yaml_file_to_json(const char *path, enum err_code code, struct err *err)
{
	struct buf text = {0};
	yyjson_doc *doc = NULL;

	if (file_read(path, FILE_MAX_BYTES, &text, code, err) == 0)
		doc = yaml_to_json(path, buf_str(&text), text.len, code, err);
	buf_release(&text);
	return doc;
}
