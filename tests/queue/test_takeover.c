/* Who may take a shard from whom: the rule as a table, the observer, and both in a job whose claims seem to come from other hosts. */
#include "tests/check.h"

#include <time.h>

#include "queue/attempt.h"
#include "queue/observer.h"
#include "queue/rank.h"
#include "tests/queue/job_rig.h"

TEST(rank)
{
	static const struct {
		const char *what;
		struct shard_seen seen;
		enum shard_rank rank;
	} table[] = {
		{"nobody's", {0}, RANK_FREE},
		{"a live process's here", {.is_claimed = 1, .claimant = CLAIMANT_ALIVE}, RANK_NOT},
		{"a live twin's", {.is_claimed = 1, .claimant = CLAIMANT_ALIVE, .same_index = 1}, RANK_NOT},
		{"a dead process's here", {.is_claimed = 1, .claimant = CLAIMANT_GONE}, RANK_ORPHAN},
		{"my index's, dead", {.is_claimed = 1, .claimant = CLAIMANT_GONE, .same_index = 1}, RANK_OWN},
		{"given back", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .is_released = 1}, RANK_ORPHAN},
		{"given back by a process that is still there", {.is_claimed = 1, .claimant = CLAIMANT_ALIVE, .is_released = 1}, RANK_ORPHAN},
		{"my index's elsewhere", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .same_index = 1}, RANK_OWN},
		{"index 0 by default, elsewhere", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .same_index = 1, .index_is_default = 1}, RANK_WATCH},
		{"the same before this machine restarted",
		 {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .same_index = 1, .index_is_default = 1, .same_host_name = 1},
		 RANK_OWN},
		{"somebody's elsewhere, first look", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN}, RANK_WATCH},
		{"silent, not for long enough", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .still_s = 9.9}, RANK_WATCH},
		{"silent for long enough", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .still_s = 10}, RANK_ORPHAN},
		{"seen alive", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .has_moved = 1, .still_s = 5}, RANK_NOT},
		{"seen alive, silent since", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .has_moved = 1, .still_s = 11}, RANK_ORPHAN},
		{"a process here that hangs", {.is_claimed = 1, .claimant = CLAIMANT_ALIVE, .still_s = 11}, RANK_ORPHAN},
		{"this very process's", {.is_claimed = 1, .claimant = CLAIMANT_ALIVE, .is_mine = 1, .still_s = 11}, RANK_NOT},
		{"told its end", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .has_ended = 1}, RANK_ORPHAN},
		{"another Job's", {.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .other_job = 1}, RANK_ORPHAN},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (shard_rank(&table[i].seen, 10) != table[i].rank)
			CHECK_STR(table[i].what, "of another rank");
	/* Without a time, silence says nothing, for ever. */
	CHECK_INT(shard_rank(&(struct shard_seen){.is_claimed = 1, .claimant = CLAIMANT_UNKNOWN, .still_s = 1e9}, 0), RANK_NOT);
}

TEST(observing)
{
	struct observer o = {0};
	struct signs s = observer_note(&o, "a", 5, 100);

	CHECK_INT(s.has_moved, 0);
	CHECK(s.still_s == 0);
	observer_note(&o, "b", 1, 101);
	s = observer_note(&o, "a", 5, 110);
	CHECK_INT(s.has_moved, 0);
	CHECK(s.still_s == 10);
	s = observer_note(&o, "a", 6, 112);
	CHECK_INT(s.has_moved, 1);
	CHECK(s.still_s == 0);
	s = observer_note(&o, "a", 6, 113); /* moved once: it was alive when we looked */
	CHECK_INT(s.has_moved, 1);
	CHECK(s.still_s == 1);
	s = observer_note(&o, "b", 1, 113);
	CHECK_INT(s.has_moved, 0);
	CHECK(s.still_s == 12);
	observer_release(&o);
}

static void write_claim(const char *path, int worker, const char *attempt, const char *job_uid)
{
	struct err err = {0};
	struct buf b = {0};

	buf_addf(&b, "{\"worker\":%d,\"attempt\":\"%s\",\"job_uid\":\"%s\",\"host\":\"elsewhere\",\"boot\":\"b\",\"pid_namespace\":\"n\","
	             "\"pid\":1,\"process_start\":1,\"handle\":\"00\",\"time_ms\":1}\n", worker, attempt, job_uid);
	CHECK_INT(file_write_atomic(path, b.data, b.len, &err), 0);
	buf_release(&b);
}

