/* speed.c: the file in the cache directory, and learning from runs. */
#include "jobs/speed.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

enum { SPEED_FORMAT = 1, MAX_FILE_BYTES = 1 << 16, MAX_LENGTH_ROWS = 100000 };

static const char *const term_names[COST_TERMS] = {"step_s", "token_s", "sample_s", "attend_prefill_s", "attend_decode_s"};

struct cost_model speed_cost(const struct speed *s)
{
	struct cost_model m = s->cost;

	for (int i = 0; i < COST_TERMS; i++)
		m.s[i] *= s->factor;
	return m;
}

char *speed_machine(void)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char line[512], *name = NULL;
	struct utsname u;

	while (f && !name && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || !colon)
			continue;
		colon += strspn(colon, ": \t");
		name = xmemdup(colon, strcspn(colon, "\n"));
	}
	if (f)
		fclose(f);
	if (!name)
		name = xstrdup(uname(&u) == 0 ? u.machine : "unknown");
	return name;
}

static char *cache_dir(void)
{
	const char *own = getenv("TOKENMILL_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *cache, *dir;

	if (own && *own)
		return xstrdup(own);
	/* The XDG Base Directory Specification: a relative path is invalid and ignored. */
	if (xdg && xdg[0] == '/')
		return file_join(xdg, "tokenmill");
	if (!home || !*home)
		return NULL;
	cache = file_join(home, ".cache");
	dir = file_join(cache, "tokenmill");
	free(cache);
	return dir;
}

char *speed_path(const struct speed_key *k)
{
	char *dir = cache_dir(), *path;
	struct buf key = {0};
	char name[40];

	if (!dir)
		return NULL;
	buf_addf(&key, "%s\n%s\n%s\n%s\n%d", k->model_fingerprint, k->math, k->kv_type, k->machine, k->n_threads);
	snprintf(name, sizeof(name), "speed-%016" PRIx64 ".json", hash64(key.data, key.len, 0));
	path = file_join(dir, name);
	buf_release(&key);
	free(dir);
	return path;
}

static void add_string(struct buf *out, const char *name, const char *value)
{
	buf_addf(out, "\"%s\":", name);
	json_write_string(out, value, strlen(value));
	buf_addc(out, ',');
}

void speed_format(const struct speed_key *k, const struct speed *s, struct buf *out)
{
	buf_addf(out, "{\"format\":%d,", SPEED_FORMAT);
	add_string(out, "model_fingerprint", k->model_fingerprint);
	add_string(out, "math", k->math);
	add_string(out, "kv_type", k->kv_type);
	add_string(out, "machine", k->machine);
	buf_addf(out, "\"threads\":%d,\"source\":\"%s\",\"measured_unix_ms\":%" PRId64 ",\"batch\":%d,\"chunk\":%d,", k->n_threads,
	         s->source == SPEED_BENCH ? "bench" : "run", s->measured_unix_ms, s->cost.batch, s->cost.chunk_tokens);
	for (int i = 0; i < COST_TERMS; i++)
		buf_addf(out, "\"%s\":%.9g,", term_names[i], s->cost.s[i]);
	buf_addf(out, "\"factor\":%.9g,\"learnt_s\":%.9g,\"lengths\":{\"classes\":[", s->factor, s->learnt_s);
	for (int i = 0; i < OUTPUT_CLASSES; i++)
		buf_addf(out, "%s[%" PRId64 ",%.9g]", i ? "," : "", s->lengths.classes[i].n, s->lengths.classes[i].tokens);
	buf_adds(out, "],\"bins\":[");
	for (int i = 0; i < OUTPUT_BINS; i++)
		buf_addf(out, "%s%" PRId64, i ? "," : "", s->lengths.bins[i]);
	buf_adds(out, "]}}\n");
}

static int is_member(yyjson_val *root, const char *name, const char *value)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	return yyjson_is_str(v) && strcmp(yyjson_get_str(v), value) == 0;
}

/* A finite number of at least min. */
static int get_number(yyjson_val *v, double min, double *out)
{
	*out = yyjson_get_num(v);
	return yyjson_is_num(v) && isfinite(*out) && *out >= min ? 0 : -1;
}

