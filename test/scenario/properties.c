/* What must hold whatever the rules, the requests and the clocks: random worlds from seeds, in
 * virtual time. A failure names its property and seed; `properties NAME SEED` runs that one again,
 * `properties NAME SEED COUNT` as many from there on. */
#include "base/timeline.h"
#include "chance.h"
#include "config/snapshot.h"
#include "limit/decision.h"
#include "store/memory.h"
#include "store/state.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A millionth of a unit: rounding may admit that much early, and no more. */
#define EARLY 1e-6

/* Mon 2026-01-05T00:00:00Z */
#define ORIGIN (INT64_C(1767571200) * USEC_PER_SEC)

static const char *property;
static uint64_t seed_now;
static unsigned failures;

__attribute__((format(printf, 2, 3))) static bool hold(bool ok, const char *format, ...)
{
	if (ok)
		return true;
	va_list args;
	va_start(args, format);
	fprintf(stderr, "%s %" PRIu64 ": ", property, seed_now);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	failures++;
	return false;
}

static void *must(void *p)
{
	if (p)
		return p;
	fputs("out of memory\n", stderr);
	exit(2);
}

/* --- Clocks --- */

struct clocks {
	usec_t steady, utc;
	struct timeline line;
};

static struct clocks clocks_start(struct chance *c)
{
	usec_t zero = ORIGIN + between(c, 0, 40 * USEC_PER_DAY);
	return (struct clocks){ zero, zero, timeline_start(zero, zero) };
}

static struct now clocks_read(struct clocks *k)
{
	return timeline_follow(&k->line, k->steady, k->utc);
}

static void clocks_pass(struct clocks *k, usec_t by)
{
	k->steady += by;
	k->utc += by;
}

/* --- Quotas --- */

static const struct {
	const char *text;
	struct window window;
} windows[] = {
	{ "second", { WINDOW_LENGTH, USEC_PER_SEC } },
	{ "1500ms", { WINDOW_LENGTH, 1500 * USEC_PER_MSEC } },
	{ "7s", { WINDOW_LENGTH, 7 * USEC_PER_SEC } },
	{ "10s", { WINDOW_LENGTH, 10 * USEC_PER_SEC } },
	{ "minute", { WINDOW_LENGTH, 60 * USEC_PER_SEC } },
	{ "90s", { WINDOW_LENGTH, 90 * USEC_PER_SEC } },
	{ "hour", { WINDOW_LENGTH, 3600 * USEC_PER_SEC } },
	{ "day", { WINDOW_LENGTH, USEC_PER_DAY } },
	{ "week", { WINDOW_WEEK, 7 * USEC_PER_DAY } },
	{ "month", { WINDOW_MONTH, 30 * USEC_PER_DAY } },
};
enum { WINDOWS = sizeof windows / sizeof *windows, WEEK = WINDOWS - 2, MONTH = WINDOWS - 1 };

static struct quota random_quota(struct chance *c)
{
	struct quota q = { .algorithm = (enum algorithm)between(c, 0, 2) };
	int last = q.algorithm == ALGORITHM_FIXED_WINDOW ? MONTH : WEEK;
	q.window = windows[between(c, 0, last)].window;
	q.units = one_in(c, 4) ? between(c, 1, 1000) : between(c, 1, 12);
	q.capacity = q.units;
	if (q.algorithm == ALGORITHM_TOKEN_BUCKET && one_in(c, 2))
		q.capacity = between(c, 1, 2 * q.units);
	return q;
}

/* Mostly in the order of what the quota needs, so that something happens. */
static usec_t random_pause(struct chance *c, const struct quota *q)
{
	usec_t unit = q->window.length / q->units;
	switch (between(c, 0, 9)) {
	case 0:
	case 1:
	case 2:
		return 0;
	case 3:
		return 1;
	case 4:
		return unit;
	case 5:
		return between(c, 0, q->window.length);
	case 6:
		return between(c, 0, 3 * q->window.length);
	default:
		return between(c, 0, 2 * unit);
	}
}

/* --- The contract once more, in whole numbers: units times microseconds --- */

struct model {
	struct quota q;
	int64_t used; /* token bucket: units x window */
	usec_t at;
	int64_t current, previous;
	usec_t start, end; /* of the window that `current` is of */
};

static usec_t floor_to(usec_t t, usec_t length)
{
	return t - (t % length + length) % length;
}

static void model_bounds(const struct window *w, usec_t t, usec_t *start, usec_t *end)
{
	if (w->kind == WINDOW_MONTH) {
		time_t seconds = (time_t)(floor_to(t, USEC_PER_SEC) / USEC_PER_SEC);
		struct tm tm;
		gmtime_r(&seconds, &tm);
		struct tm first = { .tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = 1 };
		struct tm after = { .tm_year = tm.tm_year, .tm_mon = tm.tm_mon + 1, .tm_mday = 1 };
		*start = (usec_t)timegm(&first) * USEC_PER_SEC;
		*end = (usec_t)timegm(&after) * USEC_PER_SEC;
		return;
	}
	/* 1970-01-01 was a Thursday: the first Monday came four days later. */
	usec_t monday = w->kind == WINDOW_WEEK ? 4 * USEC_PER_DAY : 0;
	*start = floor_to(t - monday, w->length) + monday;
	*end = *start + w->length;
}

static void model_pass(struct model *m, usec_t t)
{
	if (m->q.algorithm == ALGORITHM_TOKEN_BUCKET) {
		int64_t drained = (t - m->at) * m->q.units;
		m->used = m->used > drained ? m->used - drained : 0;
		m->at = t;
		return;
	}
	usec_t start, end;
	model_bounds(&m->q.window, t, &start, &end);
	if (start != m->start) {
		m->previous = start == m->end ? m->current : 0;
		m->current = 0;
	}
	m->start = start;
	m->end = end;
	m->at = t;
}

