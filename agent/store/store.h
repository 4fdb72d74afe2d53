/* A store keeps buckets: `take` charges every limit of a plan or none. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "limit/decision.h"

enum store_rc { STORE_DONE, STORE_PENDING };
enum prefetch { PREFETCH_FIRST, PREFETCH_REST };

/* The name of a tier, or its beginning: one byte more than any tier has, so that what was cut is
 * nobody's. */
enum { TIER_TEXT_MAX = TIER_NAME_MAX + 1 };
struct tier_text {
	uint8_t length; /* 0: none */
	char text[TIER_TEXT_MAX];
};

/* Which tier a client is on, as the store knows it. */
struct tier_ask {
	/* By the first of these that is on one. The texts are borrowed until find_tier() returns.
	 * A secret one is looked for by its SHA-256 alone, any other by itself alone. */
	struct str name[2];
	bool secret[2];
	bool is_hash; /* name[0] is "sha256:HEX", of a secret one that nobody here knows */
	unsigned n;
	struct tier_text tier;
	/* After STORE_PENDING. NULL: what is known at once has to do, however old. */
	void (*done)(struct tier_ask *);
	usec_t begun;   /* when it was asked, for plan.begun; 0: STORE_DONE */
	struct now now; /* when it was answered, before done() */
	/* the store's own */
	struct tier_ask *next;
	uint8_t place[2];
};

struct store; /* each kind of store embeds it first */

struct store_ops {
	/* STORE_DONE: the verdicts are filled now. STORE_PENDING: plan->done is called exactly
	 * once, later, on this loop, whatever happens. Any worker thread. */
	enum store_rc (*take)(struct store *, struct plan *, struct now);
	/* The verdicts at once, by the failure policy, without asking: for who has no room to wait.
	 * NULL: a store that never answers STORE_PENDING. */
	void (*fall_back)(struct store *, struct plan *, struct now);
	/* STORE_DONE: `tier` is set; where nobody can be asked it may be an old one, or none.
	 * STORE_PENDING: ask->done is called exactly once, later, on this loop, whatever happens.
	 * NULL: a store that knows of no tiers. */
	enum store_rc (*find_tier)(struct store *, struct tier_ask *, struct now);
	/* What was remembered of earlier answers holds no longer: a reload, a reset. NULL: nothing
	 * is. */
	void (*forget)(struct store *);
	/* Every counter of the plan is as one never seen; take.held says whether it was so before,
	 * where that is known. STORE_PENDING: plan->done is called once,
	 * later, on this loop, whatever happens. plan->degraded then: it is not certain of all. */
	enum store_rc (*erase)(struct store *, struct plan *);
	/* Is its memory waited for, as it is more than a cache holds? Both NULL: of another kind.
	 */
	bool (*is_large)(struct store *);
	/* Asks for the memory that taking this plan will want, soon: PREFETCH_FIRST, and
	 * PREFETCH_REST when the first has had a few hundred nanoseconds to come. Looks at nothing
	 * that a take could change meanwhile but to guess. */
	void (*prefetch)(struct store *, struct plan *, enum prefetch);
	void (*close)(struct store *);
};

struct store {
	const struct store_ops *ops;
};

static inline enum store_rc store_take(struct store *s, struct plan *plan, struct now now)
{
	return s->ops->take(s, plan, now);
}

static inline bool store_may_be_pending(const struct store *s)
{
	return s && s->ops->fall_back != NULL;
}

static inline void store_close(struct store *s)
{
	if (s)
		s->ops->close(s);
}

#endif
