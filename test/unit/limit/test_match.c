/* Patterns: what they match, and which are refused. */
#include "limit/match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct layout layout;
static char scratch[65536];

struct row {
	const char *what;
	unsigned slot;
	const char *pattern[4];
	const char *value; /* NULL: the field is absent */
	bool holds;
};

static const struct row rows[] = {
	{ "text matches itself", FIELD_USER, { "alice" }, "alice", true },
	{ "text matches nothing longer", FIELD_USER, { "alice" }, "alice2", false },
	{ "case counts", FIELD_USER, { "alice" }, "Alice", false },
	{ "a star matches any run", FIELD_USER, { "a*e" }, "alice", true },
	{ "a star matches nothing, too", FIELD_USER, { "a*lice" }, "alice", true },
	{ "what is before and behind a star may not overlap", FIELD_USER, { "aba*aba" }, "aba",
		false },
	{ "a star alone", FIELD_USER, { "*" }, "x", true },
	{ "two stars", FIELD_USER, { "*lic*" }, "alice", true },
	{ "parts come in order", FIELD_USER, { "*c*i*" }, "alice", false },
	{ "parts do not overlap", FIELD_USER, { "*aa*aa*" }, "aaa", false },
	{ "the last part is a suffix", FIELD_USER, { "*b*a" }, "aabaab", false },
	{ "the last part is found at the end though it comes earlier", FIELD_USER, { "*ab" },
		"abab", true },
	{ "two stars in a row are one", FIELD_USER, { "a**e" }, "alice", true },
	{ "an escaped star is a star", FIELD_USER, { "a\\*" }, "a*", true },
	{ "an escaped star is nothing else", FIELD_USER, { "a\\*" }, "ab", false },
	{ "an escaped exclamation mark at the front", FIELD_USER, { "\\!a" }, "!a", true },
	{ "another backslash is a backslash", FIELD_USER, { "a\\b" }, "a\\b", true },
	{ "an escaped backslash is one, and the star behind it a star", FIELD_USER, { "a\\\\*" },
		"a\\b", true },
	{ "an exclamation mark elsewhere has no escape", FIELD_USER, { "a\\!b" }, "a\\!b", true },
	{ "one of several", FIELD_USER, { "bob", "alice" }, "alice", true },
	{ "none of several", FIELD_USER, { "bob", "carol" }, "alice", false },
	{ "an excluded one", FIELD_USER, { "*", "!alice" }, "alice", false },
	{ "excluding wins in any order", FIELD_USER, { "!alice", "*" }, "alice", false },
	{ "another than the excluded one", FIELD_USER, { "!alice" }, "bob", true },
	{ "absent matches no pattern", FIELD_USER, { "*" }, NULL, false },
	{ "absent matches excluding patterns only", FIELD_USER, { "!alice" }, NULL, true },
	{ "absent: excluding and others", FIELD_USER, { "!alice", "*" }, NULL, false },
	{ "empty is absent", FIELD_USER, { "*" }, "", false },
	{ "a path pattern", FIELD_PATH, { "/api/*" }, "/api/x", true },
	{ "a path is matched in its normal form", FIELD_PATH, { "/auth/*" }, "/api/..//%61uth/x",
		true },
	{ "a path pattern without slash at its front", FIELD_PATH, { "*/api/*" }, "/v1/api/x",
		true },
	{ "a host pattern in upper case", FIELD_HOST, { "API.example.com-A-Z" },
		"api.EXAMPLE.com-a-z:80", true },
	{ "an address in a prefix", FIELD_IP, { "10.0.0.0/8" }, "10.1.2.3", true },
	{ "an address outside", FIELD_IP, { "10.0.0.0/8" }, "11.1.2.3", false },
	{ "an excluded prefix", FIELD_IP, { "10.0.0.0/8", "!10.9.0.0/16" }, "10.9.1.1", false },
	{ "beside an excluded prefix", FIELD_IP, { "!10.9.0.0/16" }, "10.8.1.1", true },
	{ "a mapped address is IPv4", FIELD_IP, { "10.0.0.0/8" }, "::ffff:10.1.2.3", true },
	{ "a mapped prefix is IPv4", FIELD_IP, { "::ffff:10.0.0.0/104" }, "10.1.2.3", true },
	{ "all of IPv6 is not IPv4", FIELD_IP, { "::/0" }, "10.1.2.3", false },
	{ "a single IPv6 address", FIELD_IP, { "::1" }, "0:0::1", true },
	{ "no address is absent", FIELD_IP, { "0.0.0.0/0" }, "nobody", false },
	{ "no address matches excluding prefixes", FIELD_IP, { "!10.0.0.0/8" }, "nobody", true },
	{ "a star is any address", FIELD_IP, { "*" }, "::1", true },
	{ "no address", FIELD_IP, { "!*" }, NULL, true },
	{ "no address, there is one", FIELD_IP, { "!*" }, "10.0.0.1", false },
	{ "no address, there is one of IPv6", FIELD_IP, { "!*" }, "::1", false },
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct row *r = &rows[i];
		struct match *m = match_new();
		struct view v;
		char why[256] = "";

		for (int p = 0; p < 4 && r->pattern[p]; p++)
			if (!match_add(m, r->slot, str_of(r->pattern[p]), why, sizeof why))
				fail_msg("%s: refused: %s", r->what, why);
		assert_true(match_seal(m));
		view_init(&v, &layout, STR("check"), scratch, sizeof scratch);
		if (r->value)
			view_set_text(&v, r->slot, str_of(r->value));
		view_finish(&v);
		if (match_holds(m, &v) != r->holds)
			fail_msg("%s", r->what);
		assert_true(match_slots(m) == 1ull << r->slot);
		match_free(m);
	}
}

