/* Tests of compaction, adoption and the mark: few files after many publishes, and the right bytes whatever process dies, or is stopped and wakes
 * up, before any single step (a system call that changes a directory). Steps are counted with ptrace(2). `test_compact all` takes every
 * step; else each thirteenth. */
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "tests/queue/job_rig.h"

static int stride = 13;

static int count_files(const char *pattern)
{
	char command[256];
	FILE *f;
	int n = -1;

	snprintf(command, sizeof(command), "ls -d %s 2>/dev/null | wc -l", pattern);
	f = popen(command, "r");
	if (fscanf(f, "%d", &n) != 1)
		n = -1;
	pclose(f);
	return n;
}

static void merge_and_check(const char *dir, const struct rig *r)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);

	CHECK(j != NULL);
	if (!j)
		return;
	CHECK_INT(job_all_done(j, &err), 1);
	CHECK_OK(job_merge(j, NULL, &err), err);
	CHECK_OK(job_verify(j, &err), err);
	CHECK(rig_check(dir, r));
	job_close(j);
}

/* 400 publishes with partial states; a crash in between takes up the last state of each row. */
TEST(many_publishes)
{
	struct rig r = {.n_rows = 2000, .pad_bytes = 200, .rows_per_shard = 2000};
	struct err err = {0};
	struct buf record = {0};
	struct shard_row row;
	struct shard *s;
	struct job *j;
	int most = 0, n;
	char state[32];

	CHECK_OK(rig_plan("many", &r, &err), err);
	j = job_open("many", &err);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	for (int i = 0; i < 300; i++) {
		int64_t rows[5];

		for (int k = 0; k < 5; k++) {
			CHECK_INT(shard_next(s, &row, &err), 1);
			rows[k] = row.row;
		}
		/* One of the five stays in flight for good, with a state that is told anew each time. */
		for (int k = 0; k < 5; k++)
			if (i >= 10 || k > 0)
				rig_result(s, &r, rows[k], &record);
		if (i < 10) {
			snprintf(state, sizeof(state), "first %d", i);
			shard_add_partial(s, rows[0], state, strlen(state));
			if (i == 0)
				snprintf(state, sizeof(state), "%" PRId64, rows[0]);
		}
		CHECK_OK(shard_publish(s, &err), err);
		n = count_files("many/shards/00000/seg-*");
		most = n > most ? n : most;
	}
	CHECK(most <= 3 * 33);
	CHECK(count_files("many/shards/00000/seg-*") < 70);
	shard_close(s);
	CHECK_INT(job_n_done_rows(j, &err), 1490);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	CHECK_INT(shard_n_done(s), 1490);
	for (int i = 0; i < 10; i++) {
		CHECK_INT(shard_next(s, &row, &err), 1);
		snprintf(state, sizeof(state), "first %d", i);
		CHECK(row.n_partial == strlen(state) && memcmp(row.partial, state, row.n_partial) == 0);
	}
	shard_close(s);
	CHECK_INT(rig_work(j, &rig_worker, &r, 5, INT64_MAX, &err), 510);
	job_close(j);
	/* At most eight small ones that this epoch ran, and what it took over. */
	CHECK(count_files("many/shards/00000/seg-*") <= 9);
	CHECK_INT(count_files("many/shards/00000/seg-0003-*"), count_files("many/shards/00000/seg-*"));
	merge_and_check("many", &r);
	buf_release(&record);
}

/* Pieces of at most 64 MB, with no more than some of them in memory. */
TEST(large_rows)
{
	struct rig r = {.n_rows = 60, .pad_bytes = 3000000, .rows_per_shard = 60};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("large", &r, &err), err);
	j = job_open("large", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 1, 50, &err), 50);
	CHECK_INT(rig_work(j, &rig_worker, &r, 1, INT64_MAX, &err), 10);
	job_close(j);
	CHECK_INT(system("test -z \"$(find large/shards -name 'seg-*' -size +65535k)\""), 0);
	CHECK_INT(count_files("large/shards/00000/seg-0001-*"), 0);
	CHECK(count_files("large/shards/00000/seg-0002-*") <= 12);
	merge_and_check("large", &r);
	rig_remove("large");
}