/* By how much a take of `cost` is too much now, in units; not above 0: it passes. */
static double model_excess(const struct model *m, int64_t cost)
{
	int64_t w = m->q.window.length;
	switch (m->q.algorithm) {
	case ALGORITHM_TOKEN_BUCKET:
		return (double)(m->used + (cost - m->q.capacity) * w) / (double)w;
	case ALGORITHM_SLIDING_WINDOW:
		return (double)(m->previous * (m->end - m->at) +
				(m->current + cost - m->q.units) * w) /
		       (double)w;
	case ALGORITHM_FIXED_WINDOW:
		return (double)(m->current + cost - m->q.units);
	}
	return 0;
}

static void model_charge(struct model *m, int64_t cost)
{
	m->used += cost * m->q.window.length;
	m->current += cost;
}

/* --- One bucket against the model --- */

enum { TAKES = 150 };

struct admitted {
	usec_t at;
	int64_t cost;
};

static double rate_of(const struct quota *q)
{
	return (double)q->units / (double)q->window.length;
}

/* No interval, whatever its ends, admitted more than the algorithm lets through. */
static void check_intervals(const struct quota *q, const struct admitted *a, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int64_t sum = 0, in_window = 0;
		usec_t start, end;
		model_bounds(&q->window, a[i].at, &start, &end);
		for (unsigned k = i; k < n; k++) {
			usec_t length = a[k].at - a[i].at;
			sum += a[k].cost;
			if (a[k].at < end)
				in_window += a[k].cost;
			switch (q->algorithm) {
			case ALGORITHM_TOKEN_BUCKET:
				if (!hold((double)sum <= (double)q->capacity +
								 (double)length * rate_of(q) +
								 EARLY,
					    "%" PRId64 " admitted within %" PRId64 " us", sum,
					    length))
					return;
				break;
			case ALGORITHM_SLIDING_WINDOW:
				if (!hold(length >= q->window.length || sum <= 2 * q->units,
					    "%" PRId64 " admitted within %" PRId64 " us", sum,
					    length))
					return;
				break;
			case ALGORITHM_FIXED_WINDOW:
				break;
			}
		}
		if (q->algorithm != ALGORITHM_TOKEN_BUCKET &&
			!hold(in_window <= q->units, "%" PRId64 " admitted in one window",
				in_window))
			return;
	}
}

static struct now later(struct now now, usec_t by)
{
	now.steady += by;
	now.utc += by;
	return now;
}

static bool admits_at(
	const struct quota *q, const struct bucket *stored, int64_t cost, struct now now)
{
	struct bucket b = bucket_read(q, stored, now);
	return bucket_admits(q, &b, cost, now);
}

/* Waiting as told and asking alone is admitted; asking before is not (but for rounding). */
static void check_retry(
	const struct model *m, const struct bucket *stored, int64_t cost, struct now now)
{
	const struct quota *q = &m->q;
	struct bucket b = bucket_read(q, stored, now);
	usec_t wait = bucket_retry_after(q, &b, cost, now);
	if (!hold(wait > 0, "denied, and retry_after is %" PRId64, wait))
		return;
	hold(admits_at(q, stored, cost, later(now, wait)),
		"waited %" PRId64 " us for %" PRId64 " and was denied", wait, cost);
	if (!admits_at(q, stored, cost, later(now, wait - 1)))
		return;
	struct model then = *m;
	model_pass(
		&then, (q->algorithm == ALGORITHM_TOKEN_BUCKET ? now.steady : now.utc) + wait - 1);
	hold(model_excess(&then, cost) <= EARLY, "told to wait for %" PRId64 " us, one less does",
		wait);
}

static void check_reset(const struct quota *q, const struct bucket *stored, struct now now)
{
	struct bucket b = bucket_read(q, stored, now);
	usec_t reset = bucket_reset_after(q, &b, now), full = bucket_full_after(q, &b, now);
	struct now then = later(now, reset);
	struct bucket after = bucket_read(q, stored, then);
	hold(reset >= 0 && full >= 0, "reset %" PRId64 ", full %" PRId64, reset, full);
	hold(bucket_left(q, &after, then) >= (double)q->capacity - EARLY,
		"%.9g of %" PRId64 " are left after reset", bucket_left(q, &after, then),
		q->capacity);
	usec_t slack = (usec_t)(EARLY / rate_of(q)) + 1;
	if (reset > slack && q->algorithm != ALGORITHM_FIXED_WINDOW) {
		then = later(now, reset - slack);
		after = bucket_read(q, stored, then);
		hold(bucket_left(q, &after, then) < (double)q->capacity, "full before its reset");
	}
	if (q->algorithm == ALGORITHM_FIXED_WINDOW) {
		usec_t start, end;
		model_bounds(&q->window, now.utc, &start, &end);
		hold(reset == end - now.utc, "reset %" PRId64 ": the window ends in %" PRId64,
			reset, end - now.utc);
	}
	/* What a store relies on: from then on it is as if it had never been there. */
	struct bucket never = { 0 };
	then = later(now, full);
	after = bucket_read(q, stored, then);
	never = bucket_read(q, &never, then);
	hold(fabs(bucket_left(q, &after, then) - bucket_left(q, &never, then)) <= EARLY &&
			bucket_reset_after(q, &after, then) - bucket_reset_after(q, &never, then) <=
				slack,
		"not as never seen after bucket_full_after()");
}

