#include "spop/value.h"

#include "../base/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct {
	const char *what;
	enum value_type type;
	uint64_t number;
	size_t n;
	uint8_t bytes[20];
	size_t text_n;
} values[] = {
	{ "null", VALUE_NULL, 0, 1, { 0x00 }, 0 },
	{ "null with flags", VALUE_NULL, 0, 1, { 0xf0 }, 0 },
	{ "false", VALUE_BOOL, 0, 1, { 0x01 }, 0 },
	{ "true", VALUE_BOOL, 1, 1, { 0x11 }, 0 },
	{ "false with other flags", VALUE_BOOL, 0, 1, { 0xe1 }, 0 },
	{ "int32 1", VALUE_INT32, 1, 2, { 0x02, 0x01 }, 0 },
	{ "int32 -5", VALUE_INT32, (uint64_t)-5, 11,
		{ 0x02, 0xfb, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e }, 0 },
	{ "uint32 16380", VALUE_UINT32, 16380, 4, { 0x03, 0xfc, 0xf0, 0x06 }, 0 },
	{ "int64 -1", VALUE_INT64, UINT64_MAX, 11,
		{ 0x04, 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e }, 0 },
	{ "uint64 2^64-1", VALUE_UINT64, UINT64_MAX, 11,
		{ 0x05, 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e }, 0 },
	{ "ipv4", VALUE_IPV4, 0, 5, { 0x06, 127, 0, 0, 1 }, 4 },
	{ "ipv6", VALUE_IPV6, 0, 17, { 0x07, 0x20, 0x01, 0x0d, 0xb8, [16] = 1 }, 16 },
	{ "string", VALUE_STRING, 0, 5, { 0x08, 0x03, 'G', 'E', 'T' }, 3 },
	{ "empty string", VALUE_STRING, 0, 2, { 0x08, 0x00 }, 0 },
	{ "string with a NUL", VALUE_STRING, 0, 5, { 0x08, 0x03, 'a', 0, 'b' }, 3 },
	{ "binary", VALUE_BINARY, 0, 4, { 0x09, 0x02, 0x00, 0xff }, 2 },
};

enum { VALUES = sizeof values / sizeof *values };

static void values_are_read(void **state)
{
	(void)state;
	struct guard g = guard_new(sizeof values[0].bytes);

	for (size_t i = 0; i < VALUES; i++) {
		const uint8_t *p = guard_copy(&g, values[i].bytes, values[i].n);
		struct wire_reader r = { p, g.end, false };
		struct value v = value_get(&r);

		if (r.bad || wire_left(&r) != 0 || v.type != values[i].type ||
			v.number != values[i].number || v.bytes.n != values[i].text_n)
			fail_msg("%s", values[i].what);
		if (v.bytes.n)
			assert_ptr_equal(v.bytes.p + v.bytes.n, g.end);
		for (size_t cut = 0; cut < values[i].n; cut++) {
			p = guard_copy(&g, values[i].bytes, cut);
			r = (struct wire_reader){ p, g.end, false };
			v = value_get(&r);
			assert_true(r.bad);
			assert_int_equal(v.type, VALUE_NULL);
			assert_null(v.bytes.p);
		}
	}
	guard_free(&g);
}

static void reserved_types_are_refused(void **state)
{
	(void)state;
	for (unsigned head = 0; head < 256; head++) {
		uint8_t bytes[32] = { (uint8_t)head };
		struct wire_reader r = { bytes, bytes + sizeof bytes, false };

		(void)value_get(&r);
		assert_int_equal(r.bad, (head & 0x0f) > VALUE_BINARY);
	}
}

static void a_length_beyond_the_end_is_refused(void **state)
{
	(void)state;
	static const uint8_t bytes[] = { 0x08, 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe,
		0x0e, 'x' };
	struct wire_reader r = { bytes, bytes + sizeof bytes, false };

	(void)value_get(&r);
	assert_true(r.bad);
}

/* check { ip=127.0.0.1 ""=GET missing=NULL }, then an empty message. */
static const uint8_t messages[] = { 5, 'c', 'h', 'e', 'c', 'k', 3, 2, 'i', 'p', 0x06, 127, 0, 0, 1,
	0, 0x08, 3, 'G', 'E', 'T', 7, 'm', 'i', 's', 's', 'i', 'n', 'g', 0x00, 5, 'o', 't', 'h',
	'e', 'r', 0 };

