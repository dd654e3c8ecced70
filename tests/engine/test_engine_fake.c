/* The fake engine: answers that depend on nothing but the request, ends as a real engine's, faults as ordered, options read
 * strictly. */
#include "tests/check.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_fake.h"

static struct text *text;

enum { N_ROWS = 200 };
struct answer {
	enum finish_reason reason;
	char *text;
	size_t n_text;
	int32_t *tokens;
	size_t n_tokens;
	int n_results;
	int32_t stop_id;
	char *stop_string;
};

static void keep(void *arg, const struct engine_result *r)
{
	struct answer *a = r->user;

	(void)arg;
	free(a->text);
	free(a->tokens);
	free(a->stop_string);
	*a = (struct answer){.reason = r->reason,
	                     .n_text = r->n_text,
	                     .n_tokens = r->n_tokens,
	                     .n_results = a->n_results + 1,
	                     .stop_id = r->stop_id};
	a->text = xmemdup(r->text, r->n_text);
	a->tokens = xmalloc((r->n_tokens + 1) * sizeof(*a->tokens));
	memcpy(a->tokens, r->tokens, r->n_tokens * sizeof(*a->tokens));
	a->stop_string = r->stop_string ? xstrdup(r->stop_string) : NULL;
}

static void release(struct answer *a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(a[i].text);
		free(a[i].tokens);
		free(a[i].stop_string);
		a[i] = (struct answer){0};
	}
}

static struct fake_options options(const char *s)
{
	struct fake_options o;
	struct err err = {0};

	fake_options_init(&o);
	CHECK_INT(fake_options_read(&o, s, &err), 0);
	CHECK_STR(err.msg, "");
	return o;
}

static struct engine *open_fake(const char *s)
{
	struct fake_options o = options(s);
	struct err err = {0};
	struct engine *e = engine_open_fake(text, &o, &err);

	CHECK_STR(err.msg, "");
	return e;
}

/* Row i of the dataset; ids must have room for 32. */
static struct engine_request request(int i, int32_t *ids, struct answer *to)
{
	struct engine_request q = {
	    .user = to, .prompt = ids, .sampling = {.max_tokens = 400, .n_logprobs = -1, .seed = 3, .key = (uint64_t)i * 77}};
	char prompt[32];

	snprintf(prompt, sizeof(prompt), "row %d", i / 2);
	for (q.n_prompt = 0; prompt[q.n_prompt]; q.n_prompt++)
		ids[q.n_prompt] = prompt[q.n_prompt];
	q.sampling.sample = (uint32_t)(i % 3);
	return q;
}

static void submit(struct engine *e, int i, struct answer *answers)
{
	int32_t ids[32];
	struct engine_request q = request(i, ids, &answers[i]);
	struct err err = {0};

	q.partial = answers[i].tokens;
	q.n_partial = answers[i].n_tokens;
	CHECK_INT(engine_submit(e, &q, &err), 0);
	CHECK_STR(err.msg, "");
}

static void run(struct engine *e)
{
	struct err err = {0};

	while (engine_step(e, keep, NULL, &err) > 0)
		;
	CHECK_STR(err.msg, "");
}

static void check_same(const struct answer *a, const struct answer *b)
{
	int n_bad = 0;

	for (int i = 0; i < N_ROWS; i++)
		n_bad += a[i].reason != b[i].reason || a[i].n_tokens != b[i].n_tokens || a[i].n_text != b[i].n_text ||
		         a[i].stop_id != b[i].stop_id || memcmp(a[i].text, b[i].text, a[i].n_text) != 0 ||
		         memcmp(a[i].tokens, b[i].tokens, a[i].n_tokens * sizeof(*a[i].tokens)) != 0;
	CHECK_INT(n_bad, 0);
}

static struct answer whole[N_ROWS];

