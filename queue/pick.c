/* pick.c: which shard a worker takes next. What is seen (every shard's claim and claimant) goes through one pure function, shard_rank; then
 * the best-ranked are tried in turn, as another worker may be quicker. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "queue/observer.h"
#include "queue/rank.h"
#include "queue/shard_private.h"

struct candidate {
	int64_t shard;
	enum shard_rank rank;
	int epoch;
	enum claimant claimant;
	int n_temporary;
};

struct pick {
	int worker; /* whose ranks these are */
	struct candidate *candidates;
	size_t n, cap, next;
	struct observer observer;
	struct claim here; /* this process, without a handle */
	/* what the last look left to be watched */
	size_t n_watched;
	struct claim watched; /* one of their claimants, the one that was silent for longest */
	double watched_still_s;
};

/* How the claim of a shard looks from here. */
static void look_at_claim(struct job *j, const struct shard_listing *l, const struct claim *claim, const struct job_worker *w,
                          double now_s, struct shard_seen *seen)
{
	const struct claim *here = &j->pick->here;

	seen->is_released = l->released >= l->epoch;
	seen->same_index = claim->worker == w->index;
	seen->index_is_default = w->index_is_default;
	seen->same_host_name = strcmp(claim->host, here->host) == 0;
	seen->is_mine = claim->pid == here->pid && claim->process_start == here->process_start && strcmp(claim->boot, here->boot) == 0;
	seen->other_job = *claim->job_uid && *here->job_uid && strcmp(claim->job_uid, here->job_uid) != 0;
	seen->claimant = claim_claimant(claim);
	if (!seen->is_released && seen->claimant != CLAIMANT_GONE && !seen->is_mine && !seen->other_job) {
		struct signs signs = observer_look(&j->pick->observer, j->store, claim->worker, claim->attempt, now_s);

		seen->has_ended = signs.has_ended;
		seen->has_moved = signs.has_moved;
		seen->still_s = signs.still_s;
	}
}

/* Fill *c for a shard whose files are l. 0 or -1. */
static int look_at_shard(struct job *j, int64_t shard, const struct shard_listing *l, const struct job_worker *w, double now_s,
                         struct candidate *c, struct err *err)
{
	struct pick *p = j->pick;
	struct shard_seen seen = {.is_claimed = l->epoch > 0};
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
		if (rc == 0)
			return 0; /* listed, and not there: the next look tells */
		look_at_claim(j, l, &claim, w, now_s, &seen);
	}
	c->claimant = seen.is_released ? CLAIMANT_GONE : seen.claimant;
	c->rank = shard_rank(&seen, w->takeover_after_s);
	if (c->rank == RANK_WATCH && (p->n_watched++ == 0 || seen.still_s > p->watched_still_s)) {
		p->watched = claim;
		p->watched_still_s = seen.still_s;
	}
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
	double now_s = clock_seconds();
	int rc = store_list_tree(j->store, root, &names, &n, err);

	free(root);
	if (!p)
		p = j->pick = xcalloc(1, sizeof(*p));
	p->n = p->next = p->n_watched = 0;
	p->worker = w->index;
	claim_begin(&p->here, w->index, w->attempt);
	claim_end(&p->here);
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
		rc = look_at_shard(j, shard, &l, w, now_s, &p->candidates[p->n], err);
		if (rc == 0 && p->candidates[p->n].rank >= RANK_ORPHAN)
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
	if (!p)
		return;
	observer_release(&p->observer);
	free(p->candidates);
	free(p);
}

size_t job_n_watched(const struct job *j, struct buf *who, double *still_s)
{
	const struct pick *p = j->pick;

	if (!p || p->n_watched == 0)
		return 0;
	if (who)
		claim_describe(&p->watched, who);
	if (still_s)
		*still_s = p->watched_still_s;
	return p->n_watched;
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
