/* histogram.h: counts by size, in buckets that double: [0, first), [first, 2 first), ... the last one open. */
#ifndef TOKENMILL_JOBS_HISTOGRAM_H
#define TOKENMILL_JOBS_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS 24

struct histogram {
	double first;
	int64_t count[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *h, double v)
{
	double edge = h->first;
	int i = 0;

	for (; i < HISTOGRAM_BUCKETS - 1 && v >= edge; i++)
		edge *= 2;
	h->count[i]++;
}

/* Lower edge of a bucket. */
static inline double histogram_edge(const struct histogram *h, int bucket)
{
	double edge = h->first;

	for (int i = 1; i < bucket; i++)
		edge *= 2;
	return bucket == 0 ? 0 : edge;
}

static inline int64_t histogram_total(const struct histogram *h)
{
	int64_t n = 0;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += h->count[i];
	return n;
}

#endif
