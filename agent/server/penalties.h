/* A worker's part in penalties: denials are counted in the store, and who has had too many is
 * banned. Bounded: where too many denials wait for the store, one is not counted (and that is). */
#ifndef SERVER_PENALTIES_H
#define SERVER_PENALTIES_H

#include "config/snapshot.h"
#include "server/metrics.h"
#include "store/bans.h"
#include "store/store.h"

enum { STRIKES_MAX = 256 }; /* that wait for a store that answers later */

struct strikes;

struct penalties {
	struct bans *bans; /* shared */
	struct store *store;
	struct metrics *metrics; /* the worker's own */
	struct strikes *idle;
	unsigned n; /* how many there are, idle ones included */
};

void penalties_init(struct penalties *, struct bans *, struct store *, struct metrics *);
/* None may wait any more: close the store first. */
void penalties_fini(struct penalties *);

/* plan->outcome is OUTCOME_BANNED if its client is. (Its retry_after is the ban's end, although a
 * limit may deny for longer: whether one does, the store knows, which is not asked for who is
 * banned; what was known of it when the ban began would outlive resets, overrides and reloads.) */
void penalties_find(struct penalties *, struct plan *, struct now);

/* The plan was denied: counts that for each rule with a penalty that denied it. `view` is of the
 * same request. Returns the end (UTC) of the ban that begins by it; 0: none does, or the store
 * answers later. */
usec_t penalties_count(struct penalties *, struct snapshot *, const struct plan *denied,
	const struct view *, struct now);

#endif
