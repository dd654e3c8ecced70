/* budget.h: how much of a job's budget one of its workers may spend, when all they know of each other is what each last wrote. Pure functions.
 *
 * Each worker tells what it has spent and its ceiling: it spends nothing above that before a later file has raised it. What is left of the cap is
 *
 *     cap - sum over others of (over: spent, live: the larger of spent and ceiling) - own spent
 *
 * A worker grants itself a small part of it, tells the new ceiling, reads the others again and takes back what is too much (budget_settle): of two
 * that grant at once each sees the other's ceiling before it spends. So the sum of what is spent never exceeds the cap by more than what rows in
 * flight cost above their estimate. What a worker that died without a word had spent since its last word is not known, and not counted.
 *
 * Amounts are in the price sheet's currency. */
#ifndef TOKENMILL_JOBS_BUDGET_H
#define TOKENMILL_JOBS_BUDGET_H

#include <stddef.h>

struct budget_peer {
	int is_over; /* ended, or gone: it spends nothing any more */
	double spent, ceiling;
};

/* Not spent, and promised to nobody else; may be negative. */
double budget_left(double cap, double own_spent, const struct budget_peer *others, size_t n);
/* Not spent by anybody: zero or less means that the job has used its budget. */
double budget_unspent(double cap, double own_spent, const struct budget_peer *others, size_t n);
/* The new ceiling, never below own_spent: own_spent and a share of what is left, enough for `need` (the next row) if there is so much. rate: what
 * this worker spends until it asks three times more; 0: not known yet. */
double budget_grant(double cap, double own_spent, double need, double rate, const struct budget_peer *others, size_t n);
/* After the grant was told and the others were read again: the ceiling, lowered if the sum exceeds the cap. */
double budget_settle(double cap, double own_spent, double ceiling, const struct budget_peer *others, size_t n);

#endif
