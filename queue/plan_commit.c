/* plan_commit.c: rows are cut into shards (plan_shards.c), and the plan is published. What is seen from outside:
 *
 *     planning-0001/  --rename, or upload of its files-->  plan-0001-ID/     nobody else knows this name
 *     job.json, later job-0002.json, ...                   created exclusively: from now on this plan counts
 *     plan.db, shards                                      in a directory: links to the newest plan's, for people
 *
 * Everything is durable before the first step. A planner that dies between the steps leaves no job.json, and a directory that is removed once
 * another plan was committed; until then a planner that was only stopped may still commit it. No planner ever touches what another one
 * would commit, so it does not matter when one wakes up that was taken for dead: either its job.json is the first, or the name is taken. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/lines.h"
#include "queue/plan_private.h"
#include "queue/schema.h"

static int finish_database(struct job_plan *p, const char *plan_id, struct err *err)
{
	char sql[128];

	snprintf(sql, sizeof(sql), "INSERT INTO meta VALUES('%s'); COMMIT", plan_id);
	return database_exec(&p->db, sql, err);
}

/* All files, then all directories, from below. Write-back of the shards began when they were closed. */
static int sync_all(struct job_plan *p, int64_t n_shards, struct err *err)
{
	char *path = path_format("%s/plan.db", p->work_dir);
	int rc = file_sync(path, err);

	free(path);
	for (int64_t shard = 0; shard < n_shards && rc == 0; shard++) {
		char *dir = path_format("%s/shards/%05" PRId64, p->work_dir, shard);

		path = path_format("%s/input.jsonl.zst", dir);
		rc = plan_beat(p, err);
		if (rc == 0)
			rc = file_sync(path, err);
		if (rc == 0)
			rc = file_sync_dir(dir, err);
		free(path);
		free(dir);
	}
	path = path_format("%s/shards", p->work_dir);
	if (rc == 0)
		rc = file_sync_dir(path, err);
	free(path);
	return rc;
}

