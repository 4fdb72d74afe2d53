/* The bounded table: who stays and who goes, against what the contract says of it. */
#include "rig.h"

#include <math.h>

#define HOUR (3600 * USEC_PER_SEC)

static struct rig_limit tokens, day_tokens, fixed, sliding, once;

static int setup(void **state)
{
	(void)state;
	rig_limit(&tokens, ALGORITHM_TOKEN_BUCKET, 3, 10 * USEC_PER_SEC, 3);
	rig_limit(&day_tokens, ALGORITHM_TOKEN_BUCKET, 100, USEC_PER_DAY, 100);
	rig_limit(&fixed, ALGORITHM_FIXED_WINDOW, 2, 60 * USEC_PER_SEC, 2);
	rig_limit(&sliding, ALGORITHM_SLIDING_WINDOW, 5, 30 * USEC_PER_SEC, 5);
	rig_limit(&once, ALGORITHM_TOKEN_BUCKET, 1, HOUR, 1);
	return 0;
}

/* ---- what is written, and what is not ---- */

static void charges_are_kept(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	assert_true(rig_take(m, &tokens, 1, 2, now_at(0)).admits);
	assert_false(rig_take(m, &tokens, 1, 2, now_at(0)).admits);
	assert_true(rig_take(m, &tokens, 1, 1, now_at(0)).admits);
	assert_true(rig_take(m, &tokens, 2, 3, now_at(0)).admits);
	assert_true(rig_take(m, &fixed, 1, 2, now_at(0)).admits);
	assert_false(rig_take(m, &fixed, 1, 1, now_at(0)).admits);
	assert_int_equal(memory_store_stats(m).keys, 3);
	rig_close(m);
}

static void what_is_not_charged_is_not_stored(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	assert_true(rig_take(m, &tokens, 1, 0, now_at(0)).admits);  /* asks */
	assert_false(rig_take(m, &tokens, 1, 9, now_at(0)).admits); /* oversize */
	assert_int_equal(memory_store_stats(m).keys, 0);

	/* Denied by one limit: the other one's key is not made. */
	assert_true(rig_take(m, &once, 2, 1, now_at(0)).admits);
	static struct plan p;
	p.n = 0;
	rig_plan_add(&p, &tokens, 3, 1);
	rig_plan_add(&p, &once, 2, 1);
	store_take(memory_store_base(m), &p, now_at(0));
	assert_false(p.take[1].verdict.admits);
	assert_int_equal(memory_store_stats(m).keys, 1);
	rig_close(m);
}

/* Of two clocks that are read a moment apart the later one's charge is of the future for the other,
 * and no reason to write for who is denied: tokens would come back twice for that moment. */
static void a_denial_a_moment_before_the_last_charge_is_not_stored(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	assert_true(rig_take(m, &tokens, 1, 3, now_at(USEC_PER_SEC)).admits);
	struct verdict v = rig_take(m, &tokens, 1, 1, now_at(USEC_PER_SEC / 2));
	assert_false(v.admits);
	assert_false(v.charged);
	rig_close(m);
}

static void an_erased_counter_is_as_one_never_seen(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	static struct plan p;
	p = (struct plan){ 0 };
	rig_plan_add(&p, &tokens, 1, 1);
	rig_plan_add(&p, &fixed, 1, 1);
	rig_plan_add(&p, &sliding, 9, 1); /* never seen */
	for (unsigned client = 1; client <= 2; client++) {
		assert_true(rig_take(m, &tokens, client, 3, now_at(0)).admits);
		assert_true(rig_take(m, &fixed, client, 2, now_at(0)).admits);
	}
	assert_int_equal(memory_store_base(m)->ops->erase(memory_store_base(m), &p), STORE_DONE);
	assert_int_equal(p.take[0].held, HELD_SOME);
	assert_int_equal(p.take[1].held, HELD_SOME);
	assert_int_equal(p.take[2].held, HELD_NOTHING);
	assert_true(rig_take(m, &tokens, 1, 3, now_at(0)).admits);
	assert_false(rig_take(m, &tokens, 1, 1, now_at(0)).admits);
	assert_true(rig_take(m, &fixed, 1, 2, now_at(0)).admits);
	assert_false(rig_take(m, &tokens, 2, 1, now_at(0)).admits);
	assert_false(rig_take(m, &fixed, 2, 1, now_at(0)).admits);
	assert_int_equal(memory_store_stats(m).keys, 4);
	rig_close(m);
}

/* The index grows with the keys: by then some are at their limit and some are not, and some have
 * gone. */
static void keys_are_found_as_the_index_grows(void **state)
{
	(void)state;
	enum { KEYS = 20000, GONE = 7 };
	struct memory_store *m = rig_store(KEYS, now_at(0));
	for (uint64_t i = 0; i < KEYS; i++) {
		const struct rig_limit *limit = i % GONE == 0 ? &tokens : &day_tokens;
		(void)rig_take(m, limit, i, i % 2 ? 100 : 1 + (int64_t)(i % 3), now_at(0));
		if (i & (i + 1)) /* at each power of two: between any two steps of its growth */
			continue;
		(void)memory_store_sweep(m, now_at(60 * USEC_PER_SEC), 64);
		for (uint64_t k = 0; k <= i; k++) {
			if (k % GONE == 0)
				continue;
			double left = k % 2 ? 0 : 99 - (double)(k % 3);
			if (rig_take(m, &day_tokens, k, 0, now_at(0)).left != left)
				fail_msg("key %u of %u is lost", (unsigned)k, (unsigned)i + 1);
		}
	}
	rig_close(m);
}

static void an_empty_plan_is_answered(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	static struct plan p;
	assert_int_equal(store_take(memory_store_base(m), &p, now_at(0)), STORE_DONE);
	rig_close(m);
}

static void a_key_twice_in_a_plan_is_stored_once(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	static struct plan p;
	p.n = 0;
	rig_plan_add(&p, &tokens, 1, 1);
	rig_plan_add(&p, &tokens, 1, 1);
	store_take(memory_store_base(m), &p, now_at(0));
	assert_int_equal(memory_store_stats(m).keys, 1);
	rig_close(m);
}

/* ---- who goes ---- */

