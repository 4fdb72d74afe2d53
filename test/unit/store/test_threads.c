/* Several threads at one table: not one unit too many, not one too few, and nobody waits for ever.
 * Meant for ThreadSanitizer, too. */
#include "rig.h"

#include "store/state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 4000 };

static struct rig_limit limits[3];

struct job {
	struct memory_store *m;
	unsigned number;
	uint64_t admitted;
	void (*run)(struct job *);
};

static void *thread_main(void *arg)
{
	struct job *j = arg;
	j->run(j);
	return NULL;
}

static uint64_t run_all(struct memory_store *m, void (*run)(struct job *))
{
	pthread_t thread[THREADS];
	struct job job[THREADS];
	uint64_t admitted = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		job[i] = (struct job){ .m = m, .number = i, .run = run };
		assert_int_equal(pthread_create(&thread[i], NULL, thread_main, &job[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		admitted += job[i].admitted;
	}
	return admitted;
}

static void take_one_key(struct job *j)
{
	struct plan p = { 0 };
	for (unsigned i = 0; i < ROUNDS; i++) {
		p.n = 0;
		rig_plan_add(&p, &limits[0], 1, 1);
		store_take(memory_store_base(j->m), &p, now_at(0));
		j->admitted += p.take[0].verdict.admits;
	}
}

static void one_key_admits_exactly_its_limit(void **state)
{
	(void)state;
	for (unsigned max = 1; max <= 100000; max *= 10) {
		struct memory_store *m = rig_store(max, now_at(0));
		assert_int_equal(run_all(m, take_one_key), 1000);
		rig_close(m);
	}
}

/* Keys of several shards, each thread in another order. */
static void take_three_keys(struct job *j)
{
	struct plan p = { 0 };
	for (unsigned i = 0; i < ROUNDS; i++) {
		p.n = 0;
		for (unsigned k = 0; k < 3; k++) {
			unsigned which = (k + j->number) % 3;
			rig_plan_add(&p, &limits[which], 10 + which, 1);
		}
		store_take(memory_store_base(j->m), &p, now_at(0));
		j->admitted += p.take[0].verdict.admits && p.take[1].verdict.admits &&
			       p.take[2].verdict.admits;
	}
}

static void a_plan_is_charged_whole_or_not_at_all(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(100000, now_at(0));
	assert_int_equal(run_all(m, take_three_keys), 700); /* the least of the three */
	for (unsigned i = 0; i < 3; i++) {
		double left = (double)limits[i].limit.quota.capacity - 700;
		assert_true(rig_take(m, &limits[i], 10 + i, 0, now_at(0)).left == left);
	}
	rig_close(m);
}

/* Everything at once, on a table that is too small for it. */
static atomic_bool stop;

static void take_many_keys(struct job *j)
{
	struct plan p = { 0 };
	uint64_t seed = j->number * 1000;
	for (unsigned i = 0; i < ROUNDS; i++) {
		p.n = 0;
		unsigned n = 1 + rig_random(&seed) % 16;
		for (unsigned k = 0; k < n; k++)
			rig_plan_add(&p, &limits[k % 3], rig_random(&seed) % 20000, 1);
		store_take(memory_store_base(j->m), &p, now_at((usec_t)i * TICK));
		j->admitted++;
	}
}

static void *keep(void *arg)
{
	struct memory_store *m = arg;
	struct memory_entry e[256];
	usec_t t = 0;
	while (!atomic_load(&stop)) {
		t += TICK;
		memory_store_sweep(m, now_at(t), 64);
		memory_store_stretch(m, 1.0001, now_at(t));
		uint64_t cursor = 0;
		while (memory_store_copy(m, &cursor, e, 256, now_at(t)))
			;
		(void)memory_store_stats(m);
	}
	return NULL;
}

static void everything_at_once(void **state)
{
	(void)state;
	struct memory_store *m = rig_store(8192, now_at(0));
	pthread_t keeper;
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&keeper, NULL, keep, m), 0);
	assert_int_equal(run_all(m, take_many_keys), THREADS * ROUNDS);
	atomic_store(&stop, true);
	pthread_join(keeper, NULL);
	struct memory_stats s = memory_store_stats(m);
	assert_int_equal(s.inserted, s.keys + s.evicted + s.expired);
	assert_true(s.keys <= 8192);
	rig_close(m);
}

/* The state file is written while keys come and go: what is written can be read. */
static void save_while_charged(void **state)
{
	(void)state;
	char folder[] = "/tmp/store-threads-XXXXXX", path[64], err[256];
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof path, "%s/state", folder);
	assert_true(hash_init());

	struct memory_store *m = rig_store(8192, now_at(0)), *back;
	pthread_t thread[THREADS];
	struct job job[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		job[i] = (struct job){ .m = m, .number = i, .run = take_many_keys };
		assert_int_equal(pthread_create(&thread[i], NULL, thread_main, &job[i]), 0);
	}
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(state_save(m, path, now_at(0), err, sizeof err), 0);
		assert_int_equal(
			state_load(path, 8192, now_at(0), &back, err, sizeof err), STATE_LOADED);
		rig_close(back);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	rig_close(m);
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_key_admits_exactly_its_limit),
		cmocka_unit_test(a_plan_is_charged_whole_or_not_at_all),
		cmocka_unit_test(everything_at_once),
		cmocka_unit_test(save_while_charged),
	};
	rig_limit(&limits[0], ALGORITHM_TOKEN_BUCKET, 1000, USEC_PER_DAY, 1000);
	rig_limit(&limits[1], ALGORITHM_FIXED_WINDOW, 700, USEC_PER_DAY, 700);
	rig_limit(&limits[2], ALGORITHM_SLIDING_WINDOW, 900, USEC_PER_DAY, 900);
	return cmocka_run_group_tests_name("store/threads", tests, NULL, NULL);
}
