/* Paths and hosts in their normal form: a table whose rows read as sentences. */
#include "limit/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct row {
	const char *what, *raw, *normal;
};

static const struct row paths[] = {
	{ "a plain path is itself", "/api/v1", "/api/v1" },
	{ "the root is itself", "/", "/" },
	{ "empty is the root", "", "/" },
	{ "a query is cut", "/a?b=c", "/a" },
	{ "a query alone is the root", "?b", "/" },
	{ "a fragment is cut", "/a#b", "/a" },
	{ "a question mark in a fragment changes nothing", "/a#b?c", "/a" },
	{ "dots in a query are not resolved", "/a?/../b", "/a" },
	{ "dot-dot takes the segment before", "/api/../auth/login", "/auth/login" },
	{ "an escaped letter and two slashes", "/%61uth//login", "/auth/login" },
	{ "dot-dot at the end leaves a slash", "/a/..", "/" },
	{ "a dot at the end leaves a slash", "/a/.", "/a/" },
	{ "one level less", "/a/b/..", "/a/" },
	{ "above the root is the root", "/../../a", "/a" },
	{ "only dots above the root", "/..", "/" },
	{ "a dot alone", "/.", "/" },
	{ "a dot in the middle", "/a/./b", "/a/b" },
	{ "three dots are a name", "/a/...", "/a/..." },
	{ "hidden files are names", "/.well-known/x", "/.well-known/x" },
	{ "dots behind a name are a name", "/a../b", "/a../b" },
	{ "slashes are merged", "//a///b//", "/a/b/" },
	{ "slashes are merged before dots are resolved", "/a//../b", "/b" },
	{ "escaped dots are dots", "/a/%2e%2E/b", "/b" },
	{ "an escaped slash stays, in upper case", "/a%2fb", "/a%2Fb" },
	{ "an escaped slash is no separator", "/a%2F../b", "/a%2F../b" },
	{ "reserved characters stay escaped", "/%3a%5b", "/%3A%5B" },
	{ "every kind of unreserved is decoded", "/%7E%2D%5F%41%7a%30", "/~-_Az0" },
	{ "a broken escape stays", "/a%2", "/a%2" },
	{ "a broken escape stays as it is written", "/a%zz%g1%", "/a%zz%g1%" },
	{ "decoded once only", "/%2561", "/%2561" },
	{ "the authority of an absolute form is cut", "http://host:80/a/../b", "/b" },
	{ "an absolute form without path", "http://host", "/" },
	{ "an absolute form with a query only", "https://host?x", "/" },
	{ "a slash in its query begins no path", "http://host?next=/a", "/" },
	{ "nor does one in its fragment", "http://host#/a", "/" },
	{ "another scheme", "a+b-c.1://h/x", "/x" },
	{ "no scheme begins with a digit", "1a://h/x", "1a://h/x" },
	{ "a colon in a path is no scheme", "/a://b", "/a:/b" },
	{ "the asterisk form stays", "*", "*" },
	{ "the authority form stays", "host:443", "host:443" },
};

static const struct row hosts[] = {
	{ "lower case stays", "example.com", "example.com" },
	{ "upper case goes", "Example.COM", "example.com" },
	{ "a port goes", "example.com:8080", "example.com" },
	{ "a final dot goes", "example.com.", "example.com" },
	{ "both go", "EXAMPLE.com.:80", "example.com" },
	{ "an empty port goes", "example.com:", "example.com" },
	{ "an IPv6 literal keeps its brackets", "[2001:DB8::1]:443", "[2001:db8::1]" },
	{ "an IPv6 literal without port", "[::1]", "[::1]" },
	{ "an IPv6 address without brackets is left whole", "::1", "::1" },
	{ "nothing is nothing", "", "" },
	{ "a port alone is nothing", ":80", "" },
};

/* The raw bytes end where memory ends (ASan sees one byte too many), and so does the output. */
static void check(const struct row *r, struct str (*normalise)(struct str, char *), size_t room)
{
	size_t n = strlen(r->raw);
	char *raw = malloc(n ? n : 1), *out = malloc(n + room ? n + room : 1);
	memcpy(raw, r->raw, n);
	struct str s = normalise((struct str){ raw, n }, out);
	if (!str_eq(s, str_of(r->normal)))
		fail_msg("%s: \"%s\": want \"%s\", got \"%.*s\"", r->what, r->raw, r->normal,
			(int)s.n, s.p);
	free(raw);
	free(out);
}

static void test_paths(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		check(&paths[i], path_normalise, 1);
}

static void test_hosts(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
		check(&hosts[i], host_normalise, 0);
}

/* What is normal stays as it is: for the table, and for random texts of the characters that matter.
 */
static void test_normal_form_is_stable(void **state)
{
	static const char alphabet[] = "/..%2eEfF/a?#:";
	uint32_t seed = 12345;
	char raw[24], once[32], twice[32];

	(void)state;
	for (int i = 0; i < 200000; i++) {
		size_t n = 0;
		do {
			seed = seed * 1664525u + 1013904223u;
			raw[n++] = alphabet[(seed >> 16) % (sizeof alphabet - 1)];
		} while (n < sizeof raw && (seed >> 24) % 16);
		struct str a = path_normalise((struct str){ raw, n }, once);
		struct str b = path_normalise(a, twice);
		assert_true(a.n <= n + 1);
		/* only what begins like a path has the property: "a://b" is an absolute form twice
		 */
		if (a.p[0] == '/' && !str_eq(a, b))
			fail_msg("\"%.*s\" -> \"%.*s\" -> \"%.*s\"", (int)n, raw, (int)a.n, a.p,
				(int)b.n, b.p);
	}
}

/* A path alone is looked at by sixteen bytes at once, after an authority by one: the same comes
 * out. */
static void test_sixteen_at_once_or_one(void **state)
{
	static const char alphabet[] = "aaaabcdzAZ0019--__~:@!$&=\x01\x80\xff//..%?#";
	uint32_t seed = 54321;
	char raw[64] = "http://h/", alone[64], after[64];

	(void)state;
	for (int i = 0; i < 400000; i++) {
		size_t begin = 8, n = begin + 1;
		seed = seed * 1664525u + 1013904223u;
		size_t end = n + (seed >> 16) % (sizeof raw - n);
		unsigned rare = seed >> 28 &
				1; /* half of them have few of the characters that matter */
		while (n < end) {
			seed = seed * 1664525u + 1013904223u;
			unsigned which = (seed >> 16) % (sizeof alphabet - 1);
			if (rare && (seed >> 8 & 15))
				which %= 16;
			raw[n++] = alphabet[which];
		}
		char *tight = malloc(n - begin); /* a byte too many is seen */
		assert_non_null(tight);
		memcpy(tight, raw + begin, n - begin);
		struct str a = path_normalise((struct str){ tight, n - begin }, alone);
		struct str b = path_normalise((struct str){ raw, n }, after);
		if (!str_eq(a, b))
			fail_msg("\"%.*s\" -> \"%.*s\", not \"%.*s\"", (int)n, raw, (int)a.n, a.p,
				(int)b.n, b.p);
		free(tight);
	}
}

/* A NUL is no letter of a scheme. */
static void test_nul_bytes(void **state)
{
	static const char raw[] = "a\0://h/x";
	char out[sizeof raw];
	struct str s = path_normalise((struct str){ raw, sizeof raw - 1 }, out);

	(void)state;
	assert_true(str_eq(s, (struct str){ raw, sizeof raw - 1 }));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_nul_bytes),
		cmocka_unit_test(test_normal_form_is_stable),
		cmocka_unit_test(test_sixteen_at_once_or_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
