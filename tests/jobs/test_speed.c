/* Tests of the speed file: what is written is read back, what is damaged or another's is not; what a run teaches. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "jobs/speed.h"
#include "tests/check.h"

static const struct speed_key key = {"abc123", "fast", "f16", "Some \"CPU\" @ 2 GHz", 2};

static struct speed some_speed(void)
{
	struct speed s = {.source = SPEED_BENCH, .cost = cost_model_default(), .factor = 1, .measured_unix_ms = 1764000000000};

	for (int i = 0; i < 100; i++)
		output_lengths_add(&s.lengths, i, 128);
	return s;
}

static void use_cache(const char *dir)
{
	setenv("TOKENMILL_CACHE", dir, 1);
}

TEST(written_and_read)
{
	struct speed s = some_speed(), back;
	struct speed_key other = key;
	struct err err = {0};

	use_cache("cache/deep");
	CHECK_INT(speed_read(&key, &back), 0);
	CHECK_INT(speed_write(&key, &s, &err), 0);
	CHECK_INT(speed_read(&key, &back), 1);
	CHECK_INT(back.source, SPEED_BENCH);
	CHECK_INT(back.measured_unix_ms, s.measured_unix_ms);
	CHECK_INT(back.cost.batch, s.cost.batch);
	CHECK_INT(back.cost.chunk_tokens, s.cost.chunk_tokens);
	for (int i = 0; i < COST_TERMS; i++)
		CHECK_NEAR(back.cost.s[i] / s.cost.s[i], 1, 1e-8);
	CHECK(memcmp(&back.lengths, &s.lengths, sizeof(s.lengths)) == 0);
	other.n_threads = 3;
	CHECK_INT(speed_read(&other, &back), 0);
	other = key;
	other.math = "f32";
	CHECK_INT(speed_read(&other, &back), 0);
}

TEST(damage_is_ignored)
{
	struct speed s = some_speed(), back;
	struct buf text = {0};
	struct err err = {0};
	char *path;

	use_cache("damaged");
	CHECK_INT(speed_write(&key, &s, &err), 0);
	path = speed_path(&key);
	speed_format(&key, &s, &text);
	CHECK_INT(speed_parse(&key, text.data, text.len, &back, &err), 0);
	/* Any cut. */
	for (size_t n = 0; n + 2 < text.len; n += 7) {
		struct err ignored = {0};

		CHECK_INT(speed_parse(&key, text.data, n, &back, &ignored), -1);
	}
	CHECK_INT(file_write_atomic(path, text.data, text.len / 2, &err), 0);
	CHECK_INT(speed_read(&key, &back), 0);
	CHECK_INT(back.source, 0);
	CHECK_INT(speed_write(&key, &s, &err), 0);
	CHECK_INT(speed_read(&key, &back), 1);
	free(path);
	buf_release(&text);
}

static void refuse(const char *from, const char *to)
{
	struct speed s = some_speed(), back;
	struct buf text = {0}, changed = {0};
	struct err ignored = {0};
	const char *at;

	speed_format(&key, &s, &text);
	at = strstr(text.data, from);
	CHECK(at != NULL);
	if (at) {
		buf_add(&changed, text.data, (size_t)(at - text.data));
		buf_adds(&changed, to);
		buf_adds(&changed, at + strlen(from));
		CHECK_INT(speed_parse(&key, changed.data, changed.len, &back, &ignored), -1);
	}
	buf_release(&text);
	buf_release(&changed);
}

TEST(nonsense_is_refused)
{
	refuse("\"step_s\":", "\"step_s\":-");
	refuse("\"factor\":1", "\"factor\":0");
	refuse("\"batch\":64", "\"batch\":0");
	refuse("\"batch\":64", "\"batch\":99999999999");
	refuse("\"chunk\":512", "\"chunk\":null");
	refuse("\"format\":1", "\"format\":2");
	refuse("abc123", "abc124");
	refuse("\"bins\":[", "\"bins\":[1,");
	refuse("\"classes\":[[0,0],", "\"classes\":[[0],");
}

TEST(place_of_the_cache)
{
	char *path;

	use_cache("");
	setenv("XDG_CACHE_HOME", "/x/cache", 1);
	path = speed_path(&key);
	CHECK(strncmp(path, "/x/cache/tokenmill/speed-", 25) == 0);
	free(path);
	setenv("XDG_CACHE_HOME", "relative", 1);
	setenv("HOME", "/home/someone", 1);
	path = speed_path(&key);
	CHECK(strncmp(path, "/home/someone/.cache/tokenmill/speed-", 37) == 0);
	free(path);
	unsetenv("HOME");
	CHECK(speed_path(&key) == NULL);
}

/* A run of rows that take exactly `factor` times what the model says. */
static struct speed_run make_run(const struct cost_model *m, double factor, int64_t n_rows)
{
	struct row_cost c = estimate_row(m, 200, 160, 50, 1);
	struct speed_run r = {.n_rows = n_rows, .prompt_tokens = 200 * n_rows, .cached_tokens = 160 * n_rows, .output_tokens = 50 * n_rows,
	                      .computed_tokens = 89 * n_rows, .n_steps = 40 * n_rows / 512 + 49 * n_rows / 64, .batch = 64, .chunk_tokens = 512};

	r.busy_s = (c.prefill_s + c.decode_s) * factor * (double)n_rows;
	return r;
}

TEST(learning_from_runs)
{
	struct cost_model m = cost_model_default();
	struct speed s = some_speed();
	struct speed_run r = make_run(&m, 1, 64);

	r.busy_s = 1;
	CHECK_INT(speed_learn(&s, &r), 0);
	CHECK_NEAR(s.factor, 1, 0);
	/* As the bench said: it stays. */
	r = make_run(&m, 1, 6400);
	CHECK(r.busy_s > SPEED_MIN_RUN_S);
	CHECK_INT(speed_learn(&s, &r), 1);
	CHECK_NEAR(s.factor, 1, 0.02);
	/* Slower for long: the factor goes there. */
	for (int i = 0; i < 100; i++) {
		r = make_run(&m, 3, 6400);
		speed_learn(&s, &r);
	}
	CHECK_NEAR(s.factor, 3, 0.1);
	CHECK(s.learnt_s <= SPEED_MEMORY_S);
	CHECK_NEAR(speed_cost(&s).s[COST_TOKEN], m.s[COST_TOKEN] * s.factor, 1e-12);
	/* Nothing was known: one run gives an estimate. */
	s = (struct speed){0};
	r = make_run(&m, 0.25, 64000);
	CHECK_INT(speed_learn(&s, &r), 1);
	CHECK_INT(s.source, SPEED_RUN);
	CHECK_NEAR(s.factor, 0.25, 0.01);
}

TEST(lengths_fade)
{
	struct speed s = some_speed();
	struct output_lengths l = {0};
	struct speed_run r = {.lengths = &l};

	for (int i = 0; i < 200000; i++)
		output_lengths_add(&l, 100, 128);
	for (int i = 0; i < 5; i++)
		CHECK_INT(speed_learn(&s, &r), 1);
	CHECK(s.lengths.n < 400000);
	CHECK_NEAR(output_lengths_expect(&s.lengths, 128), 100, 0.1);
}

int main(void)
{
	RUN(written_and_read);
	RUN(damage_is_ignored);
	RUN(nonsense_is_refused);
	RUN(place_of_the_cache);
	RUN(learning_from_runs);
	RUN(lengths_fade);
	return TEST_RESULT();
}
