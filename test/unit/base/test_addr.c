#include "base/addr.h"

#include "guard.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
	const char *text, *canonical; /* NULL: no address */
} addresses[] = {
	{ "0.0.0.0", "0.0.0.0" },
	{ "192.0.2.1", "192.0.2.1" },
	{ "255.255.255.255", "255.255.255.255" },
	{ "10.20.100.9", "10.20.100.9" },
	{ "::", "::" },
	{ "::1", "::1" },
	{ "1::", "1::" },
	{ "2001:DB8::0001", "2001:db8::1" },
	{ "2001:db8:0:0:0:0:2:1", "2001:db8::2:1" },
	{ "2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1" }, /* a single group stays */
	{ "2001:0:0:1:0:0:0:1", "2001:0:0:1::1" },          /* the longest run */
	{ "2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1" },    /* the first of equals */
	{ "0:0:1:0:0:0:0:0", "0:0:1::" },
	{ "0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7" },
	{ "1:2:3:4:5:6:0:0", "1:2:3:4:5:6::" },
	{ "ABCD:EF01:2345:6789:abcd:ef01:2345:6789", "abcd:ef01:2345:6789:abcd:ef01:2345:6789" },
	{ "64:ff9b::192.0.2.33", "64:ff9b::c000:221" },
	{ "::192.0.2.33", "::c000:221" }, /* compatible is not mapped */
	{ "::ffff:192.0.2.33", "192.0.2.33" },
	{ "::FFFF:c000:221", "192.0.2.33" },
	{ "0000:0000:0000:0000:0000:ffff:255.255.255.255", "255.255.255.255" },
	{ "::fffe:192.0.2.33", "::fffe:c000:221" },
	{ "", NULL },
	{ " 192.0.2.1", NULL },
	{ "192.0.2.1 ", NULL },
	{ "192.0.2.1:80", NULL },
	{ "192.0.2", NULL },
	{ "192.0.2.", NULL },
	{ "192.0.2.256", NULL },
	{ "192.0.2.010", NULL },
	{ "0x7f.0.0.1", NULL },
	{ "2130706433", NULL },
	{ "192.0.2.1.5", NULL },
	{ "-1.0.0.0", NULL },
	{ ":", NULL },
	{ ":::", NULL },
	{ "1::2::3", NULL },
	{ "1:2:3:4:5:6:7", NULL },
	{ "1:2:3:4:5:6:7:8:9", NULL },
	{ "12345::", NULL },
	{ "g::", NULL },
	{ "[::1]", NULL },
	{ "fe80::1%eth0", NULL },
	{ "::1/64", NULL },
	{ "::ffff:192.0.2.999", NULL },
	{ "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", NULL },
	{ "localhost", NULL },
};

static void text_becomes_canonical(void **state)
{
	(void)state;
	struct guard g = guard_new(64), room = guard_new(ADDR_TEXT_MAX);

	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		size_t n = strlen(addresses[i].text);
		const char *p = (const char *)guard_copy(&g, addresses[i].text, n);
		char *out = (char *)room.end - ADDR_TEXT_MAX;
		struct addr a;
		bool good = addr_parse((struct str){ p, n }, &a);

		if (good != (addresses[i].canonical != NULL))
			fail_msg("%s: %s", addresses[i].text, good ? "taken" : "refused");
		size_t out_n = addr_format(&a, out);
		const char *want = good ? addresses[i].canonical : "";
		if (out_n != strlen(want) || memcmp(out, want, out_n) != 0)
			fail_msg("%s: %.*s", addresses[i].text, (int)out_n, out);
		/* Every beginning of it, too: no crash, and no byte beyond. */
		for (size_t cut = 0; cut < n; cut++) {
			p = (const char *)guard_copy(&g, addresses[i].text, cut);
			(void)addr_parse((struct str){ p, cut }, &a);
		}
	}
	guard_free(&g);
	guard_free(&room);
}

static void nul_is_no_end(void **state)
{
	(void)state;
	struct addr a;

	assert_false(addr_parse(STR("192.0.2.1\0"), &a));
	assert_false(addr_parse(STR("192.0.2.1\0.5"), &a));
	assert_false(addr_parse(STR("::1\0"), &a));
	assert_false(addr_parse((struct str){ 0 }, &a));
}

static void bytes_become_addresses(void **state)
{
	(void)state;
	static const uint8_t mapped[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 1 };
	static const uint8_t ipv6[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 };
	struct addr a = addr_from_bytes(mapped, 16), b = addr_from_bytes(mapped + 12, 4);

	assert_int_equal(a.len, 4);
	assert_memory_equal(&a, &b, sizeof a);
	a = addr_from_bytes(ipv6, 16);
	assert_int_equal(a.len, 16);
	for (size_t n = 0; n < 16; n++) {
		if (n != 4)
			assert_int_equal(addr_from_bytes(ipv6, n).len, 0);
	}
	assert_int_equal(addr_from_bytes(NULL, 0).len, 0);
}

