/* Replies of an S3 server: XML, listings, errors, header fields. What a listing gives must keep its promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/s3_private.h"
#include "base/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_leaf(void *arg, const char *path, const char *text, size_t n, struct err *err)
{
	int depth = 1;

	for (const char *p = path; *p; p++)
		depth += *p == '/';
	if (*path == '\0' || depth > 16 || strlen(text) != n)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size ? size : 1); /* exactly as long, so that reading too far is seen */
	struct err err = {0};
	struct s3_page page;
	struct s3_error_text e;
	struct http_reply reply = {0};
	char value[64];

	memcpy(text, data, size);
	xml_each_leaf(text, size, on_leaf, NULL, &err);
	err_clear(&err);
	if (s3_page_parse(text, size, &page, &err) == 0) {
		if (page.is_truncated && !*page.next)
			abort();
		for (size_t i = 0; i < page.n; i++)
			if (!page.names[i].key)
				abort();
		s3_page_release(&page);
	} else if (err.code != ERR_STORAGE || page.names || page.next) {
		abort();
	}
	if (s3_error_parse(text, size, &e) != (e.code[0] != '\0'))
		abort();
	buf_add(&reply.fields, text, size);
	http_reply_field(&reply, "etag", value, sizeof(value));
	http_reply_release(&reply);
	free(text);
	return 0;
}
