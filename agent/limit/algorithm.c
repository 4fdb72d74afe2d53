#include "limit/algorithm.h"

/* Waits are rounded up to whole microseconds; what is less than this above one is the noise of
 * doubles, not time. It is never worth more than half of UNIT_SLACK. */
#define WAIT_NOISE 0.05

/* "1/366d burst 1000000000" takes 10^22 microseconds to refill: waits end here, after 3,000 years.
 */
#define WAIT_MAX 1e17

/* Floor division: instants before 1970 (a clock not yet set) are dates, too. */
static int64_t floor_div(int64_t a, int64_t b)
{
	int64_t q = a / b;
	return q - (a % b < 0);
}

/* Days since 1970-01-01 of the first of a month; months count from January of year 0. The usual
 * civil calendar arithmetic: years begin in March, so that the leap day is the last. */
static int64_t days_of_month(int64_t months)
{
	int64_t y = floor_div(months, 12);
	int64_t m = months - y * 12 + 1;
	int64_t yy = m <= 2 ? y - 1 : y;
	int64_t era = floor_div(yy, 400);
	int64_t yoe = yy - era * 400;
	int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int64_t month_of_days(int64_t days)
{
	int64_t z = days + 719468;
	int64_t era = floor_div(z, 146097);
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	int64_t m = mp < 10 ? mp + 3 : mp - 9;
	int64_t y = yoe + era * 400 + (m <= 2);
	return y * 12 + m - 1;
}

void window_bounds(const struct window *w, usec_t utc, usec_t *start, usec_t *end)
{
	/* 1970-01-01 was a Thursday: the first Monday came four days later. */
	static const usec_t monday = 4 * USEC_PER_DAY;

	switch (w->kind) {
	case WINDOW_LENGTH:
		*start = floor_div(utc, w->length) * w->length;
		*end = *start + w->length;
		return;
	case WINDOW_WEEK:
		*start = floor_div(utc - monday, 7 * USEC_PER_DAY) * 7 * USEC_PER_DAY + monday;
		*end = *start + 7 * USEC_PER_DAY;
		return;
	case WINDOW_MONTH: {
		int64_t month = month_of_days(floor_div(utc, USEC_PER_DAY));
		*start = days_of_month(month) * USEC_PER_DAY;
		*end = days_of_month(month + 1) * USEC_PER_DAY;
		return;
	}
	case WINDOW_FROM_FIRST:
		*start = utc;
		*end = utc + w->length;
		return;
	}
}

bool quota_eq(const struct quota *a, const struct quota *b)
{
	return a->algorithm == b->algorithm && a->window.kind == b->window.kind &&
	       a->window.length == b->window.length && a->units == b->units &&
	       a->capacity == b->capacity;
}

/* The clamp comes before the drain: who owes no more than the capacity now, owes that much from the
 * last charge on, and what was told of the wait holds. */
static inline double tokens_used(const struct quota *q, const struct bucket *b, usec_t steady)
{
	double used = b->used;
	if (used > (double)q->capacity + UNIT_SLACK)
		used = (double)q->capacity;
	if (b->at < steady && used > 0) {
		used -= (double)(steady - b->at) * (double)q->units / (double)q->window.length;
		if (used < 0)
			used = 0;
	}
	return used;
}

static struct bucket read_tokens(const struct quota *q, const struct bucket *b, usec_t steady)
{
	return (struct bucket){ .used = tokens_used(q, b, steady), .at = steady };
}

static uint32_t at_most(uint32_t count, int64_t units)
{
	return count > units ? (uint32_t)units : count;
}

static inline bool is_in_window(const struct quota *q, const struct bucket *b, usec_t utc)
{
	return (uint64_t)utc - (uint64_t)b->at < (uint64_t)q->window.length;
}

/* Is `at` for certain where its window begins? A month has no one length, and of what was counted
 * nothing is the first. */
static inline bool is_still_in_window(const struct quota *q, const struct bucket *b, usec_t utc)
{
	return q->window.kind <= WINDOW_WEEK && is_in_window(q, b, utc);
}

/* The window that `b` was charged in, which is not of the future: one that is was charged before
 * the clock was set back, and is anchored in the window that this showed then. What was consumed
 * is kept. */
static struct bucket find_window(
	const struct quota *q, const struct bucket *b, usec_t utc, usec_t anchor)
{
	struct bucket found = {
		.at = bucket_instant(b), .current = b->current, .previous = b->previous
	};
	bool is_start = found.at == b->at;
	usec_t end;

	if (found.at > utc) {
		found.at = anchor;
		is_start = false;
	}
	if (!is_start)
		window_bounds(&q->window, found.at, &found.at, &end);
	return found;
}

static __attribute__((noinline)) struct bucket read_other_window(
	const struct quota *q, const struct bucket *b, struct now now)
{
	usec_t utc = now.utc + now.held, at = bucket_instant(b), start, end;
	usec_t anchor = now.anchor_age <= BUCKET_ANCHOR_MAX ? utc - now.anchor_age : utc;

	if (at > utc && at - utc <= BUCKET_AHEAD_MAX)
		utc = at;
	struct bucket state = find_window(q, b, utc, anchor);
	start = state.at;
	if (q->window.kind == WINDOW_MONTH || !is_in_window(q, &state, utc) ||
		(q->window.kind == WINDOW_FROM_FIRST && at_most(state.current, q->units) == 0))
		window_bounds(&q->window, utc, &start, &end);
	if (state.at < start) {
		bool adjoins = state.at + q->window.length == start;
		state.previous = q->algorithm == ALGORITHM_SLIDING_WINDOW && adjoins ? state.current
										     : 0;
		state.current = 0;
	}
	state.at = start;
	return state;
}

/* Most of the time it is still the same, and no division. */
static inline struct bucket read_window(
	const struct quota *q, const struct bucket *b, struct now now)
{
	struct bucket state = *b;

	if (!is_still_in_window(q, b, now.utc + now.held))
		state = read_other_window(q, b, now);
	state.current = at_most(state.current, q->units);
	state.previous = at_most(state.previous, q->units);
	return state;
}

struct bucket bucket_read(const struct quota *q, const struct bucket *b, struct now now)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		return read_tokens(q, b, now.steady);
	return read_window(q, b, now);
}

