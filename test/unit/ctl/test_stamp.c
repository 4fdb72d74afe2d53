/* Times as logs write them. */
#include "ctl/stamp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define SEC(s) ((usec_t)(s)*USEC_PER_SEC)

enum { AT = 1795278781 }; /* 2026-11-21 16:33:01 UTC */

struct row {
	const char *text;
	size_t length; /* 0: it is no time */
	usec_t want;
};

typedef size_t parse_fn(struct str, struct stamp *);

static void check_rows(parse_fn *parse, const struct row *row, size_t n)
{
	struct stamp_clock clock = { 0 };
	struct stamp s;

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(parse(str_of(row[i].text), &s), row[i].length);
		if (row[i].length)
			assert_int_equal(stamp_to_utc(&clock, &s), row[i].want);
	}
}

static void those_of_logs(void **state)
{
	static const struct row row[] = {
		{ "21/Nov/2026:16:33:01", 20, SEC(AT) },
		{ "21/Nov/2026:16:33:01.123]", 24, SEC(AT) + 123000 },
		{ "21/Nov/2026:16:33:01.1234567]", 28, SEC(AT) + 123456 },
		{ "21/Nov/2026:16:33:01 +0000]", 26, SEC(AT) },
		{ "21/Nov/2026:16:33:01 +0530]", 26, SEC(AT - 19800) },
		{ "21/Nov/2026:16:33:01 -0330]", 26, SEC(AT + 12600) },
		{ "21/Nov/2026:16:33:01.5 -0100", 28, SEC(AT + 3600) + 500000 },
		{ "01/Jan/1970:00:00:00", 20, 0 },
		{ "01/Jan/1970:00:00:00 +0001", 26, -1 }, /* there was nothing before */
		{ "31/Dec/9999:23:59:60", 20, SEC(253402300800) },
		{ "", 0, 0 },
		{ "21/Nov/2026:16:33", 0, 0 },
		{ "21/nov/2026:16:33:01", 0, 0 },
		{ "21/11/2026:16:33:01", 0, 0 },
		{ "1/Nov/2026:16:33:01", 0, 0 },
		{ "00/Nov/2026:16:33:01", 0, 0 },
		{ "32/Nov/2026:16:33:01", 0, 0 },
		{ "21/Nov/1969:16:33:01", 0, 0 },
		{ "21/Nov/2026:24:00:00", 0, 0 },
		{ "21/Nov/2026:16:60:01", 0, 0 },
		{ "21/Nov/2026:16:33:61", 0, 0 },
		{ "21/Nov/2026:16:33:01.", 0, 0 },
		{ "21/Nov/2026:16:33:01 ", 0, 0 },
		{ "21/Nov/2026:16:33:01 0100", 0, 0 },
		{ "21/Nov/2026:16:33:01 +1500", 0, 0 },
		{ "21/Nov/2026 16:33:01", 0, 0 },
	};

	(void)state;
	check_rows(stamp_parse_log, row, sizeof row / sizeof *row);
}

static void those_of_iso_8601(void **state)
{
	static const struct row row[] = {
		{ "2026-11-21T16:33:01Z", 20, SEC(AT) },
		{ "2026-11-21 16:33:01", 19, SEC(AT) },
		{ "2026-11-21t16:33:01.25z", 23, SEC(AT) + 250000 },
		{ "2026-11-21T16:33:01+01:00", 25, SEC(AT - 3600) },
		{ "2026-11-21T16:33:01.001-0130", 28, SEC(AT + 5400) + 1000 },
		{ "2026-02-30T00:00:00Z", 20, SEC(1772409600) }, /* the 2nd of March */
		{ "2026-11-21", 0, 0 },
		{ "2026-11-21T16:33Z", 0, 0 },
		{ "2026-13-21T16:33:01Z", 0, 0 },
		{ "2026-11-21X16:33:01Z", 0, 0 },
		{ "2026-11-21T16:33:01+1", 0, 0 },
		{ "10000-01-01T00:00:00Z", 0, 0 },
		{ "+2026-11-21T16:33:01Z", 0, 0 },
	};

	(void)state;
	check_rows(stamp_parse_iso, row, sizeof row / sizeof *row);
}

/* Local ones, where an hour comes twice: it is one of the two, and the day goes on. */
static void local_times(void **state)
{
	struct stamp_clock clock = { 0 };
	struct stamp s;
	usec_t last = 0;

	(void)state;
	(void)setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	assert_true(stamp_parse_log(str_of("21/Nov/2026:17:33:01"), &s));
	assert_int_equal(stamp_to_utc(&clock, &s), SEC(AT));
	assert_true(stamp_parse_log(str_of("21/Jul/2026:17:33:01"), &s));
	assert_int_equal(stamp_to_utc(&clock, &s), SEC(AT - 123 * 86400 - 3600));
	/* The 25th of October has 25 hours. */
	for (int hour = 0; hour < 24; hour++) {
		s = (struct stamp){
			.year = 2026, .month = 10, .day = 25, .hour = hour, .zone = STAMP_LOCAL
		};
		usec_t at = stamp_to_utc(&clock, &s);
		if (last)
			assert_true(at - last == SEC(3600) || at - last == SEC(7200));
		last = at;
	}
	(void)setenv("TZ", "UTC", 1);
	tzset();
}

/* What was made of the last line's minute is for that one only. */
static void the_same_minute_of_another(void **state)
{
	static const struct row row[] = {
		{ "21/Nov/2026:16:33:01", 20, SEC(AT) },
		{ "22/Nov/2026:16:33:01", 20, SEC(AT + 86400) },
		{ "22/Dec/2026:16:33:01", 20, SEC(AT + 31 * 86400) },
		{ "22/Dec/2027:16:33:01", 20, SEC(AT + (31 + 365) * 86400) },
		{ "22/Dec/2027:17:33:01", 20, SEC(AT + (31 + 365) * 86400 + 3600) },
		{ "22/Dec/2027:17:34:01", 20, SEC(AT + (31 + 365) * 86400 + 3660) },
	};

	(void)state;
	check_rows(stamp_parse_log, row, sizeof row / sizeof *row);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(those_of_logs),
		cmocka_unit_test(those_of_iso_8601),
		cmocka_unit_test(local_times),
		cmocka_unit_test(the_same_minute_of_another),
	};

	(void)setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