static const struct {
	unsigned slot;
	const char *pattern, *says;
} refused[] = {
	{ FIELD_USER, "", "empty" },
	{ FIELD_USER, "!", "empty" },
	{ FIELD_PATH, "/a/../b", "write \"/b\"" },
	{ FIELD_PATH, "/a//*", "write \"/a/*\"" },
	{ FIELD_PATH, "/%61*", "write \"/a*\"" },
	{ FIELD_PATH, "/a%2f", "write \"/a%2F\"" },
	{ FIELD_PATH, "/a?b", "write \"/a\"" },
	{ FIELD_PATH, "!/a/./b", "write \"/a/b\"" },
	{ FIELD_ENDPOINT, "POST:/a//b", "write \"POST:/a/b\"" },
	{ FIELD_ENDPOINT, "/login", "METHOD:/path" },
	{ FIELD_ENDPOINT, "GET/login", "METHOD:/path" },
	{ FIELD_HOST, "example.com:80", "write \"example.com\"" },
	{ FIELD_HOST, "https://example.com", "no scheme before it and no path" },
	{ FIELD_HOST, "*.example.com/api", "no scheme before it and no path" },
	{ FIELD_IP, "10.0.0.0/33", "no address or prefix" },
	{ FIELD_IP, "localhost", "no address or prefix" },
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		struct match *m = match_new();
		char why[256] = "";
		if (match_add(m, refused[i].slot, str_of(refused[i].pattern), why, sizeof why))
			fail_msg("\"%s\" was not refused", refused[i].pattern);
		if (!strstr(why, refused[i].says))
			fail_msg("\"%s\": \"%s\" does not say \"%s\"", refused[i].pattern, why,
				refused[i].says);
		match_free(m);
	}
}

static void test_all_fields_must_match(void **state)
{
	struct match *m = match_new();
	struct view v;
	char why[256];

	(void)state;
	assert_true(match_is_empty(m));
	assert_true(match_add(m, FIELD_USER, STR("alice"), why, sizeof why));
	assert_true(match_add(m, FIELD_METHOD, STR("POST"), why, sizeof why));
	assert_true(match_seal(m));
	assert_false(match_is_empty(m));
	view_init(&v, &layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&v, FIELD_USER, STR("alice"));
	assert_false(match_holds(m, &v));
	view_set_text(&v, FIELD_METHOD, STR("POST"));
	assert_true(match_holds(m, &v));
	match_free(m);
}

/* By the definition alone: a star is any run. */
static bool fits(struct str p, struct str s)
{
	if (p.n == 0)
		return s.n == 0;
	struct str rest = { p.p + 1, p.n - 1 };
	if (p.p[0] == '*') {
		for (size_t skip = 0; skip <= s.n; skip++)
			if (fits(rest, (struct str){ s.p + skip, s.n - skip }))
				return true;
		return false;
	}
	return s.n && s.p[0] == p.p[0] && fits(rest, (struct str){ s.p + 1, s.n - 1 });
}

static uint32_t seed;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % below;
}

/* Of `n` bytes: mostly one letter, some others, a NUL among them. */
static void put_random(char *out, size_t n)
{
	static const char rare[] = { 'b', '\0', '\xff', 'b' };
	for (size_t i = 0; i < n; i++)
		out[i] = rnd(8) ? 'a' : rare[rnd(4)];
}

/* Short patterns and long ones, with stars and without, and texts that nearly fit. */
static void test_as_defined(void **state)
{
	enum { LONGEST = 24 };
	unsigned held = 0;

	(void)state;
	seed = 7;
	for (unsigned i = 0; i < 200000; i++) {
		char pattern[2][LONGEST], why[256];
		struct match *m = match_new();
		struct str p[2];
		size_t n = 1 + rnd(LONGEST);
		/* not a byte more: whoever reads beyond it is seen */
		char *text = malloc(n);
		assert_non_null(text);
		put_random(text, n);
		for (unsigned k = 0; k < 2; k++) {
			p[k] = (struct str){ pattern[k], 1 + rnd(LONGEST) };
			put_random(pattern[k], p[k].n);
			if (rnd(4)) { /* the text, and a little more or less */
				size_t same = p[k].n < n ? p[k].n : n;
				memcpy(pattern[k], text, same);
				if (rnd(2))
					p[k].n = same;
			}
			for (unsigned stars = rnd(4); stars; stars--)
				pattern[k][rnd((uint32_t)p[k].n)] = '*';
			assert_true(match_add(m, FIELD_USER, p[k], why, sizeof why));
		}
		assert_true(match_seal(m));
		struct view v;
		view_init(&v, &layout, STR("check"), scratch, sizeof scratch);
		view_set_text(&v, FIELD_USER, (struct str){ text, n });
		bool wanted = fits(p[0], (struct str){ text, n }) ||
			      fits(p[1], (struct str){ text, n });
		if (match_holds(m, &v) != wanted)
			fail_msg("pattern %u: \"%.*s\" or \"%.*s\": \"%.*s\"", i, (int)p[0].n,
				p[0].p, (int)p[1].n, p[1].p, (int)n, text);
		held += wanted;
		match_free(m);
		free(text);
	}
	assert_true(held > 50000 && held < 150000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_all_fields_must_match),
		cmocka_unit_test(test_as_defined),
	};
	layout_init(&layout);
	layout.text_wanted = ~0ull;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
