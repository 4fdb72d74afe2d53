#include "base/hash.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The reference's vectors: key 00 01 .. 0f, input the bytes 0, 1, 2, .. */
static const uint8_t siphash[][16] = {
	{ 0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
		0x93 },
	{ 0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc,
		0x45 },
	{ 0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff,
		0xe4 },
	{ 0x9c, 0x70, 0xb6, 0x0c, 0x52, 0x67, 0xa9, 0x4e, 0x5f, 0x33, 0xb6, 0xb0, 0x29, 0x85, 0xed,
		0x51 },
};

static uint64_t le64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

static void keyed_hash_is_siphash_2_4_of_128_bits(void **state)
{
	(void)state;
	struct hash_key key;
	uint8_t input[4];

	for (uint8_t i = 0; i < sizeof key.bytes; i++)
		key.bytes[i] = i;
	for (uint8_t i = 0; i < sizeof input; i++)
		input[i] = i;
	for (size_t n = 0; n < sizeof siphash / sizeof *siphash; n++) {
		struct key k = hash_keyed(&key, input, n);
		assert_int_equal(k.a, le64(siphash[n]));
		assert_int_equal(k.b, le64(siphash[n] + 8));
	}
	struct key none = hash_keyed(&key, NULL, 0);
	assert_int_equal(none.a, le64(siphash[0]));
}

static void keyed_hash_depends_on_all_of_it(void **state)
{
	(void)state;
	struct guard g = guard_new(64);
	struct hash_key key, other;

	hash_key_random(&key);
	hash_key_random(&other);
	assert_memory_not_equal(&key, &other, sizeof key);
	memset(g.end - 64, 0, 64);
	for (size_t n = 0; n < 64; n++) {
		uint8_t *p = g.end - n;
		struct key k = hash_keyed(&key, p, n), same = hash_keyed(&key, p, n);
		struct key keyed = hash_keyed(&other, p, n),
			   longer = hash_keyed(&key, p - 1, n + 1);

		assert_memory_equal(&k, &same, sizeof k);
		assert_true(k.a != keyed.a && k.b != keyed.b);
		assert_true(k.a != longer.a && k.b != longer.b);
		for (size_t i = 0; i < n; i++) {
			p[i] ^= 1;
			struct key flipped = hash_keyed(&key, p, n);
			p[i] ^= 1;
			assert_true(k.a != flipped.a && k.b != flipped.b);
		}
	}
	guard_free(&g);
}

/* Agents that share counters find them by the same hash, whatever their machines have. */
static void a_derived_key_is_one_that_every_machine_can_use(void **state)
{
	(void)state;
	struct hash_key one, other;

	memset(&one, 0xee, sizeof one);
	memset(&other, 0x11, sizeof other);
	hash_key_derive(&one, "purpose", STR("secret"));
	hash_key_derive(&other, "purpose", STR("secret"));
	assert_memory_equal(&one, &other, sizeof one);
	assert_int_equal(one.kind, HASH_SIPHASH);
	hash_key_random(&one);
	assert_int_equal(one.kind, cmac_is_there() ? HASH_AES : HASH_SIPHASH);
}

static void a_key_is_hashed_in_turn_by_one_byte_order(void **state)
{
	static const uint8_t want[KEY_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
		16 };
	const struct key k = { UINT64_C(0x0807060504030201), UINT64_C(0x100f0e0d0c0b0a09) };
	uint8_t got[KEY_BYTES];

	(void)state;
	key_put(&k, got);
	assert_memory_equal(got, want, sizeof got);
}

static void sha256_is_the_standard_s(void **state)
{
	(void)state;
	char hex[SHA256_HEX_BYTES + 1];

	hex[SHA256_HEX_BYTES] = '#';
	hash_sha256_hex((struct str){ 0 }, hex);
	assert_memory_equal(hex,
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855#", sizeof hex);
	hash_sha256_hex(STR("abc"), hex);
	assert_memory_equal(hex,
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad#", sizeof hex);
	hash_sha256_hex(STR("a\0b"), hex); /* a NUL is a byte like any other */
	assert_memory_not_equal(hex,
		"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
		SHA256_HEX_BYTES);
}

static void test_hash_in_part(void **state)
{
	static const struct {
		const char *said;
		unsigned digits;
	} row[] = {
		{ "", 0 },
		{ "sha256:", 0 },
		{ "sha256:0123456789a", 0 },
		{ "sha256:0123456789aB", 12 },
		{ "sha256:0123456789abc", 13 },
		{ "SHA256:0123456789abc", 13 },
		{ "sha256:0123456789ag", 0 },
		{ "sha255:0123456789ab", 0 },
		{ "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", 63 },
		{ "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 0 },
	};
	(void)state;

	assert_int_equal(hash_said_in_part((struct str){ 0 }).n, 0);
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		if (hash_said_in_part(str_of(row[i].said)).n != row[i].digits)
			fail_msg("%s", row[i].said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keyed_hash_is_siphash_2_4_of_128_bits),
		cmocka_unit_test(keyed_hash_depends_on_all_of_it),
		cmocka_unit_test(a_derived_key_is_one_that_every_machine_can_use),
		cmocka_unit_test(a_key_is_hashed_in_turn_by_one_byte_order),
		cmocka_unit_test(sha256_is_the_standard_s),
		cmocka_unit_test(test_hash_in_part),
	};

	if (!hash_init() || !hash_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
