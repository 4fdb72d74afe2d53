/* One call of the script, without a Redis: what is sent, and what is made of any reply. What the
 * script makes of it is test/redis'. */
#include "rig.h"

#include "../base/guard.h"

#include "store/redis_call.h"
#include "store/redis_script.h"

#include <math.h>

#define SEC USEC_PER_SEC
/* Mon 2026-01-05T00:00:00Z */
#define NOW INT64_C(1767571200000000)

static struct rig_limit tokens, fixed, sliding, shadow;
static struct redis_call call;
static struct plan plan[REDIS_CALL_PLANS + 1];
static struct redis_args sent;
static const char *const *const argv = sent.argv;
static const size_t *const bytes = sent.bytes;
static unsigned argc;

/* This machine's own bytes, which are little-endian. */
struct __attribute__((packed)) reply {
	usec_t now;
	struct __attribute__((packed)) {
		struct bucket bucket;
		uint32_t fresh, stale, until;
	} key[4];
};
#define REPLY(keys) (sizeof(usec_t) + (keys) * (size_t)REDIS_VALUE_BYTES)
_Static_assert(sizeof(struct reply) == REPLY(4), "as the script sends it");

static int setup(void **state)
{
	(void)state;
	rig_limit(&tokens, ALGORITHM_TOKEN_BUCKET, 10, 100 * SEC, 20);
	rig_limit(&fixed, ALGORITHM_FIXED_WINDOW, 10, 60 * SEC, 10);
	rig_limit(&sliding, ALGORITHM_SLIDING_WINDOW, 10, 60 * SEC, 10);
	rig_limit(&shadow, ALGORITHM_FIXED_WINDOW, 5, 60 * SEC, 5);
	shadow.rule.mode = MODE_SHADOW;
	shadow.rule.count_denied = true;
	redis_call_clear(&call);
	memset(plan, 0, sizeof plan);
	return 0;
}

static void take(struct plan *p, const struct rig_limit *r, uint64_t key, int64_t cost)
{
	assert_true(p->n < PLAN_MAX);
	p->take[p->n++] = (struct take){ .limit = &r->limit, .key = { key, key }, .cost = cost };
}

static void args(const char *prefix)
{
	redis_call_args(&call, &sent, prefix, "SHA", NULL);
	argc = sent.n;
}

static void assert_arg(unsigned i, const char *text)
{
	assert_true(i < argc);
	assert_int_equal(bytes[i], strlen(text));
	assert_memory_equal(argv[i], text, bytes[i]);
}

