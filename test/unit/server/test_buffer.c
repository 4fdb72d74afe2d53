#include "server/buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void the_last_put_is_the_first_taken(void **state)
{
	(void)state;
	struct buffer_pool pool;
	buffer_pool_init(&pool, 100);
	struct buffer *a = buffer_get(&pool), *b = buffer_get(&pool);
	assert_ptr_not_equal(a, b);
	a->end = 50;
	buffer_put(&pool, b);
	buffer_put(&pool, a);
	assert_ptr_equal(buffer_get(&pool), a);
	assert_int_equal(a->end, 0); /* and it comes empty */
	assert_ptr_equal(buffer_get(&pool), b);
	assert_int_equal(pool.idle_n, 0);
	buffer_put(&pool, a);
	buffer_put(&pool, b);
	buffer_put(&pool, NULL);
	buffer_pool_fini(&pool);
	assert_int_equal(pool.idle_n, 0);
}

static void idle_ones_are_bounded(void **state)
{
	(void)state;
	struct buffer_pool pool;
	struct buffer *taken[BUFFERS_IDLE_MAX + 10];
	buffer_pool_init(&pool, 10);
	for (int i = 0; i < BUFFERS_IDLE_MAX + 10; i++)
		taken[i] = buffer_get(&pool);
	for (int i = 0; i < BUFFERS_IDLE_MAX + 10; i++)
		buffer_put(&pool, taken[i]);
	assert_int_equal(pool.idle_n, BUFFERS_IDLE_MAX);
	buffer_pool_fini(&pool);
}

static void it_grows_and_never_shrinks(void **state)
{
	(void)state;
	struct buffer_pool pool;
	buffer_pool_init(&pool, 10);
	struct buffer *small = buffer_get(&pool), *idle = buffer_get(&pool);
	buffer_put(&pool, idle);
	buffer_pool_grow(&pool, 20);
	assert_int_equal(pool.idle_n, 0);
	struct buffer *large = buffer_get(&pool);
	assert_int_equal(large->size, 20);
	buffer_put(&pool, small); /* from before: not taken back */
	assert_int_equal(pool.idle_n, 0);
	buffer_put(&pool, large);
	assert_int_equal(pool.idle_n, 1);
	buffer_pool_grow(&pool, 15);
	assert_int_equal(pool.size, 20);
	buffer_pool_fini(&pool);
}

static void packing_keeps_what_waits(void **state)
{
	(void)state;
	struct buffer_pool pool;
	buffer_pool_init(&pool, 10);
	struct buffer *b = buffer_get(&pool);
	memcpy(b->bytes, "0123456789", 10);
	b->begin = 4;
	b->end = 10;
	assert_int_equal(buffer_waiting(b), 6);
	buffer_pack(b);
	assert_int_equal(b->begin, 0);
	assert_int_equal(buffer_waiting(b), 6);
	assert_memory_equal(b->bytes, "456789", 6);
	buffer_pack(b);
	assert_memory_equal(b->bytes, "456789", 6);
	assert_int_equal(buffer_waiting(NULL), 0);
	buffer_put(&pool, b);
	buffer_pool_fini(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_put_is_the_first_taken),
		cmocka_unit_test(idle_ones_are_bounded),
		cmocka_unit_test(it_grows_and_never_shrinks),
		cmocka_unit_test(packing_keeps_what_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
