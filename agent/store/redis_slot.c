#include "store/redis_slot.h"

const char redis_base64url[65] = { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				   "0123456789-_" };

/* The first 18 bits of its bytes, little-endian, as a key's characters are. */
void redis_tag(const struct key *k, const struct key *salt, char tag[REDIS_TAG_BYTES])
{
	uint64_t descriptor = k->a ^ salt->a;
	unsigned bits = (unsigned)(descriptor & 0xff) << 16 | (unsigned)(descriptor & 0xff00) |
			(unsigned)(descriptor >> 16 & 0xff);

	for (unsigned i = 0; i < REDIS_TAG_BYTES; i++)
		tag[i] = redis_base64url[bits >> (18 - 6 * i) & 63];
}

uint16_t redis_crc16(const void *p, size_t n)
{
	const uint8_t *byte = p;
	unsigned crc = 0;

	for (size_t i = 0; i < n; i++) {
		crc ^= (unsigned)byte[i] << 8;
		for (unsigned k = 0; k < 8; k++)
			crc = (crc << 1 ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
	}
	return (uint16_t)crc;
}

uint16_t redis_slot_of(const struct key *k, const struct key *salt)
{
	char tag[REDIS_TAG_BYTES];

	redis_tag(k, salt, tag);
	return redis_crc16(tag, sizeof tag) % REDIS_SLOTS;
}

uint16_t redis_slot(const struct take *t)
{
	return redis_slot_of(&t->key, &t->limit->salt);
}