static void prop_bucket(struct chance *c)
{
	struct model m = { .q = random_quota(c) };
	const struct quota *q = &m.q;
	struct clocks clocks = clocks_start(c);
	struct bucket stored = { 0 };
	struct admitted log[TAKES];
	unsigned n = 0;
	m.at = clocks.steady;
	for (unsigned i = 0; i < TAKES; i++) {
		clocks_pass(&clocks, random_pause(c, q));
		struct now now = clocks_read(&clocks);
		int64_t cost = one_in(c, 3) ? between(c, 1, q->capacity) : 1;
		model_pass(&m, now.utc);
		double excess = model_excess(&m, cost);

		struct bucket b = bucket_read(q, &stored, now);
		double left = bucket_left(q, &b, now);
		/* What is left is the largest cost that would pass. */
		double want = fmax(0, -model_excess(&m, 0));
		if (!hold(fabs(left - want) <= EARLY, "%.9g left: want %.9g", left, want))
			return;
		bool admits = bucket_admits(q, &b, cost, now);
		if (!hold(!admits || excess <= EARLY, "admitted %.9g too much", excess) ||
			!hold(admits || excess > -EARLY, "denied with %.9g to spare", -excess))
			return;
		hold(!bucket_admits(q, &b, q->capacity + 1, now), "more than the capacity passes");
		if (admits) {
			bucket_charge(q, &b, cost);
			stored = b;
			model_charge(&m, cost);
			log[n++] = (struct admitted){ now.utc, cost };
			hold(fabs(left - (double)cost - bucket_left(q, &b, now)) <= EARLY,
				"%.9g left after %" PRId64 " of %.9g", bucket_left(q, &b, now),
				cost, left);
		} else {
			check_retry(&m, &stored, cost, now);
		}
		check_reset(q, &stored, now);
		if (failures)
			return;
	}
	check_intervals(q, log, n);
}

/* count_denied takes what is there, to exactly nothing, and never more. */
static void prop_count_denied(struct chance *c)
{
	struct quota q = random_quota(c);
	struct clocks clocks = clocks_start(c);
	struct bucket stored = { 0 };
	for (unsigned i = 0; i < TAKES && !failures; i++) {
		clocks_pass(&clocks, random_pause(c, &q));
		struct now now = clocks_read(&clocks);
		int64_t cost = between(c, 1, q.capacity + 2);
		struct bucket b = bucket_read(&q, &stored, now);
		double left = bucket_left(&q, &b, now);
		bool admits = cost <= q.capacity && bucket_admits(&q, &b, cost, now);
		if (admits && one_in(c, 2)) {
			bucket_charge(&q, &b, cost);
			stored = b;
			continue;
		}
		bool charged = bucket_charge_denied(&q, &b, cost);
		double want = (double)cost >= left ? 0 : left - (double)cost;
		hold(charged || left == 0 || q.algorithm == ALGORITHM_SLIDING_WINDOW,
			"%.9g were there, nothing was charged", left);
		hold(bucket_left(&q, &b, now) == 0 ||
				fabs(bucket_left(&q, &b, now) - want) <= EARLY,
			"%.9g left: want %.9g", bucket_left(&q, &b, now), want);
		hold((double)cost < left || bucket_left(&q, &b, now) == 0, "a rest is left");
		hold(bucket_used(&q, &b, now) <= 2 * (double)q.capacity, "in debt");
		if (charged)
			stored = b;
		if (cost > q.capacity)
			continue;
		struct now then = later(now, bucket_retry_after(&q, &b, cost, now));
		hold(admits_at(&q, &stored, cost, then), "waited as told, denied");
	}
}

/* The wall clock is set: small steps back never reopen a window, none gives anything away, and
 * what a client is told holds from then on. */
static void prop_steps(struct chance *c)
{
	struct quota q = random_quota(c);
	struct clocks clocks = clocks_start(c);
	struct bucket stored = { 0 };
	usec_t highest = clocks.utc, start = 0, end = 0;
	int64_t in_window = 0;
	bool far = one_in(c, 2); /* also steps of more than a minute */
	for (unsigned i = 0; i < TAKES && !failures; i++) {
		usec_t pause = random_pause(c, &q);
		clocks_pass(&clocks, pause);
		if (one_in(c, 4)) {
			struct now before = clocks_read(&clocks);
			if (clocks.utc > highest)
				highest = clocks.utc;
			usec_t step = far ? between(c, -3 * q.window.length, q.window.length)
					  : between(c, -20 * USEC_PER_SEC, 20 * USEC_PER_SEC);
			/* What is not far stays within a minute of the highest that was seen. */
			if (!far && clocks.utc + step < highest - 50 * USEC_PER_SEC)
				step = 0;
			struct bucket b = bucket_read(&q, &stored, before);
			double left = bucket_left(&q, &b, before);
			clocks.utc += step;
			struct now now = clocks_read(&clocks);
			b = bucket_read(&q, &stored, now);
			if (step < 0 && (!far || q.algorithm != ALGORITHM_SLIDING_WINDOW))
				hold(bucket_left(&q, &b, now) <= left + EARLY,
					"a step of %" PRId64 " us back: %.9g left of %.9g", step,
					bucket_left(&q, &b, now), left);
			if (q.algorithm == ALGORITHM_TOKEN_BUCKET)
				hold(bucket_left(&q, &b, now) == left,
					"a token bucket looked at UTC");
		}
		struct now now = clocks_read(&clocks);
		if (clocks.utc > highest)
			highest = clocks.utc;
		struct bucket b = bucket_read(&q, &stored, now);
		int64_t cost = one_in(c, 3) ? between(c, 1, q.capacity) : 1;
		if (!bucket_admits(&q, &b, cost, now)) {
			/* A window of the future is anchored anew once, also by who is denied. */
			if (q.algorithm != ALGORITHM_TOKEN_BUCKET && b.at < stored.at)
				stored = b;
			usec_t wait = bucket_retry_after(&q, &b, cost, now);
			struct clocks then = clocks;
			clocks_pass(&then, wait);
			hold(admits_at(&q, &stored, cost, clocks_read(&then)),
				"after %s steps: waited %" PRId64 " us for %" PRId64
				" and was denied (algorithm %d, window %" PRId64 " us)",
				far ? "far" : "small", wait, cost, q.algorithm, q.window.length);
			continue;
		}
		bucket_charge(&q, &b, cost);
		stored = b;
		if (far || q.algorithm != ALGORITHM_FIXED_WINDOW)
			continue;
		if (highest >= end) {
			model_bounds(&q.window, highest, &start, &end);
			in_window = 0;
		}
		in_window += cost;
		hold(in_window <= q.units, "%" PRId64 " admitted in a window that was reopened",
			in_window);
	}
}

/* Another quota for the same counter: units are kept, no more is owed than its own capacity, and
 * what a client is told holds. */
