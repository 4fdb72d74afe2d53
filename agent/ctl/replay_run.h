/* A configuration's policy with requests of the past, in their order and at their own times, from
 * the memory store as the agent takes them. No clock, no sockets, no files. */
#ifndef CTL_REPLAY_RUN_H
#define CTL_REPLAY_RUN_H

#include "config/snapshot.h"

#include <jansson.h>

struct replay_run;

/* Both are borrowed: the key is what the snapshot was made with. NULL: out of memory. */
struct replay_run *replay_run_new(const struct snapshot *, const struct hash_key *);
void replay_run_free(struct replay_run *); /* NULL is fine */

/* The next request, with a view that policy_plan() has not had. One that is older than one before
 * it (a log has it when it has ended) is taken at the latest time seen. false: out of memory. */
bool replay_run_take(struct replay_run *, struct view *, usec_t utc);

/* What came of it: replay_count_json() with "from" and "to" (Unix seconds; null: there was none),
 * "late" and "late_seconds", "evicted" counters, "unseen" fields that rules look at and no request
 * had, and which "store" the configuration has; of each rule, what it wants and no request had,
 * "missing": its numbers are no judgement then. NULL: out of memory. */
json_t *replay_run_json(const struct replay_run *, unsigned most);

#endif
