/* A store keeps buckets: `take` charges every limit of a plan or none. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "limit/decision.h"

enum store_rc { STORE_DONE, STORE_PENDING };

struct store; /* each kind of store embeds it first */

struct store_ops {
	/* STORE_DONE: the verdicts are filled now. STORE_PENDING: plan->done is called exactly
	 * once, later, on this loop, whatever happens. Any worker thread. */
	enum store_rc (*take)(struct store *, struct plan *, struct now);
	/* The verdicts at once, by the failure policy, without asking: for who has no room to wait.
	 * NULL: a store that never answers STORE_PENDING. */
	void (*fall_back)(struct store *, struct plan *, struct now);
	/* What was remembered of earlier answers holds no longer: a reload, a reset. NULL: nothing
	 * is. */
	void (*forget)(struct store *);
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
