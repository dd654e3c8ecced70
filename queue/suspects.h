/* suspects.h: which row makes the engine crash? Each attempt notes which rows are in flight; what a crash left in flight without a result is
 * suspect. A pure function of these notes says what may run now, so that with every further crash the suspects become half as many:
 *
 *     crash: {a b c d}                        one group of four
 *     part 0: {a b}  part 1: {c d}            all other rows run beside part 0; part 1 once the rows of part 0 have results
 *     crash: {a b x}                          groups {a b} {c d} {x}: whoever was in flight is suspect, x perhaps of a crash of its own
 *     part 0: {a}, part 1: {b}, ...
 *     crash: {a}                              a was there twice: it runs alone, last of all
 *     crash alone, and again                  a is poison
 *
 * An end alone proves something only when it is known to have been a crash. Without that knowledge (kill -9, an eviction, a machine that went down,
 * memory that ran out, an engine that hung) it takes more of them.
 *
 * A suspect never runs beside the part that is tested, so of several poison rows each disturbs the search for another at most once. Rows that
 * have results, or whose tokens grew in the attempt that crashed, are no suspects of it: the caller leaves them out. So a process that was
 * killed by somebody costs its rows their place in the queue, and nothing else. */
#ifndef TOKENMILL_QUEUE_SUSPECTS_H
#define TOKENMILL_QUEUE_SUSPECTS_H

#include <stddef.h>
#include <stdint.h>

struct crash { /* one attempt that ended without a word, in the order of epochs */
	int is_alone; /* the row ran alone: n is 1 */
	int is_proven; /* the process is known to have crashed; asked for where is_alone */
	int64_t *rows;
	size_t n;
};

enum { SUSPECT_NOT = -2, SUSPECT_POISON = -1 };
#define SUSPECT_CRASHES_ALONE 2 /* then a row is poison ... */
#define SUSPECT_ENDS_ALONE 5    /* ... and then, too */

struct suspects {
	struct suspect {
		int64_t row;
		int part; /* >= 0: when it may run; or SUSPECT_POISON */
	} *rows;      /* ascending by row */
	size_t n;
	int n_parts;
	int first_alone; /* this part and the later ones are single rows that run alone, after everything else; n_parts: none */
};

/* Fills *out, which is released by suspects_release. */
void suspects_judge(struct suspects *out, const struct crash *crashes, size_t n);
void suspects_release(struct suspects *s);
int suspects_part(const struct suspects *s, int64_t row); /* SUSPECT_NOT for others */

#endif
