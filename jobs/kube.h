/* kube.h: requests to a Kubernetes API server. Knows HTTP and JSON, no kind of object.
 *
 *     kube_get, _create, _patch, _delete      one object; tried again on 429 (Retry-After), 5xx and lost connections
 *     kube_list                               all pages; starts over when the server has forgotten where it was (410)
 *     kube_follow                             list, then watch from there: reconnects, and lists again after 410 Gone
 *     kube_log                                a container's output, as it comes
 *
 * A request that was tried again may have been done the first time: a create then says KUBE_EXISTS, and it is for the caller to
 * see whether what is there is its own. A delete that finds nothing after a lost reply is a success.
 *
 * Failures are told in one line with the server's reason, message and causes; kube_why says what kind the last one was.
 * Credentials: a token file is read again when it changes, a plugin is run again when what it gave is about to expire, and once
 * after 401.
 *
 * No two threads share a struct kube. */
#ifndef TOKENMILL_JOBS_KUBE_H
#define TOKENMILL_JOBS_KUBE_H

#include <stddef.h>

#include "base/errors.h"
#include "base/json.h"
#include "jobs/kube_config.h"

struct kube;

/* Takes the config's content over, also on failure. Asks nothing yet. */
struct kube *kube_open(struct kube_config *config, struct err *err);
void kube_close(struct kube *k);
const char *kube_namespace(const struct kube *k);
const char *kube_source(const struct kube *k); /* "context 'lab' of ..." */
/* Seconds for which a request is tried again (30). Before the first reply came it is 5 at most: then it is rather the address
 * that is wrong. */
void kube_set_patience(struct kube *k, double seconds);

enum kube_why {
	KUBE_FINE = 0,
	KUBE_NOT_FOUND = 1,
	KUBE_EXISTS = 2,
	KUBE_CONFLICT = 3,
	KUBE_FORBIDDEN = 4,
	KUBE_INVALID = 5, /* 422, and 400: an unknown field under strict validation */
	KUBE_EXPIRED = 6, /* 410: too old a resource version */
	KUBE_UNAUTHORIZED = 7,
	KUBE_UNREACHABLE = 8, /* no whole reply came */
	KUBE_OTHER = 9,
};
enum kube_why kube_why(const struct kube *k);

/* What a request is about. */
struct kube_ref {
	const char *api;      /* "v1", "batch/v1" */
	const char *resource; /* "jobs" */
	const char *space;    /* namespace; NULL: kube_namespace; "": of all namespaces, or of none */
	const char *name;     /* NULL: the collection */
	const char *sub;      /* subresource; NULL: none */
};

enum kube_dry { KUBE_FOR_REAL = 0, KUBE_DRY_RUN = 1 };
enum kube_patch_kind {
	KUBE_PATCH_MERGE = 1, /* RFC 7386 */
	KUBE_PATCH_APPLY = 2, /* server-side apply as field manager "tokenmill" */
};

/* 0 and, if out is not NULL, *out with the object, to be freed by yyjson_doc_free; -1 (ERR_OTHER). Unknown fields are refused
 * (fieldValidation=Strict); what the server warns of is logged, once for each text. */
int kube_get(struct kube *k, const struct kube_ref *ref, yyjson_doc **out, struct err *err);
int kube_create(struct kube *k, const struct kube_ref *ref, const char *json, size_t n, enum kube_dry dry, yyjson_doc **out,
                struct err *err);
int kube_patch(struct kube *k, const struct kube_ref *ref, enum kube_patch_kind kind, const char *json, size_t n,
               enum kube_dry dry, yyjson_doc **out, struct err *err);
/* propagation: "Background" or "Foreground"; uid: NULL, or what the object must have (else KUBE_CONFLICT). */
int kube_delete(struct kube *k, const struct kube_ref *ref, const char *propagation, const char *uid, struct err *err);

struct kube_selection {
	const char *labels; /* "a=b,c" or NULL */
	const char *fields; /* "metadata.name=x" or NULL */
};

/* 0 to go on, anything else to stop: the function that calls returns it. */
typedef int (*kube_item_fn)(void *arg, yyjson_val *object);
/* Once all pages are here, fn for each item. resource_version: NULL, or gets the list's. 0, what fn returned, -1. */
int kube_list(struct kube *k, const struct kube_ref *ref, const struct kube_selection *sel, kube_item_fn fn, void *arg,
              struct buf *resource_version, struct err *err);

enum kube_event {
	KUBE_RESET = 1, /* object NULL: forget all; what is there follows as KUBE_ADDED */
	KUBE_ADDED = 2,
	KUBE_MODIFIED = 3,
	KUBE_DELETED = 4,
	KUBE_SYNCED = 5, /* object NULL: the list is complete */
	KUBE_IDLE = 6,   /* object NULL: a period went by, see kube_follow */
};
typedef int (*kube_event_fn)(void *arg, enum kube_event event, yyjson_val *object);
/* Until fn returns something else than 0, which is returned (positive), or -1. fn hears KUBE_IDLE about every period_s (1 or
 * more): between two connections, so it may send requests of its own then, and only then. */
int kube_follow(struct kube *k, const struct kube_ref *ref, const struct kube_selection *sel, int period_s, kube_event_fn fn,
                void *arg, struct err *err);

struct kube_log_options {
	const char *container; /* NULL: the pod's only one */
	int follow, previous, timestamps;
	int64_t tail_lines; /* -1: all */
	int64_t since_s;    /* 0: all */
};
typedef int (*kube_bytes_fn)(void *arg, const void *p, size_t n);
/* 0 at the end of the log (with follow: of the container), what fn returned, -1. A connection lost midway is -1 with
 * KUBE_UNREACHABLE. */
int kube_log(struct kube *k, const char *space, const char *pod, const struct kube_log_options *o, kube_bytes_fn fn, void *arg,
             struct err *err);

#endif