static void a_new_key_takes_the_place_of_a_full_one(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(3, now_at(0));
	rig_take(m, &day_tokens, 1, 1, now_at(0));
	rig_take(m, &tokens, 2, 3, now_at(0)); /* at its limit; full again in 10 s */
	rig_take(m, &day_tokens, 3, 1, now_at(0));
	rig_take(m, &day_tokens, 4, 1, now_at(11 * USEC_PER_SEC));
	struct memory_stats s = memory_store_stats(m);
	assert_int_equal(s.keys, 3);
	assert_int_equal(s.expired, 1);
	assert_int_equal(s.evicted, 0);
	rig_close(m);
}

static void or_else_of_the_one_with_least_to_lose(void **state)
{
	(void)state;
	struct memory_entry e[3];
	struct memory_store *m = rig_store(3, now_at(0));
	rig_take(m, &day_tokens, 1, 20, now_at(0));
	rig_take(m, &day_tokens, 2, 10, now_at(0));
	rig_take(m, &day_tokens, 3, 30, now_at(0));
	rig_take(m, &day_tokens, 2, 15, now_at(0)); /* no longer the least: 1 is */
	rig_take(m, &day_tokens, 4, 99, now_at(0));
	size_t n = rig_dump(m, e, 3, now_at(0));
	struct key gone = rig_key(1, &day_tokens);
	assert_int_equal(n, 3);
	assert_null(rig_find(e, n, &gone));
	assert_int_equal(memory_store_stats(m).evicted, 1);
	rig_close(m);
}

/* Windows end together: a flood of those who ask once takes nobody's place who has used more. */
static void of_windows_that_end_together_the_least_used_goes(void **state)
{
	enum { KEYS = 40, EACH = 5, USED = 50, FLOOD = 4000 };
	static const enum algorithm algorithms[] = { ALGORITHM_FIXED_WINDOW,
		ALGORITHM_SLIDING_WINDOW };
	(void)state;
	for (unsigned a = 0; a < 2; a++) {
		struct rig_limit day;
		rig_limit(&day, algorithms[a], 100, USEC_PER_DAY, 100);
		struct memory_store *m = rig_store(KEYS, now_at(0));
		for (uint64_t id = 0; id < KEYS; id++)
			rig_take(m, &day, id, id % EACH ? 1 : USED, now_at(0));
		for (uint64_t id = KEYS; id < KEYS + FLOOD; id++)
			assert_true(rig_take(m, &day, id, 1, now_at(0)).admits);
		for (uint64_t id = 0; id < KEYS; id += EACH)
			assert_true(rig_take(m, &day, id, 0, now_at(0)).left == 100 - USED);
		assert_int_equal(memory_store_stats(m).evicted, FLOOD);
		rig_close(m);
	}
}

