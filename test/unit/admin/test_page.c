#include "admin/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void its_own_page_has_a_policy(void **state)
{
	(void)state;
	char policy[PAGE_POLICY_MAX];
	assert_true(page_policy((struct str){ page_html, page_html_bytes }, policy));
	assert_null(strstr(policy, "unsafe"));
}

/* printf %s 'a{}' | openssl dgst -sha256 -binary | base64, and so for 'b()' */
static void it_allows_one_style_and_one_script(void **state)
{
	(void)state;
	static const char html[] = "<style>a{}</style><script>b()</script>";
	char policy[PAGE_POLICY_MAX];
	assert_true(page_policy(str_of(html), policy));
	assert_non_null(strstr(policy,
		"style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='; script-src 'sha256-cf242PFc/kb7xD0Qzhsmd9vvRkc+cWFmbi+k+YvtdKc=';"));
}

static void anything_else_has_none(void **state)
{
	(void)state;
	static const char *const html[] = {
		"",
		"<style>a</style>",
		"<script>b</script>",
		"<style>a</style><script>b",
		"<style>a</style><script>b</script><script>c</script>",
		"<style>a</style><style>a</style><script>b</script>",
	};
	char policy[PAGE_POLICY_MAX];
	for (unsigned i = 0; i < sizeof html / sizeof *html; i++)
		assert_false(page_policy(str_of(html[i]), policy));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(its_own_page_has_a_policy),
		cmocka_unit_test(it_allows_one_style_and_one_script),
		cmocka_unit_test(anything_else_has_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
