/* workplace.c: temporary directories inside a job, each with an owner that can be asked for. Several may be open at a time. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "queue/job_private.h"

/* A claim that its maker did not live to publish: it says itself whose it was. A torn one stays; it is a few bytes, and never read. */
static void sweep_unborn(struct job *j, const char *name)
{
	char *path = job_path(j, name);
	struct err ignored = {0};
	struct claim maker;

	if (claim_read(&maker, path, &ignored) == 0 && claim_claimant(&maker) == CLAIMANT_GONE)
		unlink(path);
	free(path);
}

/* Remove what dead processes left, and tell the highest number in use. */
static int sweep(struct job *j, const char *kind, const char *claim_kind, int64_t *highest, struct err *err)
{
	char **names;
	size_t n;
	int rc = dir_list(j->dir, &names, &n, err);

	*highest = 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		int64_t number = name_number(names[i], claim_kind);
		struct claim holder;
		char *path, *dir;

		if (number < 0) {
			if (strncmp(names[i], claim_kind, strlen(claim_kind)) == 0 && strstr(names[i], ".tmp-"))
				sweep_unborn(j, names[i]);
			continue;
		}
		if (number > *highest)
			*highest = number;
		path = job_path(j, names[i]);
		dir = path_format("%s/%s-%04" PRId64, j->dir, kind, number);
		/* The holder may have ended, and taken its claim away, since the listing. */
		rc = claim_read(&holder, path, err);
		if (rc < 0 && !file_exists(path)) {
			err_clear(err);
			rc = 0;
		} else if (rc == 0 && claim_claimant(&holder) == CLAIMANT_GONE) {
			rc = tree_remove(dir, err);
			if (rc == 0)
				unlink(path);
		}
		free(path);
		free(dir);
	}
	names_free(names, n);
	return rc;
}

int workplace_open(struct workplace *w, struct job *j, const char *kind, struct err *err)
{
	char *claim_kind = path_format("%s-claim", kind);
	int64_t number;
	/* A planner that died after its job.json left a claim, too. */
	int rc = sweep(j, "planning", "plan-claim", &number, err) < 0 ? -1 : sweep(j, kind, claim_kind, &number, err);

	*w = (struct workplace){0};
	claim_begin(&w->claim, 0, NULL);
	while (rc == 0) {
		number++;
		free(w->claim_path);
		w->claim_path = path_format("%s/%s-%04" PRId64, j->dir, claim_kind, number);
		rc = claim_create(&w->claim, w->claim_path, err);
	}
	free(claim_kind);
	if (rc == 1) {
		w->dir = path_format("%s/%s-%04" PRId64, j->dir, kind, number);
		/* A dead holder's claim may have been removed and its directory not. */
		if (tree_remove(w->dir, err) == 0 && file_make_dirs(w->dir, err) == 0)
			return 0;
		workplace_close(w);
		return -1;
	}
	claim_end(&w->claim);
	free(w->claim_path);
	w->claim_path = NULL;
	return -1;
}

void workplace_close(struct workplace *w)
{
	struct err ignored = {0};

	if (!w->dir)
		return;
	/* The claim last: without it nobody would know whose the directory is. */
	if (tree_remove(w->dir, &ignored) == 0)
		unlink(w->claim_path);
	claim_end(&w->claim);
	free(w->dir);
	free(w->claim_path);
	*w = (struct workplace){0};
}