/* Five are looked at, and both of a sliding window's counters count. */
static void of_five_windows_the_least_used_in_all_goes(void **state)
{
	enum { KEYS = 5 };
	static const struct {
		const char *what;
		uint32_t current[KEYS], previous[KEYS];
		unsigned goes;
	} rows[] = {
		{ "the first", { 1, 2, 3, 4, 5 }, { 0 }, 0 },
		{ "the last", { 5, 4, 3, 2, 1 }, { 0 }, 4 },
		{ "one between, and not the last with less than the first", { 5, 4, 1, 3, 2 },
			{ 0 }, 2 },
		{ "one with less now, but more before, stays", { 1, 2, 3, 3, 3 }, { 9, 0 }, 1 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct memory_store *m = rig_store(KEYS, now_at(0));
		struct memory_entry e[KEYS];
		for (unsigned id = 0; id < KEYS; id++) {
			struct memory_entry in = { .key = rig_key(id, &sliding),
				.bucket = { .current = rows[i].current[id],
					.previous = rows[i].previous[id],
					.at = now_at(0).utc },
				.full_at = now_at(HOUR).utc,
				.open_at = now_at(0).utc };
			assert_true(memory_store_put(m, &in, now_at(0)));
		}
		rig_take(m, &tokens, KEYS, 1, now_at(0));
		struct key gone = rig_key(rows[i].goes, &sliding);
		if (rig_find(e, rig_dump(m, e, KEYS, now_at(0)), &gone))
			fail_msg("%s", rows[i].what);
		rig_close(m);
	}
}

/* Who was charged in the next window as well ends later, whatever the order still knows of him. */
static void of_two_windows_the_one_that_ends_sooner_goes(void **state)
{
	const struct now next = now_at(31 * USEC_PER_SEC);
	struct memory_entry e[2];

	(void)state;
	struct memory_store *m = rig_store(2, now_at(0));
	rig_take(m, &sliding, 1, 4, now_at(0));
	rig_take(m, &sliding, 2, 1, now_at(0));
	rig_take(m, &sliding, 2, 1, next);
	rig_take(m, &day_tokens, 3, 1, next);
	struct key gone = rig_key(1, &sliding);
	assert_null(rig_find(e, rig_dump(m, e, 2, next), &gone));
	rig_close(m);
}

/* But for one of the plan's own. */
static void of_two_windows_the_plans_own_stays(void **state)
{
	static struct plan p;
	struct memory_entry e[2];

	(void)state;
	struct memory_store *m = rig_store(2, now_at(0));
	rig_take(m, &sliding, 1, 4, now_at(0));
	rig_take(m, &sliding, 2, 1, now_at(0));
	p.n = 0;
	rig_plan_add(&p, &sliding, 2, 1);
	rig_plan_add(&p, &sliding, 3, 1);
	store_take(memory_store_base(m), &p, now_at(0));
	struct key gone = rig_key(1, &sliding);
	assert_null(rig_find(e, rig_dump(m, e, 2, now_at(0)), &gone));
	rig_close(m);
}

static void one_at_its_limit_goes_last(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(2, now_at(0));
	rig_take(m, &tokens, 1, 3, now_at(0)); /* the soonest full again, but at its limit */
	rig_take(m, &day_tokens, 2, 50, now_at(0));
	rig_take(m, &day_tokens, 3, 1, now_at(0));
	assert_false(rig_take(m, &tokens, 1, 1, now_at(0)).admits);
	assert_int_equal(memory_store_stats(m).evicted, 1);
	assert_int_equal(memory_store_stats(m).evicted_limited, 0);

	/* Only when there is no other: the one that opens first. */
	rig_take(m, &once, 4, 1, now_at(0));
	assert_int_equal(memory_store_stats(m).evicted_limited, 0);
	rig_take(m, &once, 5, 1, now_at(0));
	assert_int_equal(memory_store_stats(m).evicted_limited, 1);
	assert_true(rig_take(m, &tokens, 1, 0, now_at(0)).admits);
	assert_false(rig_take(m, &once, 4, 1, now_at(0)).admits);
	assert_false(rig_take(m, &once, 5, 1, now_at(0)).admits);
	rig_close(m);
}

/* Who has half a unit cannot ask for one: he is at his limit. */
static void less_than_a_unit_left_is_at_the_limit(void **state)
{
	const struct now then = now_at(5 * USEC_PER_SEC);

	(void)state;
	struct memory_store *m = rig_store(2, now_at(0));
	rig_take(m, &tokens, 1, 3, now_at(0));
	assert_true(rig_take(m, &tokens, 1, 1, then).left == 0.5); /* the soonest full again */
	rig_take(m, &day_tokens, 2, 50, then);
	rig_take(m, &day_tokens, 3, 1, then);
	assert_true(rig_take(m, &tokens, 1, 0, then).left == 0.5);
	assert_int_equal(memory_store_stats(m).evicted, 1);
	assert_int_equal(memory_store_stats(m).evicted_limited, 0);
	rig_close(m);
}

static void keys_of_one_plan_do_not_evict_each_other(void **state)
{
	(void)state;
	static struct plan p;
	struct memory_entry e[4];
	for (unsigned max = 1; max <= 4; max++) {
		struct memory_store *m = rig_store(max, now_at(0));
		rig_take(m, &day_tokens, 1, 1, now_at(0));
		p.n = 0;
		rig_plan_add(&p, &day_tokens, 1, 1); /* has the least to lose */
		rig_plan_add(&p, &day_tokens, 2, 2);
		rig_plan_add(&p, &tokens, 3, 1);
		rig_plan_add(&p, &fixed, 4, 1);
		store_take(memory_store_base(m), &p, now_at(0));
		size_t n = rig_dump(m, e, 4, now_at(0));
		assert_int_equal(n, max);
		for (unsigned i = 0; i < max; i++) {
			const struct memory_entry *found = rig_find(e, n, &p.take[i].key);
			assert_non_null(found);
			assert_memory_equal(&found->bucket, &p.take[i].verdict.state, 16);
			assert_true(p.take[i].verdict.admits);
		}
		rig_close(m);
	}
}

/* Keys that all come to one shard, which has room for some more than its share: the others have to
 * go, whatever room there is elsewhere, and nobody is denied for it. */
static void a_shard_has_its_own_end(void **state)
{
	enum { MAX = 2048, KEYS = 2000 };
	static struct plan p;

	(void)state;
	struct memory_store *m = rig_store(MAX, now_at(0));
	for (unsigned i = 0; i < KEYS; i++) {
		p.n = 0;
		rig_plan_add(&p, &day_tokens, i, 1);
		p.take[0].key.a = p.take[0].key.a << 6 >> 6;
		store_take(memory_store_base(m), &p, now_at(0));
		assert_true(p.take[0].verdict.admits);
	}
	struct memory_stats s = memory_store_stats(m);
	assert_int_equal(s.keys_max, MAX);
	assert_int_equal(s.keys + s.evicted, KEYS);
	assert_true(s.evicted > 0 && s.keys > MAX / 2);
	rig_close(m);
}

/* However many keys are wanted: there is memory for all of them, or no store. (In 32 bits 100
 * million take more bytes than there are, and a sum of these is small again.) */
static void there_is_room_for_all_or_there_is_none(void **state)
{
	static const uint64_t wanted[] = { 1000000, 50000000, 75000000, 100000000, 200000000,
		500000000, 1000000000 };
	struct hash_key key = { .bytes = { 1, 2, 3 } };

	(void)state;
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		struct memory_store *m = memory_store_new(wanted[i], &key, now_at(0));
		if (!m)
			continue;
		for (unsigned k = 0; k < 1000; k++)
			assert_true(rig_take(m, &day_tokens, k, 1, now_at(0)).admits);
		assert_int_equal(memory_store_stats(m).keys, 1000);
		rig_close(m);
	}
}

/* Where all places are the plan's own, the newcomer itself is who had to go. */
static void a_newcomer_without_a_place_is_counted_as_evicted(void **state)
{
	static struct plan p;

	(void)state;
	struct memory_store *m = rig_store(1, now_at(0));
	p.n = 0;
	rig_plan_add(&p, &day_tokens, 1, 1);
	rig_plan_add(&p, &day_tokens, 2, 1);
	rig_plan_add(&p, &once, 3, 1); /* at its limit by this */
	store_take(memory_store_base(m), &p, now_at(0));
	assert_int_equal(memory_store_stats(m).keys, 1);
	assert_int_equal(memory_store_stats(m).evicted, 2);
	assert_int_equal(memory_store_stats(m).evicted_limited, 1);
	rig_close(m);
}

static void a_flood_frees_no_client_at_its_limit(void **state)
{
	(void)state;
	static const uint64_t sizes[] = { 500, 2048, 100000 };
	for (unsigned k = 0; k < 3; k++) {
		uint64_t max = sizes[k], limited = max / 3;
		struct memory_store *m = rig_store(max, now_at(0));
		for (uint64_t i = 0; i < limited; i++)
			assert_true(rig_take(m, i & 1 ? &once : &fixed, i, i & 1 ? 1 : 2, now_at(0))
					    .admits);
		for (uint64_t i = 0; i < 3 * max; i++)
			assert_true(rig_take(m, &tokens, 1000000 + i, 1, now_at(i)).admits);
		for (uint64_t i = 0; i < limited; i++)
			assert_false(
				rig_take(m, i & 1 ? &once : &fixed, i, 1, now_at(3 * (usec_t)max))
					.admits);
		struct memory_stats s = memory_store_stats(m);
		assert_int_equal(s.evicted_limited, 0);
		assert_true(s.keys <= max);
		assert_int_equal(s.inserted, s.keys + s.evicted + s.expired);
		rig_close(m);
	}
}

/* All know of themselves less than is true, and have to be looked at: the newcomer is counted all
 * the same, from its first request on. */
