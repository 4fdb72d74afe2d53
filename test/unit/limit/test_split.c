/* Split, decided in parts, joined: what plan_charge() says of the whole, and what it keeps,
 * whatever the rules, the buckets, and how they lie in several places. And what a late refund takes
 * back. */
#include "limit/split.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define HOUR   (3600 * USEC_PER_SEC)
#define MINUTE (60 * USEC_PER_SEC)
/* Levels are doubles, and a refund is a subtraction. */
#define NOISE 1e-6

enum { RULES = 6, LIMITS = 3, CLIENTS = 2, KEYS = RULES * LIMITS * CLIENTS, STEPS = 25 };
enum { SEEDS = 4000 };

static const struct now noon = { .steady = 1000 * HOUR, .utc = 20000 * 24 * HOUR + 12 * HOUR };

/* ---- chance ---- */

static uint64_t seed;

static uint64_t draw(void)
{
	uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static int64_t between(int64_t lo, int64_t hi)
{
	return lo + (int64_t)(draw() % (uint64_t)(hi - lo + 1));
}

static bool one_in(unsigned n)
{
	return draw() % n == 0;
}

/* ---- a world: rules, and what is kept of them ---- */

static struct rule rule[RULES];
static struct limit limit[RULES][LIMITS];
static unsigned rules, limits[RULES];

struct kept {
	struct bucket bucket[KEYS];
	bool there[KEYS];
};

static void random_rules(void)
{
	static const usec_t windows[] = { USEC_PER_SEC, MINUTE, 90 * USEC_PER_SEC, HOUR };

	rules = (unsigned)between(1, RULES);
	for (unsigned r = 0; r < rules; r++) {
		rule[r] = (struct rule){ .mode = one_in(4) ? MODE_SHADOW : MODE_ENFORCE,
			.action = one_in(4) ? ACTION_TAG : ACTION_DENY,
			.count_denied = one_in(2),
			.warn_at = one_in(2) ? 0.8 : 1,
			.algorithm = (enum algorithm)between(0, 2) };
		limits[r] = (unsigned)between(1, LIMITS);
		for (unsigned i = 0; i < limits[r]; i++) {
			int64_t units = one_in(20) ? 0 : between(1, one_in(2) ? 8 : 1000);
			limit[r][i] = (struct limit){ .rule = &rule[r],
				.quota = { rule[r].algorithm,
					{ WINDOW_LENGTH, windows[between(0, 3)] }, units, units } };
			if (rule[r].algorithm == ALGORITHM_TOKEN_BUCKET && units && one_in(2))
				limit[r][i].quota.capacity = between(1, 20);
		}
	}
}

static void random_plan(struct plan *p)
{
	int64_t cost = one_in(4) ? between(0, 12) : 1;

	*p = (struct plan){ .outcome = OUTCOME_LIMITS };
	for (unsigned r = 0; r < rules; r++) {
		unsigned client = (unsigned)between(0, CLIENTS - 1);
		if (one_in(5))
			continue;
		for (unsigned i = 0; i < limits[r]; i++)
			p->take[p->n++] = (struct take){ .limit = &limit[r][i],
				.key = { (r * LIMITS + i) * CLIENTS + client, 0 },
				.cost = one_in(8) ? 0 : cost };
	}
}

static void find(const struct kept *k, const struct plan *p, const struct bucket *stored[])
{
	for (unsigned i = 0; i < p->n; i++)
		stored[i] = k->there[p->take[i].key.a] ? &k->bucket[p->take[i].key.a] : NULL;
}

static void keep(struct kept *k, const struct plan *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		const struct take *t = &p->take[i];
		if (!t->verdict.charged)
			continue;
		k->bucket[t->key.a] = t->verdict.state;
		k->there[t->key.a] = true;
	}
}

static void charge(struct kept *k, struct plan *p, struct now now)
{
	const struct bucket *stored[PLAN_MAX];

	find(k, p, stored);
	p->now = now;
	plan_charge(p, stored, now);
	keep(k, p);
}

