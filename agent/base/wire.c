#include "base/wire.h"

/* The first byte holds 4 bits of the value besides its marker, each following one 7; bits are
 * added, not or-ed, which is what leaves no two encodings of one value. */
enum { FIRST_SHIFT = 4, NEXT_SHIFT = 7 };

uint64_t wire_get_varint_long(struct wire_reader *r)
{
	if (r->bad)
		return 0;
	size_t left = wire_left(r);
	if (left == 0) {
		r->bad = true;
		return 0;
	}
	uint64_t v = r->p[0];
	if (v < 240) {
		r->p++;
		return v;
	}
	unsigned shift = FIRST_SHIFT;
	for (size_t i = 1; i < VARINT_MAX_BYTES && i < left; i++) {
		uint64_t byte = r->p[i];
		uint64_t add = byte << shift;
		/* Bits that the shift lost, or a carry out of the sum: no 64-bit value. */
		if (add >> shift != byte || add > UINT64_MAX - v)
			break;
		v += add;
		if (byte < 128) {
			r->p += i + 1;
			return v;
		}
		shift += NEXT_SHIFT;
	}
	r->bad = true;
	return 0;
}

void wire_put_varint_long(struct wire_writer *w, uint64_t v)
{
	uint8_t bytes[VARINT_MAX_BYTES];

	wire_put_bytes(w, bytes, (size_t)(varint_put(bytes, v) - bytes));
}
