/* Several workers, their threads, and connections that are handed over all the time, half-read
 * frames and all: one ACK for each NOTIFY, and nobody is forgotten at a drain, a reload or a stop.
 */
#include "server/worker.h"

#include "hello.h"
#include "policy.h"
#include "store/memory.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS = 4, PEERS = 24, IN_FLIGHT_MAX = 64, BYTES = 65536, ROUNDS = 3000 };

struct peer {
	int fd; /* -1: closed */
	uint64_t asked, answered;
	uint64_t seen[IN_FLIGHT_MAX]; /* by ID modulo: the ID that was answered last, plus one */
	uint8_t out[BYTES], in[BYTES];
	size_t out_n, in_n;
	bool said_hello, disconnected;
};

struct fixture {
	struct snapshot *snapshot;
	struct memory_store *store;
	struct ev_loop *home;
	ev_async bell;
	struct worker *worker[WORKERS];
	unsigned worker_n;
	struct peer peer[PEERS];
	unsigned accepted;
	uint32_t seed;
};

static uint32_t any(struct fixture *f, uint32_t below)
{
	f->seed = f->seed * 1664525 + 1013904223;
	return (f->seed >> 8) % below;
}

static void put_notify(struct peer *p)
{
	struct wire_writer w = { p->out + p->out_n, p->out + BYTES, false };
	uint8_t *at = frame_begin(&w, FRAME_NOTIFY, p->asked, 1);
	wire_put_str(&w, STR("check"));
	wire_put_u8(&w, 1);
	wire_put_str(&w, STR("user"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, STR("alice"));
	frame_end(&w, at);
	assert_false(w.bad);
	p->out_n = (size_t)(w.p - p->out);
	p->asked++;
}

static void open_peer(struct fixture *f, struct peer *p)
{
	int pair[2];
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	memset(p, 0, sizeof *p);
	p->fd = pair[1];
	p->out_n += put_hello(p->out + p->out_n, BYTES - p->out_n, 16380, false);
	struct letter letter = { .fd = pair[0], .peer = "test" };
	struct worker *w = f->worker[any(f, f->worker_n)];
	assert_false(worker_mailbox_full(w));
	worker_mail(w, &letter);
	f->accepted++;
}

static void read_answers(struct peer *p)
{
	ssize_t n;
	while ((n = recv(p->fd, p->in + p->in_n, BYTES - p->in_n, 0)) > 0) {
		p->in_n += (size_t)n;
		const uint8_t *at = p->in;
		struct frame frame;
		enum spop_status status;
		while (frame_next(&at, p->in + p->in_n, BYTES, &frame, &status) == FRAME_OK) {
			if (frame.type == FRAME_AGENT_HELLO) {
				assert_false(p->said_hello);
				p->said_hello = true;
				continue;
			}
			if (frame.type == FRAME_AGENT_DISCONNECT) {
				p->disconnected = true;
				continue;
			}
			assert_int_equal(frame.type, FRAME_ACK);
			assert_true(p->said_hello && !p->disconnected);
			assert_true(frame.stream_id < p->asked);
			uint64_t *seen = &p->seen[frame.stream_id % IN_FLIGHT_MAX];
			assert_true(*seen != frame.stream_id + 1); /* once only */
			*seen = frame.stream_id + 1;
			p->answered++;
		}
		p->in_n -= (size_t)(at - p->in);
		memmove(p->in, at, p->in_n);
	}
	if (n == 0 || (n < 0 && errno != EAGAIN))
		assert_true(p->disconnected);
}

/* At most `most` bytes: so frames are cut anywhere. */
static void send_some(struct peer *p, size_t most)
{
	size_t n = p->out_n < most ? p->out_n : most;
	ssize_t sent = send(p->fd, p->out, n, MSG_NOSIGNAL);
	if (sent <= 0)
		return;
	p->out_n -= (size_t)sent;
	memmove(p->out, p->out + sent, p->out_n);
}

static void hand_over(struct fixture *f)
{
	static const unsigned share[] = { 100, 300, 500, 1000, 1000 };
	unsigned from = any(f, f->worker_n), to = any(f, f->worker_n);
	worker_give(f->worker[from], f->worker[to], share[any(f, 5)]);
}

static void play(struct fixture *f, struct peer *p)
{
	while (p->asked - p->answered < IN_FLIGHT_MAX && p->out_n < BYTES / 2 && any(f, 8))
		put_notify(p);
	send_some(p, 1 + any(f, 600));
	read_answers(p);
	if (any(f, 2000) == 0) { /* it ends, wherever it is, asked or not */
		(void)close(p->fd);
		open_peer(f, p);
	}
}

static const char rules[] = "log: { level = \"error\"; };\n"
			    "rules = ( { name = \"api\"; per = [ \"user\" ]; "
			    "rate = \"1000000000/day\"; } );";

static void start_with(struct fixture *f, unsigned workers, const char *text)
{
	struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	assert_true(hash_init());
	*f = (struct fixture){ .seed = 7, .home = ev_loop_new(EVFLAG_AUTO) };
	f->snapshot = config_load_text("t.cfg", text, strlen(text), &key, 1, &problems);
	assert_non_null(f->snapshot);
	problems_free(&problems);
	f->store = memory_store_new(1000, &key, clock_read());
	assert_non_null(f->store);
	for (unsigned i = 0; i < workers; i++) {
		f->worker[i] = worker_new(&(struct worker_args){
			.number = i + 1,
			.snapshot = f->snapshot,
			.memory = f->store,
			.home = f->home,
			.bell = &f->bell,
		});
		assert_non_null(f->worker[i]);
		f->worker_n++;
	}
	for (unsigned i = 0; i < workers; i++)
		assert_true(worker_start(f->worker[i]));
	for (unsigned i = 0; i < PEERS; i++)
		open_peer(f, &f->peer[i]);
}

static void start(struct fixture *f, unsigned workers)
{
	start_with(f, workers, rules);
}

static uint64_t sum(const struct fixture *f, enum metric id)
{
	uint64_t n = 0;
	for (unsigned i = 0; i < f->worker_n; i++)
		n += atomic_load(&worker_metrics(f->worker[i])->value[id]);
	return n;
}

static uint64_t open_now(const struct fixture *f)
{
	return f->accepted - sum(f, METRIC_connections_closed);
}

static bool all_are_done(const struct fixture *f)
{
	for (unsigned i = 0; i < f->worker_n; i++)
		if (!worker_is_done(f->worker[i]))
			return false;
	return true;
}

static void listen_to_all(struct fixture *f)
{
	for (unsigned i = 0; i < PEERS; i++)
		if (!f->peer[i].disconnected) {
			read_answers(&f->peer[i]);
			if (f->peer[i].disconnected)
				(void)shutdown(f->peer[i].fd, SHUT_WR);
		}
	(void)poll(NULL, 0, 1);
}

static void end(struct fixture *f)
{
	for (unsigned i = 0; i < f->worker_n; i++)
		worker_free(f->worker[i]);
	for (unsigned i = 0; i < PEERS; i++)
		(void)close(f->peer[i].fd);
	store_close(memory_store_base(f->store));
	assert_true(snapshot_unref(f->snapshot));
	snapshot_free(f->snapshot);
	ev_loop_destroy(f->home);
}

static void play_with(unsigned workers)
{
	static struct fixture f;
	start(&f, workers);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < PEERS; i++)
			play(&f, &f.peer[i]);
		hand_over(&f);
		if (any(&f, 100) == 0) /* a reload, which reaches them one after another */
			for (unsigned i = 0; i < workers; i++)
				worker_publish(f.worker[i], f.snapshot);
		if (round == ROUNDS - 100) /* what is open is served on */
			for (unsigned i = 0; i < workers; i++)
				worker_drain(f.worker[i]);
	}
	/* All that was asked is answered, still on the move. */
	bool all = false;
	for (unsigned round = 0; !all && round < 100000; round++) {
		all = true;
		hand_over(&f);
		for (unsigned i = 0; i < PEERS; i++) {
			struct peer *p = &f.peer[i];
			send_some(p, BYTES);
			read_answers(p);
			all = all && p->answered == p->asked && p->said_hello;
		}
		if (!all)
			(void)poll(NULL, 0, 1);
	}
	assert_true(all);
	for (unsigned round = 0; round < 10000 && open_now(&f) != PEERS; round++)
		(void)poll(NULL, 0, 1); /* those that ended are noticed a little later */
	assert_int_equal(open_now(&f), PEERS);
	/* A stop in the middle of it: everyone hears of it. One has ended before the others know:
	 * what is given to it stays where it is. */
	worker_stop(f.worker[0]);
	for (unsigned round = 0; !worker_is_done(f.worker[0]) && round < 10000; round++)
		listen_to_all(&f);
	assert_true(worker_is_done(f.worker[0]));
	for (unsigned i = 1; i < workers; i++)
		worker_give(f.worker[i], f.worker[0], 1000);
	(void)poll(NULL, 0, 5);
	for (unsigned i = 1; i < workers; i++) {
		hand_over(&f);
		worker_stop(f.worker[i]);
		hand_over(&f);
	}
	for (unsigned round = 0; !all_are_done(&f) && round < 100000; round++)
		listen_to_all(&f);
	assert_true(all_are_done(&f));
	for (unsigned i = 0; i < PEERS; i++) {
		if (!f.peer[i].disconnected)
			read_answers(&f.peer[i]);
		assert_true(f.peer[i].disconnected);
	}
	assert_int_equal(sum(&f, METRIC_connections_open), 0);
	assert_int_equal(sum(&f, METRIC_connections_closed), f.accepted);
	assert_int_equal(sum(&f, METRIC_frames_bad), 0);
	for (unsigned i = 0; i < workers; i++)
		assert_int_equal(worker_connections(f.worker[i]), 0);
	end(&f);
}

