/* Places of rules and tiers: the same through all reloads, bounded, and summed up right. */
#include "server/tally.h"

#include "loaded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct snapshot *load(const char *text)
{
	static const struct hash_key key = { 0 };

	return loaded(text, &key, 1);
}

static const struct tier *tier(const struct snapshot *s, const char *name)
{
	int i = policy_tier_find(s->policy, str_of(name));
	assert_true(i >= 0);
	return &s->policy->tier[i];
}

#define TWO \
	"rules = ( { name = \"a\"; rate = { gold = \"1/day\"; }; per = []; }, " \
	"{ name = \"b\"; rate = \"1/day\"; per = []; } );"

static void places_survive_reloads(void **state)
{
	(void)state;
	struct tally_names *names = tally_names_new();
	struct snapshot *one = load(TWO);
	struct snapshot *two = load(
		"rules = ( { name = \"b\"; rate = \"2/day\"; per = []; }, "
		"{ name = \"c\"; rate = { silver = \"1/day\"; gold = \"1/day\"; }; "
		"per = []; } );");
	tally_names_apply(names, one->policy);
	tally_names_apply(names, two->policy);
	assert_int_not_equal(one->policy->rule[0].tally, one->policy->rule[1].tally);
	assert_int_equal(one->policy->rule[1].tally, two->policy->rule[0].tally);
	assert_int_not_equal(one->policy->rule[0].tally, two->policy->rule[1].tally);
	assert_int_equal(tier(one, "gold")->tally, tier(two, "gold")->tally);
	assert_int_not_equal(tier(two, "gold")->tally, tier(two, "silver")->tally);
	assert_int_not_equal(tier(two, "anonymous")->tally, 0);
	snapshot_free(one);
	snapshot_free(two);
	tally_names_free(names);
}

static void they_are_bounded(void **state)
{
	(void)state;
	struct tally_names *names = tally_names_new();
	uint32_t other = 0;
	for (unsigned i = 0; i < TALLY_RULES + 20; i++) {
		char text[256];
		(void)snprintf(text, sizeof text,
			"rules = ( { name = \"r%u\"; per = []; rate = { t%u = \"1/day\"; }; } );",
			i, i);
		struct snapshot *s = load(text);
		char name[16];
		(void)snprintf(name, sizeof name, "t%u", i);
		tally_names_apply(names, s->policy);
		uint32_t end = s->policy->rule[0].tally + tier(s, name)->tally + TALLY_OUTCOMES;
		assert_true(end <= TALLY_RULES * TALLY_ROW);
		if (i >= TALLY_TIERS)
			assert_int_equal(tier(s, name)->tally, 0);
		if (i == TALLY_RULES)
			other = s->policy->rule[0].tally;
		if (i > TALLY_RULES)
			assert_int_equal(s->policy->rule[0].tally, other);
		snapshot_free(s);
	}
	tally_names_free(names);
}

static void tiers_of_the_tiers_file_alone_are_others(void **state)
{
	(void)state;
	FILE *f = fopen("tally-tiers.map", "w");
	assert_non_null(f);
	assert_true(fputs("alice gold\nbob bronze\n", f) >= 0);
	assert_int_equal(fclose(f), 0);
	struct tally_names *names = tally_names_new();
	struct snapshot *s = load("identity: { tiers_file = \"tally-tiers.map\"; };\n" TWO);
	tally_names_apply(names, s->policy);
	assert_int_equal(tier(s, "bronze")->tally, 0);
	assert_int_not_equal(tier(s, "gold")->tally, 0);
	assert_int_not_equal(tier(s, "anonymous")->tally, 0);
	snapshot_free(s);
	tally_names_free(names);
	(void)remove("tally-tiers.map");
}

static void sums_up(void **state)
{
	(void)state;
	struct tally_names *names = tally_names_new();
	struct snapshot *s = load(TWO);
	tally_names_apply(names, s->policy);
	struct tally *a = tally_new(), *b = tally_new();
	const struct tally *of[] = { a, b };
	struct limit limit = { .rule = &s->policy->rule[0] };
	struct take take = { .limit = &limit };
	struct plan plan = { .tally = tier(s, "gold")->tally };
	struct decision denied = { .deny = true, .reason = REASON_LIMITED, .reported = &take };
	struct decision blocked = { .deny = true, .reason = REASON_BLOCKED };
	tally_count(a, &plan, &denied);
	tally_count(b, &plan, &denied);
	tally_warned(b, &take);
	struct limit of_shadow = { .rule = &s->policy->rule[1] };
	s->policy->rule[1].mode = MODE_SHADOW;
	plan.take[0].limit = &limit;
	plan.take[1].limit = plan.take[2].limit = &of_shadow;
	plan.n = 3; /* two limits of a rule: counted once */
	tally_shadowed(a, &plan, &(struct decision){ .shadow = &s->policy->rule[1] });
	plan.n = 0; /* the failure policy decided */
	tally_shadowed(a, &plan, &(struct decision){ .shadow = &s->policy->rule[1] });
	plan.tally = 0;
	tally_count(b, &plan, &blocked);

	/* What is enforced, and what admits, is none of them. */
	plan.n = 1;
	tally_shadowed(b, &plan, &(struct decision){ .shadow = &s->policy->rule[1] });
	s->policy->rule[0].mode = MODE_SHADOW;
	plan.take[0].verdict.admits = true;
	tally_shadowed(b, &plan, &(struct decision){ .shadow = &s->policy->rule[1] });

	struct tally_sum sum;
	assert_true(tally_sum(names, of, 2, &sum));
	assert_int_equal(sum.line_n, 2);
	assert_string_equal(sum.line[0].rule, "");
	assert_string_equal(sum.line[0].tier, "other");
	assert_int_equal(sum.line[0].reason, REASON_BLOCKED);
	assert_string_equal(sum.line[1].rule, "a");
	assert_string_equal(sum.line[1].tier, "gold");
	assert_int_equal(sum.line[1].reason, REASON_LIMITED);
	assert_true(sum.line[1].deny);
	assert_int_equal(sum.line[1].n, 2);
	assert_int_equal(sum.rule_n, 2);
	assert_int_equal(sum.rule[0].warned, 1);
	assert_int_equal(sum.rule[0].shadowed, 0);
	assert_int_equal(sum.rule[1].shadowed, 4);
	tally_sum_free(&sum);
	tally_free(a);
	tally_free(b);
	snapshot_free(s);
	tally_names_free(names);
}

