/* Commands, as hiredis would write them. */
#include "rig.h"

#include "store/redis_format.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>

static void assert_as_hiredis(unsigned argc, const char *argv[], const size_t bytes[])
{
	char *want = NULL, *got = malloc(redis_format_room(argc, bytes)); /* ASan minds its end */
	long long want_n = redisFormatCommandArgv(&want, (int)argc, argv, bytes);

	assert_non_null(got);
	assert_true(want_n > 0);
	assert_int_equal(redis_format(got, argc, argv, bytes), want_n);
	assert_memory_equal(got, want, (size_t)want_n + 1); /* and a NUL */
	free(got);
	redisFreeCommand(want);
}

static void test_lengths_of_any_number_of_digits(void **state)
{
	(void)state;
	static char text[100001];
	static const size_t lengths[] = { 0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, 100000 };

	for (size_t i = 0; i < sizeof text; i++)
		text[i] = (char)(i % 251);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		const char *argv[] = { "EVALSHA", text, "x" };
		const size_t bytes[] = { 7, lengths[i], 1 };
		assert_as_hiredis(3, argv, bytes);
	}
}

static void test_any_number_of_arguments(void **state)
{
	(void)state;
	static const char *argv[300];
	static size_t bytes[300];

	for (unsigned n = 1; n <= 300; n++) {
		argv[n - 1] = "0123456789\r\n";
		bytes[n - 1] = n % 13;
		assert_as_hiredis(n, argv, bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths_of_any_number_of_digits),
		cmocka_unit_test(test_any_number_of_arguments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
