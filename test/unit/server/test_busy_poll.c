/* When a loop polls and when it leaves off: by a time that is given; and that it then sleeps. */
#include "server/busy_poll.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LONGEST 30

struct fixture {
	struct ev_loop *loop;
	struct busy_poll b;
	struct metrics metrics;
	usec_t now;
};

static int setup(void **state)
{
	struct fixture *f = aligned_alloc(_Alignof(struct fixture), sizeof *f);
	assert_non_null(f);
	memset(f, 0, sizeof *f);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	assert_non_null(f->loop);
	busy_poll_init(&f->b, f->loop, &f->metrics);
	busy_poll_set(&f->b, LONGEST);
	f->now = USEC_PER_SEC;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	busy_poll_stop(&f->b);
	ev_loop_destroy(f->loop);
	free(f);
	return 0;
}

static bool polls(const struct fixture *f)
{
	return ev_is_active(&f->b.idle);
}

/* As the loop's watcher does it. */
static bool step(struct fixture *f, usec_t later)
{
	f->now += later;
	bool goes_on = busy_poll_step(&f->b, f->now);
	if (!goes_on)
		busy_poll_stop(&f->b);
	return goes_on;
}

static void traffic(struct fixture *f, usec_t later)
{
	f->now += later;
	busy_poll_note(&f->b, f->now);
}

/* Polls a stretch that brings nothing, to its end: how long it was. */
static usec_t poll_in_vain(struct fixture *f)
{
	usec_t began = f->now;
	while (step(f, 1))
		assert_true(f->now - began < 2000);
	return f->now - began;
}

static void earn(struct fixture *f, unsigned credit)
{
	traffic(f, 0);
	assert_true(polls(f));
	for (unsigned i = 0; i < credit; i++) {
		assert_true(step(f, 1));
		assert_true(step(f, 1));
		traffic(f, 1);
	}
}

static void test_without_traffic_it_sleeps(void **state)
{
	struct fixture *f = *state;
	assert_false(polls(f));
	(void)ev_run(f->loop, 0); /* returns: nothing keeps it */
}

static void test_a_stretch_has_its_length(void **state)
{
	struct fixture *f = *state;
	traffic(f, 0);
	assert_true(polls(f));
	/* from the first poll on, and over at the first one beyond it */
	assert_int_equal(poll_in_vain(f), 1 + LONGEST + 1);
	assert_false(polls(f));
}

static void test_a_long_answer_takes_nothing_from_it(void **state)
{
	struct fixture *f = *state;
	traffic(f, 0);
	assert_true(step(f, 500)); /* so long was answered */
	assert_int_equal(poll_in_vain(f), LONGEST + 1);
	assert_int_equal(f->b.again_at - f->now, 10 * USEC_PER_MSEC); /* not as for others */
}

static void test_traffic_begins_it_anew(void **state)
{
	struct fixture *f = *state;
	traffic(f, 0);
	for (unsigned i = 0; i < LONGEST; i++)
		assert_true(step(f, 1));
	traffic(f, 0);
	assert_true(polls(f));
	assert_int_equal(poll_in_vain(f), 1 + LONGEST + 1);
}

static void test_who_fails_first_rests(void **state)
{
	struct fixture *f = *state;
	traffic(f, 0);
	(void)poll_in_vain(f);
	traffic(f, 10 * USEC_PER_MSEC - 1);
	assert_false(polls(f));
	traffic(f, 1);
	assert_true(polls(f));
}

static void test_four_successes_pay_for_one_failure(void **state)
{
	struct fixture *f = *state;
	earn(f, 5);
	(void)poll_in_vain(f);
	traffic(f, 0); /* one is left: on it goes at once */
	assert_true(polls(f));
	(void)poll_in_vain(f);
	traffic(f, 1);
	assert_false(polls(f));
}

static void test_credit_is_bounded(void **state)
{
	struct fixture *f = *state;
	unsigned failures = 0;
	earn(f, 10000);
	do {
		(void)poll_in_vain(f);
		failures++;
		traffic(f, 0);
	} while (polls(f));
	assert_int_equal(failures, 8);
}

static void test_it_gives_way_to_another_thread(void **state)
{
	struct fixture *f = *state;
	busy_poll_set(&f->b, 1000);
	earn(f, 32); /* however well it paid */
	assert_true(step(f, 1));
	assert_true(step(f, 50));
	assert_false(step(f, 51));
	traffic(f, 100 * USEC_PER_MSEC - 1);
	assert_false(polls(f));
	traffic(f, 1);
	assert_true(polls(f));
	(void)poll_in_vain(f); /* and begins without credit */
	traffic(f, 0);
	assert_false(polls(f));
}

/* What the rests are where a thread takes one tick of `taken` after another, once it may. */
static usec_t rest_after(struct fixture *f, usec_t taken)
{
	traffic(f, 0);
	assert_true(polls(f));
	assert_true(step(f, 1));
	assert_false(step(f, taken));
	usec_t rests = f->b.again_at - f->now;
	traffic(f, rests - 1);
	assert_false(polls(f));
	f->now++;
	return rests;
}

