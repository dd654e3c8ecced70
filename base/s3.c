/* s3.c: the client, and the operations on one object that fit into one request. Uploads in parts: s3_upload.c; listings:
 * s3_list.c. */
#include "base/s3.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/s3_private.h"

struct s3 *s3_open(struct err *err)
{
	struct s3_config config;
	struct s3 *s;

	if (s3_config_read(&config, err) < 0)
		return NULL;
	s = xcalloc(1, sizeof(*s));
	s->config = config;
	s->http = http_new();
	return s;
}

void s3_close(struct s3 *s)
{
	if (!s)
		return;
	http_free(s->http);
	s3_config_release(&s->config);
	free(s);
}

int s3_url_parse(const char *url, char **bucket, char **key, struct err *err)
{
	const char *b = url + 5, *slash;
	size_t n;

	if (strncmp(url, "s3://", 5) != 0)
		return err_set(err, ERR_USAGE, "\"%s\" is not a URL s3://BUCKET/KEY", url);
	slash = strchr(b, '/');
	n = slash ? (size_t)(slash - b) : strlen(b);
	/* General purpose buckets have at least 3 characters; 255 and capitals are what was allowed before 2018, and is elsewhere.
	 * The name goes into a host name: nothing else may. */
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)b[i]) && !strchr(".-_", b[i]))
			return err_set(err, ERR_USAGE, "\"%s\": a bucket's name has no '%c'", url, b[i]);
	if (n < 3 || n > 255 || !isalnum((unsigned char)*b))
		return err_set(err, ERR_USAGE, "\"%s\": \"%.*s\" is not the name of a bucket", url, (int)n, b);
	if (slash && strlen(slash + 1) > 1024)
		return err_set(err, ERR_USAGE, "%.100s...: a key has at most 1024 bytes", url);
	*bucket = xmemdup(b, n);
	*key = xstrdup(slash ? slash + 1 : "");
	return 0;
}

static void object_describe(const struct http_reply *reply, struct s3_object *o)
{
	char n[32];

	*o = (struct s3_object){.n_bytes = -1};
	if (http_reply_field(reply, "content-length", n, sizeof(n)))
		o->n_bytes = strtoll(n, NULL, 10);
	http_reply_field(reply, "etag", o->etag, sizeof(o->etag));
}

int s3_head(struct s3 *s, const char *bucket, const char *key, struct s3_object *object, struct err *err)
{
	struct s3_call call = {.operation = "HeadObject", .method = "HEAD", .bucket = bucket, .key = key};
	struct s3_reply reply = {0};
	enum s3_verdict verdict = s3_request(s, &call, &reply, err);
	int rc = verdict == S3_DONE ? 1 : verdict == S3_ABSENT ? 0 : -1;

	if (rc == 1)
		object_describe(&reply.http, object);
	else if (rc < 0)
		s3_complain(s, &call, &reply, err);
	s3_reply_release(&reply);
	return rc;
}

/* ---- down ---- */

/* A download that may take several exchanges. */
struct download {
	s3_sink_fn sink;
	void (*rewind)(void *arg); /* forget what the sink took; NULL: that cannot be */
	void *arg;
	int64_t start, given; /* where it began; bytes that the sink took */
	char etag[128];       /* of the object, once a reply has told it */
	int64_t skip;         /* of the reply that comes: a server that ignores Range sends all from the start */
	int is_begun;         /* the reply that comes was looked at */
	int is_other;         /* it is of another object */
};

/* Does the reply go on where we are? Content-Range: bytes 100-199/200. */
static int download_begin(struct download *d, const struct http_reply *reply)
{
	char etag[sizeof(d->etag)], range[128];
	int64_t first = 0;

	d->is_begun = 1;
	http_reply_field(reply, "etag", etag, sizeof(etag));
	if (d->etag[0] && strcmp(d->etag, etag) != 0)
		return 0;
	memcpy(d->etag, etag, sizeof(d->etag));
	if (reply->status == 206 &&
	    (!http_reply_field(reply, "content-range", range, sizeof(range)) || sscanf(range, "bytes %" SCNd64 "-", &first) != 1))
		return 0;
	d->skip = d->start + d->given - first;
	return d->skip >= 0;
}