static void prop_quota_change(struct chance *c)
{
	struct quota q = random_quota(c);
	struct clocks clocks = clocks_start(c);
	struct bucket stored = { 0 };
	double used = 0; /* when that was charged last */
	for (unsigned i = 0; i < 40 && !failures; i++) {
		clocks_pass(&clocks, random_pause(c, &q));
		struct now now = clocks_read(&clocks);
		struct bucket b = bucket_read(&q, &stored, now);
		int64_t cost = between(c, 1, q.capacity);
		if (bucket_admits(&q, &b, cost, now)) {
			bucket_charge(&q, &b, cost);
			stored = b;
			used = bucket_used(&q, &b, now);
		} else {
			continue;
		}
		struct quota other = q;
		other.units = other.capacity = between(c, 1, 2 * q.units);
		if (q.algorithm == ALGORITHM_TOKEN_BUCKET && one_in(c, 2))
			other.capacity = between(c, 1, 2 * other.units);
		b = bucket_read(&other, &stored, now);
		double left = bucket_left(&other, &b, now);
		double want = fmax(0, (double)other.capacity - used);
		if (q.algorithm != ALGORITHM_SLIDING_WINDOW)
			hold(fabs(left - want) <= EARLY, "%.9g used of %" PRId64 ": %.9g left",
				used, other.capacity, left);
		usec_t reset = bucket_reset_after(&other, &b, now);
		usec_t most = 2 * 31 * USEC_PER_DAY;
		if (q.algorithm == ALGORITHM_TOKEN_BUCKET)
			most = (usec_t)(((double)other.capacity + EARLY) / rate_of(&other)) + 3;
		hold(reset <= most, "reset %" PRId64 ": owes more than its own capacity, %" PRId64,
			reset, most);
		cost = between(c, 1, other.capacity);
		if (!bucket_admits(&other, &b, cost, now)) {
			usec_t wait = bucket_retry_after(&other, &b, cost, now);
			hold(admits_at(&other, &stored, cost, later(now, wait)),
				"quota changed: waited %" PRId64 " us for %" PRId64
				" and was denied",
				wait, cost);
		}
		if (one_in(c, 3)) {
			q = other;
			/* Charged or not: nothing is written by reading. */
		}
	}
}

/* --- Whole policies --- */

enum { RULES = 6, USERS = 4, ORGS = 2, CONFIG_MAX = 8192 };

struct world {
	struct snapshot *snapshot;
	struct memory_store *store;
};

struct request {
	unsigned user, org;
	int64_t cost, weight;
};

static const struct hash_key world_key = { .bytes = { 1, 2, 3, 4, 5, 6, 7, 8 } };

static struct world world_new(const char *config, struct now now)
{
	struct problems problems = { 0 };
	struct world w = { 0 };
	w.snapshot = config_load_text("random", config, strlen(config), &world_key, 1, &problems);
	if (!w.snapshot) {
		for (size_t i = 0; i < problems.n; i++)
			fprintf(stderr, "%s\n", problems.message[i]);
		fprintf(stderr, "%s", config);
		exit(2);
	}
	problems_free(&problems);
	w.store = must(memory_store_new(10000, &world_key, now));
	return w;
}

static void world_free(struct world *w)
{
	store_close(memory_store_base(w->store));
	if (snapshot_unref(w->snapshot))
		snapshot_free(w->snapshot);
}

static void plan_make(const struct policy *p, const struct request *r, struct plan *plan)
{
	char scratch[FIELDS_MAX * ADDR_TEXT_MAX + 1024], user[16], org[16];
	struct view view;
	int slot;
	view_init(&view, &p->layout, STR("check"), scratch, sizeof scratch);
	snprintf(user, sizeof user, "user%u", r->user);
	snprintf(org, sizeof org, "org%u", r->org);
	view_set_text(&view, FIELD_USER, str_of(user));
	view_set_integer(&view, FIELD_COST, r->cost);
	if ((slot = layout_find_arg(&p->layout, STR("org"))) >= 0)
		view_set_text(&view, (unsigned)slot, str_of(org));
	if ((slot = layout_find_arg(&p->layout, STR("weight"))) >= 0)
		view_set_integer(&view, (unsigned)slot, r->weight);
	view_finish(&view);
	policy_plan(p, &view, plan);
}

static struct decision ask(
	struct world *w, const struct request *r, struct now now, struct plan *plan)
{
	plan_make(w->snapshot->policy, r, plan);
	if (store_take(memory_store_base(w->store), plan, now) != STORE_DONE) {
		fputs("the memory store keeps somebody waiting\n", stderr);
		exit(2);
	}
	return decide(plan, now);
}

/* Rules as text. `extra`: what is not enforced goes there instead, so that a policy can be had with
 * it and without. */
struct text {
	char bytes[CONFIG_MAX];
	size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = vsnprintf(t->bytes + t->n, sizeof t->bytes - t->n, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof t->bytes - t->n) {
		fputs("the configuration is too long\n", stderr);
		exit(2);
	}
	t->n += (size_t)n;
}

struct kind {
	bool shadow, tag, count_denied;
};

static void add_rule(struct chance *c, struct text *t, unsigned number, struct kind kind)
{
	static const char *const pers[] = { "", "\"user\"", "\"org\"", "\"user\", \"org\"",
		"\"org|user\"" };
	static const char *const algorithms[] = { "token-bucket", "sliding-window",
		"fixed-window" };
	unsigned algorithm = (unsigned)between(c, 0, 2);
	int window = (int)between(c, 0, algorithm == 2 ? MONTH : WEEK);
	int64_t n = between(c, 1, 20);
	add(t, "%s{ name = \"r%u\"; per = [ %s ]; algorithm = \"%s\"; rate = [ \"%" PRId64 "/%s",
		t->n ? ", " : "", number, pers[between(c, 0, 4)], algorithms[algorithm], n,
		windows[window].text);
	if (!algorithm && one_in(c, 2))
		add(t, " burst %" PRId64, between(c, 1, 30));
	add(t, "\"");
	if (one_in(c, 3))
		add(t, ", \"%" PRId64 "/%s\"", between(c, 1, 60),
			windows[(window + 3) % (WEEK + 1)].text);
	add(t, " ]; warn_at = 0.%d;", (int)between(c, 1, 9));
	if (one_in(c, 3))
		add(t, " cost = \"weight\";");
	if (kind.shadow)
		add(t, " mode = \"shadow\";");
	if (kind.tag)
		add(t, " action = \"tag\"; tag = \"t%u\";", number);
	if (kind.count_denied)
		add(t, " count_denied = true;");
	add(t, " }");
}

