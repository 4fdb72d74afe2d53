/* What an agent holds: when it asks for a block, and for how much; what it spends, reports, gives
 * back and drops. The shared counter is limit/lease.h's own. */
#include "limit/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define MS   USEC_PER_MSEC
#define ZERO (1000 * LEASE_LIFE)
#define DAYS (300 * USEC_PER_DAY) /* nothing refills */

static struct rule rule;
static struct limit limit, second;
static struct ledger *ledger;
static struct leased counter; /* as Redis has it, whose clock is an hour ahead */
static usec_t t;

#define AHEAD (3600 * USEC_PER_SEC)

static int begin(void **state)
{
	(void)state;
	rule = (struct rule){ .lease = 0.1, .algorithm = ALGORITHM_TOKEN_BUCKET };
	limit = (struct limit){ .rule = &rule,
		.quota = { ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, DAYS }, 1000, 1000 } };
	second = limit;
	counter = (struct leased){ 0 };
	ledger = ledger_new(1);
	t = ZERO;
	return ledger ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	ledger_free(ledger);
	return 0;
}

static struct plan plan_of(int64_t cost)
{
	return (struct plan){ .n = 1,
		.take = { { .limit = &limit, .key = { 7, 8 }, .cost = cost } } };
}

static bool spend(int64_t cost)
{
	struct plan p = plan_of(cost);
	return ledger_spend(ledger, &p, t) == 1;
}

static unsigned spend_ones(unsigned most)
{
	unsigned n = 0;
	while (n < most && spend(1))
		n++;
	return n;
}

static struct now redis_now(void)
{
	return (struct now){ .steady = t + AHEAD, .utc = t + AHEAD };
}

static struct ledger_ask next(void)
{
	struct ledger_ask a;
	assert_true(ledger_next(ledger, &a, t));
	return a;
}

static void nothing_more(void)
{
	struct ledger_ask a;
	assert_false(ledger_next(ledger, &a, t));
}

/* Asks, and hears at once. */
static uint32_t exchange(void)
{
	struct ledger_ask a = next();
	struct leased after;
	uint32_t granted = lease_apply(&a.quota, &counter, &a.ask, redis_now(), &after);

	counter = after;
	ledger_heard(ledger, &a, granted, &after, redis_now(), t, t);
	return granted;
}

static void exchange_all(void)
{
	struct ledger_ask a;
	while (ledger_next(ledger, &a, t)) {
		struct leased after;
		uint32_t granted = lease_apply(&a.quota, &counter, &a.ask, redis_now(), &after);
		counter = after;
		ledger_heard(ledger, &a, granted, &after, redis_now(), t, t);
	}
}

/* A block of 20: so many were wanted before there was one. */
static void get_block(void)
{
	assert_int_equal(spend_ones(1), 0);
	for (unsigned i = 1; i < 20; i++)
		assert_false(spend(1));
	assert_int_equal(exchange(), 20);
	assert_int_equal(ledger_held(ledger), 20);
}

static void test_a_cold_key_asks_for_nothing(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 100; i++, t += 50 * MS)
		assert_false(spend(1));
	assert_false(ledger_wants(ledger));
	assert_false(ledger_holds(ledger));
}

static void test_a_hot_key_gets_what_it_wants(void **state)
{
	(void)state;
	get_block();
	assert_int_equal(spend_ones(100), 20);
	assert_int_equal(ledger_held(ledger), 0);
	assert_int_equal(ledger_stats(ledger)->spent, 20);
}

static void test_never_more_than_the_lease(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		(void)spend(1);
	assert_int_equal(next().ask.want, 100);
	ledger_free(ledger);
	ledger = ledger_new(4); /* a quarter of it each */
	for (unsigned i = 0; i < 5000; i++)
		(void)spend(1);
	assert_int_equal(next().ask.want, 25);
}

