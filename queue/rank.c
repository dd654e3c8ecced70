/* rank.c: the decision, from sure signs to unsure ones. */
#include "queue/rank.h"

enum shard_rank shard_rank(const struct shard_seen *s, double takeover_after_s)
{
	enum shard_rank if_gone = s->same_index ? RANK_OWN : RANK_ORPHAN;

	if (!s->is_claimed)
		return RANK_FREE;
	if (s->is_released || s->claimant == CLAIMANT_GONE)
		return if_gone;
	if (s->is_mine)
		return RANK_NOT;
	if (s->has_ended || s->other_job)
		return if_gone;
	if (s->claimant == CLAIMANT_UNKNOWN && s->same_index && (!s->index_is_default || s->same_host_name))
		return RANK_OWN;
	/* Also a process that is there: an engine that hangs, a process that was stopped. */
	if (takeover_after_s > 0 && s->still_s >= takeover_after_s)
		return if_gone;
	if (takeover_after_s <= 0 || s->has_moved || s->claimant == CLAIMANT_ALIVE)
		return RANK_NOT;
	return RANK_WATCH;
}
