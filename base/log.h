/* log.h: chatter, to stderr, one line each. Results never go through here. Any thread may call. */
#ifndef TOKENMILL_BASE_LOG_H
#define TOKENMILL_BASE_LOG_H

enum log_level {
	LOG_QUIET = 0, /* errors only */
	LOG_INFO = 1,  /* what a user wants to see */
	LOG_DEBUG = 2,
};

void log_set_level(enum log_level level);

/* A line that is redrawn in place on a terminal (progress). log_* calls clear it first and it is drawn again by the
 * next log_status. NULL removes it. Does nothing when stderr is not a terminal. */
void log_status(const char *line);
int log_is_terminal(void); /* stderr is a terminal */

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "tokenmill: error: ..." */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
