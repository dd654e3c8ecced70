/* tags.c: pairs to JSON. */
#include "runner/tags.h"

#include <string.h>
#include <yyjson.h>

#include "base/json.h"

static int add_pair(yyjson_mut_doc *doc, const char *pair, size_t n, const char *from, struct err *err)
{
	yyjson_mut_val *root = yyjson_mut_doc_get_root(doc);
	const char *equals = memchr(pair, '=', n);
	size_t n_key = equals ? (size_t)(equals - pair) : 0;

	if (n_key == 0)
		return err_set(err, ERR_USAGE, "%s must be KEY=VALUE, it is '%.*s'", from, (int)n, pair);
	if (yyjson_mut_obj_getn(root, pair, n_key))
		return err_set(err, ERR_USAGE, "%s: the key '%.*s' stands twice", from, (int)n_key, pair);
	yyjson_mut_obj_put(root, yyjson_mut_strncpy(doc, pair, n_key), yyjson_mut_strncpy(doc, equals + 1, n - n_key - 1));
	return 0;
}

int tags_read(const struct option_list *given, const char *environment, struct buf *json, struct err *err)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL), *own = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *key;
	yyjson_mut_obj_iter it;
	yyjson_doc *fixed;
	int rc = 0;

	yyjson_mut_doc_set_root(doc, yyjson_mut_obj(doc));
	yyjson_mut_doc_set_root(own, yyjson_mut_obj(own));
	for (const char *p = environment; p && *p && rc == 0;) {
		size_t n = strcspn(p, ",");

		rc = n ? add_pair(doc, p, n, "TOKENMILL_TAGS", err) : 0;
		p += n + (p[n] == ',');
	}
	for (int i = 0; i < given->n && rc == 0; i++)
		rc = add_pair(own, given->items[i], strlen(given->items[i]), "--tag", err);
	yyjson_mut_obj_iter_init(yyjson_mut_doc_get_root(own), &it);
	while ((key = yyjson_mut_obj_iter_next(&it)))
		yyjson_mut_obj_put(yyjson_mut_doc_get_root(doc), yyjson_mut_val_mut_copy(doc, key),
		                   yyjson_mut_val_mut_copy(doc, yyjson_mut_obj_iter_get_val(key)));
	if (rc == 0) {
		fixed = yyjson_mut_doc_imut_copy(doc, NULL);
		json_write_canonical(json, yyjson_doc_get_root(fixed));
		yyjson_doc_free(fixed);
	}
	yyjson_mut_doc_free(doc);
	yyjson_mut_doc_free(own);
	return rc;
}