static void whole(struct text *out, const struct text *rules, const struct text *more)
{
	*out = (struct text){ .n = 0 };
	add(out, "rules = ( %s%s%s );\n", rules->bytes, rules->n && more && more->n ? ", " : "",
		more ? more->bytes : "");
}

static struct request random_request(struct chance *c)
{
	struct request r = { (unsigned)between(c, 0, USERS - 1), (unsigned)between(c, 0, ORGS - 1),
		1, 1 };
	if (one_in(c, 3))
		r.cost = between(c, 1, 8);
	if (one_in(c, 3))
		r.weight = between(c, 1, 8);
	return r;
}

static usec_t random_gap(struct chance *c)
{
	static const usec_t upto[] = { 0, 0, 0, USEC_PER_MSEC, USEC_PER_SEC, 5 * USEC_PER_SEC,
		60 * USEC_PER_SEC, 3600 * USEC_PER_SEC };
	return between(c, 0, upto[between(c, 0, 7)]);
}

enum { ENTRIES = 512 };

struct dump {
	struct memory_entry entry[ENTRIES];
	size_t n;
};

static int by_key(const void *a, const void *b)
{
	const struct memory_entry *x = a, *y = b;
	if (x->key.a != y->key.a)
		return x->key.a < y->key.a ? -1 : 1;
	return x->key.b < y->key.b ? -1 : x->key.b > y->key.b;
}

static void dump(struct world *w, struct now now, struct dump *d)
{
	uint64_t cursor = 0;
	size_t got;
	d->n = 0;
	while (d->n < ENTRIES && (got = memory_store_copy(w->store, &cursor, d->entry + d->n,
					  ENTRIES - d->n, now)) > 0)
		d->n += got;
	qsort(d->entry, d->n, sizeof *d->entry, by_key);
}

/* Every counter as before; only what was full again may have gone. */
static void check_unchanged(
	const struct dump *before, const struct dump *after, struct now now, const char *why)
{
	size_t k = 0;
	for (size_t i = 0; i < before->n; i++) {
		const struct memory_entry *e = &before->entry[i];
		if (k < after->n && by_key(e, &after->entry[k]) == 0) {
			hold(memcmp(&e->bucket, &after->entry[k].bucket, sizeof e->bucket) == 0,
				"%s changed a counter", why);
			k++;
		} else {
			hold(e->full_at <= (e->key.b & 1 ? now.utc + now.held : now.steady),
				"%s lost a counter", why);
		}
	}
	hold(k == after->n, "%s brought %zu counters", why, after->n - k);
}

static bool enforced(const struct take *t)
{
	return t->limit->rule->mode == MODE_ENFORCE && t->limit->rule->action == ACTION_DENY;
}

/* A rule is exceeded if any of its limits is. */
static bool rule_admits(const struct plan *plan, const struct rule *rule)
{
	bool admits = true;
	for (unsigned i = 0; i < plan->n; i++)
		admits &= plan->take[i].limit->rule != rule || plan->take[i].verdict.admits;
	return admits;
}

/* Each limit's verdict and charge, against what a question said just before. */
static void check_charges(
	const struct plan *asked, const struct plan *plan, const struct decision *d)
{
	bool deny = false;
	for (unsigned i = 0; i < plan->n; i++)
		deny |= enforced(&plan->take[i]) && !plan->take[i].verdict.admits;
	hold(d->deny == deny, "deny %d, but the limits say %d", d->deny, deny);
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		double left = asked->take[i].verdict.left, cost = (double)t->cost;
		double want = left;
		if (!d->deny)
			want = rule_admits(plan, t->limit->rule) ? left - cost : left;
		else if (t->limit->rule->count_denied)
			want = fmax(0, left - cost);
		hold(fabs(t->verdict.left - want) <= EARLY,
			"%s, cost %" PRId64 ", %s: %.9g left of %.9g, want %.9g", t->limit->label,
			t->cost, d->deny ? "denied" : "admitted", t->verdict.left, left, want);
		hold(t->verdict.admits == (cost <= left + EARLY &&
						  t->cost <= t->limit->quota.capacity) ||
				fabs(cost - left) <= 2 * EARLY,
			"%s: cost %" PRId64 " of %.9g: admits %d", t->limit->label, t->cost, left,
			t->verdict.admits);
	}
}

static void check_reported(const struct plan *plan, const struct decision *d, struct now now)
{
	if (!d->reported)
		return;
	const struct take *r = d->reported;
	int64_t capacity = r->limit->quota.capacity;
	hold(r->limit->rule->mode == MODE_ENFORCE, "a rule in shadow mode is reported");
	hold(d->limit == capacity && d->remaining >= 0 && d->remaining <= capacity,
		"remaining %" PRId64, d->remaining);
	/* Rounded down; of a sliding window up, but to 0 where not even one unit would pass. */
	double up = r->limit->quota.algorithm == ALGORITHM_SLIDING_WINDOW ? 1 : 0;
	hold((double)d->remaining <= r->verdict.left + up + EARLY &&
			(double)d->remaining + 1 > r->verdict.left - EARLY &&
			(d->remaining > 0) == (r->verdict.left >= 1 - EARLY),
		"remaining %" PRId64 ", %.9g are left", d->remaining, r->verdict.left);
	hold(d->reset >= 0 && d->reset_at >= now.utc, "reset %" PRId64 " at %" PRId64, d->reset,
		d->reset_at);
	hold(d->deny || d->retry_after == 0, "retry_after %" PRId64 " and not denied",
		d->retry_after);
	hold(d->reason != REASON_LIMITED || d->retry_after >= 1, "limited, retry_after %" PRId64,
		d->retry_after);
	hold(d->reason != REASON_OVERSIZE || d->retry_after == 0, "oversize, retry_after %" PRId64,
		d->retry_after);
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		const struct rule *rule = t->limit->rule;
		if (rule->mode == MODE_SHADOW)
			continue;
		double share = t->verdict.left / (double)t->limit->quota.capacity;
		double least = r->verdict.left / (double)capacity;
		if (!d->deny)
			hold(least <= share + EARLY, "%s is reported, %s has less left",
				r->limit->label, t->limit->label);
		else if (rule->action == ACTION_DENY && !t->verdict.admits &&
			 d->reason == REASON_LIMITED)
			hold(!t->verdict.oversize &&
					t->verdict.retry_after <= r->verdict.retry_after,
				"%s is reported, %s waits longer", r->limit->label,
				t->limit->label);
	}
}