static void an_order_that_is_out_of_date_leaves_no_newcomer_uncounted(void **state)
{
	(void)state;
	enum { KEYS = 1500 };
	for (unsigned limited = 0; limited < 2; limited++) {
		struct memory_store *m = rig_store(KEYS, now_at(0));
		for (unsigned round = 0; round < 2; round++)
			for (uint64_t i = 0; i < KEYS; i++)
				rig_take(m, &day_tokens, i, 40, now_at(0));

		if (limited) {
			assert_true(rig_take(m, &once, KEYS, 1, now_at(0)).admits);
			assert_false(rig_take(m, &once, KEYS, 1, now_at(0)).admits);
		} else {
			assert_true(rig_take(m, &tokens, KEYS, 1, now_at(0)).left == 2);
			assert_true(rig_take(m, &tokens, KEYS, 1, now_at(0)).left == 1);
		}
		struct memory_stats s = memory_store_stats(m);
		assert_int_equal(s.keys, KEYS);
		assert_int_equal(s.evicted_limited, 0);
		assert_int_equal(s.inserted, s.keys + s.evicted + s.expired);
		rig_close(m);
	}
}

/* ---- random operations, each checked against what is allowed ---- */

enum { MODEL_MAX = 1000 };

struct watch {
	struct memory_entry before[MODEL_MAX + 1], after[MODEL_MAX + 1];
	size_t before_n, after_n;
};

static usec_t line_now(const struct key *k, struct now now)
{
	return k->b & 1 ? now.utc : now.steady;
}

static bool is_full(const struct memory_entry *e, struct now now)
{
	return e->full_at <= line_now(&e->key, now);
}

static bool is_limited(const struct memory_entry *e, struct now now)
{
	return e->open_at > line_now(&e->key, now);
}

static usec_t left(usec_t at, const struct memory_entry *e, struct now now)
{
	return at - line_now(&e->key, now);
}

static void check_victim(const struct watch *w, const struct memory_entry *victim, struct now now)
{
	if (is_full(victim, now))
		return;
	for (size_t i = 0; i < w->before_n; i++) {
		const struct memory_entry *e = &w->before[i];
		assert_false(is_full(e, now));
		if (!is_limited(victim, now) && !is_limited(e, now))
			assert_true(left(victim->full_at, victim, now) <= left(e->full_at, e, now));
		if (is_limited(victim, now)) {
			assert_true(is_limited(e, now));
			assert_true(left(victim->open_at, victim, now) <= left(e->open_at, e, now));
		}
	}
}

static void check_take(struct memory_store *m, struct watch *w, const struct rig_limit *r,
	uint64_t id, int64_t cost, struct now now, uint64_t max)
{
	struct key key = rig_key(id, r);
	const struct memory_entry *was = rig_find(w->before, w->before_n, &key);
	const struct bucket *stored = was ? &was->bucket : NULL;
	static struct plan model;
	model.n = 0;
	rig_plan_add(&model, r, id, cost);
	plan_charge(&model, &stored, now);

	struct verdict v = rig_take(m, r, id, cost, now);
	assert_memory_equal(&v.state, &model.take[0].verdict.state, sizeof v.state);
	assert_int_equal(v.admits, model.take[0].verdict.admits);
	w->after_n = rig_dump(m, w->after, MODEL_MAX + 1, now);
	assert_true(w->after_n <= max);

	const struct memory_entry *is = rig_find(w->after, w->after_n, &key);
	if (!v.charged) {
		assert_int_equal(w->after_n, w->before_n);
		assert_true(!was == !is);
		if (was) /* not even brought up to date */
			assert_memory_equal(was, is, sizeof *was);
	} else {
		usec_t keep = limit_keep_for(&r->limit, &v.state, now);
		assert_non_null(is);
		assert_memory_equal(&is->bucket, &v.state, sizeof v.state);
		assert_true(left(is->full_at, is, now) >= keep); /* never forgotten early */
		if (!was)
			assert_true(left(is->full_at, is, now) < keep + TICK);
	}

	/* What else has changed: nothing, or one has gone for the newcomer. */
	size_t gone = 0, same = 0;
	for (size_t i = 0; i < w->before_n; i++) {
		const struct memory_entry *e = &w->before[i];
		const struct memory_entry *now_is = rig_find(w->after, w->after_n, &e->key);
		if (!now_is) {
			check_victim(w, e, now);
			gone++;
		} else if (e != was) {
			assert_memory_equal(e, now_is, sizeof *e);
			same++;
		}
	}
	assert_true(gone <= 1);
	if (gone)
		assert_true(!was && is && w->before_n == max);
	assert_int_equal(w->after_n, same + (is != NULL));

	memcpy(w->before, w->after, w->after_n * sizeof *w->after);
	w->before_n = w->after_n;
}

static void check_sweep(struct memory_store *m, struct watch *w, struct now now)
{
	size_t full = 0;
	for (size_t i = 0; i < w->before_n; i++)
		full += is_full(&w->before[i], now);
	assert_int_equal(memory_store_sweep(m, now, 64), full);
	w->after_n = rig_dump(m, w->after, MODEL_MAX + 1, now);
	assert_int_equal(w->after_n, w->before_n - full);
	for (size_t i = 0; i < w->after_n; i++)
		assert_false(is_full(&w->after[i], now));
	memcpy(w->before, w->after, w->after_n * sizeof *w->after);
	w->before_n = w->after_n;
}

static void random_operations(uint64_t max, unsigned ops, bool steps, uint64_t seed)
{
	static struct watch w;
	static const struct rig_limit *const limits[] = { &tokens, &day_tokens, &fixed, &sliding,
		&once };
	struct now now = now_at(0);
	struct memory_store *m = rig_store(max, now);
	w.before_n = 0;
	for (unsigned i = 0; i < ops; i++) {
		uint64_t r = rig_random(&seed);
		usec_t passed = (usec_t)(r >> 20 & 63) * TICK; /* up to 2 s; some keys lapse */
		if ((r & 255) == 0)
			passed += 600 * (usec_t)TICK * 10;
		now.steady += passed;
		now.utc += passed;
		if (steps && (r >> 8 & 31) == 0)
			now.utc += ((usec_t)(r >> 40 & 4095) - 2048) * 8 * TICK;
		if ((r >> 13 & 63) == 0) {
			check_sweep(m, &w, now);
			continue;
		}
		uint64_t id = rig_random(&seed) % (2 * max + 1);
		/* Half of all requests go to a few busy ones. */
		if (r >> 30 & 1)
			id %= max / 4 + 1;
		const struct rig_limit *limit = limits[id % 5];
		check_take(m, &w, limit, id, (int64_t)(r >> 32 & 3), now, max);
	}
	rig_close(m);
}

