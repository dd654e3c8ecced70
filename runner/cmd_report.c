/* cmd_report.c: what jobs used and cost. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "jobs/day.h"
#include "jobs/report.h"
#include "queue/job.h"
#include "queue/store.h"
#include "runner/commands.h"
#include "runner/records.h"

enum report_format { REPORT_TABLE = 1, REPORT_CSV = 2, REPORT_JSON = 3, REPORT_FOCUS = 4, REPORT_HTML = 5 };

struct report_options {
	const char *by, *prices, *output, *since, *until;
	int format, quiet;
};

static const struct option_spec report_options[] = {
    {"by", 0, OPTION_STRING, offsetof(struct report_options, by), "NAMES",
     "what to sum up by: any of tenant,project,user,model,job,node,day,tag:NAME (tenant,project,model)", 0, 0, NULL},
    {"format", 0, OPTION_CHOICE, offsetof(struct report_options, format), "FORMAT",
     "table, or one for other programs or a browser (table)", 0, 0, "table|csv|json|focus|html"},
    {"prices", 0, OPTION_STRING, offsetof(struct report_options, prices), "SHEET",
     "price sheet, YAML or JSON; without it there is no money", 0, 0, NULL},
    {"output", 'o', OPTION_STRING, offsetof(struct report_options, output), "FILE", "write there (standard output)", 0, 0,
     NULL},
    {"since", 0, OPTION_STRING, offsetof(struct report_options, since), "DAY",
     "first day that counts, such as 2026-01-31 (UTC)", 0, 0, NULL},
    {"until", 0, OPTION_STRING, offsetof(struct report_options, until), "DAY", "last day that counts", 0, 0, NULL},
    {"quiet", 'q', OPTION_FLAG, offsetof(struct report_options, quiet), NULL, "say nothing but errors", 0, 0, NULL},
    {0},
};

static void init(void *options)
{
	struct report_options *o = options;

	o->by = "tenant,project,model";
	o->format = REPORT_TABLE;
}

/* Of a job that is not merged, or was run further since: what is published so far. */
static int add_unmerged(struct report *r, struct job *j, const char *place, struct err *err)
{
	const char *base = getenv("TMPDIR");
	struct buf path = {0};
	char *dir;
	int rc;

	buf_addf(&path, "%s/tokenmill-report-XXXXXX", base && *base ? base : "/tmp");
	dir = buf_detach(&path);
	if (!mkdtemp(dir)) {
		rc = err_sys(err, ERR_OTHER, "%s", dir);
		free(dir);
		return rc;
	}
	buf_addf(&path, "%s/ledger.db", dir);
	rc = job_ledger(j, path.data, err);
	if (rc == 0)
		rc = report_add_ledger(r, path.data, place, err);
	if (unlink(path.data) < 0 && errno != ENOENT)
		log_warn("%s stays: %s", path.data, strerror(errno));
	if (rmdir(dir) < 0)
		log_warn("%s stays: %s", dir, strerror(errno));
	buf_release(&path);
	free(dir);
	return rc;
}

static int add_merged(struct report *r, struct store *s, const char *place, struct err *err)
{
	struct store_file f = {0};
	char *name = store_name(s, "merged/ledger.db");
	int rc = store_fetch(s, "merged/ledger.db", &f, err);

	if (rc == 1) {
		rc = report_add_ledger(r, f.path, name, err);
		store_file_release(&f);
	} else if (rc == 0) {
		rc = err_set(err, ERR_USAGE, "%s: there is no job", place);
	}
	free(name);
	return rc;
}

