#include "store/redis_parts.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct part {
	struct plan plan; /* first: a part is found by it */
	struct redis_parts *all;
};

struct redis_parts {
	struct plan *whole; /* NULL: it is over */
	uint8_t part_of[PLAN_MAX];
	unsigned n, left;
	bool denied;     /* the whole was, by all parts */
	unsigned afters; /* handed out: two for each part, at most */
	/* Parts are still to be read when the whole is over, and its asker gone. */
	_Atomic(unsigned) *holders;
	struct part part[];
};

unsigned redis_parts_of(const struct plan *plan, uint8_t part_of[PLAN_MAX], uint16_t slot[PLAN_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < plan->n; i++) {
		/* All limits of a rule have one descriptor, and so one slot. */
		if (i && plan->take[i].limit->rule == plan->take[i - 1].limit->rule) {
			part_of[i] = part_of[i - 1];
			continue;
		}
		uint16_t mine = redis_slot(&plan->take[i]);
		unsigned k = 0;
		while (k < n && slot[k] != mine)
			k++;
		if (k == n)
			slot[n++] = mine;
		part_of[i] = (uint8_t)k;
	}
	return n;
}

/* By this a part is known; nobody calls it. */
static void on_part(struct plan *plan)
{
	(void)plan;
	abort();
}

struct redis_parts *redis_parts_new(struct plan *whole, const uint8_t part_of[], unsigned part_n)
{
	struct redis_parts *p = malloc(sizeof *p + part_n * sizeof p->part[0]);

	if (!p)
		return NULL;
	p->whole = whole;
	memcpy(p->part_of, part_of, whole->n);
	p->n = p->left = part_n;
	p->denied = false;
	p->afters = 0;
	p->holders = whole->holders;
	if (p->holders)
		atomic_fetch_add_explicit(p->holders, 1, memory_order_relaxed);
	for (unsigned i = 0; i < part_n; i++) {
		split_part(whole, part_of, i, &p->part[i].plan);
		p->part[i].plan.begun = whole->begun;
		p->part[i].plan.done = on_part;
		p->part[i].all = p;
	}
	return p;
}

struct plan *redis_parts_at(struct redis_parts *p, unsigned i)
{
	return &p->part[i].plan;
}

struct redis_parts *redis_parts_whose(const struct plan *part)
{
	return part->done == on_part ? ((const struct part *)part)->all : NULL;
}

static void join(struct redis_parts *p)
{
	const struct plan *part[PLAN_MAX];

	for (unsigned i = 0; i < p->n; i++)
		part[i] = &p->part[i].plan;
	split_join(p->whole, p->part_of, part);
	p->denied = p->whole->denied;
}

struct plan *redis_parts_back(struct redis_parts *p, bool answered, bool *failed)
{
	struct plan *whole = p->whole;

	assert(p->left);
	p->left--;
	*failed = !answered;
	if (!whole || (answered && p->left))
		return NULL;
	if (answered)
		join(p);
	p->whole = NULL;
	return whole;
}

bool redis_parts_is_over(const struct redis_parts *p)
{
	return p->left == 0;
}

struct redis_after *redis_parts_next_after(struct redis_parts *p, unsigned *lost)
{
	static _Thread_local struct plan after;

	while (p->denied && p->afters < 2 * p->n) {
		unsigned i = p->afters++;
		const struct plan *part = &p->part[i / 2].plan;
		if (!(i % 2 ? split_charge : split_refund)(part, &after))
			continue;
		struct redis_after *a = redis_after_new(&after);
		if (a)
			return a;
		(*lost)++;
	}
	return NULL;
}

void redis_parts_free(struct redis_parts *p)
{
	if (p && p->holders)
		atomic_fetch_sub_explicit(p->holders, 1, memory_order_release);
	free(p);
}

bool redis_parts_drop(struct redis_parts *p, unsigned first)
{
	p->whole = NULL;
	p->left = first;
	if (first)
		return true;
	redis_parts_free(p);
	return false;
}