static void take_back(struct kept *k, struct plan *p, struct now now)
{
	const struct bucket *stored[PLAN_MAX];

	find(k, p, stored);
	split_take_back(p, stored, now);
	keep(k, p);
}

/* ---- the same ---- */

static bool same_level(const struct limit *l, const struct bucket *a, const struct bucket *b)
{
	if (a->at != b->at)
		return false;
	if (l->quota.algorithm == ALGORITHM_TOKEN_BUCKET)
		return fabs(a->used - b->used) < NOISE;
	return a->current == b->current && a->previous == b->previous;
}

static void assert_same(uint64_t of, const struct plan *whole, const struct plan *joined)
{
	if (whole->denied != joined->denied)
		fail_msg("seed %llu: denied %d, in parts %d", (unsigned long long)of, whole->denied,
			joined->denied);
	for (unsigned i = 0; i < whole->n; i++) {
		const struct verdict *a = &whole->take[i].verdict, *b = &joined->take[i].verdict;
		if (a->admits != b->admits || a->oversize != b->oversize ||
			!same_level(whole->take[i].limit, &a->state, &b->state) ||
			fabs(a->left - b->left) > NOISE ||
			llabs(a->retry_after - b->retry_after) > 2)
			fail_msg(
				"seed %llu: take %u: left %.9g, in parts %.9g; wait %lld, in parts "
				"%lld",
				(unsigned long long)of, i, a->left, b->left,
				(long long)a->retry_after, (long long)b->retry_after);
	}
	struct decision a = decide(whole, whole->now), b = decide(joined, joined->now);
	if (a.deny != b.deny || a.reason != b.reason || a.shadow != b.shadow || a.tag != b.tag ||
		a.warn != b.warn || llabs(a.retry_after - b.retry_after) > 1 ||
		(a.deny && a.reported && a.reported - whole->take != b.reported - joined->take))
		fail_msg("seed %llu: another decision", (unsigned long long)of);
}

/* In which part each take is: whole rules. */
static unsigned random_parts(const struct plan *p, uint8_t part_of[])
{
	unsigned parts = (unsigned)between(1, 4);

	for (unsigned i = 0; i < p->n; i++)
		part_of[i] = i && p->take[i].limit->rule == p->take[i - 1].limit->rule
				     ? part_of[i - 1]
				     : (uint8_t)between(0, parts - 1);
	return parts;
}

static void charge_in_parts(struct kept *k, struct plan *p, struct now now)
{
	static struct plan part[4], after;
	const struct plan *decided[4];
	uint8_t part_of[PLAN_MAX];
	unsigned parts = random_parts(p, part_of), n = 0;

	for (unsigned i = 0; i < parts; i++) {
		split_part(p, part_of, i, &part[i]);
		n += part[i].n;
		charge(k, &part[i], now);
		decided[i] = &part[i];
	}
	assert_int_equal(n, p->n);
	split_join(p, part_of, decided);
	for (unsigned i = 0; i < parts && p->denied; i++) {
		if (split_refund(&part[i], &after))
			take_back(k, &after, now);
		if (split_charge(&part[i], &after))
			charge(k, &after, now);
	}
}

