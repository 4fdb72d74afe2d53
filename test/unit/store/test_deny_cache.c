/* Remembered denials against the store that would have been asked. */
#include "rig.h"
#include "store/deny_cache.h"

#include <math.h>

enum { LIMITS = 6, CLIENTS = 5, SEEDS = 300, STEPS = 400 };

static const usec_t offset = 5 * USEC_PER_DAY; /* this machine's steady clock is another */

/* A server has one clock. */
static struct now server_now(usec_t t)
{
	usec_t at = 50 * 365 * USEC_PER_DAY + t;
	return (struct now){ .steady = at, .utc = at };
}

static struct rig_limit *limits(struct rig_limit *l)
{
	rig_limit(&l[0], ALGORITHM_TOKEN_BUCKET, 10, 10 * USEC_PER_SEC, 10);
	rig_limit(&l[1], ALGORITHM_TOKEN_BUCKET, 3, 60 * USEC_PER_SEC, 7);
	rig_limit(&l[2], ALGORITHM_SLIDING_WINDOW, 8, 20 * USEC_PER_SEC, 0);
	rig_limit(&l[3], ALGORITHM_FIXED_WINDOW, 5, 30 * USEC_PER_SEC, 0);
	rig_limit(&l[4], ALGORITHM_TOKEN_BUCKET, 2, 10 * USEC_PER_SEC, 2);
	l[4].rule.mode = MODE_SHADOW;
	rig_limit(&l[5], ALGORITHM_FIXED_WINDOW, 4, 10 * USEC_PER_SEC, 0);
	l[5].rule.count_denied = true;
	return l;
}

static void make_plan(struct plan *p, const struct rig_limit *l, uint64_t *seed, unsigned n_limits)
{
	memset(p, 0, sizeof *p);
	uint64_t client = rig_random(seed) % CLIENTS;
	int64_t cost = (int64_t)(rig_random(seed) % 4);
	for (unsigned i = 0; i < n_limits; i++)
		if (rig_random(seed) & 1)
			rig_plan_add(p, &l[i], client * 100 + i, cost);
}

static bool denies(const struct take *t)
{
	return t->limit->rule->mode == MODE_ENFORCE && !t->verdict.admits;
}

/* Whatever the cache denies, the store denies too, for the same limits, and is no earlier done with
 * it; and a flood does find it. */
static void it_denies_only_what_the_store_denies(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	unsigned hits = 0;
	limits(l);
	for (uint64_t s = 1; s <= SEEDS; s++) {
		uint64_t seed = s * 7919;
		usec_t t = 0;
		struct memory_store *m = rig_store(1000, server_now(0));
		struct deny_cache *c = deny_cache_new(false);
		assert_non_null(c);
		for (unsigned step = 0; step < STEPS; step++) {
			t += (usec_t)(rig_random(&seed) %
				      (rig_random(&seed) & 7 ? 300000 : 9000000));
			struct plan mine, theirs;
			if (rig_random(&seed) % 4 == 0) { /* another agent */
				make_plan(&theirs, l, &seed, LIMITS);
				(void)store_take(memory_store_base(m), &theirs, server_now(t));
			}
			make_plan(&mine, l, &seed, LIMITS - (rig_random(&seed) & 1));
			theirs = mine;
			/* Asked, read by the server, answered: some time lies between. */
			usec_t asked = t + offset;
			bool hit = deny_cache_answer(c, &mine, asked);
			if (!hit)
				assert_memory_equal(&mine, &theirs, sizeof mine);
			t += (usec_t)(rig_random(&seed) % 20000);
			/* What it says is as of when it was asked. */
			usec_t at = hit ? asked - offset : t;
			(void)store_take(memory_store_base(m), &theirs, server_now(at));
			if (!hit) {
				theirs.now = server_now(t);
				deny_cache_note(c, &theirs, asked);
				continue;
			}
			hits++;
			assert_true(theirs.denied);
			assert_true(mine.denied);
			for (unsigned i = 0; i < mine.n; i++) {
				const struct take *a = &mine.take[i], *b = &theirs.take[i];
				assert_false(a->limit->rule->count_denied);
				assert_false(a->verdict.charged);
				if (!denies(a))
					continue;
				assert_false(b->verdict.admits);
				assert_int_equal(a->verdict.oversize, b->verdict.oversize);
				assert_true(a->verdict.retry_after <= b->verdict.retry_after + 1);
			}
		}
		deny_cache_free(c);
		rig_close(m);
	}
	print_message("%u of %u were remembered\n", hits, SEEDS * STEPS);
	assert_true(hits > SEEDS * STEPS / 20);
}