static void test_a_key_is_base64url_of_its_16_bytes(void **state)
{
	(void)state;
	static const struct {
		struct key key;
		const char *text;
	} rows[] = {
		{ { 0, 0 }, "rl:2:{AAA}AAAAAAAAAAAAAAAAAAAAAA" },
		{ { 0x0706050403020100, 0x0f0e0d0c0b0a0908 }, "rl:2:{AAE}AAECAwQFBgcICQoLDA0ODw" },
		{ { UINT64_MAX, UINT64_MAX }, "rl:2:{___}_____________________w" },
		{ { 0xfbfbfbfbfbfbfbfb, 0xefefefefefefefef }, "rl:2:{-_v}-_v7-_v7-_vv7-_v7-_v7w" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		setup(NULL);
		take(&plan[0], &tokens, 0, 1);
		plan[0].take[0].key = rows[i].key;
		assert_true(redis_call_add(&call, &plan[0]));
		args("rl:");
		assert_arg(3, rows[i].text);
	}
}

static void test_what_is_sent(void **state)
{
	(void)state;
	static const uint8_t takes[] = {
		0, 0, 1 + 32, 3, 0, 0, 0,         /* the first of its rule; costs 3 */
		1, 1, 1 + 2 + 32, 0, 0, 0, 0,     /* and the last of its request; asks */
		1, 1, 1 + 32, 255, 255, 255, 255, /* once more, at more than any capacity */
		2, 2, 1 + 2 + 32, 0, 0, 0, 128,   /* */
	};
	uint8_t limit[REDIS_LIMIT_BYTES] = { ALGORITHM_TOKEN_BUCKET, WINDOW_LENGTH, 1, 0, 10, 0, 0,
		0, 20, 0, 0, 0 };
	const double reals[] = { 100e6, tokens.limit.slowest_interval,
		tokens.limit.slowest_refill };

	take(&plan[0], &tokens, 7, 3);
	take(&plan[0], &shadow, 8, 0);
	take(&plan[1], &shadow, 8, INT64_MAX);
	take(&plan[1], &sliding, 9, INT64_C(1) << 31);
	assert_true(redis_call_add(&call, &plan[0]));
	assert_true(redis_call_add(&call, &plan[1]));
	args("");
	assert_int_equal(argc, 10);
	assert_arg(0, "EVALSHA");
	assert_arg(1, "SHA");
	assert_arg(2, "3");
	for (unsigned i = 3; i < 6; i++)
		assert_int_equal(bytes[i], 29);
	assert_int_equal(bytes[6], 3 * REDIS_LIMIT_BYTES);
	memcpy(limit + 12, reals, sizeof reals);
	assert_memory_equal(argv[6], limit, sizeof limit);
	assert_int_equal(argv[6][REDIS_LIMIT_BYTES + 2], 0); /* a shadow rule does not enforce */
	assert_int_equal(argv[6][REDIS_LIMIT_BYTES + 3], 1);
	assert_int_equal(bytes[7], sizeof takes);
	assert_memory_equal(argv[7], takes, sizeof takes);
	assert_arg(8, ""); /* they do not cost 1 */
	assert_arg(9, "");

	/* Once more, for a Redis that did not know the script; and by a clock of one's own. */
	const usec_t now = -5;
	redis_call_args(&call, &sent, "abc:", "SHA", &now);
	argc = sent.n;
	assert_int_equal(argc, 10);
	assert_int_equal(bytes[3], 33);
	assert_memory_equal(argv[3], "abc:2:{", 7);
	assert_memory_equal(argv[7], takes, sizeof takes);
	assert_arg(9, "-5");
}

static void test_what_costs_1_is_sent_in_sum_too(void **state)
{
	(void)state;
	static const uint8_t takes[] = { 0, 0, 1, 1, 1, 1 + 2, 0, 0, 1 + 2, 2, 1, 1 + 2 };
	static const uint8_t sums[] = { 0, 2, 1, 1, 1, 1 };
	struct rig_limit tier = tokens;

	take(&plan[0], &tokens, 7, 1);
	take(&plan[0], &fixed, 8, 1);
	take(&plan[1], &tokens, 7, 1);
	take(&plan[2], &fixed, 9, 1);
	for (unsigned i = 0; i < 3; i++)
		assert_true(redis_call_add(&call, &plan[i]));
	args("");
	assert_int_equal(bytes[7], sizeof takes);
	assert_memory_equal(argv[7], takes, sizeof takes);
	assert_int_equal(bytes[8], sizeof sums);
	assert_memory_equal(argv[8], sums, sizeof sums);

	/* Not where it would not say all: a key is read by two limits, */
	take(&plan[3], &tier, 7, 1);
	assert_true(redis_call_add(&call, &plan[3]));
	args("");
	assert_arg(8, "");
	/* or a take costs something else, */
	assert_ptr_equal(redis_call_take_last(&call), &plan[3]);
	plan[2].take[0].cost = 0;
	args("");
	assert_arg(8, "");
	/* or has to be done before the next one. */
	plan[2].take[0].cost = 1;
	assert_true(redis_call_add_after(&call, redis_after_new(&plan[3])));
	args("");
	assert_arg(8, "");
	redis_call_clear(&call);
}

/* What comes after waits for another call where this one has no room. */
static void test_what_comes_after_has_its_bound(void **state)
{
	(void)state;
	struct plan one = { 0 }, two = { 0 };
	unsigned n = 0;
	take(&one, &tokens, 7, 1);
	take(&two, &tokens, 7, 1);
	take(&two, &fixed, 8, 1);
	while (n < REDIS_CALL_TAKES - 1 && redis_call_add_after(&call, redis_after_new(&one)))
		n++;
	assert_int_equal(n, REDIS_CALL_TAKES - 1);
	struct redis_after *after = redis_after_new(&two);
	assert_false(redis_call_add_after(&call, after));
	redis_after_free(after);
	assert_true(redis_call_add_after(&call, redis_after_new(&one)));
	assert_false(redis_call_ask(&call, &(struct ledger_ask){ 0 }));
	redis_call_clear(&call);
}

static void test_what_comes_after(void **state)
{
	(void)state;
	struct plan refund = { 0 }, charge = { .closed = true };
	take(&refund, &tokens, 7, 3);
	take(&refund, &fixed, 8, 2);
	refund.take[0].verdict.state = (struct bucket){ .used = 4.5, .at = NOW };
	refund.take[1].verdict.state = (struct bucket){ .current = 5, .at = NOW + 1 };
	take(&charge, &shadow, 9, 1);
	take(&plan[0], &tokens, 7, 1);
	assert_true(redis_call_add(&call, &plan[0]));
	assert_true(redis_call_add_after(&call, redis_after_new(&refund)));
	assert_true(redis_call_add_after(&call, redis_after_new(&charge)));
	/* It has its own copy of all. */
	memset(&refund, 0xff, sizeof refund);
	shadow.rule.count_denied = false;
	args("rl:");
	static const uint8_t takes[] = { 0, 0, 1 + 2,                           /* */
		0, 1, 1 + 8 + 32, 3, 0, 0, 0, 1, 2, 1 + 2 + 8 + 32, 2, 0, 0, 0, /* a refund */
		2, 3, 1 + 2 + 16 };
	assert_int_equal(argc, 11);
	assert_int_equal(bytes[6], 4 * REDIS_LIMIT_BYTES);
	assert_int_equal(argv[6][3 * REDIS_LIMIT_BYTES + 3], 1);
	assert_int_equal(bytes[7], sizeof takes);
	assert_memory_equal(argv[7], takes, sizeof takes);
	assert_int_equal(bytes[10], 2 * REDIS_MORE_BYTES);
	usec_t when[4];
	memcpy(when, argv[10], sizeof when);
	assert_int_equal(when[0], NOW);
	assert_int_equal(when[2], NOW + 1);
	struct reply reply = { .now = NOW }; /* of three keys */
	assert_false(redis_call_read(&call, &reply, REPLY(2)));
	assert_false(redis_call_read(&call, &reply, REPLY(4)));
	assert_true(redis_call_read(&call, &reply, REPLY(3)));
	assert_true(plan[0].take[0].verdict.charged);

	/* Whoever has gone before it was sent is left out of it. */
	call.plan[0] = NULL;
	args("rl:");
	assert_int_equal(bytes[7], sizeof takes - REDIS_TAKE_BYTES);
	assert_true(redis_call_read(&call, &reply, REPLY(3)));
	redis_call_clear(&call);
	assert_int_equal(call.after_n, 0);
}

static void test_two_limits_of_a_rule_are_one_rule(void **state)
{
	(void)state;
	struct rig_limit second = tokens;
	second.limit.rule = &tokens.rule;
	take(&plan[0], &tokens, 1, 1);
	take(&plan[0], &second, 2, 1);
	take(&plan[0], &fixed, 3, 1);
	assert_true(redis_call_add(&call, &plan[0]));
	args("");
	assert_int_equal(argv[7][2], 1);
	assert_int_equal(argv[7][REDIS_TAKE_BYTES + 2], 0);
	assert_int_equal(argv[7][2 * REDIS_TAKE_BYTES + 2], 1 + 2);
}

static void test_a_call_holds_64_plans(void **state)
{
	(void)state;
	for (unsigned i = 0; i < REDIS_CALL_PLANS; i++) {
		take(&plan[i], &fixed, 1, 1);
		assert_true(redis_call_add(&call, &plan[i]));
	}
	assert_false(redis_call_add(&call, &plan[REDIS_CALL_PLANS]));
	assert_int_equal(call.plan_n, REDIS_CALL_PLANS);
	args("");
	assert_int_equal(sent.key_n, 1);
	assert_int_equal(argc, 8);
	assert_int_equal(bytes[4], REDIS_LIMIT_BYTES);
	assert_int_equal(bytes[5], REDIS_CALL_PLANS * REDIS_TAKE_BYTES);
	assert_int_equal(bytes[6], REDIS_SUM_BYTES);
	assert_memory_equal(argv[6], "\0\100", 2);
}

static void test_a_call_holds_256_takes(void **state)
{
	(void)state;
	char prefix[REDIS_PREFIX_MAX + 1];
	struct rig_limit each[REDIS_CALL_TAKES];
	unsigned n = 0;

	for (unsigned p = 0; p < REDIS_CALL_TAKES / PLAN_MAX; p++) {
		for (unsigned i = 0; i < PLAN_MAX; i++, n++) {
			each[n] = fixed;
			each[n].limit.rule = &each[n].rule;
			/* All of them want the same place in a hash table. */
			take(&plan[p], &each[n], UINT64_C(0x100000000) * n, 1);
		}
		assert_true(redis_call_add(&call, &plan[p]));
	}
	take(&plan[9], &fixed, 1, 1);
	assert_false(redis_call_add(&call, &plan[9]));
	assert_true(redis_call_add(&call, &plan[10])); /* takes nothing */
	assert_int_equal(call.take_n, REDIS_CALL_TAKES);
	memset(prefix, 'x', REDIS_PREFIX_MAX);
	prefix[REDIS_PREFIX_MAX] = '\0';
	args(prefix);
	assert_int_equal(argc, REDIS_CALL_ARGS - 1); /* nothing comes after */
	assert_arg(2, "256");
	for (unsigned i = 0; i < REDIS_CALL_TAKES; i++) {
		assert_int_equal(bytes[3 + i], REDIS_KEY_MAX);
		assert_int_equal((uint8_t)argv[3 + 257][i * REDIS_TAKE_BYTES], i);
		assert_int_equal((uint8_t)argv[3 + 257][i * REDIS_TAKE_BYTES + 1], i);
		for (unsigned k = 0; k < i; k++)
			assert_memory_not_equal(argv[3 + i], argv[3 + k], REDIS_KEY_MAX);
	}
}

static void test_a_call_without_takes_asks_the_time(void **state)
{
	(void)state;
	usec_t now = NOW;
	args("rl:");
	assert_int_equal(argc, 7);
	assert_arg(2, "0");
	for (unsigned i = 3; i < 7; i++)
		assert_int_equal(bytes[i], 0);
	assert_true(redis_call_read(&call, &now, 8));
	assert_true(redis_call_add(&call, &plan[0])); /* takes nothing */
	assert_true(redis_call_read(&call, &now, 8));
	assert_int_equal(plan[0].now.utc, NOW);
	assert_false(plan[0].denied);
}

/* --- replies --- */

static struct reply three_takes(void)
{
	take(&plan[0], &tokens, 1, 3);
	take(&plan[0], &fixed, 2, 1);
	take(&plan[1], &sliding, 3, 1);
	assert_true(redis_call_add(&call, &plan[0]));
	assert_true(redis_call_add(&call, &plan[1]));
	args("rl:");
	struct reply r = { .now = NOW };
	r.key[0].bucket.used = 19.5;
	r.key[0].bucket.at = NOW - 10 * SEC;
	r.key[1].bucket.current = 4;
	r.key[1].bucket.at = NOW;
	return r;
}

enum { THREE = REPLY(3) };

static void test_a_reply_is_judged_by_its_buckets_and_its_clock(void **state)
{
	(void)state;
	struct reply r = three_takes();
	assert_true(redis_call_read(&call, &r, THREE));
	const struct verdict *v = &plan[0].take[0].verdict;
	assert_int_equal(plan[0].now.steady, NOW);
	assert_int_equal(plan[0].now.utc, NOW);
	assert_int_equal(plan[0].now.held, 0);
	assert_true(plan[0].denied); /* 18.5 + 3 of 20 */
	assert_false(v->admits);
	assert_int_equal(v->retry_after, 15 * SEC);
	assert_true(plan[0].take[1].verdict.admits);
	assert_int_equal(plan[0].take[1].verdict.state.current, 4);
	assert_false(plan[1].denied);
	assert_true(plan[1].take[0].verdict.charged); /* never seen */
	assert_int_equal(plan[1].take[0].verdict.state.current, 1);
}

static void test_a_request_finds_what_those_before_it_were_charged(void **state)
{
	(void)state;
	struct reply r = { .now = NOW };

	take(&plan[0], &tokens, 1, 3);
	take(&plan[0], &fixed, 2, 7);
	take(&plan[1], &fixed, 2, 4); /* is denied, and charged nothing */
	take(&plan[1], &tokens, 1, 10);
	take(&plan[2], &tokens, 1, 1);
	take(&plan[2], &fixed, 2, 2);
	for (unsigned i = 0; i < 3; i++)
		assert_true(redis_call_add(&call, &plan[i]));
	args("rl:");
	r.key[0].bucket = (struct bucket){ .used = 5, .at = NOW };
	assert_true(redis_call_read(&call, &r, REPLY(2)));
	assert_false(plan[0].denied);
	assert_true(plan[1].denied);
	assert_false(plan[1].take[0].verdict.admits);
	assert_false(plan[2].denied);
	assert_true(plan[2].take[0].verdict.state.used == 9);
	assert_int_equal(plan[2].take[1].verdict.state.current, 9);
}

static void test_blocks_that_are_out_are_used(void **state)
{
	(void)state;
	struct reply r = { .now = NOW };

	for (unsigned i = 0; i < 2; i++) {
		take(&plan[i], &tokens, 1, 2);
		assert_true(redis_call_add(&call, &plan[i]));
	}
	args("rl:");
	/* 20 s would have given back 2; but 10 units are out, of this turn. */
	r.key[0].bucket = (struct bucket){ .used = 10, .at = NOW - SEC };
	r.key[0].fresh = 10;
	assert_true(redis_call_read(&call, &r, REPLY(1)));
	assert_true(plan[0].take[0].verdict.state.used == 12);
	assert_true(plan[1].take[0].verdict.state.used == 14);
}

static void test_plans_whose_askers_have_gone_are_left_out(void **state)
{
	(void)state;
	struct reply r = three_takes();
	struct plan before[2] = { plan[0], plan[1] };
	call.plan[0] = call.plan[1] = NULL;
	assert_true(redis_call_read(&call, &r, THREE));
	assert_memory_equal(before, plan, sizeof before);
	assert_int_equal(call.now.utc, NOW);
}

static void test_a_reply_of_any_other_length_is_refused(void **state)
{
	(void)state;
	struct guard g = guard_new(2 * THREE);
	struct reply r = three_takes();
	struct plan before[2] = { plan[0], plan[1] };
	uint8_t longer[2 * THREE] = { 0 };

	memcpy(longer, &r, THREE);
	for (size_t n = 0; n <= sizeof longer; n++)
		if (n != THREE)
			assert_false(redis_call_read(&call, guard_copy(&g, longer, n), n));
	assert_memory_equal(before, plan, sizeof before);
	assert_true(redis_call_read(&call, guard_copy(&g, longer, THREE), THREE));
	guard_free(&g);
}

static void test_a_reply_that_the_script_would_not_send_is_refused(void **state)
{
	(void)state;
	static const double levels[] = { NAN, INFINITY, -INFINITY, -1, 1e16, -1e-300 };
	static const usec_t instants[] = { INT64_MIN, INT64_MAX, REDIS_INSTANT_MAX + 1,
		-REDIS_INSTANT_MAX - 1 };
	const struct reply good = three_takes();
	struct plan before[2] = { plan[0], plan[1] };

	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
		struct reply r = good;
		r.key[0].bucket.used = levels[i];
		assert_false(redis_call_read(&call, &r, THREE));
	}
	for (size_t i = 0; i < sizeof instants / sizeof *instants; i++) {
		struct reply r = good;
		r.now = instants[i];
		assert_false(redis_call_read(&call, &r, THREE));
		for (unsigned k = 0; k < 3; k++) {
			r = good;
			r.key[k].bucket.at = instants[i];
			assert_false(redis_call_read(&call, &r, THREE));
		}
	}
	for (unsigned k = 1; k < 3; k++) { /* of a window, nothing is ever out */
		struct reply r = good;
		r.key[k].stale = 1;
		assert_false(redis_call_read(&call, &r, THREE));
	}
	assert_memory_equal(before, plan, sizeof before);
	assert_true(redis_call_read(&call, &good, THREE));
}

