/* Tests of cutting: what is promised of the balance, of siblings and of the order, on random rows with keys like those of prompts. */
#include "base/mem.h"
#include "queue/shard_cut.h"
#include "tests/check.h"

enum { KEY_UNITS = 6, MAX_ROWS = 5000 };

struct row {
	unsigned char key[KEY_UNITS];
	int n_key;
	double cost;
};

static int compare_rows(const void *pa, const void *pb)
{
	const struct row *a = pa, *b = pb;
	int n = a->n_key < b->n_key ? a->n_key : b->n_key, c = memcmp(a->key, b->key, (size_t)n);

	return c ? c : a->n_key - b->n_key;
}

static uint32_t common(const struct row *a, const struct row *b)
{
	uint32_t n = 0;

	while ((int)n < a->n_key && (int)n < b->n_key && a->key[n] == b->key[n])
		n++;
	return n;
}

static struct row rows[MAX_ROWS];
static double costs[MAX_ROWS];
static uint32_t shared[MAX_ROWS];

static void make_rows(size_t n, int letters, double skew, unsigned *seed)
{
	for (size_t i = 0; i < n; i++) {
		rows[i].n_key = rand_r(seed) % (KEY_UNITS + 1);
		for (int k = 0; k < rows[i].n_key; k++)
			rows[i].key[k] = (unsigned char)(rand_r(seed) % letters);
		rows[i].cost = 0.5 + pow((double)rand_r(seed) / RAND_MAX, skew) * 4;
	}
	qsort(rows, n, sizeof(*rows), compare_rows);
	for (size_t i = 0; i < n; i++) {
		costs[i] = rows[i].cost;
		shared[i] = i ? common(&rows[i - 1], &rows[i]) : 0;
	}
}

/* Cut as the planner does, from a window that grows row by row. sizes [n_shards]. */
static void cut(size_t n, int64_t n_shards, size_t *sizes, double *targets)
{
	struct shard_cut c;
	double cost = 0;
	size_t first = 0, end = 0;

	for (size_t i = 0; i < n; i++)
		cost += costs[i];
	shard_cut_init(&c, n_shards, (int64_t)n, cost);
	for (int64_t shard = 0; shard < n_shards; shard++) {
		double held = 0;
		size_t k;

		for (end = first; !(end > first && shard_cut_is_ready(&c, (int64_t)(end - first), held)); end++) {
			if (end == n) {
				printf("shard %d of %d is never ready\n", (int)shard, (int)n_shards);
				check_failed_now = 1;
				return;
			}
			held += costs[end];
		}
		targets[shard] = c.target;
		k = shard_cut_choose(&c, costs + first, shared + first, end - first, 0, 0);
		sizes[shard] = k;
		held = 0;
		for (size_t i = first; i < first + k; i++)
			held += costs[i];
		shard_cut_advance(&c, (int64_t)k, held);
		first += k;
	}
	CHECK_INT(first, n);
}

TEST(all_rows_once_in_shards_that_are_not_empty)
{
	static size_t sizes[MAX_ROWS];
	static double targets[MAX_ROWS];
	unsigned seed = 1;

	for (int round = 0; round < 300 && !check_failed_now; round++) {
		size_t n = 1 + (size_t)rand_r(&seed) % 300;
		int64_t n_shards = 1 + rand_r(&seed) % (int)n;

		make_rows(n, 1 + rand_r(&seed) % 4, round % 3 ? 1 : 20, &seed);
		cut(n, n_shards, sizes, targets);
		for (int64_t i = 0; i < n_shards; i++)
			CHECK(sizes[i] >= 1);
	}
}

TEST(balanced_within_tolerance)
{
	static size_t sizes[64];
	static double targets[64];
	unsigned seed = 2;

	for (int round = 0; round < 50; round++) {
		int64_t n_shards = 2 + rand_r(&seed) % 30;
		double total = 0, full;
		size_t first = 0;

		make_rows(MAX_ROWS, 3, 1, &seed);
		cut(MAX_ROWS, n_shards, sizes, targets);
		for (size_t i = 0; i < MAX_ROWS; i++)
			total += costs[i];
		full = targets[0];
		for (int64_t i = 0; i < n_shards; i++) {
			double cost = 0;

			for (size_t k = first; k < first + sizes[i]; k++)
				cost += costs[k];
			first += sizes[i];
			/* An eighth, or where no cut lies within that the nearest one; the last takes what the others left. */
			if (i < n_shards - 1)
				CHECK(fabs(cost - targets[i]) <= targets[i] / 8 + 4.5);
			CHECK(cost < full * 1.3);
			/* Shards of the last quarter get smaller, down to a quarter; the others do not. */
			if (n_shards >= 8 && i < n_shards - n_shards / 4)
				CHECK_NEAR(targets[i] / full, 1, 0.15);
			if (n_shards >= 8 && i == n_shards - 1)
				CHECK_NEAR(targets[i] / full, 0.25, 0.25);
		}
		CHECK(full > total / (double)n_shards - 1e-9);
	}
}

