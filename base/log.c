/* log.c: lines to stderr, whole ones, and a status line that stays at the bottom of a terminal. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_level level = LOG_INFO;
static int status_shown;

void log_set_level(enum log_level l)
{
	level = l;
}

int log_is_terminal(void)
{
	return isatty(STDERR_FILENO);
}

static void clear_status(void)
{
	if (status_shown)
		fputs("\r\033[K", stderr);
	status_shown = 0;
}

void log_status(const char *line)
{
	if (!log_is_terminal())
		return;
	pthread_mutex_lock(&lock);
	clear_status();
	if (line) {
		fputs(line, stderr);
		status_shown = 1;
	}
	fflush(stderr);
	pthread_mutex_unlock(&lock);
}

static void line_out(const char *prefix, const char *fmt, va_list ap)
{
	struct buf b = {0};

	buf_adds(&b, prefix);
	buf_vaddf(&b, fmt, ap);
	buf_addc(&b, '\n');
	pthread_mutex_lock(&lock);
	clear_status();
	fwrite(b.data, 1, b.len, stderr);
	fflush(stderr);
	pthread_mutex_unlock(&lock);
	buf_release(&b);
}

#define DEFINE_LOG(name, min_level, prefix)                                                            \
	void name(const char *fmt, ...)                                                                    \
	{                                                                                                  \
		va_list ap;                                                                                    \
                                                                                                       \
		if (level < (min_level))                                                                       \
			return;                                                                                    \
		va_start(ap, fmt);                                                                             \
		line_out(prefix, fmt, ap);                                                                     \
		va_end(ap);                                                                                    \
	}

DEFINE_LOG(log_error, LOG_QUIET, "tokenmill: error: ")
DEFINE_LOG(log_warn, LOG_INFO, "tokenmill: warning: ")
DEFINE_LOG(log_info, LOG_INFO, "tokenmill: ")
DEFINE_LOG(log_debug, LOG_DEBUG, "tokenmill: debug: ")
