/* spec.c: writing, reading and comparing what a job is. */
#include "runner/spec.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "runner/version.h"

enum { SPEC_VERSION = 1 };

/* By enum engine_math and enum kv_type; the words of --math and --kv-type. */
static const char *const math_names[] = {"?", "fast", "f32"};
static const char *const kv_names[] = {"?", "f16", "bf16", "f32"};

int setup_is_fake(const char *model_fingerprint)
{
	return strncmp(model_fingerprint, SETUP_FAKE_PREFIX, strlen(SETUP_FAKE_PREFIX)) == 0;
}

const char *spec_math_name(int math)
{
	return math >= 1 && math <= 2 ? math_names[math] : "?";
}

const char *spec_kv_name(int kv_type)
{
	return kv_type >= 1 && kv_type <= 3 ? kv_names[kv_type] : "?";
}

static int name_index(const char *const *names, int n, const char *name)
{
	for (int i = 1; name && i < n; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return 0;
}

void setup_release(struct job_setup *s)
{
	free(s->model_path);
	free(s->model_name);
	free(s->model_fingerprint);
	free(s->text_fingerprint);
	free(s->defaults);
	*s = (struct job_setup){0};
}

struct job_input *inputs_add(struct job_inputs *l, const char *name)
{
	MEM_GROW(l->items, l->cap, l->n + 1);
	l->items[l->n] = (struct job_input){.name = xstrdup(name)};
	return &l->items[l->n++];
}

void inputs_release(struct job_inputs *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i].name);
	free(l->items);
	*l = (struct job_inputs){0};
}

void spec_release(struct job_spec *s)
{
	setup_release(&s->setup);
	inputs_release(&s->inputs);
	free(s->tags);
	s->tags = NULL;
}

void setup_hash(const struct job_setup *s, char hex[SHA256_HEX_BYTES])
{
	struct buf b = {0};

	buf_addf(&b, "tokenmill setup %d\n%s\n%s\n%s\n%s\n%s\n%" PRIu64 "\n%d\n%" PRId64 "\n%s\n", TOKENMILL_NUMERICS,
	         s->model_name, s->model_fingerprint, s->text_fingerprint, spec_math_name(s->math), spec_kv_name(s->kv_type),
	         s->seed, s->n_context, s->now_unix_s, s->defaults);
	sha256_hex(b.data, b.len, hex);
	buf_release(&b);
}

static void add_member(struct buf *out, const char *name, const char *value)
{
	buf_addf(out, "\"%s\":", name);
	json_write_string(out, value, strlen(value));
	buf_addc(out, ',');
}

void spec_write(const struct job_spec *s, struct buf *out)
{
	const struct job_setup *u = &s->setup;
	char setup[SHA256_HEX_BYTES], fingerprint[SHA256_HEX_BYTES];
	struct buf all = {0};

	setup_hash(u, setup);
	buf_adds(&all, setup);
	for (size_t i = 0; i < s->inputs.n; i++)
		buf_addf(&all, "\n%s", s->inputs.items[i].sha256);
	sha256_hex(all.data, all.len, fingerprint);
	buf_release(&all);

	buf_addf(out, "{\"spec_version\":%d,\"numerics\":%d,", SPEC_VERSION, TOKENMILL_NUMERICS);
	add_member(out, "program", TOKENMILL_VERSION);
	add_member(out, "fingerprint", fingerprint);
	add_member(out, "setup", setup);
	add_member(out, "model", u->model_path);
	add_member(out, "model_name", u->model_name);
	add_member(out, "model_fingerprint", u->model_fingerprint);
	add_member(out, "text_fingerprint", u->text_fingerprint);
	add_member(out, "math", spec_math_name(u->math));
	add_member(out, "kv_type", spec_kv_name(u->kv_type));
	buf_addf(out, "\"fold_duplicates\":%s,", s->folds ? "true" : "false");
	buf_addf(out, "\"seed\":%" PRIu64 ",\"context\":%d,\"now_unix_s\":%" PRId64 ",\"defaults\":%s,\"inputs\":[", u->seed,
	         u->n_context, u->now_unix_s, u->defaults);
	for (size_t i = 0; i < s->inputs.n; i++) {
		const struct job_input *in = &s->inputs.items[i];

		buf_adds(out, i ? ",{" : "{");
		add_member(out, "name", in->name);
		add_member(out, "sha256", in->sha256);
		buf_addf(out, "\"bytes\":%" PRId64 ",\"rows\":%" PRId64 "}", in->n_bytes, in->n_rows);
	}
	buf_addf(out, "],\"n_shards\":%" PRId64 ",\"tags\":%s}", s->n_shards, s->tags ? s->tags : "{}");
}

