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

/* Fill *c for a shard whose files are l. 0 or -1. */
static int look_at_shard(struct job *j, int64_t shard, const struct shard_listing *l, const struct job_worker *w, struct candidate *c,
                         struct err *err)
{
	struct claim claim = {0};
	char *dir, *name;
	int rc;

	*c = (struct candidate){.shard = shard, .epoch = l->epoch, .n_temporary = l->n_temporary};
	if (l->is_done) {
		j->shards[shard].is_done = 1;
		return 0;
	}
	if (l->epoch > 0) {
		dir = job_shard_dir(j, shard);
		name = path_format("%s/claim-%04d", dir, l->epoch);
		rc = claim_read(&claim, j->store, name, err);
		free(name);
		free(dir);
		if (rc < 0)
			return -1;
		c->claimant = rc == 0 ? CLAIMANT_UNKNOWN : l->released >= l->epoch ? CLAIMANT_GONE : claim_claimant(&claim);
	}
	c->rank = rank_shard(l->epoch > 0, claim.worker == w->index, c->claimant);
	return 0;
}

static int by_rank(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->rank != b->rank)
		return a->rank > b->rank ? -1 : 1;
	return (a->shard > b->shard) - (a->shard < b->shard); /* neighbours share prefixes */
}

/* What a dead claimant was writing when it died. A failure is no harm: such files are never read. */
static void remove_temporary(struct store *s, const char *dir)
{
	struct err ignored = {0};
	char **names;
	size_t n;

	if (store_list(s, dir, &names, &n, &ignored) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (strstr(names[i], ".tmp-")) {
			char *name = path_format("%s/%s", dir, names[i]);

			store_remove_tree(s, name, &ignored);
			free(name);
		}
	store_names_free(names, n);
}

/* 1 and *out; 0: somebody else was quicker, or nothing is left to do in it; -1. */
static int try_claim(struct job *j, const struct candidate *c, const struct job_worker *w, struct shard **out, struct err *err)
{
	char *dir = job_shard_dir(j, c->shard), *path = path_format("%s/claim-%04d", dir, c->epoch + 1);
	struct claim claim;
	int rc;

	claim_begin(&claim, w->index, w->attempt);
	rc = claim_create(&claim, j->store, path, err);
	if (rc == 1) {
		if (c->n_temporary > 0 && c->claimant == CLAIMANT_GONE)
			remove_temporary(j->store, dir);
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

/* "00012/claim-0001" -> 12 and the length of what is before the name; -1 for what is no shard's. */
static int64_t shard_of_name(const char *name, size_t *skip)
{
	char *end;
	long long shard = strtoll(name, &end, 10);

	if (end - name < 5 || *end != '/' || name[0] == '-' || name[0] == '+')
		return -1;
	*skip = (size_t)(end - name) + 1;
	return shard;
}

/* Look at every shard that is not known to be done, best first. All of them are listed at once: one request for each thousand files where
 * storage is remote. */
static int look_at_all(struct job *j, const struct job_worker *w, struct err *err)
{
	struct pick *p = j->pick;
	char *root = path_format("%sshards", j->base), **names;
	size_t n, at = 0;
	int rc = store_list_tree(j->store, root, &names, &n, err);

	free(root);
	if (!p)
		p = j->pick = xcalloc(1, sizeof(*p));
	p->n = p->next = 0;
	p->worker = w->index;
	while (rc == 0 && at < n) {
		size_t first = at, skip = 0, other;
		int64_t shard = shard_of_name(names[at], &skip);
		struct shard_listing l;

		for (at++; at < n && shard_of_name(names[at], &other) == shard; at++)
			;
		if (shard < 0 || shard >= j->n_shards || j->shards[shard].is_done)
			continue;
		shard_listing_take(&l, names + first, at - first, skip);
		MEM_GROW(p->candidates, p->cap, p->n + 1);
		rc = look_at_shard(j, shard, &l, w, &p->candidates[p->n], err);
		if (rc == 0 && p->candidates[p->n].rank != RANK_NOT)
			p->n++;
		shard_listing_release(&l);
	}
	store_names_free(names, n);
	if (rc < 0)
		p->n = 0;
	if (p->n > 1)
		qsort(p->candidates, p->n, sizeof(*p->candidates), by_rank);
	return rc;
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
