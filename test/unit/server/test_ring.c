#include "server/check.h"
#include "server/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void first_in_is_first_out(void **state)
{
	(void)state;
	struct ring *r = ring_new(4, sizeof(int));
	int got = -1;
	assert_false(ring_get(r, &got));
	/* Three times around, so that every slot is used again. */
	for (int begin = 0; begin < 12; begin += 4) {
		for (int i = begin; i < begin + 4; i++) {
			assert_false(ring_full(r));
			assert_true(ring_put(r, &i));
		}
		for (int i = begin; i < begin + 4; i++) {
			assert_true(ring_get(r, &got));
			assert_int_equal(got, i);
		}
		assert_false(ring_get(r, &got));
	}
	ring_free(r);
}

static void full_takes_no_more(void **state)
{
	(void)state;
	struct ring *r = ring_new(1, sizeof(int));
	int a = 1, b = 2, got = 0;
	assert_true(ring_put(r, &a));
	assert_true(ring_full(r));
	assert_false(ring_put(r, &b));
	assert_true(ring_get(r, &got));
	assert_int_equal(got, a);
	assert_false(ring_full(r));
	ring_free(r);
	ring_free(NULL);
}

static void what_does_not_fit_is_counted(void **state)
{
	(void)state;
	struct event_ring *e = event_ring_new(2);
	struct event event = { .reason = REASON_LIMITED, .limit = 10, .rule = "api" };
	assert_true(event_ring_has_room(e, false));
	assert_true(event_ring_put(e, &event));
	assert_true(event_ring_put(e, &event));
	assert_int_equal(event_ring_dropped(e, false), 0);
	assert_false(event_ring_put(e, &event));
	assert_false(event_ring_has_room(e, false));
	assert_int_equal(event_ring_dropped(e, false), 2);
	struct event got;
	assert_true(event_ring_get(e, &got));
	assert_string_equal(got.rule, "api");
	assert_int_equal(got.limit, 10);
	assert_true(event_ring_has_room(e, false));
	assert_int_equal(event_ring_dropped(e, false), 2);
	event_ring_free(e);
	event_ring_free(NULL);
}

/* However many shadow mode would have denied, who is denied has a line. */
static void shadow_mode_leaves_room_for_denials(void **state)
{
	(void)state;
	struct event_ring *e = event_ring_new(8);
	struct event event = { .shadow = true }, got;
	for (unsigned i = 0; i < 4; i++) {
		assert_true(event_ring_has_room(e, true));
		assert_true(event_ring_put(e, &event));
	}
	assert_false(event_ring_has_room(e, true));
	assert_int_equal(event_ring_dropped(e, true), 1);
	event.shadow = false;
	for (unsigned i = 0; i < 4; i++) {
		assert_true(event_ring_has_room(e, false));
		assert_true(event_ring_put(e, &event));
	}
	assert_false(event_ring_has_room(e, false));
	assert_int_equal(event_ring_dropped(e, false), 1);
	for (unsigned i = 0; i < 5; i++)
		assert_true(event_ring_get(e, &got));
	assert_true(event_ring_has_room(e, true));
	event_ring_free(e);
}

enum { EVENTS = 20000 };

static void *write_events(void *arg)
{
	struct event_ring *e = arg;
	for (int i = 0; i < EVENTS; i++) {
		struct event event = { .limit = i, .retry_after = -i };
		(void)snprintf(event.client, sizeof event.client, "n=%d", i);
		while (!event_ring_put(e, &event))
			(void)sched_yield();
	}
	return NULL;
}

/* ThreadSanitizer looks on. */
static void two_threads_agree(void **state)
{
	(void)state;
	struct event_ring *e = event_ring_new(64);
	pthread_t writer;
	assert_int_equal(pthread_create(&writer, NULL, write_events, e), 0);
	struct event got;
	for (int i = 0; i < EVENTS; i++) {
		while (!event_ring_get(e, &got))
			(void)sched_yield();
		char client[32];
		(void)snprintf(client, sizeof client, "n=%d", i);
		assert_int_equal(got.limit, i);
		assert_int_equal(got.retry_after, -i);
		assert_string_equal(got.client, client);
	}
	assert_int_equal(pthread_join(writer, NULL), 0);
	assert_false(event_ring_get(e, &got));
	event_ring_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_in_is_first_out),
		cmocka_unit_test(full_takes_no_more),
		cmocka_unit_test(what_does_not_fit_is_counted),
		cmocka_unit_test(shadow_mode_leaves_room_for_denials),
		cmocka_unit_test(two_threads_agree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
