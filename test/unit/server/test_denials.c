#include "server/denials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct event event_of(const char *rule, enum reason reason)
{
	struct event e = { .reason = reason };
	(void)snprintf(e.rule, sizeof e.rule, "%s", rule);
	return e;
}

static unsigned take_many(struct denials *d, const char *rule, enum reason reason, unsigned n)
{
	struct event e = event_of(rule, reason);
	unsigned logged = 0;
	for (unsigned i = 0; i < n; i++)
		logged += denials_take(d, &e);
	return logged;
}

static void each_rule_has_its_own_share(void **state)
{
	(void)state;
	struct denials *d = denials_new();
	struct denials_more more;
	assert_false(denials_next(d, &more));
	assert_int_equal(take_many(d, "api", REASON_LIMITED, 1000), DENIALS_PER_SECOND);
	assert_int_equal(take_many(d, "login", REASON_LIMITED, 3), 3);
	assert_int_equal(take_many(d, "api", REASON_OVERSIZE, 5), 5);
	assert_int_equal(take_many(d, "", REASON_BLOCKED, 25), DENIALS_PER_SECOND);
	assert_true(denials_next(d, &more));
	assert_string_equal(more.rule, "api");
	assert_int_equal(more.reason, REASON_LIMITED);
	assert_int_equal(more.count, 1000 - DENIALS_PER_SECOND);
	assert_true(denials_next(d, &more));
	assert_string_equal(more.rule, "");
	assert_int_equal(more.reason, REASON_BLOCKED);
	assert_int_equal(more.count, 5);
	assert_false(denials_next(d, &more));
	denials_free(d);
}

static void shadow_mode_has_a_share_of_its_own(void **state)
{
	(void)state;
	struct denials *d = denials_new();
	struct denials_more more;
	struct event e = { .shadow = true, .reason = REASON_LIMITED, .rule = "api" };

	assert_int_equal(take_many(d, "api", REASON_LIMITED, 21), DENIALS_PER_SECOND);
	for (unsigned i = 0; i < DENIALS_PER_SECOND; i++)
		assert_true(denials_take(d, &e));
	for (unsigned i = 0; i < 3; i++)
		assert_false(denials_take(d, &e));
	assert_true(denials_next(d, &more));
	assert_false(more.shadow);
	assert_int_equal(more.count, 1);
	assert_true(denials_next(d, &more));
	assert_true(more.shadow);
	assert_int_equal(more.count, 3);
	assert_false(denials_next(d, &more));
	denials_free(d);
}

static void a_new_second_begins_anew(void **state)
{
	(void)state;
	struct denials *d = denials_new();
	struct denials_more more;
	for (int second = 0; second < DENIALS_RULES_MAX + 3; second++) {
		assert_int_equal(take_many(d, "api", REASON_LIMITED, 21), DENIALS_PER_SECOND);
		assert_true(denials_next(d, &more));
		assert_int_equal(more.count, 1);
		assert_false(denials_next(d, &more));
	}
	assert_false(denials_next(d, &more));
	denials_free(d);
}

static void too_many_rules_are_counted_together(void **state)
{
	(void)state;
	struct denials *d = denials_new();
	struct denials_more more;
	unsigned logged = 0;
	for (unsigned i = 0; i < DENIALS_RULES_MAX + 10; i++) {
		char rule[16];
		(void)snprintf(rule, sizeof rule, "rule%u", i);
		logged += take_many(d, rule, REASON_LIMITED, 1);
	}
	assert_int_equal(logged, DENIALS_RULES_MAX);
	assert_true(denials_next(d, &more));
	assert_string_equal(more.rule, "");
	assert_int_equal(more.count, 10);
	assert_false(denials_next(d, &more));
	denials_free(d);
}

/* Also beyond the table. */
static void denied_and_in_shadow_mode_are_never_counted_together(void **state)
{
	(void)state;
	struct denials *d = denials_new();
	struct denials_more more;
	struct event e = { .reason = REASON_LIMITED };
	unsigned count[2] = { 0 };
	for (unsigned i = 0; i < DENIALS_RULES_MAX; i++) {
		(void)snprintf(e.rule, sizeof e.rule, "rule%u", i / 2);
		e.shadow = i % 2;
		for (unsigned n = 0; n < DENIALS_PER_SECOND + 1 + i % 7; n++)
			(void)denials_take(d, &e);
	}
	memcpy(e.rule, "more", sizeof "more");
	for (unsigned i = 0; i < 3; i++) {
		e.shadow = i == 0;
		assert_false(denials_take(d, &e));
	}
	for (unsigned i = 0; i < DENIALS_RULES_MAX; i++) {
		assert_true(denials_next(d, &more));
		assert_int_equal(more.count, 1 + i % 7);
		assert_int_equal(more.shadow, i % 2);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_true(denials_next(d, &more));
		count[more.shadow] += more.count;
	}
	assert_int_equal(count[false], 2);
	assert_int_equal(count[true], 1);
	assert_false(denials_next(d, &more));
	denials_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rule_has_its_own_share),
		cmocka_unit_test(shadow_mode_has_a_share_of_its_own),
		cmocka_unit_test(a_new_second_begins_anew),
		cmocka_unit_test(too_many_rules_are_counted_together),
		cmocka_unit_test(denied_and_in_shadow_mode_are_never_counted_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
