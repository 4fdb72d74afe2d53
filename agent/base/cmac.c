#include "base/cmac.h"

#include <assert.h>

#if defined(__x86_64__)

#include <wmmintrin.h>

/* In functions that are only called where they are there; the rest of the program is for every
 * processor. */
#define WITH_AES __attribute__((target("aes")))

bool cmac_is_there(void)
{
	return __builtin_cpu_supports("aes");
}

/* Each word of a round key is the sum of those before it in the last one, and of `mixed`. */
static inline __m128i next_round_key(__m128i k, __m128i mixed)
{
	k = _mm_xor_si128(k, _mm_slli_si128(k, 4));
	k = _mm_xor_si128(k, _mm_slli_si128(k, 8));
	return _mm_xor_si128(k, mixed);
}

static WITH_AES inline __m128i encrypt(const struct cmac *c, __m128i block)
{
	const __m128i *round = (const __m128i *)c->round;

	block = _mm_xor_si128(block, round[0]);
	for (unsigned i = 1; i < CMAC_ROUND_KEYS - 1; i++)
		block = _mm_aesenc_si128(block, round[i]);
	return _mm_aesenclast_si128(block, round[CMAC_ROUND_KEYS - 1]);
}

/* Times x in GF(2^128), where the first byte is the highest. */
static void twice(const uint8_t in[CMAC_BYTES], uint8_t out[CMAC_BYTES])
{
	uint8_t carry = in[0] >> 7;

	for (unsigned i = 0; i < CMAC_BYTES; i++)
		out[i] = (uint8_t)(in[i] << 1 | (i + 1 < CMAC_BYTES ? in[i + 1] >> 7 : 0));
	out[CMAC_BYTES - 1] ^= carry ? 0x87 : 0;
}

WITH_AES void cmac_init(struct cmac *c, const uint8_t key[CMAC_BYTES])
{
	__m128i k = _mm_loadu_si128((const __m128i *)key);
	uint8_t zero[CMAC_BYTES];
	int constant = 1; /* powers of x in GF(2^8) */

	for (unsigned i = 0;; i++) {
		_mm_store_si128((__m128i *)c->round[i], k);
		if (i == CMAC_ROUND_KEYS - 1)
			break;
		__m128i mixed = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(k, 0), 0xff);
		k = next_round_key(k, _mm_xor_si128(mixed, _mm_set1_epi32(constant)));
		constant = constant & 0x80 ? (constant << 1 ^ 0x11b) : constant << 1;
	}
	_mm_storeu_si128((__m128i *)zero, encrypt(c, _mm_setzero_si128()));
	twice(zero, c->whole);
	twice(c->whole, c->part);
}

/* The last n < 16 bytes of a text, one that is 1 and then 0 bits. */
static inline __m128i padded(const char *p, size_t n)
{
	uint64_t low, high = 0;

	if (n < 8) {
		low = str_head((struct str){ p, n }) | (uint64_t)0x80 << 8 * n;
	} else {
		memcpy(&low, p, sizeof low);
		memcpy(&high, p + n - 8, sizeof high); /* the bytes before them are in `low` */
		high = high >> 8 >> 8 * (15 - n) | (uint64_t)0x80 << 8 * (n - 8);
	}
	return _mm_set_epi64x((int64_t)high, (int64_t)low);
}

WITH_AES void cmac_of(const struct cmac *c, const void *bytes, size_t n, uint64_t out[2])
{
	const char *p = bytes;
	__m128i sum = _mm_setzero_si128(), last;

	for (; n > CMAC_BYTES; n -= CMAC_BYTES, p += CMAC_BYTES)
		sum = encrypt(c, _mm_xor_si128(sum, _mm_loadu_si128((const __m128i *)p)));
	if (n == CMAC_BYTES)
		last = _mm_xor_si128(
			_mm_loadu_si128((const __m128i *)p), *(const __m128i *)c->whole);
	else
		last = _mm_xor_si128(padded(p, n), *(const __m128i *)c->part);
	_mm_storeu_si128((__m128i *)out, encrypt(c, _mm_xor_si128(sum, last)));
}

#else

bool cmac_is_there(void)
{
	return false;
}

void cmac_init(struct cmac *c, const uint8_t key[CMAC_BYTES])
{
	(void)c, (void)key;
	assert(!"there is no such thing");
}

void cmac_of(const struct cmac *c, const void *bytes, size_t n, uint64_t out[2])
{
	(void)c, (void)bytes, (void)n, (void)out;
	assert(!"there is no such thing");
}

#endif
