/* s3_private.h: what the files of the S3 client share, and what its tests reach for. */
#ifndef TOKENMILL_BASE_S3_PRIVATE_H
#define TOKENMILL_BASE_S3_PRIVATE_H

#include "base/hash.h"
#include "base/http.h"
#include "base/s3.h"
#include "base/sigv4.h"

/* ---- who and where (s3_config.c) ---- */

struct s3_config {
	char *access_key, *secret_key;
	char *session_token; /* NULL: none */
	char *region;
	char *endpoint; /* "https://host:port" or "https://host/path", without a trailing slash; NULL: Amazon */
};
int s3_config_read(struct s3_config *c, struct err *err);
void s3_config_release(struct s3_config *c);
/* The value of a key in a section of a file as ~/.aws/credentials: malloc'd, NULL when it is not there. */
char *s3_profile_find(const char *text, const char *section, const char *key);

/* Where a bucket or object is asked for: Host, path (encoded), and both behind the scheme as URL. key NULL: the bucket. */
struct s3_address {
	struct buf host, path, url;
};
void s3_address_make(struct s3_address *a, const struct s3_config *c, const char *bucket, const char *key);
void s3_address_release(struct s3_address *a);

struct s3 {
	struct http *http;
	struct s3_config config;
};
struct sigv4_key s3_signing_key(const struct s3 *s); /* borrowed from s */

/* ---- one request (s3_call.c) ---- */

#define S3_PARAMS_MAX 8

struct s3_call {
	const char *operation; /* as Amazon calls it, for messages */
	const char *method;
	const char *bucket;
	const char *key; /* NULL: the bucket */
	struct http_field query[S3_PARAMS_MAX];
	size_t n_query;
	struct http_field fields[S3_PARAMS_MAX]; /* names in lower case */
	size_t n_fields;
	const struct http_source *body;
	http_sink_fn sink;
	void *arg;
};

struct s3_reply {
	struct http_reply http;
	char code[64]; /* S3's, "" when it says none */
	char message[300];
};
void s3_reply_release(struct s3_reply *r);

/* What a reply (or none) means for who asked. */
enum s3_verdict {
	S3_DONE = 1,
	S3_ABSENT = 2,  /* 404 of an object */
	S3_UNMET = 3,   /* 412: the condition does not hold */
	S3_BEYOND = 4,  /* 416: the range begins at or behind the end */
	S3_STOPPED = 5, /* by the sink */
	S3_AGAIN = 6,
	S3_REFUSED = 7,
};
enum s3_verdict s3_judge(enum http_outcome outcome, int status, const char *code);

/* How long failures may go on. Zero-initialise; anew when something was achieved. */
struct s3_retry {
	double since;
	int n_failures;
};
/* The pause before the next try in seconds, or -1: give up. random is in [0, 1). */
double s3_retry_pause(struct s3_retry *r, double now, double random);
int s3_retry_wait(struct s3_retry *r); /* pauses: 1, or 0: give up */

/* One exchange. Never S3_REFUSED without *err. */
enum s3_verdict s3_try(struct s3 *s, const struct s3_call *call, struct s3_reply *reply, struct err *err);
/* Until the verdict is another than S3_AGAIN or time is up: then S3_REFUSED and *err. */
enum s3_verdict s3_request(struct s3 *s, const struct s3_call *call, struct s3_reply *reply, struct err *err);
/* Set *err from what came. Returns -1. */
int s3_complain(const struct s3 *s, const struct s3_call *call, const struct s3_reply *reply, struct err *err);

/* ---- what is in a reply (s3_list.c, s3_call.c) ---- */

struct s3_error_text {
	char code[64];
	char message[300];
	char region[64]; /* where the bucket is, when that was the error */
};
/* Of <Error>...; 0: it is none. */
int s3_error_parse(const char *xml, size_t n, struct s3_error_text *e);

struct s3_page { /* of a listing */
	struct s3_name {
		char *key;
		int is_prefix;
	} *names;
	size_t n, cap;
	int is_truncated;
	char *next; /* continuation token, NULL: none */
};
int s3_page_parse(const char *xml, size_t n, struct s3_page *page, struct err *err);
void s3_page_release(struct s3_page *page);

#endif
