/* A plan of which a part is in hand: what is asked for, and what it says when that has come, or has
 * not. */
#include "rig.h"

#include "limit/fallback.h"
#include "store/leases.h"

#define HOUR (3600 * USEC_PER_SEC)

enum { STRICT, LEASED };

static struct rig_limit limit[2]; /* of rules in the order of the file */
static struct ledger *ledger;
static struct leases *leases;
static struct now fell_at;
static unsigned done, news;

static void on_done(struct plan *p)
{
	(void)p;
	done++;
}

static void on_news(void *owner, const struct plan *here)
{
	assert_ptr_equal(owner, &news);
	assert_int_equal(here->n, 1);
	assert_ptr_equal(here->take[0].limit, &limit[LEASED].limit);
	news++;
}

static struct plan plan_of(bool strict, bool leased)
{
	struct plan p = { .done = on_done };

	if (strict)
		p.take[p.n++] = (struct take){
			.limit = &limit[STRICT].limit, .key = { 1, 2 }, .cost = 1
		};
	if (leased)
		p.take[p.n++] = (struct take){
			.limit = &limit[LEASED].limit, .key = { 3, 4 }, .cost = 1
		};
	return p;
}

/* A block of 20. */
static int begin(void **state)
{
	(void)state;
	struct plan p;
	struct ledger_ask a;
	struct leased after, never_seen = { 0 };
	struct now now = clock_read();

	/* One array, as a policy has them. */
	rig_limit(&limit[STRICT], ALGORITHM_FIXED_WINDOW, 10, HOUR, 10);
	rig_limit(&limit[LEASED], ALGORITHM_TOKEN_BUCKET, 1000, HOUR, 1000);
	for (unsigned i = 0; i < 2; i++)
		limit[i].limit.local = &limit[i].limit;
	limit[LEASED].rule.lease = 0.1;
	ledger = ledger_new(1);
	leases = leases_new(ledger, on_news, &news);
	done = news = 0;
	for (unsigned i = 0; i < 20; i++) {
		p = plan_of(false, true);
		assert_ptr_equal(leases_spend(leases, &p, now.steady), &p);
	}
	assert_true(ledger_next(ledger, &a, now.steady));
	struct now then = { .steady = now.utc, .utc = now.utc };
	uint32_t granted = lease_apply(&a.quota, &never_seen, &a.ask, then, &after);
	ledger_heard(ledger, &a, granted, &after, then, now.steady, now.steady);
	assert_int_equal(ledger_held(ledger), 20);
	return 0;
}

static int end(void **state)
{
	(void)state;
	leases_free(leases);
	ledger_free(ledger);
	return 0;
}

/* As Redis would decide. */
static void decide_there(struct plan *rest, uint32_t used)
{
	struct now now = clock_read();
	usec_t start, ends;

	window_bounds(&limit[STRICT].limit.quota.window, now.utc, &start, &ends);
	struct bucket b = { .current = used, .at = start };
	const struct bucket *stored[] = { &b };
	rest->now = (struct now){ .steady = now.utc, .utc = now.utc };
	plan_charge(rest, stored, rest->now);
}

static void test_all_in_hand(void **state)
{
	(void)state;
	struct plan p = plan_of(false, true);

	assert_null(leases_spend(leases, &p, clock_steady()));
	assert_false(p.denied);
	assert_true(p.take[0].verdict.admits);
	assert_true(p.take[0].verdict.left > 998.9 && p.take[0].verdict.left < 999.1);
	assert_int_equal(decide(&p, p.now).reason, REASON_OK);
	assert_int_equal(done, 0);
	assert_int_equal(news, 1);
	p = plan_of(false, true);
	assert_null(leases_spend(leases, &p, clock_steady()));
	assert_int_equal(news, 1); /* of a block once */
}

static void test_nothing_in_hand(void **state)
{
	(void)state;
	struct plan p = plan_of(true, false);

	assert_ptr_equal(leases_spend(leases, &p, clock_steady()), &p);
}

static void test_the_rest_admits(void **state)
{
	(void)state;
	struct plan p = plan_of(true, true);
	struct plan *rest = leases_spend(leases, &p, clock_steady());

	assert_true(rest && rest != &p);
	assert_int_equal(rest->n, 1);
	assert_ptr_equal(rest->take[0].limit, &limit[STRICT].limit);
	decide_there(rest, 3);
	rest->done(rest);
	assert_int_equal(done, 1);
	struct decision d = decide(&p, p.now);
	assert_false(d.deny);
	/* 6 of 10 is less than 999 of 1000. */
	assert_ptr_equal(d.reported, &p.take[0]);
	assert_int_equal(d.remaining, 6);
	assert_int_equal(ledger_held(ledger), 19);
}

static void test_the_rest_denies(void **state)
{
	(void)state;
	struct plan p = plan_of(true, true);
	struct plan *rest = leases_spend(leases, &p, clock_steady());

	decide_there(rest, 10);
	rest->done(rest);
	struct decision d = decide(&p, p.now);
	assert_true(d.deny);
	assert_int_equal(d.reason, REASON_LIMITED);
	assert_ptr_equal(d.reported, &p.take[0]);
	assert_true(p.take[1].verdict.admits);
	assert_int_equal(ledger_held(ledger), 20);
	assert_int_equal(ledger_stats(ledger)->spent, 0);
}

