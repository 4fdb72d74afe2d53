#include "base/hash.h"

#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static_assert(sizeof(((struct hash_key *)0)->bytes) == crypto_shorthash_siphashx24_KEYBYTES,
	"the hash's key");
static_assert(sizeof(struct key) == crypto_shorthash_siphashx24_BYTES, "the hash");

bool hash_init(void)
{
	return sodium_init() >= 0; /* 1: it ran already */
}

void hash_key_random(struct hash_key *k)
{
	randombytes_buf(k->bytes, sizeof k->bytes);
	k->kind = cmac_is_there() ? HASH_AES : HASH_SIPHASH;
}

static_assert(sizeof(((struct hash_key *)0)->bytes) >= crypto_generichash_BYTES_MIN,
	"what BLAKE2b can give");

void hash_key_derive(struct hash_key *k, const char *purpose, struct str secret)
{
	crypto_generichash_state state;

	(void)crypto_generichash_init(&state, NULL, 0, sizeof k->bytes);
	/* with its NUL: no other purpose and secret make up the same bytes */
	(void)crypto_generichash_update(
		&state, (const unsigned char *)purpose, strlen(purpose) + 1);
	(void)crypto_generichash_update(
		&state, (const unsigned char *)(secret.p ? secret.p : ""), secret.n);
	(void)crypto_generichash_final(&state, k->bytes, sizeof k->bytes);
	explicit_bzero(&state, sizeof state);
	k->kind = HASH_SIPHASH;
}

/* In one byte order, so that a state file means the same on every machine. */
static uint64_t load_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return le64toh(v);
}

struct key hash_keyed(const struct hash_key *k, const void *p, size_t n)
{
	uint8_t out[crypto_shorthash_siphashx24_BYTES];

	/* Never NULL, not even for no bytes: what is below does pointer arithmetic. */
	(void)crypto_shorthash_siphashx24(out, p ? p : "", n, k->bytes);
	return (struct key){ load_le64(out), load_le64(out + 8) };
}

void hasher_init(struct hasher *h, const struct hash_key *key)
{
	memset(h, 0, sizeof *h);
	h->key = *key;
	if (key->kind == HASH_AES)
		cmac_init(&h->cmac, key->bytes);
}

void key_format(const struct key *k, char out[KEY_HEX_BYTES + 1])
{
	(void)snprintf(out, KEY_HEX_BYTES + 1, "%016" PRIx64 "%016" PRIx64, k->a, k->b);
}

bool key_parse(const char *hex, struct key *out)
{
	char half[KEY_HEX_BYTES / 2 + 1] = "";

	if (!hex || strlen(hex) != KEY_HEX_BYTES ||
		strspn(hex, "0123456789abcdef") != KEY_HEX_BYTES)
		return false;
	memcpy(half, hex, sizeof half - 1);
	out->a = strtoull(half, NULL, 16);
	out->b = strtoull(hex + sizeof half - 1, NULL, 16);
	return true;
}

void hash_sha256_hex(struct str s, char hex[SHA256_HEX_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t out[crypto_hash_sha256_BYTES];

	(void)crypto_hash_sha256(out, (const unsigned char *)(s.p ? s.p : ""), s.n);
	for (size_t i = 0; i < sizeof out; i++) {
		hex[2 * i] = digits[out[i] >> 4];
		hex[2 * i + 1] = digits[out[i] & 15];
	}
}

enum { SAID_PREFIX = 7 };

static bool has_said_prefix(struct str s)
{
	return s.n >= SAID_PREFIX && strncasecmp(s.p, "sha256:", SAID_PREFIX) == 0;
}

enum hash_said hash_said(struct str s, char hex[SHA256_HEX_BYTES])
{
	if (!has_said_prefix(s))
		return HASH_NOT_SAID;
	if (s.n != SAID_PREFIX + SHA256_HEX_BYTES)
		return HASH_SAID_BADLY;
	for (size_t i = 0; i < SHA256_HEX_BYTES; i++) {
		char c = s.p[SAID_PREFIX + i];
		if (!isxdigit((unsigned char)c))
			return HASH_SAID_BADLY;
		hex[i] = (char)tolower((unsigned char)c);
	}
	return HASH_SAID;
}

struct str hash_said_in_part(struct str s)
{
	enum { LEAST = 12 };
	struct str digits;

	if (s.n < SAID_PREFIX + LEAST || s.n >= SAID_PREFIX + SHA256_HEX_BYTES ||
		!has_said_prefix(s))
		return (struct str){ 0 };
	digits = (struct str){ s.p + SAID_PREFIX, s.n - SAID_PREFIX };
	for (size_t i = 0; i < digits.n; i++)
		if (!isxdigit((unsigned char)digits.p[i]))
			return (struct str){ 0 };
	return digits;
}