/* While one publishes, compacts and marks, others read: counts only grow, ledgers balance, nothing is said to be missing. */
TEST(readers)
{
	struct rig r = {.n_rows = 400, .pad_bytes = 100, .rows_per_shard = 100};
	struct err err = {0};
	int64_t n_done = 0, n_before;
	int n_reads = 0, status;
	pid_t pid;
	struct job *j;

	CHECK_OK(rig_plan("r", &r, &err), err);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct job_worker other = {.index = 0, .attempt = "attempt-0"};

		j = job_open("r", &err);
		/* In two goes, so that there is something to adopt. */
		while (j && rig_work(j, &other, &r, 1, 90, &err) > 0)
			;
		_exit(j && err.code == 0 ? 0 : 1);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		j = job_open("r", &err);
		n_before = n_done;
		n_done = j ? job_n_done_rows(j, &err) : -1;
		CHECK_OK(n_done, err);
		CHECK(n_done >= n_before);
		CHECK_OK(job_ledger(j, "r.db", &err), err);
		unlink("r.db");
		job_close(j);
		n_reads++;
		if (check_failed_now)
			break;
	}
	CHECK(n_reads > 5);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	merge_and_check("r", &r);
	/* The segments that the marks name, and nothing else. */
	CHECK_INT(system("test \"$(ls r/shards/*/seg-* | wc -l)\" = \"$(cat r/shards/*/done | grep -o 'seg-' | wc -l)\""), 0);
}

/* ---- one step at a time ---- */

static const struct rig small = {.n_rows = 60, .bad_every = 30, .pad_bytes = 100, .rows_per_shard = 58};

/* Publishes after each row, so that there is a compaction; then takes over what an earlier epoch had, and merges. */
static _Noreturn void attempt(const char *dir)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);
	int rc = j ? 0 : -1;

	if (rc == 0 && rig_work(j, &rig_worker, &small, 1, INT64_MAX, &err) < 0)
		rc = -1;
	if (rc == 0)
		rc = job_all_done(j, &err);
	if (rc == 1)
		rc = job_merge(j, NULL, &err) < 0 ? -1 : 0;
	else if (rc == 0)
		_exit(2); /* others still run */
	if (rc < 0)
		printf("%s: %s\n", dir, err.msg);
	fflush(stdout);
	_exit(rc == 0 ? 0 : 1);
}

static pid_t start(const char *dir, int is_traced)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (is_traced) {
			if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
				_exit(77);
			raise(SIGSTOP);
		}
		attempt(dir);
	}
	return pid;
}

static int finish(pid_t pid)
{
	int status;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int is_step(const struct __ptrace_syscall_info *i)
{
	switch (i->entry.nr) {
#ifdef SYS_open
	case SYS_open:
		return (i->entry.args[1] & O_CREAT) != 0;
	case SYS_rename:
	case SYS_link:
	case SYS_unlink:
	case SYS_rmdir:
	case SYS_mkdir:
#endif
	case SYS_renameat:
	case SYS_renameat2:
	case SYS_linkat:
	case SYS_unlinkat:
		return 1;
	case SYS_openat:
		return (i->entry.args[2] & O_CREAT) != 0;
	default:
		return 0;
	}
}

/* Run until the process is about to take its n-th step, where it stands still. 1; 0: it ended before, *rc is its status; -1: no ptrace here. */
static int run_to_step(pid_t pid, int n, int *rc)
{
	struct __ptrace_syscall_info info;
	int status;

	waitpid(pid, &status, 0);
	if (!WIFSTOPPED(status) || ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) < 0)
		return -1;
	for (;;) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) < 0)
			return -1;
		waitpid(pid, &status, 0);
		if (!WIFSTOPPED(status)) {
			*rc = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
			return 0;
		}
		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			continue;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) <= 0)
			return -1;
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY && is_step(&info) && n-- == 0)
			return 1;
	}
}

