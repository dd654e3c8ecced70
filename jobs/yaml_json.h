/* yaml_json.h: one YAML document as JSON values, read as kubectl reads it: YAML 1.1 scalars (0644 is octal, `yes` is true),
 * anchors, merge keys
 * (<<). JSON is YAML, so it reads both. What has no place in JSON (.nan, a key that is a list, a second document) is refused,
 * and so are a key given twice, nesting deeper than 100 and more than a million values (aliases multiply).
 *
 * Any thread. */
#ifndef TOKENMILL_JOBS_YAML_JSON_H
#define TOKENMILL_JOBS_YAML_JSON_H

#include <stddef.h>

#include "base/errors.h"
#include "base/json.h"

/* `name` stands before messages: "NAME:12: ...". An empty document is null. NULL and *err (of that code); the caller frees with
 * yyjson_doc_free. */
yyjson_doc *yaml_to_json(const char *name, const char *text, size_t n, enum err_code code, struct err *err);
yyjson_doc *yaml_file_to_json(const char *path, enum err_code code, struct err *err); /* at most 16 MiB */

#endif