static void prop_plan(struct chance *c)
{
	static struct dump before, after;
	struct text rules = { .n = 0 }, config;
	unsigned n = (unsigned)between(c, 1, RULES);
	bool any_counts_denied = false;
	for (unsigned i = 0; i < n; i++) {
		struct kind kind = { one_in(c, 5), one_in(c, 5), one_in(c, 5) };
		any_counts_denied |= kind.count_denied;
		add_rule(c, &rules, i, kind);
	}
	whole(&config, &rules, NULL);
	struct clocks clocks = clocks_start(c);
	struct world w = world_new(config.bytes, clocks_read(&clocks));
	struct plan asked, plan;
	for (unsigned i = 0; i < 60 && !failures; i++) {
		clocks_pass(&clocks, random_gap(c));
		struct now now = clocks_read(&clocks);
		struct request r = random_request(c), question = { r.user, r.org, 0, 0 };

		dump(&w, now, &before);
		struct decision d = ask(&w, &question, now, &asked);
		dump(&w, now, &after);
		check_unchanged(&before, &after, now, "a question");
		struct request one = { r.user, r.org, 1, 1 };
		bool would_deny = d.deny;

		d = ask(&w, &r, now, &plan);
		check_charges(&asked, &plan, &d);
		check_reported(&plan, &d, now);
		if (r.cost == one.cost && r.weight == one.weight)
			hold(d.deny == would_deny, "a question was told %d, the request %d",
				would_deny, d.deny);
		if (d.deny && !any_counts_denied) {
			before = after;
			dump(&w, now, &after);
			check_unchanged(&before, &after, now, "a denied request");
		}
		if (d.deny && d.reason == REASON_LIMITED && one_in(c, 2)) {
			int64_t wait = d.retry_after;
			clocks_pass(&clocks, wait * USEC_PER_SEC);
			d = ask(&w, &r, clocks_read(&clocks), &plan);
			hold(!d.deny, "waited %" PRId64 " s and was denied by %s", wait,
				d.reported ? d.reported->limit->label : "nothing");
		}
	}
	if (failures)
		fprintf(stderr, "%s", config.bytes);
	world_free(&w);
}

static void same_decision(
	const struct decision *a, const struct decision *b, bool all, unsigned step)
{
	bool same = a->deny == b->deny && a->reason == b->reason;
	if (all || a->deny)
		same = same && a->retry_after == b->retry_after && a->limit == b->limit &&
		       a->remaining == b->remaining && a->reset == b->reset &&
		       a->reset_at == b->reset_at && !a->reported == !b->reported &&
		       (!a->reported ||
			       strcmp(a->reported->limit->label, b->reported->limit->label) == 0);
	if (all)
		same = same && a->warn == b->warn;
	hold(same, "request %u: deny %d or %d, remaining %" PRId64 " or %" PRId64, step, a->deny,
		b->deny, a->remaining, b->remaining);
}

/* Rules that are not enforced change nothing of what the others decide. */
static void unenforced(struct chance *c, bool shadow)
{
	struct text rules = { .n = 0 }, more = { .n = 0 }, config[2];
	unsigned n = (unsigned)between(c, 1, 3), extra = (unsigned)between(c, 1, 3);
	for (unsigned i = 0; i < n; i++)
		add_rule(c, &rules, i, (struct kind){ .count_denied = one_in(c, 4) });
	for (unsigned i = 0; i < extra; i++)
		add_rule(c, &more, n + i,
			(struct kind){
				.shadow = shadow, .tag = !shadow, .count_denied = one_in(c, 4) });
	whole(&config[0], &rules, NULL);
	if (one_in(c, 2))
		whole(&config[1], &rules, &more);
	else
		whole(&config[1], &more, &rules);
	struct clocks clocks = clocks_start(c);
	struct world a = world_new(config[0].bytes, clocks_read(&clocks));
	struct world b = world_new(config[1].bytes, clocks_read(&clocks));
	struct plan plan_a, plan_b;
	for (unsigned i = 0; i < 60 && !failures; i++) {
		clocks_pass(&clocks, random_gap(c));
		struct now now = clocks_read(&clocks);
		struct request r = random_request(c);
		struct decision da = ask(&a, &r, now, &plan_a), db = ask(&b, &r, now, &plan_b);
		same_decision(&da, &db, shadow, i);
	}
	world_free(&a);
	world_free(&b);
}

static void prop_shadow(struct chance *c)
{
	unenforced(c, true);
}

static void prop_tag(struct chance *c)
{
	unenforced(c, false);
}

/* A store that is swept, and one that is saved and read back, decide as if nothing had been. */
static void world_restart(struct world *w, struct now now)
{
	char folder[] = "/tmp/properties-XXXXXX", path[64], err[256] = "";
	struct memory_store *store = NULL;
	if (!mkdtemp(folder))
		must(NULL);
	snprintf(path, sizeof path, "%s/state", folder);
	hold(state_save(w->store, path, now, err, sizeof err) == 0, "state_save: %s", err);
	enum state_rc rc = state_load(path, 10000, now, &store, err, sizeof err);
	hold(rc == STATE_LOADED && store, "state_load: %d: %s", rc, err);
	unlink(path);
	rmdir(folder);
	if (!store)
		return;
	store_close(memory_store_base(w->store));
	w->store = store;
}

