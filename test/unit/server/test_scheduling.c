/* When a worker lets who runs on its core go on (SCHED_BATCH), by accounts and times that are
 * given. */
#include "server/scheduling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define STEP (100 * USEC_PER_MSEC)

/* What one step sees: in thousandths of it, microseconds, and a second. */
struct seen {
	unsigned ran, wait_per_turn, turns, answers_per_turn, polled;
};

/* As measured on two cores, with SCHED_OTHER and with SCHED_BATCH: HAProxy and its load there, and
 * two programs that never sleep besides. */
static const struct seen haproxy_beside = { 170, 26, 8000, 8, 0 };
static const struct seen haproxy_batch = { 110, 125, 3500, 20, 0 };
static const struct seen hog_beside = { 100, 67, 2300, 15, 0 };
static const struct seen hog_batch = { 60, 370, 1500, 19, 0 };
static const struct seen idle = { 3, 1, 50, 1, 0 };

struct fixture {
	struct scheduling s;
	struct scheduling_account a;
	usec_t now;
};

static bool step_of(struct fixture *f, const struct seen *seen, usec_t took)
{
	uint64_t turns = seen->turns * (uint64_t)took / USEC_PER_SEC;
	f->now += took;
	f->a.ran += seen->ran * (uint64_t)took / 1000;
	f->a.polled += seen->polled * (uint64_t)took / 1000;
	f->a.turns += turns;
	f->a.waited += turns * seen->wait_per_turn;
	f->a.answered += turns * seen->answers_per_turn;
	return scheduling_step(&f->s, &f->a, f->now);
}

static bool step(struct fixture *f, const struct seen *seen)
{
	return step_of(f, seen, STEP);
}

/* As the kernel would: what is seen depends on what was chosen. */
static bool beside_hogs(struct fixture *f)
{
	return step(f, f->s.is_batch ? &hog_batch : &hog_beside);
}

static struct fixture start(void)
{
	struct fixture f = { .now = 5 * USEC_PER_SEC };
	static const struct seen nothing;
	assert_false(step(&f, &nothing));
	return f;
}

static void one_step_decides(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		struct seen seen;
		bool is_batch;
	} row[] = {
		{ "nothing at all", { 0, 0, 0, 0, 0 }, false },
		{ "HAProxy beside it", { 170, 26, 8000, 8, 0 }, true },
		{ "it runs too little", { 49, 26, 8000, 8, 0 }, false },
		{ "just enough", { 50, 26, 8000, 8, 0 }, true },
		{ "no core is wanted by two", { 170, 6, 8000, 8, 0 }, false },
		{ "just so much", { 170, 50, 1000, 8, 0 }, true },
		{ "few requests at a time", { 170, 26, 8000, 5, 0 }, false },
		{ "just so many", { 170, 26, 8000, 6, 0 }, true },
		{ "who has the core keeps it", { 170, 201, 1000, 8, 0 }, false },
		{ "just not too long", { 170, 200, 1000, 8, 0 }, true },
		{ "it polls, rather", { 171, 26, 8000, 8, 86 }, false },
		{ "just as much as it works", { 172, 26, 8000, 8, 86 }, true },
		{ "it works too little, and polls", { 98, 26, 8000, 8, 49 }, false },
		{ "just enough", { 100, 26, 8000, 8, 50 }, true },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		struct fixture f = start();
		if (step(&f, &row[i].seen) != row[i].is_batch)
			fail_msg("%s", row[i].what);
	}
}

static void it_stays_while_it_pays(void **state)
{
	(void)state;
	struct fixture f = start();
	assert_true(step(&f, &haproxy_beside));
	for (unsigned i = 0; i < 1000; i++)
		assert_true(step(&f, &haproxy_batch));
	assert_false(step(&f, &idle));
	/* And comes back at once: it cost nothing. */
	assert_true(step(&f, &haproxy_beside));
}

/* The same requests need less of it then, by a third: that is no reason to leave off. */
static void it_stays_though_it_runs_less(void **state)
{
	(void)state;
	static const struct seen other = { 60, 26, 8000, 8, 0 }, batch = { 40, 125, 3500, 20, 0 };
	static const struct seen little = { 24, 125, 3500, 20, 0 };
	struct fixture f = start();
	assert_true(step(&f, &other));
	for (unsigned i = 0; i < 10; i++)
		assert_true(step(&f, &batch));
	assert_false(step(&f, &little));
	assert_false(step(&f, &batch));
}

