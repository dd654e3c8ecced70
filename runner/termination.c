/* termination.c: putting the last words together, and down. */
#include "runner/termination.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "runner/signals.h"

int termination_status(int rc, const struct err *err)
{
	if (rc >= 0)
		return rc;
	return err->code == ERR_DRAINED ? 128 + signals_received() : err_exit_code(err->code);
}

static void write_json(const struct termination *t, size_t n_message, struct buf *out)
{
	const struct attempt *a = t->attempt;

	buf_addf(out, "{\"exit_code\":%d,\"exit_name\":\"%s\",\"message\":", t->status, t->name);
	json_write_string(out, t->message, n_message);
	if (a) {
		buf_adds(out, ",\"attempt\":");
		json_write_string(out, a->id, strlen(a->id));
		buf_addf(out,
		         ",\"worker\":%d,\"rows\":%" PRId64 ",\"rows_failed\":%" PRId64 ",\"prompt_tokens\":%" PRId64 ",\"cached_tokens\":%" PRId64
		         ",\"output_tokens\":%" PRId64,
		         a->worker, a->rows, a->rows_failed, a->prompt_tokens, a->cached_tokens, a->output_tokens);
	}
	buf_addf(out, ",\"seconds\":%.3f", t->seconds);
	if (a)
		buf_addf(out, ",\"busy_seconds\":%.3f", a->busy_s);
	buf_adds(out, "}\n");
}

void termination_json(const struct termination *t, struct buf *out)
{
	size_t start = out->len, n = strlen(t->message);

	write_json(t, n, out);
	/* A byte of the message may take six ("\u0001"). */
	while (n > 0 && out->len - start >= TERMINATION_BYTES) {
		size_t over = out->len - start - TERMINATION_BYTES + 1;

		n = over / 6 + 1 < n ? n - over / 6 - 1 : 0;
		while (n > 0 && ((unsigned char)t->message[n] & 0xC0) == 0x80) /* between two characters */
			n--;
		buf_truncate(out, start);
		write_json(t, n, out);
	}
}

void termination_write(const struct termination *t)
{
	const char *path = getenv("TOKENMILL_TERMINATION_LOG");
	struct buf b = {0};
	ssize_t n;
	int fd;

	if (!path || !*path)
		return;
	termination_json(t, &b);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	n = fd < 0 ? -1 : write(fd, b.data, b.len);
	if (n != (ssize_t)b.len)
		log_warn("TOKENMILL_TERMINATION_LOG: cannot write %s: %s", path, n < 0 ? strerror(errno) : "no space");
	if (fd >= 0)
		close(fd);
	buf_release(&b);
}
