/* json.c: errors, canonical form and quoting around yyjson. */
#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

yyjson_doc *json_parse(const char *text, size_t n_bytes, enum err_code code, struct err *err)
{
	yyjson_read_err e;
	/* The flags keep the input unchanged, so the cast is safe. */
	yyjson_doc *doc = yyjson_read_opts((char *)(n_bytes ? text : " "), n_bytes ? n_bytes : 1, YYJSON_READ_NOFLAG, NULL, &e);

	if (!doc)
		err_set(err, code, "not valid JSON: %s at byte %zu", e.msg, e.pos + 1);
	return doc;
}

yyjson_doc *json_parse_file(const char *path, size_t max_bytes, enum err_code code, struct err *err)
{
	struct buf text = {0};
	yyjson_doc *doc = NULL;

	if (file_read(path, max_bytes, &text, code, err) == 0) {
		doc = json_parse(buf_str(&text), text.len, code, err);
		if (!doc)
			err_context(err, "%s", path);
	}
	buf_release(&text);
	return doc;
}

/* yyjson stores a document as one flat array of values; an array or object is followed by its content. A container's
 * end is reached by counting, so the walk needs only a stack as deep as the limit. */
int json_depth_within(yyjson_val *v, int max)
{
	yyjson_val *end[256];
	int depth = 0;
	yyjson_val *stop = unsafe_yyjson_get_next(v);

	if (max > 256)
		max = 256;
	for (; v < stop; v++) {
		while (depth > 0 && v >= end[depth - 1])
			depth--;
		if (yyjson_is_ctn(v)) {
			if (depth == max)
				return 0;
			end[depth++] = unsafe_yyjson_get_next(v);
		}
	}
	return 1;
}

static int by_name(const void *a, const void *b)
{
	yyjson_val *x = *(yyjson_val *const *)a, *y = *(yyjson_val *const *)b;
	size_t n = yyjson_get_len(x), m = yyjson_get_len(y);

	if (n != m)
		return n < m ? -1 : 1;
	return memcmp(yyjson_get_str(x), yyjson_get_str(y), n);
}

yyjson_val *json_find_duplicate(yyjson_val *v)
{
	yyjson_val *stop = unsafe_yyjson_get_next(v), *found = NULL, *key, *value, **keys = NULL;
	size_t cap = 0;

	for (; v < stop && !found; v++) {
		size_t n = yyjson_obj_size(v), i, max;

		if (n < 2)
			continue;
		MEM_GROW(keys, cap, n);
		yyjson_obj_foreach (v, i, max, key, value)
			keys[i] = key;
		qsort(keys, n, sizeof(*keys), by_name);
		for (i = 1; i < n && !found; i++)
			if (by_name(&keys[i - 1], &keys[i]) == 0)
				found = keys[i];
	}
	free(keys);
	return found;
}

const char *json_type_name(yyjson_val *v)
{
	if (!v)
		return "missing";
	switch (yyjson_get_type(v)) {
	case YYJSON_TYPE_NULL:
		return "null";
	case YYJSON_TYPE_BOOL:
		return "boolean";
	case YYJSON_TYPE_NUM:
		return yyjson_is_int(v) ? "integer" : "number";
	case YYJSON_TYPE_STR:
		return "string";
	case YYJSON_TYPE_ARR:
		return "array";
	case YYJSON_TYPE_OBJ:
		return "object";
	default:
		return "unknown";
	}
}

void json_write_string(struct buf *out, const char *s, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	buf_reserve(out, n + 2);
	buf_addc(out, '"');
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)s[i];
		size_t run = i, need, k;

		/* The common case first: a run of plain ASCII. */
		while (run < n && (unsigned char)s[run] >= 0x20 && (unsigned char)s[run] < 0x7F && s[run] != '"' && s[run] != '\\')
			run++;
		if (run > i) {
			buf_add(out, s + i, run - i);
			i = run;
			continue;
		}
		if (c < 0x80) {
			const char *esc = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t"
				: c == '\b' ? "\\b" : c == '\f' ? "\\f" : NULL;

			if (esc) {
				buf_add(out, esc, 2);
			} else if (c < 0x20) {
				char u[6] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};

				buf_add(out, u, 6);
			} else {
				buf_addc(out, (char)c);
			}
			i++;
			continue;
		}
		/* One multi-byte character, checked as in RFC 3629. */
		need = c >= 0xC2 && c <= 0xDF ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
		for (k = 1; k <= need && i + k < n && ((unsigned char)s[i + k] & 0xC0) == 0x80; k++)
			;
		if (need && k > need) {
			unsigned char d = (unsigned char)s[i + 1];

			if (!((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) || (c == 0xF4 && d > 0x8F))) {
				buf_add(out, s + i, need + 1);
				i += need + 1;
				continue;
			}
		}
		buf_add(out, "\xEF\xBF\xBD", 3);
		i++;
	}
	buf_addc(out, '"');
}

void json_write(struct buf *out, yyjson_val *v)
{
	size_t n;
	char *s = yyjson_val_write_opts(v, YYJSON_WRITE_ALLOW_INF_AND_NAN, NULL, &n, NULL);

	if (!s)
		BUG("yyjson cannot write a value of type %s", json_type_name(v));
	buf_add(out, s, n);
	free(s);
}

struct member {
	yyjson_val *key, *val;
};

static int by_key(const void *a, const void *b)
{
	yyjson_val *x = ((const struct member *)a)->key, *y = ((const struct member *)b)->key;
	size_t nx = yyjson_get_len(x), ny = yyjson_get_len(y);
	int c = memcmp(yyjson_get_str(x), yyjson_get_str(y), nx < ny ? nx : ny);

	if (c == 0 && nx != ny)
		return nx < ny ? -1 : 1;
	return c ? c : (x < y ? -1 : x > y);
}

void json_write_canonical(struct buf *out, yyjson_val *v)
{
	size_t i, max, n = 0;
	yyjson_val *key, *val;

	switch (yyjson_get_type(v)) {
	case YYJSON_TYPE_ARR:
		buf_addc(out, '[');
		yyjson_arr_foreach(v, i, max, val)
		{
			if (i)
				buf_addc(out, ',');
			json_write_canonical(out, val);
		}
		buf_addc(out, ']');
		break;
	case YYJSON_TYPE_OBJ: {
		struct member *m = xcalloc(yyjson_obj_size(v), sizeof(*m));

		yyjson_obj_foreach(v, i, max, key, val)
			m[n++] = (struct member){key, val};
		qsort(m, n, sizeof(*m), by_key);
		buf_addc(out, '{');
		for (i = 0; i < n; i++) {
			if (i)
				buf_addc(out, ',');
			json_write_string(out, yyjson_get_str(m[i].key), yyjson_get_len(m[i].key));
			buf_addc(out, ':');
			json_write_canonical(out, m[i].val);
		}
		buf_addc(out, '}');
		free(m);
		break;
	}
	case YYJSON_TYPE_STR:
		json_write_string(out, yyjson_get_str(v), yyjson_get_len(v));
		break;
	case YYJSON_TYPE_NUM:
		/* 1, 1.0 and 1e0 are one number. */
		if (yyjson_is_real(v) && fabs(yyjson_get_real(v)) < 9007199254740992.0 && yyjson_get_real(v) == trunc(yyjson_get_real(v)))
			buf_addf(out, "%" PRId64, (int64_t)yyjson_get_real(v));
		else
			json_write(out, v);
		break;
	default:
		json_write(out, v);
	}
}
