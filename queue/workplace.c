/* workplace.c: temporary directories for work on a job, each with an owner that can be asked for. Several may be open at a time. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "queue/plan_private.h"

#define BEAT_S 2.0

static char *beat_name(const char *kind, int64_t number)
{
	return strcmp(kind, "planning") == 0 ? plan_beat_name(number) : path_format("%s-beat-%04" PRId64, kind, number);
}

/* A claim that its maker did not live to publish: it says itself whose it was. A torn one stays; it is a few bytes, and never read. */
static void sweep_unborn(struct store *s, const char *name)
{
	struct err ignored = {0};
	struct claim maker;

	if (claim_read(&maker, s, name, &ignored) == 1 && claim_claimant(&maker) == CLAIMANT_GONE)
		store_remove(s, name, &ignored);
}

/* Remove what dead processes left, and tell the highest number in use. */
static int sweep(struct store *s, const char *kind, const char *claim_kind, int64_t *highest, struct err *err)
{
	char **names;
	size_t n;
	int rc = store_list(s, "", &names, &n, err);

	*highest = 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		int64_t number = name_number(names[i], claim_kind);
		struct claim holder;
		char *dir;

		if (number < 0) {
			if (strncmp(names[i], claim_kind, strlen(claim_kind)) == 0 && strstr(names[i], ".tmp-"))
				sweep_unborn(s, names[i]);
			continue;
		}
		if (number > *highest)
			*highest = number;
		dir = path_format("%s-%04" PRId64, kind, number);
		/* The holder may have ended, and taken its claim away, since the listing. */
		rc = claim_read(&holder, s, names[i], err);
		if (rc == 1 && claim_claimant(&holder) == CLAIMANT_GONE) {
			char *beat = beat_name(kind, number);

			rc = store_remove_tree(s, dir, err);
			if (rc == 0)
				rc = store_remove(s, beat, err);
			free(beat);
			if (rc == 0)
				rc = store_remove(s, names[i], err);
		}
		rc = rc < 0 ? -1 : 0;
		free(dir);
	}
	store_names_free(names, n);
	return rc;
}

/* Where the job is no directory, work is done in the system's place for temporary files. */
static char *local_dir(struct store *s, const char *kind, int64_t number, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	char *dir;

	if (store_dir(s)) {
		dir = path_format("%s/%s-%04" PRId64, store_dir(s), kind, number);
		/* A dead holder's claim may have been removed and its directory not. */
		if (tree_remove(dir, err) == 0 && file_make_dirs(dir, err) == 0)
			return dir;
	} else {
		dir = path_format("%s/tokenmill-%s-XXXXXX", tmp && *tmp ? tmp : "/tmp", kind);
		if (mkdtemp(dir))
			return dir;
		err_sys(err, ERR_STORAGE, "%s", dir);
	}
	free(dir);
	return NULL;
}

int workplace_open(struct workplace *w, struct job *j, const char *kind, struct err *err)
{
	char *claim_kind = path_format("%s-claim", kind);
	int64_t number;
	/* A planner that died after its job.json left a claim, too, and what planners before it had left. */
	int rc = sweep(j->store, "planning", "plan-claim", &number, err) < 0 || plan_sweep(j->store, j->generation, err) < 0
	             ? -1
	             : sweep(j->store, kind, claim_kind, &number, err);

	*w = (struct workplace){.job = j};
	claim_begin(&w->claim, 0, NULL);
	while (rc == 0) {
		number++;
		free(w->claim_name);
		w->claim_name = path_format("%s-%04" PRId64, claim_kind, number);
		rc = claim_create(&w->claim, j->store, w->claim_name, err);
	}
	free(claim_kind);
	if (rc == 1) {
		w->number = number;
		w->beat_name = beat_name(kind, number);
		w->dir = local_dir(j->store, kind, number, err);
		if (w->dir) {
			j->at_work = w;
			return 0;
		}
		store_remove(j->store, w->claim_name, err);
	}
	claim_end(&w->claim);
	free(w->claim_name);
	free(w->beat_name);
	*w = (struct workplace){0};
	return -1;
}

void job_beat(struct job *j)
{
	struct workplace *w = j->at_work;
	struct err ignored = {0};
	char text[32];

	if (!w || clock_seconds() < w->next_beat_s)
		return;
	snprintf(text, sizeof(text), "%" PRId64 "\n", ++w->beat);
	/* Without it others may do the same work, which is no harm. */
	store_put(j->store, w->beat_name, text, strlen(text), &ignored);
	w->next_beat_s = clock_seconds() + BEAT_S;
}

void workplace_close(struct workplace *w)
{
	struct err ignored = {0};

	if (!w->dir)
		return;
	w->job->at_work = NULL;
	/* The claim last: without it nobody would know whose the directory is. */
	if (tree_remove(w->dir, &ignored) == 0 && (w->beat == 0 || store_remove(w->job->store, w->beat_name, &ignored) == 0))
		store_remove(w->job->store, w->claim_name, &ignored);
	claim_end(&w->claim);
	free(w->dir);
	free(w->claim_name);
	free(w->beat_name);
	*w = (struct workplace){0};
}
