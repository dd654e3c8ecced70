/* options.c: the parser and the help text. */
#include "runner/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Letters to change, add or drop to get from a to b (Levenshtein). */
static size_t edit_distance(const char *a, const char *b)
{
	size_t n = strlen(b), above, left;
	size_t row[64];

	if (n >= 63 || strlen(a) >= 63)
		return 64;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			above = row[j];
			left = row[j - 1];
			row[j] = diagonal + (a[i - 1] != b[j - 1]);
			if (above + 1 < row[j])
				row[j] = above + 1;
			if (left + 1 < row[j])
				row[j] = left + 1;
			diagonal = above;
		}
	}
	return row[n];
}

const char *options_nearest(const char *typed, const char *const *names, size_t n)
{
	size_t best = strlen(typed) / 2 < 3 ? strlen(typed) / 2 : 3;
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t d = edit_distance(typed, names[i]);

		if (d <= best && (!found || d < best)) {
			best = d;
			found = names[i];
		}
	}
	return found;
}

int options_read_size(const char *text, size_t *out)
{
	static const char units[] = "KMGT";
	char *end;
	double x;
	const char *unit;

	errno = 0;
	if (*text < '0' || *text > '9')
		return -1;
	x = strtod(text, &end);
	if (*end && (unit = strchr(units, *end >= 'a' ? *end - 32 : *end))) {
		x *= pow(1024, (double)(unit - units) + 1);
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B' || *end == 'b')
		end++;
	if (*end || errno || !(x >= 0 && x < 9e18))
		return -1;
	*out = (size_t)x;
	return 0;
}

static int read_choice(const struct option_spec *o, const char *text, int *out)
{
	const char *p = o->choices;

	for (int i = 1;; i++) {
		size_t n = strcspn(p, "|");

		if (strlen(text) == n && memcmp(text, p, n) == 0) {
			*out = i;
			return 0;
		}
		if (!p[n])
			return -1;
		p += n + 1;
	}
}

static int store(const struct option_spec *o, void *out, const char *text, struct err *err)
{
	void *field = (char *)out + o->offset;
	char *end;

	errno = 0;
	switch (o->kind) {
	case OPTION_FLAG:
		*(int *)field = 1;
		return 0;
	case OPTION_STRING:
		*(const char **)field = text;
		return 0;
	case OPTION_INT: {
		long long n = strtoll(text, &end, 10);

		if (!*text || *end || errno || (double)n < o->min || (double)n > o->max)
			return err_set(err, ERR_USAGE, "--%s must be an integer from %.0f to %.0f, it is '%s'", o->name, o->min, o->max,
			               text);
		*(int64_t *)field = n;
		return 0;
	}
	case OPTION_NUMBER: {
		double x = strtod(text, &end);

		if (!*text || *end || errno || !(x >= o->min && x <= o->max))
			return err_set(err, ERR_USAGE, "--%s must be a number from %g to %g, it is '%s'", o->name, o->min, o->max, text);
		*(double *)field = x;
		return 0;
	}
	case OPTION_SIZE:
		if (options_read_size(text, field) < 0 || *(size_t *)field == 0)
			return err_set(err, ERR_USAGE, "--%s must be a size like 512M or 4G, it is '%s'", o->name, text);
		return 0;
	case OPTION_LIST: {
		struct option_list *list = field;

		if (list->n == (int)(sizeof(list->items) / sizeof(list->items[0])))
			return err_set(err, ERR_USAGE, "--%s is given more than %d times", o->name, list->n);
		list->items[list->n++] = text;
		return 0;
	}
	case OPTION_PASS: {
		struct option_list *list = field;

		if (list->n + 2 > (int)(sizeof(list->items) / sizeof(list->items[0])))
			return err_set(err, ERR_USAGE, "--%s: too many options", o->name);
		list->items[list->n++] = o->name;
		list->items[list->n++] = text;
		return 0;
	}
	case OPTION_CHOICE:
		if (read_choice(o, text, field) < 0)
			return err_set(err, ERR_USAGE, "--%s must be one of %s, it is '%s'", o->name, o->choices, text);
		return 0;
	}
	BUG("option --%s has no kind", o->name);
}

static int unknown(const struct command *c, const char *arg, struct err *err)
{
	const char *names[128], *near = NULL;
	size_t n = 0;

	for (const struct option_spec *o = c->options; o->name && n < 128; o++)
		names[n++] = o->name;
	if (arg[1] == '-') {
		char name[64];

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
		near = options_nearest(name, names, n);
	}
	if (near)
		return err_set(err, ERR_USAGE, "unknown option %s (did you mean --%s?); see tokenmill %s --help", arg, near, c->name);
	return err_set(err, ERR_USAGE, "unknown option %s; see tokenmill %s --help", arg, c->name);
}

static const struct option_spec *option_find(const struct command *c, const char *arg, const char **value)
{
	*value = NULL;
	for (const struct option_spec *o = c->options; o->name; o++) {
		size_t n = strlen(o->name);

		if (arg[1] == '-' && strncmp(arg + 2, o->name, n) == 0 && (arg[2 + n] == '\0' || arg[2 + n] == '=')) {
			*value = arg[2 + n] ? arg + 3 + n : NULL;
			return o;
		}
		if (arg[1] != '-' && o->letter && arg[1] == o->letter) {
			*value = arg[2] ? arg + 2 : NULL;
			return o;
		}
	}
	return NULL;
}

int options_parse(const struct command *c, void *out, int argc, char **argv, char **args, int *n_args, struct err *err)
{
	*n_args = 0;
	for (int i = 0; i < argc; i++) {
		const struct option_spec *o;
		const char *value;
		int has_value;

		if (strcmp(argv[i], "--") == 0) {
			while (++i < argc)
				args[(*n_args)++] = argv[i];
			break;
		}
		if (argv[i][0] != '-' || !argv[i][1]) {
			args[(*n_args)++] = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return 1;
		o = option_find(c, argv[i], &value);
		if (!o)
			return unknown(c, argv[i], err);
		has_value = o->kind == OPTION_PASS ? o->value != NULL : o->kind != OPTION_FLAG;
		if (!has_value && value)
			return err_set(err, ERR_USAGE, "--%s takes no value", o->name);
		if (has_value && !value) {
			if (i + 1 >= argc)
				return err_set(err, ERR_USAGE, "--%s needs a value (%s)", o->name, o->value);
			value = argv[++i];
		}
		if (store(o, out, value, err) < 0)
			return -1;
	}
	return 0;
}

void options_help(const struct command *c, FILE *f)
{
	fprintf(f, "usage: tokenmill %s %s\n\n%s\n", c->name, c->arguments, c->summary);
	if (c->details)
		fprintf(f, "\n%s\n", c->details);
	if (c->options->name)
		fprintf(f, "\noptions:\n");
	for (const struct option_spec *o = c->options; o->name; o++) {
		char left[80];

		if (o->letter)
			snprintf(left, sizeof(left), "-%c, --%s%s%s", o->letter, o->name, o->value ? " " : "", o->value ? o->value : "");
		else
			snprintf(left, sizeof(left), "    --%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
		fprintf(f, "  %-30s %s\n", left, o->help);
	}
}