/* A job of which an earlier epoch, of a process that is dead, has done some rows. */
static void prepare(const char *dir)
{
	struct err err = {0};
	pid_t pid;

	CHECK_OK(rig_plan(dir, &small, &err), err);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(rig_work(job_open(dir, &err), &rig_worker, &small, 6, 18, &err) == 18 ? 0 : 1);
	CHECK_INT(finish(pid), 0);
}

static void check_whole(const char *dir)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);

	CHECK_OK(j ? job_verify(j, &err) : -1, err);
	CHECK_OK(j ? job_merge(j, NULL, &err) : -1, err);
	CHECK_OK(j ? job_verify(j, &err) : -1, err);
	job_close(j);
	CHECK(rig_check(dir, &small));
}

TEST(killed_at_each_step)
{
	int n = 0, rc = 0;

	prepare("before");
	for (int step = 0;; step += stride) {
		pid_t pid;
		int reached;

		CHECK_INT(system("rm -rf k && cp -r before k"), 0);
		pid = start("k", 1);
		reached = run_to_step(pid, step, &rc);
		if (reached < 0) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			SKIP(killed_at_each_step, "no ptrace here");
			return;
		}
		if (reached == 0)
			break;
		kill(pid, SIGKILL);
		CHECK_INT(finish(pid), -SIGKILL);
		n++;
		CHECK_INT(finish(start("k", 0)), 0);
		check_whole("k");
		/* What does not count is gone, unless the process died when it had marked the shard. */
		if (system("grep -q '\"epoch\":2' k/shards/00000/done") != 0)
			CHECK_INT(system("test $(ls k/shards/00000/seg-* | wc -l) = $(grep -o 'seg-' k/shards/00000/done | wc -l)"), 0);
		if (check_failed_now) {
			printf("step %d\n", step);
			return;
		}
	}
	CHECK_INT(rc, 0);
	CHECK(n * stride > 100);
	printf("%d of about %d steps\n", n, n * stride);
}

/* The same with a process that stands still there while another, of a later epoch, ends the job; then it wakes up. */
TEST(woken_at_each_step)
{
	int n = 0, rc = 0;

	for (int step = 1;; step += stride) {
		pid_t pid;
		int reached;

		CHECK_INT(system("rm -rf w && cp -r before w"), 0);
		pid = start("w", 1);
		reached = run_to_step(pid, step, &rc);
		if (reached < 0) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			SKIP(woken_at_each_step, "no ptrace here");
			return;
		}
		if (reached == 0)
			break;
		n++;
		/* As a pod elsewhere would overtake it. */
		if (file_exists("w/shards/00000/claim-0002") && !file_exists("w/shards/00000/done"))
			CHECK_INT(
			    system("sed 's/\"host\":\"/&not-/' w/shards/00000/claim-0002 >w/c && ln w/c w/shards/00000/claim-0003; rm w/c"),
			    0);
		rc = finish(start("w", 0));
		CHECK(rc == 0 || rc == 2); /* 2: the shard is not done, and looks as if held by a live process */
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
		rc = finish(pid);
		CHECK(rc == 0 || rc == 2);
		rc = finish(start("w", 0));
		CHECK_INT(rc, 0);
		check_whole("w");
		if (check_failed_now) {
			printf("step %d\n", step);
			return;
		}
	}
	printf("%d of about %d steps\n", n, n * stride);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "all") == 0)
		stride = 1;
	RUN(many_publishes);
	RUN(large_rows);
	RUN(readers);
	RUN(killed_at_each_step);
	RUN(woken_at_each_step);
	return TEST_RESULT();
}