static usec_t elapsed_in(const struct bucket *b, struct now now)
{
	usec_t elapsed = now.utc + now.held - b->at;
	return elapsed < 0 ? 0 : elapsed;
}

/* What the window before still weighs in this one. */
static inline double weight_of_previous(
	const struct quota *q, const struct bucket *b, struct now now)
{
	if (q->algorithm != ALGORITHM_SLIDING_WINDOW || b->previous == 0)
		return 0;
	return (double)b->previous * (double)(q->window.length - elapsed_in(b, now)) /
	       (double)q->window.length;
}

double bucket_used(const struct quota *q, const struct bucket *b, struct now now)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		return b->used;
	return (double)b->current + weight_of_previous(q, b, now);
}

double bucket_left(const struct quota *q, const struct bucket *b, struct now now)
{
	double left = (double)q->capacity - bucket_used(q, b, now);
	return left > 0 ? left : 0;
}

int64_t bucket_remaining(const struct quota *q, const struct bucket *b, struct now now)
{
	double left = bucket_left(q, b, now) + UNIT_SLACK;
	int64_t whole = (int64_t)left;

	if (q->algorithm == ALGORITHM_SLIDING_WINDOW && whole > 0)
		whole += left - (double)whole > 2 * UNIT_SLACK;
	return whole;
}

bool bucket_admits(const struct quota *q, const struct bucket *b, int64_t cost, struct now now)
{
	if (cost > q->capacity)
		return false;
	return bucket_used(q, b, now) + (double)cost <= (double)q->capacity + UNIT_SLACK;
}

void bucket_charge(const struct quota *q, struct bucket *b, int64_t cost)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		b->used += (double)cost;
	else
		b->current += (uint32_t)cost;
}

bool bucket_charge_denied(const struct quota *q, struct bucket *b, int64_t cost)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET) {
		double there = (double)q->capacity - b->used;
		if (there <= 0)
			return false;
		b->used = (double)cost < there ? b->used + (double)cost : (double)q->capacity;
		return true;
	}
	int64_t there = q->units - b->current;
	if (there <= 0)
		return false;
	b->current += (uint32_t)(cost < there ? cost : there);
	return true;
}

static bool refund_tokens(
	const struct quota *q, struct bucket *b, int64_t cost, usec_t charged_at, usec_t steady)
{
	double was = b->used, back = (double)cost;

	if (charged_at < steady)
		back -= (double)(steady - charged_at) * (double)q->units / (double)q->window.length;
	if (!(back > 0))
		return false;
	b->used = was > back ? was - back : 0;
	return b->used != was;
}

static bool refund_count(uint32_t *count, int64_t cost)
{
	uint32_t was = *count;
	*count -= cost < was ? (uint32_t)cost : was;
	return *count != was;
}

bool bucket_refund(
	const struct quota *q, struct bucket *b, int64_t cost, usec_t charged_at, struct now now)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		return refund_tokens(q, b, cost, charged_at, now.steady);
	if (b->at == charged_at)
		return refund_count(&b->current, cost);
	if (q->algorithm == ALGORITHM_SLIDING_WINDOW && b->at == charged_at + q->window.length)
		return refund_count(&b->previous, cost);
	return false;
}

/* A token bucket's in registers from end to end. */
static inline bool take_tokens(const struct quota *q, const struct bucket *stored, int64_t cost,
	usec_t steady, struct bucket *state, double *left)
{
	const double capacity = (double)q->capacity;
	double used = tokens_used(q, stored, steady);
	int64_t asked = cost ? cost : 1;

	if (asked > q->capacity || !(used + (double)asked <= capacity + UNIT_SLACK))
		return false;
	if (cost)
		used += (double)cost;
	state->used = used;
	state->at = steady;
	*left = capacity - used > 0 ? capacity - used : 0;
	return true;
}