static struct plan denied_plan(struct memory_store *m, const struct rig_limit *r, int64_t cost,
	usec_t t, struct deny_cache *c)
{
	struct plan p = { 0 };
	for (;;) {
		p.n = 0;
		rig_plan_add(&p, r, 1, cost);
		(void)store_take(memory_store_base(m), &p, server_now(t));
		if (p.denied)
			break;
	}
	deny_cache_note(c, &p, t + offset);
	return p;
}

static bool remembers(struct deny_cache *c, const struct rig_limit *r, int64_t cost, usec_t t)
{
	struct plan p = { 0 };
	rig_plan_add(&p, r, 1, cost);
	return deny_cache_answer(c, &p, t + offset);
}

static void it_lasts_until_retry_after(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	limits(l);
	for (unsigned i = 0; i < 4; i++) {
		struct memory_store *m = rig_store(1000, server_now(0));
		struct deny_cache *c = deny_cache_new(false);
		usec_t t = 12345;
		struct plan p = denied_plan(m, &l[i], 2, t, c);
		usec_t until = p.take[0].verdict.retry_after;
		assert_true(until > 0);
		assert_true(remembers(c, &l[i], 2, t));
		assert_true(remembers(c, &l[i], 3, t));
		assert_false(remembers(c, &l[i], 1, t)); /* it may have room for less */
		assert_false(remembers(c, &l[i], 0, t)); /* that asks for 1 */
		assert_true(remembers(c, &l[i], 2, t + until - USEC_PER_MSEC));
		assert_false(remembers(c, &l[i], 2, t + until));
		assert_false(remembers(c, &l[i], 2, t)); /* it was let go */
		deny_cache_free(c);
		rig_close(m);
	}
}

/* Does the cache answer `mine`? `theirs` is what the store says of the same request, and the cache
 * hears of that where it has to ask. */
static bool is_remembered(struct deny_cache *c, struct memory_store *m, usec_t t, struct plan *mine,
	struct plan *theirs)
{
	*theirs = *mine;
	bool hit = deny_cache_answer(c, mine, t + offset);
	(void)store_take(memory_store_base(m), theirs, server_now(t));
	if (!hit) {
		theirs->now = server_now(t);
		deny_cache_note(c, theirs, t + offset);
	}
	return hit;
}

/* Of one client that hammers, what the store says beside the denial is said from memory, too:
 * limits in shadow, with a tag, or above their `warn_at`. */
static void what_others_say_is_remembered(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	limits(l);
	l[2].rule.warn_at = 0.25;
	l[3].rule.action = ACTION_TAG;
	unsigned hits = 0, exceeded = 0;
	for (unsigned cost = 1; cost <= 2; cost++) {
		struct memory_store *m = rig_store(1000, server_now(0));
		struct deny_cache *c = deny_cache_new(false);
		for (usec_t t = 12345; t < 200 * USEC_PER_SEC; t += 70000) {
			struct plan mine = { 0 }, theirs;
			for (unsigned i = 0; i < 5; i++)
				rig_plan_add(&mine, &l[i], 100 + i, cost);
			if (!is_remembered(c, m, t, &mine, &theirs))
				continue;
			hits++;
			for (unsigned i = 0; i < 5; i++) {
				const struct verdict *a = &mine.take[i].verdict;
				const struct verdict *b = &theirs.take[i].verdict;
				bool says = !b->admits || l[i].rule.warn_at < 1;
				exceeded += !b->admits && !denies(&theirs.take[i]);
				assert_int_equal(a->admits, b->admits);
				assert_int_equal(a->oversize, b->oversize);
				if (says)
					assert_true(fabs(a->left - b->left) < 1e-6);
			}
		}
		deny_cache_free(c);
		rig_close(m);
	}
	print_message("%u remembered, %u exceeded beside\n", hits, exceeded);
	assert_true(hits > 1000);
	assert_true(exceeded > 500);
}

/* Where this agent alone charges, what is told of a limit that denies is what the store would tell:
 * also after requests of lower cost were admitted since, and of one that could never pass. */