static void test_a_thread_that_stays_is_tried_ever_less(void **state)
{
	struct fixture *f = *state;
	usec_t rests = 100 * USEC_PER_MSEC;
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(rest_after(f, 4000), rests);
		rests = rests < 3200 * USEC_PER_MSEC ? 2 * rests : rests;
	}
	f->now += 2 * rests; /* three of them after the last one: it has gone */
	assert_int_equal(rest_after(f, 4000), 100 * USEC_PER_MSEC);
}

static void test_an_interrupt_is_no_thread_that_stays(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(rest_after(f, 499), 100 * USEC_PER_MSEC);
}

/* A request that came while another thread had the core has waited for it. */
static void test_a_late_request_tells_of_another_thread(void **state)
{
	struct fixture *f = *state;
	earn(f, 32);
	assert_true(step(f, 1));
	traffic(f, 499);
	assert_true(polls(f));
	assert_true(step(f, 4000)); /* the answer took so long, not the poll */
	traffic(f, 500);
	assert_false(polls(f));
	assert_int_equal(f->b.again_at - f->now, 100 * USEC_PER_MSEC);
}

static uint64_t counted(const struct fixture *f)
{
	return atomic_load(&f->metrics.value[METRIC_busy_polls]);
}

static void test_stretches_are_counted(void **state)
{
	struct fixture *f = *state;
	earn(f, 10);
	assert_int_equal(counted(f), 10);
	(void)poll_in_vain(f);
	assert_int_equal(counted(f), 11);
	busy_poll_set(&f->b, 0);
	traffic(f, USEC_PER_SEC);
	assert_false(step(f, 1));
	assert_int_equal(counted(f), 11);
}

static void test_never(void **state)
{
	struct fixture *f = *state;
	traffic(f, 0);
	assert_true(polls(f));
	busy_poll_set(&f->b, 0);
	assert_false(polls(f));
	traffic(f, USEC_PER_SEC);
	assert_false(polls(f));
	busy_poll_set(&f->b, LONGEST);
	traffic(f, USEC_PER_SEC);
	assert_true(polls(f));
}

/* ---- with the loop itself, whose clock is the machine's ---- */

static void count(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	++*(unsigned *)timer->data;
}

/* The loop's only watcher is ours: ev_run() returns once that has stopped. */
static void test_the_loop_falls_asleep(void **state)
{
	struct fixture *f = *state;
	busy_poll_note(&f->b, clock_steady());
	assert_true(polls(f));
	(void)ev_run(f->loop, 0);
	assert_false(polls(f));
	assert_true(f->b.since > 0); /* it has polled */
	assert_true(f->b.again_at > 0);
}

/* Whatever it does, a timer comes, and so does what another thread sends. */
static void on_async(struct ev_loop *loop, ev_async *async, int revents)
{
	(void)revents;
	++*(unsigned *)async->data;
	ev_async_stop(loop, async);
}

static void test_nothing_waits_for_it(void **state)
{
	struct fixture *f = *state;
	unsigned ticks = 0, calls = 0;
	ev_timer timer;
	ev_async async;
	ev_timer_init(&timer, count, 0.001, 0.);
	timer.data = &ticks;
	/* as a worker's is: after its sockets, and yet before the polls */
	ev_set_priority(&timer, -1);
	ev_timer_start(f->loop, &timer);
	ev_async_init(&async, on_async);
	async.data = &calls;
	ev_async_start(f->loop, &async);
	ev_async_send(f->loop, &async);
	/* Traffic before each turn: by itself it would never be over. */
	while (!ticks || !calls) {
		/* Another thread may have the core at any moment, and then it leaves off. */
		do {
			f->b.again_at = 0;
			busy_poll_note(&f->b, clock_steady());
		} while (!polls(f));
		(void)ev_run(f->loop, EVRUN_ONCE);
	}
	assert_int_equal(ticks, 1);
	assert_int_equal(calls, 1);
	(void)ev_run(f->loop, 0);
	assert_false(polls(f));
}

/* Polls come after all else that is to be done. */
static void test_it_comes_last(void **state)
{
	struct fixture *f = *state;
	unsigned ticks = 0;
	ev_timer timer;
	ev_timer_init(&timer, count, 0., 0.);
	timer.data = &ticks;
	ev_set_priority(&timer, -1);
	ev_timer_start(f->loop, &timer);
	busy_poll_note(&f->b, clock_steady());
	(void)ev_run(f->loop, EVRUN_NOWAIT);
	assert_int_equal(ticks, 1);
	assert_int_equal(f->b.since, 0);
	(void)ev_run(f->loop, EVRUN_NOWAIT);
	assert_true(f->b.since > 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_without_traffic_it_sleeps),
		T(test_a_stretch_has_its_length),
		T(test_a_long_answer_takes_nothing_from_it),
		T(test_traffic_begins_it_anew),
		T(test_who_fails_first_rests),
		T(test_four_successes_pay_for_one_failure),
		T(test_credit_is_bounded),
		T(test_it_gives_way_to_another_thread),
		T(test_a_thread_that_stays_is_tried_ever_less),
		T(test_an_interrupt_is_no_thread_that_stays),
		T(test_a_late_request_tells_of_another_thread),
		T(test_stretches_are_counted),
		T(test_never),
		T(test_the_loop_falls_asleep),
		T(test_nothing_waits_for_it),
		T(test_it_comes_last),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