static void random_operations_keep_to_the_contract(void **state)
{
	(void)state;
	static const struct {
		uint64_t max;
		unsigned ops;
	} rows[] = { { 1, 4000 }, { 2, 4000 }, { 3, 6000 }, { 10, 10000 }, { 100, 10000 },
		{ 1000, 4000 } };
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
		random_operations(rows[i].max, rows[i].ops, false, 7 + i);
}

static void they_do_while_the_clock_steps(void **state)
{
	(void)state;
	random_operations(3, 6000, true, 21);
	random_operations(10, 10000, true, 22);
	random_operations(100, 10000, true, 23);
}

/* Plans of several keys on a table of several shards: what was charged is there, whatever else. */
static void random_plans_are_kept(void **state)
{
	(void)state;
	static struct plan p;
	static struct memory_entry e[4096];
	static const struct rig_limit *const limits[] = { &tokens, &fixed, &day_tokens };
	uint64_t seed = 99;
	struct now now = now_at(0);
	struct memory_store *m = rig_store(4096, now);
	for (unsigned i = 0; i < 20000; i++) {
		p.n = 0;
		unsigned n = 1 + rig_random(&seed) % 3;
		for (unsigned k = 0; k < n; k++)
			rig_plan_add(&p, limits[k], 3 * (rig_random(&seed) % 4000) + k, 1);
		now.steady += TICK;
		now.utc += TICK;
		store_take(memory_store_base(m), &p, now);
		if (i % 64)
			continue;
		size_t got = rig_dump(m, e, 4096, now);
		for (unsigned k = 0; k < n; k++) {
			const struct memory_entry *found = rig_find(e, got, &p.take[k].key);
			if (!p.take[k].verdict.charged)
				continue;
			assert_non_null(found);
			assert_memory_equal(&found->bucket, &p.take[k].verdict.state, 16);
		}
	}
	struct memory_stats s = memory_store_stats(m);
	assert_int_equal(s.inserted, s.keys + s.evicted + s.expired);
	rig_close(m);
}

/* ---- the keeper's work, and time ---- */

static void a_sweep_frees_what_is_full(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(100000, now_at(0));
	for (uint64_t i = 0; i < 50000; i++)
		rig_take(m, i & 1 ? &tokens : &fixed, i, 1, now_at(0));
	for (uint64_t i = 50000; i < 60000; i++)
		rig_take(m, &day_tokens, i, 1, now_at(0));
	assert_int_equal(memory_store_sweep(m, now_at(0), 256), 0);
	/* Charged again, these are full later than the table's order knows. */
	for (uint64_t i = 1; i < 2000; i += 2)
		rig_take(m, &tokens, i, 2, now_at(USEC_PER_SEC));
	assert_int_equal(memory_store_sweep(m, now_at(8 * USEC_PER_SEC), 256), 24000);
	assert_int_equal(memory_store_sweep(m, now_at(800 * USEC_PER_SEC), 256), 26000);
	assert_int_equal(memory_store_stats(m).keys, 10000);
	assert_int_equal(memory_store_stats(m).expired, 50000);
	assert_int_equal(memory_store_sweep(m, now_at(HOUR), 256), 10000);
	rig_close(m);
}

static void stretched_entries_are_kept_longer(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(3000, now_at(0));
	for (uint64_t i = 0; i < 2000; i++)
		rig_take(m, &tokens, i, 3, now_at(0)); /* full in 10 s */
	rig_take(m, &sliding, 5000, 1, now_at(0));     /* windows end when they end */
	memory_store_stretch(m, 1, now_at(0));
	memory_store_stretch(m, 0.5, now_at(0));
	memory_store_stretch(m, 3, now_at(USEC_PER_SEC)); /* 9 s left become 27 */
	assert_int_equal(memory_store_sweep(m, now_at(27 * USEC_PER_SEC), 256), 0);
	assert_int_equal(memory_store_sweep(m, now_at(29 * USEC_PER_SEC), 256), 2000);
	assert_int_equal(memory_store_sweep(m, now_at(60 * USEC_PER_SEC), 256), 1);
	for (uint64_t i = 0; i < 2000; i++)
		rig_take(m, &tokens, i, 3, now_at(100 * USEC_PER_SEC));
	memory_store_stretch(m, 1.5, now_at(100 * USEC_PER_SEC)); /* 10 s left become 15 */
	assert_int_equal(memory_store_sweep(m, now_at(114 * USEC_PER_SEC), 256), 0);
	assert_int_equal(memory_store_sweep(m, now_at(117 * USEC_PER_SEC), 256), 2000);
	rig_close(m);
}

/* To the tick, rounded up; and who is at his limit is so for that much longer. */
static void what_is_stretched_is_never_short(void **state)
{
	static const struct {
		int64_t full, open, full_then, open_then; /* ticks from now on */
	} rows[] = { { 100, 0, 150, 0 }, { 101, 0, 152, 0 }, { 100, 50, 150, 75 },
		{ 101, 101, 152, 152 } };
	const struct now now = now_at(0);

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct memory_store *m = rig_store(1, now);
		struct memory_entry e, in = { .key = rig_key(1, &tokens),
			.full_at = now.steady + rows[i].full * TICK,
			.open_at = now.steady + rows[i].open * TICK };
		assert_true(memory_store_put(m, &in, now));
		memory_store_stretch(m, 1.5, now);
		assert_int_equal(rig_dump(m, &e, 1, now), 1);
		int64_t full = (e.full_at - now.steady) / TICK,
			open = (e.open_at - now.steady) / TICK;
		assert_in_range(full, rows[i].full_then, rows[i].full_then + 1);
		assert_in_range(open, rows[i].open_then, rows[i].open_then + (rows[i].open > 0));
		rig_close(m);
	}
}

