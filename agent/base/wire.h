/* Bounded, sticky-error cursors over SPOP bytes. Knows nothing of frames, files or limits.
 *
 * A reader that was asked for more than it has sets `bad` and returns zero from then on; a writer
 * that has no room sets `bad` and writes nothing more. So code reads or writes straight through
 * and looks once, at the end. Bytes: SPOE.txt 3.1 ("peers" varint, big-endian 32-bit words). */
#ifndef BASE_WIRE_H
#define BASE_WIRE_H

#include "base/str.h"

#include <stdint.h>

struct wire_reader {
	const uint8_t *p, *end;
	bool bad;
};

struct wire_writer {
	uint8_t *p, *end;
	bool bad;
};

enum { VARINT_MAX_BYTES = 10 }; /* of a 64-bit value */

static inline size_t wire_left(const struct wire_reader *r)
{
	return (size_t)(r->end - r->p);
}

static inline size_t wire_room(const struct wire_writer *w)
{
	return (size_t)(w->end - w->p);
}

static inline uint8_t wire_get_u8(struct wire_reader *r)
{
	if (r->bad || r->p == r->end) {
		r->bad = true;
		return 0;
	}
	return *r->p++;
}

static inline uint32_t wire_get_u32(struct wire_reader *r)
{
	if (r->bad || wire_left(r) < 4) {
		r->bad = true;
		return 0;
	}
	uint32_t v = (uint32_t)r->p[0] << 24 | (uint32_t)r->p[1] << 16 | (uint32_t)r->p[2] << 8 |
		     r->p[3];
	r->p += 4;
	return v;
}

/* Out of line: two bytes and more. Refuses more than 10 bytes and sums beyond 64 bits. */
uint64_t wire_get_varint_long(struct wire_reader *r);

static inline uint64_t wire_get_varint(struct wire_reader *r)
{
	if (!r->bad && r->p != r->end && *r->p < 240)
		return *r->p++;
	return wire_get_varint_long(r);
}

static inline struct str wire_get_bytes(struct wire_reader *r, uint64_t n)
{
	if (r->bad || n > wire_left(r)) {
		r->bad = true;
		return (struct str){ 0 };
	}
	struct str s = { (const char *)r->p, (size_t)n };
	r->p += n;
	return s;
}

/* A length as varint, then that many bytes. */
static inline struct str wire_get_str(struct wire_reader *r)
{
	return wire_get_bytes(r, wire_get_varint(r));
}

static inline void wire_put_u8(struct wire_writer *w, uint8_t v)
{
	if (w->bad || w->p == w->end) {
		w->bad = true;
		return;
	}
	*w->p++ = v;
}

static inline void wire_put_bytes(struct wire_writer *w, const void *p, size_t n)
{
	if (w->bad || n > wire_room(w)) {
		w->bad = true;
		return;
	}
	if (n) {
		memcpy(w->p, p, n);
		w->p += n;
	}
}

static inline void wire_put_u32(struct wire_writer *w, uint32_t v)
{
	const uint8_t bytes[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
		(uint8_t)v };

	wire_put_bytes(w, bytes, sizeof bytes);
}

void wire_put_varint_long(struct wire_writer *w, uint64_t v);

static inline void wire_put_varint(struct wire_writer *w, uint64_t v)
{
	if (v < 240)
		wire_put_u8(w, (uint8_t)v);
	else
		wire_put_varint_long(w, v);
}

/* For who knows that there is room: returns where it ends. */
static inline uint8_t *varint_put(uint8_t *p, uint64_t v)
{
	if (v < 240) {
		*p++ = (uint8_t)v;
		return p;
	}
	*p++ = (uint8_t)(v | 240);
	for (v = (v - 240) >> 4; v >= 128; v = (v - 128) >> 7)
		*p++ = (uint8_t)(v | 128);
	*p++ = (uint8_t)v;
	return p;
}

static inline size_t varint_size(uint64_t v)
{
	size_t n = 1;
	if (v < 240)
		return n;
	for (v = (v - 240) >> 4; v >= 128; v = (v - 128) >> 7)
		n++;
	return n + 1;
}

static inline void wire_put_str(struct wire_writer *w, struct str s)
{
	wire_put_varint(w, s.n);
	wire_put_bytes(w, s.p, s.n);
}

#endif
