/* merge_turn.c: of workers that see all shards done at once one merges, and the others leave it to him. Who merges holds a claim, merging-claim-NNNN
 * (workplace.c): the lowest number that is held counts, so of those that begin at once all but one give way. A holder on this machine is asked
 * for; of another one the beat tells. A wrong guess is no harm: two that merge write the same bytes. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/observer.h"

struct merge_watch {
	struct job *job;
	double takeover_after_s;
	struct observer observer;
};

struct merge_watch *merge_watch_open(struct job *j, const struct job_worker *w)
{
	struct merge_watch *m = xcalloc(1, sizeof(*m));

	m->job = j;
	m->takeover_after_s = w->takeover_after_s;
	return m;
}

void merge_watch_close(struct merge_watch *m)
{
	if (!m)
		return;
	observer_release(&m->observer);
	free(m);
}

/* Is the holder of a claim at it? Fills in what is known of him. */
static int is_at_it(struct merge_watch *m, int64_t number, const struct claim *holder, int *is_alive)
{
	char *name = path_format("merging-beat-%04" PRId64, number);
	struct err ignored = {0};
	struct buf b = {0};
	struct signs signs;
	int64_t beat;
	enum claimant claimant = claim_claimant(holder);

	*is_alive = claimant == CLAIMANT_ALIVE;
	if (claimant == CLAIMANT_UNKNOWN) {
		beat = store_get(m->job->store, name, 64, &b, &ignored) == 1 ? strtoll(buf_str(&b), NULL, 10) : 0;
		signs = observer_note(&m->observer, name, beat, clock_seconds());
		*is_alive = signs.has_moved;
		if (signs.still_s >= m->takeover_after_s)
			claimant = CLAIMANT_GONE;
	}
	buf_release(&b);
	free(name);
	return claimant != CLAIMANT_GONE;
}

int merge_watch_look(struct merge_watch *m, int64_t below, int *is_alive, struct buf *who, struct err *err)
{
	char **names;
	size_t n;
	int found = 0;

	*is_alive = 0;
	if (store_list(m->job->store, "", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n && found == 0; i++) {
		int64_t number = name_number(names[i], "merging-claim");
		struct claim holder;

		if (number < 0 || number >= below)
			continue;
		found = claim_read(&holder, m->job->store, names[i], err);
		if (found == 1)
			found = is_at_it(m, number, &holder, is_alive);
		if (found == 1)
			claim_describe(&holder, who);
	}
	store_names_free(names, n);
	return found;
}
