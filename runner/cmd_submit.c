/* cmd_submit.c: from the command line to a Job on a cluster, or to the same as processes here.
 *
 *     options -> struct launch_spec -> launch_make -> --dry-run: print      the same name is there: launch_compare
 *                                                  -> kube_create ------->  --wait: job_watch_wait
 *                                                  -> --local: submit_local_run
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/workers.h"
#include "jobs/launch.h"
#include "jobs/yaml_json.h"
#include "queue/job.h"
#include "runner/cluster.h"
#include "runner/commands.h"
#include "runner/job_watch.h"
#include "runner/submit_local.h"

struct submit_options {
	struct cluster_options cluster;
	const char *model, *name, *job, *image, *image_pull_policy, *cpu, *memory, *shm, *gpu_resource, *jobs_claim, *models_claim,
	    *queue, *priority_class, *node_type, *pod_template, *engine_memory;
	int64_t workers, n_gpus, min_workers, retries, max_failed, grace_s, ttl_s, metrics_port;
	int local, on_volume, dry_run, wait, suspend;
	struct option_list run, node_selectors, labels, annotations, env, tags, tolerations, volumes, secrets, pull_secrets, sets;
};

#define SUBMIT_FIELD(name) offsetof(struct submit_options, name)
#define TEXT(option, field, value, help)                                                                                       \
	{                                                                                                                          \
		option, 0, OPTION_STRING, SUBMIT_FIELD(field), value, help, 0, 0, NULL                                                 \
	}
#define MANY(option, field, value, help)                                                                                       \
	{                                                                                                                          \
		option, 0, OPTION_LIST, SUBMIT_FIELD(field), value, help, 0, 0, NULL                                                   \
	}
#define NUMBER(option, field, min, max, help)                                                                                  \
	{                                                                                                                          \
		option, 0, OPTION_INT, SUBMIT_FIELD(field), "N", help, min, max, NULL                                                  \
	}
#define PASS(option, value, help)                                                                                              \
	{                                                                                                                          \
		option, 0, OPTION_PASS, SUBMIT_FIELD(run), value, help, 0, 0, NULL                                                     \
	}
static const struct option_spec submit_options[] = {
    {"model", 'm', OPTION_STRING, SUBMIT_FIELD(model), "PATH", "the model as the pods see it; a relative path is below /models",
     0, 0, NULL},
    {"workers", 'w', OPTION_INT, SUBMIT_FIELD(workers), "N", "how many pods (or processes) share the work (default 1)", 1,
     LAUNCH_MAX_WORKERS, NULL},
    TEXT("name", name, "NAME", "of the job (default: made from model and content)"),
    TEXT("job", job, "PLACE", "where the job lives: a path on the jobs volume, or s3://bucket/prefix (default /jobs/NAME)"),
    {"on-volume", 0, OPTION_FLAG, SUBMIT_FIELD(on_volume), NULL,
     "IN are paths on the jobs volume; relative ones are below /jobs", 0, 0, NULL},
    {"local", 0, OPTION_FLAG, SUBMIT_FIELD(local), NULL, "run the workers as processes on this machine, without a cluster", 0,
     0, NULL},
    {"dry-run", 0, OPTION_CHOICE, SUBMIT_FIELD(dry_run), "client|server",
     "print the manifest; server: have the cluster check it first", 0, 0, "client|server"},
    {"wait", 0, OPTION_FLAG, SUBMIT_FIELD(wait), NULL, "until the job has ended; its failure is ours", 0, 0, NULL},
    CLUSTER_OPTIONS(struct submit_options, cluster),
    TEXT("image", image, "IMAGE", "the workers' image (default tokenmill)"),
    TEXT("image-pull-policy", image_pull_policy, "POLICY", "Always, IfNotPresent or Never"),
    MANY("image-pull-secret", pull_secrets, "NAME", "secret for a registry that asks who you are"),
    TEXT("cpu", cpu, "CPUS", "processors requested for each worker, such as 4 or 500m"),
    TEXT("memory", memory, "SIZE", "memory of each worker, such as 16Gi: request and limit"),
    TEXT("shm", shm, "SIZE", "most that /dev/shm may take of it (default 1Gi)"),
    NUMBER("gpu", n_gpus, 0, 1024, "GPUs of each worker"),
    TEXT("gpu-resource", gpu_resource, "NAME", "what the cluster calls them (default nvidia.com/gpu)"),
    MANY("node-selector", node_selectors, "NAME=VALUE", "only nodes with this label"),
    MANY("toleration", tolerations, "KEY[=VALUE][:EFFECT]", "also nodes with this taint"),
    TEXT("priority-class", priority_class, "NAME", "priority class of the pods"),
    TEXT("jobs-claim", jobs_claim, "CLAIM", "PersistentVolumeClaim of /jobs (default tokenmill-jobs)"),
    TEXT("models-claim", models_claim, "CLAIM", "PersistentVolumeClaim of /models (default tokenmill-models)"),
    MANY("volume", volumes, "CLAIM:/path[:ro]", "a further PersistentVolumeClaim"),
    MANY("env", env, "NAME=VALUE", "environment of the workers"),
    MANY("secret", secrets, "NAME", "secret whose members become environment variables (AWS_ACCESS_KEY_ID, ...)"),
    MANY("label", labels, "NAME=VALUE", "of the job and its pods"),
    MANY("annotation", annotations, "NAME=VALUE", "of the job and its pods"),
    MANY("tag", tags, "NAME=VALUE", "what the job's cost is charged to"),
    TEXT("node-type", node_type, "NAME", "what the price sheet calls these nodes"),
    TEXT("queue", queue, "NAME", "queue of Kueue, which starts the job when it is its turn"),
    NUMBER("min-workers", min_workers, 1, LAUNCH_MAX_WORKERS, "Kueue may start it with so few"),
    {"suspend", 0, OPTION_FLAG, SUBMIT_FIELD(suspend), NULL, "do not start it before `tokenmill resume`", 0, 0, NULL},
    NUMBER("retries", retries, 0, 1000000, "failures of one worker before it is given up (default 6)"),
    NUMBER("max-failed", max_failed, 1, LAUNCH_MAX_WORKERS, "workers given up before the job fails at once (default: half)"),
    NUMBER("grace", grace_s, 1, 86400, "seconds that a worker has to drain (default 120)"),
    NUMBER("ttl", ttl_s, 0, 2147483647, "seconds after which the ended Job is deleted, not its results (default: 7 days)"),
    NUMBER("metrics-port", metrics_port, 0, 65535, "where workers serve /metrics (default 9090; 0: nowhere)"),
    MANY("set", sets, "PATH=VALUE", "change the manifest, such as spec.template.spec.containers[worker].imagePullPolicy=Never"),
    TEXT("pod-template", pod_template, "FILE", "YAML or JSON laid over the pod template"),
    TEXT("engine-memory", engine_memory, "SIZE", "`run --memory` of each worker (default: half of what is free)"),
    PASS("engine", "cpu|fake[:...]", "as for `run`, and so are all below; files are named as the workers see them"),
    PASS("math", "f32|fast", "arithmetic"),
    PASS("kv-type", "f16|bf16|f32", "type of keys and values"),
    PASS("context", "N", "longest prompt + output"),
    PASS("seed", "N", "seed of rows that bring none"),
    PASS("defaults", "FILE", "JSON object of parameters for what a row leaves open"),
    PASS("served-model-name", "NAME", "the model's name in answers"),
    PASS("date", "YYYY-MM-DD", "the day that a chat template sees"),
    PASS("shards", "N", "how many parts workers can claim"),
    PASS("fold-duplicates", NULL, "run rows with the same request once"),
    PASS("strict", NULL, "run nothing if any row is at fault"),
    PASS("max-bad-rows", "N", "run nothing if more rows are at fault"),
    PASS("replan", NULL, "results of rows that are no longer in the input may go"),
    PASS("threads", "N", "threads of each worker"),
    PASS("max-batch", "N", "most sequences at once"),
    PASS("chunk", "N", "most tokens in a step"),
    PASS("no-prefix-cache", NULL, "compute every prompt from its start"),
    PASS("publish-seconds", "S", "finished rows reach the storage so often (default 30, with --local 2)"),
    PASS("takeover-after", "S", "a worker that is silent for so long is dead"),
    PASS("budget-usd", "X", "spend no more, of all workers together (needs --prices)"),
    PASS("budget-by", "tokens|time", "what is counted"),
    PASS("prices", "SHEET", "price sheet"),
    PASS("deadline", "TIME", "stop by then, such as 2026-01-31T18:00:00Z"),
    PASS("restarts", "N", "engine crashes after which a worker goes on by itself"),
    {0},
};

static void init_options(void *options)
{
	struct submit_options *o = options;
	struct launch_spec s;

	launch_spec_init(&s);
	o->workers = s.workers;
	o->retries = s.retries;
	o->grace_s = s.grace_s;
	o->ttl_s = s.ttl_s;
	o->metrics_port = s.metrics_port;
	o->image = s.image;
	o->shm = s.shm;
	o->gpu_resource = s.gpu_resource;
	o->jobs_claim = s.jobs_claim;
	o->models_claim = s.models_claim;
}

struct submit {
	const struct submit_options *o;
	char **inputs;
	int n_inputs;
	char **run_args; /* "--seed=5" */
	size_t n_run_args;
	yyjson_doc *template;
	struct launch launch;
	struct kube *kube;
};

