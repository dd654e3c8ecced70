/* html.h: the frame of a page and the escaping of texts. A page holds everything it needs: no script at all, and a content
 * security policy that forbids scripts and requests even if an escape were missed. Light and dark follow the browser. */
#ifndef TOKENMILL_JOBS_HTML_H
#define TOKENMILL_JOBS_HTML_H

#include "base/buf.h"

void html_begin(struct buf *out, const char *title); /* up to <body> */
void html_end(struct buf *out);
/* Text of an element or of an attribute in double quotes. What is invisible but acts (controls, marks that turn the direction
 * of writing) becomes U+FFFD. */
void html_add_text(struct buf *out, const char *text);

#endif
