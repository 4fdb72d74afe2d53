/* Views: typed values made canonical, and the layout that gives them slots. */
#include "limit/view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

static struct layout layout;
static char scratch[65536];

static struct view fresh(void)
{
	struct view v;
	layout.text_wanted = ~0ull;
	view_init(&v, &layout, STR("check-login"), scratch, sizeof scratch);
	return v;
}

static void assert_text(const struct view *v, unsigned slot, const char *want)
{
	if (!view_has(v, slot))
		fail_msg("slot %u is absent, want \"%s\"", slot, want);
	if (!str_eq(v->text[slot], str_of(want)))
		fail_msg("slot %u: want \"%s\", got \"%.*s\"", slot, want, (int)v->text[slot].n,
			v->text[slot].p);
}

static void test_layout(void **state)
{
	struct layout l;
	char name[FIELD_NAME_MAX + 2];

	(void)state;
	layout_init(&l);
	assert_int_equal(layout_find_arg(&l, STR("ip")), FIELD_IP);
	assert_int_equal(layout_find_arg(&l, STR("cost")), FIELD_COST);
	assert_int_equal(layout_find_arg(&l, STR("endpoint")), -1);
	assert_int_equal(layout_find_arg(&l, STR("message")), -1);
	assert_int_equal(layout_find_arg(&l, STR("")), -1);
	assert_int_equal(layout_find_arg(&l, STR("i")), -1);
	assert_int_equal(layout_add(&l, STR("path")), FIELD_PATH);
	memset(name, 'x', sizeof name);
	assert_int_equal(layout_add(&l, (struct str){ name, FIELD_NAME_MAX + 1 }), -1);
	for (int i = FIELD_BUILTINS; i < FIELDS_MAX; i++) {
		int n = snprintf(name, sizeof name, "field-%d", i);
		assert_int_equal(layout_add(&l, (struct str){ name, (size_t)n }), i);
	}
	assert_int_equal(layout_add(&l, STR("one-too-many")), -1);
	for (int i = FIELD_BUILTINS; i < FIELDS_MAX; i++) {
		int n = snprintf(name, sizeof name, "field-%d", i);
		assert_int_equal(layout_find_arg(&l, (struct str){ name, (size_t)n }), i);
	}
	assert_int_equal(layout_find_arg(&l, STR("unknown")), -1);
}

static void test_types(void **state)
{
	static const uint8_t v4[] = { 10, 0, 0, 1 };
	unsigned x = (unsigned)layout_add(&layout, STR("x"));
	unsigned y = (unsigned)layout_add(&layout, STR("y"));
	unsigned z = (unsigned)layout_add(&layout, STR("z"));
	struct view v = fresh();

	(void)state;
	assert_text(&v, FIELD_MESSAGE, "check-login");
	view_set_integer(&v, x, INT64_MIN);
	assert_text(&v, x, "-9223372036854775808");
	view_set_unsigned(&v, y, UINT64_MAX);
	assert_text(&v, y, "18446744073709551615");
	view_set_boolean(&v, z, true);
	assert_text(&v, z, "true");
	view_set_addr(&v, FIELD_USER, v4, 4);
	assert_text(&v, FIELD_USER, "10.0.0.1");
	view_set_null(&v, FIELD_KEY);
	assert_false(view_has(&v, FIELD_KEY));
	view_set_text(&v, FIELD_TIER, STR(""));
	assert_false(view_has(&v, FIELD_TIER));
	assert_false(view_has(&v, FIELD_METHOD));
}

static void test_first_of_duplicates_counts(void **state)
{
	struct view v = fresh();

	(void)state;
	view_set_text(&v, FIELD_USER, STR("alice"));
	view_set_text(&v, FIELD_USER, STR("bob"));
	assert_text(&v, FIELD_USER, "alice");
	view_set_null(&v, FIELD_KEY);
	view_set_text(&v, FIELD_KEY, STR("k"));
	assert_false(view_has(&v, FIELD_KEY));
}