static void messages_are_read(void **state)
{
	(void)state;
	struct wire_reader r = { messages, messages + sizeof messages, false };
	struct message m;
	struct str name;
	struct value v;

	assert_true(message_next(&r, &m));
	assert_true(str_eq(m.name, STR("check")));
	assert_int_equal(m.args, 3);
	assert_true(arg_next(&r, &name, &v));
	assert_true(str_eq(name, STR("ip")));
	assert_int_equal(v.type, VALUE_IPV4);
	assert_true(arg_next(&r, &name, &v));
	assert_int_equal(name.n, 0);
	assert_true(str_eq(v.bytes, STR("GET")));
	assert_true(arg_next(&r, &name, &v));
	assert_int_equal(v.type, VALUE_NULL);
	assert_true(message_next(&r, &m));
	assert_true(str_eq(m.name, STR("other")));
	assert_int_equal(m.args, 0);
	assert_false(message_next(&r, &m));
	assert_false(r.bad); /* a clean end */
	assert_false(arg_next(&r, &name, &v));
	assert_true(r.bad);
}

static void messages_are_tried_at_every_cut(void **state)
{
	(void)state;
	struct guard g = guard_new(sizeof messages);

	for (size_t cut = 0; cut <= sizeof messages; cut++) {
		const uint8_t *p = guard_copy(&g, messages, cut);
		struct wire_reader r = { p, g.end, false };
		struct message m;
		struct str name;
		struct value v;

		while (message_next(&r, &m)) {
			for (unsigned i = 0; i < m.args; i++) {
				if (!arg_next(&r, &name, &v)) {
					assert_null(name.p);
					break;
				}
			}
		}
		/* Only between messages is an end a clean one: at 0, 30 and the whole. */
		assert_int_equal(r.bad, cut != 0 && cut != 30 && cut != sizeof messages);
	}
	guard_free(&g);
}

/* 255 arguments are the most that the byte can say. */
static void the_number_of_args_is_one_byte(void **state)
{
	(void)state;
	uint8_t bytes[2 + 255 * 2] = { 0, 255 };
	struct wire_reader r = { bytes, bytes + sizeof bytes, false };
	struct message m;
	struct str name;
	struct value v;
	unsigned n = 0;

	assert_true(message_next(&r, &m));
	assert_int_equal(m.args, 255);
	while (n < m.args && arg_next(&r, &name, &v))
		n++;
	assert_int_equal(n, 255);
	assert_false(message_next(&r, &m));
	assert_false(r.bad);
}

static void actions_are_written(void **state)
{
	(void)state;
	static const uint8_t want[] = { 1, 3, 2, 4, 'd', 'e', 'n', 'y', 0x11, /* */
		1, 3, 2, 4, 'w', 'a', 'r', 'n', 0x01,                         /* */
		1, 3, 1, 1, 'n', 0x04, 0xfb, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e,
		1, 3, 0, 1, 's', 0x08, 9, 'a', '_', '_', 'b', '_', 0xff, ' ', 'c', '_' };
	uint8_t out[sizeof want];
	struct wire_writer w = { out, out + sizeof out, false };

	action_set_bool(&w, SCOPE_TXN, STR("deny"), true);
	action_set_bool(&w, SCOPE_TXN, STR("warn"), false);
	action_set_int(&w, SCOPE_SESS, STR("n"), -5);
	action_set_str(&w, SCOPE_PROC, STR("s"), STR("a\r\nb\0\xff c\n"));
	assert_false(w.bad);
	assert_int_equal(w.p - out, sizeof want);
	assert_memory_equal(out, want, sizeof want);
}

/* HAProxy stops reading at half an action, so there is never one. */
static void an_action_is_whole_or_not_there(void **state)
{
	(void)state;
	enum { WHOLE = 9 + 10 + 11 };
	struct guard g = guard_new(WHOLE);

	for (size_t room = 0; room <= WHOLE; room++) {
		uint8_t *start = g.end - room;
		struct wire_writer w = { start, g.end, false };
		size_t n;

		action_set_bool(&w, SCOPE_TXN, STR("deny"), true);
		action_set_int(&w, SCOPE_TXN, STR("wait"), 7);
		action_set_str(&w, SCOPE_TXN, STR("rule"), STR("a"));
		n = (size_t)(w.p - start);
		assert_int_equal(n, room < 9 ? 0 : room < 19 ? 9 : room < WHOLE ? 19 : WHOLE);
		assert_int_equal(w.bad, room < WHOLE);
	}
	guard_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_read),
		cmocka_unit_test(reserved_types_are_refused),
		cmocka_unit_test(a_length_beyond_the_end_is_refused),
		cmocka_unit_test(messages_are_read),
		cmocka_unit_test(messages_are_tried_at_every_cut),
		cmocka_unit_test(the_number_of_args_is_one_byte),
		cmocka_unit_test(actions_are_written),
		cmocka_unit_test(an_action_is_whole_or_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