TEST(answers)
{
	struct engine *e = open_fake("batch=16");
	struct engine_stats s;
	size_t shortest = 1000, longest = 0, n_tokens = 0, n_equal = 0;
	int n_bad = 0;

	for (int i = 0; i < N_ROWS; i++)
		submit(e, i, whole);
	run(e);
	for (int i = 0; i < N_ROWS; i++) {
		struct buf decoded = {0};
		const struct answer *a = &whole[i];

		/* What text says is what the tokens say. */
		tokenizer_decode(text->tokenizer, a->tokens, a->n_tokens, 1, &decoded);
		n_bad += a->n_results != 1 || a->reason != FINISH_STOP || decoded.len != a->n_text ||
		         memcmp(decoded.data, a->text, a->n_text) != 0;
		buf_release(&decoded);
		shortest = a->n_tokens < shortest ? a->n_tokens : shortest;
		longest = a->n_tokens > longest ? a->n_tokens : longest;
		n_tokens += a->n_tokens;
		for (int k = 0; k < i; k++)
			n_equal += a->n_text == whole[k].n_text && memcmp(a->text, whole[k].text, a->n_text) == 0;
	}
	CHECK_INT(n_bad, 0);
	CHECK_INT(n_equal, 0);
	CHECK(shortest >= 20 && shortest < 30 && longest <= 200 && longest > 190);
	engine_get_stats(e, &s);
	CHECK_INT(s.output_tokens, n_tokens);
	engine_close(e);
}

TEST(speed_and_batch_do_not_matter)
{
	static const char *const ways[] = {"batch=1", "batch=3,slow=0.5:7", "batch=300,rate=2000000", "slow=1:100,batch=64"};

	for (size_t w = 0; w < sizeof(ways) / sizeof(*ways); w++) {
		struct engine *e = open_fake(ways[w]);
		struct answer got[N_ROWS] = {0};

		for (int i = N_ROWS - 1; i >= 0; i--)
			submit(e, i, got);
		run(e);
		check_same(whole, got);
		release(got, N_ROWS);
		engine_close(e);
	}
}

/* Stopped and gone on with in other engines, again and again: the same answers. */
TEST(partial_answers)
{
	struct answer got[N_ROWS] = {0};

	for (int attempt = 0; attempt < 40; attempt++) {
		struct engine *e = open_fake(attempt % 2 ? "batch=30,slow=0.3:5" : "batch=11");
		struct err err = {0};

		for (int i = 0; i < N_ROWS; i++)
			if (got[i].reason == FINISH_NONE)
				submit(e, i, got);
		for (int k = 0; k < 4; k++)
			CHECK(engine_step(e, keep, NULL, &err) >= 0);
		engine_each_running(e, keep, NULL);
		engine_close(e);
	}
	check_same(whole, got);
	/* Tokens that this engine would not have generated are a fault of the job, not of the row. */
	{
		struct engine *e = open_fake("");
		struct err err = {0};
		int32_t ids[32];
		struct engine_request q = request(5, ids, &got[5]);

		got[5].tokens[7] ^= 1;
		q.partial = got[5].tokens;
		q.n_partial = 9;
		CHECK_INT(engine_submit(e, &q, &err), -1);
		CHECK_INT(err.code, ERR_ENGINE);
		CHECK_STR(err.msg, "a row goes on from 9 tokens, but token 7 is not what was generated before");
		engine_close(e);
	}
	release(got, N_ROWS);
}

