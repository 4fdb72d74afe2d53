#include "server/mailbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static void letters_arrive_in_order(void **state)
{
	(void)state;
	struct mailbox *m = mailbox_new();
	struct letter got;
	assert_false(mailbox_get(m, &got));
	assert_true(mailbox_put(m, &(struct letter){ .fd = 5, .peer = "127.0.0.1:1" }));
	assert_true(mailbox_put(m, &(struct letter){ .fd = 6, .peer = "[::1]:2" }));
	assert_true(mailbox_get(m, &got));
	assert_int_equal(got.fd, 5);
	assert_string_equal(got.peer, "127.0.0.1:1");
	assert_true(mailbox_get(m, &got));
	assert_int_equal(got.fd, 6);
	assert_string_equal(got.peer, "[::1]:2");
	assert_false(mailbox_get(m, &got));
	mailbox_free(m);
}

static void what_nobody_fetched_is_closed(void **state)
{
	(void)state;
	struct mailbox *m = mailbox_new();
	int fd = open("/dev/null", O_RDONLY);
	assert_true(fd >= 0);
	assert_true(mailbox_put(m, &(struct letter){ .fd = fd }));
	mailbox_free(m);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(errno, EBADF);
	mailbox_free(NULL);
}

static void it_is_bounded(void **state)
{
	(void)state;
	struct mailbox *m = mailbox_new();
	struct letter letter = { .fd = -1 };
	for (int i = 0; i < MAILBOX_LETTERS; i++) {
		assert_false(mailbox_full(m));
		assert_true(mailbox_put(m, &letter));
	}
	assert_true(mailbox_full(m));
	assert_false(mailbox_put(m, &letter));
	while (mailbox_get(m, &letter))
		;
	mailbox_free(m);
}

enum { LETTERS = 20000 };

static void *write_letters(void *arg)
{
	for (int i = 0; i < LETTERS; i++) {
		struct letter letter = { .fd = i };
		(void)snprintf(letter.peer, sizeof letter.peer, "%d", i);
		while (!mailbox_put(arg, &letter))
			(void)sched_yield();
	}
	return NULL;
}

static void two_threads_agree(void **state)
{
	(void)state;
	struct mailbox *m = mailbox_new();
	pthread_t writer;
	assert_int_equal(pthread_create(&writer, NULL, write_letters, m), 0);
	for (int i = 0; i < LETTERS; i++) {
		struct letter got;
		while (!mailbox_get(m, &got))
			(void)sched_yield();
		char peer[16];
		(void)snprintf(peer, sizeof peer, "%d", i);
		assert_int_equal(got.fd, i);
		assert_string_equal(got.peer, peer);
	}
	assert_int_equal(pthread_join(writer, NULL), 0);
	mailbox_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(letters_arrive_in_order),
		cmocka_unit_test(what_nobody_fetched_is_closed),
		cmocka_unit_test(it_is_bounded),
		cmocka_unit_test(two_threads_agree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