static void test_any_bytes_are_refused_or_make_verdicts_within_their_limits(void **state)
{
	(void)state;
	struct guard g = guard_new(THREE);
	uint64_t seed = 1;
	unsigned taken = 0;

	(void)three_takes();
	for (unsigned i = 0; i < 200000; i++) {
		struct reply r;
		uint64_t word[1 + 4 * 2];
		for (unsigned k = 0; k < sizeof word / sizeof *word; k++) {
			word[k] = rig_random(&seed);
			/* Else none would be an instant. */
			if (i % 2)
				word[k] = (uint64_t)((int64_t)word[k] >> rig_random(&seed) % 64);
		}
		memset(&r, 0, sizeof r);
		r.now = (usec_t)word[0];
		for (unsigned k = 0; k < 3; k++) {
			memcpy(&r.key[k].bucket, &word[1 + 2 * k], sizeof r.key[k].bucket);
			r.key[k].until = (uint32_t)word[8];
		}
		if (i % 4 == 0)
			r.key[0].fresh = (uint32_t)word[7];
		if (!redis_call_read(&call, guard_copy(&g, &r, THREE), THREE))
			continue;
		taken++;
		for (unsigned k = 0; k < 3; k++) {
			const struct take *t = k < 2 ? &plan[0].take[k] : &plan[1].take[0];
			double capacity = (double)t->limit->quota.capacity;
			assert_true(t->verdict.left >= 0 && t->verdict.left <= capacity);
			assert_true(t->verdict.retry_after >= 0);
			assert_false(t->verdict.oversize);
		}
	}
	assert_true(taken > 1000);
	guard_free(&g);
}

