/* pick.c: which shard a worker takes next. What is seen (every shard's claim and claimant) goes through one pure function, rank_shard; then
 * the best-ranked are tried in turn, as another worker may be quicker. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/shard_private.h"

enum rank {
	RANK_NOT = 0,    /* done, or in good hands */
	RANK_ORPHAN = 1, /* its claimant is surely gone */
	RANK_FREE = 2,
	RANK_OWN = 3,    /* claimed before by this worker's index, and nobody is known to run it */
};

/* A claimant of the same index elsewhere is an earlier pod of this worker, perhaps on a node that was cut off: taken over at once, since the
 * higher epoch fences it. A live twin on this machine keeps what it has. */
static enum rank rank_shard(int is_claimed, int same_index, enum claimant claimant)
{
	if (!is_claimed)
		return RANK_FREE;
	switch (claimant) {
	case CLAIMANT_ALIVE:
		return RANK_NOT;
	case CLAIMANT_GONE:
		return same_index ? RANK_OWN : RANK_ORPHAN;
	default:
		return same_index ? RANK_OWN : RANK_NOT;
	}
}

struct candidate {
	int64_t shard;
	enum rank rank;
	int epoch;
	enum claimant claimant;
	int n_temporary;
};

struct pick {
	int worker; /* whose ranks these are */
	struct candidate *candidates;
	size_t n, cap, next;
};

/* Fill *c for a shard. 0 or -1. */
static int look_at_shard(struct job *j, int64_t shard, const struct job_worker *w, struct candidate *c, struct err *err)
{
	char *dir = job_shard_dir(j, shard), *path;
	struct shard_listing l;
	struct claim claim = {0};
	int rc = shard_listing_read(&l, dir, err);

	*c = (struct candidate){.shard = shard, .epoch = l.epoch, .n_temporary = l.n_temporary};
	if (rc == 0 && l.is_done) {
		j->shards[shard].is_done = 1;
	} else if (rc == 0) {
		if (l.epoch > 0) {
			path = path_format("%s/claim-%04d", dir, l.epoch);
			rc = claim_read(&claim, path, err);
			free(path);
			if (rc == 0)
				c->claimant = claim_claimant(&claim);
		}
		if (rc == 0)
			c->rank = rank_shard(l.epoch > 0, claim.worker == w->index, c->claimant);
	}
	shard_listing_release(&l);
	free(dir);
	return rc;
}

static int by_rank(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->rank != b->rank)
		return a->rank > b->rank ? -1 : 1;
	return (a->shard > b->shard) - (a->shard < b->shard); /* neighbours share prefixes */
}

/* What a dead claimant was writing when it died. A failure is no harm: such files are never read. */
static void remove_temporary(const char *dir)
{
	struct err ignored = {0};
	char **names;
	size_t n;

	if (dir_list(dir, &names, &n, &ignored) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (strstr(names[i], ".tmp-")) {
			char *path = path_format("%s/%s", dir, names[i]);

			tree_remove(path, &ignored);
			free(path);
		}
	names_free(names, n);
}

/* 1 and *out; 0: somebody else was quicker, or nothing is left to do in it; -1. */
static int try_claim(struct job *j, const struct candidate *c, const struct job_worker *w, struct shard **out, struct err *err)
{
	char *dir = job_shard_dir(j, c->shard), *path = path_format("%s/claim-%04d", dir, c->epoch + 1);
	struct claim claim;
	int rc;

	claim_begin(&claim, w->index, w->attempt);
	rc = claim_create(&claim, path, err);
	if (rc == 1) {
		if (c->n_temporary > 0 && c->claimant == CLAIMANT_GONE)
			remove_temporary(dir);
		*out = shard_open(j, c->shard, c->epoch + 1, &claim, err);
		rc = *out ? 1 : -1;
	}
	if (rc == 1 && shard_n_done(*out) == shard_n_rows(*out)) {
		/* The last segment was published, its writer died before the mark. */
		rc = shard_mark_done(*out, err);
		shard_close(*out);
		*out = NULL;
	} else if (rc != 1) {
		claim_end(&claim);
	}
	free(dir);
	free(path);
	return rc;
}

/* Look at every shard that is not known to be done, best first. */
static int look_at_all(struct job *j, const struct job_worker *w, struct err *err)
{
	struct pick *p = j->pick;

	if (!p)
		p = j->pick = xcalloc(1, sizeof(*p));
	p->n = p->next = 0;
	p->worker = w->index;
	for (int64_t i = 0; i < j->n_shards; i++) {
		if (j->shards[i].is_done)
			continue;
		MEM_GROW(p->candidates, p->cap, p->n + 1);
		if (look_at_shard(j, i, w, &p->candidates[p->n], err) < 0) {
			p->n = 0;
			return -1;
		}
		if (p->candidates[p->n].rank != RANK_NOT)
			p->n++;
	}
	if (p->n > 1)
		qsort(p->candidates, p->n, sizeof(*p->candidates), by_rank);
	return 0;
}

void pick_free(struct pick *p)
{
	if (p)
		free(p->candidates);
	free(p);
}

/* One look serves many claims: a job of thousands of shards is not listed anew for each. What was seen may be old by now, but any change of a
 * shard begins with a claim, and then try_claim finds the number taken. */
int job_claim(struct job *j, const struct job_worker *w, struct shard **out, struct err *err)
{
	int rc = 0;

	*out = NULL;
	if (j->pick && j->pick->worker != w->index)
		j->pick->n = j->pick->next = 0;
	/* Looks that find only what others then take first are repeated, but not for ever. */
	for (int looks = 0; rc == 0;) {
		if (!j->pick || j->pick->next == j->pick->n) {
			if (looks++ == 3 || (rc = look_at_all(j, w, err)) < 0 || j->pick->n == 0)
				break;
		}
		rc = try_claim(j, &j->pick->candidates[j->pick->next++], w, out, err);
	}
	return rc;
}