static void test_the_next_is_asked_for_before_this_is_empty(void **state)
{
	(void)state;
	get_block();
	assert_int_equal(spend_ones(5), 5);
	nothing_more();
	while (!ledger_wants(ledger))
		assert_true(spend(1));
	uint64_t left = ledger_held(ledger);
	assert_true(left >= 5);
	struct ledger_ask a = next();
	assert_int_equal(a.ask.done, 20 - left); /* and what was spent is told */
	assert_int_equal(a.ask.back, 0);
	assert_true(a.ask.want + left >= 20);
	assert_int_equal(spend_ones(100), left);
	nothing_more(); /* one at a time */
}

static void test_what_is_left_is_told(void **state)
{
	(void)state;
	struct plan p = plan_of(3);

	counter.bucket.used = 100;
	counter.bucket.at = t + AHEAD;
	get_block();
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	assert_true(p.take[0].verdict.admits && !p.take[0].verdict.oversize);
	assert_true(p.take[0].verdict.left > 896.9 && p.take[0].verdict.left < 897.1);
	assert_int_equal(ledger_now(ledger, t).utc, t + AHEAD);
	p = plan_of(0);
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	assert_int_equal(ledger_held(ledger), 17);
}

/* What the shared counter says of a take that went there. */
static void note(int64_t cost)
{
	struct plan p = plan_of(cost);

	bucket_charge(&limit.quota, &counter.bucket, (uint32_t)cost);
	p.take[0].verdict.state = counter.bucket;
	ledger_note(ledger, &p);
}

static double left_after(int64_t cost)
{
	struct plan p = plan_of(cost);

	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	return p.take[0].verdict.left;
}

/* What is in hand was debited, and has come back meanwhile: it is not there twice. */
static void test_no_more_is_left_than_there_can_be(void **state)
{
	(void)state;
	limit.quota.window.length = USEC_PER_SEC;
	get_block();
	t += 100 * MS;
	assert_true(left_after(1) <= 1000);
}

/* A smaller tier that shares the counter reads no more of it than its own capacity; that is what is
 * there only once it was charged. */
static void test_a_smaller_tier_does_not_tell_what_is_there(void **state)
{
	(void)state;
	struct plan small = plan_of(1);

	counter.bucket.used = 500;
	counter.bucket.at = t + AHEAD;
	get_block();
	assert_float_equal(left_after(0), 500, 0.1);
	second.quota.units = second.quota.capacity = 100;
	small.take[0].limit = &second;
	small.take[0].verdict.state = (struct bucket){ .used = 100, .at = t + AHEAD };
	ledger_note(ledger, &small);
	assert_float_equal(left_after(0), 500, 0.1);
	small.take[0].verdict.charged = true;
	ledger_note(ledger, &small);
	assert_true(left_after(0) > 900);
}

/* Whatever was taken there, be it after a block was asked for and before it came, or while there
 * was not enough in hand for it. */
static void test_what_went_elsewhere_is_told(void **state)
{
	(void)state;
	get_block();
	assert_float_equal(left_after(5), 995, 0.1);
	note(30);
	assert_float_equal(left_after(1), 964, 0.1);
	while (!ledger_wants(ledger))
		assert_true(spend(1));
	double before = left_after(0);
	struct ledger_ask a = next();
	struct leased after;
	uint32_t granted = lease_apply(&a.quota, &counter, &a.ask, redis_now(), &after);
	struct now then = redis_now();
	counter = after;
	ledger_heard(ledger, &a, granted, &after, then, t, t);
	note(40);
	assert_float_equal(left_after(0), before - 40, 0.1);
}

/* Who has never heard of a block has not debited it. */
static void test_what_is_left_where_blocks_are_not_known(void **state)
{
	(void)state;
	get_block();
	ledger_disown(ledger);
	counter = (struct leased){ .bucket.at = t + AHEAD };
	note(30);
	assert_float_equal(left_after(0), 970, 0.1);
}

static void test_what_costs_more_than_is_in_hand_goes_elsewhere(void **state)
{
	(void)state;
	get_block();
	assert_false(spend(21));
	assert_true(spend(20));
	assert_false(spend(0));
}

