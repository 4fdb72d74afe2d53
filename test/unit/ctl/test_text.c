/* Texts and tables for a terminal. */
#include "ctl/http.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define CLEAN(in, want) check_clean((struct str){ in, sizeof(in) - 1 }, want)

static void check_clean(struct str in, const char *want)
{
	char *got = text_clean(in);

	assert_non_null(got);
	assert_string_equal(got, want);
	free(got);
}

static void what_steers_a_terminal_is_shown(void **state)
{
	(void)state;
	CLEAN("", "");
	CLEAN("plain, and päin, 漢字", "plain, and päin, 漢字");
	CLEAN("\033[2J\a\r\n\t", "\\u{1B}[2J\\u{7}\\u{D}\\u{A}\\u{9}");
	CLEAN("a\0b\x7f", "a\\u{0}b\\u{7F}");
	CLEAN("\xc2\x9b"
	      "1m",
		"\\u{9B}1m"); /* CSI in one character */
	CLEAN("\xe2\x80\xae"
	      "x\xe2\x80\x8b\xef\xbb\xbf",
		"\\u{202E}x\\u{200B}\\u{FEFF}");
	CLEAN("\xff\xc3", "\\xFF\\xC3"); /* no UTF-8, and a cut character */
	CLEAN("\xc0\x80\xed\xa0\x80", "\\xC0\\x80\\xED\\xA0\\x80"); /* overlong; a surrogate */
}

/* Whatever comes: what is left prints, and is UTF-8. */
static void any_bytes_become_a_line(void **state)
{
	unsigned seed = 7;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		char in[24];
		for (unsigned i = 0; i < sizeof in; i++)
			in[i] = (char)((seed = seed * 1103515245 + 12345) >> 16);
		char *got = text_clean((struct str){ in, sizeof in });
		assert_non_null(got);
		for (const unsigned char *p = (unsigned char *)got; *p; p++)
			assert_true(*p >= ' ' && *p != 0x7f);
		check_clean(str_of(got), got); /* clean is clean */
		assert_true(text_fit(got, text_width(got)) == strlen(got));
		free(got);
	}
}

static void widths_are_columns(void **state)
{
	(void)state;
	assert_int_equal(text_width("päin"), 4);
	assert_int_equal(text_width("漢字"), 4);
	assert_int_equal(text_fit("漢字", 3), 3); /* no half of a character */
	assert_int_equal(text_fit("päin", 2), 3);
	assert_int_equal(text_fit("x", 0), 0);
}

static void lengths_of_time(void **state)
{
	static const struct {
		int64_t seconds;
		const char *want;
	} row[] = { { -5, "0s" }, { 0, "0s" }, { 59, "59s" }, { 60, "1m" }, { 61, "1m 1s" },
		{ 3600, "1h" }, { 3661, "1h 1m" }, { 86399, "23h 59m" }, { 86400, "1d" },
		{ 90000, "1d 1h" }, { 86400 + 59, "1d" } };
	char out[TEXT_MAX];

	(void)state;
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++)
		assert_string_equal(text_seconds(row[i].seconds, out), row[i].want);
	assert_string_equal(text_share(0.0251, out), "2.5 %");
}

static void instants(void **state)
{
	enum { NOW = 1795237200 }; /* 2026-11-21 05:00 UTC */
	static const struct {
		const char *text;
		int64_t want;
	} row[] = { { "1795237200", NOW }, { "2026-11-21", NOW - 5 * 3600 },
		{ "2026-11-21 05:00", NOW }, { "2026-11-21T05:00:07", NOW + 7 },
		{ "2026-11-21T05:00Z", NOW }, { "2026-11-21 05:00:01Z", NOW + 1 },
		{ "05:01", NOW + 60 }, { "05:00", NOW + 86400 }, { "04:59", NOW + 86340 },
		{ "", -1 }, { "soon", -1 }, { "2026-11-21 05", -1 }, { "05:01Z", -1 },
		{ "10m", -1 }, { "99999999999999999999", -1 }, { "2026-13-01", -1 },
		{ "2027-02-30", -1 }, { "2026-11-31 10:00Z", -1 }, { "2028-02-29", 1835395200 } };

	(void)state;
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++)
		assert_int_equal(instant_parse(row[i].text, NOW), row[i].want);
}

/* ---- tables ---- */

static const struct column column[] = { { "NAME", false }, { "N", true }, { "WHY", false } };

static void check_table(const struct table *t, size_t columns, const char *want)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	assert_true(table_write(t, f, columns));
	assert_int_equal(fclose(f), 0);
	assert_string_equal(text, want);
	free(text);
}

static void tables_are_aligned(void **state)
{
	struct table *t = table_new(column, 3);

	(void)state;
	assert_non_null(t);
	check_table(t, 0, "NAME  N  WHY\n");
	table_put(t, "ünïcode");
	table_int(t, 12345);
	table_put(t, "a long reason");
	table_put(t, "x");
	table_int(t, -1);
	table_put(t, NULL);
	table_put(t, "y\n");
	table_put(t, "");
	table_put(t, "z");
	check_table(t, 0,
		"NAME         N  WHY\n"
		"ünïcode  12345  a long reason\n"
		"x           -1\n"
		"y\\u{A}          z\n");
	check_table(t, 18,
		"NAME         N  WH\n"
		"ünïcode  12345  a \n"
		"x           -1\n"
		"y\\u{A}          z\n");
	check_table(t, 3, "NAM\nünï\nx\ny\\u\n");
	table_free(t);
	table_put(NULL, "nothing");
	table_free(NULL);
}

static void places(void **state)
{
	static const struct {
		const char *text, *socket, *url;
	} row[] = { { "/run/a.sock", "/run/a.sock", "http://localhost" },
		{ "127.0.0.1:9601", "", "http://127.0.0.1:9601" },
		{ "*:9601", "", "http://127.0.0.1:9601" }, { ":9601", "", "http://127.0.0.1:9601" },
		{ "0.0.0.0:9601", "", "http://127.0.0.1:9601" },
		{ "[::]:9601", "", "http://[::1]:9601" }, { "[::1]:9601", "", "http://[::1]:9601" },
		{ "https://limits.example/", "", "https://limits.example" } };
	struct place p;
	char text[400];

	(void)state;
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		assert_true(place_set(&p, row[i].text));
		assert_string_equal(p.socket, row[i].socket);
		assert_string_equal(p.url, row[i].url);
	}
	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = '\0';
	assert_false(place_set(&p, text));
	text[0] = '/';
	assert_false(place_set(&p, text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_steers_a_terminal_is_shown),
		cmocka_unit_test(any_bytes_become_a_line),
		cmocka_unit_test(widths_are_columns),
		cmocka_unit_test(lengths_of_time),
		cmocka_unit_test(instants),
		cmocka_unit_test(tables_are_aligned),
		cmocka_unit_test(places),
	};

	text_init();
	(void)setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
