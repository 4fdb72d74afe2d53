/* What is done while the store is away, and what memory hears while it is there. */
#include "limit/fallback.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define HOUR (3600 * USEC_PER_SEC)

/* for the tables */
#define O ON_FAILURE_OPEN
#define C ON_FAILURE_CLOSED
#define L ON_FAILURE_LOCAL
#define T ALGORITHM_TOKEN_BUCKET
#define S ALGORITHM_SLIDING_WINDOW
#define F ALGORITHM_FIXED_WINDOW

static const struct now noon = { .steady = 1000 * HOUR, .utc = 20000 * 24 * HOUR + 12 * HOUR };

enum kind { ENFORCES, SHADOWS, TAGS };

/* Rules stand in one array, as in a policy: the first in the file is the first here. */
static struct rule rule[3];
static struct limit whole[3], share[3];

static void one_rule(unsigned i, enum on_failure on_failure, enum kind kind, bool count_denied,
	enum algorithm algorithm, int64_t n, int64_t share_n)
{
	static char tag[] = "tagged";

	rule[i] = (struct rule){ .on_failure = on_failure,
		.mode = kind == SHADOWS ? MODE_SHADOW : MODE_ENFORCE,
		.action = kind == TAGS ? ACTION_TAG : ACTION_DENY,
		.tag = tag,
		.count_denied = count_denied,
		.warn_at = 1,
		.algorithm = algorithm };
	whole[i] = (struct limit){ .rule = &rule[i],
		.quota = { algorithm, { WINDOW_LENGTH, HOUR }, n, n },
		.local = &share[i] };
	share[i] = whole[i];
	share[i].quota.units = share[i].quota.capacity = share_n;
	share[i].local = &share[i];
	share[i].whole = &whole[i];
}

static void add(struct plan *p, unsigned i, int64_t cost)
{
	p->take[p->n++] = (struct take){ .limit = &whole[i], .key = { i, i }, .cost = cost };
}

/* The bucket of rule i, of which `used` is used. */
static struct bucket of(unsigned i, uint32_t used)
{
	if (whole[i].quota.algorithm == ALGORITHM_TOKEN_BUCKET)
		return (struct bucket){ .used = used, .at = noon.steady };
	return (struct bucket){ .current = used, .at = noon.utc };
}

/* What memory's take does; `used[i]`: of rule i. */
static struct decision from_memory(struct plan *p, const uint32_t used[])
{
	struct bucket b[PLAN_MAX];
	const struct bucket *stored[PLAN_MAX];

	for (unsigned i = 0; i < p->n; i++) {
		unsigned r = (unsigned)(p->take[i].limit->rule - rule);
		b[i] = of(r, used[r]);
		stored[i] = &b[i];
	}
	p->now = noon;
	if (p->n)
		plan_charge(p, stored, noon);
	return decide(p, noon);
}

/* By how much rule r's bucket was charged; -1: it is not in the plan. */
static int charged(const struct plan *p, unsigned r, const uint32_t used[])
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->take[i].limit->rule == &rule[r]) {
			assert_int_equal(p->take[i].key.a, r);
			return (int)p->take[i].verdict.state.used - (int)used[r];
		}
	return -1;
}

/* A rule of 10 an hour whose share is 5, before another one that admits. The request costs 2; the
 * share has 5 or 1 left. */
