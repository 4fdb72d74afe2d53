/* How many workers are active and what moves, in worlds of so many cores and so much to do. */
#include "server/balance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define STEP (100 * USEC_PER_MSEC)
#define SEC  USEC_PER_SEC

enum { WORKERS = 8 };

/* Its cores are shared evenly by the active workers and `others`, who always want one each. What is
 * asked is shared evenly by the active workers; what they cannot do is not answered. */
struct world {
	struct balance b;
	unsigned cores, others;
	unsigned asked;       /* thousandths of what one core can answer, with one worker */
	unsigned worse_by;    /* thousandths of a core's answers lost for each further worker */
	unsigned connections; /* of each active worker */
	bool full;
	struct balance_move move[WORKERS_MAX];
	unsigned move_n;
	uint64_t answered;
	usec_t now;
	unsigned changes, trials;
	usec_t grown; /* how long more than one were active */
};

static struct world world(unsigned cores, unsigned others, unsigned asked)
{
	struct world w = {
		.cores = cores, .others = others, .asked = asked, .connections = 4, .now = 5 * SEC
	};
	balance_init(&w.b, WORKERS);
	return w;
}

static void step(struct world *w)
{
	struct balance_load load[WORKERS] = { 0 };
	unsigned active = w->b.active, threads = active + w->others, done = 0;
	unsigned most = threads > w->cores ? 1000 * w->cores / threads : 1000;
	for (unsigned i = 0; i < active; i++) {
		unsigned each = w->asked / active;
		bool short_of = each > most;
		load[i].connections = w->connections;
		load[i].busy = short_of ? most : each;
		load[i].wait = short_of ? 1000 - most : threads > w->cores ? each / 4 : 0;
		load[i].full = w->full;
		done += load[i].busy;
	}
	unsigned lost = w->worse_by * (active - 1);
	usec_t length = balance_interval(&w->b);
	w->answered += done > lost ? (uint64_t)((done - lost) * length / USEC_PER_MSEC) : 0;
	w->now += length;
	if (active > 1)
		w->grown += length;
	bool in_trial = w->b.trial != TRIAL_NONE;
	w->move_n = balance_step(&w->b, load, w->answered, w->now, w->move);
	w->changes += w->b.active != active;
	w->trials += !in_trial && w->b.trial != TRIAL_NONE;
	assert_in_range(w->b.active, 1, WORKERS);
	assert_in_range(w->move_n, 0, WORKERS);
	for (unsigned i = 0; i < w->move_n; i++) {
		assert_true(w->move[i].from < WORKERS && w->move[i].to < WORKERS);
		assert_int_not_equal(w->move[i].from, w->move[i].to);
		assert_in_range(w->move[i].share, 1, 1000);
	}
}

static void run_for(struct world *w, usec_t length)
{
	for (usec_t end = w->now + length; w->now < end;)
		step(w);
}

static void end_trial(struct world *w)
{
	while (w->b.trial != TRIAL_NONE)
		step(w);
}

/* How many are active in the end, after a minute. */
static void test_as_many_as_pay(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		unsigned cores, others, asked, worse_by, connections, min, max;
	} row[] = {
		{ "nothing to do", 8, 0, 0, 0, 4, 1, 1 },
		{ "one carries it well", 8, 0, 600, 0, 4, 1, 1 },
		{ "one carries it, just", 8, 0, 890, 0, 4, 1, 1 },
		{ "two carry it, and there are cores", 8, 0, 1500, 0, 4, 2, 4 },
		{ "four carry it, and there are cores", 8, 0, 3500, 0, 4, 4, 8 },
		{ "all are needed", 8, 0, 9000, 0, 4, 8, 8 },
		{ "no core besides the one who asks has", 2, 1, 3000, 300, 4, 1, 1 },
		{ "nothing is gained, though no one waits", 8, 0, 3000, 1100, 4, 1, 1 },
		{ "one connection cannot be shared", 8, 0, 3000, 0, 1, 1, 1 },
		{ "two can", 8, 0, 1500, 0, 2, 2, 4 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct world w = world(row[i].cores, row[i].others, row[i].asked);
		w.worse_by = row[i].worse_by;
		w.connections = row[i].connections;
		run_for(&w, 60 * SEC);
		end_trial(&w);
		if (w.b.active < row[i].min || w.b.active > row[i].max)
			fail_msg("%s: %u active", row[i].what, w.b.active);
	}
}

static void test_a_moment_is_not_enough(void **state)
{
	(void)state;
	struct world w = world(8, 0, 2000);
	for (unsigned i = 0; i < 100; i++) {
		w.asked = i % 3 ? 2000
				: 500; /* saturated for 200 ms less a step, again and again */
		step(&w);
	}
	assert_int_equal(w.changes, 0);
}

static void test_it_grows_within_half_a_second_a_step(void **state)
{
	(void)state;
	struct world w = world(16, 0, 16000);
	run_for(&w, 3 * SEC);
	assert_int_equal(w.b.active, WORKERS);
}

static void test_half_of_a_saturated_one_moves(void **state)
{
	(void)state;
	struct world w = world(8, 0, 1500);
	while (!w.move_n)
		step(&w);
	assert_int_equal(w.move_n, 1);
	assert_int_equal(w.move[0].from, 0);
	assert_int_equal(w.move[0].to, 1);
	assert_int_equal(w.move[0].share, 500);
	assert_int_equal(w.b.active, 2);
}

