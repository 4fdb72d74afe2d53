#include "limit/penalty.h"
/* What a request is charged by: tiers, descriptors, keys. Policies are built by hand. */
#include "limit/plan.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static char scratch[65536];
static const struct hash_key test_key = { .bytes = "0123456789abcde" };

static struct limits one_limit(enum algorithm algorithm, int64_t n, usec_t window)
{
	struct limits l = { .limit = calloc(1, sizeof(struct limit)), .n = 1 };
	l.limit->quota = (struct quota){ algorithm, { WINDOW_LENGTH, window }, n, n };
	return l;
}

/* One rule that counts by `per` (alternatives with |), 10 a minute for everyone. */
static struct policy *policy_of(const char *name, const char *const *per, unsigned n)
{
	struct policy *p = policy_new();
	struct rule *r = calloc(1, sizeof *r);
	char why[256];

	p->ipv4_prefix = 32;
	p->ipv6_prefix = 64;
	p->secret = 1ull << FIELD_KEY;
	p->default_tier = (unsigned)policy_tier_add(p, STR("anonymous"));
	snprintf(r->name, sizeof r->name, "%s", name);
	for (unsigned i = 0; i < n; i++) {
		const char *z = per[i];
		while (*z) {
			size_t length = strcspn(z, "|");
			r->per[i].slot[r->per[i].n++] = (uint8_t)layout_add(
				&p->layout, (struct str){ z, length });
			z += length + (z[length] == '|');
		}
	}
	r->per_n = (uint8_t)n;
	r->warn_at = 1;
	r->cost_slot = FIELD_COST;
	r->tier = calloc(p->tier_n, sizeof *r->tier);
	r->tier[0] = one_limit(ALGORITHM_TOKEN_BUCKET, 10, 60 * USEC_PER_SEC);
	r->other = one_limit(ALGORITHM_TOKEN_BUCKET, 10, 60 * USEC_PER_SEC);
	p->rule = r;
	p->rule_n = 1;
	assert_true(policy_seal(p, &test_key, why, sizeof why));
	return p;
}

/* "ip=10.0.0.1 user=alice" */
static struct plan plan_of(const struct policy *p, const char *fields)
{
	struct view v;
	struct plan plan;
	char text[256];

	snprintf(text, sizeof text, "%s", fields);
	view_init(&v, &p->layout, STR("check"), scratch, sizeof scratch);
	for (char *save, *f = strtok_r(text, " ", &save); f; f = strtok_r(NULL, " ", &save)) {
		size_t name = strcspn(f, "=");
		int slot = layout_find_arg(&p->layout, (struct str){ f, name });
		assert_true(slot >= 0);
		view_set_text(&v, (unsigned)slot, str_of(f + name + 1));
	}
	view_finish(&v);
	policy_plan(p, &v, &plan);
	return plan;
}

static bool same_key(const struct plan *a, const struct plan *b)
{
	assert_int_equal(a->n, 1);
	assert_int_equal(b->n, 1);
	return a->take[0].key.a == b->take[0].key.a && a->take[0].key.b == b->take[0].key.b;
}