static void with_two(void **state)
{
	(void)state;
	play_with(2);
}

static void with_four(void **state)
{
	(void)state;
	play_with(4);
}

/* What is on its way when everything just ends is closed. */
static void an_end_at_once(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 20; n++) {
		static struct fixture f;
		start(&f, WORKERS);
		for (unsigned round = 0; round < 20; round++) {
			for (unsigned i = 0; i < PEERS; i++)
				play(&f, &f.peer[i]);
			hand_over(&f);
		}
		for (unsigned i = 0; i < WORKERS; i++)
			worker_stop_now(f.worker[i]);
		while (!all_are_done(&f))
			(void)poll(NULL, 0, 1);
		end(&f);
	}
}

/* The account that the balancer reads. */
static void its_time_is_told(void **state)
{
	(void)state;
	static struct fixture f;
	struct worker_time t = { 0 };
	if (!worker_time_is_known())
		skip();
	start(&f, 2);
	for (unsigned round = 0; round < 100000 && !t.ran; round++) {
		for (unsigned i = 0; i < PEERS; i++)
			play(&f, &f.peer[i]);
		(void)worker_time(f.worker[0], &t);
	}
	assert_true(t.ran > 0);
	assert_true(t.turns > 0);
	assert_int_equal(t.polled, 0);
	for (unsigned i = 0; i < 2; i++)
		worker_stop_now(f.worker[i]);
	while (!all_are_done(&f))
		(void)poll(NULL, 0, 1);
	end(&f);
}

