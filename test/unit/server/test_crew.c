/* What is found out about the kernel before workers are made. */
#include "server/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* In the place of libc's: as where fs.epoll.max_user_watches is reached. */
static unsigned watches_left = UINT32_MAX;

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && watches_left-- == 0) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
}

static unsigned open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1000; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void too_few_watches_are_seen_before_libev_does(void **state)
{
	unsigned before = open_files();
	(void)state;

	assert_true(crew_has_watches(WORKERS_MAX + 1));
	for (unsigned left = 0; left < 6; left++) {
		watches_left = left;
		errno = 0;
		assert_false(crew_has_watches(3));
		assert_int_equal(errno, ENOSPC);
	}
	watches_left = 6;
	assert_true(crew_has_watches(3));
	assert_int_equal(open_files(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_few_watches_are_seen_before_libev_does),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
