/* The sketch against exact counts: its three promises, for streams of every shape, at every
 * moment that is looked at. */
#include "base/sketch.h"

#include "../../chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdatomic.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

enum { KEYS = 4096, READERS_LOOK = 500 };

static struct sketch_item item[SKETCH_ITEMS];

static struct key key_of(unsigned i)
{
	struct chance c = { i };
	uint64_t a = draw(&c);
	return (struct key){ a, draw(&c) };
}

static void add(struct sketch *s, unsigned i, uint64_t weight)
{
	char name[SKETCH_NAME_MAX]; /* long: what tells keys apart is stored last */
	int n = snprintf(name, sizeof name, "%0*u", SKETCH_NAME_MAX - 1, i);
	if (!sketch_count(s, key_of(i), weight))
		sketch_put(s, key_of(i), weight, i % 7, (struct str){ name, (size_t)n });
}

static void check_promises(const struct sketch *s, const uint64_t exact[KEYS], uint64_t total)
{
	static bool has[KEYS];
	struct sketch_sum sum;
	memset(has, 0, sizeof has);
	assert_true(sketch_read(s, 1, item, &sum));
	assert_int_equal(sum.total, total);
	assert_true(sum.least <= total / SKETCH_ITEMS);
	uint64_t all = 0;
	for (unsigned i = 0; i < sum.n; i++) {
		unsigned k;
		assert_int_equal(sscanf(item[i].name, "%u", &k), 1);
		assert_false(has[k]);
		has[k] = true;
		assert_int_equal(item[i].group, k % 7);
		assert_true(item[i].count >= exact[k]);
		assert_true(item[i].count - item[i].error <= exact[k]);
		assert_true(item[i].count >= sum.least);
		all += item[i].count;
	}
	assert_int_equal(all, total);
	for (unsigned k = 0; k < KEYS; k++)
		if (!has[k])
			assert_true(exact[k] <= sum.least && exact[k] <= total / SKETCH_ITEMS);
}

static unsigned pick(struct chance *c, unsigned shape)
{
	switch (shape) {
	case 0: /* all alike */
		return (unsigned)between(c, 0, KEYS - 1);
	case 1: /* a few have most */
		return (unsigned)magnitude(c, KEYS) - 1;
	case 2: /* as many as there is room for */
		return (unsigned)between(c, 0, SKETCH_ITEMS - 1);
	default: /* one by one, in order */
		return (unsigned)(c->state++ % KEYS);
	}
}

static void promises_hold(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 32; seed++) {
		struct chance c = { seed };
		static uint64_t exact[KEYS];
		struct sketch *s = sketch_new();
		uint64_t total = 0;
		memset(exact, 0, sizeof exact);
		sketch_begin(s, 1);
		for (unsigned i = 0; i < 20000; i++) {
			unsigned k = pick(&c, seed % 4);
			uint64_t weight = seed % 8 < 4 ? 1 : (uint64_t)magnitude(&c, 1000000);
			add(s, k, weight);
			exact[k] += weight;
			total += weight;
			if (i % READERS_LOOK == 0)
				check_promises(s, exact, total);
		}
		check_promises(s, exact, total);
		sketch_free(s);
	}
}

static void keys_of_one_bucket(void **state)
{
	(void)state;
	struct sketch *s = sketch_new();
	struct sketch_sum sum;
	struct chance c = { 9 };
	sketch_begin(s, 1);
	for (unsigned i = 0; i < 5000; i++) {
		/* The last buckets, so that they go on at the first ones. */
		struct key k = { 1023 - (uint64_t)between(&c, 0, 3),
			(uint64_t)between(&c, 0, 400) };
		if (!sketch_count(s, k, 1))
			sketch_put(s, k, 1, 0, STR("x"));
	}
	assert_true(sketch_read(s, 1, item, &sum));
	assert_int_equal(sum.n, SKETCH_ITEMS);
	assert_int_equal(sum.total, 5000);
	sketch_free(s);
}

static void it_begins_anew(void **state)
{
	(void)state;
	struct sketch *s = sketch_new();
	struct sketch_sum sum;
	sketch_begin(s, 1);
	for (unsigned i = 0; i < 1000; i++)
		add(s, i, 5);
	sketch_begin(s, 2);
	assert_false(sketch_read(s, 1, item, &sum));
	assert_true(sketch_read(s, 2, item, &sum));
	assert_int_equal(sum.n + sum.total + sum.least, 0);
	add(s, 3, 2);
	assert_true(sketch_read(s, 2, item, &sum));
	assert_int_equal(sum.n, 1);
	assert_int_equal(item[0].count, 2);
	assert_int_equal(item[0].error, 0);
	sketch_free(s);
}

static void names_are_cut(void **state)
{
	(void)state;
	char name[200];
	struct sketch *s = sketch_new();
	struct sketch_sum sum;
	memset(name, 'a', sizeof name);
	sketch_begin(s, 1);
	sketch_put(s, key_of(1), 1, 0, (struct str){ name, sizeof name });
	sketch_put(s, key_of(2), 1, 0, (struct str){ 0 });
	assert_true(sketch_read(s, 1, item, &sum));
	assert_int_equal(strlen(item[0].name), SKETCH_NAME_MAX);
	assert_string_equal(item[1].name, "");
	sketch_free(s);
}

static _Atomic(bool) stop;

static void *write_on(void *s)
{
	struct chance c = { 4 };
	for (uint64_t epoch = 1; !atomic_load(&stop); epoch++) {
		sketch_begin(s, epoch);
		for (unsigned i = 0; i < 100000 && !atomic_load(&stop); i++)
			add(s, (unsigned)between(&c, 0, KEYS - 1), 1);
	}
	return NULL;
}

/* Whoever reads meanwhile finds each item of one piece: name and group are of one key. */
static void items_are_whole(void **state)
{
	(void)state;
	struct sketch *s = sketch_new();
	pthread_t thread;
	uint64_t epoch = 1, reads = 0;
	sketch_begin(s, 1);
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, write_on, s), 0);
	while (reads < 3000) {
		struct sketch_sum sum;
		if (!sketch_read(s, epoch, item, &sum)) {
			epoch++;
			continue;
		}
		reads += sum.n == SKETCH_ITEMS; /* the writer is at it */
		for (unsigned k = 0; k < sum.n; k++) {
			unsigned key;
			assert_int_equal(sscanf(item[k].name, "%u", &key), 1);
			assert_int_equal(item[k].group, key % 7);
			assert_true(item[k].count > item[k].error);
		}
	}
	atomic_store(&stop, true);
	(void)pthread_join(thread, NULL);
	sketch_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(promises_hold),
		cmocka_unit_test(keys_of_one_bucket),
		cmocka_unit_test(it_begins_anew),
		cmocka_unit_test(names_are_cut),
		cmocka_unit_test(items_are_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