static void it_hears_of_what_is_charged_since(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	unsigned hits = 0, oversize = 0;
	limits(l);
	for (uint64_t s = 1; s <= SEEDS / 4; s++) {
		uint64_t seed = s * 104729;
		usec_t t = 12345;
		struct memory_store *m = rig_store(1000, server_now(0));
		struct deny_cache *c = deny_cache_new(false);
		for (unsigned step = 0; step < STEPS; step++) {
			struct plan mine = { 0 }, theirs;
			int64_t cost = (int64_t)(rig_random(&seed) % 10) + 1;
			t += (usec_t)(rig_random(&seed) % 900000);
			for (unsigned i = 0; i < 4; i++)
				rig_plan_add(
					&mine, &l[i], 100 + i, rig_random(&seed) & 3 ? 1 : cost);
			if (!is_remembered(c, m, t, &mine, &theirs))
				continue;
			hits++;
			for (unsigned i = 0; i < 4; i++) {
				const struct verdict *a = &mine.take[i].verdict;
				const struct verdict *b = &theirs.take[i].verdict;
				assert_int_equal(a->oversize, b->oversize);
				oversize += a->oversize;
				if (a->admits)
					continue;
				assert_false(b->admits);
				assert_true(fabs(a->left - b->left) < 1e-6);
				assert_in_range(a->retry_after - b->retry_after + 1, 0, 2);
			}
		}
		deny_cache_free(c);
		rig_close(m);
	}
	print_message("%u remembered, %u of them never pass\n", hits, oversize);
	assert_true(hits > 1000);
	assert_true(oversize > 100);
}

/* Where others may give back, it is wrong for no longer than DENIAL_DOUBTED, however long the
 * window. */
static void it_is_doubted_where_units_may_come_back(void **state)
{
	static const struct {
		const char *what;
		bool refunds;
		double lease;
		bool doubted;
	} row[] = {
		{ "others only add", false, 0, false },
		{ "a block may come back", false, 0.05, true },
		{ "a charge may be refunded", true, 0, true },
		{ "both", true, 0.05, true },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		for (unsigned k = 0; k < 3; k++) {
			static const enum algorithm algorithm[] = { ALGORITHM_TOKEN_BUCKET,
				ALGORITHM_SLIDING_WINDOW, ALGORITHM_FIXED_WINDOW };
			struct rig_limit l;
			rig_limit(&l, algorithm[k], 10, 300 * USEC_PER_DAY, k ? 0 : 10);
			l.rule.lease = row[i].lease;
			struct memory_store *m = rig_store(1000, server_now(0));
			struct deny_cache *c = deny_cache_new(row[i].refunds);
			(void)denied_plan(m, &l, 1, 0, c);
			assert_true(remembers(c, &l, 1, DENIAL_DOUBTED));
			if (remembers(c, &l, 1, DENIAL_DOUBTED + 1) == row[i].doubted)
				fail_msg("%s, algorithm %u", row[i].what, k);
			deny_cache_free(c);
			rig_close(m);
		}
}

/* What could never pass is what is reported: where it is in doubt how much is left of that, Redis
 * is asked, as where nothing is known. */
static void what_could_never_pass_is_not_told_from_what_is_doubted(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	limits(l);
	struct memory_store *m = rig_store(1000, server_now(0));
	struct deny_cache *c = deny_cache_new(true);
	const usec_t half = DENIAL_DOUBTED / 2;
	for (usec_t t = 0; t <= 3 * half; t += half) {
		struct plan over = { 0 };
		(void)denied_plan(m, &l[1], 1, t, c); /* always fresh: other requests ask */
		rig_plan_add(&over, &l[1], 1, 1);
		rig_plan_add(&over, &l[3], 2, 6);
		struct plan theirs = over;
		bool hit = deny_cache_answer(c, &over, t + offset);
		assert_int_equal(hit, t > 0 && t <= 2 * half);
		if (t == 0) {
			struct plan used = { 0 };
			rig_plan_add(&used, &l[3], 2, 2);
			(void)store_take(memory_store_base(m), &used, server_now(t));
			(void)store_take(memory_store_base(m), &theirs, server_now(t));
			theirs.now = server_now(t);
			deny_cache_note(c, &theirs, t + offset);
		} else if (hit) {
			assert_true(over.take[1].verdict.oversize);
			assert_true(over.take[1].verdict.left == 3);
		}
	}
	deny_cache_free(c);
	rig_close(m);
}

static void it_is_of_one_tier_and_forgets_when_told(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS], richer;
	limits(l);
	rig_limit(&richer, ALGORITHM_TOKEN_BUCKET, 10, 10 * USEC_PER_SEC, 20);
	struct memory_store *m = rig_store(1000, server_now(0));
	struct deny_cache *c = deny_cache_new(false);
	(void)denied_plan(m, &l[0], 1, 0, c);
	assert_true(remembers(c, &l[0], 1, 0));
	assert_false(remembers(c, &richer, 1, 0));
	deny_cache_clear(c);
	assert_false(remembers(c, &l[0], 1, 0));
	deny_cache_free(c);
	rig_close(m);
}

