/* s3.h: objects in Amazon S3 and in what speaks its protocol (MinIO, Ceph, versitygw, ...).
 *
 * A struct s3 is one client: who it is, where the store is, a connection that is kept. From the environment, as the AWS tools
 * have it:
 *
 *     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN    or of profile AWS_PROFILE (default) in ~/.aws/credentials
 *     AWS_REGION, AWS_DEFAULT_REGION                                 or the profile's in ~/.aws/config, or us-east-1
 *     AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL                          or the profile's endpoint_url, or Amazon
 *     AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE                   other places of these files
 *
 * A request goes to https://BUCKET.s3.REGION.amazonaws.com/KEY, or with an endpoint to ENDPOINT/BUCKET/KEY ("path style"; also
 * at Amazon where the bucket's name has dots, which its certificates do not cover). A wrong region is corrected from the reply;
 * credentials that have run out are read again, once, for somebody may have written new ones into the profile.
 *
 * What may pass is tried again with growing, jittered pauses until some ten seconds after the first failure: 5xx, 429, SlowDown
 * and the like, a connection that is refused, breaks or stalls, a reply that is cut short, bytes damaged on the way (the hash
 * of what is sent is signed). A download goes on where it broke, if the object is still the same (ETag). So an operation may
 * have been done and its reply lost; here it says which of them can tell a stranger's work from their own.
 *
 * Permissions that all of it takes: s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload, s3:ListBucket.
 *
 * Failures are ERR_STORAGE (a bad URL or configuration: ERR_USAGE) with operation, bucket and key, HTTP status, S3's code and
 * message. A bucket that is not there is a failure; an object that is not there is an answer. No two threads share a struct s3.
 */
#ifndef TOKENMILL_BASE_S3_H
#define TOKENMILL_BASE_S3_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"

struct s3;

struct s3 *s3_open(struct err *err); /* sends nothing yet */
void s3_close(struct s3 *s);

#define S3_RANDOM_BYTES 33
void s3_random(char text[S3_RANDOM_BYTES]); /* 32 hex digits that nobody else has: names of probes, marks of uploads */

/* "s3://bucket/key": both malloc'd, the key "" where there is none. */
int s3_url_parse(const char *url, char **bucket, char **key, struct err *err);

struct s3_object {
	int64_t n_bytes;
	char etag[128]; /* with its quotes; another one for other bytes */
};

/* 1, 0: there is none, -1. */
int s3_head(struct s3 *s, const char *bucket, const char *key, struct s3_object *object, struct err *err);

/* Append the bytes: 1, 0: there is none, -1 (out is as before). More than max_bytes is an error. Never parts of two objects: if
 * it is replaced meanwhile, all is the new one's. */
int s3_get(struct s3 *s, const char *bucket, const char *key, size_t max_bytes, struct buf *out, struct err *err);
/* Bytes from `start` on, in order, each once. The sink returns 0 to go on.
 * 1: all were given; 0: there is none; 2: the sink did not want more; -1, after any number of bytes (also when the object was
 * replaced meanwhile and the connection broke). */
typedef int (*s3_sink_fn)(void *arg, const void *p, size_t n);
int s3_get_stream(struct s3 *s, const char *bucket, const char *key, int64_t start, s3_sink_fn sink, void *arg,
                  struct err *err);
/* Into a file, which is made or emptied: 1, 0: there is none, -1. Otherwise as s3_get. The file is removed unless 1.
 * Not fsynced. */
int s3_get_file(struct s3 *s, const char *bucket, const char *key, const char *path, struct err *err);

int s3_put(struct s3 *s, const char *bucket, const char *key, const void *data, size_t n, struct err *err);
/* Only if there is no such object (If-None-Match: *). 1; 0: there is one, maybe from an earlier try of this very call whose
 * reply was lost: who has to know compares; -1. */
int s3_put_new(struct s3 *s, const char *bucket, const char *key, const void *data, size_t n, struct err *err);
/* A file that nobody changes meanwhile. One request up to 16 MB, above that a multipart upload, which is aborted when it fails;
 * one that could not even be aborted is for the bucket's life cycle rules to remove. */
int s3_put_file(struct s3 *s, const char *bucket, const char *key, const char *path, struct err *err);

int s3_remove(struct s3 *s, const char *bucket, const char *key, struct err *err); /* none there is no failure */

/* Every key that begins with prefix; with a delimiter ("/"; NULL: none) what has it behind the prefix is told once, as the
 * common prefix up to it (is_prefix). Ascending by byte within either kind. The callback returns 0, or sets the error and
 * returns -1. */
typedef int (*s3_list_fn)(void *arg, const char *key, int is_prefix, struct err *err);
int s3_list(struct s3 *s, const char *bucket, const char *prefix, const char *delimiter, s3_list_fn fn, void *arg,
            struct err *err);

/* Append a URL with which anybody may GET (or PUT, ...) the object for valid_s seconds (at most a week). */
void s3_presign(struct s3 *s, const char *method, const char *bucket, const char *key, int valid_s, struct buf *out);

#endif
