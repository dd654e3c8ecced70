/* lines.c: buffered line files over write(2) and zstd's streaming interface.
 *
 * Plain files are the merged results, which may be large: a thread aside hashes and writes the full buffer while the caller fills the
 * other one, and reads and hashes the next block while the caller takes lines from this one.
 */
#include "queue/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/aside.h"
#include "base/mem.h"

#define BUFFER_BYTES ((size_t)1 << 18)
#define WRITE_BACK_BYTES ((int64_t)8 << 20) /* so much is handed to the disk at once, long before the sync at the end */
#define MAX_LINE_BYTES ((size_t)1 << 30) /* SQLite's own limit for a value is a little below */

struct line_writer {
	char *path;
	int fd;
	ZSTD_CCtx *zstd;    /* NULL: plain */
	struct sha256 *sha; /* NULL: zstd */
	int64_t n_bytes;    /* in the file */
	size_t n_in, n_out;
	unsigned char *in, *out;
	/* Plain: the buffer that is being written, and what came of it. While the thread is at it, these and sha are its own. */
	struct aside *aside;
	const unsigned char *full;
	size_t n_full;
	unsigned char *other;
	int64_t n_handed_over; /* to the disk */
	struct err failure;
};

struct line_writer *line_writer_open(const char *path, enum line_form form, struct err *err)
{
	struct line_writer *w;
	struct aside *aside = NULL;
	int fd;

	if (form == LINES_PLAIN && !(aside = aside_new(err)))
		return NULL;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0) {
		err_sys(err, ERR_STORAGE, "%s", path);
		aside_free(aside);
		return NULL;
	}
	w = xcalloc(1, sizeof(*w));
	w->aside = aside;
	w->fd = fd;
	w->path = xstrdup(path);
	w->in = xmalloc(BUFFER_BYTES);
	if (form == LINES_ZSTD) {
		w->out = xmalloc(ZSTD_CStreamOutSize());
		w->zstd = ZSTD_createCCtx();
		if (!w->zstd)
			BUG("zstd has no memory for a stream");
		/* Level 1 keeps ahead of the tokenizer on one core; JSON still shrinks to a fifth or so. */
		ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, 1);
		ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1);
	} else {
		w->sha = sha256_new();
		w->other = xmalloc(BUFFER_BYTES);
	}
	return w;
}

static void writer_free(struct line_writer *w)
{
	char hex[SHA256_HEX_BYTES];

	aside_free(w->aside);
	if (w->sha)
		sha256_finish(w->sha, hex);
	ZSTD_freeCCtx(w->zstd);
	free(w->path);
	free(w->in);
	free(w->other);
	free(w->out);
	free(w);
}

void line_writer_abort(struct line_writer *w)
{
	if (!w)
		return;
	if (w->aside)
		aside_wait(w->aside);
	close(w->fd);
	writer_free(w);
}