/* A ledger of its own, or that of a job in a directory or prefix. */
static int add_place(struct report *r, const char *place, struct err *err)
{
	struct store *s;
	struct job *j = NULL;
	struct records records = {0};
	int rc;

	if (!store_is_url(place) && !file_exists(place))
		return err_set(err, ERR_STORAGE, "%s: there is no such job nor ledger", place);
	if (!store_is_url(place) && !file_is_dir(place))
		return report_add_ledger(r, place, place, err);
	s = store_open(place, err);
	if (!s)
		return -1;
	rc = store_exists(s, "job.json", err);
	if (rc == 1) {
		j = job_open(place, err);
		rc = j && records_attach(&records, j, err) == 0 ? job_is_merged(j, err) : -1;
		if (rc == 0)
			rc = add_unmerged(r, j, place, err);
		else if (rc == 1)
			rc = add_merged(r, s, place, err);
	} else if (rc == 0) { /* what is left of one */
		rc = add_merged(r, s, place, err);
	}
	job_close(j);
	store_close(s);
	return rc;
}

static int write_report(const struct report_options *o, const struct report *r, struct err *err)
{
	struct buf out = {0};
	int rc = 0;

	switch ((enum report_format)o->format) {
	case REPORT_TABLE:
		report_write_table(r, &out);
		break;
	case REPORT_CSV:
		report_write_csv(r, &out);
		break;
	case REPORT_JSON:
		report_write_json(r, &out);
		break;
	case REPORT_FOCUS:
		rc = report_write_focus(r, &out, err);
		break;
	case REPORT_HTML:
		report_write_html(r, &out);
		break;
	}
	if (rc == 0 && o->output)
		rc = file_write_atomic(o->output, buf_str(&out), out.len, err);
	else if (rc == 0 && (fwrite(buf_str(&out), 1, out.len, stdout) != out.len || fflush(stdout) != 0))
		rc = err_sys(err, ERR_OTHER, "standard output");
	buf_release(&out);
	return rc;
}

static int read_day(const char *option, const char *text, int64_t otherwise, int64_t *out, struct err *err)
{
	*out = otherwise;
	if (text && day_parse(text, strlen(text), out) < 0)
		return err_set(err, ERR_USAGE, "--%s %s: expected a day such as 2026-01-31", option, text);
	return 0;
}

static int run_report(const void *options, char **args, int n_args, struct err *err)
{
	const struct report_options *o = options;
	struct prices *prices = NULL;
	struct dimensions by;
	struct report r;
	int64_t since, until;
	int rc = 0;

	if (o->quiet)
		log_set_level(LOG_QUIET);
	if (n_args == 0)
		return err_set(err, ERR_USAGE, "give the directory of a job, or several");
	if (dimensions_parse(o->by, &by, err) < 0 || read_day("since", o->since, 0, &since, err) < 0 ||
	    read_day("until", o->until, DAY_MAX, &until, err) < 0)
		return -1;
	if (since > until)
		return err_set(err, ERR_USAGE, "--since %s is after --until %s", o->since, o->until ? o->until : "");
	if (o->format == REPORT_FOCUS &&
	    (dimensions_add(&by, "day", err) < 0 || dimensions_add(&by, "model", err) < 0 || dimensions_add(&by, "job", err) < 0))
		return -1;
	if (o->prices) {
		prices = prices_load(o->prices, err);
		if (!prices)
			return -1;
	}
	report_init(&r, &by, prices, since, until);
	for (int i = 0; i < n_args && rc == 0; i++)
		rc = add_place(&r, args[i], err);
	if (rc == 0 && report_finish(&r, err) == 0)
		rc = write_report(o, &r, err);
	else
		rc = -1;
	report_release(&r);
	prices_free(prices);
	return rc;
}

const struct command command_report = {
    "report",
    "[options] JOB...",
    "What jobs used and cost, by tenant, project, user, model, job, node type, day or any tag.",
    "JOB is a job's directory or s3:// prefix, or a ledger.db. Of a job that is not merged, what is published so far counts. "
    "Rows are billed once, by their tokens and the price sheet; what retries computed is "
    "waste and told apart. Node time is priced by the sheet and shared out among rows by their list price. The sums of any "
    "grouping are those of the "
    "job, to the last digit; a ledger that does not balance is refused with status 74.",
    report_options,
    sizeof(struct report_options),
    init,
    run_report,
};
