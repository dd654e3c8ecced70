/* json_edit.h: changes to a Kubernetes object that a user asks for: one value by its path, or a partial object laid over it.
 *
 *     spec.ttlSecondsAfterFinished=600
 *     spec.template.spec.containers[worker].image=x      of a list, the element of that name
 *     spec.template.spec.containers[0].args[-]=--quiet   of a list, a new element at the end
 *     metadata.annotations.example\.com/team=a           a dot that belongs to the name; or ["example.com/team"]
 *
 * What stands behind '=' is JSON where it is JSON (5, true, null, {"a":1}, "5"), else text. null takes the member away. */
#ifndef TOKENMILL_JOBS_JSON_EDIT_H
#define TOKENMILL_JOBS_JSON_EDIT_H

#include "base/errors.h"
#include "base/json.h"

/* assignment: "path=value". ERR_USAGE names the part of the path that does not fit what is there. */
int json_edit_set(yyjson_mut_doc *doc, const char *assignment, struct err *err);

/* Lay `over` over `base` (both of doc): objects member by member, null takes away; lists of objects are merged by the key that
 * Kubernetes merges them by (containers, env, volumes by name, volumeMounts by mountPath, ...), new elements come last; every
 * other list replaces. Both are objects. */
void json_edit_merge(yyjson_mut_doc *doc, yyjson_mut_val *base, yyjson_mut_val *over);

#endif