/* Is `client` remembered, once it was denied? */
static bool flood_finds(struct deny_cache *c, struct rig_limit *l, uint64_t client)
{
	struct plan p = { 0 };
	rig_plan_add(&p, l, client, 1);
	return deny_cache_answer(c, &p, offset);
}

static void flood_denies(struct deny_cache *c, struct rig_limit *l, uint64_t client)
{
	struct plan p = { .denied = true, .now = server_now(0) };
	rig_plan_add(&p, l, client, 1);
	p.take[0].verdict.state.at = p.now.utc;
	p.take[0].verdict.state.used = (double)l->limit.quota.capacity;
	deny_cache_note(c, &p, offset);
}

static void it_forgets_one_client_alone(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	struct deny_cache *c = deny_cache_new(1);
	struct plan p = { 0 };
	limits(l);
	for (uint64_t client = 1; client <= 3; client++)
		flood_denies(c, &l[0], client);
	rig_plan_add(&p, &l[0], 2, 1);
	deny_cache_forget(c, &p.take[0].key);
	assert_true(flood_finds(c, &l[0], 1));
	assert_false(flood_finds(c, &l[0], 2));
	assert_true(flood_finds(c, &l[0], 3));
	deny_cache_free(c);
}

/* What was asked for before a rule began to watch only comes after: it denies nothing more. And of
 * two answers the later one of the server's holds, whichever comes first. */
static void an_answer_that_is_late_does_not_count(void **state)
{
	(void)state;
	struct rig_limit l[LIMITS];
	struct plan p = { .now = server_now(-1) };
	struct deny_cache *c = deny_cache_new(false);
	limits(l);
	flood_denies(c, &l[0], 1);
	rig_plan_add(&p, &l[0], 1, 1);
	p.take[0].verdict.state.at = p.now.utc;
	deny_cache_note(c, &p, offset - 1);
	assert_true(flood_finds(c, &l[0], 1));
	l[0].rule.mode = MODE_SHADOW;
	assert_false(flood_finds(c, &l[0], 1));
	deny_cache_free(c);
}

static void it_remembers_a_flood_of_many(void **state)
{
	(void)state;
	enum { MANY = 3000, TOO_MANY = 200000 };
	struct rig_limit l[LIMITS];
	unsigned found = 0;
	limits(l);
	struct deny_cache *c = deny_cache_new(false);
	for (uint64_t i = 0; i < MANY; i++)
		flood_denies(c, &l[0], i);
	for (uint64_t i = 0; i < MANY; i++)
		found += flood_finds(c, &l[0], i);
	assert_true(found > MANY * 99 / 100);
	/* Bounded, and a new denial takes an old one's place. */
	for (uint64_t i = 0; i < TOO_MANY; i++) {
		flood_denies(c, &l[0], i);
		assert_true(flood_finds(c, &l[0], i));
	}
	found = 0;
	for (uint64_t i = TOO_MANY - MANY; i < TOO_MANY; i++)
		found += flood_finds(c, &l[0], i);
	assert_true(found > MANY * 99 / 100);
	assert_false(flood_finds(c, &l[0], 0));
	deny_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_denies_only_what_the_store_denies),
		cmocka_unit_test(it_lasts_until_retry_after),
		cmocka_unit_test(it_is_doubted_where_units_may_come_back),
		cmocka_unit_test(what_could_never_pass_is_not_told_from_what_is_doubted),
		cmocka_unit_test(it_is_of_one_tier_and_forgets_when_told),
		cmocka_unit_test(it_forgets_one_client_alone),
		cmocka_unit_test(an_answer_that_is_late_does_not_count),
		cmocka_unit_test(it_remembers_a_flood_of_many),
		cmocka_unit_test(what_others_say_is_remembered),
		cmocka_unit_test(it_hears_of_what_is_charged_since),
	};
	return cmocka_run_group_tests_name("store/deny_cache", tests, NULL, NULL);
}