/* A rule's takes are spent all, or none. */
static void test_a_rule_with_two_limits(void **state)
{
	(void)state;
	struct plan p = plan_of(1);
	p.n = 2;
	p.take[1] = (struct take){ .limit = &second, .key = { 9, 10 }, .cost = 1 };
	get_block();
	assert_int_equal(ledger_spend(ledger, &p, t), 0);
	assert_int_equal(ledger_held(ledger), 20);
}

static void test_of_two_rules_the_one_that_is_leased(void **state)
{
	(void)state;
	struct rule strict = { .lease = 0 };
	struct limit of_strict = limit;
	of_strict.rule = &strict;
	struct plan p = plan_of(1);
	p.take[1] = p.take[0];
	p.take[0] = (struct take){ .limit = &of_strict, .key = { 1, 2 }, .cost = 1 };
	p.n = 2;
	get_block();
	assert_int_equal(ledger_spend(ledger, &p, t), 2);
	assert_int_equal(ledger_held(ledger), 19);
}

static void test_denied_elsewhere(void **state)
{
	(void)state;
	struct plan p = plan_of(5);
	get_block();
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	struct ledger_spent s = ledger_hold(ledger, &p, 1);
	assert_int_equal(ledger_held(ledger), 15);
	ledger_unspend(ledger, &p, &s, t);
	assert_int_equal(ledger_held(ledger), 20);
	assert_int_equal(ledger_stats(ledger)->spent, 0);
}

/* What may still be denied is not reported as spent. */
static void test_a_plan_that_waits_is_not_reported(void **state)
{
	(void)state;
	struct plan p = plan_of(5);
	get_block();
	assert_int_equal(spend_ones(6), 6);
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	struct ledger_spent s = ledger_hold(ledger, &p, 1);
	struct ledger_ask a = next();
	assert_int_equal(a.ask.done, 6);
	ledger_unspend(ledger, &p, &s, t);
	assert_int_equal(ledger_held(ledger), 14);
}

/* The block's time is over when it is denied, and nothing has looked since: what it took goes back
 * with the rest of that block. */
static void test_denied_after_the_time_of_its_block(void **state)
{
	(void)state;
	struct plan p = plan_of(5);
	get_block();
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	struct ledger_spent s = ledger_hold(ledger, &p, 1);
	t += LEASE_LIFE;
	ledger_unspend(ledger, &p, &s, t);
	exchange_all();
	assert_int_equal(ledger_stats(ledger)->dropped, 0);
	assert_true(counter.bucket.used < 0.001);
	assert_int_equal(ledger_held(ledger), 0);
}

/* Plans that wait have emptied a block, and the next one is spent meanwhile: what they took goes
 * back when they are denied, and is told as spent when not. Until then it is out. */
static void test_denied_when_its_block_has_ended(void **state)
{
	(void)state;
	enum { N = 20 };
	struct plan p = plan_of(1);
	struct ledger_spent s[N];
	get_block();
	uint32_t first = (uint32_t)ledger_held(ledger);
	assert_int_equal(first, N);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(ledger_spend(ledger, &p, t), 1);
		s[i] = ledger_hold(ledger, &p, 1);
	}
	uint32_t other = exchange();
	assert_true(spend(1)); /* the first one is over */
	assert_int_equal(ledger_stats(ledger)->dropped, 0);
	for (unsigned i = 0; i < 15; i++)
		ledger_unspend(ledger, &p, &s[i], t);
	struct ledger_ask a = next();
	assert_int_equal(a.ask.done, 15);
	assert_int_equal(a.ask.back, 15);
	assert_int_equal(a.ask.mark, (t + AHEAD) / LEASE_LIFE);
	ledger_heard(ledger, &a, 0, &counter, redis_now(), t, t);
	for (unsigned i = 15; i < N; i++)
		ledger_keep(ledger, &p, &s[i]);
	assert_int_equal(ledger_stats(ledger)->dropped, 0);
	assert_int_equal(ledger_stats(ledger)->spent, 5 + 1);
	assert_int_equal(ledger_held(ledger), other - 1);
}

/* So long as it is not known whether they were spent, they are out: who waits long takes no more
 * than the lease. */