static uint64_t random_next(uint64_t *seed)
{
	uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Many groups of zero, so that what is compressed varies. */
static struct addr random_addr(uint64_t *seed)
{
	uint8_t bytes[16];
	uint64_t choice = random_next(seed);

	for (int i = 0; i < 16; i += 8) {
		uint64_t r = random_next(seed);
		memcpy(bytes + i, &r, 8);
	}
	if (choice & 1)
		return addr_from_bytes(bytes, 4);
	for (int i = 0; i < 8; i++) {
		if (choice >> (8 + i) & 1)
			memset(bytes + 2 * i, 0, 2);
		if (choice >> (16 + i) & 1)
			bytes[2 * i] = 0;
	}
	return addr_from_bytes(bytes, 16);
}

static void text_and_bytes_round_trip(void **state)
{
	(void)state;
	uint64_t seed = 3;

	for (int i = 0; i < 100000; i++) {
		struct addr a = random_addr(&seed), back;
		char text[ADDR_TEXT_MAX], libc[INET6_ADDRSTRLEN];
		size_t n = addr_format(&a, text);

		assert_true(addr_parse((struct str){ text, n }, &back));
		assert_memory_equal(&a, &back, sizeof a);
		/* The C library's text, where that is not the mixed notation. */
		assert_non_null(
			inet_ntop(a.len == 4 ? AF_INET : AF_INET6, a.bytes, libc, sizeof libc));
		if (a.len == 4 || !strchr(libc, '.')) {
			assert_int_equal(n, strlen(libc));
			assert_memory_equal(text, libc, n);
		}
	}
}

static void mask_cuts_bits(void **state)
{
	(void)state;
	struct addr a, want, masked;

	assert_true(addr_parse(STR("192.0.2.255"), &a));
	assert_true(addr_parse(STR("192.0.2.128"), &want));
	masked = addr_mask(&a, 25, 0);
	assert_memory_equal(&masked, &want, sizeof want);
	masked = addr_mask(&a, 32, 0);
	assert_memory_equal(&masked, &a, sizeof a);
	assert_true(addr_parse(STR("0.0.0.0"), &want));
	masked = addr_mask(&a, 0, 128);
	assert_memory_equal(&masked, &want, sizeof want);

	assert_true(addr_parse(STR("2001:db8:1:2:3:4:5:6"), &a));
	assert_true(addr_parse(STR("2001:db8:1:2::"), &want));
	masked = addr_mask(&a, 8, 64);
	assert_memory_equal(&masked, &want, sizeof want);
}

static const struct {
	const char *text, *addr; /* NULL: refused */
	unsigned prefix;
} cidrs[] = {
	{ "10.0.0.0/8", "10.0.0.0", 8 },
	{ "10.1.2.3/8", "10.0.0.0", 8 },
	{ "10.1.2.3", "10.1.2.3", 32 },
	{ "0.0.0.0/0", "0.0.0.0", 0 },
	{ "::/0", "::", 0 },
	{ "::1", "::1", 128 },
	{ "2001:db8::1/33", "2001:db8::", 33 },
	{ "::ffff:10.0.0.0/104", "10.0.0.0", 8 },
	{ "::ffff:10.1.2.3/104", "10.0.0.0", 8 },
	{ "::ffff:10.1.2.3", "10.1.2.3", 32 },
	{ "::ffff:0.0.0.0/96", "0.0.0.0", 0 },
	{ "::ffff:10.0.0.0/95", NULL, 0 }, /* all of IPv4 and more */
	{ "::ffff:10.0.0.0/8", NULL, 0 },
	{ "::ffff:10.0.0.0/129", NULL, 0 },
	{ "10.0.0.0/33", NULL, 0 },
	{ "::/129", NULL, 0 },
	{ "10.0.0.0/", NULL, 0 },
	{ "10.0.0.0/08", NULL, 0 },
	{ "10.0.0.0/-1", NULL, 0 },
	{ "10.0.0.0/+8", NULL, 0 },
	{ "10.0.0.0/8 ", NULL, 0 },
	{ "10.0.0.0/8/8", NULL, 0 },
	{ "10.0.0.0/4294967304", NULL, 0 },
	{ "10.0.0.0/255.0.0.0", NULL, 0 },
	{ "/8", NULL, 0 },
	{ "", NULL, 0 },
};

static void prefixes_are_read(void **state)
{
	(void)state;
	struct guard g = guard_new(64);

	for (size_t i = 0; i < sizeof cidrs / sizeof *cidrs; i++) {
		size_t n = strlen(cidrs[i].text);
		const char *p = (const char *)guard_copy(&g, cidrs[i].text, n), *why = NULL;
		struct cidr c;
		struct addr want;
		bool good = cidr_parse((struct str){ p, n }, &c, &why);

		if (good != (cidrs[i].addr != NULL))
			fail_msg("%s: %s", cidrs[i].text, good ? "taken" : "refused");
		if (!good) {
			assert_non_null(why);
			continue;
		}
		assert_true(addr_parse(str_of(cidrs[i].addr), &want));
		assert_int_equal(c.prefix, cidrs[i].prefix);
		assert_memory_equal(&c.addr, &want, sizeof want);
	}
	guard_free(&g);
}

static bool cidr_has(const struct cidr *c, const struct addr *a)
{
	struct addr masked = addr_mask(a, c->prefix, c->prefix);

	return a->len == c->addr.len && memcmp(masked.bytes, c->addr.bytes, a->len) == 0;
}

static void a_set_has_what_one_of_its_prefixes_has(void **state)
{
	(void)state;
	enum { ROUNDS = 60, PREFIXES = 200, PROBES = 400 };
	uint64_t seed = 4;

	for (int round = 0; round < ROUNDS; round++) {
		struct cidr_set *set = cidr_set_new();
		struct cidr c[PREFIXES];
		size_t n = random_next(&seed) % (PREFIXES + 1), found = 0;

		assert_non_null(set);
		for (size_t i = 0; i < n; i++) {
			struct addr a = random_addr(&seed);
			unsigned bits = (unsigned)(random_next(&seed) % (a.len * 8u + 1));

			/* Short ones seldom: one of them holds everything. */
			if (bits < 8)
				bits += 8;
			c[i] = (struct cidr){ addr_mask(&a, bits, bits), (uint8_t)bits };
			assert_true(cidr_set_add(set, &c[i]));
		}
		cidr_set_seal(set);
		for (int probe = 0; probe < PROBES; probe++) {
			struct addr a = random_addr(&seed);
			bool want = false;

			/* Half of them at an edge of a prefix, or beside it. */
			if (n && probe % 2) {
				const struct cidr *near = &c[random_next(&seed) % n];
				unsigned bit = (unsigned)(random_next(&seed) %
							  (near->addr.len * 8u));
				a = near->addr;
				if (random_next(&seed) & 1)
					a.bytes[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
				if (random_next(&seed) & 1) {
					for (unsigned i = near->prefix; i < a.len * 8u; i++)
						a.bytes[i / 8] |= (uint8_t)(0x80 >> i % 8);
				}
			}
			for (size_t i = 0; i < n && !want; i++)
				want = cidr_has(&c[i], &a);
			found += want;
			assert_int_equal(cidr_set_has(set, &a), want);
		}
		if (n > 20)
			assert_true(found > 0);
		cidr_set_free(set);
	}
}

static void families_are_apart(void **state)
{
	(void)state;
	struct cidr_set *set = cidr_set_new();
	struct addr ipv4, ipv6;
	struct cidr all;
	const char *why;

	assert_true(addr_parse(STR("0.0.0.1"), &ipv4));
	assert_true(addr_parse(STR("::1"), &ipv6));
	assert_true(cidr_parse(STR("::/0"), &all, &why));
	assert_true(cidr_set_add(set, &all));
	cidr_set_seal(set);
	assert_true(cidr_set_has(set, &ipv6));
	assert_false(cidr_set_has(set, &ipv4));
	assert_false(cidr_set_has(set, &(struct addr){ .len = 0 }));
	cidr_set_free(set);
	cidr_set_free(NULL);

	set = cidr_set_new();
	cidr_set_seal(set);
	assert_false(cidr_set_has(set, &ipv4));
	assert_false(cidr_set_has(set, &ipv6));
	cidr_set_free(set);
}

/* Quadratic work would take minutes here. */
static void a_large_set_is_sealed_at_once(void **state)
{
	(void)state;
	enum { MANY = 100000 };
	struct cidr_set *set = cidr_set_new();
	uint64_t seed = 5;

	for (int i = 0; i < MANY; i++) {
		struct addr a = random_addr(&seed);
		struct cidr c = { a, (uint8_t)(a.len * 8) };
		assert_true(cidr_set_add(set, &c));
	}
	cidr_set_seal(set);
	seed = 5;
	for (int i = 0; i < MANY; i++) {
		struct addr a = random_addr(&seed);
		assert_true(cidr_set_has(set, &a));
	}
	cidr_set_free(set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_becomes_canonical),
		cmocka_unit_test(nul_is_no_end),
		cmocka_unit_test(bytes_become_addresses),
		cmocka_unit_test(text_and_bytes_round_trip),
		cmocka_unit_test(mask_cuts_bits),
		cmocka_unit_test(prefixes_are_read),
		cmocka_unit_test(a_set_has_what_one_of_its_prefixes_has),
		cmocka_unit_test(families_are_apart),
		cmocka_unit_test(a_large_set_is_sealed_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