/* The failure policy's word on the rest, by `on_failure` of its rule. */
static void fall_back(struct plan *p, enum on_failure on_failure)
{
	limit[STRICT].rule.on_failure = on_failure;
	*p = plan_of(true, true);
	struct plan *rest = leases_spend(leases, p, clock_steady());
	fell_at = clock_read();
	fell_at.steady += USEC_PER_SEC; /* not the clock of what is in hand */
	fell_at.utc += USEC_PER_SEC;
	struct memory_store *m = rig_store(10, fell_at);

	plan_fall_back(rest);
	store_take(memory_store_base(m), rest, fell_at);
	leases_join(rest);
	rig_close(m);
}

static void test_nobody_answers_and_it_is_open(void **state)
{
	(void)state;
	struct plan p;

	fall_back(&p, ON_FAILURE_OPEN);
	assert_int_equal(p.n, 1);
	assert_ptr_equal(p.take[0].limit, &limit[LEASED].limit);
	struct decision d = decide(&p, p.now);
	assert_false(d.deny);
	assert_int_equal(d.reason, REASON_DEGRADED);
	assert_int_equal(d.remaining, 999);
	assert_int_equal(ledger_held(ledger), 19);
}

static void test_nobody_answers_and_it_is_closed(void **state)
{
	(void)state;
	struct plan p;

	fall_back(&p, ON_FAILURE_CLOSED);
	struct decision d = decide(&p, p.now);
	assert_true(d.deny);
	assert_int_equal(d.reason, REASON_DEGRADED);
	assert_int_equal(ledger_held(ledger), 20);
}

/* What watches only, or tags, tells what it would have denied. */
static void test_nobody_answers_and_it_is_told(void **state)
{
	(void)state;
	struct plan p;

	limit[STRICT].rule.mode = MODE_SHADOW;
	fall_back(&p, ON_FAILURE_CLOSED);
	struct decision d = decide(&p, p.now);
	assert_false(d.deny);
	assert_ptr_equal(d.shadow, &limit[STRICT].rule);
	limit[STRICT].rule.mode = MODE_ENFORCE;
	limit[STRICT].rule.action = ACTION_TAG;
	fall_back(&p, ON_FAILURE_CLOSED);
	d = decide(&p, p.now);
	assert_false(d.deny);
	assert_ptr_equal(d.tag, &limit[STRICT].rule);
}

static void test_nobody_answers_and_there_is_a_share(void **state)
{
	(void)state;
	struct plan p;

	fall_back(&p, ON_FAILURE_LOCAL);
	assert_int_equal(p.n, 2);
	struct decision d = decide(&p, p.now);
	assert_false(d.deny);
	assert_int_equal(d.remaining, 9);
	assert_int_equal(ledger_held(ledger), 19);
	/* All of it by this agent's clock. */
	assert_int_equal(p.now.utc, fell_at.utc);
	assert_int_equal(p.take[LEASED].verdict.state.at, fell_at.steady);
}

static void test_many_at_once(void **state)
{
	(void)state;
	enum { MANY = 20 };
	struct plan p[MANY], *rest[MANY];

	for (unsigned i = 0; i < MANY; i++) {
		p[i] = plan_of(true, true);
		rest[i] = leases_spend(leases, &p[i], clock_steady());
		assert_true(rest[i] && rest[i] != &p[i]);
	}
	struct plan none = plan_of(true, true);
	assert_ptr_equal(leases_spend(leases, &none, clock_steady()), &none);
	for (unsigned i = MANY; i--;) {
		decide_there(rest[i], i % 2 ? 10 : 0);
		rest[i]->done(rest[i]);
		assert_int_equal(decide(&p[i], p[i].now).deny, i % 2);
	}
	assert_int_equal(done, MANY);
	assert_int_equal(ledger_held(ledger), MANY / 2);
}

/* More than can be split at once are asked for as a whole, and spend nothing here. */
static void test_too_many_at_once(void **state)
{
	(void)state;
	enum { WANTED = 5000 };
	struct plan *p = calloc(WANTED, sizeof *p), **rest = calloc(WANTED, sizeof *rest);
	struct ledger_ask a;
	unsigned split = 0;
	const usec_t t = clock_steady();

	assert_true(p && rest);
	ledger_free(ledger);
	ledger = ledger_new(1);
	leases_free(leases);
	leases = leases_new(ledger, NULL, NULL);
	rig_limit(&limit[LEASED], ALGORITHM_TOKEN_BUCKET, 100000, HOUR, 100000);
	limit[LEASED].rule.lease = 0.1;
	for (unsigned i = 0; i < WANTED; i++) {
		p[i] = plan_of(false, true);
		assert_ptr_equal(leases_spend(leases, &p[i], t), &p[i]);
	}
	assert_true(ledger_next(ledger, &a, t));
	struct leased after = { .bucket.used = WANTED };
	ledger_heard(ledger, &a, WANTED, &after, (struct now){ .steady = t, .utc = t }, t, t);
	for (; split < WANTED; split++) {
		p[split] = plan_of(true, true);
		rest[split] = leases_spend(leases, &p[split], t);
		if (rest[split] == &p[split])
			break;
	}
	assert_in_range(split, 1000, WANTED - 1);
	assert_int_equal(ledger_held(ledger), WANTED - split);
	while (split--) {
		decide_there(rest[split], 10);
		rest[split]->done(rest[split]);
	}
	assert_int_equal(ledger_held(ledger), WANTED);
	free(rest);
	free(p);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		T(test_all_in_hand),
		T(test_nothing_in_hand),
		T(test_the_rest_admits),
		T(test_the_rest_denies),
		T(test_nobody_answers_and_it_is_open),
		T(test_nobody_answers_and_it_is_closed),
		T(test_nobody_answers_and_it_is_told),
		T(test_nobody_answers_and_there_is_a_share),
		T(test_many_at_once),
		T(test_too_many_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
