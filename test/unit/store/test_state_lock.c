/* One process has a state file at a time, and what is left of a dead one is in nobody's way. */
#include "rig.h"

#include "store/state_lock.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], path[128], name[160], message[512];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/state-lock-XXXXXX");
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

static enum state_lock_rc take(int *fd)
{
	message[0] = '\0';
	return state_lock(path, fd, message, sizeof message);
}

static void one_at_a_time(void **state)
{
	(void)state;
	int first, second;
	char who[64];
	assert_int_equal(take(&first), STATE_LOCK_OURS);
	assert_int_equal(take(&second), STATE_LOCK_BUSY);
	assert_int_equal(second, -1);
	(void)snprintf(who, sizeof who, "in use by process %ld", (long)getpid());
	assert_non_null(strstr(message, who));
	state_unlock(first);
	assert_int_equal(take(&second), STATE_LOCK_OURS);
	state_unlock(second);
	struct stat st;
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void it_ends_with_its_process(void **state)
{
	(void)state;
	int fd, status;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(take(&fd) == STATE_LOCK_OURS ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(take(&fd), STATE_LOCK_OURS);
	state_unlock(fd);
}

static void what_is_in_the_way_is_told(void **state)
{
	(void)state;
	int fd;
	assert_int_equal(symlink("elsewhere", name), 0);
	assert_int_equal(take(&fd), STATE_LOCK_FAILED);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(message, name));
	assert_int_equal(
		state_lock("/nowhere/at/all", &fd, message, sizeof message), STATE_LOCK_FAILED);
	assert_non_null(strstr(message, "/nowhere/at/all.lock"));
	state_unlock(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_at_a_time, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(
			it_ends_with_its_process, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(
			what_is_in_the_way_is_told, make_folder, remove_folder),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
