/* sigv4.c: canonical request -> string to sign -> signature. */
#include "base/sigv4.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/errors.h"
#include "base/hash.h"
#include "base/mem.h"

void sigv4_time(int64_t unix_s, char text[SIGV4_TIME_BYTES])
{
	time_t t = (time_t)unix_s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || strftime(text, SIGV4_TIME_BYTES, "%Y%m%dT%H%M%SZ", &tm) != SIGV4_TIME_BYTES - 1)
		BUG("no date for the time %lld", (long long)unix_s);
}

void sigv4_encode(struct buf *out, const char *s, int keep_slash)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("-._~", c) ||
		    (c == '/' && keep_slash))
			buf_addc(out, (char)c);
		else
			buf_addf(out, "%%%02X", c);
	}
}

static int compare_pairs(const void *a, const void *b)
{
	const struct http_field *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : strcmp(x->value, y->value);
}

void sigv4_query(struct buf *out, const struct http_field *query, size_t n)
{
	struct http_field *pairs = xcalloc(n + 1, sizeof(*pairs));

	for (size_t i = 0; i < n; i++) {
		struct buf name = {0}, value = {0};

		sigv4_encode(&name, query[i].name, 0);
		sigv4_encode(&value, query[i].value, 0);
		buf_adds(&value, ""); /* an empty one is a string, too */
		pairs[i] = (struct http_field){buf_detach(&name), buf_detach(&value)};
	}
	qsort(pairs, n, sizeof(*pairs), compare_pairs);
	for (size_t i = 0; i < n; i++) {
		buf_addf(out, "%s%s=%s", i ? "&" : "", pairs[i].name, pairs[i].value);
		free((char *)pairs[i].name);
		free((char *)pairs[i].value);
	}
	free(pairs);
}

static struct http_field *sorted_fields(const struct sigv4_request *r)
{
	struct http_field *fields = xcalloc(r->n_fields + 1, sizeof(*fields));

	for (size_t i = 0; i < r->n_fields; i++)
		fields[i] = r->fields[i];
	qsort(fields, r->n_fields, sizeof(*fields), compare_pairs);
	return fields;
}

static void signed_names(struct buf *out, const struct sigv4_request *r)
{
	struct http_field *fields = sorted_fields(r);

	for (size_t i = 0; i < r->n_fields; i++)
		buf_addf(out, "%s%s", i ? ";" : "", fields[i].name);
	free(fields);
}

static void scope(struct buf *out, const struct sigv4_key *key, const char *time)
{
	buf_addf(out, "%.8s/%s/%s/aws4_request", time, key->region, key->service);
}

/* query: as it stands in the canonical request. */
static void signature(const struct sigv4_key *key, const struct sigv4_request *r, const char *query, char hex[SHA256_HEX_BYTES])
{
	struct http_field *fields = sorted_fields(r);
	struct buf text = {0};
	unsigned char k[32];
	char time[SIGV4_TIME_BYTES], digest[SHA256_HEX_BYTES];

	sigv4_time(r->unix_s, time);
	buf_addf(&text, "%s\n%s\n%s\n", r->method, r->path, query);
	for (size_t i = 0; i < r->n_fields; i++)
		buf_addf(&text, "%s:%s\n", fields[i].name, fields[i].value);
	free(fields);
	buf_addc(&text, '\n');
	signed_names(&text, r);
	buf_addf(&text, "\n%s", r->payload_sha256);
	sha256_hex(text.data, text.len, digest);

	buf_reset(&text);
	buf_addf(&text, "AWS4%s", key->secret_key);
	hmac_sha256(text.data, text.len, time, 8, k);
	hmac_sha256(k, 32, key->region, strlen(key->region), k);
	hmac_sha256(k, 32, key->service, strlen(key->service), k);
	hmac_sha256(k, 32, "aws4_request", 12, k);
	buf_reset(&text);
	buf_addf(&text, "AWS4-HMAC-SHA256\n%s\n", time);
	scope(&text, key, time);
	buf_addf(&text, "\n%s", digest);
	hmac_sha256(k, 32, text.data, text.len, k);
	buf_release(&text);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", k[i]);
}

void sigv4_authorize(struct buf *out, const struct sigv4_key *key, const struct sigv4_request *r)
{
	struct buf query = {0};
	char time[SIGV4_TIME_BYTES], hex[SHA256_HEX_BYTES];

	sigv4_time(r->unix_s, time);
	sigv4_query(&query, r->query, r->n_query);
	signature(key, r, buf_str(&query), hex);
	buf_release(&query);
	buf_addf(out, "AWS4-HMAC-SHA256 Credential=%s/", key->access_key);
	scope(out, key, time);
	buf_adds(out, ", SignedHeaders=");
	signed_names(out, r);
	buf_addf(out, ", Signature=%s", hex);
}

void sigv4_presign(struct buf *out, const struct sigv4_key *key, const char *session_token, const struct sigv4_request *r,
                   int valid_s)
{
	struct http_field *query = xcalloc(r->n_query + 6, sizeof(*query));
	struct buf credential = {0}, names = {0}, text = {0};
	char time[SIGV4_TIME_BYTES], hex[SHA256_HEX_BYTES], valid[16];
	size_t n = 0;

	sigv4_time(r->unix_s, time);
	buf_addf(&credential, "%s/", key->access_key);
	scope(&credential, key, time);
	signed_names(&names, r);
	snprintf(valid, sizeof(valid), "%d", valid_s);
	for (; n < r->n_query; n++)
		query[n] = r->query[n];
	query[n++] = (struct http_field){"X-Amz-Algorithm", "AWS4-HMAC-SHA256"};
	query[n++] = (struct http_field){"X-Amz-Credential", credential.data};
	query[n++] = (struct http_field){"X-Amz-Date", time};
	query[n++] = (struct http_field){"X-Amz-Expires", valid};
	query[n++] = (struct http_field){"X-Amz-SignedHeaders", buf_str(&names)};
	if (session_token)
		query[n++] = (struct http_field){"X-Amz-Security-Token", session_token};
	sigv4_query(&text, query, n);
	signature(key, r, text.data, hex);
	buf_addf(out, "%s&X-Amz-Signature=%s", text.data, hex);
	free(query);
	buf_release(&credential);
	buf_release(&names);
	buf_release(&text);
}
