/* fake_options.c: the fake engine's key=value list. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_fake.h"

void fake_options_init(struct fake_options *o)
{
	*o = (struct fake_options){.shortest = 20, .longest = 200, .slow_factor = 1};
}

/* A number within [min, max] that ends at one of the bytes in `ends`, or at the end of the text. Returns where it ended, NULL.
 */
static const char *read_number(const char *s, double min, double max, const char *ends, double *out)
{
	char *end;

	errno = 0;
	if ((*s < '0' || *s > '9') && *s != '.')
		return NULL;
	*out = strtod(s, &end);
	if (errno || end == s || !(*out >= min && *out <= max) || (*end && !strchr(ends, *end)))
		return NULL;
	return end;
}

static const char *read_whole(const char *s, double min, double max, const char *ends, int64_t *out)
{
	double x;
	const char *end = read_number(s, min, max, ends, &x);

	*out = end ? (int64_t)x : 0;
	return end && (double)*out == x ? end : NULL;
}

static int read_tokens(struct fake_options *o, const char *s)
{
	int64_t from, to;
	const char *end = read_whole(s, 0, 1e6, "-", &from);

	if (!end)
		return -1;
	to = from;
	if (*end && (!(end = read_whole(end + 1, (double)from, 1e6, "", &to)) || *end))
		return -1;
	o->shortest = (int32_t)from;
	o->longest = (int32_t)to;
	return 0;
}

static int read_slow(struct fake_options *o, const char *s)
{
	int64_t factor;
	const char *end = read_number(s, 0, 1, ":", &o->slow_share);

	if (!end || *end != ':' || !read_whole(end + 1, 1, 1e6, "", &factor))
		return -1;
	o->slow_factor = (int32_t)factor;
	return 0;
}

static int read_crash_after(struct fake_options *o, const char *s)
{
	double x;
	const char *end = read_number(s, 0.001, 1e12, "s", &x);

	if (!end || (*end && end[1]))
		return -1;
	if (*end)
		o->crash_after_s = x;
	else
		o->crash_after_rows = (int64_t)x;
	return *end || (o->crash_after_rows >= 1 && (double)o->crash_after_rows == x) ? 0 : -1;
}

static int read_fail(struct fake_options *o, const char *s)
{
	return read_number(s, 0, 1, "", &o->fail_share) ? 0 : -1;
}

static int read_rate(struct fake_options *o, const char *s)
{
	return read_number(s, 0, 1e12, "", &o->rate) ? 0 : -1;
}

static int read_load(struct fake_options *o, const char *s)
{
	return read_number(s, 0, 86400, "", &o->load_s) ? 0 : -1;
}

static int read_batch(struct fake_options *o, const char *s)
{
	int64_t n;

	if (!read_whole(s, 1, 4096, "", &n))
		return -1;
	o->max_batch = (int32_t)n;
	return 0;
}

static int read_word(char *to, size_t room, const char *s)
{
	return *s && (size_t)snprintf(to, room, "%s", s) < room ? 0 : -1;
}

static int read_crash(struct fake_options *o, const char *s)
{
	return read_word(o->crash_word, sizeof(o->crash_word), s);
}

static int read_hang(struct fake_options *o, const char *s)
{
	return read_word(o->hang_word, sizeof(o->hang_word), s);
}

static const struct fake_key {
	const char *name, *form;
	int (*read)(struct fake_options *o, const char *s);
} keys[] = {
    {"tokens", "MIN-MAX, at most 1000000", read_tokens},
    {"fail", "a share from 0 to 1", read_fail},
    {"rate", "tokens a second", read_rate},
    {"batch", "1 to 4096", read_batch},
    {"load", "seconds", read_load},
    {"slow", "SHARE:FACTOR, a share from 0 to 1 and a whole number from 1", read_slow},
    {"crash", "a word of at most 63 bytes", read_crash},
    {"hang", "a word of at most 63 bytes", read_hang},
    {"crash-after", "a number of rows, or of seconds such as 10s", read_crash_after},
};
enum { N_KEYS = sizeof(keys) / sizeof(*keys) };

static int refuse_key(const char *name, size_t n, struct err *err)
{
	struct buf known = {0};

	for (size_t i = 0; i < N_KEYS; i++)
		buf_addf(&known, "%s%s", i ? ", " : "", keys[i].name);
	err_set(err, ERR_USAGE, "the fake engine has no option '%.*s'; it has %s", (int)(n > 60 ? 60 : n), name, known.data);
	buf_release(&known);
	return -1;
}

/* text: n bytes of key=value. */
static int read_one(struct fake_options *o, const char *text, size_t n, struct err *err)
{
	const char *equals = memchr(text, '=', n);
	size_t n_name = equals ? (size_t)(equals - text) : n;
	char value[80];

	for (size_t i = 0; i < N_KEYS; i++) {
		if (strlen(keys[i].name) != n_name || memcmp(keys[i].name, text, n_name) != 0)
			continue;
		if (!equals)
			return err_set(err, ERR_USAGE, "the fake engine's option %s needs a value: %s=%s", keys[i].name, keys[i].name,
			               keys[i].form);
		snprintf(value, sizeof(value), "%.*s", (int)(n - n_name - 1), equals + 1);
		if (n - n_name - 1 >= sizeof(value) || keys[i].read(o, value) < 0)
			return err_set(err, ERR_USAGE, "the fake engine's option %s is '%s', must be %s", keys[i].name, value,
			               keys[i].form);
		return 0;
	}
	return refuse_key(text, n_name, err);
}

int fake_options_read(struct fake_options *o, const char *text, struct err *err)
{
	while (*text) {
		size_t n = strcspn(text, ",");

		if (read_one(o, text, n, err) < 0)
			return -1;
		text += n + (text[n] == ',');
	}
	return 0;
}

void fake_options_identity(const struct fake_options *o, struct buf *out)
{
	buf_addf(out, "tokens=%d-%d,fail=%.17g", o->shortest, o->longest, o->fail_share);
}
