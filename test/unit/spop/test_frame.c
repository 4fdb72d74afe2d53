#include "spop/frame.h"

#include "../base/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { MAX = 16380 };

/* Two frames in a row: a HAPROXY-DISCONNECT with one byte, and a
 * NOTIFY with stream-id 300 and frame-id 1. */
static const uint8_t two[] = { 0, 0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 'x', 0, 0, 0, 8, 3, 0, 0, 0, 1,
	0xfc, 0x03, 1 };

static void frames_are_found_in_place(void **state)
{
	(void)state;
	const uint8_t *p = two, *end = two + sizeof two;
	enum spop_status status;
	struct frame f;

	assert_int_equal(frame_next(&p, end, MAX, &f, &status), FRAME_OK);
	assert_int_equal(f.type, FRAME_HAPROXY_DISCONNECT);
	assert_int_equal(f.flags, FRAME_FLAG_FIN);
	assert_int_equal(f.stream_id, 0);
	assert_int_equal(f.frame_id, 0);
	assert_int_equal(f.payload_n, 1);
	assert_ptr_equal(f.payload, two + 11);
	assert_ptr_equal(p, two + 12);

	assert_int_equal(frame_next(&p, end, MAX, &f, &status), FRAME_OK);
	assert_int_equal(f.type, FRAME_NOTIFY);
	assert_int_equal(f.stream_id, 300);
	assert_int_equal(f.frame_id, 1);
	assert_int_equal(f.payload_n, 0); /* legal: HAProxy 3.1.0 sends it */
	assert_ptr_equal(p, end);
	assert_int_equal(frame_next(&p, end, MAX, &f, &status), FRAME_PARTIAL);
	assert_ptr_equal(p, end);
}

static void a_cut_frame_is_waited_for(void **state)
{
	(void)state;
	struct guard g = guard_new(sizeof two);

	for (size_t cut = 0; cut < sizeof two; cut++) {
		const uint8_t *start = guard_copy(&g, two, cut), *p = start;
		enum spop_status status;
		struct frame f;
		enum frame_rc rc = frame_next(&p, g.end, MAX, &f, &status);

		if (cut >= 12) {
			assert_int_equal(rc, FRAME_OK);
			start = p;
			rc = frame_next(&p, g.end, MAX, &f, &status);
		}
		assert_int_equal(rc, FRAME_PARTIAL);
		assert_ptr_equal(p, start);
	}
	guard_free(&g);
}

static const struct {
	const char *what;
	enum frame_rc rc;
	enum spop_status status;
	size_t max, n;
	uint8_t bytes[24];
} heads[] = {
	{ "longer than the bound", FRAME_BAD, SPOP_TOO_BIG, 256, 4, { 0, 0, 1, 1 } },
	{ "as long as the bound", FRAME_PARTIAL, 0, 256, 4, { 0, 0, 1, 0 } },
	{ "the longest there is", FRAME_BAD, SPOP_TOO_BIG, MAX, 4, { 0xff, 0xff, 0xff, 0xff } },
	{ "an HTTP request", FRAME_BAD, SPOP_TOO_BIG, MAX, 4, { 'G', 'E', 'T', ' ' } },
	{ "no length", FRAME_BAD, SPOP_INVALID, MAX, 4, { 0, 0, 0, 0 } },
	{ "too short for a head", FRAME_BAD, SPOP_INVALID, MAX, 10,
		{ 0, 0, 0, 6, 3, 0, 0, 0, 1, 0 } },
	{ "the shortest", FRAME_OK, 0, MAX, 11, { 0, 0, 0, 7, 3, 0, 0, 0, 1, 0, 0 } },
	{ "a frame-id cut by the length", FRAME_BAD, SPOP_INVALID, MAX, 12,
		{ 0, 0, 0, 7, 3, 0, 0, 0, 1, 0xf0, 0x00, 0x00 } },
	{ "a stream-id without end", FRAME_BAD, SPOP_INVALID, MAX, 19,
		{ 0, 0, 0, 15, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff } },
	{ "ids of 2^64-1", FRAME_PARTIAL, 0, MAX, 23,
		{ 0, 0, 0, 25, 3, 0, 0, 0, 1, 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe,
			0x0e, 0xff, 0xf0, 0xfe, 0xfe } },
};

static void heads_are_checked(void **state)
{
	(void)state;
	struct guard g = guard_new(sizeof heads[0].bytes);

	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
		const uint8_t *start = guard_copy(&g, heads[i].bytes, heads[i].n), *p = start;
		enum spop_status status = SPOP_NORMAL;
		struct frame f;

		if (frame_next(&p, g.end, heads[i].max, &f, &status) != heads[i].rc)
			fail_msg("%s", heads[i].what);
		if (heads[i].rc == FRAME_BAD)
			assert_int_equal(status, heads[i].status);
		if (heads[i].rc != FRAME_OK)
			assert_ptr_equal(p, start);
	}
	guard_free(&g);
}

/* Into every room there is: all of it, or w.bad and not a byte beyond. */
static void a_frame_is_written(void **state)
{
	(void)state;
	static const uint8_t want[] = { 0, 0, 0, 9, 0x67, 0, 0, 0, 1, 1, 1, 'a', 'b' };
	struct guard g = guard_new(sizeof want);

	for (size_t room = 0; room <= sizeof want; room++) {
		struct wire_writer w = { g.end - room, g.end, false };
		uint8_t *length_word = frame_begin(&w, FRAME_ACK, 1, 1);

		wire_put_bytes(&w, "ab", 2);
		frame_end(&w, length_word);
		assert_int_equal(w.bad, room < sizeof want);
	}
	assert_memory_equal(g.end - sizeof want, want, sizeof want);
	guard_free(&g);
}

static void frames_round_trip(void **state)
{
	(void)state;
	static const uint64_t ids[] = { 0, 1, 239, 240, 10202, UINT32_MAX, INT64_MAX, UINT64_MAX };
	enum { IDS = sizeof ids / sizeof *ids };

	for (size_t i = 0; i < IDS * IDS; i++) {
		uint8_t bytes[FRAME_HEAD_MAX + 3];
		struct wire_writer w = { bytes, bytes + sizeof bytes, false };
		uint8_t *length_word = frame_begin(&w, FRAME_ACK, ids[i % IDS], ids[i / IDS]);

		wire_put_bytes(&w, "abc", 3);
		frame_end(&w, length_word);
		assert_false(w.bad);

		const uint8_t *p = bytes;
		enum spop_status status;
		struct frame f;
		assert_int_equal(frame_next(&p, w.p, MAX, &f, &status), FRAME_OK);
		assert_ptr_equal(p, w.p);
		assert_int_equal(f.type, FRAME_ACK);
		assert_int_equal(f.flags, FRAME_FLAG_FIN);
		assert_int_equal(f.stream_id, ids[i % IDS]);
		assert_int_equal(f.frame_id, ids[i / IDS]);
		assert_int_equal(f.payload_n, 3);
	}
}

static void every_status_has_a_text(void **state)
{
	(void)state;
	assert_string_equal(spop_status_text(SPOP_NORMAL), "normal");
	assert_string_equal(spop_status_text(SPOP_NO_FRAGMENTATION), "fragmentation not supported");
	for (unsigned code = 0; code < 300; code++)
		assert_true(strlen(spop_status_text((enum spop_status)code)) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_are_found_in_place),
		cmocka_unit_test(a_cut_frame_is_waited_for),
		cmocka_unit_test(heads_are_checked),
		cmocka_unit_test(a_frame_is_written),
		cmocka_unit_test(frames_round_trip),
		cmocka_unit_test(every_status_has_a_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
