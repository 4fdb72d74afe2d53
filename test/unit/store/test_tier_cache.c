/* What is remembered of tiers in Redis: how long, for whom, in how much room. Time is an argument.
 */
#include "store/tier_cache.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define AGE (10 * USEC_PER_SEC)
#define SEC USEC_PER_SEC
#define MS  USEC_PER_MSEC

static const usec_t start = (usec_t)1 << 40;

static struct tier_text text_of(const char *name)
{
	struct tier_text t = { .length = (uint8_t)strlen(name) };
	memcpy(t.text, name, t.length);
	return t;
}

static struct key key_of(struct tier_cache *c, const char *name)
{
	return tier_cache_key(c, str_of(name), false);
}

static void put(struct tier_cache *c, const char *name, const char *tier, usec_t at)
{
	struct tier_text t = text_of(tier);
	tier_cache_put(c, key_of(c, name), &t, tier_cache_epoch(c), start + at);
}

static struct tier_cache *cache_new(uint64_t entries)
{
	assert_true(hash_init());
	struct tier_cache *c = tier_cache_new(entries, AGE);
	assert_non_null(c);
	tier_cache_set_watched(c, true);
	return c;
}

static void is(
	struct tier_cache *c, const char *name, usec_t at, enum tier_known known, const char *tier)
{
	struct tier_text t;
	assert_int_equal(tier_cache_get(c, key_of(c, name), start + at, &t), known);
	assert_int_equal(t.length, strlen(tier));
	assert_memory_equal(t.text, tier, t.length);
}

/* One name, what happens to it, and what is then known of it. */
enum what { PUT, PUT_NOBODY, PUT_LATE, FORGET, UNWATCH, WATCH, SHORTEN };
static const struct {
	const char *name;
	struct {
		usec_t at;
		enum what what;
	} step[4];
	unsigned n;
	usec_t asked;
	enum tier_known known;
	const char *tier;
} rows[] = {
	{ "nothing was said", { { 0 } }, 0, 0, TIER_NEW, "" },
	{ "what was just said holds", { { 0, PUT } }, 1, 0, TIER_FRESH, "gold" },
	{ "that it is nobody's, too", { { 0, PUT_NOBODY } }, 1, 0, TIER_FRESH, "" },
	{ "until its age", { { 0, PUT } }, 1, AGE - 1, TIER_FRESH, "gold" },
	{ "then it is old", { { 0, PUT } }, 1, AGE, TIER_STALE, "gold" },
	{ "nobody's gets old as well", { { 0, PUT_NOBODY } }, 1, AGE, TIER_STALE, "" },
	{ "a change makes it old at once", { { 0, PUT }, { 1, FORGET } }, 2, 2, TIER_STALE,
		"gold" },
	{ "said again it holds", { { 0, PUT }, { 1, FORGET }, { 2, PUT } }, 3, 3, TIER_FRESH,
		"gold" },
	{ "what was asked before a change is old when it comes", { { 0, FORGET }, { 1, PUT_LATE } },
		2, 2, TIER_STALE, "gold" },
	{ "and does not take the place of what is newer",
		{ { 0, FORGET }, { 1, PUT_NOBODY }, { 2, PUT_LATE } }, 3, 2, TIER_FRESH, "" },
	{ "unwatched it holds for half a second", { { 0, PUT }, { 1, UNWATCH } }, 2, 499 * MS,
		TIER_FRESH, "gold" },
	{ "and no longer", { { 0, PUT }, { 1, UNWATCH } }, 2, 500 * MS, TIER_STALE, "gold" },
	{ "watched again it is as before", { { 0, PUT }, { 1, UNWATCH }, { 2, WATCH } }, 3, SEC,
		TIER_FRESH, "gold" },
	{ "a shorter age holds for what is there", { { 0, PUT }, { 1, SHORTEN } }, 2, 100 * MS,
		TIER_STALE, "gold" },
	{ "unwatched no longer than that", { { 0, PUT }, { 1, SHORTEN }, { 2, UNWATCH } }, 3,
		100 * MS, TIER_STALE, "gold" },
};