static void random_rules(struct chance *c, struct text *rules)
{
	unsigned n = (unsigned)between(c, 1, RULES);
	for (unsigned i = 0; i < n; i++)
		add_rule(c, rules, i, (struct kind){ one_in(c, 5), one_in(c, 5), one_in(c, 4) });
}

static void prop_keep(struct chance *c)
{
	struct text rules = { .n = 0 }, config;
	random_rules(c, &rules);
	whole(&config, &rules, NULL);
	struct clocks clocks = clocks_start(c);
	struct world a = world_new(config.bytes, clocks_read(&clocks));
	struct world b = world_new(config.bytes, clocks_read(&clocks));
	struct plan plan_a, plan_b;
	bool restarts = one_in(c, 4);
	for (unsigned i = 0; i < 60 && !failures; i++) {
		clocks_pass(&clocks, random_gap(c));
		struct now now = clocks_read(&clocks);
		if (restarts && one_in(c, 10))
			world_restart(&b, now);
		for (int64_t k = between(c, 0, 3); k > 0; k--)
			memory_store_sweep(b.store, now, (size_t)between(c, 1, 64));
		struct request r = random_request(c);
		struct decision da = ask(&a, &r, now, &plan_a), db = ask(&b, &r, now, &plan_b);
		same_decision(&da, &db, true, i);
	}
	world_free(&a);
	world_free(&b);
}

/* Asks for nothing: what it is told stays true, as nothing is consumed. */
static void ask_in_silence(
	struct world *w, struct clocks *clocks, unsigned user, unsigned org, usec_t *free_at)
{
	struct request r = { user, org, 0, 0 };
	struct plan plan;
	struct now now = clocks_read(clocks);
	struct decision d = ask(w, &r, now, &plan);
	usec_t told = now.steady + d.retry_after * USEC_PER_SEC;

	hold(!d.deny || now.steady < *free_at,
		"denied for %" PRId64 " s more, %" PRId64 " us after what was told", d.retry_after,
		now.steady - *free_at);
	hold(d.deny || *free_at == INT64_MAX || now.steady > *free_at - USEC_PER_SEC,
		"let in %" PRId64 " us before what was told", *free_at - now.steady);
	if (told < *free_at)
		*free_at = told;
}

/* The clock went back by more than a minute, and nobody is charged after that: who waits as told is
 * let in all the same, not sooner, and nobody is denied anew when UTC comes to where it was. */
static void prop_silence(struct chance *c)
{
	struct text rules = { .n = 0 }, config;
	random_rules(c, &rules);
	whole(&config, &rules, NULL);
	struct clocks clocks = clocks_start(c);
	struct world w = world_new(config.bytes, clocks_read(&clocks));
	struct plan plan;
	usec_t free_at[USERS][ORGS];
	for (unsigned i = 0; i < 40; i++) {
		clocks_pass(
			&clocks, between(c, 0, one_in(c, 8) ? 60 * USEC_PER_SEC : USEC_PER_SEC));
		struct request r = random_request(c);
		struct now now = clocks_read(&clocks);
		(void)ask(&w, &r, now, &plan);
		if (one_in(c, 8))
			memory_store_sweep(w.store, now, 64);
	}
	for (unsigned steps = one_in(c, 4) ? 2 : 1; steps && !failures; steps--) {
		static const usec_t upto[] = { 120 * USEC_PER_SEC, 7200 * USEC_PER_SEC,
			40 * USEC_PER_DAY };
		usec_t was = clocks.utc;
		clocks.utc -= between(c, TIMELINE_STEP_MAX + 1, upto[between(c, 0, 2)]);
		for (unsigned u = 0; u < USERS; u++)
			for (unsigned o = 0; o < ORGS; o++) {
				free_at[u][o] = INT64_MAX;
				ask_in_silence(&w, &clocks, u, o, &free_at[u][o]);
			}
		/* At once: what began by the clock before between the step and the sweep is taken
		 * for what began by the clock of now. */
		clocks_pass(&clocks, USEC_PER_MSEC);
		memory_store_sweep(w.store, clocks_read(&clocks), 64);
		if (one_in(c, 4)) {
			struct now now = clocks_read(&clocks);
			world_restart(&w, now);
		}
		for (unsigned i = 0; i < 60 && !failures; i++) {
			unsigned u = (unsigned)between(c, 0, USERS - 1);
			unsigned o = (unsigned)between(c, 0, ORGS - 1);
			usec_t wait = free_at[u][o] - clocks.steady;
			if (wait > 0 && one_in(c, 3))
				clocks_pass(&clocks, wait);
			else if (clocks.utc < was && one_in(c, 20))
				clocks_pass(&clocks, was - clocks.utc);
			else
				clocks_pass(&clocks, random_gap(c));
			ask_in_silence(&w, &clocks, u, o, &free_at[u][o]);
			if (one_in(c, 4))
				memory_store_sweep(w.store, clocks_read(&clocks), 64);
		}
	}
	world_free(&w);
}

/* The order of rules in the file decides which limit is reported, and nothing else; a reload that
 * changes only the order changes no counter. */