static void test_what_waits_counts_as_out(void **state)
{
	(void)state;
	enum { N = 500 };
	static struct ledger_spent s[N];
	struct plan p = plan_of(1);
	unsigned held = 0;
	for (unsigned i = 0; i < N; i++) {
		if (ledger_spend(ledger, &p, t) == 1)
			s[held++] = ledger_hold(ledger, &p, 1);
		exchange_all();
	}
	assert_int_equal(held, 100);
	assert_int_equal(counter.bucket.used, 100);
	while (held)
		ledger_unspend(ledger, &p, &s[--held], t);
	exchange_all();
	t += LEASE_LIFE / 2;
	ledger_tick(ledger, t);
	exchange_all();
	assert_true(counter.bucket.used < 0.001);
	assert_int_equal(ledger_stats(ledger)->dropped, 0);
}

/* A reload gives all back; what waits then comes after it. A connection that is lost, or a counter
 * that begins anew, knows nothing of it. */
static void test_denied_when_everything_has_gone_back(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 3; how++) {
		struct plan p = plan_of(1);
		ledger_free(ledger);
		assert_int_equal(begin(NULL), 0);
		get_block();
		assert_int_equal(ledger_spend(ledger, &p, t), 1);
		struct ledger_spent s = ledger_hold(ledger, &p, 1);
		if (how == 1)
			ledger_disown(ledger);
		else if (how == 2)
			ledger_forget(ledger, &p.take[0].key, t);
		ledger_return_all(ledger, t);
		exchange_all();
		double before = counter.bucket.used;
		ledger_unspend(ledger, &p, &s, t);
		exchange_all();
		assert_float_equal(before - counter.bucket.used, how == 0 ? 1 : 0, 0.001);
		assert_false(ledger_holds(ledger));
		/* And its place is free again. */
		get_block();
	}
}

/* The connection is lost while a reload waits for a plan: the key is leased again all the same. */
static void test_a_loss_ends_a_reload(void **state)
{
	(void)state;
	struct plan p = plan_of(5);
	get_block();
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	struct ledger_spent s = ledger_hold(ledger, &p, 1);
	ledger_return_all(ledger, t);
	exchange_all();
	ledger_disown(ledger);
	ledger_keep(ledger, &p, &s);
	counter = (struct leased){ 0 };
	get_block();
}

/* What is adrift from before a loss, or was never known there, is nobody's when it is decided: the
 * key is leased again after a reload. */
static void test_what_is_lost_is_not_counted_twice(void **state)
{
	(void)state;
	for (unsigned lost_first = 0; lost_first < 2; lost_first++) {
		struct plan p = plan_of(5);
		ledger_free(ledger);
		assert_int_equal(begin(NULL), 0);
		get_block();
		if (lost_first)
			ledger_disown(ledger);
		assert_int_equal(ledger_spend(ledger, &p, t), 1);
		struct ledger_spent s = ledger_hold(ledger, &p, 1);
		t += LEASE_LIFE;
		ledger_tick(ledger, t);
		if (!lost_first)
			ledger_disown(ledger);
		ledger_keep(ledger, &p, &s);
		ledger_return_all(ledger, t);
		exchange_all();
		counter = (struct leased){ 0 };
		get_block();
	}
}

/* A key that is reset while a plan waits, and comes to another place, has nothing of that plan. */
static void test_a_plan_that_waits_is_of_one_place(void **state)
{
	(void)state;
	struct plan p = plan_of(5), other = plan_of(1);
	other.take[0].key = (struct key){ 7 + 512, 8 };
	for (unsigned i = 0; i < 3; i++)
		(void)ledger_spend(ledger, &other, t);
	t += 400 * MS;
	get_block();
	t += 300 * MS;
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	struct ledger_spent s = ledger_hold(ledger, &p, 1);
	ledger_forget(ledger, &p.take[0].key, t);
	counter = (struct leased){ 0 };
	get_block();
	ledger_unspend(ledger, &p, &s, t);
	assert_int_equal(ledger_held(ledger), 20);
	assert_int_equal(spend_ones(100), 20);
}