static void one_world(uint64_t number)
{
	static struct kept whole, split;
	static struct plan asked, a, b;
	struct now now = noon;

	seed = number * UINT64_C(0x2545f4914f6cdd1d);
	memset(&whole, 0, sizeof whole);
	memset(&split, 0, sizeof split);
	random_rules();
	for (unsigned step = 0; step < STEPS; step++) {
		random_plan(&asked);
		a = b = asked;
		charge(&whole, &a, now);
		charge_in_parts(&split, &b, now);
		if (asked.n)
			assert_same(number, &a, &b);
		for (unsigned r = 0; r < rules; r++)
			for (unsigned i = 0; i < limits[r] * CLIENTS; i++) {
				unsigned key = r * LIMITS * CLIENTS + i;
				const struct limit *l = &limit[r][i / CLIENTS];
				struct bucket x = bucket_read(&l->quota, &whole.bucket[key], now);
				struct bucket y = bucket_read(&l->quota, &split.bucket[key], now);
				if (!same_level(l, &x, &y))
					fail_msg("seed %llu: step %u: key %u is not kept as it is",
						(unsigned long long)number, step, key);
				/* from here on without the difference */
				split.bucket[key] = whole.bucket[key];
				split.there[key] = whole.there[key];
			}
		usec_t by = one_in(3) ? 0 : between(0, one_in(4) ? HOUR : 2 * USEC_PER_SEC);
		now.steady += by;
		now.utc += by;
	}
}

static void test_as_the_whole(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= SEEDS; i++)
		one_world(i);
}

/* ---- a refund that comes late ---- */

/* What the counter would be had there been no charge, and what it is after the refund, when others
 * are charged meanwhile: never less; and the same where there was nobody. */
static void late_refund(uint64_t number)
{
	seed = number * UINT64_C(0x2545f4914f6cdd1d);
	random_rules();
	const struct limit *l = &limit[0][0];
	const struct quota *q = &l->quota;
	struct now now = noon;
	struct bucket with = { 0 }, without = { 0 };
	bool others = one_in(2);

	for (int64_t n = between(0, 3); n > 0; n--) {
		int64_t c = between(1, 5);
		with = without = bucket_read(q, &without, now);
		if (bucket_admits(q, &without, c, now)) {
			bucket_charge(q, &with, c);
			bucket_charge(q, &without, c);
		}
		now.steady += q->window.length / 7;
		now.utc += q->window.length / 7;
	}
	int64_t cost = between(1, 6);
	with = bucket_read(q, &with, now);
	without = bucket_read(q, &without, now);
	if (!bucket_admits(q, &with, cost, now))
		return;
	bucket_charge(q, &with, cost);
	usec_t charged_at = with.at, since = now.steady;
	for (unsigned i = 0; i < 3; i++) {
		usec_t by = between(0, one_in(2) ? q->window.length : q->window.length / 50);
		now.steady += by;
		now.utc += by;
		with = bucket_read(q, &with, now);
		without = bucket_read(q, &without, now);
		if (others && bucket_admits(q, &with, 1, now)) {
			bucket_charge(q, &with, 1);
			bucket_charge(q, &without, 1);
		}
	}
	(void)bucket_refund(q, &with, cost, charged_at, now);
	double is = bucket_used(q, &with, now), was = bucket_used(q, &without, now);
	if (is < was - NOISE)
		fail_msg(
			"seed %llu: %.9g used, but %.9g were", (unsigned long long)number, is, was);
	/* What has drained since is not given back. */
	double drained = (double)(now.steady - since) * (double)q->units / (double)q->window.length;
	double most = was + (q->algorithm == ALGORITHM_TOKEN_BUCKET ? drained : 0) + NOISE;
	if (!others && is > most)
		fail_msg("seed %llu: %.9g used, not %.9g", (unsigned long long)number, is, was);
}

static void test_late_refunds(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 50 * SEEDS; i++)
		late_refund(i);
}

/* ---- sentences ---- */

