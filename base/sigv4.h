/* sigv4.h: AWS Signature Version 4 (AWS General Reference, "Signature Version 4 signing process"; Amazon S3 API Reference,
 * "Authenticating Requests"), as S3 wants it: the path is percent-encoded once and never normalised. Pure functions. */
#ifndef TOKENMILL_BASE_SIGV4_H
#define TOKENMILL_BASE_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/http.h"

#define SIGV4_TIME_BYTES 17 /* "20130524T000000Z" and a NUL */
#define SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"

struct sigv4_key {
	const char *access_key;
	const char *secret_key;
	const char *region;
	const char *service; /* "s3" */
};

struct sigv4_request {
	const char *method;
	const char *path;               /* encoded, begins with '/' */
	const struct http_field *query; /* names and values as they are; encoded and sorted here */
	size_t n_query;
	const struct http_field *fields; /* all are signed: names in lower case, values without needless white space; sorted here */
	size_t n_fields;
	const char *payload_sha256; /* hex, or SIGV4_UNSIGNED */
	int64_t unix_s;
};

void sigv4_time(int64_t unix_s, char text[SIGV4_TIME_BYTES]);
/* Append s with all but A-Z a-z 0-9 - . _ ~ as %XX; '/' stays if keep_slash. */
void sigv4_encode(struct buf *out, const char *s, int keep_slash);
/* Append "a=1&b=2", encoded and sorted as it is signed. */
void sigv4_query(struct buf *out, const struct http_field *query, size_t n);
/* Append the value of the Authorization field. */
void sigv4_authorize(struct buf *out, const struct sigv4_key *key, const struct sigv4_request *r);
/* Append the query string of a presigned URL: r's query, what X-Amz-... has to say (with session_token unless NULL), the
 * signature. */
void sigv4_presign(struct buf *out, const struct sigv4_key *key, const char *session_token, const struct sigv4_request *r,
                   int valid_s);

#endif
