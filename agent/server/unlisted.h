/* Tiers that no rule lists: who is misspelt in HAProxy's map or in Redis has no limit by tier, and
 * nothing in the answer shows it. Any thread. */
#ifndef SERVER_UNLISTED_H
#define SERVER_UNLISTED_H

#include "limit/plan.h"

/* Of a plan whose tier the policy does not know by number: a warning, `tier_unlisted`, for each
 * such name once in ten minutes (two names may share that). `from_redis`: its store brought it. The
 * view is the one that was planned. No allocation; where the warning was given, only a look at
 * when. */
void unlisted_tell(const struct policy *, const struct plan *, const struct view *, bool from_redis,
	struct now);

#endif