/* Of what it took from two blocks, no more waits in the second than that has lost. */
static void test_a_plan_that_waits_with_two_blocks(void **state)
{
	(void)state;
	get_block();
	while (!ledger_wants(ledger))
		assert_true(spend(1));
	uint32_t first = (uint32_t)ledger_held(ledger), other = exchange();
	assert_int_equal(spend_ones(first - 2), first - 2);
	struct plan p = plan_of(other);
	assert_int_equal(ledger_spend(ledger, &p, t), 1);
	struct ledger_spent s = ledger_hold(ledger, &p, 1);
	struct ledger_ask a = next();
	assert_int_equal(a.ask.done, first);
	assert_int_equal(a.ask.back, 0);
	ledger_lost(ledger, &a, t);
	ledger_unspend(ledger, &p, &s, t);
	assert_int_equal(ledger_held(ledger), other);
	t += LEASE_LIFE;
	ledger_tick(ledger, t);
	assert_int_equal(next().ask.done, other);
}

static void test_what_lies_idle_goes_back(void **state)
{
	(void)state;
	get_block();
	assert_int_equal(spend_ones(4), 4);
	t += LEASE_LIFE / 4;
	ledger_tick(ledger, t);
	nothing_more();
	t += LEASE_LIFE / 4;
	ledger_tick(ledger, t);
	assert_int_equal(ledger_held(ledger), 0);
	struct ledger_ask a = next();
	assert_int_equal(a.ask.want, 0);
	assert_int_equal(a.ask.done, 20);
	assert_int_equal(a.ask.back, 16);
	ledger_lost(ledger, &a, t); /* nobody knows: it is not said again */
	nothing_more();
	assert_int_equal(ledger_stats(ledger)->dropped, 16);
	assert_false(ledger_holds(ledger));
}

static void test_a_block_does_not_outlive_its_life(void **state)
{
	(void)state;
	get_block();
	t += LEASE_LIFE - 1;
	assert_false(spend(1));
}

/* Blocks of two turns that end together: of each its own is told. */
static void test_each_turn_has_its_report(void **state)
{
	(void)state;
	t += LEASE_LIFE / 4 * 3;
	const int64_t turn = (t + AHEAD) / LEASE_LIFE;
	get_block();
	t += LEASE_LIFE / 2;
	while (!ledger_wants(ledger))
		assert_true(spend(1));
	uint32_t left = (uint32_t)ledger_held(ledger), other = exchange();
	assert_int_equal(ledger_held(ledger), left + other);
	t += 2 * LEASE_LIFE;
	ledger_tick(ledger, t);
	struct ledger_ask a = next(), b = next();
	nothing_more();
	struct lease_ask *of_first = a.ask.mark == turn ? &a.ask : &b.ask,
			 *of_other = a.ask.mark == turn ? &b.ask : &a.ask;
	assert_int_equal(of_first->mark, turn);
	assert_int_equal(of_first->back, left);
	assert_int_equal(of_other->mark, turn + 1);
	assert_int_equal(of_other->back, other);
}

static void test_it_counts_from_when_it_was_asked_for(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++)
		assert_false(spend(1));
	struct ledger_ask a = next();
	assert_true(ledger_holds(ledger)); /* an answer is to come */
	usec_t sent = t;
	struct leased after;
	t += LEASE_LIFE - 1; /* it took that long */
	uint32_t granted = lease_apply(&a.quota, &counter, &a.ask, redis_now(), &after);
	ledger_heard(ledger, &a, granted, &after, redis_now(), sent, t);
	assert_int_equal(granted, 20);
	assert_int_equal(ledger_held(ledger), 0);
	assert_int_equal(next().ask.back, 20);
}

static void test_a_reload_and_a_stop_give_back(void **state)
{
	(void)state;
	get_block();
	ledger_return_all(ledger, t);
	assert_false(spend(1));
	assert_int_equal(exchange(), 0);
	assert_true(counter.bucket.used == 0 && counter.fresh == 0);
	assert_int_equal(ledger_stats(ledger)->returned, 20);
	nothing_more();
	assert_false(ledger_holds(ledger));
	/* A new life, and the last one. */
	get_block();
	ledger_close(ledger);
	ledger_return_all(ledger, t);
	(void)exchange();
	for (unsigned i = 0; i < 100; i++)
		assert_false(spend(1));
	nothing_more();
}

