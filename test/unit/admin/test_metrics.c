/* The metrics as text: names, labels, escapes, and the two formats. */
#include "admin/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *text_of(const struct exposition *e, enum exposition_format format)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	assert_non_null(f);
	exposition_write(f, e, format);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void has(const char *text, const char *line)
{
	char whole[512];
	(void)snprintf(whole, sizeof whole, "\n%s\n", line);
	if (!strstr(text, whole))
		fail_msg("there is no line %s", line);
}

static struct report report(void)
{
	struct report r = { .workers = 4, .degraded = 1 };
	r.metric[METRIC_checks_allowed] = 7;
	r.metric[METRIC_connections_open] = 2;
	r.disconnects[1][DISCONNECT_TIMEOUT] = 3;
	r.disconnects[0][DISCONNECT_UNKNOWN] = 4;
	r.check_time.count[0] = 1;
	r.check_time.count[HISTOGRAM_BOUNDS] = 2;
	r.check_time.sum = 40000003;
	r.redis[REDIS_COUNTER_calls] = 9;
	return r;
}

static void samples(void **state)
{
	(void)state;
	struct report r = report();
	struct tally_line line = { "a\"b\\c\nd", "other", REASON_LIMITED, true, 5 };
	struct tally_rule rule = { "api", 4, 1, 2, 3 };
	struct tally_sum tally = { &line, 1, &rule, 1 };
	struct exposition e = { .report = &r,
		.tally = &tally,
		.version = "1.2.3",
		.generation = UINT64_MAX,
		.switches = (struct exposition_switch[]){ { "", "shadow" }, { "api", "off" } },
		.switch_n = 2,
		.started = 1.5 };
	char *text = text_of(&e, FORMAT_PROMETHEUS);
	has(text, "ratelimit_build_info{version=\"1.2.3\"} 1");
	has(text, "ratelimit_generation 18446744073709551615");
	has(text, "ratelimit_switch{rule=\"\",mode=\"enforce\"} 0");
	has(text, "ratelimit_switch{rule=\"\",mode=\"shadow\"} 1");
	has(text, "ratelimit_switch{rule=\"\",mode=\"off\"} 0");
	has(text, "ratelimit_switch{rule=\"api\",mode=\"off\"} 1");
	has(text, "# TYPE ratelimit_checks_total counter");
	has(text,
		"ratelimit_checks_total{rule=\"a\\\"b\\\\c\\nd\",tier=\"other\",decision=\"deny\","
		"reason=\"limited\"} 5");
	has(text, "ratelimit_rule_applied_total{rule=\"api\"} 4");
	has(text, "ratelimit_rule_warned_total{rule=\"api\"} 1");
	has(text, "ratelimit_rule_shadow_total{rule=\"api\"} 2");
	has(text, "ratelimit_rule_tagged_total{rule=\"api\"} 3");
	has(text, "ratelimit_checks_allowed_total 7");
	has(text, "ratelimit_connections_open 2");
	has(text, "ratelimit_disconnects_total{by=\"haproxy\",code=\"2\",text=\"a timeout "
		  "occurred\"} 3");
	has(text, "ratelimit_disconnects_total{by=\"agent\",code=\"99\",text=\"an unknown error "
		  "occurred\"} 4");
	has(text, "ratelimit_check_duration_seconds_bucket{le=\"0.000001\"} 1");
	has(text, "ratelimit_check_duration_seconds_bucket{le=\"16.777216\"} 1");
	has(text, "ratelimit_check_duration_seconds_bucket{le=\"+Inf\"} 3");
	has(text, "ratelimit_check_duration_seconds_sum 40.000003");
	has(text, "ratelimit_check_duration_seconds_count 3");
	has(text, "ratelimit_store_up 0.750");
	has(text, "process_start_time_seconds 1.500");
	assert_null(strstr(text, "redis"));
	assert_null(strstr(text, "# EOF"));
	free(text);

	r.has_redis = true;
	text = text_of(&e, FORMAT_PROMETHEUS);
	has(text, "ratelimit_redis_calls_total 9");
	has(text, "# TYPE ratelimit_redis_call_duration_seconds histogram");
	free(text);
}

static void openmetrics(void **state)
{
	(void)state;
	struct report r = report();
	struct tally_sum tally = { 0 };
	struct exposition e = { .report = &r, .tally = &tally, .version = "1" };
	char *text = text_of(&e, FORMAT_OPENMETRICS);
	has(text, "# TYPE ratelimit_checks_allowed counter");
	has(text, "ratelimit_checks_allowed_total 7");
	size_t n = strlen(text);
	assert_true(n > 7 && strcmp(text + n - 7, "\n# EOF\n") == 0);
	free(text);
}

static void accept(void **state)
{
	(void)state;
	static const struct {
		const char *accept;
		enum exposition_format format;
	} row[] = {
		{ NULL, FORMAT_PROMETHEUS },
		{ "", FORMAT_PROMETHEUS },
		{ "*/*", FORMAT_PROMETHEUS },
		{ "text/plain", FORMAT_PROMETHEUS },
		{ "application/openmetrics-text", FORMAT_OPENMETRICS },
		{ "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,"
		  "*/*;q=0.1",
			FORMAT_OPENMETRICS },
		{ "application/openmetrics-text;q=0.1,text/plain;q=0.5", FORMAT_PROMETHEUS },
		{ "application/openmetrics-text;q=0", FORMAT_PROMETHEUS },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		assert_int_equal(exposition_format_for(row[i].accept), row[i].format);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(samples),
		cmocka_unit_test(openmetrics),
		cmocka_unit_test(accept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
