/* A shortage of memory is waited for, while a loop needs some. */
#include "server/loop_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ev.h>

static unsigned waits, there_after; /* so many */

static void *get(void *p, size_t n)
{
	return waits < there_after ? NULL : realloc(p, n);
}

static void wait_once(void)
{
	waits++;
}

static void a_shortage_is_waited_for(void **state)
{
	(void)state;
	there_after = 0;
	waits = 0;
	char *p = loop_memory_get(NULL, 5, get, wait_once);
	assert_non_null(p);
	assert_int_equal(waits, 0);
	memcpy(p, "four", 5);

	there_after = LOOP_MEMORY_TRIES;
	p = loop_memory_get(p, 1000, get, wait_once);
	assert_non_null(p);
	assert_int_equal(waits, LOOP_MEMORY_TRIES);
	assert_string_equal(p, "four");

	/* One that lasts is not: the process ends then, and is started again. */
	there_after = UINT32_MAX;
	waits = 0;
	assert_null(loop_memory_get(p, 2000, get, wait_once));
	assert_int_equal(waits, LOOP_MEMORY_TRIES);
	assert_string_equal(p, "four");
	assert_null(loop_memory_get(p, 0, get, wait_once)); /* freed */
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)revents;
	++*(unsigned *)timer->data;
	ev_timer_stop(loop, timer);
}

static void loops_run_by_it(void **state)
{
	static ev_timer timer[1000];
	unsigned fired = 0;
	(void)state;
	loop_memory_init();
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	for (unsigned i = 0; i < 1000; i++) {
		ev_timer_init(&timer[i], on_timer, 0.001, 0.);
		timer[i].data = &fired;
		ev_timer_start(loop, &timer[i]);
	}
	ev_run(loop, 0);
	assert_int_equal(fired, 1000);
	ev_loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_shortage_is_waited_for),
		cmocka_unit_test(loops_run_by_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
