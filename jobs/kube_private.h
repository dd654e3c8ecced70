/* kube_private.h: between kube.c (one request, tried again; credentials), kube_error.c (what a refusal says) and kube_stream.c
 * (lists, watches, logs). */
#ifndef TOKENMILL_JOBS_KUBE_PRIVATE_H
#define TOKENMILL_JOBS_KUBE_PRIVATE_H

#include "base/buf.h"
#include "base/http.h"
#include "jobs/kube.h"

struct kube_call {
	const char *method;
	const char *verb; /* for messages: "create" */
	const struct kube_ref *ref;
	const char *query; /* without '?'; NULL: none */
	const char *content_type;
	const char *body;
	size_t n_body;
	http_sink_fn sink; /* takes the body of a 2xx reply; then a lost connection is tried again only while nothing was taken */
	void *arg;
	int stall_s; /* see http.h */
};
/* 0 and the 2xx reply; 1: the sink stopped it; -1. *reply is the caller's to release in any case. */
int kube_call(struct kube *k, const struct kube_call *call, struct http_reply *reply, struct err *err);

/* Fill *err from a reply that is no success; the kind. */
enum kube_why kube_explain(const struct kube_call *call, const char *space, const struct http_reply *reply, struct err *err);
/* The kind of an HTTP status with a Status object's reason (may be NULL). */
enum kube_why kube_why_of(int status, const char *reason);
/* "create job 'x' in namespace 'y'" */
void kube_describe(struct buf *out, const struct kube_call *call, const char *space);
/* One line of a Status object: message, reason, causes. */
void kube_status_line(struct buf *out, yyjson_val *status);

void kube_set_why(struct kube *k, enum kube_why why);
/* Append "&name=" and the value, percent-encoded; without '&' when it is the first. */
void kube_add_query(struct buf *query, const char *name, const char *value);
void kube_pause(struct kube *k,
                int n_tries); /* back off: 0.2 s doubled each time up to 8 s, and by chance up to half of it less */

#endif
