/* speed.h: how fast one model is on one kind of machine, as measured there: the coefficients of estimate.h, and how long its answers have been.
 *
 * Kept as a small JSON file in the cache directory, one for each combination of model, arithmetic, type of KV cache, processor and number of
 * threads. `tokenmill bench` measures and replaces it; a run corrects it by one factor, from what it took beside what the coefficients say. It is
 * a cache: a file that cannot be read is as if it were not there (with a warning), and two processes may write it at once, the last one stays.
 *
 *     $TOKENMILL_CACHE or $XDG_CACHE_HOME/tokenmill or ~/.cache/tokenmill:
 *         speed-0123456789abcdef.json       hash of the key, which is inside as well
 *
 * No thread shares a struct speed. Owns nothing.
 */
#ifndef TOKENMILL_JOBS_SPEED_H
#define TOKENMILL_JOBS_SPEED_H

#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"
#include "jobs/estimate.h"

struct speed_key { /* borrowed */
	const char *model_fingerprint;
	const char *math, *kv_type; /* "fast", "f16" */
	const char *machine;        /* processor, from speed_machine */
	int n_threads;
};

enum speed_source { SPEED_BENCH = 1, SPEED_RUN = 2 };

struct speed {
	enum speed_source source;
	struct cost_model cost;
	double factor;           /* what runs took beside what cost says: 1 after a bench */
	double learnt_s;         /* seconds of runs that are in the factor, at most SPEED_MEMORY_S */
	int64_t measured_unix_ms;
	struct output_lengths lengths;
};
#define SPEED_MEMORY_S 600 /* older runs fade: the machine and its neighbours change */
#define SPEED_MIN_RUN_S 5  /* a shorter run says little */

/* The coefficients with the factor in them. */
struct cost_model speed_cost(const struct speed *s);

/* "AMD EPYC 9V74 80-Core Processor", or the architecture where the system does not tell. malloc'd. */
char *speed_machine(void);
/* Where the file is; malloc'd. NULL where there is no place for a cache (no HOME). */
char *speed_path(const struct speed_key *k);

/* 1 and *s; 0 when there is none, or none that can be read. */
int speed_read(const struct speed_key *k, struct speed *s);
int speed_write(const struct speed_key *k, const struct speed *s, struct err *err);
/* The same without files. -1: not such a text, or of another key. */
void speed_format(const struct speed_key *k, const struct speed *s, struct buf *out);
int speed_parse(const struct speed_key *k, const char *text, size_t n, struct speed *s, struct err *err);

struct speed_run { /* what an engine did in one run */
	double busy_s;
	int64_t n_steps, n_rows, prompt_tokens, cached_tokens, computed_tokens, output_tokens;
	int32_t batch, chunk_tokens;           /* at most in a step */
	const struct output_lengths *lengths; /* of its finished rows */
};
/* Take a run into s, which holds what was known (source 0: nothing). 1: changed; 0: the run was too short to say anything. */
int speed_learn(struct speed *s, const struct speed_run *r);
/* Read, learn, write; quiet about a cache that cannot be written. */
void speed_learn_stored(const struct speed_key *k, const struct speed_run *r);

#endif
