#include "base/cmac.h"

#include "base/hash.h"
#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void skip_without(void)
{
	if (!cmac_is_there()) {
		print_message("this processor has no AES instructions\n");
		skip();
	}
}

static void get(const uint8_t *p, size_t n, const struct cmac *c, uint8_t out[CMAC_BYTES])
{
	uint64_t word[2];

	cmac_of(c, p, n, word);
	for (unsigned i = 0; i < CMAC_BYTES; i++)
		out[i] = (uint8_t)(word[i / 8] >> 8 * (i % 8));
}

/* RFC 4493 section 4 */
static const uint8_t key[CMAC_BYTES] = { 0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7,
	0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c };
static const uint8_t message[64] = { 0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d,
	0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a, 0xae, 0x2d, 0x8a, 0x57, 0x1e, 0x03, 0xac, 0x9c, 0x9e,
	0xb7, 0x6f, 0xac, 0x45, 0xaf, 0x8e, 0x51, 0x30, 0xc8, 0x1c, 0x46, 0xa3, 0x5c, 0xe4, 0x11,
	0xe5, 0xfb, 0xc1, 0x19, 0x1a, 0x0a, 0x52, 0xef, 0xf6, 0x9f, 0x24, 0x45, 0xdf, 0x4f, 0x9b,
	0x17, 0xad, 0x2b, 0x41, 0x7b, 0xe6, 0x6c, 0x37, 0x10 };

static const struct {
	size_t n;
	uint8_t mac[CMAC_BYTES];
} vectors[] = {
	{ 0, { 0xbb, 0x1d, 0x69, 0x29, 0xe9, 0x59, 0x37, 0x28, 0x7f, 0xa3, 0x7d, 0x12, 0x9b, 0x75,
		     0x67, 0x46 } },
	{ 16, { 0x07, 0x0a, 0x16, 0xb4, 0x6b, 0x4d, 0x41, 0x44, 0xf7, 0x9b, 0xdd, 0x9d, 0xd0, 0x4a,
		      0x28, 0x7c } },
	{ 40, { 0xdf, 0xa6, 0x67, 0x47, 0xde, 0x9a, 0xe6, 0x30, 0x30, 0xca, 0x32, 0x61, 0x14, 0x97,
		      0xc8, 0x27 } },
	{ 64, { 0x51, 0xf0, 0xbe, 0xbf, 0x7e, 0x3b, 0x9d, 0x92, 0xfc, 0x49, 0x74, 0x17, 0x79, 0x36,
		      0x3c, 0xfe } },
};

static void it_is_the_standard_s(void **state)
{
	struct cmac c;
	uint8_t mac[CMAC_BYTES];

	(void)state;
	skip_without();
	cmac_init(&c, key);
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
		get(message, vectors[i].n, &c, mac);
		assert_memory_equal(mac, vectors[i].mac, sizeof mac);
	}
	get(NULL, 0, &c, mac);
	assert_memory_equal(mac, vectors[0].mac, sizeof mac);
}

/* One block, encrypted: what becomes of a message that is one. */
static void encrypt(const struct cmac *c, uint8_t block[CMAC_BYTES])
{
	for (unsigned i = 0; i < CMAC_BYTES; i++)
		block[i] ^= c->whole[i];
	get(block, CMAC_BYTES, c, block);
}

/* Byte by byte, as the standard has it. */
static void by_definition(const struct cmac *c, const uint8_t *p, size_t n, uint8_t out[CMAC_BYTES])
{
	size_t last = n ? (n - 1) / CMAC_BYTES * CMAC_BYTES : 0;
	bool whole = n && n % CMAC_BYTES == 0;

	memset(out, 0, CMAC_BYTES);
	for (size_t at = 0; at <= last; at += CMAC_BYTES) {
		for (size_t i = at; i < at + CMAC_BYTES; i++) {
			uint8_t of_subkey = whole ? c->whole[i - at] : c->part[i - at];
			out[i - at] ^= i < n ? p[i] : i == n ? 0x80 : 0;
			out[i - at] ^= at == last ? of_subkey : 0;
		}
		encrypt(c, out);
	}
}

static void every_length_is_by_definition(void **state)
{
	enum { LONGEST = 100 };
	struct guard g = guard_new(LONGEST);
	struct cmac c;
	uint32_t seed = 1;

	(void)state;
	skip_without();
	for (unsigned turn = 0; turn < 50; turn++) {
		uint8_t some_key[CMAC_BYTES], bytes[LONGEST], want[CMAC_BYTES], got[CMAC_BYTES];
		for (unsigned i = 0; i < LONGEST + CMAC_BYTES; i++) {
			seed = seed * 1664525u + 1013904223u;
			*(i < LONGEST ? &bytes[i] : &some_key[i - LONGEST]) = (uint8_t)(seed >> 24);
		}
		cmac_init(&c, some_key);
		for (size_t n = 0; n <= LONGEST; n++) {
			by_definition(&c, bytes, n, want);
			get(guard_copy(&g, bytes, n), n, &c, got);
			if (memcmp(want, got, sizeof got) != 0)
				fail_msg("%zu bytes", n);
		}
	}
	guard_free(&g);
}

/* The kind of a key is what it is hashed by. */
static void a_hasher_goes_by_the_kind(void **state)
{
	struct hash_key sip = { .kind = HASH_SIPHASH }, aes = { .kind = HASH_AES };
	struct hasher h;
	struct cmac c;
	uint64_t word[2];

	(void)state;
	skip_without();
	memcpy(sip.bytes, key, sizeof key);
	memcpy(aes.bytes, key, sizeof key);
	hasher_init(&h, &sip);
	struct key a = hasher_of(&h, message, 21), b = hash_keyed(&sip, message, 21);
	assert_memory_equal(&a, &b, sizeof a);
	hasher_init(&h, &aes);
	a = hasher_of(&h, message, 21);
	cmac_init(&c, key);
	cmac_of(&c, message, 21, word);
	assert_true(a.a == word[0] && a.b == word[1]);
	assert_memory_equal(&h.key, &aes, sizeof aes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_the_standard_s),
		cmocka_unit_test(every_length_is_by_definition),
		cmocka_unit_test(a_hasher_goes_by_the_kind),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