static struct launch_list list_of(const struct option_list *l)
{
	return (struct launch_list){l->items, (size_t)l->n};
}

/* As the option of `run` of that name takes it: a worker would only say so after it was scheduled, and its image pulled. */
static int check_run_args(struct submit *x, struct err *err)
{
	char **args = xcalloc(x->n_run_args + 1, sizeof(*args));
	void *out = xcalloc(1, command_run.options_bytes);
	int n, rc;

	command_run.init(out);
	rc = options_parse(&command_run, out, (int)x->n_run_args, x->run_args, args, &n, err);
	free(args);
	free(out);
	return rc < 0 ? -1 : 0;
}

static int take_run_args(struct submit *x, struct err *err)
{
	const struct option_list *l = &x->o->run;
	struct buf b = {0};

	x->run_args = xcalloc((size_t)l->n / 2 + 2, sizeof(*x->run_args));
	for (int i = 0; i < l->n; i += 2) {
		if (l->items[i + 1])
			buf_addf(&b, "--%s=%s", l->items[i], l->items[i + 1]);
		else
			buf_addf(&b, "--%s", l->items[i]);
		x->run_args[x->n_run_args++] = buf_detach(&b);
	}
	if (x->o->engine_memory) {
		buf_addf(&b, "--memory=%s", x->o->engine_memory);
		x->run_args[x->n_run_args++] = buf_detach(&b);
	}
	for (size_t i = 0; i < x->n_run_args; i++)
		if (strncmp(x->run_args[i], "--deadline=", 11) == 0 && !strchr(x->run_args[i], 'T'))
			return err_set(
			    err, ERR_USAGE,
			    "%s: give a point in time, such as 2026-01-31T18:00:00Z: every worker that is started later would count anew",
			    x->run_args[i]);
	return check_run_args(x, err);
}

