/* rank.h: may a worker take a shard? What is seen of the shard goes in, one answer comes out: a pure function, so that a table can test it. */
#ifndef TOKENMILL_QUEUE_RANK_H
#define TOKENMILL_QUEUE_RANK_H

#include "queue/claim.h"

enum shard_rank { /* higher ones are taken first */
	RANK_NOT = 0,    /* in good hands */
	RANK_WATCH = 1,  /* its claimant may be gone: look again */
	RANK_ORPHAN = 2, /* its claimant is gone */
	RANK_FREE = 3,
	RANK_OWN = 4,    /* claimed before by this worker's index, and nobody is known to run it */
};

struct shard_seen {
	int is_claimed;       /* the rest is about the highest claim */
	int is_mine;          /* made by this very process */
	int is_released;      /* given back unfinished */
	int same_index;       /* made by this worker's index */
	int index_is_default; /* this worker's index is 0 because nobody gave one: it says nothing of who is who */
	int same_host_name;
	int other_job;        /* made for another Job uid */
	int has_ended;        /* the attempt told its end */
	enum claimant claimant;
	int has_moved;        /* the heartbeat has changed since it was first looked at */
	double still_s;       /* the heartbeat has not changed for so long, by the observer's clock */
};

/* takeover_after_s 0: silence is no sign of death.
 *
 * A claimant of the same index elsewhere is an earlier pod of this worker, perhaps on a node that was cut off: taken over at once, since the
 * higher epoch fences it. Without a given index that holds for the same host name only (a laptop after a restart). */
enum shard_rank shard_rank(const struct shard_seen *s, double takeover_after_s);

#endif