static int write_all(struct line_writer *w, const unsigned char *p, size_t n, struct err *err)
{
	w->n_bytes += (int64_t)n;
	while (n > 0) {
		ssize_t k = write(w->fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return err_sys(err, ERR_STORAGE, "%s", w->path);
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

/* On the thread aside. */
static void write_full(void *arg)
{
	struct line_writer *w = arg;

	sha256_add(w->sha, w->full, w->n_full);
	if (write_all(w, w->full, w->n_full, &w->failure) < 0)
		return;
	if (w->n_bytes - w->n_handed_over >= WRITE_BACK_BYTES) {
		sync_file_range(w->fd, w->n_handed_over, w->n_bytes - w->n_handed_over, SYNC_FILE_RANGE_WRITE);
		w->n_handed_over = w->n_bytes;
	}
}

/* Until everything that was given is written. */
static int wait_written(struct line_writer *w, struct err *err)
{
	aside_wait(w->aside);
	return w->failure.code ? err_set(err, w->failure.code, "%s", w->failure.msg) : 0;
}

/* p, if it is not w->in, must be written when this returns. */
static int write_plain(struct line_writer *w, const void *p, size_t n, struct err *err)
{
	unsigned char *written = w->other;

	if (wait_written(w, err) < 0)
		return -1;
	w->full = p;
	w->n_full = n;
	aside_start(w->aside, write_full, w);
	if (p != w->in)
		return wait_written(w, err);
	w->other = w->in;
	w->in = written;
	return 0;
}

static int write_out(struct line_writer *w, const void *p, size_t n, ZSTD_EndDirective end, struct err *err)
{
	ZSTD_inBuffer in = {p, n, 0};
	size_t left;

	if (!w->zstd)
		return write_plain(w, p, n, err);
	do {
		ZSTD_outBuffer out = {w->out, ZSTD_CStreamOutSize(), 0};

		left = ZSTD_compressStream2(w->zstd, &out, &in, end);
		if (ZSTD_isError(left))
			return err_set(err, ERR_STORAGE, "%s: %s", w->path, ZSTD_getErrorName(left));
		if (write_all(w, w->out, out.pos, err) < 0)
			return -1;
	} while (end == ZSTD_e_end ? left > 0 : in.pos < in.size);
	return 0;
}

int line_writer_add(struct line_writer *w, const void *p, size_t n, struct err *err)
{
	if (w->n_in + n > BUFFER_BYTES) {
		if (write_out(w, w->in, w->n_in, ZSTD_e_continue, err) < 0)
			return -1;
		w->n_in = 0;
		if (n > BUFFER_BYTES)
			return write_out(w, p, n, ZSTD_e_continue, err);
	}
	if (n)
		memcpy(w->in + w->n_in, p, n);
	w->n_in += n;
	return 0;
}

int line_writer_close(struct line_writer *w, int64_t *n_bytes, char hex[SHA256_HEX_BYTES], struct err *err)
{
	int rc = write_out(w, w->in, w->n_in, ZSTD_e_end, err);

	if (w->aside && wait_written(w, err) < 0)
		rc = -1;
	if (rc == 0)
		sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	if (close(w->fd) < 0 && rc == 0)
		rc = err_sys(err, ERR_STORAGE, "%s", w->path);
	if (n_bytes)
		*n_bytes = w->n_bytes;
	if (w->sha && hex) {
		sha256_finish(w->sha, hex);
		w->sha = NULL;
	}
	writer_free(w);
	return rc;
}

struct line_reader {
	char *path;
	int fd;
	ZSTD_DCtx *zstd; /* NULL: plain */
	struct sha256 *sha;
	size_t frame_left; /* zstd's hint: 0 when a frame just ended */
	int64_t n_bytes, number;
	unsigned char *in; /* zstd only */
	size_t in_len, in_pos;
	char *text; /* the current line begins at pos */
	size_t cap, len, pos;
	int at_end;
	unsigned n_reopened;
	/* Plain: the block that is being read, and what came of it. While the thread is at it, these, n_bytes, sha and fd are its own. */
	struct aside *aside;
	unsigned char *block; /* [BUFFER_BYTES] */
	size_t block_len, block_pos;
	struct err failure;
};

static void read_block(void *arg);

struct line_reader *line_reader_open(const char *path, enum line_form form, struct err *err)
{
	struct line_reader *r;
	struct aside *aside = NULL;
	int fd;

	if (form == LINES_PLAIN && !(aside = aside_new(err)))
		return NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		err_sys(err, ERR_STORAGE, "%s", path);
		aside_free(aside);
		return NULL;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	r = xcalloc(1, sizeof(*r));
	r->fd = fd;
	r->path = xstrdup(path);
	r->cap = BUFFER_BYTES;
	r->text = xmalloc(r->cap);
	if (form == LINES_ZSTD) {
		r->in = xmalloc(ZSTD_DStreamInSize());
		r->zstd = ZSTD_createDCtx();
		if (!r->zstd)
			BUG("zstd has no memory for a stream");
		r->frame_left = 1;
	} else {
		r->sha = sha256_new();
		r->block = xmalloc(BUFFER_BYTES);
		r->aside = aside;
		aside_start(aside, read_block, r);
	}
	return r;
}

void line_reader_close(struct line_reader *r)
{
	char hex[SHA256_HEX_BYTES];

	if (!r)
		return;
	aside_free(r->aside);
	if (r->sha)
		sha256_finish(r->sha, hex);
	ZSTD_freeDCtx(r->zstd);
	close(r->fd);
	free(r->path);
	free(r->in);
	free(r->block);
	free(r->text);
	free(r);
}

/* After a failed read, a few times in a file. errno stays on failure. */
static int reopen(struct line_reader *r)
{
	int saved = errno, fd;

	if (r->n_reopened == 6)
		return -1;
	usleep(50000U << r->n_reopened++);
	fd = open(r->path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && lseek(fd, r->n_bytes, SEEK_SET) == r->n_bytes && dup2(fd, r->fd) >= 0) {
		close(fd);
		return 0;
	}
	if (fd >= 0)
		close(fd);
	errno = saved;
	return -1;
}

/* Up to n bytes of the file; 0 at its end. */
static ssize_t read_some(struct line_reader *r, void *p, size_t n, struct err *err)
{
	ssize_t k;

	/* A network file system may fail for a moment, or forget the handle: read on from the same place, with a new one. */
	while ((k = read(r->fd, p, n)) < 0 && (errno == EINTR || ((errno == EIO || errno == ESTALE) && reopen(r) == 0)))
		;
	if (k < 0)
		return err_sys(err, ERR_STORAGE, "%s", r->path);
	r->n_bytes += k;
	return k;
}

/* On the thread aside. */
static void read_block(void *arg)
{
	struct line_reader *r = arg;
	ssize_t k = read_some(r, r->block, BUFFER_BYTES, &r->failure);

	r->block_pos = 0;
	r->block_len = k < 0 ? 0 : (size_t)k;
	sha256_add(r->sha, r->block, r->block_len);
}

static int read_plain(struct line_reader *r, struct err *err)
{
	size_t room = r->cap - r->len, n;

	aside_wait(r->aside);
	if (r->failure.code)
		return err_set(err, r->failure.code, "%s", r->failure.msg);
	n = r->block_len - r->block_pos;
	r->at_end = n == 0;
	if (n > room)
		n = room;
	memcpy(r->text + r->len, r->block + r->block_pos, n);
	r->len += n;
	r->block_pos += n;
	if (n && r->block_pos == r->block_len)
		aside_start(r->aside, read_block, r);
	return 0;
}

/* More text behind len; sets at_end. */
static int read_more(struct line_reader *r, struct err *err)
{
	ZSTD_outBuffer out = {r->text + r->len, r->cap - r->len, 0};

	if (!r->zstd)
		return read_plain(r, err);
	while (out.pos == 0) {
		ZSTD_inBuffer in;

		if (r->in_pos == r->in_len) {
			ssize_t k = read_some(r, r->in, ZSTD_DStreamInSize(), err);

			if (k < 0)
				return -1;
			if (k == 0) {
				r->at_end = 1;
				return r->frame_left ? err_set(err, ERR_STORAGE, "%s: ends in the middle of a zstd frame", r->path) : 0;
			}
			r->in_pos = 0;
			r->in_len = (size_t)k;
		}
		in = (ZSTD_inBuffer){r->in, r->in_len, r->in_pos};
		r->frame_left = ZSTD_decompressStream(r->zstd, &out, &in);
		if (ZSTD_isError(r->frame_left))
			return err_set(err, ERR_STORAGE, "%s: damaged: %s", r->path, ZSTD_getErrorName(r->frame_left));
		r->in_pos = in.pos;
	}
	r->len += out.pos;
	return 0;
}

int line_reader_next(struct line_reader *r, const char **line, size_t *n, struct err *err)
{
	size_t searched = 0;

	for (;;) {
		char *nl = memchr(r->text + r->pos + searched, '\n', r->len - r->pos - searched);

		if (nl) {
			*line = r->text + r->pos;
			*n = (size_t)(nl - *line);
			r->pos += *n + 1;
			r->number++;
			return 1;
		}
		searched = r->len - r->pos;
		if (r->at_end)
			return searched ? err_set(err, ERR_STORAGE, "%s: line %lld is cut off", r->path, (long long)r->number + 1) : 0;
		if (r->pos > 0) {
			memmove(r->text, r->text + r->pos, searched);
			r->len = searched;
			r->pos = 0;
		}
		if (r->len == r->cap) {
			if (r->cap >= MAX_LINE_BYTES)
				return err_set(err, ERR_STORAGE, "%s: line %lld is longer than %zu bytes", r->path, (long long)r->number + 1,
				               MAX_LINE_BYTES);
			r->cap *= 2;
			r->text = xrealloc(r->text, r->cap);
		}
		if (read_more(r, err) < 0)
			return -1;
	}
}

int64_t line_reader_number(const struct line_reader *r)
{
	return r->number;
}

void line_reader_sum(struct line_reader *r, int64_t *n_bytes, char hex[SHA256_HEX_BYTES])
{
	aside_wait(r->aside);
	*n_bytes = r->n_bytes;
	sha256_finish(r->sha, hex);
	r->sha = NULL;
}