/* A check from before the reload that waited for its tier meanwhile: it made the place anew. */
static void test_a_late_check_does_not_keep_the_old_lease(void **state)
{
	(void)state;
	struct rule fresh = rule;
	fresh.lease = 0.02;
	for (unsigned i = 0; i < 5000; i++)
		assert_false(spend(1));
	assert_int_equal(exchange(), 100);
	limit.rule = &fresh;
	for (unsigned i = 0; i < 5000 && !spend(1); i++)
		;
	t += LEASE_LIFE;
	ledger_tick(ledger, t);
	exchange_all();
	for (unsigned i = 0; i < 5000; i++)
		assert_false(spend(1));
	assert_int_equal(next().ask.want, 20);
}

/* The block that was asked for before the reload comes after it. */
static void test_a_block_that_comes_late_goes_back(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++)
		assert_false(spend(1));
	struct ledger_ask a = next();
	ledger_return_all(ledger, t);
	struct leased after;
	uint32_t granted = lease_apply(&a.quota, &counter, &a.ask, redis_now(), &after);
	counter = after;
	ledger_heard(ledger, &a, granted, &after, redis_now(), t, t);
	(void)exchange();
	assert_true(counter.bucket.used == 0 && counter.fresh == 0);
	assert_false(ledger_holds(ledger));
}

static void test_after_a_lost_connection_nothing_is_told(void **state)
{
	(void)state;
	get_block();
	ledger_disown(ledger);
	assert_int_equal(spend_ones(12), 12);
	struct ledger_ask a = next();
	assert_int_equal(a.ask.done, 0);
	ledger_lost(ledger, &a, t);
	t += LEASE_LIFE / 2;
	ledger_tick(ledger, t);
	nothing_more();
	assert_int_equal(ledger_stats(ledger)->dropped, 8);
}

/* Neither spent from, nor told of, nor given back to the new counter; what is on its way neither.
 */
static void test_of_a_counter_that_began_anew_nothing_is_told(void **state)
{
	const struct key key = { 7, 8 }, other = { 8, 8 };
	(void)state;
	get_block();
	ledger_forget(ledger, &other, t);
	assert_int_equal(spend_ones(5), 5);
	ledger_forget(ledger, &key, t);
	assert_false(ledger_holds(ledger));
	assert_false(spend(1));
	nothing_more();
	assert_int_equal(ledger_stats(ledger)->dropped, 15);
	/* with a report in the queue, and a block under way */
	for (unsigned i = 0; i < 19; i++)
		assert_false(spend(1));
	assert_int_equal(exchange(), 20);
	assert_int_equal(spend_ones(12), 12);
	struct ledger_ask a = next();
	assert_int_not_equal(a.ask.want, 0);
	ledger_forget(ledger, &key, t);
	ledger_heard(ledger, &a, 20, &counter, redis_now(), t, t);
	assert_false(ledger_holds(ledger));
	ledger_tick(ledger, t + LEASE_LIFE);
	nothing_more();
	/* a new life */
	t += LEASE_LIFE;
	counter = (struct leased){ 0 };
	get_block();
	assert_int_equal(spend_ones(20), 20);
}

/* Nor has it what was asked for before, should that come when it asks again. */
static void test_an_answer_from_before_is_nobodys(void **state)
{
	const struct key key = { 7, 8 };
	struct ledger_ask a[2];
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 20; k++)
			assert_false(spend(1));
		a[i] = next();
		if (i == 0)
			ledger_forget(ledger, &key, t);
	}
	ledger_heard(ledger, &a[0], 20, &counter, redis_now(), t, t);
	assert_int_equal(ledger_held(ledger), 0);
	ledger_heard(ledger, &a[1], 20, &counter, redis_now(), t, t);
	assert_int_equal(ledger_held(ledger), 20);
}