static void a_stretch_has_its_bounds(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	rig_take(m, &tokens, 1, 1, now_at(0));
	memory_store_stretch(m, 1e300, now_at(0));
	memory_store_stretch(m, (double)INFINITY, now_at(0));
	memory_store_stretch(m, (double)NAN, now_at(0));
	assert_int_equal(memory_store_sweep(m, now_at(700 * USEC_PER_DAY), 256), 0);
	assert_int_equal(memory_store_sweep(m, now_at(741 * USEC_PER_DAY), 256), 1);
	rig_close(m);
}

static void the_longest_window_is_kept(void **state)
{
	(void)state;
	static struct rig_limit year;
	rig_limit(&year, ALGORITHM_SLIDING_WINDOW, 5, 366 * USEC_PER_DAY, 5);
	struct memory_store *m = rig_store(10, now_at(0));
	struct verdict v = rig_take(m, &year, 1, 5, now_at(0));
	usec_t keep = limit_keep_for(&year.limit, &v.state, now_at(0));
	for (usec_t t = 0; t < keep; t += 30 * USEC_PER_DAY)
		assert_int_equal(memory_store_sweep(m, now_at(t), 256), 0);
	assert_int_equal(memory_store_sweep(m, now_at(keep + TICK), 256), 1);
	rig_close(m);
}

/* A clock that was far off and is put right: nothing charged is forgotten early, and nothing stays
 * for ever. */
static void leaps_of_utc(void **state)
{
	(void)state;
	static const int64_t days[] = { -20000, -1000, -400, -31, -2, 2, 400, 800, 1000, 20000 };
	for (unsigned i = 0; i < sizeof days / sizeof *days; i++) {
		struct memory_store *m = rig_store(10, now_at(0));
		rig_take(m, &fixed, 1, 2, now_at(0));
		rig_take(m, &once, 2, 1, now_at(0));
		struct now now = now_at(USEC_PER_SEC);
		now.utc += days[i] * USEC_PER_DAY;
		size_t freed = memory_store_sweep(m, now, 256);
		assert_int_equal(freed, days[i] > 0 ? 1 : 0); /* the window is over, or is not */
		assert_false(rig_take(m, &once, 2, 1, now).admits);
		rig_take(m, &fixed, 3, 2, now);
		assert_false(rig_take(m, &fixed, 3, 1, now).admits);
		assert_int_equal(memory_store_sweep(m, now, 256), 0);
		now.steady += 32 * USEC_PER_DAY;
		now.utc += 32 * USEC_PER_DAY;
		memory_store_sweep(m, now, 256);
		assert_int_equal(memory_store_stats(m).keys, 0);
		rig_close(m);
	}
}

/* When UTC went back by more than a minute, the first sweep moves windows of the future to where
 * their clock was anchored: then they end like any other, and are not there again when UTC comes
 * to them. */
static void a_sweep_anchors_windows_of_the_future(void **state)
{
	(void)state;
	static const int64_t hours[] = { 1, 24 * 20, 24 * 40 };
	for (unsigned i = 0; i < sizeof hours / sizeof *hours; i++) {
		struct memory_store *m = rig_store(10, now_at(0));
		struct memory_entry e[4];
		rig_take(m, &fixed, 1, 2, now_at(0));
		rig_take(m, &fixed, 2, 2, now_at(0));
		rig_take(m, &sliding, 3, 5, now_at(0));
		rig_take(m, &once, 4, 1, now_at(0));
		usec_t step = hours[i] * HOUR, at = 0;
		struct now now = now_at(0), anchor;
		now.utc -= step;
		anchor = now;
		assert_false(rig_take(m, &fixed, 1, 0, now).admits);
		for (; at <= 60 * USEC_PER_SEC; at += 20 * USEC_PER_SEC) {
			now.steady = anchor.steady + at;
			now.utc = anchor.utc + at;
			now.anchor_age = at;
			memory_store_sweep(m, now, 64);
			struct verdict v = rig_take(m, &fixed, 1, 0, now);
			usec_t start, end;
			window_bounds(&fixed.limit.quota.window, anchor.utc, &start, &end);
			assert_true(v.admits == (now.utc >= end));
			if (now.utc < end) {
				assert_int_equal(rig_dump(m, e, 4, now), 4);
				const struct key k = rig_key(2, &fixed);
				assert_int_equal(rig_find(e, 4, &k)->bucket.at,
					at ? anchor.utc
					   : now_at(0).utc / (60 * USEC_PER_SEC) * 60 *
							USEC_PER_SEC);
				assert_true(rig_find(e, 4, &k)->full_at >= end);
				assert_true(!at ||
					    rig_find(e, 4, &k)->full_at <= end + 60 * USEC_PER_SEC);
			}
		}
		assert_true(rig_take(m, &sliding, 3, 0, now).admits);
		now.steady += USEC_PER_SEC * 60;
		now.utc += USEC_PER_SEC * 60;
		now.anchor_age = at;
		memory_store_sweep(m, now, 64);
		assert_int_equal(memory_store_stats(m).keys, 1); /* tokens are not of UTC */
		assert_false(rig_take(m, &once, 4, 0, now).admits);
		rig_close(m);
	}
}

/* When UTC went back, who is open still is: he goes, and not one at his limit, be that of before or
 * of now. */
static void who_is_open_goes_first_after_a_step_back(void **state)
{
	(void)state;
	static const int64_t hours[] = { 1, 24 * 2, 24 * 40 };
	static struct rig_limit day, hour;
	rig_limit(&day, ALGORITHM_FIXED_WINDOW, 5, USEC_PER_DAY, 5);
	rig_limit(&hour, ALGORITHM_FIXED_WINDOW, 5, HOUR, 5);
	for (unsigned i = 0; i < sizeof hours / sizeof *hours; i++) {
		/* An hour and a bit into a day, in which the agent runs for an hour before. */
		struct now now = now_at(0);
		now.utc += 2 * USEC_PER_DAY - now.utc % USEC_PER_DAY + 5 * USEC_PER_SEC;
		now.anchor_age = now.utc; /* it never went back */
		struct memory_store *m = rig_store(11, now);
		now.steady += HOUR;
		now.utc += HOUR;
		now.anchor_age += HOUR;
		memory_store_sweep(m, now, 64);
		for (uint64_t id = 0; id < 10; id++)
			assert_true(rig_take(m, &day, id, 1, now).admits);
		assert_true(rig_take(m, &hour, 10, 5, now).admits);
		now.steady += USEC_PER_SEC;
		now.utc += USEC_PER_SEC - hours[i] * HOUR;
		now.anchor_age = USEC_PER_SEC / 2;
		memory_store_sweep(m, now, 64);
		rig_take(m, &fixed, 100, 2, now);
		for (uint64_t id = 200; id < 240; id++)
			assert_true(rig_take(m, &day, id, 1, now).admits);
		assert_false(rig_take(m, &fixed, 100, 1, now).admits);
		assert_false(rig_take(m, &hour, 10, 1, now).admits);
		assert_int_equal(memory_store_stats(m).evicted_limited, 0);
		rig_close(m);
	}
}