static int get_count(yyjson_val *v, int64_t min, int64_t *out)
{
	double x;

	if (get_number(v, (double)min, &x) < 0 || x > 1e15)
		return -1;
	*out = (int64_t)x;
	return 0;
}

static int read_lengths(yyjson_val *v, struct output_lengths *l)
{
	yyjson_val *classes = yyjson_obj_get(v, "classes"), *bins = yyjson_obj_get(v, "bins");

	if (yyjson_arr_size(classes) != OUTPUT_CLASSES || yyjson_arr_size(bins) != OUTPUT_BINS)
		return -1;
	for (size_t i = 0; i < OUTPUT_CLASSES; i++) {
		yyjson_val *pair = yyjson_arr_get(classes, i);

		if (get_count(yyjson_arr_get(pair, 0), 0, &l->classes[i].n) < 0 || get_number(yyjson_arr_get(pair, 1), 0, &l->classes[i].tokens) < 0)
			return -1;
	}
	for (size_t i = 0; i < OUTPUT_BINS; i++) {
		if (get_count(yyjson_arr_get(bins, i), 0, &l->bins[i]) < 0)
			return -1;
		l->n += l->bins[i];
	}
	return 0;
}

static int read_speed(yyjson_val *root, const struct speed_key *k, struct speed *s)
{
	int64_t batch, chunk;

	if (yyjson_get_int(yyjson_obj_get(root, "format")) != SPEED_FORMAT || !is_member(root, "model_fingerprint", k->model_fingerprint) ||
	    !is_member(root, "math", k->math) || !is_member(root, "kv_type", k->kv_type) || !is_member(root, "machine", k->machine) ||
	    yyjson_get_int(yyjson_obj_get(root, "threads")) != k->n_threads)
		return -1;
	s->source = is_member(root, "source", "bench") ? SPEED_BENCH : SPEED_RUN;
	if (get_count(yyjson_obj_get(root, "measured_unix_ms"), 0, &s->measured_unix_ms) < 0 ||
	    get_count(yyjson_obj_get(root, "batch"), 1, &batch) < 0 || get_count(yyjson_obj_get(root, "chunk"), 1, &chunk) < 0 ||
	    batch > INT32_MAX || chunk > INT32_MAX)
		return -1;
	s->cost.batch = (int32_t)batch;
	s->cost.chunk_tokens = (int32_t)chunk;
	for (int i = 0; i < COST_TERMS; i++)
		if (get_number(yyjson_obj_get(root, term_names[i]), 0, &s->cost.s[i]) < 0)
			return -1;
	if (get_number(yyjson_obj_get(root, "factor"), 1e-6, &s->factor) < 0 || get_number(yyjson_obj_get(root, "learnt_s"), 0, &s->learnt_s) < 0)
		return -1;
	return read_lengths(yyjson_obj_get(root, "lengths"), &s->lengths);
}

int speed_parse(const struct speed_key *k, const char *text, size_t n, struct speed *s, struct err *err)
{
	yyjson_doc *doc = json_parse(text, n, ERR_OTHER, err);
	struct speed out = {0};
	int rc = doc ? read_speed(yyjson_doc_get_root(doc), k, &out) : -1;

	yyjson_doc_free(doc);
	if (rc < 0)
		return err_set(err, ERR_OTHER, "not the speed of this model on this machine");
	*s = out;
	return 0;
}

int speed_read(const struct speed_key *k, struct speed *s)
{
	char *path = speed_path(k);
	struct buf text = {0};
	struct err err = {0};
	int found = 0;

	*s = (struct speed){0};
	if (path && file_exists(path)) {
		found = file_read(path, MAX_FILE_BYTES, &text, ERR_OTHER, &err) == 0 && speed_parse(k, buf_str(&text), text.len, s, &err) == 0;
		if (!found)
			log_warn("%s is ignored: %s", path, err.msg);
	}
	buf_release(&text);
	free(path);
	return found;
}

