/* errors.c: the error value, and the one table of scopes, exit codes and failure policies. */
#include "base/errors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	enum err_scope scope;
	int exit_code;
	enum err_pod_policy policy;
} table[ERR_N_CODES] = {
	[ERR_NONE] = {"none", ERR_SCOPE_NONE, 0, ERR_POD_COUNT},
	[ERR_USAGE] = {"usage", ERR_SCOPE_JOB, 1, ERR_POD_COUNT},
	[ERR_OTHER] = {"other", ERR_SCOPE_SHARD, 1, ERR_POD_COUNT},
	[ERR_ROW] = {"row", ERR_SCOPE_ROW, 1, ERR_POD_COUNT},
	[ERR_RETRY] = {"retry", ERR_SCOPE_RETRY, 1, ERR_POD_COUNT},
	[ERR_INPUT] = {"input", ERR_SCOPE_JOB, 64, ERR_POD_FAIL_JOB},
	[ERR_FINGERPRINT] = {"fingerprint", ERR_SCOPE_JOB, 65, ERR_POD_FAIL_JOB},
	[ERR_MODEL] = {"model", ERR_SCOPE_JOB, 66, ERR_POD_FAIL_JOB},
	[ERR_BUDGET] = {"budget", ERR_SCOPE_JOB, 67, ERR_POD_FAIL_JOB},
	[ERR_ENGINE] = {"engine", ERR_SCOPE_SHARD, 70, ERR_POD_COUNT},
	[ERR_STORAGE] = {"storage", ERR_SCOPE_SHARD, 74, ERR_POD_COUNT},
	[ERR_FENCED] = {"fenced", ERR_SCOPE_SHARD, 75, ERR_POD_IGNORE},
	[ERR_DRAINED] = {"drained", ERR_SCOPE_SHARD, 143, ERR_POD_IGNORE},
};

/* Cut at the last whole UTF-8 character that fits, and keep the message on one line. */
static void tidy(char *s, size_t cap)
{
	size_t n = strlen(s);

	if (n == cap - 1) {
		while (n > 0 && ((unsigned char)s[n - 1] & 0xC0) == 0x80)
			n--;
		if (n > 0 && ((unsigned char)s[n - 1] & 0x80))
			n--;
		s[n] = '\0';
	}
	for (; *s; s++)
		if (*s == '\n' || *s == '\r')
			*s = ' ';
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
	va_list ap;

	if (!err || err->code != ERR_NONE)
		return -1;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	tidy(err->msg, sizeof(err->msg));
	return -1;
}

int err_sys(struct err *err, enum err_code code, const char *fmt, ...)
{
	int saved = errno;
	size_t n;
	va_list ap;

	if (!err || err->code != ERR_NONE)
		return -1;
	switch (saved) {
	case ENOSPC:
	case EDQUOT:
	case EIO:
	case ESTALE:
	case EROFS:
		code = ERR_STORAGE;
		break;
	}
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", strerror(saved));
	tidy(err->msg, sizeof(err->msg));
	errno = saved;
	return -1;
}

int err_context(struct err *err, const char *fmt, ...)
{
	char old[sizeof(err->msg)];
	size_t n;
	va_list ap;

	if (!err || err->code == ERR_NONE)
		return -1;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", old);
	tidy(err->msg, sizeof(err->msg));
	return -1;
}

void err_clear(struct err *err)
{
	err->code = ERR_NONE;
	err->msg[0] = '\0';
}

enum err_scope err_scope(enum err_code code)
{
	return table[code].scope;
}

int err_exit_code(enum err_code code)
{
	return table[code].exit_code;
}

enum err_pod_policy err_pod_policy(enum err_code code)
{
	return table[code].policy;
}

const char *err_code_name(enum err_code code)
{
	return table[code].name;
}

void err_bug(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "tokenmill: bug at %s:%d: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}
