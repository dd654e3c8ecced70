/* A real model's greedy ids against transformers on the same weights, dequantised to f32 (goldens/smollm2-greedy.json). Needs
 * build/models/SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch.sh smollm2); skipped without. */
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "tests/check.h"

enum { MAX_CASES = 64, MAX_IDS = 512 };

struct answer {
	int32_t ids[MAX_IDS];
	size_t n;
};

static void collect(void *arg, const struct engine_result *r)
{
	struct answer *a = r->user;

	(void)arg;
	a->n = r->n_tokens < MAX_IDS ? r->n_tokens : MAX_IDS;
	memcpy(a->ids, r->tokens, a->n * sizeof(*a->ids));
}

static size_t read_ids(yyjson_val *array, int32_t *ids)
{
	size_t i, max;
	yyjson_val *v;

	yyjson_arr_foreach(array, i, max, v)
		if (i < MAX_IDS)
			ids[i] = yyjson_get_int(v);
	return max < MAX_IDS ? max : MAX_IDS;
}

/* How many of the golden's tokens come out the same before the first that differs; *total counts the golden's. */
static size_t run_golden(const char *model, yyjson_val *golden, enum engine_math math, enum kv_type kv, size_t *total, struct err *err)
{
	struct engine_options o = {.math = math, .kv_type = kv, .memory_bytes = (size_t)1 << 30, .max_batch = 8};
	struct text *text = text_open(model, err);
	struct engine *e = text ? engine_open(model, text, &o, err) : NULL;
	struct answer *answers = xcalloc(MAX_CASES, sizeof(*answers));
	size_t i, max, same = 0;
	yyjson_val *one;

	*total = 0;
	if (!e) {
		printf("%s\n", err->msg);
		goto out;
	}
	yyjson_arr_foreach(golden, i, max, one)
	{
		int32_t prompt[MAX_IDS];
		struct engine_request r = {.user = &answers[i], .prompt = prompt};

		r.n_prompt = read_ids(yyjson_obj_get(one, "prompt"), prompt);
		r.sampling = (struct sampling){.top_p = 1, .repetition_penalty = 1, .n_logprobs = -1, .ignore_eos = 1, .skip_special = 1};
		r.sampling.max_tokens = (int32_t)yyjson_arr_size(yyjson_obj_get(one, "greedy"));
		CHECK_INT(engine_submit(e, &r, err), 0);
	}
	while (engine_step(e, collect, NULL, err) > 0)
		;
	yyjson_arr_foreach(golden, i, max, one)
	{
		int32_t want[MAX_IDS];
		size_t n = read_ids(yyjson_obj_get(one, "greedy"), want), k = 0;

		while (k < n && k < answers[i].n && answers[i].ids[k] == want[k])
			k++;
		same += k;
		*total += n;
	}
out:
	engine_close(e);
	text_free(text);
	free(answers);
	return same;
}

static char model[4200];
static yyjson_doc *doc;

TEST(greedy_ids_equal_transformers)
{
	struct err err = {0};
	size_t total, same = run_golden(model, yyjson_doc_get_root(doc), MATH_F32, KV_F32, &total, &err);

	CHECK(total > 0);
	CHECK_INT(same, total);
}

/* Rounding activations to 8 bit turns near ties, after which a greedy text goes its own way. So: given the golden's own tokens so far, how
 * often is the best next token the golden's? */
TEST(fast_math_stays_close)
{
	struct engine_options o = {.math = MATH_FAST, .kv_type = KV_F16, .memory_bytes = (size_t)1 << 30, .max_batch = 64};
	struct err err = {0};
	struct text *text = text_open(model, &err);
	struct engine *e = text ? engine_open(model, text, &o, &err) : NULL;
	int32_t ids[2 * MAX_IDS], at[MAX_IDS];
	int n_vocab, same = 0, total = 0;
	float *logits;
	size_t i, max;
	yyjson_val *one;

	CHECK(e != NULL);
	if (!e)
		return;
	n_vocab = engine_model(e)->config.n_vocab;
	logits = xcalloc((size_t)MAX_IDS * (size_t)n_vocab, sizeof(*logits));
	yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, one)
	{
		int n_prompt = (int)read_ids(yyjson_obj_get(one, "prompt"), ids);
		int n = (int)read_ids(yyjson_obj_get(one, "greedy"), ids + n_prompt);

		for (int k = 0; k < n; k++)
			at[k] = n_prompt + k - 1;
		CHECK_INT(engine_logits(e, ids, n_prompt + n, at, n, logits, &err), 0);
		for (int k = 0; k < n; k++) {
			const float *x = logits + (size_t)k * (size_t)n_vocab;
			int best = 0;

			for (int v = 0; v < n_vocab; v++)
				if (x[v] > x[best])
					best = v;
			same += best == ids[n_prompt + k];
		}
		total += n;
	}
	printf("   fast: the best token is the golden's at %d of %d places\n", same, total);
	CHECK(total > 0 && same * 100 >= total * 95);
	free(logits);
	engine_close(e);
	text_free(text);
}

int main(void)
{
	const char *source = getenv("TOKENMILL_SOURCE");
	char golden[4200];
	struct err err = {0};

	snprintf(model, sizeof(model), "%s/build/models/SmolLM2-135M-Instruct.Q4_1.gguf", source ? source : ".");
	snprintf(golden, sizeof(golden), "%s/tests/engine/goldens/smollm2-greedy.json", source ? source : ".");
	if (access(model, R_OK) != 0) {
		SKIP(smollm2, "build/models/SmolLM2-135M-Instruct.Q4_1.gguf is missing (scripts/fetch.sh smollm2)");
		return 0;
	}
	doc = json_parse_file(golden, 1 << 24, ERR_INPUT, &err);
	if (!doc) {
		printf("FAIL smollm2: %s\n", err.msg);
		return 1;
	}
	RUN(greedy_ids_equal_transformers);
	RUN(fast_math_stays_close);
	yyjson_doc_free(doc);
	return TEST_RESULT();
}