/* Rules i of a bit i of `set` apply. */
static void apply(struct tally *t, struct policy *p, unsigned set, bool degraded)
{
	struct limit limit[8] = { 0 };
	struct plan plan = { .degraded = degraded };

	for (unsigned i = 0; i < p->rule_n; i++) {
		if (!(set >> i & 1))
			continue;
		limit[i].rule = &p->rule[i];
		plan.marks += p->rule[i].mark;
		for (unsigned k = 0; k < 2; k++) /* limits of one rule */
			plan.take[plan.n++].limit = &limit[i];
	}
	tally_applied(t, &plan);
}

/* Of sets in any order, known or new, also more of them than there is room for. */
static void rules_that_apply_are_counted(void **state)
{
	(void)state;
	static const char rules[] =
		"rules = ( { name = \"r0\"; rate = \"1/day\"; }, { name = \"r1\"; rate = \"1/day\"; },"
		"{ name = \"r2\"; rate = \"1/day\"; }, { name = \"r3\"; rate = \"1/day\"; },"
		"{ name = \"r4\"; rate = \"1/day\"; }, { name = \"r5\"; rate = \"1/day\"; },"
		"{ name = \"r6\"; rate = \"1/day\"; }, { name = \"r7\"; rate = \"1/day\"; } );";
	struct tally_names *names = tally_names_new();
	struct snapshot *s = load(rules);
	tally_names_apply(names, s->policy);
	struct tally *a = tally_new(), *b = tally_new();
	const struct tally *of[] = { a, b };
	uint64_t expected[8] = { 0 };
	struct tally_sum sum;

	assert_int_equal(s->policy->rule_n, 8);
	for (unsigned round = 0, set = 0; round < 3 * 256; round++, set += 37) {
		apply(round % 3 ? a : b, s->policy, set % 256, round % 5 == 0);
		for (unsigned i = 0; i < 8; i++)
			expected[i] += set % 256 >> i & 1;
	}
	apply(a, s->policy, 1, false);
	apply(a, s->policy, 1, false);
	expected[0] += 2;
	assert_true(tally_sum(names, of, 2, &sum));
	assert_int_equal(sum.rule_n, 8);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(sum.rule[i].applied, expected[i]);
	assert_int_equal(a->set_n, TALLY_SETS_MAX);
	tally_sum_free(&sum);
	tally_free(a);
	tally_free(b);
	snapshot_free(s);
	tally_names_free(names);
}

/* Of a set that is seen first while the failure policy decided for one of its rules. */
static void a_set_is_not_learnt_from_a_part_of_it(void **state)
{
	(void)state;
	struct tally_names *names = tally_names_new();
	struct snapshot *s = load(TWO);
	tally_names_apply(names, s->policy);
	struct tally *t = tally_new();
	const struct tally *of[] = { t };
	struct limit limit[2] = { { .rule = &s->policy->rule[0] },
		{ .rule = &s->policy->rule[1] } };
	struct plan plan = {
		.marks = s->policy->rule[0].mark + s->policy->rule[1].mark, .degraded = true, .n = 1
	};
	struct tally_sum sum;

	plan.take[0].limit = &limit[0];
	plan.take[1].limit = &limit[1];
	tally_applied(t, &plan);
	plan.degraded = false;
	plan.n = 2;
	tally_applied(t, &plan);
	assert_true(tally_sum(names, of, 1, &sum));
	assert_int_equal(sum.rule[0].applied, 2);
	assert_int_equal(sum.rule[1].applied, 1);
	tally_sum_free(&sum);
	tally_free(t);
	snapshot_free(s);
	tally_names_free(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places_survive_reloads),
		cmocka_unit_test(they_are_bounded),
		cmocka_unit_test(tiers_of_the_tiers_file_alone_are_others),
		cmocka_unit_test(sums_up),
		cmocka_unit_test(rules_that_apply_are_counted),
		cmocka_unit_test(a_set_is_not_learnt_from_a_part_of_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
