/* budget.c: shares. */
#include "jobs/budget.h"

/* Without experience a worker takes this part of the cap at a time: small enough that of a hundred that start at once none is left without. */
#define FIRST_SHARE 256

static double promised(const struct budget_peer *p)
{
	return p->is_over || p->spent > p->ceiling ? p->spent : p->ceiling;
}

double budget_left(double cap, double own_spent, const struct budget_peer *others, size_t n)
{
	double left = cap - own_spent;

	for (size_t i = 0; i < n; i++)
		left -= promised(&others[i]);
	return left;
}

double budget_unspent(double cap, double own_spent, const struct budget_peer *others, size_t n)
{
	double left = cap - own_spent;

	for (size_t i = 0; i < n; i++)
		left -= others[i].spent;
	return left;
}

double budget_grant(double cap, double own_spent, double need, double rate, const struct budget_peer *others, size_t n)
{
	double left = budget_left(cap, own_spent, others, n), share, step = rate > 0 ? rate : cap / FIRST_SHARE;
	size_t n_live = 1;

	for (size_t i = 0; i < n; i++)
		n_live += !others[i].is_over;
	if (left <= 0)
		return own_spent;
	share = left / (double)n_live;
	if (step > share)
		step = share;
	if (step < need)
		step = need;
	return own_spent + (step < left ? step : left);
}

double budget_settle(double cap, double own_spent, double ceiling, const struct budget_peer *others, size_t n)
{
	double left = budget_left(cap, own_spent, others, n);

	if (ceiling > own_spent + left)
		ceiling = own_spent + left;
	return ceiling > own_spent ? ceiling : own_spent;
}