static int on_download(void *arg, const struct http_reply *reply, const void *p, size_t n)
{
	struct download *d = arg;

	if (!d->is_begun && !download_begin(d, reply)) {
		d->is_other = 1;
		return -1;
	}
	if (d->skip >= (int64_t)n) {
		d->skip -= (int64_t)n;
		return 0;
	}
	p = (const char *)p + d->skip;
	n -= (size_t)d->skip;
	d->skip = 0;
	d->given += (int64_t)n;
	return d->sink(d->arg, p, n);
}

/* As s3_get_stream. Where the object was replaced in between, what was given is taken back, if that can be. */
static int get_from(struct s3 *s, const char *bucket, const char *key, struct download *d, struct err *err)
{
	struct s3_call call = {
	    .operation = "GetObject", .method = "GET", .bucket = bucket, .key = key, .sink = on_download, .arg = d};
	struct s3_reply reply = {0};
	struct s3_retry retry = {0};
	int rc = -1;

	for (;;) {
		int64_t before = d->given;
		char range[40];
		enum s3_verdict verdict;

		call.n_fields = 0;
		if (d->start + d->given > 0) {
			snprintf(range, sizeof(range), "bytes=%" PRId64 "-", d->start + d->given);
			call.fields[call.n_fields++] = (struct http_field){"range", range};
			if (d->etag[0])
				call.fields[call.n_fields++] = (struct http_field){"if-match", d->etag};
		}
		d->is_begun = d->is_other = 0;
		d->skip = 0;
		verdict = s3_try(s, &call, &reply, err);
		if (verdict == S3_DONE || verdict == S3_BEYOND) {
			rc = 1; /* 416: at the end already */
			break;
		}
		if (verdict == S3_ABSENT && !d->etag[0]) {
			rc = 0;
			break;
		}
		if (verdict == S3_STOPPED && !d->is_other) {
			rc = 2;
			break;
		}
		if (verdict == S3_STOPPED || verdict == S3_UNMET || verdict == S3_ABSENT) {
			if (!d->rewind) {
				err_set(err, ERR_STORAGE, "GetObject s3://%s/%s: was replaced or removed while it was read", bucket, key);
				break;
			}
			d->rewind(d->arg);
			d->given = 0;
			d->etag[0] = '\0';
		} else if (verdict != S3_AGAIN) {
			break;
		}
		if (d->given > before)
			retry = (struct s3_retry){0};
		if (!s3_retry_wait(&retry)) {
			s3_complain(s, &call, &reply, err);
			err_context(err, "after %d tries in %.0f s", retry.n_failures, clock_seconds() - retry.since);
			break;
		}
	}
	s3_reply_release(&reply);
	return rc;
}

int s3_get_stream(struct s3 *s, const char *bucket, const char *key, int64_t start, s3_sink_fn sink, void *arg, struct err *err)
{
	struct download d = {.sink = sink, .arg = arg, .start = start};

	return get_from(s, bucket, key, &d, err);
}

struct memory_sink {
	struct buf *out;
	size_t start, max_bytes;
};

static int on_memory(void *arg, const void *p, size_t n)
{
	struct memory_sink *m = arg;

	if (n > m->max_bytes - (m->out->len - m->start))
		return -1;
	buf_add(m->out, p, n);
	return 0;
}

static void memory_rewind(void *arg)
{
	struct memory_sink *m = arg;

	if (m->out->data)
		buf_truncate(m->out, m->start);
}

int s3_get(struct s3 *s, const char *bucket, const char *key, size_t max_bytes, struct buf *out, struct err *err)
{
	struct memory_sink m = {.out = out, .start = out->len, .max_bytes = max_bytes};
	struct download d = {.sink = on_memory, .rewind = memory_rewind, .arg = &m};
	int rc = get_from(s, bucket, key, &d, err);

	if (rc == 2)
		rc = err_set(err, ERR_STORAGE, "GetObject s3://%s/%s: larger than %zu bytes", bucket, key, max_bytes);
	if (rc != 1)
		memory_rewind(&m);
	return rc;
}

