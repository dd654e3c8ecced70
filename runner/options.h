/* options.h: command-line options from a table, which is also the help text.
 *
 * --name value, --name=value, -x value; flags take no value; "--" ends the options; options and arguments may be mixed. An
 * unknown option is refused with the closest known one as a hint.
 */
#ifndef TOKENMILL_RUNNER_OPTIONS_H
#define TOKENMILL_RUNNER_OPTIONS_H

#include <stddef.h>
#include <stdio.h>

#include "base/errors.h"

enum option_kind {
	OPTION_FLAG = 1,   /* int: 1 */
	OPTION_STRING = 2, /* const char *: borrowed from argv */
	OPTION_INT = 3,    /* int64_t within [min, max] */
	OPTION_NUMBER = 4, /* double within [min, max] */
	OPTION_SIZE = 5,   /* size_t bytes: "4G", "512M", "1.5G", "1000" */
	OPTION_CHOICE = 6, /* int: position of the word in `choices`, from 1 */
	OPTION_LIST = 7,   /* struct option_list: may be given several times */
	OPTION_PASS = 8,   /* struct option_list: for another command that has this option; it is a flag there when `value` is NULL */
};

struct option_list {
	const char *items[64]; /* borrowed from argv; of OPTION_PASS the option's name, then the value (NULL: none) */
	int n;
};

struct option_spec {
	const char *name; /* without dashes; NULL ends the table */
	char letter;      /* 0: none */
	enum option_kind kind;
	size_t offset;     /* of the field in the command's own struct */
	const char *value; /* name of the value in the help, NULL for a flag */
	const char *help;
	double min, max;
	const char *choices; /* "f32|fast" */
};

struct command {
	const char *name;      /* may have two words: "model info" */
	const char *arguments; /* "--model MODEL -o OUT IN..." */
	const char *summary;   /* one line */
	const char *details;   /* further paragraphs of the help, or NULL */
	const struct option_spec *options;
	size_t options_bytes;        /* sizeof the command's struct, which is zeroed, given to init and then filled */
	void (*init)(void *options); /* sets values that are not 0 when not given; NULL: none */
	/* args: what is no option. Returns the exit status, or -1 and *err. */
	int (*run)(const void *options, char **args, int n_args, struct err *err);
};

/* 0; 1 when help was asked for; -1 and ERR_USAGE. args gets pointers into argv, room for argc. */
int options_parse(const struct command *c, void *out, int argc, char **argv, char **args, int *n_args, struct err *err);
void options_help(const struct command *c, FILE *f);

/* The name in names[0, n) that is closest to what was typed, NULL when none is near. */
const char *options_nearest(const char *typed, const char *const *names, size_t n);

/* "4G" -> bytes; K, M, G, T are powers of 1024, "iB" or "B" may follow. -1 when it is not a size. */
int options_read_size(const char *text, size_t *out);

#endif