static inline bool take_window(const struct quota *q, const struct bucket *stored, int64_t cost,
	struct now now, struct bucket *state, double *left)
{
	const double capacity = (double)q->capacity;
	struct bucket b = read_window(q, stored, now);
	double weight = weight_of_previous(q, &b, now);
	int64_t asked = cost ? cost : 1;

	if (asked > q->capacity ||
		!((double)b.current + weight + (double)asked <= capacity + UNIT_SLACK))
		return false;
	b.current += (uint32_t)cost;
	*state = b;
	double used = (double)b.current + weight;
	*left = capacity - used > 0 ? capacity - used : 0;
	return true;
}

bool bucket_take(const struct quota *q, const struct bucket *stored, int64_t cost, struct now now,
	struct bucket *state, double *left)
{
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		return take_tokens(q, stored, cost, now.steady, state, left);
	return take_window(q, stored, cost, now, state, left);
}

/* `units` of something of which `per` microseconds make one, rounded up to whole ones. By casts:
 * ceil() is a call where the compiler may not assume a newer processor. */
static usec_t wait_for(double units, double per)
{
	double noise = per * (UNIT_SLACK / 2);
	double wait = units * per - (noise < WAIT_NOISE ? noise : WAIT_NOISE);

	if (!(wait > 0))
		return 0;
	if (wait > WAIT_MAX)
		return (usec_t)WAIT_MAX;
	usec_t whole = (usec_t)wait;
	return whole + ((double)whole < wait);
}

static usec_t at_least_one(usec_t wait)
{
	return wait > 0 ? wait : 1;
}

usec_t bucket_window_end(const struct quota *q, const struct bucket *b)
{
	usec_t start, end;
	if (q->window.kind != WINDOW_MONTH)
		return b->at + q->window.length;
	window_bounds(&q->window, b->at, &start, &end);
	return end;
}

/* Solves previous * (W - e) / W + current + cost <= N for e, in this window or, where `current`
 * alone is too much, in the next one, when it has become `previous`. */
static usec_t sliding_retry_at(const struct quota *q, const struct bucket *b, int64_t cost)
{
	usec_t w = q->window.length;
	int64_t room = q->units - (int64_t)b->current - cost;
	uint32_t p = b->previous;
	usec_t from = b->at;

	if (room < 0) {
		room = q->units - cost;
		p = b->current;
		from += w;
	}
	/* What must have gone of `p`: each of its units takes w / p to go. */
	double excess = (double)p - (double)room;
	return excess <= 0 ? from : from + wait_for(excess, (double)w / (double)p);
}

usec_t bucket_retry_after(
	const struct quota *q, const struct bucket *b, int64_t cost, struct now now)
{
	if (bucket_admits(q, b, cost, now))
		return 0;
	switch (q->algorithm) {
	case ALGORITHM_TOKEN_BUCKET:
		return at_least_one(wait_for(b->used + (double)cost - (double)q->capacity,
			(double)q->window.length / (double)q->units));
	case ALGORITHM_SLIDING_WINDOW:
		return at_least_one(sliding_retry_at(q, b, cost) - now.utc);
	case ALGORITHM_FIXED_WINDOW:
		return at_least_one(bucket_window_end(q, b) - now.utc);
	}
	return 0;
}

/* When both counters have gone. */
static inline usec_t sliding_full_at(const struct quota *q, const struct bucket *b, usec_t utc)
{
	if (b->current)
		return b->at + 2 * q->window.length;
	return b->previous ? b->at + q->window.length : utc;
}

static usec_t drain_after(const struct quota *q, double used)
{
	return q->units ? wait_for(used, (double)q->window.length / (double)q->units) : 0;
}

usec_t bucket_reset_after(const struct quota *q, const struct bucket *b, struct now now)
{
	/* Who passed by UNIT_SLACK owes more than the capacity; but no bucket takes longer than
	 * from empty to full. */
	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		return drain_after(
			q, b->used < (double)q->capacity ? b->used : (double)q->capacity);
	usec_t at = q->algorithm == ALGORITHM_SLIDING_WINDOW ? sliding_full_at(q, b, now.utc)
							     : bucket_window_end(q, b);
	return at > now.utc ? at - now.utc : 0;
}

usec_t bucket_full_after(const struct quota *q, const struct bucket *b, struct now now)
{
	usec_t at;

	if (q->algorithm == ALGORITHM_TOKEN_BUCKET)
		return drain_after(q, b->used);
	if (q->algorithm == ALGORITHM_SLIDING_WINDOW)
		at = sliding_full_at(q, b, now.utc);
	else
		at = b->current ? bucket_window_end(q, b) : now.utc;
	return at > now.utc ? at - now.utc : 0;
}
