/* errors.h: one way to say what went wrong, and how far it reaches.
 *
 * A function that can fail takes `struct err *` last and returns -1 (or NULL) after filling it. The first failure
 * wins: err_set on a filled err changes nothing. On the way up callers add context, so that the final message reads
 * "shard 7: row 1203: prompt has 9120 tokens, limit is 8192" and can be shown to the user as it stands.
 *
 * The code says how far the failure reaches (err_scope) and with which status the process ends (err_exit_code); the
 * table in errors.c is the only place that knows, and the Kubernetes failure policy is written from it.
 *
 * Thread-safe as long as no two threads share one struct err. Owns nothing.
 */
#ifndef TOKENMILL_BASE_ERRORS_H
#define TOKENMILL_BASE_ERRORS_H

#include <stdarg.h>
#include <stddef.h>

enum err_code {
	ERR_NONE = 0,
	ERR_USAGE = 1,       /* the command line or its combination of options */
	ERR_OTHER = 2,       /* any other failure told in one line */
	ERR_ROW = 3,         /* one row cannot be run; its neighbours can */
	ERR_RETRY = 4,       /* nobody's fault; trying again may help */
	ERR_INPUT = 5,       /* the dataset cannot be used */
	ERR_FINGERPRINT = 6, /* the job directory belongs to another model, options or defaults */
	ERR_MODEL = 7,       /* the model is missing, damaged or of an unsupported kind */
	ERR_BUDGET = 8,      /* stopped by budget or deadline */
	ERR_ENGINE = 9,      /* engine or device fault, out of memory */
	ERR_STORAGE = 10,    /* I/O error, disk full */
	ERR_FENCED = 11,     /* a higher epoch owns the shard */
	ERR_DRAINED = 12,    /* SIGTERM: finished rows are published */
	ERR_N_CODES
};

/* How far a failure reaches. */
enum err_scope {
	ERR_SCOPE_NONE = 0,
	ERR_SCOPE_ROW = 1,   /* record it and go on */
	ERR_SCOPE_RETRY = 2, /* try again with back-off and a cap */
	ERR_SCOPE_SHARD = 3, /* this process is done; a new one resumes */
	ERR_SCOPE_JOB = 4,   /* no process should try */
};

/* What the Job's failure policy does with a pod that ended with this code's exit status (Kubernetes: spec.podFailurePolicy). */
enum err_pod_policy {
	ERR_POD_COUNT = 0,    /* one of the index's failures: started again, up to backoffLimitPerIndex */
	ERR_POD_FAIL_JOB = 1, /* no pod can do better: the Job is Failed at once */
	ERR_POD_IGNORE = 2,   /* not a failure: started again, counted nowhere */
};

struct err {
	enum err_code code; /* ERR_NONE: nothing failed */
	char msg[1000];     /* NUL-terminated, no newline, cut at a UTF-8 boundary if too long */
};

/* Fill *err unless it is filled. Always returns -1, so that `return err_set(...)` reads well. err may be NULL. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and strerror(errno) appended. ENOSPC, EDQUOT, EIO, ESTALE, EROFS become ERR_STORAGE. */
int err_sys(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " before the message. Returns -1. Does nothing while err is empty. */
int err_context(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *err);

enum err_scope err_scope(enum err_code code);
int err_exit_code(enum err_code code);     /* process exit status: jobs' table of exit codes */
enum err_pod_policy err_pod_policy(enum err_code code); /* codes with one exit status have one policy */
const char *err_code_name(enum err_code code); /* "input", "model", ... for logs and events */

/* Our own invariant is broken: says where and aborts. Never for input. */
#define BUG(...) err_bug(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void err_bug(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
