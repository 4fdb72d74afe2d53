/* Who gets a new connection, who may poll, and who is SCHED_BATCH. What is decided by which
 * numbers: test_balance.c and test_scheduling.c. */
#include "server/balancer.h"

#include "hello.h"
#include "policy.h"
#include "store/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { WORKERS = 3 };

struct fixture {
	struct snapshot *snapshot;
	struct memory_store *store;
	struct ev_loop *home;
	ev_async bell;
	struct worker *worker[WORKERS];
	char account[WORKERS][32]; /* the file that stands for the kernel's, of each; "": none */
	unsigned n;
	struct balancer *balancer;
};

static void start(struct fixture *f, unsigned n, unsigned cores)
{
	static const char text[] = "agent: { busy_poll = \"1ms\"; };\n"
				   "log: { level = \"error\"; };\n";
	struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	assert_true(hash_init());
	f->home = ev_loop_new(EVFLAG_AUTO);
	f->n = n;
	f->snapshot = config_load_text("t.cfg", text, sizeof text - 1, &key, 1, &problems);
	assert_non_null(f->snapshot);
	problems_free(&problems);
	f->store = memory_store_new(1000, &key, clock_read());
	for (unsigned i = 0; i < n; i++) {
		f->worker[i] = worker_new(&(struct worker_args){
			.number = i + 1,
			.snapshot = f->snapshot,
			.memory = f->store,
			.home = f->home,
			.bell = &f->bell,
			.schedstat = *f->account[i] ? f->account[i] : NULL,
		});
		assert_non_null(f->worker[i]);
	}
	f->balancer = balancer_new(f->worker, n, cores);
	assert_non_null(f->balancer);
}

static void end(struct fixture *f)
{
	balancer_free(f->balancer);
	for (unsigned i = 0; i < f->n; i++) {
		worker_free(f->worker[i]);
		if (*f->account[i])
			(void)unlink(f->account[i]);
	}
	store_close(memory_store_base(f->store));
	assert_true(snapshot_unref(f->snapshot));
	snapshot_free(f->snapshot);
	ev_loop_destroy(f->home);
}

/* Its end of a new connection; the other one is closed at once where none is wanted. */
static int mail(struct worker *w)
{
	int pair[2];
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	struct letter letter = { .fd = pair[0], .peer = "test" };
	worker_mail(w, &letter);
	return pair[1];
}

static void new_ones_go_to_the_active(void **state)
{
	(void)state;
	struct fixture f = { 0 };
	if (!worker_time_is_known())
		skip();
	start(&f, WORKERS, 8);
	int peer[MAILBOX_LETTERS];
	for (unsigned i = 0; i < MAILBOX_LETTERS; i++) {
		struct worker *w = balancer_choose(f.balancer);
		assert_ptr_equal(w, f.worker[0]);
		peer[i] = mail(w);
	}
	/* Its mailbox is full: a burst waits for nobody while there are others. */
	assert_true(worker_mailbox_full(f.worker[0]));
	int one_more = mail(f.worker[1]);
	assert_ptr_equal(balancer_choose(f.balancer), f.worker[2]);
	for (unsigned i = 0; i < MAILBOX_LETTERS; i++)
		(void)close(peer[i]);
	(void)close(one_more);
	end(&f);
}

static void who_does_not_fetch_its_mail_gets_no_more(void **state)
{
	(void)state;
	struct fixture f = { 0 };
	if (!worker_time_is_known())
		skip();
	start(&f, WORKERS, 8);
	int peer = mail(f.worker[0]);
	balancer_tick(f.balancer, 100000);
	assert_ptr_equal(balancer_choose(f.balancer), f.worker[0]);
	balancer_tick(f.balancer, 200000);
	assert_ptr_equal(balancer_choose(f.balancer), f.worker[1]);
	(void)close(peer);
	end(&f);
}

/* What the first of them has polled with some traffic. */
static uint64_t polled(struct fixture *f)
{
	uint8_t bytes[512];
	struct worker_time t = { 0 };
	assert_true(worker_start(f->worker[0]));
	for (unsigned i = 0; i < 50; i++) {
		int fd = mail(f->worker[0]);
		size_t n = put_hello(bytes, sizeof bytes, 16380, false);
		assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
		struct pollfd p = { .fd = fd, .events = POLLIN };
		assert_int_equal(poll(&p, 1, 60000), 1);
		assert_true(recv(fd, bytes, sizeof bytes, 0) > 0);
		(void)close(fd);
	}
	assert_true(worker_time(f->worker[0], &t));
	return t.polled;
}

/* As many as cores: whom they answer needs what they leave. One of two is active here. (That who
 * may does is not asked: it leaves off where another thread wants the core; test_busy_poll.py waits
 * for it.) */
