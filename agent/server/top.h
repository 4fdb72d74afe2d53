/* Who is denied most, asks most and uses most, and where what is denied goes: a sketch of each
 * (sketch.h) for a worker, written with the checks, read by control. They begin anew every
 * TOP_HALF, and the last two count: what is told is of the last five to ten minutes.
 *
 * Up to SAMPLER_ALL_PER_SECOND for a worker, of denials and of checks, all are counted, beyond that
 * samples (sampler.h) with the weight of those that they stand for: to find a name for each of a
 * flood of clients would cost more than to deny them. Of costs, units are what is sampled, so that
 * a sample stands for as much whatever one check costs. */
#ifndef SERVER_TOP_H
#define SERVER_TOP_H

#include "limit/decision.h"
#include "server/sampler.h"
#include "base/clock.h"
#include "base/sketch.h"

#include <stdatomic.h>

#define TOP_HALF (5 * 60 * USEC_PER_SEC)

enum top_kind {
	TOP_DENIED,    /* denials, by client */
	TOP_ENDPOINTS, /* denials, by METHOD:/path */
	TOP_CHECKED,   /* checks, by client */
	TOP_COST,      /* units that admitted checks took, by client */
	TOP_SHADOW,    /* checks that a rule in shadow mode would have denied, by client */
	TOP_KINDS
};

/* What is sampled, each by its own rate. */
enum top_stream { TOP_OF_CHECKS, TOP_OF_DENIALS, TOP_OF_UNITS, TOP_OF_SHADOWS, TOP_STREAMS };

/* A client is the descriptor of the rule that was reported, or that banned him, and goes with that
 * rule; of TOP_SHADOW it is the first rule in shadow mode that would have denied. */
struct top {
	struct sampler sampler[TOP_STREAMS];
	usec_t looked_at;          /* at the rates; steady */
	_Atomic(usec_t) look_next; /* until when what is passed over is so by these rates */
	uint64_t epoch;            /* that the sketches are of; 0: none yet */
	struct sketch *sketch[TOP_KINDS][2];
	/* The most that one sample stood for, or could have: in that half, and now. */
	_Atomic(uint64_t) one_in[TOP_STREAMS][2], one_in_now[TOP_STREAMS];
};

struct top *top_new(void); /* NULL: out of memory */
void top_free(struct top *);

/* ---- a worker, for each decision ---- */

/* What is to be counted once its name is known; 0: nothing. */
struct top_rest {
	uint64_t weight[TOP_KINDS];
	const struct take *shadow; /* the plan's; NULL: none */
};

bool top_add(struct top *, const struct plan *, const struct decision *, struct top_rest *);
void top_add_rest(struct top *, const struct policy *, const struct decision *, const struct view *,
	const struct top_rest *);

/* Forgets all clients, as when what names them has become secret. */
void top_forget(struct top *);

static inline int64_t top_units(const struct decision *d)
{
	return d->reported && !d->deny ? d->reported->cost : 0;
}

/* true: top_add_rest() is to be called, with the request's view. */
static inline bool top_count(
	struct top *t, const struct plan *plan, const struct decision *d, struct top_rest *rest)
{
	bool due = plan->now.steady >= atomic_load_explicit(&t->look_next, memory_order_relaxed);

	if (__builtin_expect(sampler_pass(&t->sampler[TOP_OF_CHECKS], 1), 0))
		due = true;
	if (d->deny) {
		if (__builtin_expect(sampler_pass(&t->sampler[TOP_OF_DENIALS], 1), 0))
			due = true;
	} else if (__builtin_expect(sampler_pass(&t->sampler[TOP_OF_UNITS], top_units(d)), 0)) {
		due = true;
	}
	if (d->shadow && __builtin_expect(sampler_pass(&t->sampler[TOP_OF_SHADOWS], 1), 0))
		due = true;
	return __builtin_expect(due, 0) && top_add(t, plan, d, rest);
}

/* ---- control ---- */

struct top_item {
	char name[SKETCH_NAME_MAX + 1];
	uint32_t rule;  /* its `tally` / TALLY_ROW */
	uint64_t count; /* too much by at most `error`, and never too little; */
	uint64_t error; /* of what was sampled, with a probability of 99.9 % */
};

struct top_list {
	struct top_item *item; /* owned; by count, the most first */
	size_t n;
	uint64_t total;  /* of all that was counted; an estimate, of what was sampled */
	uint64_t error;  /* who is not in the list has at most this; likewise with 99.9 % */
	uint64_t one_in; /* 1: nothing was passed over; else the most that one sample stood for */
	usec_t since;    /* steady */
};

/* All that n workers have counted, as of `now`. false: out of memory. */
bool top_list(
	const struct top *const of[], unsigned n, enum top_kind, usec_t now, struct top_list *);
void top_list_free(struct top_list *);

#endif