/* Where UTC never went back there is nothing to anchor. */
static void a_sweep_without_a_step_changes_nothing(void **state)
{
	(void)state;
	struct memory_entry before[3], after[3];
	struct now now = now_at(0);
	now.anchor_age = now.utc;
	struct memory_store *m = rig_store(10, now);
	rig_take(m, &fixed, 1, 1, now);
	rig_take(m, &fixed, 2, 2, now);
	rig_take(m, &sliding, 3, 1, now);
	assert_int_equal(rig_dump(m, before, 3, now), 3);
	for (unsigned i = 0; i < 3; i++) {
		now.steady += USEC_PER_SEC;
		now.utc += USEC_PER_SEC;
		now.anchor_age += USEC_PER_SEC;
		memory_store_sweep(m, now, 64);
	}
	assert_int_equal(rig_dump(m, after, 3, now), 3);
	assert_memory_equal(before, after, sizeof before);
	rig_close(m);
}

/* A second step beyond what ticks bear: what is kept goes by the line of the first. */
static void a_window_is_kept_no_longer_after_a_second_step_back(void **state)
{
	enum { STEPS = 3 };
	(void)state;
	struct now now = now_at(0);
	now.anchor_age = now.utc;
	struct memory_store *m = rig_store(10, now);
	for (unsigned i = 0; i < STEPS; i++) {
		const struct key k = rig_key(i, &fixed);
		struct memory_entry e[STEPS];
		rig_take(m, &fixed, i, 2, now);
		now.steady += USEC_PER_SEC;
		now.utc += USEC_PER_SEC - 40 * USEC_PER_DAY;
		now.anchor_age = USEC_PER_SEC / 2;
		memory_store_sweep(m, now, 64);
		const struct memory_entry *is = rig_find(e, rig_dump(m, e, STEPS, now), &k);
		assert_non_null(is);
		assert_in_range(is->full_at - now.utc, 1, 121 * USEC_PER_SEC);
		assert_in_range(is->open_at - now.utc, 1, is->full_at - now.utc);
	}
	rig_close(m);
}

/* A step forward ends windows at once, also where a newcomer looks for room. */
static void a_step_forward_is_followed_by_the_order(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(10, now_at(0));
	for (uint64_t i = 0; i < 5; i++)
		rig_take(m, &tokens, i, 1, now_at(0));
	for (uint64_t i = 5; i < 10; i++)
		rig_take(m, &fixed, i, 1, now_at(0));
	struct now now = now_at(USEC_PER_SEC);
	now.utc += HOUR;
	rig_take(m, &day_tokens, 11, 1, now);
	assert_int_equal(memory_store_stats(m).expired, 1);
	assert_int_equal(memory_store_stats(m).evicted, 0);
	assert_int_equal(memory_store_sweep(m, now, 256), 4);
	rig_close(m);
}

static void what_is_put_back_is_there(void **state)
{
	(void)state;
	struct memory_entry e[3];
	struct memory_store *m = rig_store(2, now_at(0));
	struct memory_entry in = { .key = rig_key(1, &day_tokens) };
	in.bucket.used = 4;
	in.bucket.at = now_at(0).steady;
	in.full_at = in.bucket.at;
	in.open_at = in.bucket.at;
	assert_false(memory_store_put(m, &in, now_at(0))); /* full already */
	in.full_at += HOUR;
	assert_true(memory_store_put(m, &in, now_at(0)));
	in.key = rig_key(2, &day_tokens);
	in.full_at += HOUR;
	assert_true(memory_store_put(m, &in, now_at(0)));

	/* No room: those with most to lose stay, whichever came first. */
	in.key = rig_key(3, &day_tokens);
	in.full_at -= HOUR / 2;
	assert_true(memory_store_put(m, &in, now_at(0)));
	in.key = rig_key(4, &day_tokens);
	in.full_at -= HOUR / 4 * 3;
	assert_true(memory_store_put(m, &in, now_at(0)));
	struct key two = rig_key(2, &day_tokens), three = rig_key(3, &day_tokens);
	assert_int_equal(rig_dump(m, e, 3, now_at(0)), 2);
	assert_non_null(rig_find(e, 2, &two));
	assert_non_null(rig_find(e, 2, &three));

	/* At its limit it stays even with less time to go. */
	in.key = rig_key(5, &day_tokens);
	in.open_at = in.full_at;
	assert_true(memory_store_put(m, &in, now_at(0)));
	assert_int_equal(rig_dump(m, e, 3, now_at(0)), 2);
	assert_non_null(rig_find(e, 2, &in.key));
	assert_non_null(rig_find(e, 2, &two));
	assert_int_equal(memory_store_stats(m).evicted, 3);
	rig_close(m);

	/* Also where there is no other, and who wants the place is not at his. */
	m = rig_store(1, now_at(0));
	assert_true(memory_store_put(m, &in, now_at(0)));
	in.key = two;
	in.open_at = in.bucket.at;
	in.full_at += HOUR;
	assert_true(memory_store_put(m, &in, now_at(0)));
	in.key = rig_key(5, &day_tokens);
	assert_int_equal(rig_dump(m, e, 3, now_at(0)), 1);
	assert_non_null(rig_find(e, 1, &in.key));
	assert_int_equal(memory_store_stats(m).evicted_limited, 0);

	/* Nor one at his limit who would be open sooner; he is counted as such. */
	in.key = rig_key(6, &day_tokens);
	in.open_at = in.full_at = in.bucket.at + USEC_PER_SEC;
	assert_true(memory_store_put(m, &in, now_at(0)));
	assert_int_equal(rig_dump(m, e, 3, now_at(0)), 1);
	assert_null(rig_find(e, 1, &in.key));
	assert_int_equal(memory_store_stats(m).evicted_limited, 1);
	rig_close(m);
}

