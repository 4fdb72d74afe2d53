/* Who is banned, for how long, and that it stays so until it ends. */
#include "rig.h"

#include "store/bans.h"

#define MIN (60 * USEC_PER_SEC)

static unsigned take; /* that bans_find() found */

static const struct penalty penalty = { .ban = 10 * MIN, .max = 60 * MIN, .factor = 2 };

static struct ban ban_of(uint64_t id)
{
	struct ban b = { .key = { rig_mix(id), rig_mix(~id) }, .rule = "login" };
	snprintf(b.client, sizeof b.client, "ip=%d", (int)id);
	return b;
}

/* A plan of one take of a rule with the penalty, whose ban key is that of `id`. */
struct banned_rig {
	struct rig_limit of;
	struct penalty penalty;
	struct plan plan;
};

static struct plan *plan_of(struct banned_rig *r, uint64_t id)
{
	struct ban b = ban_of(id);
	rig_limit(&r->of, ALGORITHM_TOKEN_BUCKET, 10, MIN, 10);
	r->penalty = penalty;
	r->of.rule.penalty = &r->penalty;
	r->plan.n = 1;
	r->plan.take[0] = (struct take){ .limit = &r->of.limit, .key = b.key };
	return &r->plan;
}

static void bans_grow_and_are_forgotten(void **state)
{
	static const struct {
		const char *title;
		usec_t at, until; /* minutes; until 0: it is still banned */
	} row[] = {
		{ "the first", 0, 10 },
		{ "while it holds, no other begins", 5, 0 },
		{ "the second, twice as long", 10, 30 },
		{ "the third, twice as long again", 31, 71 },
		{ "the longest there is", 71, 131 },
		{ "and no longer", 190, 250 },
		{ "an hour after the last it is forgotten", 310, 320 },
	};
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct plan *plan = plan_of(&r, 1);
	(void)state;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct ban ban = ban_of(1);
		bool begun = bans_begin(b, &penalty, &ban, row[i].at * MIN);
		if (begun != (row[i].until != 0) || (begun && ban.until != row[i].until * MIN))
			fail_msg("%s: %d until %lld", row[i].title, begun,
				(long long)(ban.until / MIN));
		if (!begun)
			continue;
		assert_int_equal(bans_find(b, plan, row[i].at * MIN, &take), row[i].until * MIN);
		assert_int_equal(
			bans_find(b, plan, row[i].until * MIN - 1, &take), row[i].until * MIN);
		assert_int_equal(bans_find(b, plan, row[i].until * MIN, &take), 0);
	}
	assert_int_equal(bans_find(b, plan_of(&r, 2), 310 * MIN, &take), 0);
	bans_free(b);
}

static void rules_without_effect_ban_nobody(void **state)
{
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1);
	(void)state;

	assert_true(bans_begin(b, &penalty, &ban, 1));
	struct plan *plan = plan_of(&r, 1);
	assert_int_not_equal(bans_find(b, plan, 2, &take), 0);
	r.of.rule.mode = MODE_SHADOW;
	assert_int_equal(bans_find(b, plan, 2, &take), 0);
	r.of.rule.mode = MODE_ENFORCE;
	r.of.rule.penalty = NULL;
	assert_int_equal(bans_find(b, plan, 2, &take), 0);
	bans_free(b);
}

/* Of two rules the one that bans is told of, with its first limit. */
static void a_ban_says_which_take_it_is_of(void **state)
{
	static struct banned_rig r, other;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1);
	(void)state;

	assert_true(bans_begin(b, &penalty, &ban, 1));
	struct plan *plan = plan_of(&r, 1);
	(void)plan_of(&other, 2);
	plan->take[2] = plan->take[1] = plan->take[0];
	plan->take[0] = other.plan.take[0];
	plan->n = 3;
	assert_int_not_equal(bans_find(b, plan, 2, &take), 0);
	assert_int_equal(take, 1);
	bans_free(b);
}

