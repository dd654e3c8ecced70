/* tool_sigv4: signatures of many requests, for scripts/diff-sigv4.py. Each line on stdin is a JSON object with access_key,
 * secret_key, region, token (or null), method, path (not encoded), query and fields (arrays of [name, value]), sha256, unix_s,
 * valid_s (0, or of a presigned URL); for each a line on stdout: the Authorization field, or the query string of the URL. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/sigv4.h"

static const char *text_of(yyjson_val *o, const char *name)
{
	return yyjson_get_str(yyjson_obj_get(o, name));
}

/* malloc'd; the strings are the document's. */
static struct http_field *pairs_of(yyjson_val *o, const char *name, size_t *n)
{
	yyjson_val *list = yyjson_obj_get(o, name), *pair;
	struct http_field *fields = xcalloc(yyjson_arr_size(list) + 1, sizeof(*fields));
	size_t i, max;

	yyjson_arr_foreach (list, i, max, pair)
		fields[i] = (struct http_field){yyjson_get_str(yyjson_arr_get(pair, 0)), yyjson_get_str(yyjson_arr_get(pair, 1))};
	*n = yyjson_arr_size(list);
	return fields;
}

static void sign(yyjson_val *o)
{
	struct sigv4_key key = {text_of(o, "access_key"), text_of(o, "secret_key"), text_of(o, "region"), "s3"};
	struct sigv4_request r = {.method = text_of(o, "method"),
	                          .payload_sha256 = text_of(o, "sha256"),
	                          .unix_s = yyjson_get_sint(yyjson_obj_get(o, "unix_s"))};
	struct http_field *query = pairs_of(o, "query", &r.n_query), *fields = pairs_of(o, "fields", &r.n_fields);
	struct buf path = {0}, out = {0};
	int valid_s = yyjson_get_int(yyjson_obj_get(o, "valid_s"));

	sigv4_encode(&path, text_of(o, "path"), 1);
	r.path = path.data;
	r.query = query;
	r.fields = fields;
	if (valid_s)
		sigv4_presign(&out, &key, text_of(o, "token"), &r, valid_s);
	else
		sigv4_authorize(&out, &key, &r);
	puts(out.data);
	buf_release(&path);
	buf_release(&out);
	free(query);
	free(fields);
}

int main(void)
{
	struct err err = {0};
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) > 0) {
		yyjson_doc *doc = json_parse(line, (size_t)n - (line[n - 1] == '\n'), ERR_USAGE, &err);

		if (!doc) {
			fprintf(stderr, "tool_sigv4: %s\n", err.msg);
			return 1;
		}
		sign(yyjson_doc_get_root(doc));
		yyjson_doc_free(doc);
	}
	free(line);
	return 0;
}
