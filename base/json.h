/* json.h: glue over yyjson (https://github.com/ibireme/yyjson), which does all parsing and writing. */
#ifndef TOKENMILL_BASE_JSON_H
#define TOKENMILL_BASE_JSON_H

#include <stddef.h>
#include <yyjson.h>

#include "base/buf.h"
#include "base/errors.h"

/* Parse strict JSON (RFC 8259). NULL and *err with the byte position on failure. The caller frees with yyjson_doc_free. */
yyjson_doc *json_parse(const char *text, size_t n_bytes, enum err_code code, struct err *err);
yyjson_doc *json_parse_file(const char *path, size_t max_bytes, enum err_code code, struct err *err);

/* Depth of the nesting of arrays and objects at most max: 1, else 0. Does not recurse. */
int json_depth_within(yyjson_val *v, int max);

/* The name of a member that stands twice in one object within v, NULL when there is none. Readers disagree on which of the two
 * counts. Does not recurse. */
yyjson_val *json_find_duplicate(yyjson_val *v);

/* "string", "integer", "number", "boolean", "array", "object", "null", "missing" for messages. */
const char *json_type_name(yyjson_val *v);

/* Append the value: object keys sorted by their bytes, no white space, shortest numbers. Equal values give equal bytes. */
void json_write_canonical(struct buf *out, yyjson_val *v);
/* Append the value as it stands (key order kept), no white space. */
void json_write(struct buf *out, yyjson_val *v);
/* Append a quoted JSON string. s is valid UTF-8 or U+FFFD stands for each bad byte. */
void json_write_string(struct buf *out, const char *s, size_t n);

#endif
