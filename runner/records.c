/* records.c: callbacks from queue to output.c. */
#include "runner/records.h"

#include <string.h>

#include "runner/output.h"

static int renamed(void *context, struct buf *out, const char *line, size_t n_line, const char *key, size_t n_key, struct err *err)
{
	const struct records *r = context;

	return output_renamed(out, r->setup, line, n_line, key, n_key, err);
}

static void closed(void *context, struct buf *out, const char *key, size_t n_key, const char *code)
{
	const struct records *r = context;
	const char *message = strcmp(code, "budget_exhausted") == 0 ? "the job was closed when its budget was spent; this row was not run"
	                      : strcmp(code, "batch_expired") == 0  ? "the job was closed at its deadline; this row was not run"
	                                                            : "the job was closed before this row was run";

	output_unanswered(out, r->setup, key, n_key, code, message);
}

int records_attach(struct records *r, struct job *j, struct err *err)
{
	struct job_spec spec = {0};
	int rc = spec_read(job_spec(j), &spec, err);

	if (rc == 0) {
		setup_hash(&spec.setup, r->setup);
		job_set_lines(j, &(struct job_lines){.context = r, .closed = closed, .renamed = renamed});
	}
	spec_release(&spec);
	return rc;
}
