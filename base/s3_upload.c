/* s3_upload.c: a file into an object, in parts when it is large ("Uploading and copying objects using multipart upload", Amazon
 * S3 User Guide):
 *
 *     CreateMultipartUpload -> UploadPart 1..n -> CompleteMultipartUpload     nothing is to be seen before the last
 *                                       |
 *                                       v AbortMultipartUpload, on any failure
 *
 * When the reply to the last step is lost, the next try is told that there is no such upload. The object itself then says
 * whether it was ours: it carries a random mark that was given when the upload was created.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/s3_private.h"
#include "base/xml.h"

enum {
	PART_BYTES = 16 << 20, /* S3 wants at least 5 MiB; a part is what a failure costs */
	PARTS_MAX = 10000,     /* S3's limit, as the 48.8 TiB that an object may have */
	ROUNDS = 3,            /* whole uploads, where the last step's fate stays unknown */
};
#define MARK_FIELD "x-amz-meta-tokenmill-upload"

struct upload {
	struct s3 *s;
	const char *bucket, *key;
	int fd;
	int64_t n_bytes, part_bytes;
	char mark[S3_RANDOM_BYTES];
	char *id;
	char **etags; /* [n_parts] */
	int n_parts;
};

static int on_created(void *arg, const char *path, const char *text, size_t n, struct err *err)
{
	struct upload *u = arg;

	if (strcmp(path, "InitiateMultipartUploadResult/UploadId") == 0) {
		free(u->id);
		u->id = xmemdup(text, n);
	}
	return 0;
}

static int upload_create(struct upload *u, struct err *err)
{
	struct http_source nothing = {.data = ""};
	struct s3_call call = {.operation = "CreateMultipartUpload",
	                       .method = "POST",
	                       .bucket = u->bucket,
	                       .key = u->key,
	                       .body = &nothing,
	                       .query = {{"uploads", ""}},
	                       .n_query = 1,
	                       .fields = {{MARK_FIELD, u->mark}},
	                       .n_fields = 1};
	struct s3_reply reply = {0};
	int rc = 0;

	if (s3_request(u->s, &call, &reply, err) != S3_DONE)
		rc = s3_complain(u->s, &call, &reply, err);
	else if (xml_each_leaf(buf_str(&reply.http.body), reply.http.body.len, on_created, u, err) < 0)
		rc = err_context(err, "CreateMultipartUpload s3://%s/%s", u->bucket, u->key);
	else if (!u->id || !*u->id)
		rc = err_set(err, ERR_STORAGE, "CreateMultipartUpload s3://%s/%s: the reply has no UploadId", u->bucket, u->key);
	s3_reply_release(&reply);
	return rc;
}

static int upload_part(struct upload *u, int number, struct err *err)
{
	int64_t start = (number - 1) * u->part_bytes, left = u->n_bytes - start;
	struct http_source body = {.fd = u->fd, .start = start, .n_bytes = left < u->part_bytes ? left : u->part_bytes};
	char text[16], etag[128];
	struct s3_call call = {.operation = "UploadPart",
	                       .method = "PUT",
	                       .bucket = u->bucket,
	                       .key = u->key,
	                       .body = &body,
	                       .query = {{"partNumber", text}, {"uploadId", u->id}},
	                       .n_query = 2};
	struct s3_reply reply = {0};
	int rc = 0;

	snprintf(text, sizeof(text), "%d", number);
	if (s3_request(u->s, &call, &reply, err) != S3_DONE) {
		rc = s3_complain(u->s, &call, &reply, err);
	} else if (!http_reply_field(&reply.http, "etag", etag, sizeof(etag)) || !*etag || strpbrk(etag, "<>&")) {
		rc = err_set(err, ERR_STORAGE, "UploadPart s3://%s/%s: the reply has no ETag that can be used", u->bucket, u->key);
	} else {
		u->etags[number - 1] = xstrdup(etag);
	}
	s3_reply_release(&reply);
	return rc;
}

/* 1: the object is what this upload made; 0: it is not, or not there; -1. */
static int object_is_ours(struct upload *u, struct err *err)
{
	struct s3_call call = {.operation = "HeadObject", .method = "HEAD", .bucket = u->bucket, .key = u->key};
	struct s3_reply reply = {0};
	enum s3_verdict verdict = s3_request(u->s, &call, &reply, err);
	char mark[S3_RANDOM_BYTES + 1];
	int rc = 0;

	if (verdict == S3_DONE)
		rc = http_reply_field(&reply.http, MARK_FIELD, mark, sizeof(mark)) && strcmp(mark, u->mark) == 0;
	else if (verdict != S3_ABSENT)
		rc = s3_complain(u->s, &call, &reply, err);
	s3_reply_release(&reply);
	return rc;
}