static int has_run_arg(const struct submit *x, const char *begin)
{
	for (size_t i = 0; i < x->n_run_args; i++)
		if (strncmp(x->run_args[i], begin, strlen(begin)) == 0)
			return 1;
	return 0;
}

/* ---- on this machine ---- */

static int is_merged_here(const char *place, struct err *err)
{
	struct job *j = job_open(place, err);
	int rc = j ? job_is_merged(j, err) : -1;

	job_close(j);
	return rc;
}

static int submit_here(struct submit *x, struct err *err)
{
	const struct submit_options *o = x->o;
	const char *place = o->job ? o->job : o->name;
	char **args = xcalloc(x->n_run_args + (size_t)x->n_inputs + 16, sizeof(*args)), threads[40];
	struct submit_local l = {.args = args, .n_workers = (int)o->workers, .retries = o->retries, .pause_s = 1};
	int cpus = workers_available_cpus(), n = 0, rc, merged;

	if (!place) {
		free(args);
		return err_set(err, ERR_USAGE, "--local: --job DIR is missing: the directory for the job and its results");
	}
	if (o->workers > 1 && !o->engine_memory && !has_run_arg(x, "--engine=fake")) {
		free(args);
		return err_set(
		    err, ERR_USAGE,
		    "--local with %lld workers: give --engine-memory SIZE: each worker alone would take half of what is free",
		    (long long)o->workers);
	}
	args[n++] = (char *)"run";
	args[n++] = (char *)"--job";
	args[n++] = (char *)place;
	if (o->model) {
		args[n++] = (char *)"--model";
		args[n++] = (char *)o->model;
	}
	for (size_t i = 0; i < x->n_run_args; i++)
		args[n++] = x->run_args[i];
	if (!has_run_arg(x, "--threads=") && o->workers > 1) {
		snprintf(threads, sizeof(threads), "--threads=%d", cpus > (int)o->workers ? cpus / (int)o->workers : 1);
		args[n++] = threads;
	}
	if (x->n_inputs) {
		args[n++] = (char *)"--";
		for (int i = 0; i < x->n_inputs; i++)
			args[n++] = x->inputs[i];
	}
	rc = submit_local_run(&l, err);
	free(args);
	if (rc < 0)
		return -1;
	merged = is_merged_here(place, err);
	if (merged == 0)
		return err_set(err, ERR_OTHER, "%s: all workers ended, and the job is not finished; the same command again goes on",
		               place);
	return merged < 0 ? -1 : 0;
}