/* The plan's directory as a whole. */
static int publish_dir(struct job_plan *p, const char *base, struct err *err)
{
	char *to = path_format("%s/%.*s", store_dir(p->store), (int)strlen(base) - 1, base);
	int rc = file_sync_dir(p->work_dir, err);

	if (rc == 0 && rename(p->work_dir, to) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", to);
	if (rc == 0)
		rc = file_sync_dir(store_dir(p->store), err);
	free(to);
	return rc;
}

/* Upload all files below a local directory, under a prefix of this plan's own, so that two planners never write the same object. */
static int publish_objects(struct job_plan *p, const char *dir, const char *prefix, struct err *err)
{
	char **names;
	size_t n;
	int rc = dir_list(dir, &names, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++) {
		char *from = path_format("%s/%s", dir, names[i]), *to = path_format("%s%s", prefix, names[i]);

		if (file_is_dir(from)) {
			char *below = path_format("%s/", to);

			rc = publish_objects(p, from, below, err);
			free(below);
		} else {
			rc = plan_beat(p, err);
			if (rc == 0)
				rc = store_put_file(p->store, to, from, err);
		}
		free(from);
		free(to);
	}
	names_free(names, n);
	return rc;
}

char *plan_base(int generation, const char *plan_id)
{
	return path_format("plan-%04d-%.12s/", generation, plan_id);
}

/* For people, who look for them there. */
static void link_newest(const char *dir, const char *base)
{
	static const char *const names[] = {"plan.db", "shards"};
	struct err ignored = {0};

	for (size_t i = 0; i < 2; i++) {
		char *path = path_format("%s/%s", dir, names[i]), *target = path_format("%s%s", base, names[i]);

		link_make(path, target, &ignored);
		free(path);
		free(target);
	}
}

static int publish(struct job_plan *p, const char *plan_id, const struct plan_shards *shards, const char *spec_json, struct err *err)
{
	const char *dir = store_dir(p->store);
	char *base = plan_base(p->generation, plan_id), *name = job_commit_name(p->generation);
	struct buf b = {0}, parent = {0};
	struct err ignored = {0};
	int rc = store_exists(p->store, p->next_claim_name, err);

	buf_addf(&b, "{\"format\":%d,\"plan_id\":\"%s\",\"base\":\"%s\",\"rows\":%" PRId64 ",\"bad_rows\":%" PRId64 ",\"folded_rows\":%" PRId64,
	         JOB_FORMAT, plan_id, base, p->n_rows, p->n_bad_rows, p->n_folded_rows);
	plan_shards_write(p, shards, &b);
	buf_adds(&b, ",\"spec\":");
	buf_adds(&b, spec_json);
	buf_adds(&b, "}\n");
	if (rc == 1)
		rc = err_set(err, ERR_FENCED, "%s: another process took over the planning", store_place(p->store));
	if (rc == 0)
		rc = dir ? publish_dir(p, base, err) : publish_objects(p, p->work_dir, base, err);
	/* Who was stopped meanwhile must not commit files that the successor has put in their places. */
	if (rc == 0 && (rc = store_exists(p->store, p->next_claim_name, err)) == 1)
		rc = err_set(err, ERR_FENCED, "%s: another process took over the planning", store_place(p->store));
	if (rc == 0) {
		rc = store_create(p->store, name, b.data, b.len, err);
		if (rc == 0) {
			err_set(err, ERR_FENCED, "%s: another process planned it", store_place(p->store));
			/* Nobody but us has heard of this place. */
			base[strlen(base) - 1] = '\0';
			store_remove_tree(p->store, base, &ignored);
		}
		rc = rc == 1 ? 0 : -1;
	}
	/* The directory's own name, where we may; the job is whole without it. */
	if (dir) {
		buf_addf(&parent, "%s/..", dir);
		file_sync_dir(parent.data, &ignored);
	}
	/* It counts from here on: not being able to clear up is no failure. */
	if (rc == 0 && dir)
		link_newest(dir, base);
	if (rc == 0)
		plan_sweep(p->store, p->generation, &ignored);
	buf_release(&b);
	buf_release(&parent);
	free(base);
	free(name);
	return rc;
}

static void make_plan_id(char out[33])
{
	unsigned char id[16];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		BUG("getrandom(2) failed");
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", id[i]);
}

int job_plan_commit(struct job_plan *p, const char *spec_json, int64_t rows_per_shard, struct err *err)
{
	yyjson_doc *spec = json_parse(spec_json, strlen(spec_json), ERR_OTHER, err);
	struct plan_shards shards = {0};
	char plan_id[33];
	int rc = -1;

	if (!spec || !yyjson_is_obj(yyjson_doc_get_root(spec))) {
		err_set(err, ERR_OTHER, "the job's spec is %s, expected an object", json_type_name(yyjson_doc_get_root(spec)));
		goto out;
	}
	make_plan_id(plan_id);
	if (plan_shards_cut(p, rows_per_shard, &shards, err) < 0 || finish_database(p, plan_id, err) < 0)
		goto out;
	if (p->from) {
		/* Its spill file is not part of what is published. */
		sorter_free(p->rows);
		p->rows = NULL;
		rc = plan_carry(p, err);
		if (rc != 0)
			goto out;
		rc = -1;
	}
	plan_close(p);
	if (sync_all(p, shards.n, err) < 0 || publish(p, plan_id, &shards, spec_json, err) < 0)
		goto out;
	rc = 0;
out:
	yyjson_doc_free(spec);
	plan_shards_release(&shards);
	/* What a row lacks to be kept is no failure of planning. */
	if (rc < 0 && err && err->code != ERR_FINGERPRINT)
		err_context(err, "planning failed");
	job_plan_abort(p); /* removes the working directory and the claim */
	return rc;
}
