/* input.c: lines out of files, compressed files and archives, through libarchive.
 *
 * Two archives may be open: the outer one reads the file; when that is a tar, each member is read through an inner one, so that
 * a compressed member (x.jsonl.gz in a tar) is decompressed as well. Both know only tar, "raw" (anything else, one nameless
 * entry) and "empty".
 *
 *     file -> filter (gzip, ...) -> tar  -> member -> filter -> raw -> lines
 *                                -> raw  -> lines
 */
#include "runner/input.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "runner/input_path.h"
#include "runner/signals.h"

enum { READ_BYTES = 256 << 10 };

struct input {
	char *path;
	int fd;
	size_t max_line_bytes;
	struct archive *outer;
	struct archive *inner;  /* NULL: read entries of outer itself */
	struct archive *reader; /* the one whose current entry is being read; NULL between entries */
	int is_tar, n_members;  /* members that were taken */
	int at_end;             /* no further entry */
	struct buf source;
	int64_t line;
	/* data[start, end) is unread; data[start, scanned) is known to hold no newline. */
	char *data;
	size_t cap, start, scanned, end;
	int entry_ended;
	struct sha256 *hash;
	int64_t n_bytes;
	char digest[SHA256_HEX_BYTES];
	char member_block[64 << 10]; /* what the inner archive reads from the outer */
	char pipe_block[64 << 10];   /* what the outer reads, when it is no regular file */
};

static int fault(struct input *in, struct archive *a, struct err *err)
{
	const char *why = archive_error_string(a);

	if (signals_received())
		return signals_drained(err);
	return err_set(err, ERR_INPUT, "%s: cannot be read after line %lld: %s", buf_str(&in->source), (long long)in->line,
	               why ? why : "unknown error");
}

/* formats: tar too, or raw only (inside a member a tar is not looked for). */
static struct archive *new_archive(int with_tar)
{
	struct archive *a = archive_read_new();

	if (!a)
		BUG("libarchive cannot make a reader");
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_raw(a);
	archive_read_support_format_empty(a);
	if (with_tar)
		archive_read_support_format_tar(a);
	return a;
}

/* A pipe or terminal may be silent for ever: a signal must not wait for its next byte. The signal may arrive just before poll,
 * therefore the time limit. */
static la_ssize_t pipe_read(struct archive *a, void *arg, const void **block)
{
	struct input *in = arg;
	struct pollfd p = {.fd = in->fd, .events = POLLIN};
	int ready = 0;
	ssize_t n;

	while (!signals_received()) {
		if (ready > 0) {
			n = read(in->fd, in->pipe_block, sizeof(in->pipe_block));
			if (n >= 0) {
				*block = in->pipe_block;
				return n;
			}
			if (errno != EINTR && errno != EAGAIN)
				break;
		}
		ready = poll(&p, 1, 200);
		if (ready < 0 && errno != EINTR)
			break;
	}
	archive_set_error(a, errno, "%s", strerror(errno));
	return -1;
}

