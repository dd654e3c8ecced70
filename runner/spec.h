/* spec.h: what a job is, as far as it can change a result: its identity, and how it is kept in job.json.
 *
 * The setup is everything but the rows: model, tokenizer and template, arithmetic, type of the KV cache, context, seed,
 * defaults, the model's name in the answers. Its hash is in every output line (ids, system_fingerprint), so a row's line is the
 * same when the input grows. The job's fingerprint is over the setup and the content of all inputs. Threads, batch size, chunk,
 * cache and memory are not in it: they do not change results.
 */
#ifndef TOKENMILL_RUNNER_SPEC_H
#define TOKENMILL_RUNNER_SPEC_H

#include <stdint.h>
#include <yyjson.h>

#include "base/buf.h"
#include "base/errors.h"
#include "base/hash.h"

struct job_setup {    /* strings owned; zero-initialise, setup_release */
	char *model_path; /* where the model was; may move, is not compared */
	char *model_name; /* for answers to rows that name no model */
	char *model_fingerprint; /* of the weights; of a fake engine (engine_choice.h) "fake:" and the options that change bytes */
	char *text_fingerprint;
	int math, kv_type; /* enum engine_math, enum kv_type */
	uint64_t seed;
	int32_t n_context;  /* longest prompt + output */
	int64_t now_unix_s; /* what a chat template's clock shows; 0: the template has no clock */
	char *defaults;     /* canonical JSON object, "{}" for none */
};
void setup_release(struct job_setup *s);
#define SETUP_FAKE_PREFIX "fake:"
int setup_is_fake(const char *model_fingerprint);
void setup_hash(const struct job_setup *s, char hex[SHA256_HEX_BYTES]);

struct job_input {
	char *name;
	char sha256[SHA256_HEX_BYTES]; /* of the decompressed content */
	int64_t n_bytes, n_rows;
};
struct job_inputs { /* zero-initialise, inputs_release */
	struct job_input *items;
	size_t n, cap;
};
struct job_input *inputs_add(struct job_inputs *l, const char *name);
void inputs_release(struct job_inputs *l);

struct job_spec {
	char *tags; /* JSON object of strings (tags.h), owned; NULL for none */
	struct job_setup setup;
	struct job_inputs inputs;
	int64_t n_shards; /* that were asked for; 0: the planner's choice */
	int folds; /* rows with one request are run once; changes no result */
};
void spec_release(struct job_spec *s);
void spec_write(const struct job_spec *s, struct buf *out); /* a JSON object */
/* ERR_FINGERPRINT when the text is not a spec that this program knows. s is then empty. */
int spec_read(const char *json, struct job_spec *s, struct err *err);
/* 0, or -1 and ERR_FINGERPRINT naming everything that differs. Other inputs are no reason to refuse a job: see plan_again.h. */
int setup_compare(const struct job_setup *there, const struct job_setup *asked, struct err *err);
int inputs_are_same(const struct job_inputs *a, const struct job_inputs *b); /* by content, in this order */

const char *spec_math_name(int math);
const char *spec_kv_name(int kv_type);

#endif
