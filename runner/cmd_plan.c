/* cmd_plan.c: what a dataset would take, before it runs; with --job the plan stays and `run --job` goes on from it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/workers.h"
#include "jobs/speed.h"
#include "queue/job.h"
#include "queue/layout.h"
#include "runner/commands.h"
#include "runner/plan_report.h"
#include "runner/prepare.h"
#include "runner/signals.h"

struct plan_command_options {
	struct prepare_options prepare;
	const char *job, *prices, *node_type;
	int format, quiet;
	size_t memory;
	int64_t threads, max_batch, chunk;
};

#define PLAN_FIELD(name) offsetof(struct plan_command_options, name)
static const struct option_spec plan_options[] = {
    PREPARE_OPTIONS(struct plan_command_options, prepare),
    {"job", 0, OPTION_STRING, PLAN_FIELD(job), "JOB", "leave the plan there, a directory or s3://bucket/prefix, ready to run", 0, 0,
     NULL},
    {"output", 'o', OPTION_STRING, PLAN_FIELD(job), "JOB", "the same as --job", 0, 0, NULL},
    {"memory", 0, OPTION_SIZE, PLAN_FIELD(memory), "SIZE", "as it will be given to run: decides the context that fits", 0, 0, NULL},
    {"threads", 0, OPTION_INT, PLAN_FIELD(threads), "N", "as it will be given to run (default: all processors)", 1, 4096, NULL},
    {"max-batch", 0, OPTION_INT, PLAN_FIELD(max_batch), "N", "as it will be given to run", 1, 4096, NULL},
    {"chunk", 0, OPTION_INT, PLAN_FIELD(chunk), "N", "as it will be given to run", 1, 65536, NULL},
    {"prices", 0, OPTION_STRING, PLAN_FIELD(prices), "SHEET", "price sheet: YAML or JSON", 0, 0, NULL},
    {"node-type", 0, OPTION_STRING, PLAN_FIELD(node_type), "TYPE", "what the sheet calls this machine: a price for the hours", 0, 0, NULL},
    {"format", 0, OPTION_CHOICE, PLAN_FIELD(format), "text|json", "how the answer is written (default text)", 0, 0, "text|json"},
    {"quiet", 'q', OPTION_FLAG, PLAN_FIELD(quiet), NULL, "say nothing but errors and the answer", 0, 0, NULL},
    {0},
};

static void init_options(void *options)
{
	prepare_options_init(&((struct plan_command_options *)options)->prepare);
}

/* A directory that is removed again. malloc'd, NULL. */
static char *temporary_dir(struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = path_format("%s/tokenmill-plan-XXXXXX", tmp && *tmp ? tmp : "/tmp");

	if (mkdtemp(dir))
		return dir;
	err_sys(err, ERR_STORAGE, "%s", dir);
	free(dir);
	return NULL;
}

static int plan_into(const struct plan_command_options *o, struct prepared *p, const char *place, const struct input_list *files, struct err *err)
{
	int n_threads = o->threads ? (int)o->threads : workers_available_cpus();
	struct plan_report report = {.place = o->job, .prepared = p};
	struct buf out = {0};
	struct speed speed;
	int rc = -1;

	if (prepared_plan(p, place, files, n_threads, &report.faults, &report.totals, err) < 0)
		goto out;
	report.job = job_open(place, err);
	if (!report.job)
		goto out;
	if (prepared_speed(p, n_threads, &speed))
		report.speed = &speed;
	if (plan_report_compute(&report, o->prices, o->node_type, err) < 0)
		goto out;
	if (o->format == 2)
		plan_report_json(&report, &out);
	else
		plan_report_text(&report, &out);
	fputs(out.data, stdout);
	rc = fflush(stdout) == 0 ? 0 : err_sys(err, ERR_OTHER, "standard output");
out:
	job_close(report.job);
	plan_report_release(&report);
	buf_release(&out);
	return rc;
}

static int plan_all(const struct plan_command_options *o, struct prepared *p, const struct input_list *files, struct err *err)
{
	struct engine_options eo = {.math = o->prepare.math,
	                            .kv_type = o->prepare.kv_type,
	                            .memory_bytes = o->memory,
	                            .n_threads = (int)o->threads,
	                            .max_batch = (int32_t)o->max_batch,
	                            .chunk_tokens = (int32_t)o->chunk};
	struct err ignored = {0};
	char *dir;
	int rc;

	if (prepared_read(p, err) < 0 || prepared_set_context(p, &eo, err) < 0 || prepared_finish(p, err) < 0)
		return -1;
	if (o->job)
		return plan_into(o, p, o->job, files, err);
	dir = temporary_dir(err);
	if (!dir)
		return -1;
	rc = plan_into(o, p, dir, files, err);
	tree_remove(dir, &ignored);
	free(dir);
	return rc;
}

static int run_plan(const void *options, char **args, int n_args, struct err *err)
{
	struct plan_command_options o = *(const struct plan_command_options *)options;
	struct input_list files = {.output = o.job};
	struct prepared p = {.o = &o.prepare};
	int rc = 0;

	if (engine_choice_read(&p.choice, o.prepare.engine, err) < 0 || prepare_options_check(&o.prepare, err) < 0)
		return -1;
	if ((!o.prepare.model && p.choice.kind != ENGINE_FAKE) || (o.prepare.model && !*o.prepare.model))
		return err_set(err, ERR_USAGE, "--model MODEL is missing");
	if (o.job && !*o.job)
		return err_set(err, ERR_USAGE, "--job is empty");
	if (!n_args)
		return err_set(err, ERR_USAGE, "name the input files");
	if (o.quiet)
		log_set_level(LOG_QUIET);
	signals_install();
	for (int i = 0; i < n_args && rc == 0; i++)
		rc = input_list_add(&files, args[i], err);
	if (o.prepare.model)
		p.setup.model_path = xstrdup(o.prepare.model);
	if (rc == 0)
		rc = plan_all(&o, &p, &files, err);
	prepared_release(&p);
	input_list_release(&files);
	return rc;
}

const struct command command_plan = {
    "plan",
    "--model MODEL [--job JOB] [options] IN...",
    "Check a dataset and say what it will take: rows, tokens, shards, hours, price.",
    "IN is as for `run`, and so are the options that belong to the job; nothing is left behind unless --job is given. Then\n"
    "`tokenmill run --job JOB` runs it, on as many machines as one likes.\n"
    "Hours are from `tokenmill bench` or from what earlier runs here took, for machines like this one.",
    plan_options,
    sizeof(struct plan_command_options),
    init_options,
    run_plan,
};
