/* Names and their numbers; and secrets by the hashes that are listed, as if nothing were remembered
 * of what was found before. */
#include "limit/names.h"

#include "base/hash.h"
#include "../../chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct str numbered(char text[32], unsigned i)
{
	return (struct str){ text, (size_t)snprintf(text, 32, "sk-live-%u", i) };
}

static struct str hash_of(unsigned i, char hex[SHA256_HEX_BYTES])
{
	char text[32];

	hash_sha256_hex(numbered(text, i), hex);
	return (struct str){ hex, SHA256_HEX_BYTES };
}

static void the_first_of_equal_names_counts(void **state)
{
	struct names *names = names_new();
	char text[32];
	(void)state;

	assert_int_equal(names_find(names, STR("sk-live-1")), -1);
	for (unsigned i = 0; i < 5000; i++)
		assert_true(names_add(names, numbered(text, i % 3000), i));
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(names_find(names, numbered(text, i)), i);
	assert_int_equal(names_find(names, STR("sk-live-3000")), -1);
	assert_int_equal(names_find(names, STR("")), -1);
	names_free(names);
}

/* More than are remembered, some again and again, a third of them listed. */
static void secrets_are_found_by_their_hashes(void **state)
{
	enum { SECRETS = 30000, LISTED = SECRETS / 3 };
	struct names *names = names_new_of_hashes();
	struct chance c = { 1 };
	char hex[SHA256_HEX_BYTES], text[32];
	(void)state;

	assert_int_equal(names_find_secret(names, STR("sk-live-1")), -1);
	/* The ends of what a number may be are among them. */
	for (unsigned i = 0; i < LISTED; i++)
		assert_true(names_add(names, hash_of(i, hex), i ? NAMES_OF_HASHES_MAX - i : 0));
	for (unsigned i = 0; i < 200000; i++) {
		unsigned n = (unsigned)between(&c, 0, one_in(&c, 2) ? 99 : SECRETS - 1);
		if (one_in(&c, 3))
			n = SECRETS - 1 - n;
		int64_t wanted = n >= LISTED ? -1 : n ? NAMES_OF_HASHES_MAX - (int64_t)n : 0;
		assert_int_equal(names_find_secret(names, numbered(text, n)), wanted);
	}
	/* A hash is no secret. */
	assert_int_equal(names_find_secret(names, hash_of(0, hex)), -1);
	assert_int_equal(names_find(names, hash_of(0, hex)), 0);
	names_free(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_of_equal_names_counts),
		cmocka_unit_test(secrets_are_found_by_their_hashes),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
