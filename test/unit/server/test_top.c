/* What several workers have counted, put together: bounds that hold for the sum, halves of the
 * time that come and go, and rules that are told apart. */
#include "server/tally.h"
#include "server/top.h"

#include "../../chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORKERS = 3, USERS = 2000 };

static struct rule rule[2];
static struct limit limit[2][2];
static struct policy *policy;
static struct top *top[WORKERS];
static uint64_t exact[2][USERS];
static char all_begin[200]; /* so do the names of users */

/* Chance is the same in each run of this test. */
static void renew(unsigned worker, uint64_t seed)
{
	top_free(top[worker]);
	top[worker] = top_new();
	for (unsigned i = 0; top[worker] && i < TOP_STREAMS; i++)
		sampler_init(&top[worker]->sampler[i], TOP_STREAMS * seed + i);
}

static int setup(void **state)
{
	(void)state;
	policy = policy_new();
	all_begin[0] = '\0';
	for (unsigned i = 0; i < 2; i++) {
		rule[i] = (struct rule){ .per_n = 1, .tally = (i + 2) * TALLY_ROW };
		rule[i].per[0].slot[0] = FIELD_USER;
		for (unsigned k = 0; k < 2; k++)
			limit[i][k] = (struct limit){ .rule = &rule[i],
				.salt = { 77 * i + k, 1234 * i + 10 * k } };
	}
	for (unsigned i = 0; i < WORKERS; i++)
		renew(i, i);
	memset(exact, 0, sizeof exact);
	return policy && top[WORKERS - 1] ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WORKERS; i++) {
		top_free(top[i]);
		top[i] = NULL;
	}
	policy_free(policy);
	return 0;
}

/* One check of a user, for rule r; which of its limits is reported makes no difference. What is
 * denied a rule in shadow mode would have denied as well. */
static void see(unsigned worker, unsigned r, unsigned user, usec_t now, bool deny, int64_t cost)
{
	char name[256], scratch[64];
	int n = snprintf(name, sizeof name, "%s%u", all_begin, user);
	struct chance c = { user };
	const struct limit *l = &limit[r][user % 3 == 0];
	struct take take = { .limit = l, .cost = cost };
	struct plan plan = { .now = { .steady = now } };
	struct decision d = { .deny = deny, .reported = &take };
	struct top_rest rest;
	static struct view v;

	take.key.a = draw(&c) ^ l->salt.a;
	take.key.b = draw(&c) ^ l->salt.b;
	plan.take[0] = take;
	plan.n = deny;
	d.shadow = deny ? l->rule : NULL;
	view_init(&v, &policy->layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&v, FIELD_USER, (struct str){ name, (size_t)n });
	view_finish(&v);
	if (top_count(top[worker], &plan, &d, &rest))
		top_add_rest(top[worker], policy, &d, &v, &rest);
}

static struct top_list list_at(enum top_kind kind, usec_t now)
{
	struct top_list list;
	assert_true(top_list((const struct top *const *)top, WORKERS, kind, now, &list));
	return list;
}

/* Slowly enough that none is left out. */
static void bounds_hold_for_the_sum(void **state)
{
	(void)state;
	struct chance c = { 1 };
	usec_t now = 3 * TOP_HALF / 2;
	uint64_t total = 0;
	for (unsigned i = 0; i < 100000; i++, now += 2500) {
		unsigned r = one_in(&c, 3), user = (unsigned)magnitude(&c, USERS) - 1;
		see((unsigned)between(&c, 0, WORKERS - 1), r, user, now, true, 1);
		exact[r][user]++;
		total++;
	}
	struct top_list list = list_at(TOP_DENIED, now);
	assert_int_equal(list.total, total);
	assert_int_equal(list.one_in, 1);
	assert_true(list.error > 0 && list.error <= total / SKETCH_ITEMS);
	static bool has[2][USERS];
	for (size_t i = 0; i < list.n; i++) {
		const struct top_item *item = &list.item[i];
		unsigned user, r = item->rule - 2;
		assert_int_equal(sscanf(item->name, "user=%u", &user), 1);
		assert_false(has[r][user]);
		has[r][user] = true;
		assert_true(item->count >= exact[r][user]);
		assert_true(item->count - item->error <= exact[r][user]);
		/* Whom each of them has had from the beginning on is known for certain. */
		assert_true(i > 0 || (item->error == 0 && item->count == exact[r][user]));
		assert_true(i == 0 || item->count <= list.item[i - 1].count);
	}
	for (unsigned r = 0; r < 2; r++)
		for (unsigned user = 0; user < USERS; user++)
			assert_true(has[r][user] || exact[r][user] <= list.error);
	top_list_free(&list);
}