static void test_addresses(void **state)
{
	static const uint8_t mapped[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1 };
	static const struct {
		const char *bytes;
		size_t n;
		bool binary;
		int length; /* of the address; 0: absent */
	} rows[] = {
		{ "10.0.0.1", 8, false, 4 },
		{ "::ffff:10.0.0.1", 15, false, 4 },
		{ "2001:db8::1", 11, false, 16 },
		{ "1::2", 4, false, 16 }, /* text of four characters */
		{ "abcd", 4, false, 0 },  /* text of four characters that is no address */
		{ "abcd", 4, true, 4 },   /* four bytes */
		{ "abcdefghijklmnop", 16, true, 16 },
		{ "10.0.0.1", 8, true, 4 }, /* text after all */
		{ "nobody", 6, true, 0 },
		{ "10.0.0.1:80", 11, false, 0 },
		{ "", 0, false, 0 },
	};
	char out[ADDR_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct view v = fresh();
		struct str s = { rows[i].bytes, rows[i].n };
		if (rows[i].binary)
			view_set_binary(&v, FIELD_IP, s);
		else
			view_set_text(&v, FIELD_IP, s);
		assert_int_equal(view_has(&v, FIELD_IP), rows[i].length != 0);
		if (rows[i].length)
			assert_int_equal(v.ip.len, rows[i].length);
	}
	struct view v = fresh();
	view_set_addr(&v, FIELD_IP, mapped, 16);
	assert_int_equal(addr_format(&v.ip, out), 8);
	assert_memory_equal(out, "10.0.0.1", 8);

	v = fresh();
	view_set_integer(&v, FIELD_IP, 5);
	view_set_boolean(&v, FIELD_IP, true);
	assert_false(view_has(&v, FIELD_IP));
}

static void test_endpoint(void **state)
{
	struct view v = fresh();

	(void)state;
	view_set_text(&v, FIELD_METHOD, STR("POST"));
	view_finish(&v);
	assert_false(view_has(&v, FIELD_ENDPOINT));
	view_set_text(&v, FIELD_PATH, STR("/a/../auth//login?x"));
	view_finish(&v);
	assert_text(&v, FIELD_ENDPOINT, "POST:/auth/login");
}

static void test_cost(void **state)
{
	static const struct {
		const char *text;
		int64_t cost;
	} rows[] = {
		{ "5", 5 },
		{ "0", 0 },
		{ "-5", 1 },
		{ "+7", 7 },
		{ "5.5", 1 },
		{ " 5", 1 },
		{ "", 1 },
		{ "-", 1 },
		{ "0x10", 1 },
		{ "9223372036854775807", INT64_MAX },
		{ "9223372036854775808", INT64_MAX }, /* large is large, not cheap */
		{ "99999999999999999999999", INT64_MAX },
		{ "-99999999999999999999999", 1 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct view v = fresh();
		view_set_text(&v, FIELD_COST, str_of(rows[i].text));
		if (view_cost(&v, FIELD_COST) != rows[i].cost)
			fail_msg("\"%s\" costs %lld", rows[i].text,
				(long long)view_cost(&v, FIELD_COST));
	}
	struct view v = fresh();
	assert_int_equal(view_cost(&v, FIELD_COST), 1);
	view_set_integer(&v, FIELD_COST, -3);
	assert_int_equal(view_cost(&v, FIELD_COST), 1);
	v = fresh();
	view_set_unsigned(&v, FIELD_COST, UINT64_MAX);
	assert_true(view_cost(&v, FIELD_COST) == INT64_MAX);
	v = fresh();
	view_set_boolean(&v, FIELD_COST, true);
	assert_int_equal(view_cost(&v, FIELD_COST), 1);
	v = fresh();
	view_set_null(&v, FIELD_COST);
	assert_int_equal(view_cost(&v, FIELD_COST), 1);
}

/* With too little scratch a value is absent; nothing is written beyond it. */
static void test_scratch_is_a_bound(void **state)
{
	(void)state;
	for (size_t room = 0; room < 32; room++) {
		char small[32];
		struct view v;
		memset(small, 'X', sizeof small);
		layout.text_wanted = ~0ull;
		view_init(&v, &layout, STR("check"), small, room);
		view_set_text(&v, FIELD_METHOD, STR("GET"));
		view_set_text(&v, FIELD_PATH, STR("//long/path"));
		view_set_text(&v, FIELD_HOST, STR("HOST"));
		view_set_integer(&v, FIELD_COST, 12);
		view_finish(&v);
		for (size_t i = room; i < sizeof small; i++)
			assert_int_equal(small[i], 'X');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_first_of_duplicates_counts),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_endpoint),
		cmocka_unit_test(test_cost),
		cmocka_unit_test(test_scratch_is_a_bound),
	};
	layout_init(&layout);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
