/* The state file, and a disk that takes nothing, or does not answer. */
#include "server/keeper.h"

#include "base/hash.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
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

/* Ditto. Time may stand still; its thread goes round all the same. */
static _Atomic(usec_t) stands_at; /* 0: it goes on */
static atomic_uint rounds;

int clock_gettime(clockid_t id, struct timespec *t)
{
	usec_t at = atomic_load(&stands_at);

	if (!at)
		return (int)syscall(SYS_clock_gettime, id, t);
	t->tv_sec = (time_t)(at / USEC_PER_SEC);
	t->tv_nsec = (long)(at % USEC_PER_SEC) * 1000;
	return 0;
}

int pthread_cond_timedwait(
	pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until)
{
	struct timespec soon;

	if (!atomic_load(&stands_at))
		return pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, until);
	atomic_fetch_add(&rounds, 1);
	(void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &soon);
	return pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &soon); /* now */
}

/* Each of its rounds begins and ends with such a wait. */
static void go_on(usec_t by)
{
	atomic_fetch_add(&stands_at, by);
	for (unsigned first = atomic_load(&rounds); atomic_load(&rounds) - first < 3;)
		(void)sched_yield();
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
	atomic_store(&stands_at, 0);
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

static void stop_time(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	atomic_store(&stands_at, (usec_t)t.tv_sec * USEC_PER_SEC + USEC_PER_SEC);
}

/* So many saves were begun, and all of them are kept. */
static void expect_saves(struct fixture *f, uint64_t n)
{
	uint64_t begun, kept;

	keeper_saves(f->keeper, &begun, &kept);
	assert_int_equal(begun, n);
	assert_int_equal(kept, n);
}

static void restart(struct fixture *f, const char *file, usec_t interval)
{
	keeper_free(f->keeper);
	f->keeper = keeper_start(f->store, file, interval);
	assert_non_null(f->keeper);
	go_on(0); /* it has begun */
}

static void it_saves_once_in_an_interval(void **state)
{
	struct fixture *f = *state;

	stop_time();
	restart(f, f->state, 60 * USEC_PER_SEC);
	for (unsigned n = 0; n < 3; n++) {
		go_on(60 * USEC_PER_SEC - 1);
		expect_saves(f, n);
		go_on(1);
		expect_saves(f, n + 1);
	}
	keeper_change_interval(f->keeper, 10 * USEC_PER_SEC);
	go_on(9 * USEC_PER_SEC);
	expect_saves(f, 3);
	go_on(USEC_PER_SEC);
	expect_saves(f, 4);
	keeper_change_interval(f->keeper, 0); /* at a stop only */
	go_on(USEC_PER_DAY);
	expect_saves(f, 4);
	keeper_save_soon(f->keeper); /* and where somebody asks, once */
	go_on(0);
	go_on(USEC_PER_SEC);
	expect_saves(f, 5);
	keeper_change_interval(f->keeper, 10 * USEC_PER_SEC);
	go_on(9 * USEC_PER_SEC - 1); /* since that one */
	expect_saves(f, 5);
	restart(f, "", USEC_PER_SEC); /* there is no file */
	go_on(USEC_PER_DAY);
	expect_saves(f, 0);
}

/* Who did not come to serve leaves the file as it was. */
static void what_nobody_finished_is_not_written(void **state)
{
	struct fixture *f = *state;

	keeper_free(f->keeper);
	f->keeper = NULL;
	assert_int_equal(access(f->state, F_OK), -1);
}

static void trouble_is_as_old_as_its_first_save(void **state)
{
	struct fixture *f = *state;
	struct keeper_trouble first, t;

	stop_time();
	assert_int_equal(mkdir(f->blocked, 0700), 0);
	save(f);
	go_on(0);
	assert_true(is_in_trouble(f, 0, &first));
	go_on(60 * USEC_PER_SEC);
	save(f);
	go_on(0);
	assert_true(is_in_trouble(f, 0, &t));
	assert_int_equal(t.since, first.since);
	/* Also when it does not come back. */
	assert_int_equal(rmdir(f->blocked), 0);
	hang(true);
	save(f);
	assert_true(is_in_trouble(f, 2 * KEEPER_HANGS_AFTER, &t));
	assert_int_equal(t.since, first.since);
	assert_string_equal(t.why, first.why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_stop_writes_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_file_that_cannot_be_written_is_trouble_until_it_can, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_waits_for_a_disk_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_nobody_finished_is_not_written, setup, teardown),
		cmocka_unit_test_setup_teardown(it_saves_once_in_an_interval, setup, teardown),
		cmocka_unit_test_setup_teardown(
			trouble_is_as_old_as_its_first_save, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