/* Nobody asks any more, and the one time that it is woken by its timer it waits long. */
static void one_long_wait_is_no_reason_to_rest(void **state)
{
	(void)state;
	static const struct seen woken_once = { 1, 3000, 10, 0, 0 };
	struct fixture f = start();
	for (unsigned i = 0; i < 20; i++) {
		assert_true(step(&f, &haproxy_beside));
		assert_false(step(&f, &woken_once));
	}
}

/* Nobody is connected, or the choice is not ours. What was before is forgotten, but for how long it
 * is left off. */
static void without_an_account_it_ends(void **state)
{
	(void)state;
	struct fixture f = start();
	assert_true(step(&f, &haproxy_beside));
	assert_false(scheduling_step(&f.s, NULL, f.now + 1));
	f.now += 3600 * USEC_PER_SEC;
	assert_false(step(&f, &haproxy_beside));
	assert_true(step(&f, &haproxy_beside));
	assert_false(step(&f, &hog_batch));
	assert_false(scheduling_step(&f.s, NULL, f.now));
	for (unsigned i = 0; i < 9; i++)
		assert_false(step(&f, &haproxy_beside));
	assert_true(step(&f, &haproxy_beside));
}

/* What was before the first account is not known. */
static void the_first_account_decides_nothing(void **state)
{
	(void)state;
	struct fixture f = { .now = 5 * USEC_PER_SEC };
	assert_false(step(&f, &haproxy_beside));
	assert_true(step(&f, &haproxy_beside));
}

static void sooner_is_no_step(void **state)
{
	(void)state;
	struct fixture f = start();
	for (unsigned i = 0; i < 9; i++)
		assert_false(step_of(&f, &haproxy_beside, STEP / 10));
	assert_true(step_of(&f, &haproxy_beside, STEP / 10));
}

/* One step each time: 1 s, 2 s, 4 s ... 64 s after the last one, and never more. */
static void beside_who_never_sleeps_it_is_tried_ever_less(void **state)
{
	(void)state;
	struct fixture f = start();
	usec_t ended = 0, rest = USEC_PER_SEC;
	unsigned tries = 0;
	for (unsigned i = 0; i < 10 * 600; i++) {
		bool was = f.s.is_batch;
		bool is = beside_hogs(&f);
		if (is && !was && ended) {
			assert_int_equal(f.now - ended, rest);
			rest = rest < 64 * USEC_PER_SEC ? 2 * rest : rest;
		}
		if (was) {
			assert_false(is);
			ended = f.now;
			tries++;
		}
	}
	/* 63.6 s for the first seven, and then one in 64.1 s. */
	assert_int_equal(tries, 7 + (600 - 64) / 64);
}

/* Who is gone for longer than the rest was, is forgotten. */
static void later_it_begins_anew(void **state)
{
	(void)state;
	struct fixture f = start();
	for (unsigned i = 0; i < 10 * 20; i++)
		(void)beside_hogs(&f);
	assert_true(f.s.rest > 4 * USEC_PER_SEC);
	while (f.now < f.s.again_at)
		(void)step(&f, &haproxy_beside);
	for (unsigned i = 0; i < 10 * 60; i++)
		assert_true(step(&f, f.s.is_batch ? &haproxy_batch : &haproxy_beside));
	assert_false(step(&f, &hog_batch));
	assert_int_equal(f.s.again_at - f.now, USEC_PER_SEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_step_decides),
		cmocka_unit_test(it_stays_while_it_pays),
		cmocka_unit_test(it_stays_though_it_runs_less),
		cmocka_unit_test(one_long_wait_is_no_reason_to_rest),
		cmocka_unit_test(without_an_account_it_ends),
		cmocka_unit_test(the_first_account_decides_nothing),
		cmocka_unit_test(sooner_is_no_step),
		cmocka_unit_test(beside_who_never_sleeps_it_is_tried_ever_less),
		cmocka_unit_test(later_it_begins_anew),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