static void test_what_makes_a_counter_the_same(void **state)
{
	static const char *const per[] = { "key|user|ip" };
	static const char *const per_two[] = { "user", "host" };
	struct policy *p = policy_of("api", per, 1);
	static const struct {
		const char *what, *a, *b;
		bool same;
	} rows[] = {
		{ "the same user", "user=alice", "user=alice", true },
		{ "another user", "user=alice", "user=bob", false },
		{ "a user and a key of one value", "user=alice", "key=alice", false },
		{ "the first alternative counts", "key=k user=alice", "key=k user=bob", true },
		{ "what is no part of it does not count", "user=alice path=/a",
			"user=alice path=/b", true },
		{ "the tier is no part of it", "user=alice tier=x", "user=alice tier=y", true },
		{ "a mapped address is the IPv4 one", "ip=10.0.0.1", "ip=::ffff:10.0.0.1", true },
		{ "one /64", "ip=2001:db8::1", "ip=2001:db8::ffff", true },
		{ "another /64", "ip=2001:db8::1", "ip=2001:db8:0:1::1", false },
		{ "an address written as user is none", "user=10.0.0.1", "ip=10.0.0.1", false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct plan a = plan_of(p, rows[i].a), b = plan_of(p, rows[i].b);
		if (same_key(&a, &b) != rows[i].same)
			fail_msg("%s", rows[i].what);
	}
	policy_free(p);

	p = policy_of("api", per_two, 2);
	struct plan a = plan_of(p, "user=ab host=c"), b = plan_of(p, "user=a host=bc");
	assert_false(same_key(&a, &b));
	policy_free(p);
}

/* The fields of a descriptor are a set: how they are listed is no part of it, which value is
 * whose is. */
static void test_the_order_of_fields_is_no_part_of_it(void **state)
{
	static const struct {
		const char *per[3];
		unsigned n;
	} rules[] = {
		{ { "user", "host", "method" }, 3 },
		{ { "method", "user", "host" }, 3 },
		{ { "host", "method", "user" }, 3 },
		{ { "key|user", "method", "host" }, 3 },
		{ { "host", "method|ip", "key|user|ip" }, 3 },
		{ { "key|host", "key|user", "method" }, 3 },
	};
	enum { RULES = sizeof rules / sizeof *rules };
	struct plan as_first, other;
	char text[64];
	(void)state;

	for (unsigned i = 0; i < RULES; i++) {
		struct policy *p = policy_of("api", rules[i].per, rules[i].n);
		struct plan plan = plan_of(p, "user=a host=b method=c");
		if (i == 0)
			as_first = plan;
		if (!same_key(&plan, &as_first))
			fail_msg("rule %u counts apart from the first", i);
		other = plan_of(p, "user=b host=a method=c");
		assert_false(same_key(&plan, &other));
		other = plan_of(p, "user=c host=b method=a");
		assert_false(same_key(&plan, &other));
		if (i == 1) { /* told in the order of the file */
			text[take_scope(p, plan.take, text, sizeof text - 1)] = '\0';
			assert_string_equal(text, "method+user+host");
		}
		policy_free(p);
	}

	/* Two of one name, of which neither takes the other away. */
	struct policy *p = policy_of("api", (const char *[]){ "key|user", "user|key" }, 2);
	struct plan user = plan_of(p, "user=a"), key = plan_of(p, "key=a");
	struct plan both = plan_of(p, "user=a key=a");
	assert_false(same_key(&user, &key));
	assert_false(same_key(&user, &both));
	assert_false(same_key(&key, &both));
	policy_free(p);
}

/* A client chooses values: one that reads like what the names are hashed by must not cancel them
 * out. */
static void test_a_value_that_looks_like_a_name(void **state)
{
	static const char *const per[] = { "key|user" };
	struct policy *p = policy_of("api", per, 1);
	static const struct {
		const char *key, *user;
	} rows[] = {
		{ "per key", "per user" },
		{ "per user", "per key" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct view v;
		struct plan a, b;
		view_init(&v, &p->layout, STR("check"), scratch, sizeof scratch);
		view_set_text(&v, FIELD_KEY, str_of(rows[i].key));
		policy_plan(p, &v, &a);
		view_init(&v, &p->layout, STR("check"), scratch, sizeof scratch);
		view_set_text(&v, FIELD_USER, str_of(rows[i].user));
		policy_plan(p, &v, &b);
		assert_false(same_key(&a, &b));
	}
	policy_free(p);
}

static void test_name_algorithm_and_window_are_part_of_it(void **state)
{
	static const char *const per[] = { "ip" };
	struct policy *p = policy_of("api", per, 1), *q = policy_of("web", per, 1);
	struct plan a = plan_of(p, "ip=10.0.0.1"), b = plan_of(q, "ip=10.0.0.1");
	char why[256];

	(void)state;
	assert_false(same_key(&a, &b));
	policy_free(q);

	q = policy_of("api", per, 1);
	q->rule->other.limit->quota.units = 99;
	q->rule->tier[0].limit->quota.units = 99; /* another quota: the same counter */
	q->rule->mode = MODE_SHADOW;
	assert_true(policy_seal(q, &test_key, why, sizeof why));
	b = plan_of(q, "ip=10.0.0.1");
	assert_true(same_key(&a, &b));
	q->rule->tier[0].limit->quota.window.length = USEC_PER_DAY;
	assert_true(policy_seal(q, &test_key, why, sizeof why));
	b = plan_of(q, "ip=10.0.0.1");
	assert_false(same_key(&a, &b));
	q->rule->tier[0].limit->quota.window.length = 60 * USEC_PER_SEC;
	q->rule->tier[0].limit->quota.algorithm = ALGORITHM_SLIDING_WINDOW;
	assert_true(policy_seal(q, &test_key, why, sizeof why));
	b = plan_of(q, "ip=10.0.0.1");
	assert_false(same_key(&a, &b));
	assert_int_equal(b.take[0].key.b & 1, 1); /* windows live on UTC */
	assert_int_equal(a.take[0].key.b & 1, 0);
	policy_free(p);
	policy_free(q);
}

/* Counters outlive an upgrade, in the state file and in Redis, and old agents and new ones share
 * them: a key that is made in another way gives everybody a full bucket. */
static void test_a_key_is_made_as_ever(void **state)
{
	static const struct {
		const char *per[2];
		unsigned n;
		const char *fields;
		struct key key;
	} rows[] = {
		{ { "" }, 0, "ip=10.0.0.1", { 0x11e3de761251a864, 0x600fb0d2a96389ac } },
		{ { "ip" }, 1, "ip=10.0.0.1", { 0x005ab956ccce383e, 0x841c7f49226ca0a0 } },
		{ { "ip" }, 1, "ip=2001:db8::1", { 0xa10707cfdd92f86e, 0x7ec16b601c9934ce } },
		{ { "key|user|ip" }, 1, "user=alice", { 0xd29166d78ff43e7a, 0x284005d79471dcfe } },
		{ { "user" }, 1,
			"user=a-name-that-is-longer-than-what-is-put-in-line-of-a-descriptor",
			{ 0xc42161daeb09a362, 0xc43cdc54579d5314 } },
		{ { "user", "host" }, 2, "user=alice host=example.org",
			{ 0xf41f7177b74276b7, 0x31aef26f5614404a } },
		{ { "user", "host" }, 2,
			"user=123456789-123456789-123456789-123456789-12345678 host=h",
			{ 0x0ca68456e9b0ed23, 0x60f40b74eb339780 } },
		{ { "user", "host" }, 2,
			"user=123456789-123456789-123456789-123456789-123456789 host=h",
			{ 0xb498cd31ca385aa4, 0x963d4a5c7561e36a } },
		{ { "host", "key|user" }, 2, "user=alice host=example.org",
			{ 0xf41f7177b74276b7, 0x31aef26f5614404a } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct policy *p = policy_of("api", rows[i].per, rows[i].n);
		struct plan plan = plan_of(p, rows[i].fields);
		const struct key *k = &plan.take[0].key;
		assert_int_equal(plan.n, 1);
		if (k->a != rows[i].key.a || k->b != rows[i].key.b)
			fail_msg("%s: 0x%016" PRIx64 ", 0x%016" PRIx64, rows[i].fields, k->a, k->b);
		policy_free(p);
	}
}

static void test_long_values_are_told_apart(void **state)
{
	static const char *const per[] = { "user" };
	struct policy *p = policy_of("api", per, 1);
	char a[256] = "user=", b[256] = "user=";

	(void)state;
	for (int n = 5; n < 200; n++) {
		a[n] = b[n] = 'x';
		a[n - 1] = n > 5 ? 'x' : '=';
		b[n - 1] = n > 5 ? 'y' : '=';
		if (n == 5)
			continue;
		struct plan pa = plan_of(p, a), pb = plan_of(p, b);
		assert_false(same_key(&pa, &pb));
		b[n - 1] = 'x';
	}
	policy_free(p);
}

static void test_absent_fields_and_scopes(void **state)
{
	static const char *const per[] = { "key|user|ip", "method" };
	struct policy *p = policy_of("api", per, 2);
	char text[128];

	(void)state;
	assert_int_equal(plan_of(p, "ip=10.0.0.1").n, 0);
	assert_int_equal(plan_of(p, "method=GET").n, 0);
	assert_int_equal(plan_of(p, "ip=nobody method=GET").n, 0);
	struct plan plan = plan_of(p, "user=alice ip=10.0.0.1 method=GET");
	assert_int_equal(plan.n, 1);
	text[take_scope(p, &plan.take[0], text, sizeof text - 1)] = '\0';
	assert_string_equal(text, "user+method");
	assert_int_equal(take_scope(p, &plan.take[0], text, 4), 4);
	policy_free(p);

	p = policy_of("all", NULL, 0);
	plan = plan_of(p, "ip=10.0.0.1");
	assert_int_equal(plan.n, 1);
	text[take_scope(p, &plan.take[0], text, sizeof text - 1)] = '\0';
	assert_string_equal(text, "global");
	policy_free(p);
}

static void test_secrets_are_shown_hashed(void **state)
{
	static const char *const per[] = { "key", "ip" };
	struct policy *p = policy_of("api", per, 2);
	struct plan plan;
	struct view v;
	char text[128];

	(void)state;
	view_init(&v, &p->layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&v, FIELD_KEY, STR("hunter2"));
	view_set_text(&v, FIELD_IP, STR("2001:db8::1"));
	policy_plan(p, &v, &plan);
	text[take_describe(p, &plan.take[0], &v, text, sizeof text - 1)] = '\0';
	/* printf %s hunter2 | sha256sum */
	assert_string_equal(text, "key=sha256:f52fbd32b2b3+ip=2001:db8::");
	policy_free(p);
}

static void test_tiers(void **state)
{
	static const char *const per[] = { "ip" };
	struct policy *p = policy_of("api", per, 1);
	static const struct {
		const char *what, *fields, *tier;
	} rows[] = {
		{ "nobody is anonymous", "ip=1.2.3.4", "anonymous" },
		{ "the message says it", "ip=1.2.3.4 tier=gold key=k1", "gold" },
		{ "an empty one is none", "ip=1.2.3.4 tier= key=k1", "silver" },
		{ "by key", "ip=1.2.3.4 key=k1 user=alice", "silver" },
		{ "by user", "ip=1.2.3.4 key=unknown user=alice", "bronze" },
		{ "by the hash of a key", "ip=1.2.3.4 key=hunter2", "gold" },
		{ "the hash itself is no key",
			"ip=1.2.3.4 key=sha256:"
			"f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7",
			"anonymous" },
		{ "nor is it a user's", "ip=1.2.3.4 user=hunter2", "anonymous" },
		{ "a tier that no rule knows keeps its name", "ip=1.2.3.4 tier=platinum",
			"platinum" },
		{ "but for what would split a line", "ip=1.2.3.4 tier=pl\r\n\x7f\xc3\xa4tinum",
			"pl___\xc3\xa4tinum" },
	};
	(void)state;
	for (size_t i = 0; i < p->tier_n; i++)
		free(p->rule->tier[i].limit);
	free(p->rule->tier);
	unsigned gold = (unsigned)policy_tier_add(p, STR("gold"));
	unsigned silver = (unsigned)policy_tier_add(p, STR("silver"));
	unsigned bronze = (unsigned)policy_tier_add(p, STR("bronze"));
	assert_int_equal(policy_tier_add(p, STR("gold")), gold);
	p->rule->tier = calloc(p->tier_n, sizeof *p->rule->tier);
	p->tier_map = tier_map_new();
	assert_true(tier_map_add(p->tier_map, STR("k1"), silver));
	assert_true(tier_map_add(p->tier_map, STR("k1"), gold)); /* the first counts */
	assert_true(tier_map_add(p->tier_map, STR("alice"), bronze));
	assert_true(tier_map_add(p->tier_map,
		STR("sha256:f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7"),
		gold));
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct plan plan = plan_of(p, rows[i].fields);
		if (strcmp(plan.tier, rows[i].tier) != 0)
			fail_msg("%s: %s", rows[i].what, plan.tier);
		/* listed tiers have no limits here; others have the default's */
		assert_int_equal(plan.n, strncmp(plan.tier, "pl", 2) == 0);
	}
	policy_free(p);
}

static void test_rules_see_the_tier_that_was_found(void **state)
{
	struct policy *p = policy_of("all", NULL, 0);
	struct match *m = match_new();
	char why[256];

	(void)state;
	assert_true(match_add(m, FIELD_TIER, STR("anonymous"), why, sizeof why));
	assert_true(match_seal(m));
	p->rule->match = m;
	assert_int_equal(plan_of(p, "user=alice").n, 1);
	assert_int_equal(plan_of(p, "user=alice tier=gold").n, 0);
	policy_free(p);
}

static void test_order(void **state)
{
	struct policy *p = policy_of("all", NULL, 0);
	char why[256];

	(void)state;
	p->block = calloc(1, sizeof *p->block);
	p->block[0] = match_new();
	p->block_n = 1;
	p->allow = calloc(1, sizeof *p->allow);
	p->allow[0] = match_new();
	p->allow_n = 1;
	assert_true(match_add(p->block[0], FIELD_USER, STR("mallory"), why, sizeof why));
	assert_true(match_add(p->allow[0], FIELD_USER, STR("m*"), why, sizeof why));
	assert_int_equal(plan_of(p, "user=mallory").outcome, OUTCOME_BLOCKED);
	assert_int_equal(plan_of(p, "user=monitor").outcome, OUTCOME_BYPASSED);
	assert_int_equal(plan_of(p, "user=alice").outcome, OUTCOME_LIMITS);
	assert_int_equal(plan_of(p, "user=alice").n, 1);
	assert_int_equal(plan_of(p, "user=monitor").n, 0);
	p->enabled = false;
	assert_int_equal(plan_of(p, "user=mallory").outcome, OUTCOME_DISABLED);
	policy_free(p);
}

static void test_the_slowest_refill_of_all_tiers(void **state)
{
	static const char *const per[] = { "ip" };
	struct policy *p = policy_of("api", per, 1);
	struct bucket state_after = { .used = 4 };
	struct now now = { 0 };
	char why[256];

	(void)state;
	p->rule->other.limit->quota.units = 1;
	p->rule->other.limit->quota.capacity = 2;
	assert_true(policy_seal(p, &test_key, why, sizeof why));
	const struct limit *fast = p->rule->tier[0].limit;
	/* 4 used are 24 s at 10 a minute; but the other tier, of 2 at 1 a minute, owes 2 for 120 s
	 */
	assert_int_equal(limit_keep_for(fast, &state_after, now), 120 * USEC_PER_SEC);
	assert_int_equal(limit_open_after(fast, &state_after, now), 0);
	state_after.used = 10;
	assert_int_equal(limit_open_after(fast, &state_after, now), 6 * USEC_PER_SEC);
	policy_free(p);
}

/* In state files and in Redis there are bans of earlier releases, and of others beside this one. */
static void test_what_a_ban_is_known_by_stays_the_same(void **state)
{
	static const char text[] = "ban 0 0 60000000 api";
	static const char *const per[] = { "ip" };
	struct policy *p = policy_of("api", per, 1);
	char why[256];

	(void)state;
	p->rule->penalty = calloc(1, sizeof *p->rule->penalty);
	p->rule->penalty->after = (struct quota){ .algorithm = ALGORITHM_FIXED_WINDOW,
		.window = { WINDOW_FROM_FIRST, 60 * USEC_PER_SEC },
		.units = 3,
		.capacity = 3 };
	assert_true(policy_seal(p, &test_key, why, sizeof why));
	uint8_t bytes[KEY_BYTES];
	struct key salt = hasher_of(&p->hasher, text, sizeof text - 1);
	key_put(&salt, bytes);
	salt = hasher_of(&p->hasher, bytes, sizeof bytes);
	assert_int_equal(p->rule->penalty->salt.a, salt.a);
	assert_int_equal(p->rule->penalty->salt.b, salt.b & ~1ull);
	policy_free(p);
}

/* Another epoch of the rule: its counters were reset. */
static void test_a_reset_forgets_denials_and_lifts_no_ban(void **state)
{
	static const char *const per[] = { "ip" };
	struct key ban[2], strikes[2];
	char why[256];

	(void)state;
	for (uint32_t epoch = 0; epoch < 2; epoch++) {
		struct policy *p = policy_of("api", per, 1);
		p->rule->epoch = epoch;
		p->rule->penalty = calloc(1, sizeof *p->rule->penalty);
		p->rule->penalty->after = (struct quota){ .algorithm = ALGORITHM_FIXED_WINDOW,
			.window = { WINDOW_FROM_FIRST, 60 * USEC_PER_SEC },
			.units = 3,
			.capacity = 3 };
		assert_true(policy_seal(p, &test_key, why, sizeof why));
		ban[epoch] = p->rule->penalty->salt;
		strikes[epoch] = p->rule->penalty->limit.salt;
		policy_free(p);
	}
	assert_memory_equal(&ban[0], &ban[1], sizeof ban[0]);
	assert_memory_not_equal(&strikes[0], &strikes[1], sizeof strikes[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_makes_a_counter_the_same),
		cmocka_unit_test(test_the_order_of_fields_is_no_part_of_it),
		cmocka_unit_test(test_a_value_that_looks_like_a_name),
		cmocka_unit_test(test_name_algorithm_and_window_are_part_of_it),
		cmocka_unit_test(test_a_key_is_made_as_ever),
		cmocka_unit_test(test_long_values_are_told_apart),
		cmocka_unit_test(test_absent_fields_and_scopes),
		cmocka_unit_test(test_secrets_are_shown_hashed),
		cmocka_unit_test(test_tiers),
		cmocka_unit_test(test_rules_see_the_tier_that_was_found),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_the_slowest_refill_of_all_tiers),
		cmocka_unit_test(test_what_a_ban_is_known_by_stays_the_same),
		cmocka_unit_test(test_a_reset_forgets_denials_and_lifts_no_ban),
	};
	if (!hash_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
