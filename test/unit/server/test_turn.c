/* Waiting for the state file has an end: the other one's, a bound, or a signal. */
#include "server/turn.h"

#include "store/state_lock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[128], name[160], err[1024];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/server-turn-XXXXXX");
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof path, "%s/state", folder);
	(void)snprintf(name, sizeof name, "%s.lock", path);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	(void)unlink(name);
	return rmdir(folder);
}

static int hold(void)
{
	int fd;
	assert_int_equal(state_lock(path, &fd, err, sizeof err), STATE_LOCK_OURS);
	return fd;
}

static void nobody_has_it(void **state)
{
	(void)state;
	int lock;
	assert_int_equal(turn_await(path, 0, &lock, err, sizeof err), TURN_OURS);
	assert_true(lock >= 0);
	state_unlock(lock);
}

static void it_is_not_waited_for_without_end(void **state)
{
	(void)state;
	int lock, other = hold();
	assert_int_equal(turn_await(path, 20 * USEC_PER_MSEC, &lock, err, sizeof err), TURN_NEVER);
	assert_non_null(strstr(err, "in use by process"));
	assert_non_null(strstr(err, "store.state_file"));
	state_unlock(other);
}

static void a_signal_ends_the_wait_and_stays(void **state)
{
	(void)state;
	int lock, other = hold(), seen;
	sigset_t set, before;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, &before);
	assert_int_equal(raise(SIGTERM), 0);
	assert_int_equal(turn_await(path, USEC_PER_DAY, &lock, err, sizeof err), TURN_STOPPED);
	assert_int_equal(sigwait(&set, &seen), 0);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	state_unlock(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nobody_has_it, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(
			it_is_not_waited_for_without_end, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(
			a_signal_ends_the_wait_and_stays, make_folder, remove_folder),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
