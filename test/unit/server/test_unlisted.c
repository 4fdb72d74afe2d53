/* Tiers that no rule lists: what it costs to tell of them. (That they are told of, and what is
 * said: system/test_unlisted.py.) */
#include "server/unlisted.h"

#include "loaded.h"
#include "base/log.h"

#include <strings.h>

/* In the place of libc's: how often the name that was meant is looked for. */
static unsigned compared;

int strcasecmp(const char *s1, const char *s2)
{
	compared++;
	return strcmp(s1, s2);
}

/* How many comparisons a hundred checks of one client are. */
static unsigned compared_in_a_hundred(enum log_level level, const char *tier)
{
	static const struct hash_key key = { .bytes = { 1 } };
	const struct now now = clock_read();
	const struct log_settings log = { .level = level };
	struct snapshot *s = loaded("rules = ( { name = \"r\"; per = [ \"user\" ]; rate = "
				    "{ anonymous = \"1/day\"; premium = \"2/day\"; }; } );",
		&key, 1);
	static struct view view;
	static struct plan plan;
	char scratch[1024], err[256];

	if (log_open(&log, err, sizeof err) < 0)
		fail_msg("%s", err);
	view_init(&view, &s->policy->layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&view, FIELD_USER, STR("petra"));
	view_set_text(&view, FIELD_TIER, str_of(tier));
	view_finish(&view);
	policy_plan(s->policy, &view, &plan);
	assert_int_equal(plan.tier_number, -1);
	compared = 0;
	for (unsigned i = 0; i < 100; i++)
		unlisted_tell(s->policy, &plan, &view, false, now);
	log_close();
	drop(s);
	return compared;
}

static void a_line_that_nobody_reads_is_not_composed(void **state)
{
	(void)state;
	assert_int_equal(compared_in_a_hundred(LOG_LEVEL_ERROR, "premum"), 0);
	/* Once, however often it is compared with a name. */
	assert_in_range(compared_in_a_hundred(LOG_LEVEL_WARNING, "premum"), 1, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_that_nobody_reads_is_not_composed),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
