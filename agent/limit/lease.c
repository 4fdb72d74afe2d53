#include "limit/lease.h"

#include <stddef.h>

#define LIFE_SPENT (LEASE_LIFE - LEASE_LIFE / 8)

/* An agent reads its clock for many requests at once. */
#define WINDOW_MARGIN (5 * USEC_PER_MSEC)

static int64_t turn_of(usec_t t)
{
	int64_t turn = t / LEASE_LIFE;
	return turn - (t % LEASE_LIFE < 0);
}

static bool is_tokens(const struct quota *q)
{
	return q->algorithm == ALGORITHM_TOKEN_BUCKET;
}

int64_t lease_mark(const struct quota *q, const struct leased *state, struct now now)
{
	return is_tokens(q) ? turn_of(now.steady) : state->bucket.at;
}

static usec_t earlier(usec_t a, usec_t b)
{
	return a < b ? a : b;
}

static double drained(const struct quota *q, double used, usec_t from, usec_t to)
{
	if (from < to && used > 0) {
		used -= (double)(to - from) * (double)q->units / (double)q->window.length;
		if (used < 0)
			used = 0;
	}
	return used;
}

static double more(double a, double b)
{
	return a > b ? a : b;
}

/* Draining from `used`, stopped at `out` until `end`, is the greater of two that are not stopped:
 * one from `used`, and one from `out` at `end`. */
struct leased lease_read(const struct quota *q, const struct leased *stored, struct now now)
{
	struct leased l = *stored;

	if (!is_tokens(q) || (l.fresh | l.stale) == 0)
		return l;
	usec_t t = now.steady;
	int64_t turn = turn_of(t), then = turn_of(l.bucket.at);
	double out = (double)l.fresh + (double)l.stale;
	double used = l.bucket.used;
	if (used > (double)q->capacity + UNIT_SLACK)
		used = (double)q->capacity;
	used = drained(q, used, l.bucket.at, t);
	used = more(used, drained(q, out, earlier((then + 1) * LEASE_LIFE, t), t));
	used = more(used, drained(q, (double)l.fresh, earlier((then + 2) * LEASE_LIFE, t), t));
	l.bucket.used = used;
	if (l.bucket.at < t)
		l.bucket.at = t;
	if (then > turn) {
		/* The clock was set back. Whose turn is whose is lost: all get the longer one. */
		l.fresh = out < UINT32_MAX ? (uint32_t)out : UINT32_MAX;
		l.stale = 0;
	} else if (then < turn) {
		l.stale = then + 1 == turn ? l.fresh : 0;
		l.fresh = 0;
	}
	return l;
}

static uint32_t at_most(uint32_t n, uint32_t most)
{
	return n < most ? n : most;
}

/* Of a block that is not known any more, nothing is out, and nothing comes back. */
static void hear(const struct quota *q, struct leased *l, const struct lease_ask *ask, int64_t turn)
{
	struct bucket *b = &l->bucket;

	if (ask->done == 0)
		return;
	if (!is_tokens(q)) {
		if (ask->mark == b->at)
			b->current -= at_most(ask->back, b->current);
		return;
	}
	uint32_t *out = ask->mark == turn ? &l->fresh : ask->mark == turn - 1 ? &l->stale : NULL;
	if (!out || ask->done > *out)
		return;
	*out -= ask->done;
	b->used = ask->back < b->used ? b->used - ask->back : 0;
}

static uint32_t grant(const struct quota *q, struct leased *l, uint32_t want, struct now now)
{
	double most = bucket_left(q, &l->bucket, now) / LEASE_PART;

	if (is_tokens(q)) {
		double room = (double)q->capacity / LEASE_OUT - (double)l->fresh - (double)l->stale;
		most = most < room ? most : room;
	}
	if (want < most)
		most = want;
	if (most < LEASE_LEAST)
		return 0;
	uint32_t units = (uint32_t)most;
	bucket_charge(q, &l->bucket, units);
	if (is_tokens(q))
		l->fresh += units;
	return units;
}

uint32_t lease_apply(const struct quota *q, const struct leased *stored,
	const struct lease_ask *ask, struct now now, struct leased *state)
{
	*state = lease_read(q, stored, now);
	state->bucket = bucket_read(q, &state->bucket, now);
	hear(q, state, ask, turn_of(now.steady));
	return grant(q, state, ask->want, now);
}

usec_t lease_life(const struct quota *q, const struct leased *state, struct now now)
{
	if (is_tokens(q))
		return LIFE_SPENT;
	return earlier(LIFE_SPENT, bucket_window_end(q, &state->bucket) - now.utc - WINDOW_MARGIN);
}
