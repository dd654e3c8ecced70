/* limits.c: what is spent, what is granted, what time it is. */
#include "runner/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/budget.h"
#include "jobs/day.h"
#include "queue/claim.h"
#include "queue/observer.h"

struct limits {
	struct limits_options o;
	struct prices *prices;
	const struct model_price *model_price;
	double hour_price; /* of this machine */
	double deadline_s; /* monotonic; 0: none */
	struct store *store;
	const struct job_worker *worker;
	struct heartbeat *heart;
	struct observer observer;
	atto spent;            /* by tokens */
	double in_flight;      /* projected cost of rows that run */
	double ended_cost, ended_s; /* sums over rows that ended */
	int64_t n_ended;
	double last_projected;
	double ceiling;
	double unspent, spent_when_asked; /* when the others were last read: theirs is of that moment */
	double asked_s, ask_after_s, began_s;
	int is_used_up, is_late;
};

static int is_by_time(const struct limits *l)
{
	return l->o.by == 2;
}

/* ---- what is asked for ---- */

/* "1h30m", "90s", "2d": seconds; -1 when it is no such thing. */
static double read_duration(const char *text)
{
	double sum = 0;

	while (*text) {
		char *end;
		double n = *text >= '0' && *text <= '9' ? strtod(text, &end) : -1;

		if (n < 0 || !*end || !strchr("smhd", *end))
			return -1;
		sum += n * (*end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : 86400);
		text = end + 1;
	}
	return sum;
}

/* "2026-01-31T18:00:00Z", in local time without the Z. */
static int read_moment(const char *text, time_t *out)
{
	struct tm tm = {.tm_isdst = -1};
	const char *end = strptime(text, "%Y-%m-%d", &tm);

	if (end && (*end == 'T' || *end == ' '))
		end = strptime(end + 1, "%H:%M", &tm);
	if (end && *end == ':')
		end = strptime(end + 1, "%S", &tm);
	if (!end)
		return -1;
	*out = strcmp(end, "Z") == 0 ? timegm(&tm) : mktime(&tm);
	return *out != (time_t)-1 && (!*end || strcmp(end, "Z") == 0) ? 0 : -1;
}

static int read_deadline(struct limits *l, const char *text, struct err *err)
{
	double in_s = *text ? read_duration(text) : -1;
	time_t moment;

	if (in_s < 0) {
		if (read_moment(text, &moment) < 0)
			return err_set(err, ERR_USAGE, "--deadline must be a duration like 2h30m or a time like 2026-01-31T18:00:00Z, it is '%s'", text);
		in_s = (double)moment - (double)clock_unix_ms() / 1000;
	}
	l->deadline_s = clock_seconds() + (in_s > 0 ? in_s : 0);
	return 0;
}

static int read_prices(struct limits *l, const char *model, struct err *err)
{
	int64_t day = day_of_ms(clock_unix_ms());
	struct node_price node;

	l->prices = prices_load(l->o.prices, err);
	if (!l->prices)
		return -1;
	if (is_by_time(l)) {
		if (prices_node(l->prices, l->o.node_type, day, &node) != 1)
			return err_set(err, ERR_INPUT, "%s: has no price for the node type '%s'", l->o.prices, l->o.node_type);
		l->hour_price = (double)node.hour / PRICE_ONE;
		return 0;
	}
	l->model_price = prices_model(l->prices, model, day);
	if (!l->model_price)
		return err_set(err, ERR_INPUT, "%s: has no price for the model '%s'", l->o.prices, model);
	return 0;
}

int limits_check(const struct limits_options *o, struct err *err)
{
	struct limits l = {0};
	struct prices *p;

	if (o->budget >= 0 && !o->prices)
		return err_set(err, ERR_USAGE, "--budget-usd needs a price sheet: --prices SHEET");
	if (o->budget >= 0 && o->by == 2 && !o->node_type)
		return err_set(err, ERR_USAGE, "--budget-by time needs --node-type NAME, a node of the price sheet");
	if (o->deadline && read_deadline(&l, o->deadline, err) < 0)
		return -1;
	if (o->prices) {
		p = prices_load(o->prices, err);
		if (!p)
			return -1;
		prices_free(p);
	}
	return 0;
}

