/* ledger_pools.c: node time by day and node type, and how it is shared out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/day.h"
#include "jobs/ledger_private.h"

#define ATTEMPT_MAX_MS (3660 * DAY_MS) /* ten years: beyond that a ledger is damaged */
/* Beats come every 30 s or faster; much more than that is a clock that was set, not work. */
#define UNSAID_MAX_MS 600000

enum { PART_LOAD, PART_BUSY, PART_PUBLISH, PART_IDLE, N_PARTS };
static const enum count_kind part_count[N_PARTS] = {COUNT_LOAD_MS, COUNT_BUSY_MS, COUNT_PUBLISH_MS, COUNT_IDLE_MS};

struct attempt_time {
	const char *id, *node;
	int64_t start_ms, wall_ms, part_ms[N_PARTS]; /* wall is the sum of the parts */
	int is_killed;
};

void ledger_free_pools(struct ledger_reader *l)
{
	for (size_t i = 0; i < l->pools.n; i++)
		free(l->pools.list[i].node);
	free(l->pools.list);
	l->pools = (struct pools){0};
}

static int compare(const struct pool *p, int64_t day, const char *node)
{
	return p->day != day ? (p->day < day ? -1 : 1) : strcmp(p->node, node);
}

/* Position of the first pool that is not before (day, node). */
static size_t pool_position(const struct pools *ps, int64_t day, const char *node)
{
	size_t lo = 0, hi = ps->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (compare(&ps->list[mid], day, node) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct pool *ledger_find_pool(struct ledger_reader *l, int64_t day, const char *node)
{
	size_t at = pool_position(&l->pools, day, node);

	return at < l->pools.n && compare(&l->pools.list[at], day, node) == 0 ? &l->pools.list[at] : NULL;
}

static struct pool *get_pool(struct ledger_reader *l, int64_t day, const char *node)
{
	struct pools *ps = &l->pools;
	size_t at = pool_position(ps, day, node);

	if (at < ps->n && compare(&ps->list[at], day, node) == 0)
		return &ps->list[at];
	MEM_GROW(ps->list, ps->cap, ps->n + 1);
	memmove(&ps->list[at + 1], &ps->list[at], (ps->n - at) * sizeof(*ps->list));
	ps->list[at] = (struct pool){.day = day, .node = xstrdup(node)};
	ps->n++;
	return &ps->list[at];
}

/* One day's part of an attempt. */
static int add_day(struct ledger_reader *l, const struct attempt_time *a, int64_t day, const int64_t part_ms[N_PARTS],
                   struct err *err)
{
	struct pool *p = get_pool(l, day, a->node);
	struct measure m = {0};
	struct node_price price;
	char text[DAY_TEXT_BYTES];

	for (int i = 0; i < N_PARTS; i++) {
		m.count[part_count[i]] = part_ms[i];
		m.count[COUNT_NODE_MS] += part_ms[i];
	}
	if (l->o->prices && prices_has_nodes(l->o->prices)) {
		if (prices_node(l->o->prices, a->node, day, &price)) {
			m.count[COUNT_GPU_MS] = m.count[COUNT_NODE_MS] * price.n_gpus;
			m.money[MONEY_ACTUAL] = node_price_cost(&price, m.count[COUNT_NODE_MS]);
		} else if (m.count[COUNT_NODE_MS] > 0) {
			day_format(day, text);
			return err_set(err, ERR_INPUT,
			               "%s: attempt %s ran on node type '%s' on %s, for which the price sheet has no price (an entry "
			               "`node: \"*\"` is the default)",
			               l->d.name, a->id, a->node, text);
		}
	}
	if (a->is_killed) {
		m.count[COUNT_KILLED_MS] = m.count[COUNT_NODE_MS];
		m.money[MONEY_KILLED] = m.money[MONEY_ACTUAL];
	}
	if (measure_add(&p->total, &m) < 0)
		return err_set(err, ERR_STORAGE, "%s: attempt %s: the sum of node time is too large: damaged", l->d.name, a->id);
	return 0;
}

/* Each part is cut at midnights in proportion to the time elapsed, cumulatively, so that the days add up to the whole. */
static int add_attempt(struct ledger_reader *l, const struct attempt_time *a, struct err *err)
{
	int64_t given[N_PARTS] = {0}, elapsed = 0;

	do {
		int64_t day = day_of_ms(a->start_ms + elapsed), until = (day + 1) * DAY_MS - a->start_ms, ms[N_PARTS];

		elapsed = until < a->wall_ms ? until : a->wall_ms;
		for (int i = 0; i < N_PARTS; i++) {
			int64_t sum = a->wall_ms ? (int64_t)decimal_share(a->part_ms[i], elapsed, a->wall_ms) : 0;

			ms[i] = sum - given[i];
			given[i] = sum;
		}
		if (add_day(l, a, day, ms, err) < 0)
			return -1;
	} while (elapsed < a->wall_ms);
	return 0;
}

static int read_ms(const struct ledger_reader *l, sqlite3_stmt *s, int column, const char *id, int64_t *out, struct err *err)
{
	double v = sqlite3_column_double(s, column);

	if (!(v >= 0 && v * 1000 <= (double)ATTEMPT_MAX_MS))
		return err_set(err, ERR_STORAGE, "%s: attempt %s: %s is %g: damaged", l->d.name, id, sqlite3_column_name(s, column), v);
	*out = (int64_t)llround(v * 1000);
	return 0;
}

/* What a killed attempt did not live to tell: until the last row that it finished, by the same clock, it worked. */
static void add_unsaid(struct attempt_time *a, int64_t last_finished_ms)
{
	int64_t unsaid = last_finished_ms - a->start_ms - a->wall_ms;

	if (unsaid > UNSAID_MAX_MS)
		unsaid = UNSAID_MAX_MS;
	if (unsaid > 0) {
		a->wall_ms += unsaid;
		a->part_ms[PART_BUSY] += unsaid;
	}
}

int ledger_read_attempts(struct ledger_reader *l, struct err *err)
{
	/* Killed: it never ended, and someone else claimed one of its shards after it. */
	sqlite3_stmt *s = database_prepare(
	    &l->d,
	    "SELECT attempt.id, node_type, started_unix_ms, updated_unix_ms, wall_s, load_s, busy_s, publish_s,"
	    " state = 1 AND EXISTS(SELECT 1 FROM claim k, claim later WHERE k.attempt = attempt.id AND later.shard = k.shard"
	    " AND later.epoch > k.epoch), last.ms FROM attempt LEFT JOIN (SELECT k.attempt id, MAX(c.finished_ms) ms FROM charge c"
	    " JOIN claim k ON k.shard = c.shard AND k.epoch = c.epoch WHERE EXISTS(SELECT 1 FROM attempt WHERE state = 1)"
	    " GROUP BY k.attempt) last ON last.id = attempt.id AND state = 1 ORDER BY attempt.id",
	    err);
	struct ledger_job *j = l->job;
	int r = s ? 0 : -1, n_types = 0;
	struct attempt_time a;
	int64_t updated;

	l->only_node = xstrdup("");
	while (r == 0 && (r = database_step(&l->d, s, err)) == 1) {
		a = (struct attempt_time){.id = ledger_text(l, s, 0, err),
		                          .node = ledger_text(l, s, 1, err),
		                          .start_ms = sqlite3_column_int64(s, 2),
		                          .is_killed = sqlite3_column_int(s, 8)};
		updated = sqlite3_column_int64(s, 3);
		r = -1;
		if (!a.id || !a.node)
			break;
		if (a.start_ms < 0 || day_of_ms(a.start_ms) > DAY_MAX || updated < 0 || day_of_ms(updated) > DAY_MAX) {
			err_set(err, ERR_STORAGE, "%s: attempt %s: its times are damaged", l->d.name, a.id);
			break;
		}
		if (read_ms(l, s, 4, a.id, &a.wall_ms, err) < 0 || read_ms(l, s, 5, a.id, &a.part_ms[PART_LOAD], err) < 0 ||
		    read_ms(l, s, 6, a.id, &a.part_ms[PART_BUSY], err) < 0 || read_ms(l, s, 7, a.id, &a.part_ms[PART_PUBLISH], err) < 0)
			break;
		add_unsaid(&a, sqlite3_column_int64(s, 9));
		/* Clocks are read one after another: the parts may be some microseconds more than the whole. */
		a.part_ms[PART_IDLE] = a.wall_ms - a.part_ms[PART_LOAD] - a.part_ms[PART_BUSY] - a.part_ms[PART_PUBLISH];
		if (a.part_ms[PART_IDLE] < 0) {
			a.wall_ms -= a.part_ms[PART_IDLE];
			a.part_ms[PART_IDLE] = 0;
		}
		if (day_of_ms(a.start_ms + a.wall_ms) > DAY_MAX) {
			err_set(err, ERR_STORAGE, "%s: attempt %s: its times are damaged", l->d.name, a.id);
			break;
		}
		r = add_attempt(l, &a, err);
		if (n_types == 0 || strcmp(l->only_node, a.node) != 0) {
			free(l->only_node);
			l->only_node = xstrdup(n_types == 0 ? a.node : "");
			n_types++;
		}
		j->start_ms = j->n_attempts == 0 || a.start_ms < j->start_ms ? a.start_ms : j->start_ms;
		j->end_ms = updated > j->end_ms ? updated : j->end_ms;
		j->n_attempts++;
	}
	sqlite3_finalize(s);
	return r;
}

int ledger_place_waste(struct ledger_reader *l, int64_t wasted_tokens, struct err *err)
{
	struct pools *ps = &l->pools;
	enum count_kind by = COUNT_KILLED_MS;
	atto sum = 0, so_far = 0;
	int64_t given = 0;

	for (size_t i = 0; i < ps->n; i++)
		sum += ps->list[i].total.count[by];
	if (sum == 0) {
		by = COUNT_NODE_MS;
		for (size_t i = 0; i < ps->n; i++)
			sum += ps->list[i].total.count[by];
	}
	for (size_t i = 0; i < ps->n; i++) {
		int64_t upto = wasted_tokens;

		so_far += ps->list[i].total.count[by];
		if (sum > 0)
			upto = (int64_t)decimal_share(wasted_tokens, so_far, sum);
		ps->list[i].total.count[COUNT_WASTED] = upto - given;
		given = upto;
	}
	if (given != wasted_tokens)
		return err_set(err, ERR_STORAGE, "%s: %lld wasted tokens and no attempt that computed them: damaged", l->d.name,
		               (long long)wasted_tokens);
	return 0;
}

int weights_add(struct weights *a, const struct weights *b)
{
	for (int i = 0; i < N_WEIGHTS; i++)
		if (decimal_add(&a->w[i], b->w[i]) < 0 || a->w[i] >= (atto)1 << 125)
			return -1;
	return 0;
}

static atto share_of(atto total, const struct weights *so_far, const struct weights *sum)
{
	for (int i = 0; i < N_WEIGHTS; i++)
		if (sum->w[i] > 0)
			return decimal_share(total, so_far->w[i], sum->w[i]);
	return total;
}

struct measure pool_take(struct pool *p, const struct weights *so_far, const struct weights *sum)
{
	struct measure m = {0};

	for (int i = COUNT_FIRST_SHARED; i < N_COUNTS; i++) {
		m.count[i] = (int64_t)share_of(p->total.count[i], so_far, sum) - p->given.count[i];
		p->given.count[i] += m.count[i];
	}
	for (int i = MONEY_FIRST_SHARED; i < N_MONEY; i++) {
		m.money[i] = share_of(p->total.money[i], so_far, sum) - p->given.money[i];
		p->given.money[i] += m.money[i];
	}
	return m;
}