/* ---- on a cluster ---- */

static void fill_spec(const struct submit *x, struct launch_spec *s)
{
	const struct submit_options *o = x->o;

	*s = (struct launch_spec){
	    .name = o->name,
	    .job = o->job,
	    .model = o->model,
	    .inputs = {(const char *const *)x->inputs, (size_t)x->n_inputs},
	    .run_args = {(const char *const *)x->run_args, x->n_run_args},
	    .workers = o->workers,
	    .image = o->image,
	    .image_pull_policy = o->image_pull_policy,
	    .cpu = o->cpu,
	    .memory = o->memory,
	    .shm = o->shm,
	    .n_gpus = o->n_gpus,
	    .gpu_resource = o->gpu_resource,
	    .node_selectors = list_of(&o->node_selectors),
	    .labels = list_of(&o->labels),
	    .annotations = list_of(&o->annotations),
	    .env = list_of(&o->env),
	    .tags = list_of(&o->tags),
	    .tolerations = list_of(&o->tolerations),
	    .volumes = list_of(&o->volumes),
	    .secrets = list_of(&o->secrets),
	    .pull_secrets = list_of(&o->pull_secrets),
	    .jobs_claim = o->jobs_claim,
	    .models_claim = o->models_claim,
	    .queue = o->queue,
	    .min_workers = o->min_workers,
	    .priority_class = o->priority_class,
	    .node_type = o->node_type,
	    .suspend = o->suspend,
	    .retries = o->retries,
	    .max_failed = o->max_failed,
	    .grace_s = o->grace_s,
	    .ttl_s = o->ttl_s,
	    .metrics_port = o->metrics_port,
	    .pod_template = yyjson_doc_get_root(x->template),
	    .sets = list_of(&o->sets),
	};
}

/* Files of this machine are not seen by pods. */
static int check_inputs(const struct submit *x, struct err *err)
{
	for (int i = 0; i < x->n_inputs; i++) {
		const char *in = x->inputs[i];

		if (strncmp(in, "s3://", 5) == 0)
			return err_set(err, ERR_USAGE,
			               "%s: workers read inputs from a volume only; plan the job into S3 from here (tokenmill plan --job "
			               "s3://... FILE), then submit "
			               "--job s3://... without IN",
			               in);
		if (!x->o->on_volume)
			return err_set(err, ERR_USAGE,
			               "%s: pods do not see files of this machine. If it is a path on the jobs volume, say --on-volume; "
			               "else copy it there, or plan "
			               "the job into S3 from here (tokenmill plan --job s3://... %s) and submit --job s3://... without IN",
			               in, in);
	}
	if (!x->n_inputs && !x->o->job)
		return err_set(err, ERR_USAGE, "name the input files, or with --job a job that is planned already");
	return 0;
}

static int print_manifest(const char *json, size_t n, struct err *err)
{
	yyjson_doc *doc = json_parse(json, n, ERR_OTHER, err);
	char *text = doc ? yyjson_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL) : NULL;

	if (text)
		puts(text);
	free(text);
	yyjson_doc_free(doc);
	return text && fflush(stdout) == 0 ? 0 : err_sys(err, ERR_OTHER, "standard output");
}