TEST(ends)
{
	struct engine *e = open_fake("tokens=50");
	struct answer a[7] = {0};
	int32_t ids[32], stop_id;
	struct err err = {0};
	char word[4] = {0};
	const char *stops[] = {"no such text", word};
	struct engine_request q;

	/* Row 9 alone, then the same with each limit. */
	for (int k = 0; k < 7; k++) {
		q = request(9, ids, &a[k]);
		if (k == 1)
			q.sampling.max_tokens = 10;
		if (k == 2)
			q.sampling.ignore_eos = 1;
		if (k == 3 || k == 4) {
			memcpy(word, a[0].text + 20, 3);
			q.sampling.stop = stops;
			q.sampling.n_stop = 2;
			q.sampling.include_stop = k == 4;
		}
		if (k == 5) {
			stop_id = a[0].tokens[17];
			q.sampling.stop_ids = &stop_id;
			q.sampling.n_stop_ids = 1;
		}
		if (k == 6)
			q.sampling.max_tokens = 0;
		CHECK_INT(engine_submit(e, &q, &err), 0);
		run(e);
		CHECK_INT(a[k].n_results, 1);
	}
	CHECK(a[0].reason == FINISH_STOP && a[0].n_tokens == 50 && a[0].stop_id == -1 && !a[0].stop_string);
	CHECK(a[1].reason == FINISH_LENGTH && a[1].n_tokens == 10 && memcmp(a[1].text, a[0].text, 10) == 0);
	CHECK(a[2].reason == FINISH_LENGTH && a[2].n_tokens == 400 && memcmp(a[2].text, a[0].text, 50) == 0);
	for (int k = 3; k <= 4; k++) {
		size_t at = (size_t)((char *)memmem(a[0].text, a[0].n_text, word, 3) - a[0].text);

		CHECK_INT(a[k].reason, FINISH_STOP);
		CHECK_STR(a[k].stop_string, word);
		CHECK_INT(a[k].n_tokens, at + 3);
		CHECK_INT(a[k].n_text, at + (k == 4 ? 3 : 0));
		CHECK(memcmp(a[k].text, a[0].text, a[k].n_text) == 0);
	}
	CHECK_INT(a[5].reason, FINISH_STOP);
	CHECK_INT(a[5].stop_id, stop_id);
	CHECK(a[5].n_tokens <= 18 && a[5].tokens[a[5].n_tokens - 1] == stop_id && a[5].n_text == a[5].n_tokens - 1);
	CHECK(a[6].reason == FINISH_LENGTH && a[6].n_tokens == 0 && a[6].n_text == 0);
	release(a, 7);
	/* What can never run is the row's fault. */
	q = request(1, ids, a);
	q.n_prompt = 0;
	CHECK_INT(engine_submit(e, &q, &err), -1);
	CHECK_INT(err.code, ERR_ROW);
	err_clear(&err);
	q = request(1, ids, a);
	ids[1] = TEXT_BYTES_N_VOCAB;
	CHECK_INT(engine_submit(e, &q, &err), -1);
	CHECK_STR(err.msg, "prompt: token id 257 at place 1 is not in 0..256");
	engine_close(e);
}

TEST(failing_rows)
{
	struct answer got[2][N_ROWS] = {0};
	int n[2] = {0};

	for (int k = 0; k < 2; k++) {
		struct engine *e = open_fake(k ? "fail=0.2,batch=7" : "fail=0.2");

		for (int i = 0; i < N_ROWS; i++)
			submit(e, i, got[k]);
		run(e);
		for (int i = 0; i < N_ROWS; i++)
			n[k] += got[k][i].reason == FINISH_ERROR;
		engine_close(e);
	}
	check_same(got[0], got[1]);
	/* 200 draws of 0.2: 40, give or take 4 standard deviations. */
	CHECK(n[0] == n[1] && n[0] > 17 && n[0] < 63);
	/* Those that do not fail are what they were. */
	for (int i = 0; i < N_ROWS; i++)
		if (got[0][i].reason != FINISH_ERROR)
			CHECK(got[0][i].n_text == whole[i].n_text && memcmp(got[0][i].text, whole[i].text, whole[i].n_text) == 0);
	release(got[0], N_ROWS);
	release(got[1], N_ROWS);
}

TEST(rate)
{
	struct engine *e = open_fake("rate=20000,tokens=100,batch=10");
	struct answer got[N_ROWS] = {0};
	double start = clock_seconds(), took;

	for (int i = 0; i < 60; i++)
		submit(e, i, got);
	run(e);
	took = clock_seconds() - start;
	CHECK(took > 0.25); /* 6,000 tokens; a busy machine may take longer */
	release(got, N_ROWS);
	engine_close(e);
}

/* The wait status of a process that runs some rows, one of them with "row 7" in its prompt. */
static int status_of(const char *faults, int n_rows, int seconds)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct engine *e = open_fake(faults);
		struct answer got[N_ROWS] = {0};

		alarm((unsigned)seconds);
		for (int i = 0; i < n_rows; i++)
			submit(e, i, got);
		run(e);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

