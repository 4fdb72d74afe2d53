/* The state file, and a disk that takes nothing, or does not answer. */
#include "server/keeper.h"

#include "base/hash.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define SOMETIME (clock_steady() + USEC_PER_DAY)

/* In the place of libc's: what a save ends with. The disk can be stopped. */
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_goes_on = PTHREAD_COND_INITIALIZER;
static bool disk_hangs;

int fsync(int fd)
{
	(void)pthread_mutex_lock(&disk);
	while (disk_hangs)
		(void)pthread_cond_wait(&disk_goes_on, &disk);
	(void)pthread_mutex_unlock(&disk);
	return (int)syscall(SYS_fsync, fd);
}

static void hang(bool hangs)
{
	(void)pthread_mutex_lock(&disk);
	disk_hangs = hangs;
	(void)pthread_cond_broadcast(&disk_goes_on);
	(void)pthread_mutex_unlock(&disk);
}

struct fixture {
	char folder[64], state[80], blocked[96];
	struct memory_store *store;
	struct keeper *keeper;
};

static int setup(void **state)
{
	static const struct hash_key key = { .bytes = { 1 } };
	struct fixture *f = calloc(1, sizeof *f);

	assert_true(hash_init());
	(void)snprintf(f->folder, sizeof f->folder, "/tmp/keeper-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->state, sizeof f->state, "%s/state", f->folder);
	(void)snprintf(f->blocked, sizeof f->blocked, "%s.tmp", f->state);
	f->store = memory_store_new(100, &key, clock_read());
	f->keeper = keeper_start(f->store, f->state, 0);
	assert_true(f->store && f->keeper);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	hang(false);
	keeper_free(f->keeper);
	store_close(memory_store_base(f->store));
	(void)unlink(f->state);
	(void)rmdir(f->blocked);
	assert_int_equal(rmdir(f->folder), 0);
	free(f);
	return 0;
}

static bool is_in_trouble(struct fixture *f, usec_t after, struct keeper_trouble *t)
{
	return keeper_is_in_trouble(f->keeper, clock_steady() + after, t);
}

static void save(struct fixture *f)
{
	uint64_t before, begun, kept;

	keeper_saves(f->keeper, &before, &kept);
	keeper_save_soon(f->keeper);
	do {
		(void)sched_yield();
		keeper_saves(f->keeper, &begun, &kept);
	} while (begun == before);
}

static void a_stop_writes_the_file(void **state)
{
	struct fixture *f = *state;
	struct keeper_trouble t;

	assert_int_equal(keeper_finish(f->keeper, SOMETIME), KEEPER_KEPT);
	assert_int_equal(access(f->state, R_OK), 0);
	assert_false(is_in_trouble(f, USEC_PER_DAY, &t));
}

static void a_file_that_cannot_be_written_is_trouble_until_it_can(void **state)
{
	struct fixture *f = *state;
	struct keeper_trouble t;

	assert_false(is_in_trouble(f, 0, &t));
	assert_int_equal(mkdir(f->blocked, 0700), 0); /* a file of that name cannot be made */
	save(f);
	while (!is_in_trouble(f, 0, &t))
		(void)sched_yield();
	assert_non_null(strstr(t.why, f->blocked));
	assert_int_equal(rmdir(f->blocked), 0);
	save(f);
	while (is_in_trouble(f, 0, &t))
		(void)sched_yield();
	assert_int_equal(mkdir(f->blocked, 0700), 0);
	assert_int_equal(keeper_finish(f->keeper, SOMETIME), KEEPER_LOST);
}

/* The thread is still at it then; when the disk goes on after all, the file is whole. */
static void nobody_waits_for_a_disk_for_ever(void **state)
{
	struct fixture *f = *state;
	struct keeper_trouble t;

	hang(true);
	save(f);
	assert_false(is_in_trouble(f, 0, &t));
	assert_true(is_in_trouble(f, 2 * KEEPER_HANGS_AFTER, &t));
	assert_non_null(strstr(t.why, "does not answer"));
	assert_int_equal(keeper_finish(f->keeper, clock_steady() + USEC_PER_MSEC), KEEPER_HANGS);
	hang(false);
	assert_int_equal(keeper_finish(f->keeper, SOMETIME), KEEPER_KEPT);
	assert_int_equal(access(f->state, R_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_stop_writes_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_file_that_cannot_be_written_is_trouble_until_it_can, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_waits_for_a_disk_for_ever, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
