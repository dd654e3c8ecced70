/* Who merges when several see that all is done: one, and another one once that one is gone. */
#include "tests/queue/job_rig.h"

#include "queue/job_private.h"
#include "tests/check.h"

static const struct rig rig = {.n_rows = 300, .pad_bytes = 50, .rows_per_shard = 100};

static struct job *open_done(const char *dir)
{
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan(dir, &rig, &err), err);
	j = job_open(dir, &err);
	CHECK_INT(rig_work(j, &rig_worker, &rig, 50, INT64_MAX, &err), rig.n_rows);
	return j;
}

/* job_merge_in_turn's answer, with a watch that begins with this look when *m is NULL. */
static int look(struct job *j, struct merge_watch **m, double takeover_after_s, int *is_alive)
{
	const struct job_worker w = {.takeover_after_s = takeover_after_s};
	struct buf who = {0};
	struct err err = {0};
	int rc;

	if (!*m)
		*m = merge_watch_open(j, &w);
	rc = job_merge_in_turn(j, *m, NULL, is_alive, &who, &err);
	CHECK_OK(rc, err);
	CHECK((rc == 0) == (who.len > 0));
	buf_release(&who);
	return rc;
}

TEST(a_live_one_is_left_to_it)
{
	struct job *j = open_done("live"), *other;
	struct merge_watch *m = NULL;
	struct workplace w;
	struct err err = {0};
	int is_alive;

	other = job_open("live", &err);
	CHECK_OK(workplace_open(&w, other, "merging", &err), err);
	CHECK_INT(look(j, &m, 600, &is_alive), 0);
	CHECK_INT(is_alive, 1);
	CHECK(!file_exists("live/merged"));
	workplace_close(&w);
	CHECK_INT(look(j, &m, 600, &is_alive), 1);
	CHECK(rig_check("live", &rig));
	/* Nothing is done a second time. */
	CHECK_INT(look(other, &m, 600, &is_alive), 1);
	merge_watch_close(m);
	job_close(other);
	job_close(j);
}

TEST(one_elsewhere_is_watched)
{
	struct job *j = open_done("elsewhere"), *other;
	struct merge_watch *m = NULL, *impatient = NULL;
	struct workplace w;
	struct err err = {0};
	int is_alive;

	setenv("TOKENMILL_HOST", "another", 1);
	other = job_open("elsewhere", &err);
	CHECK_OK(workplace_open(&w, other, "merging", &err), err);
	unsetenv("TOKENMILL_HOST");
	CHECK_INT(look(j, &m, 600, &is_alive), 0);
	CHECK_INT(is_alive, 0);
	job_beat(other);
	CHECK_INT(look(j, &m, 600, &is_alive), 0);
	CHECK_INT(is_alive, 1);
	/* Silent for longer than one waits: its work is done again, and its own end changes nothing. */
	CHECK_INT(look(j, &impatient, 0.2, &is_alive), 0);
	CHECK_INT(is_alive, 0);
	usleep(250000);
	CHECK_INT(look(j, &impatient, 0.2, &is_alive), 1);
	workplace_close(&w);
	CHECK(rig_check("elsewhere", &rig));
	CHECK_OK(job_verify(j, &err), err);
	CHECK(!file_exists("elsewhere/merging-beat-0001"));
	merge_watch_close(m);
	merge_watch_close(impatient);
	job_close(other);
	job_close(j);
}

int main(void)
{
	RUN(a_live_one_is_left_to_it);
	RUN(one_elsewhere_is_watched);
	return TEST_RESULT();
}