static void how_long(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct tier_cache *c = cache_new(64);
		struct tier_text gold = text_of("gold");
		for (unsigned k = 0; k < rows[i].n; k++) {
			usec_t at = rows[i].step[k].at;
			switch (rows[i].step[k].what) {
			case PUT:
				put(c, "alice", "gold", at);
				break;
			case PUT_NOBODY:
				put(c, "alice", "", at);
				break;
			case PUT_LATE:
				tier_cache_put(c, key_of(c, "alice"), &gold,
					tier_cache_epoch(c) - 1, start + at);
				break;
			case FORGET:
				tier_cache_forget(c);
				break;
			case UNWATCH:
				tier_cache_set_watched(c, false);
				break;
			case WATCH:
				tier_cache_set_watched(c, true);
				break;
			case SHORTEN:
				tier_cache_set_age(c, 100 * MS);
				break;
			}
		}
		struct tier_text t;
		enum tier_known known = tier_cache_get(
			c, key_of(c, "alice"), start + rows[i].asked, &t);
		if (known != rows[i].known || t.length != strlen(rows[i].tier) ||
			memcmp(t.text, rows[i].tier, t.length))
			fail_msg("%s: %d \"%.*s\"", rows[i].name, known, t.length, t.text);
		tier_cache_free(c);
	}
}

static void secret_and_clear_are_two(void **state)
{
	(void)state;
	struct tier_cache *c = cache_new(64);
	struct tier_text gold = text_of("gold"), t;
	tier_cache_put(c, tier_cache_key(c, STR("x"), true), &gold, tier_cache_epoch(c), start);
	assert_int_equal(
		tier_cache_get(c, tier_cache_key(c, STR("x"), false), start, &t), TIER_NEW);
	assert_int_equal(
		tier_cache_get(c, tier_cache_key(c, STR("x"), true), start, &t), TIER_FRESH);
	tier_cache_free(c);
}

static void each_process_has_its_own_hash(void **state)
{
	(void)state;
	struct tier_cache *a = cache_new(64), *b = cache_new(64);
	assert_true(key_of(a, "x").a != key_of(b, "x").a);
	tier_cache_free(a);
	tier_cache_free(b);
}

/* Names without end: those that are asked for stay, whatever passes by. */
static void a_flood_does_not_push_out_what_is_used(void **state)
{
	(void)state;
	enum { REGULARS = 200, FLOOD = 50000 };
	struct tier_cache *c = cache_new(1024);
	char name[32];
	unsigned kept = 0, flood_kept = 0;
	struct tier_text t;
	for (unsigned i = 0; i < REGULARS; i++) {
		snprintf(name, sizeof name, "r%u", i);
		put(c, name, "gold", 0);
	}
	for (unsigned i = 0; i < FLOOD; i++) {
		snprintf(name, sizeof name, "r%u", i % REGULARS);
		(void)tier_cache_get(c, key_of(c, name), start, &t);
		snprintf(name, sizeof name, "f%u", i);
		put(c, name, "", 1 + i);
	}
	for (unsigned i = 0; i < REGULARS; i++) {
		snprintf(name, sizeof name, "r%u", i);
		kept += tier_cache_get(c, key_of(c, name), start, &t) == TIER_FRESH;
	}
	for (unsigned i = 0; i < FLOOD; i++) {
		snprintf(name, sizeof name, "f%u", i);
		flood_kept += tier_cache_get(c, key_of(c, name), start, &t) != TIER_NEW;
	}
	assert_true(kept >= REGULARS * 9 / 10); /* less sets that are full of them */
	assert_true(kept + flood_kept <= 1024);
	tier_cache_free(c);
}

/* Sets whose names are all in use let the oldest go, and still take what is new. */
static void full_of_what_is_used(void **state)
{
	(void)state;
	struct tier_cache *c = cache_new(4); /* one set */
	static const char *const names[] = { "a", "b", "c", "d", "e" };
	for (unsigned i = 0; i < 4; i++) {
		put(c, names[i], "gold", i);
		is(c, names[i], i, TIER_FRESH, "gold");
	}
	put(c, "e", "free", 4);
	is(c, "e", 4, TIER_FRESH, "free");
	is(c, "a", 4, TIER_NEW, "");
	for (unsigned i = 1; i < 4; i++)
		is(c, names[i], 4, TIER_FRESH, "gold");
	tier_cache_free(c);
}

/* Who goes is who was asked for longest ago, wherever he stands: of those that are not used, then
 * of all; and who goes next is again nobody that was used since. */