int speed_write(const struct speed_key *k, const struct speed *s, struct err *err)
{
	char *path = speed_path(k), *dir = cache_dir();
	struct buf text = {0};
	int rc;

	if (!path)
		return err_set(err, ERR_OTHER, "there is no place for a cache: set TOKENMILL_CACHE to a directory");
	speed_format(k, s, &text);
	rc = file_make_dirs(dir, err) < 0 ? -1 : file_write_atomic(path, text.data, text.len, err);
	buf_release(&text);
	free(path);
	free(dir);
	return rc;
}

/* ---- learning ---- */

static void add_lengths(struct output_lengths *to, const struct output_lengths *from)
{
	/* Older rows fade, too. */
	while (to->n > MAX_LENGTH_ROWS) {
		to->n = 0;
		for (int i = 0; i < OUTPUT_CLASSES; i++) {
			int64_t half = to->classes[i].n / 2;

			to->classes[i].tokens = to->classes[i].n ? to->classes[i].tokens / (double)to->classes[i].n * (double)half : 0;
			to->classes[i].n = half;
		}
		for (int i = 0; i < OUTPUT_BINS; i++)
			to->n += to->bins[i] /= 2;
	}
	for (int i = 0; i < OUTPUT_CLASSES; i++) {
		to->classes[i].n += from->classes[i].n;
		to->classes[i].tokens += from->classes[i].tokens;
	}
	for (int i = 0; i < OUTPUT_BINS; i++)
		to->bins[i] += from->bins[i];
	to->n += from->n;
}

/* The run as one measurement; contexts are taken to be those of its average row. */
static struct cost_sample sample_of(const struct speed_run *r)
{
	double rows = (double)r->n_rows, prompt = (double)r->prompt_tokens / rows, cached = (double)r->cached_tokens / rows;
	double output = (double)r->output_tokens / rows, end = prompt + fmax(output - 1, 0);

	return (struct cost_sample){.n = {[COST_STEP] = (double)r->n_steps,
	                                  [COST_TOKEN] = (double)r->computed_tokens,
	                                  [COST_SAMPLE] = (double)r->output_tokens,
	                                  [COST_ATTEND_PREFILL] = rows * (prompt * (prompt + 1) - cached * (cached + 1)) / 2,
	                                  [COST_ATTEND_DECODE] = rows * (end * (end + 1) - prompt * (prompt + 1)) / 2},
	                            .seconds = r->busy_s};
}

int speed_learn(struct speed *s, const struct speed_run *r)
{
	struct cost_sample sample;
	double factor, weight;

	if (r->lengths)
		add_lengths(&s->lengths, r->lengths);
	if (!(r->busy_s >= SPEED_MIN_RUN_S) || r->n_rows < 1 || r->n_steps < 1 || r->computed_tokens < 1)
		return s->source && r->lengths && r->lengths->n;
	if (!s->source) {
		s->source = SPEED_RUN;
		s->cost = cost_model_default();
		s->factor = 1;
	}
	if (s->source == SPEED_RUN) {
		s->cost.batch = r->batch;
		s->cost.chunk_tokens = r->chunk_tokens;
	}
	sample = sample_of(r);
	factor = r->busy_s / fmax(estimate_sample(&s->cost, &sample), 1e-9);
	factor = fmin(fmax(factor, 1e-4), 1e4);
	/* A mean of logarithms, weighed by time: twice as fast and twice as slow cancel out. A bench counts as a minute of runs. */
	weight = r->busy_s / (r->busy_s + s->learnt_s + (s->source == SPEED_BENCH ? 60 : 0));
	s->factor = exp((1 - weight) * log(s->factor) + weight * log(factor));
	s->learnt_s = fmin(s->learnt_s + r->busy_s, SPEED_MEMORY_S);
	s->measured_unix_ms = clock_unix_ms();
	return 1;
}

void speed_learn_stored(const struct speed_key *k, const struct speed_run *r)
{
	struct speed s;
	struct err err = {0};

	speed_read(k, &s);
	if (speed_learn(&s, r) && speed_write(k, &s, &err) < 0)
		log_debug("the speed of this run is not kept: %s", err.msg);
}