int limits_open(struct limits **out, const struct limits_options *o, const char *model, struct err *err)
{
	struct limits *l;

	*out = NULL;
	if (o->budget < 0 && !o->deadline)
		return 0;
	l = xcalloc(1, sizeof(*l));
	l->o = *o;
	if ((o->budget >= 0 && read_prices(l, model, err) < 0) || (o->deadline && read_deadline(l, o->deadline, err) < 0)) {
		limits_free(l);
		return -1;
	}
	*out = l;
	return 0;
}

void limits_free(struct limits *l)
{
	if (!l)
		return;
	prices_free(l->prices);
	observer_release(&l->observer);
	free(l);
}

void limits_begin(struct limits *l, struct store *s, const struct job_worker *worker, struct heartbeat *heart)
{
	l->store = s;
	l->worker = worker;
	l->heart = heart;
	l->began_s = clock_seconds();
}

/* ---- money ---- */

static double amount(atto a)
{
	return (double)a / (double)ATTO_ONE;
}

static double spent_so_far(const struct limits *l)
{
	return is_by_time(l) ? (clock_seconds() - l->heart->start_s) * l->hour_price / 3600 : amount(l->spent);
}

static double mean_row_s(const struct limits *l)
{
	return l->n_ended ? l->ended_s / (double)l->n_ended : 0;
}

/* What the next row is thought to cost. */
static double next_row(const struct limits *l)
{
	return l->n_ended ? l->ended_cost / (double)l->n_ended : l->last_projected;
}

double limits_row_begins(struct limits *l, int64_t n_prompt, int64_t max_output)
{
	struct token_counts most = {.prompt = n_prompt, .output = max_output};
	double cost = 0;

	if (l->model_price)
		cost = l->n_ended >= 20 ? l->ended_cost / (double)l->n_ended : amount(model_price_cost(l->model_price, &most).billed);
	l->in_flight += cost;
	l->last_projected = cost;
	return cost;
}

void limits_row_ends(struct limits *l, double projected, const struct token_counts *used, double seconds)
{
	l->in_flight -= projected;
	if (l->model_price) {
		atto cost = model_price_cost(l->model_price, used).billed;

		decimal_add(&l->spent, cost);
		l->ended_cost += amount(cost);
	}
	l->ended_s += seconds;
	l->n_ended++;
}

/* Is this attempt one that spends nothing any more? */
static int attempt_is_over(struct limits *l, const struct attempt *a, const struct claim *here, double now)
{
	char *name;
	struct signs signs;

	if (a->state == ATTEMPT_ENDED || (*a->job_uid && *here->job_uid && strcmp(a->job_uid, here->job_uid) != 0) ||
	    (a->worker == l->worker->index && !l->worker->index_is_default))
		return 1;
	if (strcmp(a->host, here->host) == 0 && a->pid > 0 && a->pid <= INT32_MAX && kill((pid_t)a->pid, 0) < 0 && errno == ESRCH)
		return 1;
	name = attempt_file_name(a->worker, a->id);
	signs = observer_note(&l->observer, name, a->beat, now);
	free(name);
	return l->worker->takeover_after_s > 0 && signs.still_s >= l->worker->takeover_after_s;
}

/* What the others say; *peers is malloc'd. */
static int read_peers(struct limits *l, struct budget_peer **peers, size_t *n, struct err *err)
{
	struct attempt *all;
	struct claim here;
	size_t n_all;
	double now = clock_seconds();

	if (attempt_read_all(l->store, &all, &n_all, err) < 0)
		return -1;
	claim_begin(&here, l->worker->index, NULL);
	claim_end(&here);
	*peers = xcalloc(n_all + 1, sizeof(**peers));
	*n = 0;
	for (size_t i = 0; i < n_all; i++)
		if (strcmp(all[i].id, l->heart->told.id) != 0)
			(*peers)[(*n)++] = (struct budget_peer){attempt_is_over(l, &all[i], &here, now), all[i].spent_usd, all[i].ceiling_usd};
	free(all);
	return 0;
}

