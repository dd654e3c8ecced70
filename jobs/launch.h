/* launch.h: from what a user asks for to the Indexed Job that does it. Pure: asks no cluster, reads no file, knows no clock.
 *
 *     struct launch_spec --launch_make--> name, spec (canonical JSON), hash, manifest (a Job of batch/v1)
 *                                          the manifest carries spec and hash in the annotation tokenmill.dev/spec
 *
 * The same spec gives the same hash and the same bytes, so that submitting twice can be told from submitting something else
 * under one name (launch_compare). Every worker gets the same command; which part of the work it does is settled in the job's
 * directory (queue/job.h), so an index means little, completions can follow parallelism up and down, and one worker that is
 * left can end the job.
 *
 * The failure policy is made from base/errors' table. On order: the generated Job, then the user's pod template laid over it,
 * then assignments (--set), then a check of what must hold in the end. */
#ifndef TOKENMILL_JOBS_LAUNCH_H
#define TOKENMILL_JOBS_LAUNCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"
#include "base/hash.h"
#include "base/json.h"

#define LAUNCH_SPEC_ANNOTATION "tokenmill.dev/spec"
#define LAUNCH_JOB_LABEL "tokenmill.dev/job"
#define LAUNCH_SELECTOR "app.kubernetes.io/name=tokenmill"
#define LAUNCH_CONTAINER "worker"
#define LAUNCH_JOBS_DIR "/jobs"
#define LAUNCH_MODELS_DIR "/models"

enum { LAUNCH_MAX_WORKERS = 100000 }; /* Kubernetes' own limit of an Indexed Job */

struct launch_list {
	const char *const *items;
	size_t n;
};

/* Strings are borrowed; NULL: not given. */
struct launch_spec {
	const char *name;            /* made from model and hash */
	const char *job;             /* where the job lives: a path on the jobs volume, or s3://...; default /jobs/NAME */
	const char *model;           /* path as the pods see it; a relative one is below /models */
	struct launch_list inputs;   /* likewise, relative ones below /jobs; none: the job is planned already */
	struct launch_list run_args; /* options of `tokenmill run`, as "--seed=5" */
	int64_t workers;
	const char *image, *image_pull_policy;
	const char *cpu, *memory, *shm; /* Kubernetes quantities */
	int64_t n_gpus;
	const char *gpu_resource;
	struct launch_list node_selectors, labels, annotations, env, tags; /* "name=value" */
	struct launch_list tolerations;                                    /* "key[=value][:Effect]" */
	struct launch_list volumes;                                        /* "CLAIM:/path[:ro]" */
	struct launch_list secrets;                                        /* whose members become environment variables */
	struct launch_list pull_secrets;
	const char *jobs_claim, *models_claim; /* PersistentVolumeClaims of /jobs and /models */
	const char *queue;                     /* of Kueue: the Job is made suspended */
	int64_t min_workers;                   /* partial admission by Kueue; 0: all or nothing */
	const char *priority_class;
	const char *node_type; /* as the price sheet calls it */
	int suspend;
	int64_t retries;    /* of one index */
	int64_t max_failed; /* indexes; 0: half of them */
	int64_t grace_s, ttl_s;
	int64_t metrics_port;     /* 0: none are served */
	yyjson_val *pod_template; /* laid over the pod template */
	struct launch_list sets;  /* see json_edit.h */
};
void launch_spec_init(struct launch_spec *s); /* defaults; workers 1 */

struct launch {
	char *name;
	char *place;                 /* where the job lives */
	char *spec;                  /* canonical JSON of what was asked for */
	char hash[SHA256_HEX_BYTES]; /* of spec */
	char *manifest;              /* canonical JSON */
};
/* ERR_USAGE names the option at fault. */
int launch_make(const struct launch_spec *s, struct launch *out, struct err *err);
void launch_release(struct launch *l);

/* annotation: that of the Job that is there (NULL: it has none). 0: it is the same; 1: it differs, and *how says in what
 * ("workers 8, asked for is 4"); where nothing can be said of it, that. */
int launch_compare(const struct launch *l, const char *annotation, struct buf *how);
/* A string member of what was submitted, from an annotation: "job", "model"; malloc'd, NULL when there is none. */
char *launch_submitted(const char *annotation, const char *member);

#endif
