#include "base/wire.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct vector {
	uint64_t value;
	size_t n;
	uint8_t bytes[VARINT_MAX_BYTES];
};

static const struct vector vectors[] = {
	{ 0, 1, { 0x00 } },
	{ 1, 1, { 0x01 } },
	{ 127, 1, { 0x7f } },
	{ 128, 1, { 0x80 } },
	{ 239, 1, { 0xef } },
	{ 240, 2, { 0xf0, 0x00 } },
	{ 241, 2, { 0xf1, 0x00 } },
	{ 255, 2, { 0xff, 0x00 } },
	{ 256, 2, { 0xf0, 0x01 } },
	{ 2287, 2, { 0xff, 0x7f } },
	{ 2288, 3, { 0xf0, 0x80, 0x00 } },
	{ 2289, 3, { 0xf1, 0x80, 0x00 } },
	{ 16380, 3, { 0xfc, 0xf0, 0x06 } },
	{ 65532, 3, { 0xfc, 0xf0, 0x1e } },
	{ 264431, 3, { 0xff, 0xff, 0x7f } },
	{ 264432, 4, { 0xf0, 0x80, 0x80, 0x00 } },
	{ 33818863, 4, { 0xff, 0xff, 0xff, 0x7f } },
	{ 33818864, 5, { 0xf0, 0x80, 0x80, 0x80, 0x00 } },
	{ INT32_MAX, 5, { 0xff, 0xf0, 0xfe, 0xfe, 0x3e } },
	{ UINT64_C(1) << 31, 5, { 0xf0, 0xf1, 0xfe, 0xfe, 0x3e } },
	{ UINT32_MAX, 5, { 0xff, 0xf0, 0xfe, 0xfe, 0x7e } },
	{ UINT64_C(1) << 32, 5, { 0xf0, 0xf1, 0xfe, 0xfe, 0x7e } },
	{ 4328786159, 5, { 0xff, 0xff, 0xff, 0xff, 0x7f } },
	{ 4328786160, 6, { 0xf0, 0x80, 0x80, 0x80, 0x80, 0x00 } },
	{ 554084600047, 6, { 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f } },
	{ 554084600048, 7, { 0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 } },
	{ INT64_MAX, 10, { 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x06 } },
	{ UINT64_C(1) << 63, 10, { 0xf0, 0xf1, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x06 } },
	{ (uint64_t)-5, 10, { 0xfb, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e } },
	{ UINT64_MAX, 10, { 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e } },
};

enum { VECTORS = sizeof vectors / sizeof *vectors };

static void varint_is_read_as_haproxy_writes_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < VECTORS; i++) {
		struct wire_reader r = { vectors[i].bytes, vectors[i].bytes + vectors[i].n, false };

		assert_int_equal(wire_get_varint(&r), vectors[i].value);
		assert_false(r.bad);
		assert_int_equal(wire_left(&r), 0);
		r = (struct wire_reader){ vectors[i].bytes, vectors[i].bytes + vectors[i].n,
			false };
		assert_int_equal(wire_get_varint_long(&r), vectors[i].value);
		assert_int_equal(wire_left(&r), 0);
	}
}

static void varint_is_written_as_haproxy_reads_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < VECTORS; i++) {
		uint8_t out[VARINT_MAX_BYTES];
		struct wire_writer w = { out, out + sizeof out, false };

		wire_put_varint(&w, vectors[i].value);
		assert_false(w.bad);
		assert_int_equal(w.p - out, vectors[i].n);
		assert_memory_equal(out, vectors[i].bytes, vectors[i].n);
		w = (struct wire_writer){ out, out + sizeof out, false };
		wire_put_varint_long(&w, vectors[i].value);
		assert_int_equal(w.p - out, vectors[i].n);
		assert_memory_equal(out, vectors[i].bytes, vectors[i].n);
	}
}

static void varint_is_tried_at_every_cut(void **state)
{
	(void)state;
	struct guard g = guard_new(VARINT_MAX_BYTES);

	for (size_t i = 0; i < VECTORS; i++) {
		for (size_t cut = 0; cut < vectors[i].n; cut++) {
			const uint8_t *p = guard_copy(&g, vectors[i].bytes, cut);
			struct wire_reader r = { p, g.end, false };

			assert_int_equal(wire_get_varint(&r), 0);
			assert_true(r.bad);
			/* The error sticks, whatever is there to read. */
			assert_int_equal(wire_get_u8(&r), 0);
		}
		for (size_t room = 0; room < vectors[i].n; room++) {
			struct wire_writer w = { g.end - room, g.end, false };

			wire_put_varint(&w, vectors[i].value);
			assert_true(w.bad);
			assert_ptr_equal(w.p, g.end - room);
		}
	}
	guard_free(&g);
}