static int policy_when_asked_for(struct worker *w, bool batch)
{
	worker_set_batch(w, batch);
	return policy_of(w, "worker-1");
}

static const char off[] = "agent: { batch_scheduling = false; };\n"
			  "rules = ( { name = \"api\"; per = [ \"user\" ]; "
			  "rate = \"1/day\"; } );";

/* The policy is the thread's as soon as it has obeyed: where neither its configuration nor who
 * started it has chosen another. */
static void its_scheduling_policy(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int ours, asked, not_asked;
		bool may;
	} row[] = {
		{ rules, SCHED_OTHER, SCHED_BATCH, SCHED_OTHER, true },
		{ off, SCHED_OTHER, SCHED_OTHER, SCHED_OTHER, false },
		{ rules, SCHED_BATCH, SCHED_BATCH, SCHED_BATCH, false },
	};
	if (!policy_is_free())
		skip();
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		static struct fixture f;
		/* Threads have that of who starts them. */
		assert_int_equal(sched_setscheduler(0, row[i].ours, &(struct sched_param){ 0 }), 0);
		start_with(&f, 1, row[i].text);
		assert_int_equal(policy_when_asked_for(f.worker[0], false), row[i].not_asked);
		assert_int_equal(policy_when_asked_for(f.worker[0], true), row[i].asked);
		assert_int_equal(policy_when_asked_for(f.worker[0], false), row[i].not_asked);
		assert_int_equal(worker_may_be_batch(f.worker[0]), row[i].may);
		worker_stop_now(f.worker[0]);
		while (!all_are_done(&f))
			(void)poll(NULL, 0, 1);
		end(&f);
	}
	assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 }), 0);
}

