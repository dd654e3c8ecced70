/* A job that is killed at random moments, by SIGKILL, in every phase; twins on one directory; a planner that died; a stopped worker that wakes
 * up. Each time the merged bytes must be those of an undisturbed run. `test_job_crash N` kills N times instead of 50. */
#include "tests/check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "tests/queue/job_rig.h"

static int n_rounds = 50;

/* One attempt at the whole job: plan if no one has, run, merge. What a process of a real run does. */
static _Noreturn void attempt(const char *dir, const struct rig *r, int index)
{
	struct job_worker w = {.index = index, .attempt = "attempt"};
	struct err err = {0};
	struct job *j;
	int rc = 0;

	if (!job_is_planned(dir, NULL) && rig_plan(dir, r, &err) < 0 && !job_is_planned(dir, NULL))
		goto fail;
	err_clear(&err);
	j = job_open(dir, &err);
	if (!j || rig_work(j, &w, r, 17, INT64_MAX, &err) < 0)
		goto fail;
	rc = job_all_done(j, &err);
	if (rc < 0 || (rc == 1 && (job_merge(j, NULL, &err) < 0 || job_verify(j, &err) < 0)))
		goto fail;
	_exit(rc == 1 ? 0 : 2); /* 2: others still run */
fail:
	printf("attempt of worker %d: %s\n", index, err.msg);
	fflush(stdout);
	_exit(1);
}

static pid_t start(const char *dir, const struct rig *r, int index)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		attempt(dir, r, index);
	return pid;
}

static int finish(pid_t pid)
{
	int status;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void sleep_us(long us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&t, NULL);
}

static void check_whole(const char *dir, const struct rig *r)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);
	char command[256];

	CHECK(j && job_verify(j, &err) == 0);
	if (err.code)
		printf("%s\n", err.msg);
	job_close(j);
	CHECK(rig_check(dir, r));
	/* No process lives, so nobody's workplace may be left (but a file that was torn while it was made may). */
	snprintf(command, sizeof(command),
	         "find %s ! -name '*.tmp-*' '(' -name 'merging*' -o -name 'planning*' -o -name 'plan-claim*' -o -name 'verifying*' ')' | head -5", dir);
	FILE *f = popen(command, "r");
	char left[256] = "";

	if (fgets(left, sizeof(left), f))
		printf("left behind: %s", left);
	CHECK_STR(left, "");
	pclose(f);
}

/* Time the undisturbed job takes here, so that kills fall into every phase of it. */
static double undisturbed_seconds(const struct rig *r)
{
	double t = clock_seconds();

	CHECK_INT(finish(start("calm", r, 0)), 0);
	check_whole("calm", r);
	t = clock_seconds() - t;
	rig_remove("calm");
	return t;
}

TEST(kill_9)
{
	struct rig r = {.n_rows = 1500, .bad_every = 50, .pad_bytes = 200, .rows_per_shard = 220};
	double whole = undisturbed_seconds(&r);
	unsigned seed = (unsigned)clock_unix_ms();
	int killed = 0, jobs = 0;

	printf("seed %u\n", seed);
	srand(seed);
	while (killed < n_rounds && !check_failed_now) {
		/* Short lives, so that a job dies several times on its way. */
		long life_us = (long)(whole * 1e6 * (rand() % 1000) / 2500);
		pid_t pid = start("k", &r, 0);
		int rc;

		sleep_us(life_us);
		kill(pid, SIGKILL);
		rc = finish(pid);
		if (rc == -SIGKILL)
			killed++;
		else
			CHECK_INT(rc, 0);
		if (rc == 0) {
			check_whole("k", &r);
			rig_remove("k");
			jobs++;
		}
	}
	if (file_is_dir("k")) {
		CHECK_INT(finish(start("k", &r, 0)), 0);
		check_whole("k", &r);
		jobs++;
	}
	printf("%d kills over %d jobs\n", killed, jobs);
}

