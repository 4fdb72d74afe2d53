#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/nearest.h"
#include "config/rate.h"

#include <string.h>

static void durations(void **state)
{
	static const struct {
		const char *text;
		usec_t want; /* -1: none */
		const char *back;
	} row[] = {
		{ "30us", 30, "30us" },
		{ "1000us", USEC_PER_MSEC, "1ms" },
		{ "1001us", 1001, "1001us" },
		{ "0us", 0, "0s" },
		{ "500ms", 500 * USEC_PER_MSEC, "500ms" },
		{ "10s", 10 * USEC_PER_SEC, "10s" },
		{ "5m", 300 * USEC_PER_SEC, "5m" },
		{ "60m", 3600 * USEC_PER_SEC, "1h" },
		{ "1d", USEC_PER_DAY, "1d" },
		{ "0s", 0, "0s" },
		{ "1000ms", USEC_PER_SEC, "1s" },
		{ "90s", 90 * USEC_PER_SEC, "90s" },
		{ "", -1, "" },
		{ "10", -1, "" },
		{ "s", -1, "" },
		{ "-1s", -1, "" },
		{ "+1s", -1, "" },
		{ "1.5s", -1, "" },
		{ " 1s", -1, "" },
		{ "1s ", -1, "" },
		{ "1 s", -1, "" },
		{ "1S", -1, "" },
		{ "1h30m", -1, "" },
		{ "1w", -1, "" },
		{ "99999999999999999999s", -1, "" },
		{ "9223372036854775807d", -1, "" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		usec_t got = -1;
		char back[DURATION_TEXT_MAX];
		bool good = duration_parse(str_of(row[i].text), &got);
		if (good != (row[i].want >= 0) || (good && got != row[i].want))
			fail_msg("\"%s\" is %d, %lld", row[i].text, good, (long long)got);
		if (good)
			assert_string_equal(duration_format(got, back), row[i].back);
	}
}

static void rates(void **state)
{
	static const struct {
		const char *text;
		const char *want; /* as it would be written; "!…": how `why` begins */
	} row[] = {
		{ "10/minute", "10/minute" },
		{ "10/60s", "10/minute" },
		{ "10/1m", "10/minute" },
		{ "10/1000ms", "10/second" },
		{ "10/1000000us", "10/second" },
		{ "600/3600s", "600/hour" },
		{ "5/5m", "5/5m" },
		{ "1/24h", "1/day" },
		{ "1/7d", "1/week" },
		{ "1/168h", "1/week" },
		{ "1/week", "1/week" },
		{ "1/30d", "1/30d" },
		{ "1/month", "1/month" },
		{ "1/366d", "1/366d" },
		{ "0/hour", "0/hour" },
		{ "1000000000/second", "1000000000/second" },
		{ "50/minute burst 100", "50/minute burst 100" },
		{ "50/minute burst 50", "50/minute" },
		{ "50/minute burst 1", "50/minute burst 1" },
		{ "50/minute burst 1000000000", "50/minute burst 1000000000" },
		{ "10 per hour", "10/hour" },
		{ "10 per 5m burst 20", "10/5m burst 20" },
		{ "  10  /  minute   burst   20  ", "10/minute burst 20" },
		{ "10\tper\tminute", "10/minute" },
		{ "1500/1500ms", "1500/1500ms" },
		{ "unlimited", "unlimited" },
		{ " unlimited ", "unlimited" },
		{ "", "!want \"N/WINDOW\"" },
		{ "10", "!want \"N/WINDOW\"" },
		{ "10/", "!want \"N/WINDOW\"" },
		{ "/minute", "!want \"N/WINDOW\"" },
		{ "10 minute", "!want \"N/WINDOW\"" },
		{ "10per minute", "!want \"N/WINDOW\"" },
		{ "10 perminute", "!want \"N/WINDOW\"" },
		{ "10 per", "!want \"N/WINDOW\"" },
		{ "10/minute foo", "!want \"N/WINDOW\"" },
		{ "ten/minute", "!want \"N/WINDOW\"" },
		{ "-1/minute", "!want \"N/WINDOW\"" },
		{ "1.5/minute", "!want \"N/WINDOW\"" },
		{ "10//minute", "!want \"N/WINDOW\"" },
		{ "10/minute/hour", "!want \"N/WINDOW\"" },
		{ "unlimited burst 5", "!want \"N/WINDOW\"" },
		{ "1000000001/minute", "!N: want 0..1000000000" },
		{ "99999999999999999999/minute", "!N: want 0..1000000000" },
		{ "10/minutes", "!unknown window \"minutes\"" },
		{ "10/Minute", "!unknown window \"Minute\"" },
		{ "10/fortnight", "!unknown window \"fortnight\"" },
		{ "10/s", "!unknown window \"s\": want a duration like \"5m\", or second, minute, "
			  "hour, day, week, month; did you mean \"1s\"?" },
		{ "10/min",
			"!unknown window \"min\": want a duration like \"5m\", or second, minute, "
			"hour, day, week, month; did you mean \"minute\"?" },
		{ "10/60", "!unknown window \"60\"" },
		{ "10/999999us", "!window \"999999us\": want 1s to 366d" },
		{ "10/500ms", "!window \"500ms\": want 1s to 366d" },
		{ "10/0s", "!window \"0s\": want 1s to 366d" },
		{ "10/367d", "!window \"367d\": want 1s to 366d" },
		{ "10/31622401s", "!window \"31622401s\": want 1s to 366d" },
		{ "10/minute burst", "!burst: want 1..1000000000" },
		{ "10/minute burst 0", "!burst: want 1..1000000000" },
		{ "10/minute burst -1", "!burst: want 1..1000000000" },
		{ "10/minute burst 5x", "!burst: want 1..1000000000" },
		{ "10/minute burst 5 6", "!burst: want 1..1000000000" },
		{ "10/minute burst 1000000001", "!burst: want 1..1000000000" },
		{ "0/minute burst 5", "!a rate of 0" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct rate r;
		char why[320] = "", text[RATE_TEXT_MAX] = "unlimited";
		const char *want = row[i].want;
		bool good = rate_parse(str_of(row[i].text), &r, why, sizeof why);
		if (good && !r.unlimited) {
			struct quota q = { .window = r.window,
				.units = r.units,
				.capacity = r.burst ? r.burst : r.units };
			quota_format(&q, false, text);
		}
		if (want[0] == '!' ? good || strncmp(why, want + 1, strlen(want + 1)) != 0
				   : !good || strcmp(text, want) != 0)
			fail_msg("\"%s\": %s", row[i].text, good ? text : why);
	}
}

static void windows_that_are_one(void **state)
{
	struct rate a, b;
	char why[320];
	(void)state;
	assert_true(rate_parse(STR("1/7d"), &a, why, sizeof why));
	assert_true(rate_parse(STR("1/week"), &b, why, sizeof why));
	assert_int_equal(a.window.kind, WINDOW_WEEK);
	assert_true(window_equal(&a.window, &b.window));
	assert_true(rate_parse(STR("1/30d"), &a, why, sizeof why));
	assert_true(rate_parse(STR("1/month"), &b, why, sizeof why));
	assert_int_equal(b.window.kind, WINDOW_MONTH);
	assert_false(window_equal(&a.window, &b.window));
}

static void every_cut_of_a_rate_ends(void **state)
{
	static const char text[] = "  50 per 5m  burst 100 ";
	char why[320], copy[sizeof text];
	struct rate r;
	(void)state;
	for (size_t cut = 0; cut < sizeof text; cut++) {
		memset(copy, '9', sizeof copy); /* what lies behind the cut is never read */
		memcpy(copy, text, cut);
		(void)rate_parse((struct str){ copy, cut }, &r, why, sizeof why);
		usec_t d;
		(void)duration_parse((struct str){ copy, cut }, &d);
	}
}

static void integers(void **state)
{
	int64_t v;
	(void)state;
	assert_true(integer_parse(STR("-12"), &v) && v == -12);
	assert_true(integer_parse(STR("+12"), &v) && v == 12);
	assert_true(integer_parse(STR("007"), &v) && v == 7);
	assert_true(integer_parse(STR("9223372036854775807"), &v) && v == INT64_MAX);
	assert_true(integer_parse(STR("-9223372036854775808"), &v) && v == INT64_MIN);
	static const char *const bad[] = { "", "-", "1 ", " 1", "1x", "0x1", "--1", "1.0",
		"9223372036854775808", "99999999999999999999999" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(integer_parse(str_of(bad[i]), &v));
}

static void what_was_meant(void **state)
{
	static const char *const names[] = { "threads", "listen", "max_connections", "drain", "per",
		"rate" };
	static const struct {
		const char *word, *want;
	} row[] = {
		{ "thread", "threads" },
		{ "treads", "threads" },
		{ "lsiten", "listen" },
		{ "Listen", "listen" },
		{ "max_conections", "max_connections" },
		{ "max_conn", "max_connections" },
		{ "pre", "per" },
		{ "rates", "rate" },
		/* abbreviations */
		{ "maxconn", "max_connections" },
		{ "max_conns", "max_connections" },
		{ "lstn", "listen" },
		{ "Conns", "max_connections" },
		{ "rt", NULL },
		{ "nectar", NULL },
		{ "burst", NULL },
		{ "x", NULL },
		{ "", NULL },
		{ "a_name_far_too_long_to_be_compared_with_anything_that_is_known_here", NULL },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		const char *got = nearest(row[i].word, names, sizeof names / sizeof *names);
		if (got != row[i].want && (!got || !row[i].want || strcmp(got, row[i].want) != 0))
			fail_msg("\"%s\" is near \"%s\"", row[i].word, got ? got : "nothing");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations),
		cmocka_unit_test(rates),
		cmocka_unit_test(windows_that_are_one),
		cmocka_unit_test(every_cut_of_a_rate_ends),
		cmocka_unit_test(integers),
		cmocka_unit_test(what_was_meant),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
