/* main.c: the only place that knows every subcommand, and the only one that decides the exit status. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "runner/commands.h"
#include "runner/termination.h"
#include "runner/version.h"

static const struct command *const commands[] = {
    &command_plan,   &command_run,   &command_bench,  &command_model_info,   &command_tokenize, &command_detokenize,
    &command_render, &command_merge, &command_verify, &command_retry_failed, &command_report,
    &command_submit, &command_jobs,  &command_status, &command_watch,        &command_logs,     &command_fetch,
    &command_scale,  &command_suspend, &command_resume, &command_cancel,     &command_delete,
};
enum { N_COMMANDS = sizeof(commands) / sizeof(*commands) };

static void help(FILE *f)
{
	fprintf(f, "tokenmill %s: run a language model over a file of prompts\n\nusage: tokenmill COMMAND ...\n\n",
	        TOKENMILL_VERSION);
	for (int i = 0; i < N_COMMANDS; i++)
		fprintf(f, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
	fprintf(f, "\n`tokenmill COMMAND --help` has the options. `tokenmill --version` prints the version.\n");
}

/* The command that argv begins with, and how many words its name has. */
static const struct command *command_find(int argc, char **argv, int *n_words)
{
	for (int i = 0; i < N_COMMANDS; i++) {
		const char *name = commands[i]->name, *space = strchr(name, ' ');
		size_t first = space ? (size_t)(space - name) : strlen(name);

		if (argc < 1 || strlen(argv[0]) != first || memcmp(argv[0], name, first) != 0)
			continue;
		*n_words = space ? 2 : 1;
		if (!space || (argc > 1 && strcmp(argv[1], space + 1) == 0))
			return commands[i];
	}
	return NULL;
}

static int unknown(const char *word)
{
	const char *names[N_COMMANDS], *near;

	for (int i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i]->name;
	near = options_nearest(word, names, N_COMMANDS);
	if (strcmp(word, "model") == 0)
		log_error("model needs a second word: tokenmill model info MODEL");
	else if (near)
		log_error("unknown command '%s' (did you mean '%s'?); see tokenmill help", word, near);
	else
		log_error("unknown command '%s'; see tokenmill help", word);
	return err_exit_code(ERR_USAGE);
}

static int run(const struct command *c, int argc, char **argv)
{
	struct err err = {0};
	void *options = xcalloc(1, c->options_bytes);
	char **args = xcalloc((size_t)argc + 1, sizeof(*args));
	int n_args, status;

	if (c->init)
		c->init(options);
	status = options_parse(c, options, argc, argv, args, &n_args, &err);
	if (status < 0 && c == &command_run) {
		struct termination t = {.status = termination_status(status, &err), .name = err_code_name(err.code), .message = err.msg};

		termination_write(&t);
	}
	if (status == 1) {
		options_help(c, stdout);
		status = 0;
	} else if (status == 0) {
		status = c->run(options, args, n_args, &err);
	}
	if (status < 0) {
		if (err.code == ERR_DRAINED)
			log_info("%s", err.msg);
		else
			log_error("%s", err.msg);
		status = termination_status(status, &err);
	}
	free(args);
	free(options);
	return status;
}

/* Started without standard input, output or error, the next file opened, one of a job, would get its number and our
 * messages. */
static void hold_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	const struct command *c;
	int n_words, is_help = 0;

	hold_standard_files();
	argc--;
	argv++;
	if (argc > 0 && (strcmp(argv[0], "help") == 0 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
		is_help = 1;
		argc--;
		argv++;
	}
	if (argc == 0) {
		help(is_help ? stdout : stderr);
		return is_help ? 0 : err_exit_code(ERR_USAGE);
	}
	if (strcmp(argv[0], "--version") == 0 || strcmp(argv[0], "version") == 0) {
		printf("tokenmill %s\n", TOKENMILL_VERSION);
		return 0;
	}
	c = command_find(argc, argv, &n_words);
	if (!c)
		return unknown(argv[0]);
	if (is_help) {
		options_help(c, stdout);
		return 0;
	}
	return run(c, argc - n_words, argv + n_words);
}