static void what_is_put_back_twice_is_as_the_later_one_says(void **state)
{
	(void)state;
	struct memory_entry e;
	struct memory_store *m = rig_store(10, now_at(0));
	struct memory_entry in = { .key = rig_key(1, &day_tokens),
		.bucket = { .used = 4, .at = now_at(0).steady },
		.full_at = now_at(HOUR).steady,
		.open_at = now_at(0).steady };
	assert_true(memory_store_put(m, &in, now_at(0)));
	in.bucket.used = 7;
	in.full_at += HOUR;
	assert_true(memory_store_put(m, &in, now_at(0)));
	assert_int_equal(rig_dump(m, &e, 1, now_at(0)), 1);
	assert_true(e.bucket.used == 7);
	assert_true(e.full_at >= in.full_at);
	rig_close(m);
}

/* As they do where the one lives on UTC and the other on steady time, in any order. */
static void on_both_lines_those_with_most_to_lose_stay(void **state)
{
	static const struct {
		const char *what;
		const struct rig_limit *limit[2];
		usec_t life[2];
		uint32_t used[2]; /* of windows */
		unsigned stays;
	} rows[] = {
		{ "a window of which as much was used", { &fixed, &fixed }, { 30, 30 }, { 5, 5 },
			0 },
		{ "a window of which more was used", { &fixed, &fixed }, { 30, 30 }, { 5, 6 }, 1 },
		{ "a window that ends sooner", { &fixed, &fixed }, { 30, 10 }, { 0 }, 0 },
		{ "a window that ends later", { &fixed, &fixed }, { 30, 60 }, { 0 }, 1 },
		{ "a window, full sooner than tokens", { &day_tokens, &fixed }, { 30, 10 }, { 0 },
			0 },
		{ "a window, full later than tokens", { &day_tokens, &fixed }, { 30, 60 }, { 0 },
			1 },
		{ "tokens, full sooner than a window", { &fixed, &day_tokens }, { 30, 10 }, { 0 },
			0 },
		{ "tokens, full later than a window", { &fixed, &day_tokens }, { 30, 60 }, { 0 },
			1 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct memory_store *m = rig_store(1, now_at(0));
		struct memory_entry e[2], in[2];
		for (unsigned k = 0; k < 2; k++) {
			bool is_window = rows[i].limit[k] == &fixed;
			usec_t at = is_window ? now_at(0).utc : now_at(0).steady;
			in[k] = (struct memory_entry){ .key = rig_key(k, rows[i].limit[k]),
				.bucket.at = at,
				.full_at = at + rows[i].life[k] * USEC_PER_SEC,
				.open_at = at };
			if (is_window)
				in[k].bucket.current = rows[i].used[k];
			assert_true(memory_store_put(m, &in[k], now_at(0)));
		}
		assert_int_equal(rig_dump(m, e, 2, now_at(0)), 1);
		if (!rig_find(e, 1, &in[rows[i].stays].key))
			fail_msg("%s", rows[i].what);
		rig_close(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(charges_are_kept),
		cmocka_unit_test(what_is_not_charged_is_not_stored),
		cmocka_unit_test(a_denial_a_moment_before_the_last_charge_is_not_stored),
		cmocka_unit_test(an_erased_counter_is_as_one_never_seen),
		cmocka_unit_test(keys_are_found_as_the_index_grows),
		cmocka_unit_test(an_empty_plan_is_answered),
		cmocka_unit_test(a_key_twice_in_a_plan_is_stored_once),
		cmocka_unit_test(a_new_key_takes_the_place_of_a_full_one),
		cmocka_unit_test(or_else_of_the_one_with_least_to_lose),
		cmocka_unit_test(of_windows_that_end_together_the_least_used_goes),
		cmocka_unit_test(of_five_windows_the_least_used_in_all_goes),
		cmocka_unit_test(of_two_windows_the_one_that_ends_sooner_goes),
		cmocka_unit_test(of_two_windows_the_plans_own_stays),
		cmocka_unit_test(one_at_its_limit_goes_last),
		cmocka_unit_test(less_than_a_unit_left_is_at_the_limit),
		cmocka_unit_test(keys_of_one_plan_do_not_evict_each_other),
		cmocka_unit_test(a_shard_has_its_own_end),
		cmocka_unit_test(there_is_room_for_all_or_there_is_none),
		cmocka_unit_test(a_newcomer_without_a_place_is_counted_as_evicted),
		cmocka_unit_test(a_flood_frees_no_client_at_its_limit),
		cmocka_unit_test(an_order_that_is_out_of_date_leaves_no_newcomer_uncounted),
		cmocka_unit_test(random_operations_keep_to_the_contract),
		cmocka_unit_test(they_do_while_the_clock_steps),
		cmocka_unit_test(random_plans_are_kept),
		cmocka_unit_test(a_sweep_frees_what_is_full),
		cmocka_unit_test(stretched_entries_are_kept_longer),
		cmocka_unit_test(what_is_stretched_is_never_short),
		cmocka_unit_test(a_stretch_has_its_bounds),
		cmocka_unit_test(the_longest_window_is_kept),
		cmocka_unit_test(leaps_of_utc),
		cmocka_unit_test(a_sweep_anchors_windows_of_the_future),
		cmocka_unit_test(who_is_open_goes_first_after_a_step_back),
		cmocka_unit_test(a_sweep_without_a_step_changes_nothing),
		cmocka_unit_test(a_window_is_kept_no_longer_after_a_second_step_back),
		cmocka_unit_test(a_step_forward_is_followed_by_the_order),
		cmocka_unit_test(what_is_put_back_is_there),
		cmocka_unit_test(what_is_put_back_twice_is_as_the_later_one_says),
		cmocka_unit_test(on_both_lines_those_with_most_to_lose_stay),
	};
	return cmocka_run_group_tests_name("store/memory", tests, setup, NULL);
}
