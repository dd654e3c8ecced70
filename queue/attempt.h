/* attempt.h: what a worker tells of itself while it lives, and leaves when it ends: one small file for each attempt, events/WWWW-ATTEMPT.json,
 * replaced now and then (the heartbeat) and once more at the end. Others read it to see that the worker lives (`beat` moved between two looks,
 * each by the observer's own clock), what the job has cost so far, and what a killed attempt had done: its last file stays.
 *
 *     {"format":1,"attempt":"5f0c...","worker":3,"host":"node-7","pid":4711,"job_uid":"","node_type":"h100","program":"0.2.0","beat":17,
 *      "started_unix_ms":...,"updated_unix_ms":...,"wall_s":..,"load_s":..,"busy_s":..,"publish_s":..,
 *      "rows":..,"rows_failed":..,"prompt_tokens":..,"cached_tokens":..,"output_tokens":..,"reasoning_tokens":..,"recomputed_tokens":..,
 *      "in_flight":..,"peak_bytes":..,"spent_usd":..,"ceiling_usd":..,"state":"running","end_code":"none","end":null}
 *
 * Times are for people and for cost (seconds of one process's own clock); no decision compares clocks of two hosts. Idle time is wall_s - load_s
 * - busy_s - publish_s. */
#ifndef TOKENMILL_QUEUE_ATTEMPT_H
#define TOKENMILL_QUEUE_ATTEMPT_H

#include <stdint.h>

#include "base/errors.h"
#include "queue/store.h"

enum attempt_state { ATTEMPT_RUNNING = 1, ATTEMPT_ENDED = 2 };

struct attempt {
	char id[64];         /* pod uid and restart, or random */
	int worker;
	char host[256];
	int64_t pid;
	char job_uid[64];    /* of the Kubernetes Job, "" elsewhere: attempts of another uid are over */
	char node_type[64];  /* what the price sheet calls this machine, "" unknown */
	char program[32];
	int64_t beat;
	int64_t started_unix_ms, updated_unix_ms;
	double wall_s, load_s, busy_s, publish_s;
	int64_t rows, rows_failed;
	int64_t prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, recomputed_tokens; /* of finished rows; n samples of a row count its prompt once */
	int64_t in_flight;   /* rows being run */
	int64_t peak_bytes;
	double spent_usd, ceiling_usd; /* budget: spent so far; never more than this before it is raised in a later file */
	enum attempt_state state;
	char end_code[16];   /* err_code_name */
	char end[512];       /* message, "" for none */
};

/* "0003-ID.json", the name in events/; malloc'd. */
char *attempt_file_name(int worker, const char *id);
/* "events/0003-ID.crash": is there when the attempt's process is known to have crashed; malloc'd. */
char *attempt_crash_name(int worker, const char *id);
/* Put events/WWWW-ID.json; beat and updated_unix_ms are the caller's to move. */
int attempt_write(struct store *s, const struct attempt *a, struct err *err);
/* 1, 0: no such file, -1: damaged or unreadable. name: as listed in events/. */
int attempt_read(struct store *s, const char *name, struct attempt *a, struct err *err);
int attempt_parse(const char *text, size_t n, struct attempt *a, struct err *err);
/* All attempts of the job, by worker and id. *list is malloc'd. */
int attempt_read_all(struct store *s, struct attempt **list, size_t *n, struct err *err);

#endif