struct file_sink {
	int fd;
	int error;
};

static int on_file(void *arg, const void *p, size_t n)
{
	struct file_sink *f = arg;
	const char *c = p;

	if (f->error)
		return -1;
	while (n > 0) {
		ssize_t k = write(f->fd, c, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0) {
			f->error = errno;
			return -1;
		}
		c += k;
		n -= (size_t)k;
	}
	return 0;
}

static void file_rewind(void *arg)
{
	struct file_sink *f = arg;

	if (f->error == 0 && (ftruncate(f->fd, 0) < 0 || lseek(f->fd, 0, SEEK_SET) < 0))
		f->error = errno;
}

int s3_get_file(struct s3 *s, const char *bucket, const char *key, const char *path, struct err *err)
{
	struct file_sink f = {.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
	struct download d = {.sink = on_file, .rewind = file_rewind, .arg = &f};
	int rc;

	if (f.fd < 0)
		return err_sys(err, ERR_STORAGE, "%s", path);
	rc = get_from(s, bucket, key, &d, err);
	if (rc == 1 && f.error)
		rc = 2;
	if (close(f.fd) < 0 && rc == 1) {
		f.error = errno;
		rc = 2;
	}
	if (rc == 2) {
		errno = f.error;
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	}
	if (rc != 1)
		unlink(path);
	return rc;
}

/* ---- up ---- */

static int put(struct s3 *s, const char *bucket, const char *key, const void *data, size_t n, int only_new, struct err *err)
{
	struct http_source body = {.data = data ? data : "", .n_bytes = (int64_t)n};
	struct s3_call call = {.operation = "PutObject", .method = "PUT", .bucket = bucket, .key = key, .body = &body};
	struct s3_reply reply = {0};
	enum s3_verdict verdict;
	int rc;

	if (only_new)
		call.fields[call.n_fields++] = (struct http_field){"if-none-match", "*"};
	verdict = s3_request(s, &call, &reply, err);
	rc = verdict == S3_DONE ? 1 : verdict == S3_UNMET && only_new ? 0 : s3_complain(s, &call, &reply, err);
	s3_reply_release(&reply);
	return rc;
}

int s3_put(struct s3 *s, const char *bucket, const char *key, const void *data, size_t n, struct err *err)
{
	return put(s, bucket, key, data, n, 0, err) < 0 ? -1 : 0;
}

int s3_put_new(struct s3 *s, const char *bucket, const char *key, const void *data, size_t n, struct err *err)
{
	return put(s, bucket, key, data, n, 1, err);
}

int s3_remove(struct s3 *s, const char *bucket, const char *key, struct err *err)
{
	struct s3_call call = {.operation = "DeleteObject", .method = "DELETE", .bucket = bucket, .key = key};
	struct s3_reply reply = {0};
	enum s3_verdict verdict = s3_request(s, &call, &reply, err);
	int rc = verdict == S3_DONE || verdict == S3_ABSENT ? 0 : s3_complain(s, &call, &reply, err);

	s3_reply_release(&reply);
	return rc;
}

void s3_presign(struct s3 *s, const char *method, const char *bucket, const char *key, int valid_s, struct buf *out)
{
	struct sigv4_key id = s3_signing_key(s);
	struct s3_address a = {0};
	struct http_field host;
	struct sigv4_request r = {
	    .method = method, .fields = &host, .n_fields = 1, .payload_sha256 = SIGV4_UNSIGNED, .unix_s = clock_unix_ms() / 1000};

	s3_address_make(&a, &s->config, bucket, key);
	host = (struct http_field){"host", a.host.data};
	r.path = a.path.data;
	buf_addf(out, "%s?", a.url.data);
	sigv4_presign(out, &id, s->config.session_token, &r, valid_s);
	s3_address_release(&a);
}