static void the_oldest_goes(void **state)
{
	(void)state;
	static const char *const names[] = { "a", "b", "c", "d" };
	static const usec_t at[] = { 12, 10, 13, 11 };
	for (unsigned used = 0; used < 2; used++) {
		struct tier_cache *c = cache_new(4); /* one set */
		for (unsigned i = 0; i < 4; i++) {
			put(c, names[i], "gold", at[i]);
			if (used)
				is(c, names[i], at[i], TIER_FRESH, "gold");
		}
		put(c, "e", "free", 20);
		put(c, "f", "free", 21);
		is(c, "b", 21, TIER_NEW, "");
		is(c, "d", 21, TIER_NEW, "");
		is(c, "a", 21, TIER_FRESH, "gold");
		is(c, "c", 21, TIER_FRESH, "gold");
		is(c, "e", 21, TIER_FRESH, "free");
		is(c, "f", 21, TIER_FRESH, "free");
		tier_cache_free(c);
	}
}

/* Of two answers what was asked for later counts, whichever comes first. */
static void what_was_asked_for_later_counts(void **state)
{
	(void)state;
	struct tier_cache *c = cache_new(4);
	put(c, "a", "gold", 2);
	put(c, "a", "free", 1);
	is(c, "a", 2, TIER_FRESH, "gold");
	put(c, "a", "free", 3);
	is(c, "a", 3, TIER_FRESH, "free");
	tier_cache_free(c);
}

static void whether_there_is_anything(void **state)
{
	(void)state;
	struct tier_cache *c = cache_new(64);
	assert_int_equal(tier_cache_there(c), TIERS_NOT_KNOWN);
	uint64_t before = tier_cache_epoch(c);
	tier_cache_set_there(c, TIERS_NONE, before);
	assert_int_equal(tier_cache_there(c), TIERS_NONE);
	tier_cache_forget(c);
	assert_true(tier_cache_epoch(c) > before);
	assert_int_equal(tier_cache_there(c), TIERS_NONE); /* until it is said anew */
	tier_cache_set_there(c, TIERS_REFUSED, before);
	assert_int_equal(tier_cache_there(c), TIERS_NONE); /* that was asked before */
	tier_cache_set_there(c, TIERS_SOME, tier_cache_epoch(c));
	assert_int_equal(tier_cache_there(c), TIERS_SOME);
	tier_cache_free(c);
}

/* Threads that put, get and forget: what is read is always something that was put under that name.
 */
enum { THREADS = 4, ROUNDS = 20000 };

static void *work(void *arg)
{
	struct tier_cache *c = arg;
	static _Thread_local unsigned wrong;
	wrong = 0;
	for (unsigned i = 0; i < ROUNDS; i++) {
		char name[16];
		struct tier_text t;
		snprintf(name, sizeof name, "n%u", i % 61);
		struct tier_text mine = text_of(name);
		if (i % 3 == 0)
			tier_cache_put(c, key_of(c, name), &mine, tier_cache_epoch(c), start + i);
		if (i % 101 == 0)
			tier_cache_forget(c);
		tier_cache_set_there(c, TIERS_SOME, tier_cache_epoch(c));
		if (tier_cache_get(c, key_of(c, name), start + i, &t) != TIER_NEW)
			wrong += t.length != mine.length ||
				 memcmp(t.text, mine.text, t.length) != 0;
	}
	return wrong ? arg : NULL;
}

static void threads_do_not_mix_it_up(void **state)
{
	(void)state;
	struct tier_cache *c = cache_new(64);
	pthread_t thread[THREADS];
	uint64_t before = tier_cache_epoch(c);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, work, c), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		void *wrong;
		pthread_join(thread[i], &wrong);
		assert_null(wrong);
	}
	assert_int_equal(tier_cache_epoch(c), before + THREADS * ((ROUNDS + 100) / 101));
	assert_int_equal(tier_cache_there(c), TIERS_SOME);
	tier_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(how_long),
		cmocka_unit_test(secret_and_clear_are_two),
		cmocka_unit_test(each_process_has_its_own_hash),
		cmocka_unit_test(a_flood_does_not_push_out_what_is_used),
		cmocka_unit_test(full_of_what_is_used),
		cmocka_unit_test(the_oldest_goes),
		cmocka_unit_test(what_was_asked_for_later_counts),
		cmocka_unit_test(whether_there_is_anything),
		cmocka_unit_test(threads_do_not_mix_it_up),
	};
	return cmocka_run_group_tests_name("store/tier_cache", tests, NULL, NULL);
}
