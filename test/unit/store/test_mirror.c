/* Memory is kept warm while another store answers: the moment of its failure gives no free burst.
 */
#include "limit/fallback.h"
#include "rig.h"

#define HOUR (3600 * USEC_PER_SEC)

enum { WHOLE = 20, SHARE = 5 };

/* A limit, its share, and the other store's bucket of it. */
struct shared {
	struct rig_limit whole, share;
	struct bucket bucket;
};

static void shared_init(struct shared *s, enum algorithm algorithm)
{
	rig_limit(&s->whole, algorithm, WHOLE, HOUR, WHOLE);
	rig_limit(&s->share, algorithm, SHARE, HOUR, SHARE);
	s->share.limit.rule = &s->whole.rule;
	s->share.limit.whole = &s->whole.limit;
	s->share.limit.local = &s->share.limit;
	s->whole.limit.local = &s->share.limit;
	s->bucket = (struct bucket){ 0 };
}

/* The other store answers a request that came through the agent that has `m` (NULL: another one).
 * Its clock is not this agent's. */
static bool answered(struct shared *s, struct memory_store *m, int64_t cost, usec_t t)
{
	static struct plan p, to;
	struct now theirs = now_at(t), ours = now_at(t);
	const struct bucket *stored[] = { &s->bucket };

	theirs.steady = theirs.utc;
	p.n = 0;
	rig_plan_add(&p, &s->whole, 1, cost);
	plan_charge(&p, stored, theirs);
	if (p.take[0].verdict.charged)
		s->bucket = p.take[0].verdict.state;
	if (m && plan_mirror(&p, &to))
		memory_store_mirror(m, &to, ours);
	return !p.denied;
}

/* How many of cost 1 memory admits, once the other store is away. */
static int admitted_alone(struct shared *s, struct memory_store *m, usec_t t)
{
	static struct plan p;
	int n = 0;

	for (;;) {
		p.n = 0;
		p.outcome = OUTCOME_LIMITS;
		rig_plan_add(&p, &s->whole, 1, 1);
		plan_fall_back(&p);
		store_take(memory_store_base(m), &p, now_at(t));
		struct decision d = decide(&p, p.now);
		p.degraded = p.closed = false;
		assert_int_equal(d.reason, d.deny ? REASON_LIMITED : REASON_DEGRADED);
		if (d.deny)
			return n;
		n++;
	}
}

static void no_free_burst(void **state)
{
	static const enum algorithm algorithms[] = { ALGORITHM_TOKEN_BUCKET,
		ALGORITHM_SLIDING_WINDOW, ALGORITHM_FIXED_WINDOW };
	static const struct {
		const char *what;
		int here, there; /* requests before the failure, through this agent and others */
		int cost;
		int admitted; /* after it */
	} row[] = {
		{ "nothing was used", 0, 0, 1, SHARE },
		{ "some of the share", 3, 0, 1, SHARE - 3 },
		{ "the share", 5, 0, 1, 0 },
		{ "more than the share", 12, 0, 1, 0 },
		{ "who was denied already", 30, 0, 1, 0 },
		{ "a few large ones", 2, 0, 7, 0 },
		{ "one that is larger than the share", 1, 0, 6, 0 },
		{ "who was denied here, for what he had elsewhere", 1, 20, 1, 0 },
		{ "half of it elsewhere", 1, 11, 1, SHARE - 3 },
		{ "who was never seen here", 0, 20, 1, SHARE },
	};
	(void)state;
	for (size_t a = 0; a < 3; a++)
		for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
			struct shared s;
			struct memory_store *m = rig_store(10, now_at(0));
			shared_init(&s, algorithms[a]);
			for (int k = 0; k < row[i].there; k++)
				assert_true(answered(&s, NULL, row[i].cost, 0));
			for (int k = 0; k < row[i].here; k++)
				(void)answered(&s, m, row[i].cost, 0);
			int got = admitted_alone(&s, m, 0);
			if (got != row[i].admitted)
				fail_msg("%s, algorithm %zu: %d admitted", row[i].what, a, got);
			/* and it comes back at the share's rate, as after any use of it */
			assert_int_equal(admitted_alone(&s, m, 3 * HOUR), SHARE);
			rig_close(m);
		}
}

/* A request that nothing was counted of makes no counter here. */
static void what_is_not_written(void **state)
{
	struct shared s;
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	shared_init(&s, ALGORITHM_TOKEN_BUCKET);
	assert_true(answered(&s, m, 0, 0));
	assert_int_equal(memory_store_stats(m).keys, 0);
	assert_false(answered(&s, m, WHOLE + 1, 0)); /* oversize */
	assert_int_equal(memory_store_stats(m).keys, 0);
	assert_true(answered(&s, m, 1, 0));
	assert_int_equal(memory_store_stats(m).keys, 1);
	rig_close(m);
}

/* A rule that counts denied requests does so here as well. */
static void denied_ones_that_count(void **state)
{
	struct shared s;
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	shared_init(&s, ALGORITHM_FIXED_WINDOW);
	s.whole.rule.count_denied = true;
	for (int i = 0; i < WHOLE; i++)
		assert_true(answered(&s, NULL, 1, 0));
	assert_false(answered(&s, m, 1, 0));
	assert_int_equal(admitted_alone(&s, m, 0), 0);
	rig_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_free_burst),
		cmocka_unit_test(what_is_not_written),
		cmocka_unit_test(denied_ones_that_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
