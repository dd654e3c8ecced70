/* input.h: rows as lines, from whatever holds them.
 *
 * An argument of the command line (file, glob, directory, "-") becomes a list of files; each file is read as a stream of lines.
 * What is inside is recognised by content, not by name: plain text, gzip, zstd, bzip2, xz, or a tar archive (compressed or not)
 * whose members are plain or compressed. libarchive does all of that. Memory is one line and a read buffer, whatever the size
 * of the file.
 *
 *     input_list_add -> paths -> input_open -> input_next ... -> input_close
 *
 * Lines end in LF or CRLF; a byte order mark at the start of a source and lines of white space are skipped. One thread per
 * struct input.
 */
#ifndef TOKENMILL_RUNNER_INPUT_H
#define TOKENMILL_RUNNER_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "base/hash.h"

#define INPUT_MAX_LINE_BYTES ((size_t)64 << 20)

struct input_list { /* zero-initialise; free with input_list_release */
	char **paths;   /* "-" is standard input, at most once */
	size_t n, cap;
	const char *output; /* where the results go: borrowed, may be NULL or not exist yet */
};
/* A directory gives its row files (*.jsonl, *.ndjson, *.json, *.jsonl.gz, *.tar.zst, ... see input.c) at any depth, in the
 * order of their names; hidden ones are left out, and so are job directories in it: the output is often beside the input, and
 * the same command must find the same files again. A pattern gives the files it matches, sorted. ERR_INPUT, naming arg, when it
 * is not there, cannot be read or gives no file; the list is then as before. */
int input_list_add(struct input_list *l, const char *arg, struct err *err);
void input_list_release(struct input_list *l);

struct input_line {
	const char *text; /* not NUL-terminated; borrowed until the next call */
	size_t n;
	const char *source; /* path, or "path!member"; borrowed until the next call */
	int64_t line;       /* 1-based in that source, skipped ones counted */
	int too_long;       /* over the maximum: text is its first bytes, the rest was skipped */
};

struct input;
/* max_line_bytes: 0 for INPUT_MAX_LINE_BYTES. NULL and *err (ERR_INPUT) when the file cannot be opened. */
struct input *input_open(const char *path, size_t max_line_bytes, struct err *err);
/* 1 and *out, 0 at the end, -1 and ERR_INPUT when the file is damaged (naming it and the line). */
int input_next(struct input *in, struct input_line *out, struct err *err);
/* After the end: SHA-256 over the decompressed content (members one after another, each preceded by a NUL), and its bytes. */
void input_digest(struct input *in, char hex[SHA256_HEX_BYTES], int64_t *n_bytes);
void input_close(struct input *in);

#endif
