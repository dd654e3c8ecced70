/* cluster.h: what the commands that talk to a cluster share: their options, the jobs there, what keeps a pod from running.
 *
 * What is seen of a job (struct cluster_job) is made from the Job's JSON alone; its pods and events add troubles: lines that
 * say what is wrong and what to do. One thread. */
#ifndef TOKENMILL_RUNNER_CLUSTER_H
#define TOKENMILL_RUNNER_CLUSTER_H

#include <stddef.h>
#include <stdint.h>

#include "jobs/kube.h"
#include "runner/options.h"

struct cluster_options {
	const char *kubeconfig, *context, *space;
};
#define CLUSTER_OFFSET(type, member, field) (offsetof(type, member) + offsetof(struct cluster_options, field))
#define CLUSTER_OPTIONS(type, member)                                                                                          \
	{"namespace", 'n', OPTION_STRING, CLUSTER_OFFSET(type, member, space), "NAME", "namespace (default: the context's)",       \
	 0,           0,   NULL},                                                                                                  \
	    {"kube-context",                                                                                                       \
	     0,                                                                                                                    \
	     OPTION_STRING,                                                                                                        \
	     CLUSTER_OFFSET(type, member, context),                                                                                \
	     "NAME",                                                                                                               \
	     "context of the kubeconfig",                                                                                          \
	     0,                                                                                                                    \
	     0,                                                                                                                    \
	     NULL},                                                                                                                \
	{                                                                                                                          \
		"kubeconfig", 0, OPTION_STRING, CLUSTER_OFFSET(type, member, kubeconfig), "FILE",                                      \
		    "instead of $KUBECONFIG and ~/.kube/config", 0, 0, NULL                                                            \
	}

struct kube *cluster_open(const struct cluster_options *o, struct err *err);

enum cluster_state {
	CLUSTER_SUSPENDED = 1, /* on request */
	CLUSTER_QUEUED = 2,    /* Kueue has not admitted it yet */
	CLUSTER_PENDING = 3,   /* no pod runs yet */
	CLUSTER_RUNNING = 4,
	CLUSTER_COMPLETE = 5,
	CLUSTER_FAILED = 6,
	CLUSTER_CANCELLED = 7,
	CLUSTER_DELETING = 8,
};
const char *cluster_state_name(enum cluster_state s);
int cluster_state_is_final(enum cluster_state s); /* complete, failed, cancelled */

/* Strings are borrowed from the Job's JSON; never NULL. */
struct cluster_job {
	const char *name, *space, *uid;
	const char *annotation; /* LAUNCH_SPEC_ANNOTATION, "" none */
	const char *model;
	enum cluster_state state;
	const char *reason, *message; /* of the condition that ended it */
	int64_t n_workers;            /* parallelism */
	int64_t n_completions;
	int64_t n_active, n_ready, n_succeeded, n_failed;
	const char *completed_indexes, *failed_indexes;
	const char *created, *started, *finished; /* RFC 3339 or "" */
};
void cluster_job_read(struct cluster_job *j, yyjson_val *job);

/* The Job of that name, made by tokenmill. *doc is the caller's, also when -1 it is NULL. A missing one is told with what there
 * is. */
int cluster_job_get(struct kube *k, const char *name, struct cluster_job *j, yyjson_doc **doc, struct err *err);

/* Lines, each ended by '\n', of what keeps this job's pods from running or made them end, no two alike; with the pods affected.
 * n_pods: NULL or gets their number. */
int cluster_troubles(struct kube *k, const struct cluster_job *j, struct buf *out, size_t *n_pods, struct err *err);
/* Of one pod: as above, appended to out with the pod's name before it; nothing when all is well. */
void cluster_pod_trouble(yyjson_val *pod, struct buf *out);

/* What `status` prints of the job of that name. */
int cluster_print_status(const struct cluster_options *o, const char *name, int as_json, struct err *err);

/* "3m12s" from seconds */
void cluster_age(int64_t seconds, char out[32]);
/* Seconds since an RFC 3339 time, 0 when it is none. */
int64_t cluster_since(const char *time);

#endif