static void test_every_combination(void **state)
{
	static const struct {
		enum on_failure policy;
		bool admits; /* the share */
		enum kind kind;
		bool deny;
		enum reason reason;
		bool shadow, tag; /* names the rule */
		int self,
			self_counts; /* charged; where it counts denied requests; -1: not at all */
		int other;           /* what the other rule is charged */
	} row[] = {
		{ O, true, ENFORCES, false, REASON_DEGRADED, false, false, -1, -1, 2 },
		{ O, true, SHADOWS, false, REASON_DEGRADED, false, false, -1, -1, 2 },
		{ O, true, TAGS, false, REASON_DEGRADED, false, false, -1, -1, 2 },
		{ O, false, ENFORCES, false, REASON_DEGRADED, false, false, -1, -1, 2 },
		{ O, false, SHADOWS, false, REASON_DEGRADED, false, false, -1, -1, 2 },
		{ O, false, TAGS, false, REASON_DEGRADED, false, false, -1, -1, 2 },
		{ C, true, ENFORCES, true, REASON_DEGRADED, false, false, -1, -1, 0 },
		{ C, true, SHADOWS, false, REASON_DEGRADED, true, false, -1, -1, 2 },
		{ C, true, TAGS, false, REASON_DEGRADED, false, true, -1, -1, 2 },
		{ C, false, ENFORCES, true, REASON_DEGRADED, false, false, -1, -1, 0 },
		{ C, false, SHADOWS, false, REASON_DEGRADED, true, false, -1, -1, 2 },
		{ C, false, TAGS, false, REASON_DEGRADED, false, true, -1, -1, 2 },
		{ L, true, ENFORCES, false, REASON_DEGRADED, false, false, 2, 2, 2 },
		{ L, true, SHADOWS, false, REASON_DEGRADED, false, false, 2, 2, 2 },
		{ L, true, TAGS, false, REASON_DEGRADED, false, false, 2, 2, 2 },
		{ L, false, ENFORCES, true, REASON_LIMITED, false, false, 0, 1, 0 },
		{ L, false, SHADOWS, false, REASON_DEGRADED, true, false, 0, 0, 2 },
		{ L, false, TAGS, false, REASON_DEGRADED, false, true, 0, 0, 2 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		for (int counts = 0; counts < 2; counts++) {
			const uint32_t used[] = { row[i].admits ? 0 : 4, 0 };
			struct plan p = { 0 };
			one_rule(0, row[i].policy, row[i].kind, counts, ALGORITHM_TOKEN_BUCKET, 10,
				5);
			one_rule(1, L, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 100, 50);
			add(&p, 0, 2);
			add(&p, 1, 2);
			plan_fall_back(&p);
			struct decision d = from_memory(&p, used);
			int self = charged(&p, 0, used);
			if (d.deny != row[i].deny || d.reason != row[i].reason ||
				d.shadow != (row[i].shadow ? &rule[0] : NULL) ||
				d.tag != (row[i].tag ? &rule[0] : NULL) ||
				self != (counts ? row[i].self_counts : row[i].self) ||
				charged(&p, 1, used) != row[i].other)
				fail_msg("row %zu, counts %d: deny %d %s, charged %d and %d", i,
					counts, d.deny, reason_name(d.reason), self,
					charged(&p, 1, used));
			assert_true(p.degraded);
			/* a denial by policy tells of no limit; all else of a share */
			bool by_policy = d.deny && d.reason == REASON_DEGRADED;
			assert_int_equal(d.reported == NULL, by_policy);
			assert_int_equal(d.retry_after > 0, d.deny && !by_policy);
			if (by_policy)
				assert_true(d.limit == 0 && d.remaining == 0 && d.reset == 0);
			else
				assert_true(d.limit == 5 || d.limit == 50);
		}
}

/* ---- where rules differ, each follows its own policy, and one that denies decides ---- */

static void test_rules_that_differ(void **state)
{
	static const struct {
		const char *what;
		struct {
			enum on_failure policy;
			enum kind kind;
			bool counts;
			uint32_t used;
		} of[3];
		bool deny;
		enum reason reason;
		int shadow, tag; /* which rule; -1: none */
		int charged[3];
	} row[] = {
		{ "all open: there is nothing left",
			{ { O, ENFORCES, 0, 0 }, { O, ENFORCES, 0, 0 }, { O, ENFORCES, 0, 0 } },
			false, REASON_DEGRADED, -1, -1, { -1, -1, -1 } },
		{ "all closed: there is nothing left, and that is denied",
			{ { C, ENFORCES, 0, 0 }, { C, ENFORCES, 0, 0 }, { C, ENFORCES, 0, 0 } },
			true, REASON_DEGRADED, -1, -1, { -1, -1, -1 } },
		{ "one closed decides",
			{ { L, ENFORCES, 0, 0 }, { O, ENFORCES, 0, 0 }, { C, ENFORCES, 0, 0 } },
			true, REASON_DEGRADED, -1, -1, { 0, -1, -1 } },
		{ "a rule that counts denied requests is charged for it",
			{ { L, ENFORCES, 1, 0 }, { L, ENFORCES, 0, 0 }, { C, ENFORCES, 0, 0 } },
			true, REASON_DEGRADED, -1, -1, { 2, 0, -1 } },
		{ "with what is there",
			{ { L, SHADOWS, 1, 4 }, { L, TAGS, 1, 5 }, { C, ENFORCES, 0, 0 } }, true,
			REASON_DEGRADED, 0, 1, { 1, 0, -1 } },
		{ "a share denies beside one that is open",
			{ { O, ENFORCES, 0, 0 }, { L, ENFORCES, 0, 4 }, { L, ENFORCES, 0, 0 } },
			true, REASON_LIMITED, -1, -1, { -1, 0, 0 } },
		{ "a share denies, and so does the policy: that has no limit to tell",
			{ { L, ENFORCES, 0, 5 }, { C, ENFORCES, 0, 0 }, { L, ENFORCES, 0, 0 } },
			true, REASON_DEGRADED, -1, -1, { 0, -1, 0 } },
		{ "the first of the file, by policy",
			{ { C, SHADOWS, 0, 0 }, { L, SHADOWS, 0, 5 }, { C, SHADOWS, 0, 0 } }, false,
			REASON_DEGRADED, 0, -1, { -1, 0, -1 } },
		{ "the first of the file, by its share",
			{ { L, TAGS, 0, 5 }, { C, TAGS, 0, 0 }, { C, SHADOWS, 0, 0 } }, false,
			REASON_DEGRADED, 2, 0, { 0, -1, -1 } },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		uint32_t used[3];
		struct plan p = { 0 };
		for (unsigned r = 0; r < 3; r++) {
			used[r] = row[i].of[r].used;
			one_rule(r, row[i].of[r].policy, row[i].of[r].kind, row[i].of[r].counts,
				ALGORITHM_TOKEN_BUCKET, 10, 5);
			add(&p, r, 2);
		}
		plan_fall_back(&p);
		struct decision d = from_memory(&p, used);
		if (d.deny != row[i].deny || d.reason != row[i].reason ||
			d.shadow != (row[i].shadow < 0 ? NULL : &rule[row[i].shadow]) ||
			d.tag != (row[i].tag < 0 ? NULL : &rule[row[i].tag]))
			fail_msg("%s: deny %d %s", row[i].what, d.deny, reason_name(d.reason));
		for (unsigned r = 0; r < 3; r++)
			if (charged(&p, r, used) != row[i].charged[r])
				fail_msg("%s: rule %u charged %d", row[i].what, r,
					charged(&p, r, used));
	}
}

/* Too much for the share alone may pass when the store is back; too much for the limit never. */
static void test_too_much(void **state)
{
	static const struct {
		int64_t cost;
		enum reason reason;
	} row[] = { { 5, REASON_DEGRADED }, { 6, REASON_LIMITED }, { 10, REASON_LIMITED },
		{ 11, REASON_OVERSIZE } };
	const uint32_t used[] = { 0, 5 };
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct plan p = { 0 };
		one_rule(0, ON_FAILURE_LOCAL, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 10, 5);
		add(&p, 0, row[i].cost);
		plan_fall_back(&p);
		struct decision d = from_memory(&p, used);
		assert_int_equal(d.reason, row[i].reason);
		assert_int_equal(d.deny, row[i].reason != REASON_DEGRADED);
		assert_int_equal(d.retry_after > 0, row[i].reason == REASON_LIMITED);
	}

	/* beside one who has to wait: that one is told, and what never passes before both */
	for (int64_t cost = 6; cost <= 11; cost += 5) {
		struct plan p = { 0 };
		one_rule(0, ON_FAILURE_LOCAL, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 10, 5);
		one_rule(1, ON_FAILURE_LOCAL, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 100, 12);
		add(&p, 0, cost);
		add(&p, 1, cost);
		plan_fall_back(&p);
		const uint32_t both[] = { 0, 12 };
		struct decision d = from_memory(&p, both);
		assert_ptr_equal(d.reported->limit->rule, &rule[cost == 11 ? 0 : 1]);
		assert_int_equal(d.reason, cost == 11 ? REASON_OVERSIZE : REASON_LIMITED);
	}

	/* not degraded, a limit that is its own share is as it always was */
	struct plan p = { 0 };
	whole[0].local = &whole[0];
	add(&p, 0, 11);
	assert_int_equal(from_memory(&p, used).reason, REASON_OVERSIZE);
}

/* What is more than the limit needs no store to be denied, whatever the policy. */
static void test_too_much_for_any_policy(void **state)
{
	static const struct {
		const char *what;
		enum on_failure policy;
		enum kind kind;
		uint32_t units;
		int64_t cost;
		bool deny;
		enum reason reason;
		bool shadow, tag;
		int other; /* what a rule beside it is charged */
	} row[] = {
		{ "open, the most that could pass", O, ENFORCES, 10, 10, false, REASON_DEGRADED, 0,
			0, 10 },
		{ "open, one more", O, ENFORCES, 10, 11, true, REASON_OVERSIZE, 0, 0, 0 },
		{ "open, a limit of nothing", O, ENFORCES, 0, 1, true, REASON_OVERSIZE, 0, 0, 0 },
		{ "open, who asks of nothing", O, ENFORCES, 0, 0, true, REASON_OVERSIZE, 0, 0, 0 },
		{ "open, who asks", O, ENFORCES, 10, 0, false, REASON_DEGRADED, 0, 0, 0 },
		{ "open, watching", O, SHADOWS, 10, 11, false, REASON_DEGRADED, 1, 0, 11 },
		{ "open, tagging", O, TAGS, 10, 11, false, REASON_DEGRADED, 0, 1, 11 },
		{ "closed, the most that could pass", C, ENFORCES, 10, 10, true, REASON_DEGRADED, 0,
			0, 0 },
		{ "closed, one more", C, ENFORCES, 10, 11, true, REASON_OVERSIZE, 0, 0, 0 },
		{ "closed, watching", C, SHADOWS, 10, 11, false, REASON_DEGRADED, 1, 0, 11 },
		{ "local, one more", L, ENFORCES, 10, 11, true, REASON_OVERSIZE, 0, 0, 0 },
	};
	const uint32_t used[] = { 0, 0 };
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct plan p = { 0 };
		one_rule(0, row[i].policy, row[i].kind, false, ALGORITHM_TOKEN_BUCKET, row[i].units,
			row[i].units / 2);
		one_rule(1, L, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 100, 50);
		add(&p, 0, row[i].cost);
		add(&p, 1, row[i].cost);
		plan_fall_back(&p);
		struct decision d = from_memory(&p, used);
		if (d.deny != row[i].deny || d.reason != row[i].reason ||
			d.shadow != (row[i].shadow ? &rule[0] : NULL) ||
			d.tag != (row[i].tag ? &rule[0] : NULL) ||
			charged(&p, 1, used) != row[i].other)
			fail_msg("%s: deny %d %s, charged %d", row[i].what, d.deny,
				reason_name(d.reason), charged(&p, 1, used));
		if (d.reason == REASON_OVERSIZE) {
			assert_int_equal(d.retry_after, 0);
			assert_int_equal(d.limit, row[i].policy == L ? 5 : row[i].units);
		}
	}
}