static void prop_order(struct chance *c)
{
	struct text one = { .n = 0 }, two = { .n = 0 }, config[2];
	unsigned n = (unsigned)between(c, 1, 3);
	for (unsigned i = 0; i < n; i++)
		add_rule(c, &one, i, (struct kind){ .count_denied = one_in(c, 4) });
	for (unsigned i = 0; i < n; i++)
		add_rule(c, &two, n + i, (struct kind){ one_in(c, 4), one_in(c, 4), one_in(c, 4) });
	whole(&config[0], &one, &two);
	whole(&config[1], &two, &one);
	struct clocks clocks = clocks_start(c);
	struct world a = world_new(config[0].bytes, clocks_read(&clocks));
	struct world b = world_new(config[1].bytes, clocks_read(&clocks));
	struct plan plan_a, plan_b;
	for (unsigned i = 0; i < 60 && !failures; i++) {
		clocks_pass(&clocks, random_gap(c));
		struct now now = clocks_read(&clocks);
		if (one_in(c, 8)) {
			struct snapshot *swapped = a.snapshot;
			a.snapshot = b.snapshot;
			b.snapshot = swapped;
		}
		struct request r = random_request(c);
		struct decision da = ask(&a, &r, now, &plan_a), db = ask(&b, &r, now, &plan_b);
		hold(da.deny == db.deny && da.reason == db.reason && da.warn == db.warn &&
				(!da.deny || da.retry_after == db.retry_after) &&
				!da.shadow == !db.shadow && !da.tag == !db.tag,
			"request %u: deny %d or %d, retry_after %" PRId64 " or %" PRId64, i,
			da.deny, db.deny, da.retry_after, db.retry_after);
	}
	world_free(&a);
	world_free(&b);
}

/* --- Several threads on one store --- */

enum { THREADS = 4, THREAD_TAKES = 1500 };

struct hammer {
	pthread_t thread;
	struct world *world;
	struct now now;
	unsigned user;
	uint64_t admitted;
};

static void *hammer_run(void *arg)
{
	struct hammer *h = arg;
	struct plan plan;
	for (unsigned i = 0; i < THREAD_TAKES; i++) {
		struct request r = { h->user, i % 7 == 0, 1, 1 };
		struct decision d = ask(h->world, &r, h->now, &plan);
		h->admitted += !d.deny;
	}
	return NULL;
}

static int64_t left_of(struct world *w, struct request r, const char *label, struct now now)
{
	struct plan plan;
	r.cost = r.weight = 0;
	(void)ask(w, &r, now, &plan);
	for (unsigned i = 0; i < plan.n; i++)
		if (strcmp(plan.take[i].limit->label, label) == 0)
			return (int64_t)(plan.take[i].verdict.left + EARLY);
	return -1;
}

/* Exactly the limit is admitted, however many ask at once, and every counter agrees with that. */
static void prop_threads(struct chance *c)
{
	static const char *const algorithms[] = { "token-bucket", "sliding-window",
		"fixed-window" };
	int64_t user = between(c, 50, 900), org = between(c, 300, 2000),
		all = between(c, 500, 3000);
	struct text config = { .n = 0 };
	add(&config,
		"rules = ( { name = \"user\"; per = [ \"user\" ]; algorithm = \"%s\"; rate = \"%" PRId64
		"/day\"; },\n { name = \"org\"; per = [ \"org\" ]; algorithm = \"%s\"; rate = \"%" PRId64
		"/day\"; },\n { name = \"all\"; per = []; algorithm = \"%s\"; rate = \"%" PRId64
		"/day\"; } );\n",
		algorithms[between(c, 0, 2)], user, algorithms[between(c, 0, 2)], org,
		algorithms[between(c, 0, 2)], all);
	struct clocks clocks = clocks_start(c);
	struct now now = clocks_read(&clocks);
	struct world w = world_new(config.bytes, now);
	struct hammer h[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		h[i] = (struct hammer){ .world = &w, .now = now, .user = i / 2 };
		if (pthread_create(&h[i].thread, NULL, hammer_run, &h[i]) != 0)
			must(NULL);
	}
	uint64_t sum = 0, by_user[2] = { 0, 0 };
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(h[i].thread, NULL);
		sum += h[i].admitted;
		by_user[i / 2] += h[i].admitted;
	}
	int64_t left_all = left_of(&w, (struct request){ 0, 0, 0, 0 }, "all", now);
	int64_t left_org[2], left_user[2];
	for (unsigned i = 0; i < 2; i++) {
		left_org[i] = left_of(&w, (struct request){ 0, i, 0, 0 }, "org", now);
		left_user[i] = left_of(&w, (struct request){ i, 0, 0, 0 }, "user", now);
		hold(by_user[i] == (uint64_t)(user - left_user[i]),
			"user %u: %" PRIu64 " admitted, %" PRId64 " left of %" PRId64, i,
			by_user[i], left_user[i], user);
	}
	hold(sum == (uint64_t)(all - left_all),
		"%" PRIu64 " admitted, %" PRId64 " left of %" PRId64, sum, left_all, all);
	hold(sum == (uint64_t)(2 * org - left_org[0] - left_org[1]),
		"%" PRIu64 " admitted, %" PRId64 " and %" PRId64 " left of %" PRId64, sum,
		left_org[0], left_org[1], org);
	world_free(&w);
}

static const struct {
	const char *name;
	void (*run)(struct chance *);
	unsigned count;
} properties[] = {
	{ "bucket", prop_bucket, 3000 },
	{ "count_denied", prop_count_denied, 2000 },
	{ "steps", prop_steps, 3000 },
	{ "quota_change", prop_quota_change, 3000 },
	{ "plan", prop_plan, 600 },
	{ "shadow", prop_shadow, 400 },
	{ "tag", prop_tag, 400 },
	{ "keep", prop_keep, 400 },
	{ "silence", prop_silence, 1000 },
	{ "order", prop_order, 400 },
	{ "threads", prop_threads, 20 },
};

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	unsigned failed = 0;
	if (!hash_init()) {
		fputs("libsodium cannot start\n", stderr);
		return 2;
	}
	for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
		if (only && strcmp(only, properties[i].name) != 0)
			continue;
		unsigned count = argc > 3   ? (unsigned)strtoul(argv[3], NULL, 10)
				 : argc > 2 ? 1
					    : properties[i].count;
		property = properties[i].name;
		failures = 0;
		unsigned n = 0;
		for (; n < count && !failures; n++) {
			seed_now = first + n;
			struct chance c = { seed_now * UINT64_C(0x2545f4914f6cdd1d) };
			properties[i].run(&c);
		}
		printf("%s: %u seeds%s\n", property, n, failures ? ", FAILED" : "");
		failed += failures != 0;
	}
	return failed != 0;
}
