/* s3_call.c: one request: sign, exchange, judge, try again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/s3_private.h"
#include "base/xml.h"

/* The first pause is 50 to 100 ms, each further one twice as long, up to 1 to 2 s; no more of them 10 s after the first
 * failure. */
static const double pause_first_s = 0.1, pause_max_s = 2.0, give_up_s = 10.0;

void s3_random(char text[S3_RANDOM_BYTES])
{
	unsigned char bytes[16];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		BUG("no random bytes: %s", strerror(errno));
	for (int i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* ---- judging ---- */

/* Codes with a status below 500 that may pass all the same (Amazon S3 API Reference, "Error responses"), the last three because
 * the bytes were damaged or cut on the way. */
static int code_may_pass(const char *code)
{
	static const char *const codes[] = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded",
		"TooManyRequests", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted",
		"ConditionalRequestConflict", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(code, codes[i]) == 0)
			return 1;
	return 0;
}

enum s3_verdict s3_judge(enum http_outcome outcome, int status, const char *code)
{
	switch (outcome) {
	case HTTP_LOST:
		return S3_AGAIN;
	case HTTP_STOPPED:
		return S3_STOPPED;
	case HTTP_FAILED:
		return S3_REFUSED;
	case HTTP_REPLIED:
		break;
	}
	if (code_may_pass(code))
		return S3_AGAIN;
	if (status >= 200 && status < 300) /* a multipart upload can fail after 200 was said */
		return *code ? S3_REFUSED : S3_DONE;
	switch (status) {
	case 404:
		/* Not NoSuchBucket, and not what else some stores say with 404. A reply to HEAD has no body to say more. */
		return *code == '\0' || strcmp(code, "NoSuchKey") == 0 || strcmp(code, "NotFound") == 0 ? S3_ABSENT : S3_REFUSED;
	case 412:
		return S3_UNMET;
	case 416:
		return S3_BEYOND;
	case 408:
	case 429:
	case 500:
	case 502:
	case 503:
	case 504:
		return S3_AGAIN;
	default:
		return S3_REFUSED;
	}
}

double s3_retry_pause(struct s3_retry *r, double now, double random)
{
	double pause = pause_first_s;

	if (r->n_failures == 0)
		r->since = now;
	for (int i = 0; i < r->n_failures && pause < pause_max_s; i++)
		pause *= 2;
	if (pause > pause_max_s)
		pause = pause_max_s;
	pause *= 0.5 + 0.5 * random;
	r->n_failures++;
	return now + pause - r->since > give_up_s ? -1 : pause;
}

int s3_retry_wait(struct s3_retry *r)
{
	uint32_t bits = 0;
	double pause;
	struct timespec t;

	if (getrandom(&bits, sizeof(bits), 0) != (ssize_t)sizeof(bits))
		bits = 0;
	pause = s3_retry_pause(r, clock_seconds(), bits / 4294967296.0);
	if (pause < 0)
		return 0;
	t.tv_sec = (time_t)pause;
	t.tv_nsec = (long)((pause - (double)t.tv_sec) * 1e9);
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
	return 1;
}

static int on_error_leaf(void *arg, const char *path, const char *text, size_t n, struct err *err)
{
	struct s3_error_text *e = arg;

	if (strcmp(path, "Error/Code") == 0)
		snprintf(e->code, sizeof(e->code), "%s", text);
	else if (strcmp(path, "Error/Message") == 0)
		snprintf(e->message, sizeof(e->message), "%s", text);
	else if (strcmp(path, "Error/Region") == 0)
		snprintf(e->region, sizeof(e->region), "%s", text);
	return 0;
}

int s3_error_parse(const char *xml, size_t n, struct s3_error_text *e)
{
	struct err ignored = {0};

	*e = (struct s3_error_text){0};
	if (xml_each_leaf(xml, n, on_error_leaf, e, &ignored) < 0)
		*e = (struct s3_error_text){0};
	return e->code[0] != '\0';
}

/* ---- one exchange ---- */

void s3_reply_release(struct s3_reply *r)
{
	http_reply_release(&r->http);
}

static void payload_sha256(const struct http_source *body, char hex[SHA256_HEX_BYTES])
{
	struct sha256 *h;
	char piece[65536];
	int64_t done = 0;

	if (!body || body->data) {
		sha256_hex(body ? body->data : "", body ? (size_t)body->n_bytes : 0, hex);
		return;
	}
	/* A file that cannot be read is found when it is sent. */
	h = sha256_new();
	while (done < body->n_bytes) {
		int64_t left = body->n_bytes - done;
		ssize_t n =
		    pread(body->fd, piece, left < (int64_t)sizeof(piece) ? (size_t)left : sizeof(piece), (off_t)(body->start + done));

		if (n <= 0)
			break;
		sha256_add(h, piece, (size_t)n);
		done += n;
	}
	sha256_finish(h, hex);
}

struct sigv4_key s3_signing_key(const struct s3 *s)
{
	return (struct sigv4_key){
	    .access_key = s->config.access_key, .secret_key = s->config.secret_key, .region = s->config.region, .service = "s3"};
}

static enum http_outcome exchange(struct s3 *s, const struct s3_call *call, const char *sha256, struct s3_reply *reply)
{
	struct sigv4_key key = s3_signing_key(s);
	struct s3_address a = {0};
	struct http_field fields[S3_PARAMS_MAX + 6];
	struct buf authorization = {0};
	char time[SIGV4_TIME_BYTES];
	struct sigv4_request r = {.method = call->method,
	                          .query = call->query,
	                          .n_query = call->n_query,
	                          .fields = fields,
	                          .payload_sha256 = sha256,
	                          .unix_s = clock_unix_ms() / 1000};
	struct http_request q = {.method = call->method, .body = call->body, .sink = call->sink, .arg = call->arg};
	enum http_outcome outcome;

	s3_address_make(&a, &s->config, call->bucket, call->key);
	sigv4_time(r.unix_s, time);
	r.path = a.path.data;
	fields[r.n_fields++] = (struct http_field){"host", a.host.data};
	fields[r.n_fields++] = (struct http_field){"x-amz-content-sha256", sha256};
	fields[r.n_fields++] = (struct http_field){"x-amz-date", time};
	if (s->config.session_token)
		fields[r.n_fields++] = (struct http_field){"x-amz-security-token", s->config.session_token};
	for (size_t i = 0; i < call->n_fields; i++)
		fields[r.n_fields++] = call->fields[i];
	sigv4_authorize(&authorization, &key, &r);
	fields[r.n_fields] = (struct http_field){"authorization", authorization.data};
	if (call->n_query > 0) {
		buf_addc(&a.url, '?');
		sigv4_query(&a.url, call->query, call->n_query);
	}
	q.url = a.url.data;
	q.fields = fields + 1; /* Host is libcurl's to send */
	q.n_fields = r.n_fields;
	outcome = http_exchange(s->http, &q, &reply->http);
	s3_address_release(&a);
	buf_release(&authorization);
	return outcome;
}

/* Amazon tells the region of a bucket where the request went to, or was signed for, another one. 1: it is another now. */
static int region_correct(struct s3 *s, const struct s3_reply *reply, const struct s3_error_text *e)
{
	char region[64];

	if (reply->http.status != 301 && reply->http.status != 307 && reply->http.status != 400)
		return 0;
	if (!http_reply_field(&reply->http, "x-amz-bucket-region", region, sizeof(region)))
		memcpy(region, e->region, sizeof(region));
	if (region[0] == '\0' || strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(region) ||
	    strcmp(region, s->config.region) == 0)
		return 0;
	free(s->config.region);
	s->config.region = xstrdup(region);
	return 1;
}

/* Temporary credentials run out; who renews them writes the new ones into the profile's file. 1: they are others now. */
static int credentials_renew(struct s3 *s, const struct s3_reply *reply)
{
	struct s3_config c;
	struct err ignored = {0};
	int renewed;

	if (strcmp(reply->code, "ExpiredToken") != 0 || s3_config_read(&c, &ignored) < 0)
		return 0;
	renewed = strcmp(c.access_key, s->config.access_key) != 0 || strcmp(c.secret_key, s->config.secret_key) != 0 ||
	          strcmp(c.session_token ? c.session_token : "", s->config.session_token ? s->config.session_token : "") != 0;
	if (renewed) {
		struct s3_config old = s->config;

		s->config.access_key = c.access_key;
		s->config.secret_key = c.secret_key;
		s->config.session_token = c.session_token;
		c.access_key = old.access_key;
		c.secret_key = old.secret_key;
		c.session_token = old.session_token;
	}
	s3_config_release(&c);
	return renewed;
}

static enum s3_verdict try_once(struct s3 *s, const struct s3_call *call, const char *sha256, struct s3_reply *reply,
                                struct err *err)
{
	int corrections = 0;

	for (;;) {
		enum http_outcome outcome = exchange(s, call, sha256, reply);
		struct s3_error_text e = {0};
		enum s3_verdict verdict;

		if (outcome == HTTP_REPLIED && reply->http.body.len > 0)
			s3_error_parse(reply->http.body.data, reply->http.body.len, &e);
		memcpy(reply->code, e.code, sizeof(reply->code));
		memcpy(reply->message, e.message, sizeof(reply->message));
		verdict = s3_judge(outcome, reply->http.status, reply->code);
		if (verdict == S3_REFUSED && outcome == HTTP_REPLIED && corrections < 2 &&
		    (region_correct(s, reply, &e) || credentials_renew(s, reply))) {
			corrections++;
			continue;
		}
		if (verdict == S3_REFUSED)
			s3_complain(s, call, reply, err);
		return verdict;
	}
}

enum s3_verdict s3_try(struct s3 *s, const struct s3_call *call, struct s3_reply *reply, struct err *err)
{
	char sha256[SHA256_HEX_BYTES];

	payload_sha256(call->body, sha256);
	return try_once(s, call, sha256, reply, err);
}

enum s3_verdict s3_request(struct s3 *s, const struct s3_call *call, struct s3_reply *reply, struct err *err)
{
	char sha256[SHA256_HEX_BYTES];
	struct s3_retry retry = {0};

	payload_sha256(call->body, sha256);
	for (;;) {
		enum s3_verdict verdict = try_once(s, call, sha256, reply, err);

		if (verdict != S3_AGAIN)
			return verdict;
		if (!s3_retry_wait(&retry)) {
			s3_complain(s, call, reply, err);
			err_context(err, "after %d tries in %.0f s", retry.n_failures, clock_seconds() - retry.since);
			return S3_REFUSED;
		}
	}
}

int s3_complain(const struct s3 *s, const struct s3_call *call, const struct s3_reply *reply, struct err *err)
{
	struct buf at = {0}, what = {0};
	const struct http_reply *h = &reply->http;

	buf_addf(&at, "s3://%s%s%s", call->bucket, call->key ? "/" : "", call->key ? call->key : "");
	if (s->config.endpoint)
		buf_addf(&at, " at %s", s->config.endpoint);
	if (h->status)
		buf_addf(&what, "HTTP status %d", h->status);
	if (reply->code[0])
		buf_addf(&what, " %s", reply->code);
	if (reply->message[0])
		buf_addf(&what, ": %s", reply->message);
	if (h->reason[0])
		buf_addf(&what, "%s%s", what.len ? ": " : "", h->reason);
	else if (h->status == 403 && !reply->code[0])
		buf_adds(&what, " (access denied; also said of an object that is not there, to who may not s3:ListBucket)");
	else if ((h->status == 301 || h->status == 307) && !reply->code[0])
		buf_adds(&what, " (the bucket is in another region: set AWS_REGION)");
	err_set(err, ERR_STORAGE, "%s %s: %s", call->operation, at.data, buf_str(&what));
	buf_release(&at);
	buf_release(&what);
	return -1;
}
