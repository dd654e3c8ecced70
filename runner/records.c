/* records.c: callbacks from queue to output.c. */
#include "runner/records.h"

#include "runner/output.h"

static int renamed(void *context, struct buf *out, const char *line, size_t n_line, const char *key, size_t n_key, struct err *err)
{
	const struct records *r = context;

	return output_renamed(out, r->setup, line, n_line, key, n_key, err);
}

int records_attach(struct records *r, struct job *j, struct err *err)
{
	struct job_spec spec = {0};
	int rc = spec_read(job_spec(j), &spec, err);

	if (rc == 0) {
		setup_hash(&spec.setup, r->setup);
		job_set_lines(j, &(struct job_lines){.context = r, .renamed = renamed});
	}
	spec_release(&spec);
	return rc;
}