static void who_may_poll(void **state)
{
	(void)state;
	static const struct {
		unsigned workers, cores;
		bool may;
	} row[] = { { 1, 1, false }, { 1, 2, true }, { 2, 2, true }, { 2, 1, false } };
	struct fixture f = { 0 };
	if (!worker_time_is_known())
		skip();
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		start(&f, row[i].workers, row[i].cores);
		for (unsigned w = 0; w < f.n; w++)
			assert_int_equal(worker_may_busy_poll(f.worker[w]), row[i].may);
		if (!row[i].may)
			assert_int_equal(polled(&f), 0);
		end(&f);
	}
}

/* Of a worker: microseconds since its start, and how often it got a core. */
struct account {
	unsigned ran, waited, turns;
};

static void put_account(const struct fixture *f, unsigned worker, const struct account *a)
{
	char text[64];
	int n = snprintf(text, sizeof text, "%u000 %u000 %u\n", a->ran, a->waited, a->turns);
	int fd = open(f->account[worker], O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, (size_t)n), n);
	(void)close(fd);
}

static void make_account(struct fixture *f, unsigned worker, const struct account *a)
{
	strcpy(f->account[worker], "/tmp/account-test-XXXXXX");
	int fd = mkstemp(f->account[worker]);
	assert_true(fd >= 0);
	(void)close(fd);
	put_account(f, worker, a);
}

static void answered(const struct fixture *f, unsigned worker, unsigned n)
{
	metric_add(worker_metrics(f->worker[worker]), METRIC_notifies, n);
}

static void await_account(const struct fixture *f, unsigned worker)
{
	struct worker_time t;
	while (!worker_time(f->worker[worker], &t))
		(void)poll(NULL, 0, 1);
}

/* By its own account, alone or beside another, which nobody is connected to. */
static void who_is_batch(void **state)
{
	(void)state;
	static const struct account before = { 0, 0, 0 }, wanted = { 90000, 6000, 400 },
				    slept = { 90001, 6001, 401 };
	if (!worker_time_is_known() || !policy_is_free())
		skip();
	for (unsigned n = 1; n <= 2; n++) {
		struct fixture f = { 0 };
		for (unsigned i = 0; i < n; i++)
			make_account(&f, i, &before);
		start(&f, n, 1);
		int peer = mail(f.worker[0]);
		for (unsigned i = 0; i < n; i++) {
			assert_true(worker_start(f.worker[i]));
			await_account(&f, i);
		}
		balancer_tick(f.balancer, 100000);
		for (unsigned i = 0; i < n; i++) {
			put_account(&f, i, &wanted);
			answered(&f, i, 6 * 400);
		}
		balancer_tick(f.balancer, 200000);
		assert_int_equal(policy_of(f.worker[0], "worker-1"), SCHED_BATCH);
		if (n == 2)
			assert_int_equal(policy_of(f.worker[1], "worker-2"), SCHED_OTHER);
		put_account(&f, 0, &slept);
		balancer_tick(f.balancer, 300000);
		assert_int_equal(policy_of(f.worker[0], "worker-1"), SCHED_OTHER);
		(void)close(peer);
		end(&f);
	}
}

/* One that its connections leave is not SCHED_BATCH any more, and begins anew with the next. */
static void who_has_nobody_is_not_batch(void **state)
{
	(void)state;
	static const struct account before = { 0, 0, 0 }, wanted = { 90000, 6000, 400 },
				    again = { 180000, 12000, 800 }, on = { 270000, 18000, 1200 };
	struct fixture f = { 0 };
	if (!worker_time_is_known() || !policy_is_free())
		skip();
	make_account(&f, 0, &before);
	start(&f, 1, 1);
	assert_true(worker_start(f.worker[0]));
	int peer = mail(f.worker[0]);
	await_account(&f, 0);
	balancer_tick(f.balancer, 100000);
	put_account(&f, 0, &wanted);
	answered(&f, 0, 6 * 400);
	balancer_tick(f.balancer, 200000);
	assert_int_equal(policy_of(f.worker[0], "worker-1"), SCHED_BATCH);
	(void)close(peer);
	while (worker_connections(f.worker[0]))
		(void)poll(NULL, 0, 1);
	balancer_tick(f.balancer, 300000);
	assert_int_equal(policy_of(f.worker[0], "worker-1"), SCHED_OTHER);
	peer = mail(f.worker[0]);
	put_account(&f, 0, &again);
	answered(&f, 0, 6 * 400);
	balancer_tick(f.balancer, 400000);
	assert_int_equal(policy_of(f.worker[0], "worker-1"), SCHED_OTHER);
	put_account(&f, 0, &on);
	answered(&f, 0, 6 * 400);
	balancer_tick(f.balancer, 500000);
	assert_int_equal(policy_of(f.worker[0], "worker-1"), SCHED_BATCH);
	(void)close(peer);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_ones_go_to_the_active),
		cmocka_unit_test(who_does_not_fetch_its_mail_gets_no_more),
		cmocka_unit_test(who_may_poll),
		cmocka_unit_test(who_is_batch),
		cmocka_unit_test(who_has_nobody_is_not_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
