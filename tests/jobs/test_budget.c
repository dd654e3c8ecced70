/* Shares of a budget: cases, and workers that grant, spend and die at random. */
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>

#include "jobs/budget.h"

static int is_near(double a, double b)
{
	return fabs(a - b) < 1e-9;
}

TEST(cases)
{
	struct budget_peer none[1] = {{0}}, over[] = {{1, 3, 50}}, live[] = {{0, 3, 5}, {1, 2, 9}}, greedy[] = {{0, 3, 10}}, above[] = {{0, 7, 6}};

	CHECK(is_near(budget_left(10, 1, none, 0), 9));
	CHECK(is_near(budget_left(10, 1, over, 1), 6));  /* its ceiling binds nobody any more */
	CHECK(is_near(budget_left(10, 1, live, 2), 2));  /* 5 are promised, 2 spent */
	CHECK(is_near(budget_left(10, 1, above, 1), 2)); /* rows in flight cost more than was thought */
	CHECK(is_near(budget_unspent(10, 1, live, 2), 4));
	/* At first a 256th, later what it needs, never more than its share, but enough for one row. */
	CHECK(is_near(budget_grant(256, 0, 0, 0, none, 0), 1));
	CHECK(is_near(budget_grant(256, 0, 0, 20, none, 0), 20));
	CHECK(is_near(budget_grant(256, 100, 0, 500, none, 0), 256));
	CHECK(is_near(budget_grant(10, 1, 0, 50, live, 2), 2));
	CHECK(is_near(budget_grant(10, 1, 1.5, 0.1, live, 2), 2.5));
	CHECK(is_near(budget_grant(10, 1, 15, 0.1, live, 2), 3));
	CHECK(is_near(budget_grant(10, 1, 1, 1, greedy, 1), 1));
	/* Two took the same 2 at once: both give back. */
	CHECK(is_near(budget_settle(10, 1, 3, (struct budget_peer[]){{0, 3, 9}}, 1), 1));
	CHECK(is_near(budget_settle(10, 1, 3, (struct budget_peer[]){{0, 3, 8}}, 1), 2));
	CHECK(is_near(budget_settle(10, 1, 3, none, 0), 3));
}

/* Eight workers, each step one of: grant, tell, settle, spend up to the ceiling, die. What a grant sees is what was told before. */
TEST(never_above_the_cap)
{
	enum { N = 8 };

	srand(3);
	for (int round = 0; round < 200; round++) {
		struct budget_peer told[N] = {{0}};
		double ceiling[N] = {0}, spent[N] = {0}, cap = 10 + rand() % 1000, sum = 0;
		int is_granting[N] = {0};

		for (int step = 0; step < 4000; step++) {
			int i = rand() % N;
			struct budget_peer others[N];
			size_t n = 0;

			for (int k = 0; k < N; k++)
				if (k != i)
					others[n++] = told[k];
			if (told[i].is_over)
				continue;
			if (rand() % 1000 == 0) { /* told its end */
				told[i] = (struct budget_peer){1, spent[i], 0};
			} else if (is_granting[i]) {
				ceiling[i] = budget_settle(cap, spent[i], told[i].ceiling, others, n);
				told[i] = (struct budget_peer){0, spent[i], ceiling[i]};
				is_granting[i] = 0;
			} else if (rand() % 3 == 0) {
				/* Told, but not used before it is settled. */
				told[i] = (struct budget_peer){0, spent[i], budget_grant(cap, spent[i], rand() % 3, rand() % 20, others, n)};
				if (told[i].ceiling < ceiling[i])
					ceiling[i] = told[i].ceiling;
				is_granting[i] = 1;
			} else if (spent[i] < ceiling[i]) {
				spent[i] += (ceiling[i] - spent[i]) * (rand() % 5) / 4;
			}
			sum = 0;
			for (int k = 0; k < N; k++)
				sum += spent[k];
			if (sum > cap + 1e-6) {
				CHECK_STR("above the cap", "");
				break;
			}
		}
		CHECK(sum > cap * 0.5 || told[0].is_over + told[1].is_over + told[2].is_over > 0);
	}
}

int main(void)
{
	RUN(cases);
	RUN(never_above_the_cap);
	return TEST_RESULT();
}