TEST(siblings_stay_together)
{
	size_t sizes[5];
	double targets[5];

	/* Groups of 95 rows that share a prefix; five shards of 380 rows could be cut anywhere. */
	for (size_t i = 0; i < 1900; i++) {
		costs[i] = 1;
		shared[i] = i % 95 ? 30 : 2;
	}
	cut(1900, 5, sizes, targets);
	for (int i = 0; i < 5; i++)
		CHECK_INT(sizes[i], 380);
	/* A window of an eighth to both sides of 380 reaches the ends of groups of 61 rows. */
	for (size_t i = 0; i < 1900; i++)
		shared[i] = i % 61 ? 30 : 2;
	cut(1900, 5, sizes, targets);
	for (int i = 0; i < 4; i++)
		CHECK_INT(sizes[i] % 61, 0);
	/* One group that is larger than a shard is cut where the cost says. */
	for (size_t i = 0; i < 1900; i++)
		shared[i] = 30;
	cut(1900, 5, sizes, targets);
	for (int i = 0; i < 5; i++)
		CHECK_INT(sizes[i], 380);
	/* Of the ends of groups within the window the one where least is shared. */
	shared[370] = 5;
	shared[390] = 4;
	shared[380] = 6;
	cut(1900, 5, sizes, targets);
	CHECK_INT(sizes[0], 390);
}

TEST(a_row_larger_than_a_shard)
{
	size_t sizes[4];
	double targets[4];

	for (size_t i = 0; i < 40; i++) {
		costs[i] = i == 5 ? 1000 : 1;
		shared[i] = 0;
	}
	cut(40, 4, sizes, targets);
	for (int i = 0; i < 4; i++)
		CHECK(sizes[i] >= 1);
	/* It is alone, and what is left after it is shared out among the others. */
	CHECK_INT(sizes[0], 5);
	CHECK_INT(sizes[1], 1);
	CHECK_INT(sizes[2], 17);
	CHECK_INT(sizes[3], 17);
}

TEST(rows_that_are_written_already)
{
	struct shard_cut c;

	for (size_t i = 0; i < 10; i++) {
		costs[i] = 1;
		shared[i] = 1;
	}
	/* 95 of 100 rows of the shard are written; it may end before, at, or after the next. */
	shard_cut_init(&c, 2, 200, 200);
	CHECK_INT(shard_cut_choose(&c, costs, shared, 10, 95, 95), 5);
	shared[2] = 0;
	CHECK_INT(shard_cut_choose(&c, costs, shared, 10, 95, 95), 2);
	CHECK_INT(shard_cut_choose(&c, costs, shared, 10, 150, 150), 0);
}

/* ---- order ---- */

static double longest_from(const uint32_t *order, size_t n, size_t from, uint32_t level, size_t *end)
{
	double longest = 0;
	size_t i = from;

	do {
		if (rows[order[i]].cost > longest)
			longest = rows[order[i]].cost;
		i++;
	} while (i < n && common(&rows[order[i - 1]], &rows[order[i]]) > level);
	*end = i;
	return longest;
}

/* Below a node at this level: branches in the order of their longest row, and so within each. */
static void check_branches(const uint32_t *order, size_t n, uint32_t level)
{
	double before = INFINITY;

	for (size_t i = 0, end; i < n; i = end) {
		double longest = longest_from(order, n, i, level, &end);

		if (longest > before)
			check_failed_now = 1;
		before = longest;
		if (level < KEY_UNITS && end - i > 1)
			check_branches(order + i, end - i, level + 1);
	}
}

TEST(order_within_a_shard)
{
	static uint32_t order[400];
	unsigned seed = 5;

	for (int round = 0; round < 200 && !check_failed_now; round++) {
		size_t n = 1 + (size_t)rand_r(&seed) % 400;
		int seen[400] = {0};
		uint32_t sum_before = 0, sum_after = 0;

		make_rows(n, 1 + rand_r(&seed) % 4, 1, &seed);
		shard_order(costs, shared, n, order);
		for (size_t i = 0; i < n; i++) {
			seen[order[i]]++;
			sum_before += i ? shared[i] : 0;
			sum_after += i ? common(&rows[order[i - 1]], &rows[order[i]]) : 0;
		}
		for (size_t i = 0; i < n; i++)
			CHECK_INT(seen[i], 1);
		/* Each prefix is still computed once. */
		CHECK_INT(sum_after, sum_before);
		/* Rows that share nothing but their parent are branches of one row each: check_branches looks at levels above theirs. */
		check_branches(order, n, 0);
	}
	shard_order(costs, shared, 0, order);
}

int main(void)
{
	RUN(all_rows_once_in_shards_that_are_not_empty);
	RUN(balanced_within_tolerance);
	RUN(siblings_stay_together);
	RUN(a_row_larger_than_a_shard);
	RUN(rows_that_are_written_already);
	RUN(order_within_a_shard);
	return TEST_RESULT();
}
