/* What the tests of server/ share that want answers later: a store that keeps its plans until the
 * test lets them go, in any order. */
#ifndef LATE_STORE_H
#define LATE_STORE_H

#include "server/check.h"
#include "store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LATE_MAX = CHECKS_MAX * 2 };

struct late_store {
	struct store base;
	struct plan *plan[LATE_MAX];
	unsigned n;
	unsigned fell_back;
};

/* As if nothing had been counted yet. */
static inline void late_decide(struct plan *plan, struct now now)
{
	static const struct bucket *const none[PLAN_MAX];
	plan_charge(plan, none, now);
	plan->now = now;
}

static inline enum store_rc late_take(struct store *base, struct plan *plan, struct now now)
{
	struct late_store *s = (struct late_store *)base;
	(void)now;
	assert_true(s->n < LATE_MAX);
	s->plan[s->n++] = plan;
	return STORE_PENDING;
}

static inline void late_fall_back(struct store *base, struct plan *plan, struct now now)
{
	struct late_store *s = (struct late_store *)base;
	s->fell_back++;
	late_decide(plan, now);
}

static inline void late_close(struct store *base)
{
	(void)base;
}

static const struct store_ops late_ops = {
	.take = late_take, .fall_back = late_fall_back, .close = late_close
};

/* The i-th goes, and the last takes its place. */
static inline void late_let_go(struct late_store *s, unsigned i, struct now now)
{
	struct plan *plan = s->plan[i];
	s->plan[i] = s->plan[--s->n];
	late_decide(plan, now);
	plan->done(plan);
}

#endif
