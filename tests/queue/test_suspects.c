/* Which rows may run after crashes: cases, and a simulation of attempts that crash whenever a poison row is in flight. */
#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/suspects.h"

/* "1 2 3;4 5;*6;?7" : crashes, * for one that ran alone, ? for one of which it is not known that it was a crash. */
static size_t read_crashes(const char *text, struct crash *crashes, int64_t *rows)
{
	size_t n = 0;

	for (const char *p = text; *p; n++) {
		crashes[n] = (struct crash){.rows = rows};
		for (; *p && *p != ';'; p++) {
			if (*p == '*' || *p == '?')
				crashes[n].is_alone = 1;
			crashes[n].is_proven |= *p == '*';
			if (*p >= '0' && *p <= '9') {
				char *end;

				crashes[n].rows[crashes[n].n++] = strtol(p, &end, 10);
				p = end - 1;
			}
		}
		rows += crashes[n].n;
		p += *p == ';';
	}
	return n;
}

/* "1 2|3 4|*5 !6": parts, alone ones with a star, poison with an exclamation mark */
static void describe(const struct suspects *s, char *out)
{
	char *p = out;

	for (int part = 0; part < s->n_parts; part++) {
		if (part)
			*p++ = '|';
		for (size_t i = 0, n = 0; i < s->n; i++)
			if (s->rows[i].part == part)
				p += sprintf(p, "%s%s%d", n++ ? " " : "", part >= s->first_alone ? "*" : "", (int)s->rows[i].row);
	}
	for (size_t i = 0; i < s->n; i++)
		if (s->rows[i].part == SUSPECT_POISON)
			p += sprintf(p, "!%d", (int)s->rows[i].row);
	*p = '\0';
}

TEST(cases)
{
	static const struct {
		const char *crashes, *parts;
	} table[] = {
		{"", ""},
		{"7", ""},                          /* one row, once: as good as no sign */
		{"1 2 3 4", "1 2|3 4"},
		{"1 2 3 4 5", "1 2 3|4 5"},
		{"1 2 3 4;1 2", "1|2|3|4"},         /* tested: 1 2; the others are still suspect */
		{"1 2 3 4;1 2;1", "3|4|*1|*2"},     /* 2 was there twice as well */
		{"1 2 3 4;1 2;1;*1", "3|4|*1|*2"},
		{"1 2 3 4;1 2;1;*1;*1", "3|4|*2!1"},
		{"1 2 3 4;1 2 8 9", "1|2|3|4|8|9"}, /* 8 or 9 may be the cause as well, and no longer run beside the test */
		{"1 2 3 4;8 9", "1 2|3 4|8|9"},     /* a crash of its own */
		{"5;5", "*5"},
		{"5;5;*5;*5", "!5"},
		{"5;5;?5;?5;?5;?5", "*5"},          /* killed while it ran alone: may be chance */
		{"5;5;?5;?5;?5;*5", "*5"},
		{"5;5;?5;?5;?5;?5;?5", "!5"},
		{"3 3 3", ""},                      /* a note may say it twice */
		{";;1 2;", "1|2"},                  /* attempts that left nothing */
	};
	struct crash crashes[8];
	int64_t rows[64];
	char found[256];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct suspects s;

		suspects_judge(&s, crashes, read_crashes(table[i].crashes, crashes, rows));
		describe(&s, found);
		CHECK_STR(found, table[i].parts);
		suspects_release(&s);
	}
}

/* ---- attempts ---- */

struct world {
	int n_rows, in_flight, n_poison;
	char *is_poison, *is_done;
	struct crash crashes[1000];
	size_t n_crashes;
};

static void crash_add(struct world *w, const int64_t *rows, size_t n, int is_alone)
{
	struct crash *c = &w->crashes[w->n_crashes++];

	*c = (struct crash){.is_alone = is_alone, .is_proven = is_alone, .rows = xmalloc((n + 1) * sizeof(*rows)), .n = n};
	memcpy(c->rows, rows, n * sizeof(*rows));
}

/* Run these rows, `in_flight` at a time. 1: crashed. What ended before is done; a crash comes with the whole window in flight. */
static int run_rows(struct world *w, const int64_t *rows, size_t n, int is_alone)
{
	for (size_t at = 0; at < n; at += (size_t)w->in_flight) {
		size_t k = n - at < (size_t)w->in_flight ? n - at : (size_t)w->in_flight;
		int crashes = 0;

		for (size_t i = 0; i < k; i++)
			crashes |= w->is_poison[rows[at + i]];
		if (crashes) {
			crash_add(w, rows + at, k, is_alone);
			return 1;
		}
		for (size_t i = 0; i < k; i++)
			w->is_done[rows[at + i]] = 1;
	}
	return 0;
}

