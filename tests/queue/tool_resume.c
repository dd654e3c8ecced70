/* How long it takes to go on with one large shard: tool_resume prepare DIR N makes a job of one shard with N rows finished, a
 * segment for each thousand, and a few left; tool_resume measure DIR opens it as `run` does and prints the seconds until the
 * first row to do is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/queue/job_rig.h"

enum { N_LEFT = 100, PUBLISH_EVERY = 1000 };

static int prepare(const char *dir, int64_t n_done, struct err *err)
{
	struct rig r = {.n_rows = n_done + N_LEFT, .pad_bytes = 1000, .rows_per_shard = n_done + N_LEFT};
	struct job *j;
	int64_t n;

	if (rig_plan(dir, &r, err) < 0 || !(j = job_open(dir, err)))
		return -1;
	n = rig_work(j, &rig_worker, &r, PUBLISH_EVERY, n_done, err);
	job_close(j);
	return n == n_done ? 0 : -1;
}

static int measure(const char *dir, struct err *err)
{
	double start = clock_seconds();
	struct job *j = job_open(dir, err);
	struct shard *s = NULL;
	struct shard_row row;
	int rc = -1;

	if (j && job_n_done_rows(j, err) >= 0 && job_claim(j, &rig_worker, &s, err) == 1 && shard_next(s, &row, err) == 1) {
		printf("{\"rows_done\": %lld, \"wall_s\": %.3f, \"cpu_s\": %.3f, \"peak_bytes\": %zu}\n", (long long)shard_n_done(s),
		       clock_seconds() - start, (double)clock() / CLOCKS_PER_SEC, mem_peak_bytes());
		rc = 0;
	}
	shard_close(s);
	job_close(j);
	return rc;
}

int main(int argc, char **argv)
{
	struct err err = {0};
	int rc;

	if (argc == 4 && strcmp(argv[1], "prepare") == 0)
		rc = prepare(argv[2], strtoll(argv[3], NULL, 10), &err);
	else if (argc == 3 && strcmp(argv[1], "measure") == 0)
		rc = measure(argv[2], &err);
	else
		rc = err_set(&err, ERR_USAGE, "usage: tool_resume prepare DIR N | measure DIR");
	if (rc < 0)
		fprintf(stderr, "tool_resume: %s\n", err.msg);
	return rc < 0;
}
