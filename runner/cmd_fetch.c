/* cmd_fetch.c: the results of a job on a cluster, here: from S3, or from where the jobs volume is mounted on this machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/launch.h"
#include "queue/layout.h"
#include "queue/store.h"
#include "runner/cluster.h"
#include "runner/commands.h"

struct fetch_options {
	struct cluster_options cluster;
	const char *output, *jobs_dir;
};
#define FETCH_FIELD(name) offsetof(struct fetch_options, name)
static const struct option_spec fetch_options[] = {
    {"output", 'o', OPTION_STRING, FETCH_FIELD(output), "DIR", "where results.jsonl, errors.jsonl and usage.json shall be", 0,
     0, NULL},
    {"jobs-dir", 0, OPTION_STRING, FETCH_FIELD(jobs_dir), "DIR",
     "where the jobs volume (/jobs in the pods) is mounted on this machine", 0, 0, NULL},
    CLUSTER_OPTIONS(struct fetch_options, cluster),
    {0},
};

/* The place as it is seen from here; malloc'd. */
static char *place_here(const struct fetch_options *o, const char *place, struct err *err)
{
	size_t n = strlen(LAUNCH_JOBS_DIR);
	char *here;

	if (store_is_url(place))
		return xstrdup(place);
	if (!o->jobs_dir) {
		if (file_is_dir(place))
			return xstrdup(place);
		err_set(err, ERR_USAGE,
		        "the results are in %s on the jobs volume: say with --jobs-dir where it is mounted here, or copy them with a "
		        "pod that mounts it",
		        place);
		return NULL;
	}
	if (strncmp(place, LAUNCH_JOBS_DIR "/", n + 1) != 0) {
		err_set(err, ERR_USAGE, "the job's place is %s, which is not on the jobs volume", place);
		return NULL;
	}
	here = file_join(o->jobs_dir, place + n + 1);
	if (file_is_dir(here))
		return here;
	err_set(err, ERR_OTHER, "%s is not there: is --jobs-dir the root of the jobs volume?", here);
	free(here);
	return NULL;
}

/* 1, 0: it is not there, -1. The object is read and written in pieces, and appears whole. */
static int copy_one(struct store *s, const char *name, const char *dir, const char *as, struct err *err)
{
	struct store_file f = {0};
	char *target = file_join(dir, as), *temporary = path_format("%s.part", target), bytes[1 << 16];
	FILE *in = NULL, *out = NULL;
	size_t n;
	int rc = store_fetch(s, name, &f, err);

	if (rc == 1) {
		in = fopen(f.path, "rb");
		out = in ? fopen(temporary, "wb") : NULL;
		if (!out)
			rc = err_sys(err, ERR_OTHER, "%s", in ? temporary : f.path);
		while (rc == 1 && (n = fread(bytes, 1, sizeof(bytes), in)) > 0)
			if (fwrite(bytes, 1, n, out) != n)
				rc = err_sys(err, ERR_OTHER, "%s", temporary);
		if (rc == 1 && ferror(in))
			rc = err_sys(err, ERR_OTHER, "%s", f.path);
		if (out && fclose(out) != 0 && rc == 1)
			rc = err_sys(err, ERR_OTHER, "%s", temporary);
		if (in)
			fclose(in);
		if (rc == 1 && rename(temporary, target) < 0)
			rc = err_sys(err, ERR_OTHER, "%s", target);
		if (rc < 0 && out)
			remove(temporary);
	}
	store_file_release(&f);
	free(temporary);
	free(target);
	return rc;
}

static int fetch(const char *place, const char *dir, struct err *err)
{
	static const char *const names[] = {"results.jsonl", "errors.jsonl", "usage.json", "manifest.json"};
	struct store *s = store_open(place, err);
	int rc = s && file_make_dirs(dir, err) == 0 ? 1 : -1;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && rc == 1; i++) {
		char *name = path_format("merged/%s", names[i]);

		rc = copy_one(s, name, dir, names[i], err);
		if (rc == 0)
			rc = err_set(err, ERR_OTHER, "%s has no results yet: %s is not there", place, name);
		free(name);
	}
	store_close(s);
	return rc < 0 ? -1 : 0;
}

static int run_fetch(const void *options, char **args, int n_args, struct err *err)
{
	const struct fetch_options *o = options;
	struct cluster_job j;
	yyjson_doc *doc = NULL;
	char *place = NULL, *here = NULL;
	struct kube *k;
	int rc;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give the name of one job");
	if (!o->output || !*o->output)
		return err_set(err, ERR_USAGE, "-o DIR is missing");
	k = cluster_open(&o->cluster, err);
	if (!k)
		return -1;
	rc = cluster_job_get(k, args[0], &j, &doc, err);
	if (rc == 0)
		place = launch_submitted(j.annotation, "place");
	if (place)
		here = place_here(o, place, err);
	else if (rc == 0)
		err_set(err, ERR_OTHER, "job '%s' does not say where its data is: it was not made by tokenmill submit", args[0]);
	rc = here ? 0 : -1;
	if (rc == 0)
		rc = fetch(here, o->output, err);
	if (rc == 0)
		log_info("results of %s: %s/results.jsonl, errors.jsonl, usage.json%s", args[0], o->output,
		         j.state == CLUSTER_COMPLETE ? "" : " (the Job has not ended well: they may be those of a part)");
	free(place);
	free(here);
	yyjson_doc_free(doc);
	kube_close(k);
	return rc;
}

const struct command command_fetch = {
    "fetch",
    "[options] JOB -o DIR",
    "Copy a job's results here.",
    "From S3 where the job lives there; of a job on a volume, from where that is mounted on this machine (--jobs-dir).",
    fetch_options,
    sizeof(struct fetch_options),
    NULL,
    run_fetch,
};