/* Of two bans the one that ends last is told of, in either order. */
static void of_two_bans_the_later_end_is_told(void **state)
{
	static struct banned_rig r[2];
	struct bans *b = bans_new();
	struct plan plan = { .n = 2 };
	(void)state;

	for (unsigned i = 0; i < 2; i++) {
		struct ban ban = ban_of(i);
		plan.take[i] = plan_of(&r[i], i)->take[0];
		assert_true(bans_begin(b, &penalty, &ban, i * MIN));
	}
	for (unsigned last = 1; last < 2; last--) {
		assert_int_equal(bans_find(b, &plan, 2 * MIN, &take), 11 * MIN);
		assert_int_equal(take, last);
		const struct take first = plan.take[0];
		plan.take[0] = plan.take[1];
		plan.take[1] = first;
	}
	bans_free(b);
}

static void a_lifted_ban_is_over_and_the_next_is_the_first(void **state)
{
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1), other = ban_of(2);
	struct plan *plan = plan_of(&r, 1);
	(void)state;

	assert_int_equal(bans_epoch(b, &ban.key, 0), 0);
	assert_true(bans_begin(b, &penalty, &ban, 0));
	assert_int_equal(bans_epoch(b, &ban.key, 1), 1);
	assert_false(bans_lift(b, &other.key, 1));
	assert_true(bans_lift(b, &ban.key, 1));
	assert_false(bans_lift(b, &ban.key, 1));
	assert_int_equal(bans_find(b, plan, 1, &take), 0);
	assert_int_equal(bans_epoch(b, &ban.key, 1), 2);
	assert_true(bans_begin(b, &penalty, &ban, 1));
	assert_int_equal(ban.level, 0);
	assert_int_equal(bans_epoch(b, &ban.key, 2), 3);
	assert_false(bans_lift(b, &ban.key, 11 * MIN)); /* it is over by itself */
	assert_int_equal(bans_epoch(b, &ban.key, 200 * MIN), 0);
	bans_free(b);
}

/* What was counted before a ban may not be gone on with when that is forgotten, nor what is counted
 * since be lost: each is kept apart for as long as denials are counted. How long the next ban is
 * goes by `max` all the same. */
static void a_ban_is_not_forgotten_while_denials_are_counted(void **state)
{
	struct penalty slow = penalty;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1);
	(void)state;

	slow.after.window.length = 300 * MIN;
	assert_true(bans_begin(b, &slow, &ban, 0)); /* until 10, counted until 310 */
	assert_int_equal(bans_epoch(b, &ban.key, 310 * MIN - 1), 1);
	assert_int_equal(bans_epoch_to_count(b, &ban.key, &slow, 100 * MIN), 1);
	assert_int_equal(bans_epoch(b, &ban.key, 400 * MIN - 1), 1);
	assert_int_equal(bans_epoch(b, &ban.key, 400 * MIN), 0);
	assert_int_equal(bans_epoch_to_count(b, &ban.key, &slow, 400 * MIN), 0);
	assert_true(bans_begin(b, &slow, &ban, 390 * MIN));
	assert_int_equal(ban.epoch, 2);
	assert_int_equal(ban.level, 0);
	bans_free(b);
}

/* Another agent has forgotten what this one has not: its next ban is of the first epoch again. */
static void a_later_ban_is_taken_of_any_epoch(void **state)
{
	struct bans *b = bans_new();
	struct ban ban = ban_of(1), theirs = ban_of(1);
	(void)state;

	assert_true(bans_begin(b, &penalty, &ban, 0));
	assert_true(bans_begin(b, &penalty, &ban, 20 * MIN)); /* until 40 */
	theirs.epoch = 1;
	theirs.since = 50 * MIN;
	theirs.until = 60 * MIN;
	theirs.forget_at = 120 * MIN;
	assert_false(bans_put(b, &theirs, 39 * MIN)); /* this one holds */
	assert_true(bans_put(b, &theirs, 51 * MIN));
	assert_true(bans_lift(b, &ban.key, 52 * MIN));
	assert_false(bans_put(b, &theirs, 53 * MIN)); /* an old telling of it lifts no lift */
	bans_free(b);
}

