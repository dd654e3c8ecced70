/* s3_list.c: ListObjectsV2, page by page. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/s3_private.h"
#include "base/xml.h"

struct page_reader {
	struct s3_page *page;
	int is_encoded, is_list;
};

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* As in a form: '+' is a space. In place; 0, or -1 where it is not so encoded, or encodes a NUL. */
static int decode(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (*s == '%') {
			int high = hex_digit(s[1]), low = high < 0 ? -1 : hex_digit(s[2]);

			if (low < 0 || high * 16 + low == 0)
				return -1;
			*to++ = (char)(high * 16 + low);
			s += 2;
		} else {
			*to++ = *s == '+' ? ' ' : *s;
		}
	}
	*to = '\0';
	return 0;
}

static int on_page_leaf(void *arg, const char *path, const char *text, size_t n, struct err *err)
{
	struct page_reader *r = arg;
	struct s3_page *page = r->page;
	const char *root = "ListBucketResult";
	size_t n_root = strlen(root);
	int is_prefix;

	if (strncmp(path, root, n_root) != 0 || (path[n_root] && path[n_root] != '/'))
		return 0;
	r->is_list = 1;
	path += n_root + (path[n_root] == '/');
	is_prefix = strcmp(path, "CommonPrefixes/Prefix") == 0;
	if (is_prefix || strcmp(path, "Contents/Key") == 0) {
		MEM_GROW(page->names, page->cap, page->n + 1);
		page->names[page->n++] = (struct s3_name){xmemdup(text, n), is_prefix};
	} else if (strcmp(path, "IsTruncated") == 0) {
		page->is_truncated = strcmp(text, "true") == 0;
	} else if (strcmp(path, "NextContinuationToken") == 0) {
		free(page->next);
		page->next = xmemdup(text, n);
	} else if (strcmp(path, "EncodingType") == 0) {
		r->is_encoded = strcmp(text, "url") == 0;
	}
	return 0;
}

int s3_page_parse(const char *xml, size_t n, struct s3_page *page, struct err *err)
{
	struct page_reader r = {.page = page};
	int rc;

	*page = (struct s3_page){0};
	rc = xml_each_leaf(xml, n, on_page_leaf, &r, err);
	if (rc == 0 && !r.is_list)
		rc = err_set(err, ERR_STORAGE, "the reply is not a ListBucketResult");
	for (size_t i = 0; i < page->n && rc == 0 && r.is_encoded; i++)
		if (decode(page->names[i].key) < 0)
			rc = err_set(err, ERR_STORAGE, "the reply has a name that is wrongly encoded: \"%.200s\"", page->names[i].key);
	if (rc == 0 && page->is_truncated && (!page->next || !*page->next))
		rc = err_set(err, ERR_STORAGE, "the reply is truncated, and does not say how to go on");
	if (rc < 0)
		s3_page_release(page);
	return rc;
}

void s3_page_release(struct s3_page *page)
{
	for (size_t i = 0; i < page->n; i++)
		free(page->names[i].key);
	free(page->names);
	free(page->next);
	*page = (struct s3_page){0};
}

static int tell(const struct s3_page *page, const char *prefix, s3_list_fn fn, void *arg, struct err *err)
{
	for (size_t i = 0; i < page->n; i++) {
		if (strncmp(page->names[i].key, prefix, strlen(prefix)) != 0)
			return err_set(err, ERR_STORAGE, "the reply has a name that was not asked for: \"%.200s\"", page->names[i].key);
		if (fn(arg, page->names[i].key, page->names[i].is_prefix, err) < 0)
			return -1;
	}
	return 0;
}

int s3_list(struct s3 *s, const char *bucket, const char *prefix, const char *delimiter, s3_list_fn fn, void *arg,
            struct err *err)
{
	struct s3_reply reply = {0};
	char *token = NULL;
	int rc = 0, more = 1;

	while (more && rc == 0) {
		struct s3_call call = {.operation = "ListObjectsV2", .method = "GET", .bucket = bucket};
		struct s3_page page = {0};
		enum s3_verdict verdict;

		call.query[call.n_query++] = (struct http_field){"list-type", "2"};
		/* XML cannot hold every byte that a key can. */
		call.query[call.n_query++] = (struct http_field){"encoding-type", "url"};
		call.query[call.n_query++] = (struct http_field){"prefix", prefix};
		if (delimiter)
			call.query[call.n_query++] = (struct http_field){"delimiter", delimiter};
		if (token)
			call.query[call.n_query++] = (struct http_field){"continuation-token", token};
		verdict = s3_request(s, &call, &reply, err);
		if (verdict != S3_DONE) {
			rc = s3_complain(s, &call, &reply, err);
			break;
		}
		rc = s3_page_parse(buf_str(&reply.http.body), reply.http.body.len, &page, err);
		if (rc == 0 && page.is_truncated && token && strcmp(token, page.next) == 0)
			rc = err_set(err, ERR_STORAGE, "the reply goes on where it began");
		if (rc == 0)
			rc = tell(&page, prefix, fn, arg, err);
		if (rc < 0)
			err_context(err, "ListObjectsV2 s3://%s/%s", bucket, prefix);
		more = page.is_truncated;
		free(token);
		token = page.next;
		page.next = NULL;
		s3_page_release(&page);
	}
	free(token);
	s3_reply_release(&reply);
	return rc;
}
