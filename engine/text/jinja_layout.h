/* jinja_layout.h: numbers and text laid out in a field: what "..." % args and "...".format(args) both come down to. */
#ifndef TOKENMILL_ENGINE_JINJA_LAYOUT_H
#define TOKENMILL_ENGINE_JINJA_LAYOUT_H

#include "engine/text/jinja_value.h"

struct layout {
	int32_t fill;
	char align;    /* '<', '>', '^', '=' or 0 */
	char sign;     /* '+', ' ', '-' (only for negative numbers), or 0, which means the same */
	int alternate; /* # */
	char grouping; /* ',', '_' or 0 */
	int64_t width;
	int precision; /* -1: none */
	char type;     /* 0: none */
};
#define MAX_PRECISION 2000

/* prefix (sign, 0x) and body, padded to the width; align '=' pads between the two. */
void layout_add_padded(struct render *r, struct buf *out, const struct layout *l, char align, const char *prefix,
                       const char *body, size_t n);
void layout_add_integer(struct render *r, struct buf *out, const struct layout *l, __int128 i);
void layout_add_float(struct render *r, struct buf *out, const struct layout *l, double d);
/* No more characters than the precision. */
void layout_add_text(struct render *r, struct buf *out, const struct layout *l, char align, const struct jstr *s);

#endif
