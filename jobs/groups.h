/* groups.h: measures by any combination of dimensions (--by tenant,project,day,tag:team): a table that grows with the number of
 * groups and with nothing else.
 *
 * A group's values are texts, one for each dimension, "" where a row has none; a day's is "2026-01-31". Tags of the row
 * override those of the job; tenant, project and user are tags of that name. Texts are valid UTF-8 without NUL bytes. Not
 * thread-safe. */
#ifndef TOKENMILL_JOBS_GROUPS_H
#define TOKENMILL_JOBS_GROUPS_H

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#include "base/errors.h"
#include "base/mem.h"
#include "jobs/measure.h"

#define DIMENSIONS_MAX 16

enum dimension_kind {
	DIMENSION_TAG = 1,
	DIMENSION_MODEL = 2,
	DIMENSION_JOB = 3,
	DIMENSION_NODE = 4,
	DIMENSION_DAY = 5,
};

struct dimension {
	enum dimension_kind kind;
	char name[128]; /* heading: "tenant", "day", "tag:team" */
};

struct dimensions {
	struct dimension list[DIMENSIONS_MAX];
	int n;
};
/* "tenant,day,tag:team"; "" for none. ERR_USAGE. */
int dimensions_parse(const char *text, struct dimensions *out, struct err *err);
int dimensions_find(const struct dimensions *d, const char *name);           /* position, -1: none */
int dimensions_add(struct dimensions *d, const char *name, struct err *err); /* unless it is there */
const char *dimension_tag(const struct dimension *d);                        /* the tag's name */

/* What rows have in common that fall into one group. */
struct group_facts {
	const char *model, *job, *node;
	int64_t day;
	yyjson_val *row_tags, *job_tags; /* objects of strings, or NULL */
};

struct group {
	const char *values[DIMENSIONS_MAX]; /* in the arena */
	struct measure m;
};

struct groups {
	struct dimensions by;
	struct group **list; /* by first appearance; by value after groups_sort */
	size_t n, cap;
	size_t *slots; /* hash table of positions + 1 */
	size_t n_slots;
	struct arena arena;
};

void groups_init(struct groups *g, const struct dimensions *by);
void groups_release(struct groups *g);
/* -1: a sum does not fit (ERR_STORAGE). */
int groups_add(struct groups *g, const struct group_facts *f, const struct measure *m, struct err *err);
void groups_sort(struct groups *g); /* by values, bytewise; adding is over */
int groups_total(const struct groups *g, struct measure *out, struct err *err);

/* The text of a tag within row_tags, then job_tags; "" for none. */
const char *group_facts_tag(const struct group_facts *f, const char *tag);

#endif