static int open_outer(struct input *in)
{
	struct stat st;

	if (fstat(in->fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return archive_read_open_fd(in->outer, in->fd, READ_BYTES);
	return archive_read_open(in->outer, in, NULL, pipe_read, NULL);
}

struct input *input_open(const char *path, size_t max_line_bytes, struct err *err)
{
	struct input *in = xcalloc(1, sizeof(*in));

	in->path = xstrdup(path);
	in->max_line_bytes = max_line_bytes ? max_line_bytes : INPUT_MAX_LINE_BYTES;
	in->fd = -1;
	in->hash = sha256_new();
	buf_adds(&in->source, strcmp(path, "-") == 0 ? "standard input" : path);
	if (strcmp(path, "-") == 0) {
		in->fd = STDIN_FILENO;
	} else {
		in->fd = open(path, O_RDONLY | O_CLOEXEC);
		if (in->fd < 0) {
			err_sys(err, ERR_INPUT, "cannot open input file %s", path);
			input_close(in);
			return NULL;
		}
	}
	in->outer = new_archive(1);
	if (open_outer(in) != ARCHIVE_OK) {
		fault(in, in->outer, err);
		input_close(in);
		return NULL;
	}
	return in;
}

static la_ssize_t member_read(struct archive *a, void *arg, const void **block)
{
	struct input *in = arg;
	la_ssize_t n = archive_read_data(in->outer, in->member_block, sizeof(in->member_block));

	if (n < 0) {
		archive_set_error(a, archive_errno(in->outer), "%s", archive_error_string(in->outer));
		return -1;
	}
	*block = in->member_block;
	return n;
}

static void leave_entry(struct input *in)
{
	if (in->inner)
		archive_read_free(in->inner);
	in->inner = NULL;
	in->reader = NULL;
}

static int enter_member(struct input *in, struct archive_entry *e, struct err *err)
{
	const char *name = archive_entry_pathname(e);
	int r;

	if (archive_entry_filetype(e) != AE_IFREG || !name || !input_path_is_rows(name))
		return 0;
	buf_reset(&in->source);
	buf_addf(&in->source, "%s!%s", in->path, name);
	in->line = 0;
	in->n_members++;
	in->inner = new_archive(0);
	if (archive_read_open(in->inner, in, NULL, member_read, NULL) != ARCHIVE_OK)
		return fault(in, in->inner, err);
	r = archive_read_next_header(in->inner, &e);
	if (r == ARCHIVE_EOF) {
		leave_entry(in);
		return 0;
	}
	if (r != ARCHIVE_OK)
		return fault(in, in->inner, err);
	in->reader = in->inner;
	return 1;
}

/* 1: in->reader is at the start of an entry; 0: no more; -1. */
static int next_entry(struct input *in, struct err *err)
{
	struct archive_entry *e;

	leave_entry(in);
	for (;;) {
		int r = archive_read_next_header(in->outer, &e);

		if (r == ARCHIVE_EOF) {
			if (in->is_tar && !in->n_members)
				return err_set(err, ERR_INPUT,
				               "%s: the archive has no member that is named like a row file (*.jsonl, *.json, ...)", in->path);
			return 0;
		}
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return fault(in, in->outer, err);
		in->is_tar = (archive_format(in->outer) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
		if (!in->is_tar) {
			in->line = 0;
			in->reader = in->outer;
			break;
		}
		r = enter_member(in, e, err);
		if (r < 0)
			return -1;
		if (r)
			break;
	}
	if (in->is_tar)
		sha256_add(in->hash, "", 1);
	in->start = in->scanned = in->end = 0;
	in->entry_ended = 0;
	return 1;
}

/* More bytes behind data[end): 1, 0 at the end of the entry, -1. */
static int fill(struct input *in, struct err *err)
{
	la_ssize_t n;

	if (in->start > 0) {
		memmove(in->data, in->data + in->start, in->end - in->start);
		in->scanned -= in->start;
		in->end -= in->start;
		in->start = 0;
	}
	if (in->cap - in->end < READ_BYTES) {
		in->cap = in->cap ? in->cap * 2 : 2 * READ_BYTES;
		in->data = xrealloc(in->data, in->cap);
	}
	n = archive_read_data(in->reader, in->data + in->end, READ_BYTES);
	if (n < 0)
		return fault(in, in->reader, err);
	if (n == 0) {
		in->entry_ended = 1;
		return 0;
	}
	sha256_add(in->hash, in->data + in->end, (size_t)n);
	in->end += (size_t)n;
	in->n_bytes += n;
	return 1;
}

/* The line is over the maximum: what is in the buffer is kept for the caller, the rest is read away. */
static int skip_rest(struct input *in, size_t keep, struct err *err)
{
	for (;;) {
		char *nl = memchr(in->data + in->scanned, '\n', in->end - in->scanned);
		int r;

		if (nl) {
			in->start = in->scanned = (size_t)(nl - in->data) + 1;
			return 0;
		}
		if (in->entry_ended) {
			in->start = in->scanned = in->end;
			return 0;
		}
		in->start = 0;
		in->scanned = in->end = keep;
		r = fill(in, err);
		if (r < 0)
			return -1;
	}
}

/* One raw line without its newline: 1, 0 at the end of the entry, -1. */
static int next_raw(struct input *in, struct input_line *out, struct err *err)
{
	for (;;) {
		char *nl = in->end > in->scanned ? memchr(in->data + in->scanned, '\n', in->end - in->scanned) : NULL;
		size_t stop = nl ? (size_t)(nl - in->data) : in->end;

		if (!nl)
			in->scanned = in->end;
		if (stop - in->start > in->max_line_bytes) {
			size_t keep = 4096 < in->max_line_bytes ? 4096 : in->max_line_bytes;

			in->line++;
			memmove(in->data, in->data + in->start, keep);
			out->text = in->data;
			out->n = keep;
			out->too_long = 1;
			if (nl) {
				in->start = in->scanned = stop + 1;
				return 1;
			}
			return skip_rest(in, keep, err) < 0 ? -1 : 1;
		}
		if (nl || (in->entry_ended && in->end > in->start)) {
			out->text = in->data + in->start;
			out->n = stop - in->start;
			out->too_long = 0;
			in->start = in->scanned = nl ? stop + 1 : in->end;
			in->line++;
			return 1;
		}
		if (in->entry_ended)
			return 0;
		if (fill(in, err) < 0)
			return -1;
	}
}

int input_next(struct input *in, struct input_line *out, struct err *err)
{
	while (!in->at_end) {
		int r;

		if (!in->reader) {
			r = next_entry(in, err);
			if (r < 0)
				return -1;
			if (r == 0) {
				in->at_end = 1;
				sha256_finish(in->hash, in->digest);
				in->hash = NULL;
				break;
			}
		}
		r = next_raw(in, out, err);
		if (r < 0)
			return -1;
		if (r == 0) {
			leave_entry(in);
			continue;
		}
		if (in->line == 1 && out->n >= 3 && memcmp(out->text, "\xEF\xBB\xBF", 3) == 0) {
			out->text += 3;
			out->n -= 3;
		}
		while (out->n && (out->text[out->n - 1] == '\r' || out->text[out->n - 1] == ' ' || out->text[out->n - 1] == '\t'))
			out->n--;
		if (!out->n)
			continue;
		out->source = buf_str(&in->source);
		out->line = in->line;
		return 1;
	}
	return 0;
}

void input_digest(struct input *in, char hex[SHA256_HEX_BYTES], int64_t *n_bytes)
{
	if (!in->at_end)
		BUG("input_digest before the end of %s", in->path);
	memcpy(hex, in->digest, SHA256_HEX_BYTES);
	*n_bytes = in->n_bytes;
}

void input_close(struct input *in)
{
	char hex[SHA256_HEX_BYTES];

	if (!in)
		return;
	leave_entry(in);
	if (in->outer)
		archive_read_free(in->outer);
	if (in->fd > STDIN_FILENO)
		close(in->fd);
	if (in->hash)
		sha256_finish(in->hash, hex);
	buf_release(&in->source);
	free(in->data);
	free(in->path);
	free(in);
}