static int get_string(yyjson_val *root, const char *name, char **out, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	if (!yyjson_is_str(v))
		return err_set(err, ERR_FINGERPRINT, "the job's spec has no string \"%s\"", name);
	*out = xmemdup(yyjson_get_str(v), yyjson_get_len(v));
	return 0;
}

static int read_inputs(yyjson_val *list, struct job_inputs *l, struct err *err)
{
	size_t i, max;
	yyjson_val *v;

	yyjson_arr_foreach (list, i, max, v) {
		const char *name = yyjson_get_str(yyjson_obj_get(v, "name")), *sha = yyjson_get_str(yyjson_obj_get(v, "sha256"));
		struct job_input *in;

		if (!name || !sha || strlen(sha) != SHA256_HEX_BYTES - 1)
			return err_set(err, ERR_FINGERPRINT, "input %zu of the job's spec is damaged", i + 1);
		in = inputs_add(l, name);
		memcpy(in->sha256, sha, SHA256_HEX_BYTES);
		in->n_bytes = yyjson_get_sint(yyjson_obj_get(v, "bytes"));
		in->n_rows = yyjson_get_sint(yyjson_obj_get(v, "rows"));
	}
	return 0;
}

static int read_spec(yyjson_val *root, struct job_spec *s, struct err *err)
{
	struct job_setup *u = &s->setup;
	struct buf defaults = {0};
	int version = yyjson_get_int(yyjson_obj_get(root, "spec_version"));
	int numerics = yyjson_get_int(yyjson_obj_get(root, "numerics"));

	if (version != SPEC_VERSION)
		return err_set(err, ERR_FINGERPRINT, "the job's spec has version %d, this program knows version %d", version,
		               SPEC_VERSION);
	if (numerics != TOKENMILL_NUMERICS)
		return err_set(
		    err, ERR_FINGERPRINT,
		    "the job was begun by a program that computes differently (numerics %d, here %d): finish it with that one",
		    numerics, TOKENMILL_NUMERICS);
	if (get_string(root, "model", &u->model_path, err) < 0 || get_string(root, "model_name", &u->model_name, err) < 0 ||
	    get_string(root, "model_fingerprint", &u->model_fingerprint, err) < 0 ||
	    get_string(root, "text_fingerprint", &u->text_fingerprint, err) < 0)
		return -1;
	u->math = name_index(math_names, 3, yyjson_get_str(yyjson_obj_get(root, "math")));
	u->kv_type = name_index(kv_names, 4, yyjson_get_str(yyjson_obj_get(root, "kv_type")));
	u->seed = yyjson_get_uint(yyjson_obj_get(root, "seed"));
	u->n_context = yyjson_get_int(yyjson_obj_get(root, "context"));
	u->now_unix_s = yyjson_get_sint(yyjson_obj_get(root, "now_unix_s"));
	if (!u->math || !u->kv_type || u->n_context < 1 || !yyjson_is_obj(yyjson_obj_get(root, "defaults")))
		return err_set(err, ERR_FINGERPRINT, "the job's spec lacks math, kv_type, context or defaults");
	if (yyjson_is_obj(yyjson_obj_get(root, "tags"))) {
		struct buf tags = {0};

		json_write_canonical(&tags, yyjson_obj_get(root, "tags"));
		s->tags = buf_detach(&tags);
	}
	json_write_canonical(&defaults, yyjson_obj_get(root, "defaults"));
	u->defaults = buf_detach(&defaults);
	s->n_shards = yyjson_get_sint(yyjson_obj_get(root, "n_shards"));
	s->folds = yyjson_get_bool(yyjson_obj_get(root, "fold_duplicates"));
	return read_inputs(yyjson_obj_get(root, "inputs"), &s->inputs, err);
}