static void test_no_block_is_to_be_had(void **state)
{
	(void)state;
	counter.bucket.used = 1000;
	counter.bucket.at = t + AHEAD;
	for (unsigned i = 0; i < 20; i++)
		assert_false(spend(1));
	assert_int_equal(exchange(), 0);
	assert_int_equal(ledger_stats(ledger)->refused, 1);
	assert_false(spend(1));
	nothing_more(); /* not at once again */
	t += 10 * MS;
	assert_false(spend(1));
	assert_true(ledger_wants(ledger));
}

static void test_another_tier_of_the_same_counter(void **state)
{
	(void)state;
	struct plan p = plan_of(1);
	get_block();
	p.take[0].limit = &second;
	second.quota.units = 500; /* as much at once, but not as fast */
	assert_int_equal(ledger_spend(ledger, &p, t), 0);
	second.quota.capacity = 10;
	assert_int_equal(ledger_spend(ledger, &p, t), 0);
	assert_int_equal(ledger_held(ledger), 20);
}

/* A flood of keys takes no block away from who has one. */
static void test_many_keys(void **state)
{
	(void)state;
	get_block();
	for (uint64_t k = 100; k < 20000; k++) {
		struct plan p = plan_of(1);
		p.take[0].key = (struct key){ k, k };
		assert_int_equal(ledger_spend(ledger, &p, t), 0);
	}
	assert_int_equal(spend_ones(100), 20);
}

/* Nor its place away from who asks for one. */
static void test_a_key_that_asks_keeps_its_place(void **state)
{
	enum { WAYS = 4, SETS = 512 };
	(void)state;
	for (uint64_t k = 0; k <= WAYS; k++) {
		struct plan p = plan_of(1);
		p.take[0].key = (struct key){ 7 + k * SETS, 8 };
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(ledger_spend(ledger, &p, t), 0);
	}
	for (uint64_t k = 0; k < WAYS; k++) {
		struct ledger_ask a = next();
		assert_int_equal(a.key.a, 7 + k * SETS);
		assert_int_equal(a.ask.want, 20);
	}
	nothing_more();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		T(test_a_cold_key_asks_for_nothing),
		T(test_a_hot_key_gets_what_it_wants),
		T(test_never_more_than_the_lease),
		T(test_the_next_is_asked_for_before_this_is_empty),
		T(test_what_is_left_is_told),
		T(test_no_more_is_left_than_there_can_be),
		T(test_a_smaller_tier_does_not_tell_what_is_there),
		T(test_what_went_elsewhere_is_told),
		T(test_what_is_left_where_blocks_are_not_known),
		T(test_what_costs_more_than_is_in_hand_goes_elsewhere),
		T(test_a_rule_with_two_limits),
		T(test_of_two_rules_the_one_that_is_leased),
		T(test_denied_elsewhere),
		T(test_a_plan_that_waits_is_not_reported),
		T(test_denied_after_the_time_of_its_block),
		T(test_denied_when_its_block_has_ended),
		T(test_a_loss_ends_a_reload),
		T(test_what_is_lost_is_not_counted_twice),
		T(test_a_plan_that_waits_is_of_one_place),
		T(test_what_waits_counts_as_out),
		T(test_denied_when_everything_has_gone_back),
		T(test_a_plan_that_waits_with_two_blocks),
		T(test_what_lies_idle_goes_back),
		T(test_a_block_does_not_outlive_its_life),
		T(test_each_turn_has_its_report),
		T(test_it_counts_from_when_it_was_asked_for),
		T(test_a_reload_and_a_stop_give_back),
		T(test_a_late_check_does_not_keep_the_old_lease),
		T(test_a_block_that_comes_late_goes_back),
		T(test_after_a_lost_connection_nothing_is_told),
		T(test_of_a_counter_that_began_anew_nothing_is_told),
		T(test_an_answer_from_before_is_nobodys),
		T(test_no_block_is_to_be_had),
		T(test_another_tier_of_the_same_counter),
		T(test_many_keys),
		T(test_a_key_that_asks_keeps_its_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
