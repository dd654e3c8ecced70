/* xml.h: the small part of XML that machines answer with: nested elements that hold either elements or text.
 *
 * One pass calls back for each element that holds no other, with its path from the root and its text:
 *
 *     <Error><Code>SlowDown</Code><Message/></Error>    "Error/Code" "SlowDown", "Error/Message" ""
 *
 * Attributes are read over, names keep their prefix. Understood are the XML declaration, comments, CDATA, and the five named
 * and all numeric character references. Refused is everything else: a DOCTYPE (so there are no entities to expand, nothing is
 * ever fetched), processing instructions, text beside elements, a NUL, nesting of more than 16.
 */
#ifndef TOKENMILL_BASE_XML_H
#define TOKENMILL_BASE_XML_H

#include <stddef.h>

#include "base/errors.h"

/* path and text (NUL-terminated, n bytes) are borrowed for the call. Not 0 ends the pass with -1; then it has set the error. */
typedef int (*xml_leaf_fn)(void *arg, const char *path, const char *text, size_t n, struct err *err);

/* 0, or -1 and *err (ERR_STORAGE) with the position in bytes; calls that were made stay made. */
int xml_each_leaf(const char *xml, size_t n, xml_leaf_fn fn, void *arg, struct err *err);

#endif
