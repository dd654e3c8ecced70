/* buf.h: a growable byte string. Zero-initialise, then add; data is NUL-terminated after every call that adds (NULL while
 * nothing was ever added; buf_str never returns NULL). Not thread-safe. The owner calls buf_release. */
#ifndef TOKENMILL_BASE_BUF_H
#define TOKENMILL_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

struct buf {
	char *data;
	size_t len; /* bytes, without the NUL */
	size_t cap;
};

void buf_reserve(struct buf *b, size_t more); /* room for `more` further bytes and a NUL */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vaddf(struct buf *b, const char *fmt, va_list ap);
void buf_reset(struct buf *b);    /* length 0, memory kept */
void buf_truncate(struct buf *b, size_t len);
void buf_release(struct buf *b);
char *buf_detach(struct buf *b);  /* the string, now the caller's to free(); the buf is empty */
const char *buf_str(const struct buf *b); /* borrowed until the next change; "" when empty */

#endif