/* One attempt, as shard_next gives rows; part by part, and before each part the rows that nobody suspects are mixed in. 1: it crashed. */
static int attempt(struct world *w, const struct suspects *s)
{
	int64_t *rows = xmalloc((size_t)w->n_rows * sizeof(*rows));
	int crashed = 0;

	for (int part = s->first_alone > 0 ? 0 : -1; part < s->n_parts && !crashed; part++) {
		size_t n = 0;

		for (int row = 0; row < w->n_rows; row++) {
			int p = suspects_part(s, row);

			if (!w->is_done[row] && p == SUSPECT_POISON) {
				CHECK(w->is_poison[row]); /* never an innocent one */
				w->is_done[row] = 1;
				w->n_poison--;
			} else if (!w->is_done[row] && p <= part) {
				rows[n++] = row;
			}
		}
		crashed = run_rows(w, rows, n, s->n_parts && part >= s->first_alone);
	}
	if (s->n_parts == 0 && !crashed) {
		size_t n = 0;

		for (int row = 0; row < w->n_rows; row++)
			if (!w->is_done[row])
				rows[n++] = row;
		crashed = run_rows(w, rows, n, 0);
	}
	free(rows);
	return crashed;
}

static void judge(const struct world *w, struct suspects *s)
{
	struct crash *seen = xcalloc(w->n_crashes + 1, sizeof(*seen));

	for (size_t i = 0; i < w->n_crashes; i++) {
		seen[i] = (struct crash){.is_alone = w->crashes[i].is_alone, .is_proven = w->crashes[i].is_proven, .rows = xmalloc((w->crashes[i].n + 1) * sizeof(int64_t))};
		for (size_t k = 0; k < w->crashes[i].n; k++)
			if (!w->is_done[w->crashes[i].rows[k]])
				seen[i].rows[seen[i].n++] = w->crashes[i].rows[k];
		seen[i].is_alone &= seen[i].n == 1;
	}
	suspects_judge(s, seen, w->n_crashes);
	for (size_t i = 0; i < w->n_crashes; i++)
		free(seen[i].rows);
	free(seen);
}

TEST(every_poison_row_is_found)
{
	srand(5);
	for (int round = 0; round < 300; round++) {
		struct world w = {.n_rows = 1 + rand() % 600, .in_flight = 1 + rand() % 100};
		int n_poison = rand() % 5, bits = 0, limit;

		w.is_poison = xcalloc((size_t)w.n_rows, 1);
		w.is_done = xcalloc((size_t)w.n_rows, 1);
		for (int i = 0; i < n_poison; i++)
			w.is_poison[rand() % w.n_rows] = 1;
		for (int i = 0; i < w.n_rows; i++)
			w.n_poison += w.is_poison[i];
		n_poison = w.n_poison;
		while (1 << bits < w.in_flight)
			bits++;
		/* The first crash, a halving each, twice alone; and each disturbs the others at most once. */
		limit = n_poison * (bits + 5);
		for (int crashed = 1; crashed;) {
			struct suspects s;

			/* Somebody kills an attempt now and then: its rows have done nothing wrong. */
			if (rand() % 8 == 0 && w.n_crashes < 900) {
				int64_t rows[100];
				size_t n = 0;

				for (int i = 0; i < w.n_rows && n < (size_t)w.in_flight; i++)
					if (!w.is_done[i])
						rows[n++] = i;
				crash_add(&w, rows, n, 0);
				limit += bits + 3;
			}
			judge(&w, &s);
			crashed = attempt(&w, &s);
			suspects_release(&s);
			if (--limit < -1) {
				CHECK_STR("too many crashes", "");
				break;
			}
		}
		CHECK_INT(w.n_poison, 0);
		for (int i = 0; i < w.n_rows; i++)
			if (!w.is_done[i])
				CHECK_INT(i, -1);
		for (size_t i = 0; i < w.n_crashes; i++)
			free(w.crashes[i].rows);
		free(w.is_poison);
		free(w.is_done);
	}
}

int main(void)
{
	RUN(cases);
	RUN(every_poison_row_is_found);
	return TEST_RESULT();
}