/* Ask for more: grant, tell, look again, keep what remains. On failure nothing is granted. */
static void ask(struct limits *l, const struct work_totals *t, size_t n_in_flight)
{
	double spent = spent_so_far(l), need = l->in_flight + next_row(l), rate = 0, now = clock_seconds();
	struct attempt *told = &l->heart->told;
	struct budget_peer *peers;
	struct err ignored = {0};
	size_t n;

	l->asked_s = now;
	if (l->n_ended || is_by_time(l))
		rate = spent / (now - (is_by_time(l) ? l->heart->start_s : l->began_s) + 1e-3) * 3 * (l->heart->period_s > 2 ? l->heart->period_s : 2);
	if (read_peers(l, &peers, &n, &ignored) < 0)
		goto fail;
	told->spent_usd = spent;
	told->ceiling_usd = budget_grant(l->o.budget, spent, need, rate, peers, n);
	free(peers);
	heartbeat_tell(l->heart, t, n_in_flight);
	if (read_peers(l, &peers, &n, &ignored) < 0)
		goto fail;
	l->ceiling = told->ceiling_usd = budget_settle(l->o.budget, spent, told->ceiling_usd, peers, n);
	l->unspent = budget_unspent(l->o.budget, spent, peers, n);
	l->spent_when_asked = spent;
	free(peers);
	/* What does not do for a row is given back, lest each holds a little and nobody enough. Those who ask at once do so at different times next. */
	if (!is_by_time(l) && l->ceiling < spent + need)
		l->ceiling = told->ceiling_usd = spent + l->in_flight;
	l->ask_after_s = 0.5 + (double)hash64(&now, sizeof(now), (uint64_t)told->pid) / 1.9e19;
	heartbeat_tell(l->heart, t, n_in_flight);
	return;
fail:
	log_debug("budget: %s", ignored.msg);
	l->ceiling = spent;
	l->ask_after_s = 1;
}

/* ---- the decision ---- */

static enum limits_state look_at_money(struct limits *l, const struct work_totals *t, size_t n_in_flight)
{
	double row = next_row(l), wanted;

	l->heart->told.spent_usd = spent_so_far(l);
	if (is_by_time(l)) /* what runs needs its time, too */
		wanted = l->heart->told.spent_usd + mean_row_s(l) * l->hour_price / 3600;
	else
		wanted = l->heart->told.spent_usd + l->in_flight + row;
	if (wanted > l->ceiling || l->ceiling <= 0) {
		if (l->asked_s == 0 || clock_seconds() - l->asked_s >= l->ask_after_s)
			ask(l, t, n_in_flight);
		if (wanted > l->ceiling || l->ceiling <= 0) {
			/* Others may hold more than they need, and tell so at their next beat; rows in flight may cost less than was thought. */
			double least = is_by_time(l) ? 0 : row;

			l->is_used_up = l->unspent - (l->heart->told.spent_usd - l->spent_when_asked) <= least;
			return l->is_used_up ? LIMITS_FINISH : LIMITS_WAIT;
		}
	}
	return LIMITS_GO;
}

enum limits_state limits_look(struct limits *l, const struct work_totals *t, size_t n_in_flight)
{
	double now = clock_seconds();

	if (l->deadline_s > 0 && now >= l->deadline_s) {
		l->is_late = 1;
		return LIMITS_STOP;
	}
	if (l->is_late || (l->deadline_s > 0 && now + mean_row_s(l) >= l->deadline_s)) {
		l->is_late = 1;
		return LIMITS_FINISH;
	}
	if (l->is_used_up)
		return LIMITS_FINISH;
	return l->o.budget < 0 ? LIMITS_GO : look_at_money(l, t, n_in_flight);
}

int limits_fail(const struct limits *l, struct err *err)
{
	if (l->is_late)
		return err_set(err, ERR_BUDGET, "the deadline is reached; what is finished is published, and a later run goes on from here");
	return err_set(err, ERR_BUDGET,
	               "the budget of %.2f %s is used up (%.4f of it is not spent); what is finished is published, and a run with a higher "
	               "--budget-usd goes on from here",
	               l->o.budget, prices_currency(l->prices), l->unspent > 0 ? l->unspent : 0);
}