static const struct {
	const char *what;
	enum algorithm algorithm;
	struct bucket found;
	usec_t after;
	int64_t cost;
	struct bucket left; /* `at` as found now */
} rows[] = {
#define T ALGORITHM_TOKEN_BUCKET
#define S ALGORITHM_SLIDING_WINDOW
#define F ALGORITHM_FIXED_WINDOW
#define TOKENS(n) \
	{ \
		.used = (n) \
	}
#define COUNTS(c, p) \
	{ \
		.current = (c), .previous = (p) \
	}
	{ "at once", T, TOKENS(5), 0, 3, TOKENS(2) },
	{ "half of it has drained, and that is no debt", T, TOKENS(1.5), 90 * USEC_PER_SEC, 3,
		TOKENS(0) },
	{ "what drained is not taken from who came after", T, TOKENS(5), 120 * USEC_PER_SEC, 3,
		TOKENS(4) },
	{ "all of it may have drained", T, TOKENS(4), 180 * USEC_PER_SEC, 3, TOKENS(4) },
	{ "it was forgotten", T, TOKENS(0), 0, 3, TOKENS(0) },
	{ "the clock was set back", T, TOKENS(5), -HOUR, 3, TOKENS(2) },
	{ "the same window", F, COUNTS(7, 0), 0, 3, COUNTS(4, 0) },
	{ "another window", F, COUNTS(2, 0), HOUR, 3, COUNTS(2, 0) },
	{ "one before it", F, COUNTS(2, 0), -HOUR, 3, COUNTS(2, 0) },
	{ "the same sliding window", S, COUNTS(7, 4), 0, 3, COUNTS(4, 4) },
	{ "it has become the previous one", S, COUNTS(1, 5), HOUR, 3, COUNTS(1, 2) },
	{ "it has gone", S, COUNTS(2, 1), 2 * HOUR, 3, COUNTS(2, 1) },
	{ "it was forgotten", S, COUNTS(1, 0), 0, 3, COUNTS(0, 0) },
};

static void test_rows(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		/* one unit a minute */
		struct quota q = { rows[i].algorithm, { WINDOW_LENGTH, HOUR }, 60, 60 };
		struct now now = noon;
		struct bucket found = rows[i].found;
		usec_t charged_at = q.algorithm == T ? now.steady : now.utc;
		now.steady += rows[i].after;
		now.utc += rows[i].after;
		found.at = q.algorithm == T ? now.steady : now.utc;
		(void)bucket_refund(&q, &found, rows[i].cost, charged_at, now);
		bool good = q.algorithm == T ? fabs(found.used - rows[i].left.used) < NOISE
					     : found.current == rows[i].left.current &&
						       found.previous == rows[i].left.previous;
		if (!good)
			fail_msg("%s: %s", q.algorithm == T ? "tokens" : "windows", rows[i].what);
	}
}

/* Clocks of two places that are not the same: the later one counts, and nothing is of the future.
 */
static void test_clocks_apart(void **state)
{
	(void)state;
	static struct plan whole, part[2];
	const struct plan *decided[2] = { &part[0], &part[1] };
	uint8_t part_of[2] = { 0, 1 };
	const struct bucket *none[2] = { NULL, NULL };
	struct now later = { .steady = noon.steady + 700, .utc = noon.utc + HOUR - 1 };

	rule[0] = rule[1] = (struct rule){ .warn_at = 1 };
	limit[0][0] = (struct limit){ .rule = &rule[0],
		.quota = { T, { WINDOW_LENGTH, HOUR }, 10, 10 } };
	limit[1][0] = (struct limit){ .rule = &rule[1],
		.quota = { F, { WINDOW_LENGTH, HOUR }, 0, 0 } };
	whole = (struct plan){ .n = 2,
		.take = { { .limit = &limit[0][0], .cost = 3 },
			{ .limit = &limit[1][0], .cost = 1 } } };
	for (unsigned i = 0; i < 2; i++) {
		split_part(&whole, part_of, i, &part[i]);
		part[i].now = i ? later : noon;
		plan_charge(&part[i], none, part[i].now);
	}
	split_join(&whole, part_of, decided);
	assert_true(whole.denied);
	assert_int_equal(whole.now.utc, later.utc);
	assert_int_equal(whole.take[0].verdict.state.at, later.steady);
	assert_true(fabs(whole.take[0].verdict.left - 10) < NOISE);
	assert_true(fabs(part[0].take[0].verdict.left - 7) < NOISE);
	assert_true(whole.take[1].verdict.oversize);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_clocks_apart),
		cmocka_unit_test(test_as_the_whole),
		cmocka_unit_test(test_late_refunds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