int spec_read(const char *json, struct job_spec *s, struct err *err)
{
	yyjson_doc *doc = json_parse(json, strlen(json), ERR_FINGERPRINT, err);
	int r = -1;

	*s = (struct job_spec){0};
	if (doc)
		r = read_spec(yyjson_doc_get_root(doc), s, err);
	yyjson_doc_free(doc);
	if (r < 0)
		spec_release(s);
	return r;
}

static void differs(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void differs(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	if (b->len)
		buf_adds(b, "; ");
	va_start(ap, fmt);
	buf_vaddf(b, fmt, ap);
	va_end(ap);
}

static int conclude(struct buf *b, struct err *err)
{
	int r = 0;

	if (b->len)
		r = err_set(err, ERR_FINGERPRINT, "%s. Use the job's own values or another output directory", b->data);
	buf_release(b);
	return r;
}

int setup_compare(const struct job_setup *there, const struct job_setup *asked, struct err *err)
{
	struct buf b = {0};

	if (strcmp(there->model_fingerprint, asked->model_fingerprint) != 0 &&
	    (setup_is_fake(there->model_fingerprint) || setup_is_fake(asked->model_fingerprint)))
		differs(&b, "--engine differs (the job was begun with %s, asked for %s)",
		        setup_is_fake(there->model_fingerprint) ? there->model_fingerprint : there->model_path,
		        setup_is_fake(asked->model_fingerprint) ? asked->model_fingerprint : asked->model_path);
	else if (strcmp(there->model_fingerprint, asked->model_fingerprint) != 0)
		differs(&b, "the model differs (the job has %s with weights %.12s, asked for %s with weights %.12s)", there->model_path,
		        there->model_fingerprint, asked->model_path, asked->model_fingerprint);
	else if (strcmp(there->text_fingerprint, asked->text_fingerprint) != 0)
		differs(&b, "the model's tokenizer or chat template differs");
	if (there->math != asked->math)
		differs(&b, "--math differs (the job has %s, asked for %s)", spec_math_name(there->math), spec_math_name(asked->math));
	if (there->kv_type != asked->kv_type)
		differs(&b, "--kv-type differs (the job has %s, asked for %s)", spec_kv_name(there->kv_type),
		        spec_kv_name(asked->kv_type));
	if (there->seed != asked->seed)
		differs(&b, "--seed differs (the job has %" PRIu64 ", asked for %" PRIu64 ")", there->seed, asked->seed);
	if (there->n_context != asked->n_context)
		differs(&b, "--context differs (the job has %d, asked for %d)", there->n_context, asked->n_context);
	if (there->now_unix_s != asked->now_unix_s)
		differs(&b, "--date differs");
	if (strcmp(there->model_name, asked->model_name) != 0)
		differs(&b, "the model's name differs (the job has '%s', asked for '%s')", there->model_name, asked->model_name);
	if (strcmp(there->defaults, asked->defaults) != 0)
		differs(&b, "--defaults differs (the job has %.200s, asked for %.200s)", there->defaults, asked->defaults);
	return conclude(&b, err);
}

int inputs_are_same(const struct job_inputs *a, const struct job_inputs *b)
{
	for (size_t i = 0; i < a->n && i < b->n; i++)
		if (strcmp(a->items[i].sha256, b->items[i].sha256) != 0)
			return 0;
	return a->n == b->n;
}
