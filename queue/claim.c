/* claim.c: claims as JSON, and the identity of processes. */
#include "queue/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

/* Handles that are open in this process. A fact about the process, hence static. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *open_handles;
static size_t n_open, open_cap;

static void copy_text(char *out, size_t cap, const char *s, size_t n)
{
	if (n >= cap)
		n = cap - 1;
	memcpy(out, s, n);
	out[n] = '\0';
}

static void read_line(const char *path, char *out, size_t cap)
{
	FILE *f = fopen(path, "r");

	out[0] = '\0';
	if (!f)
		return;
	if (fgets(out, (int)cap, f))
		out[strcspn(out, "\n")] = '\0';
	fclose(f);
}

/* Field 22 of /proc/PID/stat, the state (field 3) in *state; -1 when there is no such file. The name in field 2 may hold anything. */
static int64_t process_start(int64_t pid, char *state)
{
	char path[64], line[1024];
	char *p;
	unsigned long long start;

	snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
	read_line(path, line, sizeof(line));
	p = strrchr(line, ')');
	if (!p || sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", state, &start) != 2)
		return -1;
	return (int64_t)start;
}

static void describe_here(struct claim *c)
{
	const char *simulated = getenv("TOKENMILL_HOST"), *job_uid = getenv("TOKENMILL_JOB_UID");
	char state;
	ssize_t n;

	copy_text(c->job_uid, sizeof(c->job_uid), job_uid ? job_uid : "", job_uid ? strlen(job_uid) : 0);
	c->pid = getpid();
	c->process_start = process_start(c->pid, &state);
	if (simulated && *simulated) {
		copy_text(c->host, sizeof(c->host), simulated, strlen(simulated));
		copy_text(c->boot, sizeof(c->boot), simulated, strlen(simulated));
		return;
	}
	if (gethostname(c->host, sizeof(c->host) - 1) < 0)
		strcpy(c->host, "unknown");
	c->host[sizeof(c->host) - 1] = '\0';
	read_line("/proc/sys/kernel/random/boot_id", c->boot, sizeof(c->boot));
	n = readlink("/proc/self/ns/pid", c->pid_namespace, sizeof(c->pid_namespace) - 1);
	c->pid_namespace[n > 0 ? n : 0] = '\0';
}

void claim_begin(struct claim *c, int worker, const char *attempt)
{
	*c = (struct claim){.worker = worker, .time_ms = clock_unix_ms()};
	copy_text(c->attempt, sizeof(c->attempt), attempt ? attempt : "", attempt ? strlen(attempt) : 0);
	describe_here(c);
	if (getrandom(&c->handle, sizeof(c->handle), 0) != sizeof(c->handle))
		BUG("getrandom(2) failed");
	pthread_mutex_lock(&lock);
	MEM_GROW(open_handles, open_cap, n_open + 1);
	open_handles[n_open++] = c->handle;
	pthread_mutex_unlock(&lock);
}

void claim_end(const struct claim *c)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_open; i++)
		if (open_handles[i] == c->handle) {
			open_handles[i] = open_handles[--n_open];
			break;
		}
	if (n_open == 0) {
		free(open_handles);
		open_handles = NULL;
		open_cap = 0;
	}
	pthread_mutex_unlock(&lock);
}

static int handle_is_open(uint64_t handle)
{
	int found = 0;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_open; i++)
		found |= open_handles[i] == handle;
	pthread_mutex_unlock(&lock);
	return found;
}

enum claimant claim_claimant(const struct claim *c)
{
	struct claim here = {0};
	int64_t start;
	char state;

	describe_here(&here);
	if (strcmp(c->host, here.host) != 0 || strcmp(c->boot, here.boot) != 0 || strcmp(c->pid_namespace, here.pid_namespace) != 0)
		return CLAIMANT_UNKNOWN;
	if (c->pid == here.pid && c->process_start == here.process_start)
		return handle_is_open(c->handle) ? CLAIMANT_ALIVE : CLAIMANT_GONE;
	if (c->pid <= 0 || c->pid > INT32_MAX || (kill((pid_t)c->pid, 0) < 0 && errno == ESRCH))
		return CLAIMANT_GONE;
	start = process_start(c->pid, &state);
	if (start < 0)
		return CLAIMANT_ALIVE; /* it ended since, or /proc hides it: ask again later */
	return start != c->process_start || state == 'Z' || state == 'X' ? CLAIMANT_GONE : CLAIMANT_ALIVE;
}