/* Who waits for the first of them alone waits in vain. */
static void of_two_bans_the_last_to_end_counts(void **state)
{
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct ban first = ban_of(1), second = ban_of(2);
	(void)state;

	struct plan *plan = plan_of(&r, 1);
	struct take other = plan_of(&r, 2)->take[0];
	plan = plan_of(&r, 1);
	static struct rule another;
	static struct limit its;
	another = *other.limit->rule;
	its = *other.limit;
	its.rule = &another;
	other.limit = &its;
	plan->take[plan->n++] = other;
	assert_true(bans_begin(b, &penalty, &first, 0));
	assert_true(bans_begin(b, &penalty, &second, 5 * MIN));
	assert_int_equal(bans_find(b, plan, 6 * MIN, &take), 15 * MIN);
	assert_int_equal(take, plan->n - 1);
	bans_free(b);
}

static void what_others_tell_counts_where_it_ends_later(void **state)
{
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1);
	struct plan *plan = plan_of(&r, 1);
	(void)state;

	ban.until = 20 * MIN;
	ban.forget_at = 80 * MIN;
	ban.level = 3;
	assert_false(bans_put(b, &ban, 80 * MIN)); /* it is over and forgotten */
	assert_true(bans_put(b, &ban, 0));
	assert_false(bans_put(b, &ban, 0));
	assert_int_equal(bans_find(b, plan, 1, &take), 20 * MIN);
	ban.until = 19 * MIN;
	assert_false(bans_put(b, &ban, 0));
	ban.until = 21 * MIN;
	assert_true(bans_put(b, &ban, 0));
	assert_int_equal(bans_find(b, plan, 1, &take), 21 * MIN);
	assert_int_equal(bans_count(b), 1);
	struct ban next = ban_of(1);
	assert_true(bans_begin(b, &penalty, &next, 22 * MIN));
	assert_int_equal(next.level, 4);
	struct ban told;
	assert_true(bans_next_begun(b, &told)); /* of its own, not of what it was told */
	assert_int_equal(told.until, next.until);
	assert_false(bans_next_begun(b, &told));
	bans_free(b);
}

/* Who is banned for ten minutes is so for ten minutes, were the clock wrong by a year when it
 * began.
 */
static void a_clock_set_back_makes_no_ban_longer(void **state)
{
	enum { YEAR = 366 * 24 * 60 };
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1), got[8];
	struct plan *plan = plan_of(&r, 1);
	uint64_t cursor = 0;
	(void)state;

	assert_true(bans_begin(b, &penalty, &ban, YEAR * MIN));
	/* clocks of agents are a little apart: up to a minute says nothing */
	assert_int_equal(bans_find(b, plan, (YEAR - 1) * MIN, &take), (YEAR + 10) * MIN);
	assert_int_equal(bans_find(b, plan, 5 * MIN, &take), 15 * MIN);
	assert_int_equal(bans_find(b, plan, 14 * MIN, &take), 15 * MIN);
	assert_int_equal(bans_find(b, plan, 15 * MIN, &take), 0);
	assert_int_equal(bans_ended(b, &cursor, got, 8, 15 * MIN), 1);
	/* forgotten after an hour, as ever */
	assert_int_equal(bans_epoch(b, &ban.key, 74 * MIN), 1);
	assert_int_equal(bans_epoch(b, &ban.key, 75 * MIN), 0);
	bans_free(b);
}

/* Nor anew: neither who asks, nor who lists them, nor what the next one would be finds it. */
static void a_clock_set_back_bans_nobody_anew(void **state)
{
	static struct banned_rig r;
	struct bans *b = bans_new();
	struct ban ban = ban_of(1), got[8];
	struct plan *plan = plan_of(&r, 1);
	uint64_t cursor = 0;
	(void)state;

	assert_true(bans_begin(b, &penalty, &ban, 500 * MIN));
	assert_int_equal(bans_ended(b, &cursor, got, 8, 511 * MIN), 1);
	assert_int_equal(bans_find(b, plan, 510 * MIN - 1, &take), 0); /* not by a moment either */
	cursor = 0;
	assert_int_equal(bans_copy(b, &cursor, got, 8, 505 * MIN), 1);
	assert_true(got[0].until <= 505 * MIN);
	assert_int_equal(bans_find(b, plan, 505 * MIN, &take), 0);
	assert_false(bans_lift(b, &ban.key, 505 * MIN));
	assert_int_equal(bans_find(b, plan, 400 * MIN, &take), 0);
	assert_true(bans_begin(b, &penalty, &ban, 400 * MIN));
	assert_int_equal(ban.level, 1);
	assert_int_equal(bans_find(b, plan, 401 * MIN, &take), 420 * MIN);
	bans_free(b);
}