TEST(crash_and_hang)
{
	CHECK_INT(status_of("crash=row 7,tokens=1", 14, 60), 0); /* rows 0 to 6 */
	CHECK_INT(status_of("crash=row 7,tokens=1", 15, 60), SIGSEGV);
	CHECK_INT(status_of("hang=row 7", 14, 60), 0);
	CHECK_INT(status_of("hang=row 7", 15, 1), SIGALRM);
	CHECK_INT(status_of("crash-after=5,batch=1", 5, 60), 0);
	CHECK_INT(status_of("crash-after=5,batch=1", 7, 60), SIGSEGV);
	CHECK_INT(status_of("crash-after=0.05s,rate=1000", 100, 60), SIGSEGV);
}

TEST(option_list)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
	    {"tempo=3",
	     "the fake engine has no option 'tempo'; it has tokens, fail, rate, batch, load, slow, crash, hang, crash-after"},
	    {"tokens", "the fake engine's option tokens needs a value: tokens=MIN-MAX, at most 1000000"},
	    {"tokens=9-3", "the fake engine's option tokens is '9-3', must be MIN-MAX, at most 1000000"},
	    {"tokens=1.5", "the fake engine's option tokens is '1.5', must be MIN-MAX, at most 1000000"},
	    {"tokens=1-2-3", "the fake engine's option tokens is '1-2-3', must be MIN-MAX, at most 1000000"},
	    {"fail=1.1", "the fake engine's option fail is '1.1', must be a share from 0 to 1"},
	    {"fail=", "the fake engine's option fail is '', must be a share from 0 to 1"},
	    {"fail=nan", "the fake engine's option fail is 'nan', must be a share from 0 to 1"},
	    {"rate=-1", "the fake engine's option rate is '-1', must be tokens a second"},
	    {"batch=0", "the fake engine's option batch is '0', must be 1 to 4096"},
	    {"load=1s", "the fake engine's option load is '1s', must be seconds"},
	    {"slow=0.5",
	     "the fake engine's option slow is '0.5', must be SHARE:FACTOR, a share from 0 to 1 and a whole number from 1"},
	    {"crash=", "the fake engine's option crash is '', must be a word of at most 63 bytes"},
	    {"hang=0123456789012345678901234567890123456789012345678901234567890123",
	     "the fake engine's option hang is '0123456789012345678901234567890123456789012345678901234567890123', must be a word "
	     "of at most 63 bytes"},
	    {"crash-after=5x", "the fake engine's option crash-after is '5x', must be a number of rows, or of seconds such as 10s"},
	    {"crash-after=0", "the fake engine's option crash-after is '0', must be a number of rows, or of seconds such as 10s"},
	    {"fail=0.1,,rate=2",
	     "the fake engine has no option ''; it has tokens, fail, rate, batch, load, slow, crash, hang, crash-after"},
	};
	struct fake_options o = options(
	                        "tokens=3-9,fail=0.1,rate=1e6,batch=12,load=0.5,slow=0.25:8,crash=a b,hang=c,crash-after=2.5s"),
	                    again;
	struct buf identity = {0};

	CHECK(o.shortest == 3 && o.longest == 9 && o.fail_share == 0.1 && o.rate == 1e6 && o.max_batch == 12 && o.load_s == 0.5);
	CHECK(o.slow_share == 0.25 && o.slow_factor == 8 && o.crash_after_s == 2.5 && o.crash_after_rows == 0);
	CHECK_STR(o.crash_word, "a b");
	CHECK_STR(o.hang_word, "c");
	fake_options_identity(&o, &identity);
	CHECK_STR(identity.data, "tokens=3-9,fail=0.10000000000000001");
	again = options(identity.data);
	CHECK(again.shortest == 3 && again.longest == 9 && again.fail_share == 0.1 && again.rate == 0);
	buf_release(&identity);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct err err = {0};

		fake_options_init(&o);
		CHECK_INT(fake_options_read(&o, cases[i].text, &err), -1);
		CHECK_INT(err.code, ERR_USAGE);
		CHECK_STR(err.msg, cases[i].error);
	}
}

int main(void)
{
	struct err err = {0};

	text = text_open_bytes(&err);
	CHECK_STR(err.msg, "");
	RUN(answers);
	RUN(speed_and_batch_do_not_matter);
	RUN(partial_answers);
	RUN(ends);
	RUN(failing_rows);
	RUN(rate);
	RUN(crash_and_hang);
	RUN(option_list);
	release(whole, N_ROWS);
	text_free(text);
	return TEST_RESULT();
}