void claim_describe(const struct claim *c, struct buf *out)
{
	buf_addf(out, "process %" PRId64 " on %s (worker %d)", c->pid, c->host, c->worker);
}

static void add_text(struct buf *out, const char *name, const char *s)
{
	buf_addf(out, ",\"%s\":", name);
	json_write_string(out, s, strlen(s));
}

int claim_create(const struct claim *c, struct store *s, const char *name, struct err *err)
{
	struct buf b = {0};
	int rc;

	buf_addf(&b, "{\"worker\":%d", c->worker);
	add_text(&b, "attempt", c->attempt);
	add_text(&b, "job_uid", c->job_uid);
	add_text(&b, "host", c->host);
	add_text(&b, "boot", c->boot);
	add_text(&b, "pid_namespace", c->pid_namespace);
	buf_addf(&b, ",\"pid\":%" PRId64 ",\"process_start\":%" PRId64 ",\"handle\":\"%016" PRIx64 "\",\"time_ms\":%" PRId64 "}\n", c->pid,
	         c->process_start, c->handle, c->time_ms);
	rc = store_create(s, name, b.data, b.len, err);
	buf_release(&b);
	return rc;
}

static int get_text(yyjson_val *root, const char *name, char *out, size_t cap, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	if (!yyjson_is_str(v))
		return err_set(err, ERR_STORAGE, "not a claim: \"%s\" is %s, expected a string", name, json_type_name(v));
	copy_text(out, cap, yyjson_get_str(v), yyjson_get_len(v));
	return 0;
}

static int get_int(yyjson_val *root, const char *name, int64_t *out, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	if (!yyjson_is_int(v))
		return err_set(err, ERR_STORAGE, "not a claim: \"%s\" is %s, expected an integer", name, json_type_name(v));
	*out = yyjson_get_sint(v);
	return 0;
}

int claim_parse(struct claim *c, const char *text, size_t n, struct err *err)
{
	yyjson_doc *doc = json_parse(text, n, ERR_STORAGE, err);
	yyjson_val *root = yyjson_doc_get_root(doc);
	char handle[32];
	int64_t worker;
	int rc = -1;

	*c = (struct claim){0};
	if (!doc)
		return -1;
	if (get_int(root, "worker", &worker, err) == 0 && get_text(root, "attempt", c->attempt, sizeof(c->attempt), err) == 0 &&
	    get_text(root, "job_uid", c->job_uid, sizeof(c->job_uid), err) == 0 && get_text(root, "host", c->host, sizeof(c->host), err) == 0 && get_text(root, "boot", c->boot, sizeof(c->boot), err) == 0 &&
	    get_text(root, "pid_namespace", c->pid_namespace, sizeof(c->pid_namespace), err) == 0 &&
	    get_int(root, "pid", &c->pid, err) == 0 && get_int(root, "process_start", &c->process_start, err) == 0 &&
	    get_text(root, "handle", handle, sizeof(handle), err) == 0 && get_int(root, "time_ms", &c->time_ms, err) == 0) {
		c->worker = (int)worker;
		c->handle = strtoull(handle, NULL, 16);
		rc = 0;
	}
	yyjson_doc_free(doc);
	return rc;
}

int claim_read(struct claim *c, struct store *s, const char *name, struct err *err)
{
	struct buf b = {0};
	int rc = store_get(s, name, 65536, &b, err);

	if (rc == 1 && claim_parse(c, buf_str(&b), b.len, err) < 0) {
		char *full = store_name(s, name);

		rc = err_context(err, "%s", full);
		free(full);
	}
	buf_release(&b);
	return rc;
}