/* Processes at once on one directory, with one index and with several; each ends well, and together they finish the job. */
TEST(twins)
{
	struct rig r = {.n_rows = 2000, .bad_every = 50, .pad_bytes = 200, .rows_per_shard = 100};
	struct err err = {0};

	for (int round = 0; round < 4; round++) {
		pid_t pid[4];

		CHECK_INT(rig_plan("t", &r, &err), 0);
		for (int i = 0; i < 4; i++)
			pid[i] = start("t", &r, round % 2 ? i : 0);
		for (int i = 0; i < 4; i++) {
			int rc = finish(pid[i]);

			CHECK(rc == 0 || rc == 2);
		}
		check_whole("t", &r);
		rig_remove("t");
	}
}

/* Several plan at once: one does; the others say so, and find the job planned later. */
TEST(planners)
{
	struct rig r = {.n_rows = 300, .pad_bytes = 100};

	for (int round = 0; round < 10; round++) {
		pid_t pid[3];
		int n_planned = 0;

		fflush(stdout);
		for (int i = 0; i < 3; i++) {
			pid[i] = fork();
			if (pid[i] == 0) {
				struct err err = {0};

				_exit(rig_plan("p", &r, &err) == 0 ? 0 : err.code == ERR_INPUT || err.code == ERR_RETRY ? 64 : 1);
			}
		}
		for (int i = 0; i < 3; i++) {
			int rc = finish(pid[i]);

			n_planned += rc == 0;
			CHECK(rc == 0 || rc == 64);
		}
		CHECK_INT(n_planned, 1);
		CHECK_INT(finish(start("p", &r, 0)), 0);
		check_whole("p", &r);
		rig_remove("p");
	}
}

/* A planner died at each step: the next one clears up. */
TEST(dead_planner)
{
	struct rig r = {.n_rows = 300, .pad_bytes = 100, .rows_per_shard = 50};
	static const char *const state[] = {
		"true",
		"mv d/planning-0001/shards d/shards",
		"mv d/planning-0001/shards d/shards; mv d/planning-0001/plan.db d/plan.db; touch d/job.json.tmp-1-2-3",
		"rm -r d/planning-0001",
	};

	for (size_t i = 0; i < sizeof(state) / sizeof(state[0]); i++) {
		struct err err = {0};
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			struct job_plan *p = job_plan_begin("d", &err);

			for (int row = 0; p && row < 100; row++)
				rig_add(p, &r, row, &err);
			_exit(p ? 0 : 1); /* dies without a word */
		}
		CHECK_INT(finish(pid), 0);
		CHECK(file_exists("d/plan-claim-0001"));
		CHECK_INT(system(state[i]), 0);
		CHECK_INT(finish(start("d", &r, 0)), 0);
		CHECK_INT(system("test -z \"$(ls d | grep tmp)\""), 0);
		check_whole("d", &r);
		rig_remove("d");
	}
}

/* A worker is stopped with a shard in hand; its claim is overtaken by a higher epoch (as a pod elsewhere would); it wakes up and publishes what it
 * has or is told that it is fenced. Nothing is lost or doubled. */
TEST(stopped_worker)
{
	struct rig r = {.n_rows = 400, .pad_bytes = 200, .rows_per_shard = 400};
	struct err err = {0};

	for (int round = 0; round < 10; round++) {
		int status;
		pid_t pid;

		CHECK_INT(rig_plan("s", &r, &err), 0);
		pid = start("s", &r, 0);
		sleep_us(300 + round * 400);
		kill(pid, SIGSTOP);
		waitpid(pid, &status, WUNTRACED);
		if (WIFSTOPPED(status) && file_exists("s/shards/00000/claim-0001"))
			CHECK_INT(system("sed 's/\"host\":\"/&not-/' s/shards/00000/claim-0001 >s/c && ln s/c s/shards/00000/claim-0002; rm s/c"), 0);
		CHECK_INT(WIFEXITED(status) || finish(start("s", &r, 0)) == 0, 1);
		kill(pid, SIGCONT);
		if (WIFSTOPPED(status)) {
			int rc = finish(pid);

			CHECK(rc == 0 || rc == 2);
		}
		CHECK_INT(finish(start("s", &r, 0)), 0);
		check_whole("s", &r);
		rig_remove("s");
	}
}

int main(int argc, char **argv)
{
	if (argc > 1)
		n_rounds = atoi(argv[1]);
	RUN(kill_9);
	RUN(twins);
	RUN(planners);
	RUN(dead_planner);
	RUN(stopped_worker);
	return TEST_RESULT();
}