/* A reload that turns it off, or on, counts for what was asked before. */
static void its_scheduling_policy_follows_a_reload(void **state)
{
	(void)state;
	static struct fixture f;
	struct problems problems = { 0 };
	struct hash_key key = { .bytes = { 1 } };
	struct worker *w;
	if (!policy_is_free())
		skip();
	start(&f, 1);
	w = f.worker[0];
	struct snapshot *other = config_load_text("t.cfg", off, sizeof off - 1, &key, 2, &problems);
	assert_non_null(other);
	problems_free(&problems);
	assert_int_equal(policy_when_asked_for(w, true), SCHED_BATCH);
	worker_publish(w, other);
	assert_int_equal(policy_when_asked_for(w, true), SCHED_OTHER);
	worker_publish(w, f.snapshot);
	assert_int_equal(policy_when_asked_for(w, true), SCHED_BATCH);
	worker_stop_now(w);
	while (!all_are_done(&f))
		(void)poll(NULL, 0, 1);
	assert_true(snapshot_unref(other));
	snapshot_free(other);
	end(&f);
}

/* One that somebody gives it later (chrt) stays as well, and is told. */
static void a_scheduling_policy_that_is_given_later_stays(void **state)
{
	(void)state;
	static struct fixture f;
	if (!policy_is_free())
		skip();
	start(&f, 1);
	struct worker *w = f.worker[0];
	assert_int_equal(policy_when_asked_for(w, true), SCHED_BATCH);
	assert_true(worker_may_be_batch(w));
	assert_int_equal(sched_setscheduler(
				 thread_called("worker-1"), SCHED_IDLE, &(struct sched_param){ 0 }),
		0);
	assert_int_equal(policy_when_asked_for(w, false), SCHED_IDLE);
	assert_false(worker_may_be_batch(w));
	assert_int_equal(policy_when_asked_for(w, true), SCHED_IDLE);
	worker_stop_now(w);
	while (!all_are_done(&f))
		(void)poll(NULL, 0, 1);
	end(&f);
}

/* No thread that begins from now on may choose a policy. Of the process, and for good. */
static bool forbid_policies(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setscheduler, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* As a unit's SystemCallFilter= may: it goes on as it is, and says so. The last test. */
static void a_scheduling_policy_that_is_refused(void **state)
{
	(void)state;
	static struct fixture f;
	if (!policy_is_free() || !forbid_policies())
		skip();
	start(&f, 1);
	struct worker *w = f.worker[0];
	assert_true(worker_may_be_batch(w));
	assert_int_equal(policy_when_asked_for(w, true), SCHED_OTHER);
	assert_false(worker_may_be_batch(w));
	worker_stop_now(w);
	while (!all_are_done(&f))
		(void)poll(NULL, 0, 1);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_two),
		cmocka_unit_test(with_four),
		cmocka_unit_test(an_end_at_once),
		cmocka_unit_test(its_time_is_told),
		cmocka_unit_test(its_scheduling_policy),
		cmocka_unit_test(its_scheduling_policy_follows_a_reload),
		cmocka_unit_test(a_scheduling_policy_that_is_given_later_stays),
		cmocka_unit_test(a_scheduling_policy_that_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
