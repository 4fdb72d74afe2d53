/* Lines for one more reader: those that it wants, whole, counted where they do not fit. */
#include "base/log_tap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char out[LOG_TAP_BYTES + 1];

static bool wants_x(enum log_level level, const char *event)
{
	return level == LOG_LEVEL_DEBUG && strcmp(event, "x") == 0;
}

static size_t take(uint64_t *lost)
{
	size_t n = log_tap_take(out, lost);
	out[n] = '\0';
	return n;
}

static void what_is_wanted(void **state)
{
	(void)state;
	uint64_t lost;
	log_debug("x", KV_Z("before", "1"));
	log_tap(wants_x);
	log_debug("y", KV_Z("a", "1"));
	log_debug("x", KV_Z("a", "1\"\n,"), KV_INT("n", 7));
	assert_true(take(&lost));
	assert_memory_equal(out, "{\"time\":", 8);
	assert_string_equal(strchr(out, ','),
		",\"level\":\"debug\",\"event\":\"x\",\"a\":\"1\\\"\\n,\",\"n\":7}\n");
	assert_int_equal(lost, 0);
	assert_int_equal(take(&lost), 0);
	log_tap(NULL);
	log_debug("x", KV_Z("after", "1"));
	assert_int_equal(take(&lost), 0);
}

static void bounded(void **state)
{
	(void)state;
	uint64_t lost, lines = 0;
	log_tap(wants_x);
	for (unsigned i = 0; i < 2000; i++)
		log_debug("x", KV_Z("a", "some words that take room"));
	size_t n = take(&lost);
	for (size_t i = 0; i < n; i++)
		lines += out[i] == '\n';
	assert_true(lost > 0 && lines > 0 && out[n - 1] == '\n');
	assert_int_equal(lines + lost, 2000);
	log_debug("x", KV_Z("a", "b"));
	assert_true(take(&lost));
	assert_int_equal(lost, 0);
	log_tap(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_wanted),
		cmocka_unit_test(bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