/* Those that bans_ended() tells at this minute, by their clients. */
static const char *ended(struct bans *b, usec_t minute)
{
	static char text[256];
	struct ban ban[8];
	uint64_t cursor = 0;
	size_t n;

	text[0] = '\0';
	while ((n = bans_ended(b, &cursor, ban, 8, minute * MIN)))
		for (size_t i = 0; i < n; i++)
			strcat(strcat(text, ban[i].client), " ");
	return text;
}

static void an_end_is_told_once(void **state)
{
	struct bans *b = bans_new();
	struct ban first = ban_of(1), second = ban_of(2), third = ban_of(3);
	(void)state;

	assert_string_equal(ended(b, 1), "");
	assert_true(bans_begin(b, &penalty, &first, 0));
	assert_true(bans_begin(b, &penalty, &second, 2 * MIN));
	assert_string_equal(ended(b, 9), "");
	assert_string_equal(ended(b, 10), "ip=1 ");
	assert_string_equal(ended(b, 11), "");
	/* the next one has begun before anybody asked */
	assert_true(bans_begin(b, &penalty, &second, 13 * MIN));
	assert_string_equal(ended(b, 13), "ip=2 ");
	assert_string_equal(ended(b, 14), "");
	/* one that was lifted has ended by somebody's hand */
	assert_true(bans_lift(b, &second.key, 20 * MIN));
	assert_string_equal(ended(b, 60), "");
	/* what others tell ends here as well, unless it had ended before */
	third.until = 70 * MIN;
	third.forget_at = 200 * MIN;
	assert_true(bans_put(b, &third, 61 * MIN));
	assert_string_equal(ended(b, 69), "");
	assert_string_equal(ended(b, 70), "ip=3 ");
	third.epoch++;
	assert_true(bans_put(b, &third, 71 * MIN));
	assert_string_equal(ended(b, 72), "");
	bans_free(b);
}

/* Of nine in one set of eight, where all others are over and nobody has been told. It is no loss.
 */
static void an_end_is_told_also_of_one_that_had_to_go(void **state)
{
	enum { WAYS = 8 };
	struct bans *b = bans_new();
	(void)state;

	for (unsigned i = 0; i <= WAYS; i++) {
		struct ban ban = ban_of(i);
		ban.key.a = i * (uint64_t)BANS_MAX;
		assert_true(bans_begin(b, &penalty, &ban, (i < WAYS ? i : 20) * MIN));
	}
	assert_int_equal(bans_count(b), WAYS);
	assert_int_equal(bans_evicted(b), 0);
	assert_non_null(strstr(ended(b, 20), "ip=0 "));
	bans_free(b);
}

static size_t copy_all(struct bans *b, usec_t utc)
{
	static struct ban out[64];
	uint64_t cursor = 0;
	size_t n = 0, got;
	while ((got = bans_copy(b, &cursor, out, 64, utc)))
		n += got;
	return n;
}

