#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/env.h"

#include <stdlib.h>
#include <string.h>

static void references(void **state)
{
	static const struct {
		const char *text, *want; /* "!…": what `why` holds */
	} row[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "${FULL}", "value" },
		{ "a${FULL}b${FULL}c", "avaluebvaluec" },
		{ "${FULL:-other}", "value" },
		{ "${EMPTY}", "" },
		{ "${EMPTY:-other}", "other" },
		{ "${UNSET:-other}", "other" },
		{ "${UNSET:-}", "" },
		{ "${UNSET:-a:-b $c}", "a:-b $c" },
		{ "${UNSET:-a}b}", "ab}" },
		{ "${_A1}", "one" },
		{ "${DOLLAR}", "${FULL}" }, /* what comes out is not looked at again */
		/* any other $ is just that */
		{ "$", "$" },
		{ "$$", "$$" },
		{ "$FULL", "$FULL" },
		{ "cost $5", "cost $5" },
		{ "a$", "a$" },
		{ "$${FULL}", "$value" },
		{ "{FULL}", "{FULL}" },
		{ "$ {FULL}", "$ {FULL}" },
		/* what begins as a reference has to be one */
		{ "${UNSET}", "!the environment variable UNSET is not set" },
		{ "${", "!without its" },
		{ "a${FULL", "!without its" },
		{ "${}", "!begins no reference" },
		{ "${1A}", "!begins no reference" },
		{ "${A-b}", "!begins no reference" },
		{ "${A:b}", "!begins no reference" },
		{ "${A B}", "!begins no reference" },
		{ "${:-x}", "!begins no reference" },
		{ "${UNSET:-${FULL}}", "!holds another reference" },
		{ "${FULL:-${FULL}}", "!holds another reference" },
		{ "${UNSET:-${}", "!holds another reference" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		char why[320], *got = env_expand(row[i].text, why, sizeof why);
		const char *want = row[i].want;
		if (want[0] == '!' ? got || !strstr(why, want + 1) : !got || strcmp(got, want) != 0)
			fail_msg("\"%s\": %s", row[i].text, got ? got : why);
		free(got);
	}
}

static void as_a_shell_has_them(void **state)
{
	static const struct {
		const char *text;
		bool want;
	} row[] = {
		{ "$NAME", true },
		{ "$_N4", true },
		{ "$A", true },
		{ "$", false },
		{ "", false },
		{ "NAME", false },
		{ "$5", false },
		{ "$name", false },
		{ "$NAMe", false },
		{ "$NAME$", false },
		{ "a$NAME", false },
		{ "$NAME/x", false },
		{ "${NAME}", false },
		{ "$$NAME", false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		if (env_is_bare(row[i].text) != row[i].want)
			fail_msg("\"%s\"", row[i].text);
}

static void bounded(void **state)
{
	char *text = malloc(ENV_TEXT_MAX + 8), why[320];
	(void)state;
	assert_non_null(text);
	memset(text, 'x', ENV_TEXT_MAX);
	text[ENV_TEXT_MAX] = '\0';
	char *got = env_expand(text, why, sizeof why);
	assert_non_null(got);
	free(got);
	strcat(text, "y");
	assert_null(env_expand(text, why, sizeof why));
	assert_non_null(strstr(why, "longer than"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(references),
		cmocka_unit_test(as_a_shell_has_them),
		cmocka_unit_test(bounded),
	};
	setenv("FULL", "value", 1);
	setenv("EMPTY", "", 1);
	setenv("_A1", "one", 1);
	setenv("DOLLAR", "${FULL}", 1);
	unsetenv("UNSET");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