static void two_halves_count(void **state)
{
	(void)state;
	const usec_t at = 10 * TOP_HALF;
	see(0, 0, 1, at, true, 1);
	see(1, 0, 1, at + TOP_HALF - 1, true, 1);
	see(1, 0, 1, at + TOP_HALF, true, 1);
	static const struct {
		usec_t now;
		uint64_t count;
	} row[] = {
		{ 10 * TOP_HALF, 2 },
		{ 11 * TOP_HALF, 3 },
		{ 12 * TOP_HALF - 1, 3 },
		{ 12 * TOP_HALF, 1 },
		{ 13 * TOP_HALF, 0 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct top_list list = list_at(TOP_DENIED, row[i].now);
		assert_int_equal(list.total, row[i].count);
		assert_int_equal(list.n, row[i].count > 0);
		assert_int_equal(list.n ? list.item[0].count : 0, row[i].count);
		assert_true(row[i].now - list.since >= TOP_HALF &&
			    row[i].now - list.since < 2 * TOP_HALF);
		top_list_free(&list);
	}
}

static uint64_t count_of(enum top_kind kind, usec_t now, const char *name, unsigned r)
{
	struct top_list list = list_at(kind, now);
	uint64_t count = 0;
	for (size_t i = 0; i < list.n; i++)
		if (list.item[i].rule == r + 2 && strcmp(list.item[i].name, name) == 0)
			count = list.item[i].count;
	top_list_free(&list);
	return count;
}

/* Names of which the first 128 bytes are all that is kept. */
static void names_that_begin_alike_are_told_apart(void **state)
{
	enum { NAME = sizeof "user=" - 1 };
	(void)state;
	/* The cut falls between two characters of two bytes, or into one. */
	for (unsigned odd = 0; odd < 2; odd++) {
		const usec_t now = (odd + 1) * 2 * TOP_HALF;
		all_begin[0] = 'x';
		for (size_t i = odd; i < sizeof all_begin - 2; i += 2)
			memcpy(all_begin + i, "\xc3\xa9", 3);
		for (unsigned worker = 0; worker < 2; worker++)
			for (unsigned i = 0; i < 5; i++)
				see(worker, 0, i < 2, now, true, 1);
		struct top_list list = list_at(TOP_DENIED, now);
		assert_int_equal(list.n, 2);
		assert_int_equal(list.item[0].count, 6);
		assert_int_equal(list.item[1].count, 4);
		assert_string_not_equal(list.item[0].name, list.item[1].name);
		for (unsigned i = 0; i < 2; i++) {
			const char *end = strstr(list.item[i].name, "..");
			assert_non_null(end);
			assert_int_equal(strlen(end), 10);
			size_t before = (size_t)(end - list.item[i].name);
			assert_int_equal((before - NAME - odd) % 2, 0); /* characters are whole */
			assert_true(before + 10 >= SKETCH_NAME_MAX - 1);
		}
		top_list_free(&list);
	}
}

static void what_is_forgotten_is_in_no_list(void **state)
{
	(void)state;
	const usec_t at = 10 * TOP_HALF;
	top_forget(top[0]); /* nothing yet */
	see(0, 0, 1, at, true, 1);
	see(0, 0, 2, at + TOP_HALF, true, 1);
	see(1, 0, 3, at + TOP_HALF, true, 1);
	top_forget(top[0]);
	struct top_list list = list_at(TOP_DENIED, at + TOP_HALF);
	assert_int_equal(list.n, 1);
	assert_string_equal(list.item[0].name, "user=3");
	top_list_free(&list);
	see(0, 0, 2, at + TOP_HALF, true, 1);
	assert_int_equal(count_of(TOP_DENIED, at + TOP_HALF, "user=2", 0), 1);
}

static void what_counts_where(void **state)
{
	(void)state;
	const usec_t now = TOP_HALF;
	see(0, 0, 7, now, false, 30);
	see(0, 0, 7, now, true, 500);
	see(1, 0, 7, now, false, 12);
	see(1, 1, 7, now, false, INT64_MAX);
	see(1, 0, 7, now, true, 0); /* asks: nobody was refused */
	assert_int_equal(count_of(TOP_DENIED, now, "user=7", 0), 1);
	assert_int_equal(count_of(TOP_CHECKED, now, "user=7", 0), 4);
	assert_int_equal(count_of(TOP_COST, now, "user=7", 0), 42);
	assert_int_equal(count_of(TOP_COST, now, "user=7", 1), 1000000000);
	assert_int_equal(count_of(TOP_DENIED, now, "user=7", 1), 0);
}

/* One of them comes to one client by either of the rule's limits: it is not named twice. */
static void a_client_is_one_by_whatever_limit(void **state)
{
	(void)state;
	const usec_t now = TOP_HALF;
	struct key k[2];
	for (unsigned i = 0; i < 2; i++) {
		struct take take = { .limit = &limit[0][i], .cost = 1 };
		take.key = (struct key){ 99 ^ limit[0][i].salt.a, 1000 ^ limit[0][i].salt.b };
		struct plan plan = { .now = { .steady = now } };
		struct decision d = { .deny = true, .reported = &take };
		struct top_rest rest;
		char scratch[64];
		static struct view v;
		view_init(&v, &policy->layout, STR("check"), scratch, sizeof scratch);
		view_set_text(&v, FIELD_USER, STR("al"));
		view_finish(&v);
		assert_true(top_count(top[0], &plan, &d, &rest));
		assert_int_equal(rest.weight[TOP_DENIED], i == 0);
		top_add_rest(top[0], policy, &d, &v, &rest);
		k[i] = take.key;
	}
	assert_true(k[0].a != k[1].a);
	assert_int_equal(count_of(TOP_DENIED, now, "user=al", 0), 2);
}

/* A check of `path` by rule r; by none that anybody is known by, where r is 2. */
static void see_path(unsigned r, const char *path, bool deny, usec_t now)
{
	struct take take = { .limit = &limit[r % 2][0], .cost = 1, .key = { 5, 5 } };
	struct plan plan = { .now = { .steady = now } };
	struct decision d = { .deny = deny, .reported = r < 2 ? &take : NULL };
	struct top_rest rest;
	char scratch[256];
	static struct view v;

	view_init(&v, &policy->layout, STR("check"), scratch, sizeof scratch);
	view_set_text(&v, FIELD_USER, STR("al"));
	if (*path) {
		view_set_text(&v, FIELD_METHOD, STR("GET"));
		view_set_text(&v, FIELD_PATH, str_of(path));
	}
	view_finish(&v);
	if (top_count(top[0], &plan, &d, &rest))
		top_add_rest(top[0], policy, &d, &v, &rest);
}

static void endpoints_are_told_apart_by_rules(void **state)
{
	(void)state;
	const usec_t now = TOP_HALF;
	for (unsigned i = 0; i < 6; i++)
		see_path(i == 0, i < 4 ? "/x" : "/y", true, now);
	see_path(0, "", true, now); /* it has none */
	see_path(0, "/x", false, now);
	assert_int_equal(count_of(TOP_ENDPOINTS, now, "GET:/x", 0), 3);
	assert_int_equal(count_of(TOP_ENDPOINTS, now, "GET:/x", 1), 1);
	assert_int_equal(count_of(TOP_ENDPOINTS, now, "GET:/y", 0), 2);
	struct top_list list = list_at(TOP_ENDPOINTS, now);
	assert_int_equal(list.n, 3);
	top_list_free(&list);
}

/* Who is let by, or is blocked, whatever he asks for. */
static void what_no_limit_was_asked_for_is_in_no_list_of_checks(void **state)
{
	(void)state;
	const usec_t now = TOP_HALF;
	for (unsigned deny = 0; deny < 2; deny++)
		see_path(2, "/x", deny, now);
	static const uint64_t want[TOP_KINDS] = { [TOP_DENIED] = 1, [TOP_ENDPOINTS] = 1 };
	for (enum top_kind k = 0; k < TOP_KINDS; k++) {
		struct top_list list = list_at(k, now);
		assert_int_equal(list.total, want[k]);
		top_list_free(&list);
	}
}

static void a_flood_is_sampled(void **state)
{
	(void)state;
	usec_t now = TOP_HALF;
	for (unsigned i = 0; i < 1000000; i++)
		see(0, 0, i % 10 ? 1 : i % USERS, now += 5, true, 1);
	struct top_list list = list_at(TOP_DENIED, now);
	assert_string_equal(list.item[0].name, "user=1");
	assert_true(list.item[0].count > 900000 && list.item[0].count < 1100000);
	assert_true(list.item[0].count - list.item[0].error > 800000);
	assert_true(list.item[0].count - list.item[0].error <= 900000);
	assert_true(list.total > 900000 && list.total < 1100000);
	assert_true(list.one_in > 100);
	top_list_free(&list);
}

/* ---- what was sampled ---- */

/* Two workers, many users, floods that come and go, one half and the next: whatever is told as a
 * bound is one, for all users but a few in a thousand, those that are not listed included. */
static void bounds_hold_where_it_is_sampled(void **state)
{
	(void)state;
	enum { RUNS = 12, MANY = 400 };
	unsigned outside = 0, listed = 0;
	for (unsigned run = 0; run < RUNS; run++) {
		static uint64_t truth[TOP_KINDS][MANY];
		static bool has[MANY];
		struct chance c = { 100 + run };
		usec_t now = (10 + run) * TOP_HALF - 3 * USEC_PER_SEC;
		memset(truth, 0, sizeof truth);
		for (unsigned i = 0; i < WORKERS; i++)
			renew(i, 1000 * run + i);
		for (unsigned i = 0; i < 400000; i++) {
			unsigned user = (unsigned)magnitude(&c, MANY) - 1;
			bool deny = one_in(&c, 2);
			int64_t cost = user % 7 ? 1 : user % 14 ? 20 : 5000;
			now += i / 50000 % 2 ? 10 + run * 20 : 2; /* microseconds */
			see(i % 2, 0, user, now, deny, cost);
			truth[TOP_CHECKED][user]++;
			truth[deny ? TOP_DENIED : TOP_COST][user] += deny ? 1 : (uint64_t)cost;
			truth[TOP_SHADOW][user] += deny;
		}
		for (enum top_kind k = 0; k < TOP_KINDS; k++) {
			if (k == TOP_ENDPOINTS)
				continue;
			struct top_list list = list_at(k, now);
			assert_true(list.one_in > 20);
			memset(has, 0, sizeof has);
			for (size_t i = 0; i < list.n; i++) {
				const struct top_item *item = &list.item[i];
				unsigned user;
				assert_int_equal(sscanf(item->name, "user=%u", &user), 1);
				has[user] = true;
				outside += truth[k][user] > item->count ||
					   truth[k][user] < item->count - item->error;
			}
			for (unsigned user = 0; user < MANY; user++)
				outside += !has[user] && truth[k][user] > list.error;
			listed += list.n;
			top_list_free(&list);
		}
	}
	assert_true(outside <= 4 * RUNS * MANY / 200);
	assert_true(listed > 4 * RUNS * MANY / 3);
}

/* The end of a flood reaches into a half in which nothing of it is taken, whether or not something
 * else comes there later: what was passed over may have been somebody, and that is told while the
 * half counts. */
static void what_was_passed_over_is_told(void **state)
{
	(void)state;
	for (unsigned later = 0; later < 2; later++) {
		const usec_t end = (8 + 10 * later) * TOP_HALF;
		usec_t now = end - 2950 * USEC_PER_MSEC; /* no look in the end */
		while (now < end + 10)
			see(0, 0, 1, now++, true, 1);
		if (later)
			see(0, 0, 2, end + 60 * USEC_PER_SEC, true, 1);
		struct top_list list = list_at(TOP_DENIED, end + TOP_HALF + 1);
		assert_int_equal(list.n, later);
		assert_int_equal(list.total, later);
		assert_true(list.one_in > 500);
		assert_true(list.error >= 10);
		top_list_free(&list);
		list = list_at(TOP_DENIED, end + 2 * TOP_HALF);
		assert_int_equal(list.one_in, 1);
		assert_int_equal(list.error, 0);
		top_list_free(&list);
	}
	/* Slow again: all is told as it is. */
	for (unsigned i = 30; i < 32; i++)
		see(0, 0, 2, i * TOP_HALF + 1, true, 1);
	struct top_list list = list_at(TOP_DENIED, 31 * TOP_HALF + 2);
	assert_int_equal(list.one_in, 1);
	assert_int_equal(list.error, 0);
	assert_int_equal(list.item[0].count, 2);
	assert_int_equal(list.item[0].error, 0);
	top_list_free(&list);
}

/* Beside one that is flooded, the other's counts are exact. */
static void only_what_is_sampled_is_uncertain(void **state)
{
	(void)state;
	usec_t now = 7 * TOP_HALF;
	for (unsigned i = 0; i < 300000; i++)
		see(0, 0, 1, now += 5, true, 1);
	for (unsigned i = 0; i < 50000; i++)
		see(1, 0, 2, now += 600, true, 1);
	struct top_list list = list_at(TOP_DENIED, now);
	uint64_t absent = sampler_at_most(0, list.one_in);
	assert_true(list.one_in > 100 && list.error == absent);
	assert_string_equal(list.item[1].name, "user=2");
	assert_int_equal(list.item[1].count, 50000 + absent);
	assert_int_equal(list.item[1].error, absent);
	top_list_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bounds_hold_for_the_sum, setup, teardown),
		cmocka_unit_test_setup_teardown(two_halves_count, setup, teardown),
		cmocka_unit_test_setup_teardown(
			names_that_begin_alike_are_told_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_forgotten_is_in_no_list, setup, teardown),
		cmocka_unit_test_setup_teardown(what_counts_where, setup, teardown),
		cmocka_unit_test_setup_teardown(a_client_is_one_by_whatever_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(endpoints_are_told_apart_by_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_no_limit_was_asked_for_is_in_no_list_of_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(a_flood_is_sampled, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_hold_where_it_is_sampled, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_passed_over_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(only_what_is_sampled_is_uncertain, setup, teardown),
	};
	return hash_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