static void beat(struct job *j, const char *attempt, int64_t number, enum attempt_state state)
{
	struct attempt a = {.worker = 7, .beat = number, .state = state, .end_code = "none"};
	struct err err = {0};

	snprintf(a.id, sizeof(a.id), "%s", attempt);
	CHECK_OK(attempt_write(job_store(j), &a, &err), err);
}

static void wait_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* The number of the shard that is given next, which is closed again at once; -1: none. */
static int64_t claim_one(struct job *j, const struct job_worker *w, int *epoch)
{
	struct err err = {0};
	struct shard *s;
	int64_t number = -1;

	CHECK(job_claim(j, w, &s, &err) >= 0);
	if (s) {
		number = shard_number(s);
		*epoch = shard_epoch(s);
		CHECK_OK(shard_release(s, &err), err);
		shard_close(s);
	}
	return number;
}

TEST(silence)
{
	struct rig r = {.n_rows = 10, .pad_bytes = 20, .rows_per_shard = 10};
	struct job_worker w = {.index = 1, .attempt = "mine", .takeover_after_s = 0.4};
	struct err err = {0};
	struct buf who = {0};
	struct job *j;
	int epoch = 0;

	CHECK_OK(rig_plan("silence", &r, &err), err);
	j = job_open("silence", &err);
	write_claim("silence/shards/00000/claim-0001", 7, "theirs", "");
	/* No heartbeat file at all counts as one that stands still. */
	CHECK_INT(claim_one(j, &w, &epoch), -1);
	CHECK_INT(job_n_watched(j, &who, NULL), 1);
	CHECK_HAS(buf_str(&who), "process 1 on elsewhere (worker 7)");
	wait_ms(200);
	CHECK_INT(claim_one(j, &w, &epoch), -1);
	/* The first beat: it lives, and there is nothing to wait for. */
	beat(j, "theirs", 1, ATTEMPT_RUNNING);
	CHECK_INT(claim_one(j, &w, &epoch), -1);
	CHECK_INT(job_n_watched(j, NULL, NULL), 0);
	wait_ms(250);
	CHECK_INT(claim_one(j, &w, &epoch), -1);
	wait_ms(200);
	CHECK_INT(claim_one(j, &w, &epoch), 0);
	CHECK_INT(epoch, 2);
	CHECK_INT(rig_work(j, &w, &r, 3, INT64_MAX, &err), 10);
	CHECK_OK(job_merge(j, NULL, &err), err);
	job_close(j);
	CHECK(rig_check("silence", &r));
	rig_remove("silence");
	buf_release(&who);
}

TEST(sure_signs)
{
	struct rig r = {.n_rows = 40, .pad_bytes = 20, .rows_per_shard = 10};
	struct job_worker w = {.index = 1, .attempt = "mine", .takeover_after_s = 1e6};
	struct err err = {0};
	struct job *j;
	int epoch = 0;

	setenv("TOKENMILL_JOB_UID", "second", 1);
	CHECK_OK(rig_plan("sure", &r, &err), err);
	j = job_open("sure", &err);
	for (int i = 0; i < 4; i++) {
		char path[64];

		snprintf(path, sizeof(path), "sure/shards/%05d/claim-0001", i);
		write_claim(path, 7, i == 1 ? "ended" : "theirs", i == 3 ? "first" : "second");
	}
	CHECK_INT(claim_one(j, &w, &epoch), 3); /* of an earlier Job */
	CHECK_INT(claim_one(j, &w, &epoch), 3); /* given back by ourselves */
	CHECK_INT(epoch, 3);
	CHECK_OK(store_put(job_store(j), "shards/00003/done", "x", 1, &err), err);
	CHECK_INT(claim_one(j, &w, &epoch), -1);
	CHECK_INT(job_n_watched(j, NULL, NULL), 3);
	CHECK_OK(store_put(job_store(j), "shards/00002/release-0001", "{}\n", 3, &err), err);
	CHECK_INT(claim_one(j, &w, &epoch), 2);
	CHECK_INT(epoch, 2);
	CHECK_OK(store_put(job_store(j), "shards/00002/done", "x", 1, &err), err);
	beat(j, "ended", 4, ATTEMPT_ENDED);
	CHECK_INT(claim_one(j, &w, &epoch), 1);
	CHECK_INT(epoch, 2);
	CHECK_OK(store_put(job_store(j), "shards/00001/done", "x", 1, &err), err);
	CHECK_INT(claim_one(j, &w, &epoch), -1);
	CHECK_INT(job_n_watched(j, NULL, NULL), 1);
	job_close(j);
	unsetenv("TOKENMILL_JOB_UID");
}

int main(void)
{
	RUN(rank);
	RUN(observing);
	RUN(silence);
	RUN(sure_signs);
	return TEST_RESULT();
}