static void the_table_is_bounded(void **state)
{
	enum { MANY = 3 * BANS_MAX };
	static struct banned_rig r;
	struct bans *b = bans_new();
	(void)state;

	struct ban last = ban_of(0);
	struct penalty longest = { .ban = 60 * MIN, .max = 60 * MIN, .factor = 1 };
	assert_true(bans_begin(b, &longest, &last, 0));
	for (unsigned i = 1; i <= MANY; i++) {
		struct ban ban = ban_of(i);
		assert_true(bans_begin(b, &penalty, &ban, i));
	}
	assert_true(bans_count(b) <= BANS_MAX && bans_count(b) > BANS_MAX / 2);
	assert_int_equal(copy_all(b, MANY), bans_count(b));
	assert_int_equal(bans_evicted(b), MANY + 1 - bans_count(b));
	/* who is free last is let go last */
	assert_int_equal(bans_find(b, plan_of(&r, 0), MANY, &take), 60 * MIN);
	/* who is free again, and only remembered, is no loss */
	uint64_t evicted = bans_evicted(b);
	for (unsigned i = 1; i <= 1000; i++) {
		struct ban ban = ban_of(2 * MANY + i);
		assert_true(bans_begin(b, &penalty, &ban, 30 * MIN));
	}
	assert_int_equal(bans_evicted(b), evicted);
	/* what has ended makes room */
	assert_int_equal(copy_all(b, 200 * MIN), 0);
	for (unsigned i = 1; i <= 100; i++) {
		struct ban ban = ban_of(MANY + i);
		assert_true(bans_begin(b, &penalty, &ban, 200 * MIN));
	}
	assert_int_equal(bans_evicted(b), evicted);
	bans_free(b);
}

static void who_is_forgotten_is_told_once(void **state)
{
	enum { MANY = 1000 };
	struct bans *b = bans_new();
	struct key key[16];
	uint64_t cursor = 0;
	size_t told = 0;
	(void)state;

	for (unsigned i = 0; i < MANY; i++) {
		struct ban ban = ban_of(i);
		assert_true(bans_begin(b, &penalty, &ban, i % 2 ? 0 : 40 * MIN));
	}
	uint64_t before = bans_count(b);
	for (unsigned i = 0; i < 3000; i++) /* each of 16 keys, or of a part of the table */
		told += bans_forget(b, &cursor, key, 16, 70 * MIN - 1);
	assert_int_equal(told, 0);
	for (unsigned i = 0; i < 3000; i++)
		for (size_t n = bans_forget(b, &cursor, key, 16, 70 * MIN); n; n--, told++) {
			struct ban ban;
			assert_false(bans_get(b, &key[n - 1], &ban));
		}
	assert_int_equal(told, MANY / 2);
	assert_int_equal(bans_count(b), before - told);
	assert_int_equal(copy_all(b, 70 * MIN), MANY / 2);

	struct ban left = ban_of(0); /* until 50, forgotten at 110 */
	struct ban again = { .until = 0 };
	assert_true(bans_forget_one(b, &left.key, 107 * MIN, &again)); /* it is told again, */
	assert_int_equal(again.until, 50 * MIN);
	assert_false(bans_forget_one(b, &left.key, 108 * MIN, &again)); /* once */
	assert_true(bans_get(b, &left.key, &left));
	assert_true(bans_begin(b, &penalty, &left, 108 * MIN)); /* another one */
	assert_true(bans_forget_one(b, &left.key, 108 * MIN, &again));
	assert_int_equal(again.until, left.until);
	assert_false(bans_forget_one(b, &left.key, left.forget_at - MIN, &again));
	assert_false(bans_get(b, &left.key, &left));
	assert_int_equal(bans_count(b), MANY / 2 - 1);
	assert_false(bans_forget_one(b, &left.key, 109 * MIN, &again)); /* of nobody */
	bans_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bans_grow_and_are_forgotten),
		cmocka_unit_test(rules_without_effect_ban_nobody),
		cmocka_unit_test(a_ban_says_which_take_it_is_of),
		cmocka_unit_test(of_two_bans_the_later_end_is_told),
		cmocka_unit_test(a_lifted_ban_is_over_and_the_next_is_the_first),
		cmocka_unit_test(a_ban_is_not_forgotten_while_denials_are_counted),
		cmocka_unit_test(of_two_bans_the_last_to_end_counts),
		cmocka_unit_test(a_later_ban_is_taken_of_any_epoch),
		cmocka_unit_test(what_others_tell_counts_where_it_ends_later),
		cmocka_unit_test(a_clock_set_back_makes_no_ban_longer),
		cmocka_unit_test(a_clock_set_back_bans_nobody_anew),
		cmocka_unit_test(an_end_is_told_once),
		cmocka_unit_test(an_end_is_told_also_of_one_that_had_to_go),
		cmocka_unit_test(the_table_is_bounded),
		cmocka_unit_test(who_is_forgotten_is_told_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