/* Nor does it matter who else denies. */
static void test_too_much_is_told_before_closed(void **state)
{
	const uint32_t used[] = { 0, 0 };
	struct plan p = { 0 };
	(void)state;
	one_rule(0, C, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 100, 50);
	one_rule(1, O, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 10, 5);
	add(&p, 0, 11);
	add(&p, 1, 11);
	plan_fall_back(&p);
	struct decision d = from_memory(&p, used);
	assert_true(d.deny && d.reason == REASON_OVERSIZE && d.reported->limit->rule == &rule[1]);
}

static void test_cost_0_asks(void **state)
{
	const uint32_t full[] = { 5 }, none[] = { 0 };
	struct plan p = { 0 };
	(void)state;
	one_rule(0, ON_FAILURE_LOCAL, ENFORCES, true, ALGORITHM_TOKEN_BUCKET, 10, 5);
	add(&p, 0, 0);
	plan_fall_back(&p);
	assert_int_equal(from_memory(&p, full).reason, REASON_LIMITED);
	assert_false(p.take[0].verdict.charged);
	assert_int_equal(from_memory(&p, none).reason, REASON_DEGRADED);
	assert_false(p.take[0].verdict.charged);
}

/* ---- what memory hears ---- */

static void test_what_is_mirrored(void **state)
{
	static const struct {
		const char *what;
		enum on_failure policy;
		enum kind kind;
		bool counts;
		int64_t cost;
		uint32_t used, other_used; /* of 10 and of 100 */
		int64_t told;              /* -1: nothing */
	} row[] = {
		{ "what was charged", ON_FAILURE_LOCAL, ENFORCES, false, 3, 0, 0, 3 },
		{ "not what the failure policy does not need", ON_FAILURE_OPEN, ENFORCES, false, 3,
			0, 0, -1 },
		{ "nor here", ON_FAILURE_CLOSED, ENFORCES, false, 3, 0, 0, -1 },
		{ "a denied request: only how much was used", ON_FAILURE_LOCAL, ENFORCES, false, 3,
			8, 0, 0 },
		{ "one that is counted", ON_FAILURE_LOCAL, ENFORCES, true, 3, 8, 0, 3 },
		{ "denied by another", ON_FAILURE_LOCAL, ENFORCES, false, 3, 0, 100, 0 },
		{ "denied by another, counted here", ON_FAILURE_LOCAL, ENFORCES, true, 3, 0, 100,
			3 },
		{ "a shadow rule", ON_FAILURE_LOCAL, SHADOWS, false, 3, 0, 0, 3 },
		{ "one that is exceeded is not charged", ON_FAILURE_LOCAL, SHADOWS, true, 3, 8, 0,
			0 },
		{ "who only asks", ON_FAILURE_LOCAL, ENFORCES, false, 0, 0, 0, -1 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		const uint32_t used[] = { row[i].used, row[i].other_used };
		struct plan p = { 0 }, to;
		one_rule(0, row[i].policy, row[i].kind, row[i].counts, ALGORITHM_TOKEN_BUCKET, 10,
			5);
		one_rule(1, ON_FAILURE_OPEN, ENFORCES, false, ALGORITHM_TOKEN_BUCKET, 100, 50);
		add(&p, 0, row[i].cost);
		add(&p, 1, 1);
		(void)from_memory(&p, used);
		bool told = plan_mirror(&p, &to);
		if (told != (row[i].told >= 0) || (told && to.take[0].cost != row[i].told))
			fail_msg("%s: %d, %d", row[i].what, told, (int)to.take[0].cost);
		assert_int_equal(to.n, told);
		if (told) {
			assert_ptr_equal(to.take[0].limit, &share[0]);
			assert_memory_equal(&to.take[0].key, &p.take[0].key, sizeof(struct key));
		}
		assert_ptr_equal(p.take[0].limit, &whole[0]);
	}
}

static void test_warming(void **state)
{
	static const struct {
		const char *what;
		enum algorithm algorithm;
		int64_t cost;
		uint32_t here, there; /* used of the share of 5, of the whole of 20 */
		double used;
		bool charged;
	} row[] = {
		{ "a charge", T, 2, 0, 0, 2, true },
		{ "no more than is there", T, 9, 1, 0, 5, true },
		{ "never into debt", T, 9, 5, 9, 5, false },
		{ "who came through others has had his share", T, 0, 0, 20, 5, true },
		{ "or that part of it", T, 0, 1, 10, 2.5, true },
		{ "who came through this one keeps what he had", T, 0, 4, 10, 4, false },
		{ "the larger of both", T, 2, 1, 4, 3, true },
		{ "a fixed window", F, 2, 0, 0, 2, true },
		{ "no more than there is of a window", F, 9, 1, 0, 5, true },
		{ "a window, through others", F, 0, 0, 20, 5, true },
		{ "to the nearest whole unit", F, 0, 0, 10, 3, true },
		{ "less than half a unit is none", F, 0, 0, 1, 0, false },
		{ "a sliding window", S, 2, 1, 0, 3, true },
		{ "a sliding window, through others", S, 1, 1, 20, 5, true },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct plan p = { 0 };
		one_rule(0, ON_FAILURE_LOCAL, ENFORCES, false, row[i].algorithm, 20, 5);
		add(&p, 0, row[i].cost);
		p.take[0].limit = &share[0];
		p.take[0].verdict.state = of(0, row[i].there);
		struct bucket here = of(0, row[i].here);
		const struct bucket *stored[] = { &here };
		plan_warm(&p, stored, noon);
		const struct verdict *v = &p.take[0].verdict;
		double used = row[i].algorithm == T ? v->state.used : v->state.current;
		if (used != row[i].used || v->charged != row[i].charged || v->left != 5 - used)
			fail_msg("%s: used %f, charged %d", row[i].what, used, v->charged);
	}

	/* another window is none of ours, and the one before counts in a sliding one */
	struct plan p = { 0 };
	const struct bucket *none[] = { NULL };
	one_rule(0, ON_FAILURE_LOCAL, ENFORCES, false, S, 20, 5);
	add(&p, 0, 0);
	p.take[0].limit = &share[0];
	p.take[0].verdict.state = (struct bucket){ .current = 20, .at = noon.utc - HOUR };
	plan_warm(&p, none, noon);
	assert_false(p.take[0].verdict.charged);
	p.take[0].verdict.state = (struct bucket){ .previous = 20, .at = noon.utc };
	plan_warm(&p, none, noon);
	assert_int_equal(p.take[0].verdict.state.previous, 5);
	assert_true(p.take[0].verdict.left == 0);

	/* nothing is a share of nothing */
	one_rule(0, ON_FAILURE_LOCAL, ENFORCES, false, T, 0, 0);
	p.take[0].cost = 1;
	p.take[0].verdict.state = (struct bucket){ 0 };
	plan_warm(&p, none, noon);
	assert_false(p.take[0].verdict.charged);
}

/* A window that begins with its first: the count that is further on, and since when. */
static void test_warming_from_the_first(void **state)
{
	static const struct {
		const char *what;
		int64_t cost;
		uint32_t here;
		int here_since; /* minutes ago */
		uint32_t there;
		int there_since;
		uint32_t used;
		int since;
		bool charged;
	} row[] = {
		{ "the first", 1, 0, 0, 1, 0, 1, 0, true },
		{ "all came through this agent", 1, 2, 40, 3, 40, 3, 40, true },
		{ "most came through others", 1, 0, 0, 4, 40, 4, 40, true },
		{ "some did, and it began later here", 1, 1, 10, 4, 40, 4, 40, true },
		{ "what was counted here while the store was away", 1, 3, 40, 1, 0, 4, 40, true },
		{ "over there, and not here", 1, 1, 40, 1, 0, 2, 40, true },
		{ "over here, and not there", 1, 9, 60, 4, 59, 4, 59, true },
		{ "one that was not counted", 0, 0, 0, 5, 40, 5, 40, true },
		{ "nothing is new", 0, 4, 40, 4, 41, 4, 40, false },
	};
	/* The store's clock is not this agent's. */
	static const struct now theirs = { .steady = 7 * HOUR, .utc = 7 * HOUR };
	static const usec_t minute = HOUR / 60;

	(void)state;
	one_rule(0, ON_FAILURE_LOCAL, ENFORCES, false, F, 5, 5);
	whole[0].quota.window.kind = WINDOW_FROM_FIRST;
	whole[0].local = &whole[0];
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct plan p = { .now = theirs }, to;
		struct bucket here = { .current = row[i].here,
			.at = noon.utc - row[i].here_since * minute };
		const struct bucket *stored[] = { &here };
		add(&p, 0, row[i].cost ? row[i].cost : 1);
		p.take[0].verdict = (struct verdict){ .admits = row[i].cost > 0,
			.state = { .current = row[i].there,
				.at = theirs.utc - row[i].there_since * minute } };
		p.denied = row[i].cost == 0;
		assert_true(plan_mirror(&p, &to));
		plan_warm(&to, stored, noon);
		const struct verdict *v = &to.take[0].verdict;
		if (v->state.current != row[i].used ||
			v->state.at != noon.utc - row[i].since * minute ||
			v->charged != row[i].charged)
			fail_msg("%s: %u since %lld us, charged %d", row[i].what, v->state.current,
				(long long)(noon.utc - v->state.at), v->charged);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_combination),
		cmocka_unit_test(test_rules_that_differ),
		cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_too_much_for_any_policy),
		cmocka_unit_test(test_too_much_is_told_before_closed),
		cmocka_unit_test(test_cost_0_asks),
		cmocka_unit_test(test_what_is_mirrored),
		cmocka_unit_test(test_warming),
		cmocka_unit_test(test_warming_from_the_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