static const struct {
	const char *what;
	size_t n;
	uint8_t bytes[16];
} not_varints[] = {
	{ "eleven bytes", 11,
		{ 0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 } },
	{ "no end", 16,
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0xff } },
	{ "one more than 2^64-1", 10,
		{ 0xf0, 0xf1, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e } },
	{ "a carry out of the last byte", 10,
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f } },
	{ "bits beyond 64", 10, { 0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10 } },
	{ "the highest last byte", 10,
		{ 0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f } },
};

static void varint_beyond_64_bits_is_refused(void **state)
{
	(void)state;
	struct guard g = guard_new(16);

	for (size_t i = 0; i < sizeof not_varints / sizeof *not_varints; i++) {
		const uint8_t *p = guard_copy(&g, not_varints[i].bytes, not_varints[i].n);
		struct wire_reader r = { p, g.end, false };

		(void)wire_get_varint(&r);
		if (!r.bad)
			fail_msg("taken: %s", not_varints[i].what);
	}
	guard_free(&g);
}

/* Splitmix64: any seeded generator would do. */
static uint64_t random_next(uint64_t *seed)
{
	uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void varint_round_trips(void **state)
{
	(void)state;
	uint64_t seed = 1;

	for (int i = 0; i < 200000; i++) {
		uint64_t v = random_next(&seed) >> (random_next(&seed) & 63);
		uint8_t out[VARINT_MAX_BYTES];
		struct wire_writer w = { out, out + sizeof out, false };

		wire_put_varint(&w, v);
		assert_false(w.bad);
		struct wire_reader r = { out, w.p, false };
		assert_int_equal(wire_get_varint(&r), v);
		assert_false(r.bad);
		assert_int_equal(wire_left(&r), 0);
	}
}

/* No two encodings of one value: what is read is written back as it was. */
static void varint_has_one_form(void **state)
{
	(void)state;
	uint64_t seed = 2;

	for (int i = 0; i < 200000; i++) {
		uint64_t a = random_next(&seed), b = random_next(&seed);
		uint8_t in[16], out[VARINT_MAX_BYTES];

		memcpy(in, &a, 8);
		memcpy(in + 8, &b, 8);
		in[0] |= 0xf0;
		struct wire_reader r = { in, in + sizeof in, false };
		uint64_t v = wire_get_varint(&r);
		if (r.bad)
			continue;
		struct wire_writer w = { out, out + sizeof out, false };
		wire_put_varint(&w, v);
		assert_int_equal(w.p - out, r.p - in);
		assert_memory_equal(out, in, (size_t)(r.p - in));
	}
}

static void words_and_bytes_are_bounded(void **state)
{
	(void)state;
	static const uint8_t bytes[] = { 0x12, 0x34, 0x56, 0x78, 3, 'a', 'b', 'c' };
	struct guard g = guard_new(sizeof bytes);

	for (size_t cut = 0; cut <= sizeof bytes; cut++) {
		const uint8_t *p = guard_copy(&g, bytes, cut);
		struct wire_reader r = { p, g.end, false };
		uint32_t word = wire_get_u32(&r);
		struct str s = wire_get_str(&r);

		assert_int_equal(word, cut >= 4 ? 0x12345678 : 0);
		assert_int_equal(r.bad, cut < sizeof bytes);
		assert_true(r.bad ? s.p == NULL && s.n == 0 : str_eq(s, STR("abc")));
	}
	for (size_t room = 0; room <= sizeof bytes; room++) {
		struct wire_writer w = { g.end - room, g.end, false };

		wire_put_u32(&w, 0x12345678);
		wire_put_str(&w, STR("abc"));
		assert_int_equal(w.bad, room < sizeof bytes);
	}
	assert_memory_equal(g.end - sizeof bytes, bytes, sizeof bytes);
	guard_free(&g);
}

static void a_length_is_never_added_to_a_pointer(void **state)
{
	(void)state;
	const uint8_t byte = 0;
	struct wire_reader r = { &byte, &byte + 1, false };

	(void)wire_get_bytes(&r, UINT64_MAX);
	assert_true(r.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(varint_is_read_as_haproxy_writes_it),
		cmocka_unit_test(varint_is_written_as_haproxy_reads_it),
		cmocka_unit_test(varint_is_tried_at_every_cut),
		cmocka_unit_test(varint_beyond_64_bits_is_refused),
		cmocka_unit_test(varint_round_trips),
		cmocka_unit_test(varint_has_one_form),
		cmocka_unit_test(words_and_bytes_are_bounded),
		cmocka_unit_test(a_length_is_never_added_to_a_pointer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