static void test_vain_trials_become_rare(void **state)
{
	(void)state;
	struct world w = world(2, 1, 3000);
	w.worse_by = 300;
	run_for(&w, 600 * SEC);
	assert_in_range(w.trials, 5, 30);
	assert_true(w.grown < 600 * SEC / 100);
	/* And when there is a core at last, it is found. */
	w.others = 0;
	w.worse_by = 0;
	run_for(&w, 70 * SEC);
	assert_int_equal(w.b.active, 2);
}

/* So that the first seconds are no worse than the rest. */
static void test_a_trial_that_hurts_ends_at_once(void **state)
{
	(void)state;
	struct world w = world(2, 1, 3000);
	w.worse_by = 600;
	run_for(&w, 2 * SEC);
	assert_int_equal(w.trials, 1);
	assert_true(w.grown < 2 * SEC / 15);
	assert_int_equal(w.b.active, 1);
}

static void test_less_to_do_packs_again_and_not_at_once(void **state)
{
	(void)state;
	struct world w = world(8, 0, 1500);
	run_for(&w, 5 * SEC);
	assert_true(w.b.active > 1);
	w.asked = 300;
	run_for(&w, 1 * SEC);
	assert_true(w.b.active > 1);
	run_for(&w, 2 * SEC);
	assert_int_equal(w.b.active, 1);
}

static void test_no_flapping_whatever_is_asked(void **state)
{
	(void)state;
	for (unsigned asked = 0; asked < 9000; asked += 50) {
		struct world w = world(8, 0, asked);
		run_for(&w, 10 * SEC);
		w.changes = 0;
		run_for(&w, 120 * SEC);
		if (w.changes > 30) /* trials, there and back, ever more rarely */
			fail_msg("%u asked: %u changes in two minutes", asked, w.changes);
	}
}

static void test_another_takes_the_core_later(void **state)
{
	(void)state;
	struct world w = world(2, 0, 2000);
	run_for(&w, 10 * SEC);
	end_trial(&w);
	assert_int_equal(w.b.active, 2);
	/* Now there is as much to do for one core alone, and two answer less. */
	w.others = 1;
	w.worse_by = 400;
	usec_t grown = w.grown;
	run_for(&w, 300 * SEC);
	assert_true(w.grown - grown < 300 * SEC / 8);
	end_trial(&w);
	assert_int_equal(w.b.active, 1);
}

/* A trial that was judged well by chance. */
static void test_what_does_not_pay_any_more_is_found_out(void **state)
{
	(void)state;
	struct world w = world(8, 0, 3000);
	w.worse_by = 1000;
	w.b.active = 2;
	run_for(&w, 120 * SEC);
	assert_true(w.grown < 30 * SEC);
}

static void test_no_room_to_wait_for_the_store_is_a_reason(void **state)
{
	(void)state;
	struct world w = world(8, 0, 300);
	w.full = true;
	run_for(&w, 1 * SEC);
	assert_true(w.b.active > 1);
}

static void test_who_is_not_active_gives_all_away(void **state)
{
	(void)state;
	struct balance b;
	struct balance_move move[WORKERS_MAX];
	struct balance_load load[WORKERS] = { { .connections = 3, .busy = 100 } };
	balance_init(&b, WORKERS);
	load[2] = (struct balance_load){ .connections = 1 };
	load[7] = (struct balance_load){ .connections = 900, .busy = 10 };
	assert_int_equal(balance_step(&b, load, 0, SEC, move), 2);
	assert_int_equal(move[0].from, 2);
	assert_int_equal(move[1].from, 7);
	assert_int_equal(move[0].to, 0);
	assert_int_equal(move[1].to, 0);
	assert_int_equal(move[0].share, 1000);
}

/* One connection floods: it is not known which, so those with the rest of what is asked move. */
static void test_unequal_ones_are_evened_out(void **state)
{
	(void)state;
	struct balance b;
	struct balance_move move[WORKERS_MAX];
	struct balance_load load[WORKERS] = {
		{ .connections = 5, .busy = 1000 },
		{ .connections = 5, .busy = 500 },
	};
	usec_t now = 10 * SEC;
	unsigned moves = 0;
	balance_init(&b, 2);
	b.active = 2;
	b.fewer_at = 100 * SEC;
	for (unsigned i = 0; i < 50; i++, now += STEP)
		if (balance_step(&b, load, i * 100, now, move)) {
			assert_int_equal(move[0].from, 0);
			assert_int_equal(move[0].to, 1);
			assert_int_equal(move[0].share, 250);
			moves++;
		}
	assert_in_range(moves, 3, 6); /* once a second at most */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_many_as_pay),
		cmocka_unit_test(test_a_moment_is_not_enough),
		cmocka_unit_test(test_it_grows_within_half_a_second_a_step),
		cmocka_unit_test(test_half_of_a_saturated_one_moves),
		cmocka_unit_test(test_vain_trials_become_rare),
		cmocka_unit_test(test_a_trial_that_hurts_ends_at_once),
		cmocka_unit_test(test_less_to_do_packs_again_and_not_at_once),
		cmocka_unit_test(test_no_flapping_whatever_is_asked),
		cmocka_unit_test(test_another_takes_the_core_later),
		cmocka_unit_test(test_what_does_not_pay_any_more_is_found_out),
		cmocka_unit_test(test_no_room_to_wait_for_the_store_is_a_reason),
		cmocka_unit_test(test_who_is_not_active_gives_all_away),
		cmocka_unit_test(test_unequal_ones_are_evened_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