static int dry_run_on_server(struct submit *x, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, NULL, NULL};
	yyjson_doc *doc = NULL;
	struct buf text = {0};
	int rc = kube_create(x->kube, &ref, x->launch.manifest, strlen(x->launch.manifest), KUBE_DRY_RUN, &doc, err);

	if (rc == 0) {
		json_write(&text, yyjson_doc_get_root(doc));
		rc = print_manifest(text.data, text.len, err);
	}
	buf_release(&text);
	yyjson_doc_free(doc);
	return rc;
}

/* The name is taken: by the same job (0), or by another one. */
static int compare_with_there(struct submit *x, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, x->launch.name, NULL};
	struct cluster_job j;
	struct buf how = {0};
	yyjson_doc *doc = NULL;
	int rc = kube_get(x->kube, &ref, &doc, err);

	if (rc < 0)
		return -1;
	cluster_job_read(&j, yyjson_doc_get_root(doc));
	if (launch_compare(&x->launch, *j.annotation ? j.annotation : NULL, &how))
		rc = err_set(err, ERR_OTHER,
		             "job '%s' is there already, with other content: %s; choose another --name, or tokenmill delete %s",
		             x->launch.name, how.data, x->launch.name);
	else
		log_info("job %s is there already, with the same content: %s", x->launch.name, cluster_state_name(j.state));
	buf_release(&how);
	yyjson_doc_free(doc);
	return rc;
}

static int create(struct submit *x, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, NULL, NULL};

	if (kube_create(x->kube, &ref, x->launch.manifest, strlen(x->launch.manifest), KUBE_FOR_REAL, NULL, err) == 0) {
		log_info("job %s is submitted to namespace '%s', %lld worker%s; its place is %s", x->launch.name,
		         kube_namespace(x->kube), (long long)x->o->workers, x->o->workers == 1 ? "" : "s", x->launch.place);
		return 0;
	}
	if (kube_why(x->kube) != KUBE_EXISTS)
		return -1;
	err_clear(err);
	return compare_with_there(x, err);
}

static int submit_there(struct submit *x, struct err *err)
{
	struct launch_spec s;

	if (check_inputs(x, err) < 0)
		return -1;
	if (x->o->pod_template && !(x->template = yaml_file_to_json(x->o->pod_template, ERR_USAGE, err)))
		return err_context(err, "--pod-template");
	fill_spec(x, &s);
	if (launch_make(&s, &x->launch, err) < 0)
		return -1;
	if (x->o->dry_run == 1)
		return print_manifest(x->launch.manifest, strlen(x->launch.manifest), err);
	x->kube = cluster_open(&x->o->cluster, err);
	if (!x->kube)
		return -1;
	if (x->o->dry_run == 2)
		return dry_run_on_server(x, err);
	if (create(x, err) < 0)
		return -1;
	puts(x->launch.name);
	fflush(stdout);
	return x->o->wait ? job_watch_wait(x->kube, x->launch.name, err) : 0;
}

static int run_submit(const void *options, char **args, int n_args, struct err *err)
{
	const struct submit_options *o = options;
	struct submit x = {.o = o, .inputs = args, .n_inputs = n_args};
	int rc = take_run_args(&x, err);

	if (rc == 0 && !o->model && !has_run_arg(&x, "--engine=fake"))
		rc = err_set(err, ERR_USAGE, "--model PATH is missing");
	if (rc == 0 && o->local && (o->dry_run || o->wait))
		rc = err_set(err, ERR_USAGE, "--local runs the job at once and waits for it: leave out --dry-run and --wait");
	if (rc == 0)
		rc = o->local ? submit_here(&x, err) : submit_there(&x, err);
	for (size_t i = 0; i < x.n_run_args; i++)
		free(x.run_args[i]);
	free(x.run_args);
	launch_release(&x.launch);
	yyjson_doc_free(x.template);
	kube_close(x.kube);
	return rc;
}

const struct command command_submit = {
    "submit",
    "--model PATH --workers N [options] IN...",
    "Run a job as pods of a Kubernetes Job, or with --local as processes here.",
    "The job's name is printed on standard output. Submitting the same again under its name changes nothing; other content "
    "under a name\n"
    "that is there is refused. `tokenmill status`, `logs`, `watch`, `scale`, `suspend`, `resume`, `cancel`, `delete` and "
    "`fetch` go on from there.",
    submit_options,
    sizeof(struct submit_options),
    init_options,
    run_submit,
};