/* 1: done; 0: the upload is gone, and what is there is not ours; -1. */
static int upload_complete(struct upload *u, struct err *err)
{
	struct buf list = {0};
	struct http_source body;
	struct s3_call call = {.operation = "CompleteMultipartUpload",
	                       .method = "POST",
	                       .bucket = u->bucket,
	                       .key = u->key,
	                       .body = &body,
	                       .query = {{"uploadId", u->id}},
	                       .n_query = 1};
	struct s3_reply reply = {0};
	struct err failure = {0};
	int rc;

	buf_adds(&list, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
	for (int i = 0; i < u->n_parts; i++)
		buf_addf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i + 1, u->etags[i]);
	buf_adds(&list, "</CompleteMultipartUpload>");
	body = (struct http_source){.data = list.data, .n_bytes = (int64_t)list.len};
	rc = s3_request(u->s, &call, &reply, &failure) == S3_DONE ? 1 : s3_complain(u->s, &call, &reply, &failure);
	/* Also at the first try: libcurl sends a request again by itself when a kept connection ends without a reply. */
	if (rc < 0 && reply.http.status == 404)
		rc = object_is_ours(u, err);
	else if (rc < 0)
		err_set(err, failure.code, "%s", failure.msg);
	buf_release(&list);
	s3_reply_release(&reply);
	return rc;
}

static void upload_abort(struct upload *u)
{
	struct s3_call call = {.operation = "AbortMultipartUpload",
	                       .method = "DELETE",
	                       .bucket = u->bucket,
	                       .key = u->key,
	                       .query = {{"uploadId", u->id}},
	                       .n_query = 1};
	struct s3_reply reply = {0};
	struct err ignored = {0};

	s3_request(u->s, &call, &reply, &ignored);
	s3_reply_release(&reply);
}

/* 1, 0: unknown whether it was done, -1. */
static int upload_once(struct upload *u, struct err *err)
{
	int rc = 0;

	s3_random(u->mark);
	if (upload_create(u, err) < 0)
		return -1;
	u->etags = xcalloc((size_t)u->n_parts, sizeof(*u->etags));
	for (int i = 1; i <= u->n_parts && rc == 0; i++)
		rc = upload_part(u, i, err);
	if (rc == 0)
		rc = upload_complete(u, err);
	if (rc < 0)
		upload_abort(u);
	for (int i = 0; i < u->n_parts; i++)
		free(u->etags[i]);
	free(u->etags);
	free(u->id);
	u->etags = NULL;
	u->id = NULL;
	return rc;
}

static int put_parts(struct s3 *s, const char *bucket, const char *key, int fd, int64_t n_bytes, struct err *err)
{
	struct upload u = {.s = s, .bucket = bucket, .key = key, .fd = fd, .n_bytes = n_bytes, .part_bytes = PART_BYTES};
	int rc = 0;

	while ((n_bytes + u.part_bytes - 1) / u.part_bytes > PARTS_MAX)
		u.part_bytes *= 2;
	u.n_parts = (int)((n_bytes + u.part_bytes - 1) / u.part_bytes);
	for (int i = 0; i < ROUNDS && rc == 0; i++)
		rc = upload_once(&u, err);
	if (rc == 0)
		return err_set(err, ERR_STORAGE, "CompleteMultipartUpload s3://%s/%s: the replies were lost, and the object is another",
		               bucket, key);
	return rc < 0 ? -1 : 0;
}

static int put_whole(struct s3 *s, const char *bucket, const char *key, int fd, int64_t n_bytes, struct err *err)
{
	struct http_source body = {.fd = fd, .n_bytes = n_bytes};
	struct s3_call call = {.operation = "PutObject", .method = "PUT", .bucket = bucket, .key = key, .body = &body};
	struct s3_reply reply = {0};
	int rc = s3_request(s, &call, &reply, err) == S3_DONE ? 0 : s3_complain(s, &call, &reply, err);

	s3_reply_release(&reply);
	return rc;
}

int s3_put_file(struct s3 *s, const char *bucket, const char *key, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;

	if (fd < 0)
		return err_sys(err, ERR_STORAGE, "%s", path);
	if (fstat(fd, &st) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(err, ERR_STORAGE, "%s: not a regular file", path);
	else if (st.st_size <= PART_BYTES)
		rc = put_whole(s, bucket, key, fd, st.st_size, err);
	else
		rc = put_parts(s, bucket, key, fd, st.st_size, err);
	close(fd);
	return rc;
}