/* Line by line, but for what says nothing to Redis; and small enough for one that wants a password
 * first. */
static void test_the_script_is_the_file(void **state)
{
	(void)state;
	char line[512];
	const char *at = redis_script;
	FILE *f = fopen(SOURCE_DIR "/agent/store/redis_script.lua", "rb");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		const char *want = line + strspn(line, "\t ");
		if (strncmp(want, "--", 2) == 0)
			want = "\n";
		assert_memory_equal(at, want, strlen(want));
		at += strlen(want);
	}
	fclose(f);
	assert_string_equal(at, "");
	assert_int_equal(at - redis_script, redis_script_bytes);
	assert_in_range(redis_script_bytes, 1, 16384);
	assert_int_equal(strspn(redis_script_sha1, "0123456789abcdef"), 40);
	assert_int_equal(strlen(redis_script_sha1), 40);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup(test, setup)
	const struct CMUnitTest tests[] = {
		T(test_a_key_is_base64url_of_its_16_bytes),
		T(test_what_is_sent),
		T(test_what_costs_1_is_sent_in_sum_too),
		T(test_what_comes_after_has_its_bound),
		T(test_what_comes_after),
		T(test_two_limits_of_a_rule_are_one_rule),
		T(test_a_call_holds_64_plans),
		T(test_a_call_holds_256_takes),
		T(test_a_call_without_takes_asks_the_time),
		T(test_a_reply_is_judged_by_its_buckets_and_its_clock),
		T(test_a_request_finds_what_those_before_it_were_charged),
		T(test_blocks_that_are_out_are_used),
		T(test_plans_whose_askers_have_gone_are_left_out),
		T(test_a_reply_of_any_other_length_is_refused),
		T(test_a_reply_that_the_script_would_not_send_is_refused),
		T(test_any_bytes_are_refused_or_make_verdicts_within_their_limits),
		T(test_the_script_is_the_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
