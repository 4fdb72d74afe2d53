/* JSON as text: whole, or none. */
#include "config/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned until_starved; /* 0: never */

static void *get(size_t n)
{
	return until_starved && --until_starved == 0 ? NULL : malloc(n);
}

/* Names and values of more than any buffer begins with. */
static json_t *long_one(void)
{
	json_t *o = json_object();

	for (char c = 'a'; c <= 'h'; c++)
		(void)json_object_set_new(o, (char[]){ c, c, c, c, c, c, c, '\0' },
			json_pack("{s:s, s:[i, n]}", "client", "user=alice", "until", 1));
	return o;
}

/* Whichever allocation fails: no text that lacks something. */
static void a_text_is_whole_or_none(void **state)
{
	unsigned failed = 0;
	(void)state;

	json_set_alloc_funcs(get, free);
	json_t *o = long_one();
	char *want = json_text(o, JSON_COMPACT);
	assert_non_null(want);
	for (unsigned n = 1; n < 100; n++) {
		until_starved = n;
		char *text = json_text(o, JSON_COMPACT);
		until_starved = 0;
		if (text)
			assert_string_equal(text, want);
		failed += !text;
		free(text);
	}
	assert_true(failed);
	free(want);
	json_decref(o);
	json_set_alloc_funcs(malloc, free);
}

static void a_text_is_as_its_flags_say(void **state)
{
	json_t *o = json_pack("{s:i, s:s}", "b", 1, "a", "\xc3\xa4");
	(void)state;

	char *text = json_text(o, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, "{\"a\":\"\xc3\xa4\",\"b\":1}");
	free(text);
	assert_null(json_text(NULL, 0));
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_is_whole_or_none),
		cmocka_unit_test(a_text_is_as_its_flags_say),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
