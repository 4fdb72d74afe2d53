#include "base/str.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LONGEST = STR_SHORT_MAX };

/* Of every length, between two pages that nobody may touch. */
static void short_ones_are_copied_and_nothing_else(void **state)
{
	struct guard from = guard_new(LONGEST), to = guard_new(LONGEST);
	char text[LONGEST];

	(void)state;
	for (unsigned i = 0; i < LONGEST; i++)
		text[i] = (char)('A' + i);
	for (size_t n = 0; n <= LONGEST; n++) {
		const char *p = (const char *)guard_copy(&from, text, n);
		char *out = (char *)to.end - n;
		memset(to.end - LONGEST, '#', LONGEST);
		assert_ptr_equal(str_put_short(out, (struct str){ p, n }), to.end);
		assert_memory_equal(out, text, n);
		for (const char *before = (char *)to.end - LONGEST; before < out; before++)
			assert_int_equal(*before, '#');
	}
	guard_free(&from);
	guard_free(&to);
}

static void a_head_is_the_first_eight_bytes(void **state)
{
	static const char text[] = "\xff"
				   "bcdefghijk";
	struct guard g = guard_new(sizeof text);

	(void)state;
	for (size_t n = 0; n < sizeof text; n++) {
		uint64_t want = 0;
		for (size_t i = 0; i < n && i < STR_HEAD_BYTES; i++)
			want |= (uint64_t)(uint8_t)text[i] << 8 * i;
		const char *p = (const char *)guard_copy(&g, text, n);
		assert_true(str_head((struct str){ p, n }) == want);
	}
	guard_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_ones_are_copied_and_nothing_else),
		cmocka_unit_test(a_head_is_the_first_eight_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
