/* Connections over a socket pair: no listener, no thread, and deadlines by a clock of our own. */
#include "server/conn_inside.h"

#include "hello.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SEC USEC_PER_SEC

struct fixture {
	struct ev_loop *loop;
	struct snapshot snapshot;
	struct metrics metrics;
	struct conns conns;
	struct now start;
	int peer; /* the end that plays HAProxy */
};

static void turn(struct fixture *f)
{
	(void)ev_run(f->loop, EVRUN_NOWAIT);
}

static struct now after(const struct fixture *f, usec_t t)
{
	return (struct now){ .steady = f->start.steady + t, .utc = f->start.utc + t };
}

static uint64_t metric(const struct fixture *f, enum metric id)
{
	return f->metrics.value[id];
}

static int connect_beyond(struct fixture *f, bool beyond)
{
	int pair[2];
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	atomic_fetch_add(&f->conns.open, 1);
	conns_add(&f->conns, pair[0], "test", beyond, f->start);
	return pair[1];
}

static int connect_peer(struct fixture *f)
{
	return connect_beyond(f, false);
}

static int setup(void **state)
{
	struct fixture *f = aligned_alloc(_Alignof(struct fixture), sizeof *f);
	char why[256];
	struct hash_key key = { .bytes = { 1 } };
	assert_true(hash_init());
	*f = (struct fixture){ .loop = ev_loop_new(EVFLAG_AUTO) };
	f->snapshot.settings.agent.max_frame_size = 16380;
	f->snapshot.settings.agent.variables = 0xffff;
	f->snapshot.policy = policy_new();
	assert_int_equal(policy_tier_add(f->snapshot.policy, STR("anonymous")), 0);
	assert_true(policy_seal(f->snapshot.policy, &key, why, sizeof why));
	assert_true(conns_init(&f->conns, f->loop, &f->snapshot, NULL, &f->metrics, NULL));
	f->start = clock_read();
	f->peer = connect_peer(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	(void)close(f->peer);
	conns_fini(&f->conns);
	assert_int_equal(f->conns.n, 0);
	assert_int_equal(f->conns.open, 0);
	assert_int_equal(metric(f, METRIC_connections_open), 0);
	policy_free(f->snapshot.policy);
	ev_loop_destroy(f->loop);
	free(f);
	return 0;
}

static void send_bytes(struct fixture *f, const void *p, size_t n)
{
	assert_int_equal(send(f->peer, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

static size_t put_notify(uint8_t *out, size_t size, uint64_t sid)
{
	struct wire_writer w = { out, out + size, false };
	uint8_t *at = frame_begin(&w, FRAME_NOTIFY, sid, 1);
	wire_put_str(&w, STR("check"));
	wire_put_u8(&w, 1);
	wire_put_str(&w, STR("path"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, STR("/a"));
	frame_end(&w, at);
	assert_false(w.bad);
	return (size_t)(w.p - out);
}

/* What has come, at most `size`; 0: nothing, -1: the connection is closed. */
static ssize_t receive(int fd, uint8_t *out, size_t size)
{
	ssize_t n = recv(fd, out, size, 0);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return -1;
	return n < 0 ? 0 : n;
}

/* Reads exactly one frame. */
static struct frame expect_frame(struct fixture *f, uint8_t *bytes, size_t size, uint8_t type)
{
	ssize_t n = receive(f->peer, bytes, size);
	assert_true(n > 0);
	const uint8_t *p = bytes;
	struct frame frame;
	enum spop_status status;
	assert_int_equal(frame_next(&p, bytes + n, size, &frame, &status), FRAME_OK);
	assert_ptr_equal(p, bytes + n);
	assert_int_equal(frame.type, type);
	return frame;
}

static void say_hello(struct fixture *f)
{
	uint8_t bytes[512];
	send_bytes(f, bytes, put_hello(bytes, sizeof bytes, 16380, false));
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_AGENT_HELLO);
}

static void expect_disconnect(struct fixture *f, enum spop_status status)
{
	uint8_t bytes[512];
	struct frame frame = expect_frame(f, bytes, sizeof bytes, FRAME_AGENT_DISCONNECT);
	struct wire_reader r = { frame.payload, frame.payload + frame.payload_n, false };
	assert_true(str_eq(wire_get_str(&r), STR("status-code")));
	assert_int_equal(wire_get_u8(&r), 3);
	assert_int_equal(wire_get_varint(&r), status);
	assert_int_equal(receive(f->peer, bytes, sizeof bytes), -1);
}

static void idle_ones_hold_no_buffer(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	assert_int_equal(f->conns.pool.idle_n, 2);
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, 7));
	turn(f);
	struct frame ack = expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	assert_int_equal(ack.stream_id, 7);
	assert_int_equal(f->conns.pool.idle_n, 2);
	/* Idle for a year is fine. */
	conns_expire(&f->conns, after(f, 366 * USEC_PER_DAY));
	assert_int_equal(f->conns.n, 1);
}

/* Every frame is answered however its bytes were cut on the way. */
static void frames_come_in_any_cut(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512], got[1024];
	say_hello(f);
	size_t n = put_notify(bytes, sizeof bytes, 1);
	for (size_t cut = 1; cut < n; cut++) {
		send_bytes(f, bytes, cut);
		turn(f);
		assert_int_equal(receive(f->peer, got, sizeof got), 0);
		send_bytes(f, bytes + cut, n - cut);
		turn(f);
		(void)expect_frame(f, got, sizeof got, FRAME_ACK);
	}
	assert_int_equal(metric(f, METRIC_notifies), n - 1);
}

static void a_batch_is_answered_at_once(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[4096], got[65536];
	say_hello(f);
	size_t n = 0;
	for (uint64_t sid = 0; sid < 20; sid++)
		n += put_notify(bytes + n, sizeof bytes - n, sid);
	send_bytes(f, bytes, n);
	turn(f);
	ssize_t answered = receive(f->peer, got, sizeof got);
	assert_true(answered > 0);
	const uint8_t *p = got, *end = got + answered;
	struct frame frame;
	enum spop_status status;
	for (uint64_t sid = 0; sid < 20; sid++) {
		assert_int_equal(frame_next(&p, end, sizeof got, &frame, &status), FRAME_OK);
		assert_int_equal(frame.type, FRAME_ACK);
		assert_int_equal(frame.stream_id, sid);
	}
	assert_ptr_equal(p, end);
}

static void hello_is_waited_for_5_s(void **state)
{
	struct fixture *f = *state;
	conns_expire(&f->conns, after(f, 5 * SEC - 1));
	assert_int_equal(metric(f, METRIC_timeouts), 0);
	/* A byte now and then gives no more time. */
	send_bytes(f, "\0", 1);
	turn(f);
	conns_expire(&f->conns, after(f, 5 * SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 1);
	expect_disconnect(f, SPOP_TIMEOUT);
}

static void a_frame_begun_is_waited_for_5_s(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	size_t n = put_notify(bytes, sizeof bytes, 1);
	send_bytes(f, bytes, n - 2);
	turn(f);
	conns_expire(&f->conns, after(f, 4 * SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 0);
	conns_expire(&f->conns, after(f, 60 * SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 1);
	expect_disconnect(f, SPOP_TIMEOUT);
}

/* From its own beginning on: who is busy leaves one begun with every read. */
static void the_next_frame_has_time_of_its_own(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	const struct timespec a_while = { .tv_nsec = 20000000 };
	say_hello(f);
	size_t n = put_notify(bytes, sizeof bytes, 1);
	size_t both = n + put_notify(bytes + n, sizeof bytes - n, 2);
	send_bytes(f, bytes, n - 2);
	turn(f);
	struct now first = clock_read();
	assert_int_equal(nanosleep(&a_while, NULL), 0);
	send_bytes(f, bytes + n - 2, both - n);
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	first.steady += 5 * SEC + 10 * USEC_PER_MSEC; /* the first one's would be over */
	conns_expire(&f->conns, first);
	assert_int_equal(metric(f, METRIC_timeouts), 0);
	conns_expire(&f->conns, after(f, 60 * SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 1);
	expect_disconnect(f, SPOP_TIMEOUT);
}

/* So is the rest of a NOTIFY in fragments, however whole each of them is. */
static void fragments_begun_are_waited_for_5_s(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	enum { FLAGS_END = FRAME_LENGTH_BYTES + 5 };
	say_hello(f);
	size_t n = put_notify(bytes, sizeof bytes, 1);
	bytes[FLAGS_END - 1] &= (uint8_t)~FRAME_FLAG_FIN;
	send_bytes(f, bytes, n);
	turn(f);
	assert_int_equal(receive(f->peer, bytes, sizeof bytes), 0);
	conns_expire(&f->conns, after(f, 4 * SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 0);
	conns_expire(&f->conns, after(f, 60 * SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 1);
	expect_disconnect(f, SPOP_TIMEOUT);
}

static void a_health_check_is_closed_in_the_end(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	send_bytes(f, bytes, put_hello(bytes, sizeof bytes, 16380, true));
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_AGENT_HELLO);
	assert_int_equal(metric(f, METRIC_health_checks), 1);
	conns_expire(&f->conns, after(f, 4 * SEC));
	assert_int_equal(f->conns.n, 1);
	conns_expire(&f->conns, after(f, 60 * SEC));
	expect_disconnect(f, SPOP_NORMAL);
	assert_int_equal(metric(f, METRIC_timeouts), 0);
}

static void health_checks_fail_while_draining(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	int early = connect_peer(f);
	conns_drain(&f->conns);
	/* Who is here is served. */
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, 1));
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	(void)close(f->peer);
	f->peer = early; /* it had come before, and says only now what it is */
	send_bytes(f, bytes, put_hello(bytes, sizeof bytes, 16380, true));
	turn(f);
	expect_disconnect(f, SPOP_NO_RESOURCE);
	(void)close(f->peer);
	f->peer = connect_peer(f);
	send_bytes(f, bytes, put_hello(bytes, sizeof bytes, 16380, true));
	turn(f);
	expect_disconnect(f, SPOP_NO_RESOURCE);
	assert_int_equal(metric(f, METRIC_frames_bad), 0);
}

static void beyond_the_bound_are_only_health_checks(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	for (int is_check = 0; is_check < 2; is_check++) {
		(void)close(f->peer);
		f->peer = connect_beyond(f, true);
		send_bytes(f, bytes, put_hello(bytes, sizeof bytes, 16380, is_check));
		turn(f);
		if (!is_check)
			expect_disconnect(f, SPOP_NO_RESOURCE);
	}
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_AGENT_HELLO);
	/* A check that fails for a drain was not refused for want of room. */
	conns_drain(&f->conns);
	(void)close(f->peer);
	f->peer = connect_beyond(f, true);
	send_bytes(f, bytes, put_hello(bytes, sizeof bytes, 16380, true));
	turn(f);
	expect_disconnect(f, SPOP_NO_RESOURCE);
	assert_int_equal(metric(f, METRIC_connections_refused), 1);
	assert_int_equal(metric(f, METRIC_frames_bad), 0);
}

/* The last fragment of a NOTIFY: with nothing in it. */
static uint8_t *frame_without_payload(uint8_t *bytes, size_t n)
{
	const uint8_t *p = bytes;
	struct frame frame;
	enum spop_status status;
	assert_int_equal(frame_next(&p, bytes + n, n, &frame, &status), FRAME_OK);
	uint8_t *end = bytes + (frame.payload - bytes);
	struct wire_writer w = { end, end, false };
	frame_end(&w, bytes);
	return end;
}

/* And they are not waited for as long as others. */
static void beyond_the_bound_hello_is_waited_for_1_s(void **state)
{
	struct fixture *f = *state;
	(void)close(f->peer);
	turn(f);
	f->peer = connect_beyond(f, true);
	conns_expire(&f->conns, after(f, SEC - 1));
	assert_int_equal(metric(f, METRIC_timeouts), 0);
	conns_expire(&f->conns, after(f, SEC));
	assert_int_equal(metric(f, METRIC_timeouts), 1);
	expect_disconnect(f, SPOP_TIMEOUT);
}

static void where_it_is_crowded_idle_ones_go(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	conns_expire(&f->conns, after(f, 60 * SEC)); /* it is not */
	conns_make_room(&f->conns);
	conns_expire(&f->conns, after(f, 10 * SEC - 1));
	/* It is not idle whose request waits to be read. */
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, 3));
	conns_make_room(&f->conns);
	conns_expire(&f->conns, after(f, 60 * SEC));
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	/* Nor whose frame has begun. */
	size_t n = put_notify(bytes, sizeof bytes, 4);
	send_bytes(f, bytes, 5);
	turn(f);
	conns_make_room(&f->conns);
	struct now now = clock_read();
	now.steady += 4 * SEC;
	f->conns.head->answered_at -= 60 * SEC;
	conns_expire(&f->conns, now);
	send_bytes(f, bytes + 5, n - 5);
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	/* Nor of whose fragments the last is still to come. */
	enum { FLAGS_END = FRAME_LENGTH_BYTES + 5 };
	n = put_notify(bytes, sizeof bytes, 5);
	bytes[FLAGS_END - 1] &= (uint8_t)~FRAME_FLAG_FIN;
	send_bytes(f, bytes, n);
	turn(f);
	conns_make_room(&f->conns);
	now = clock_read();
	f->conns.head->answered_at -= 60 * SEC;
	conns_expire(&f->conns, now);
	bytes[FRAME_LENGTH_BYTES] = FRAME_UNSET;
	bytes[FLAGS_END - 1] |= FRAME_FLAG_FIN;
	size_t rest = (size_t)(frame_without_payload(bytes, n) - bytes);
	send_bytes(f, bytes, rest);
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	conns_expire(&f->conns, after(f, 60 * SEC)); /* room was made */
	assert_int_equal(receive(f->peer, bytes, sizeof bytes), 0);
	assert_int_equal(f->conns.n, 1);
	conns_make_room(&f->conns);
	conns_expire(&f->conns, after(f, 60 * SEC));
	expect_disconnect(f, SPOP_NORMAL);
	assert_int_equal(metric(f, METRIC_timeouts) + metric(f, METRIC_frames_bad), 0);
}

/* So that who asks meanwhile does not wait for it. */
static void of_idle_ones_a_few_go_at_a_time(void **state)
{
	struct fixture *f = *state;
	enum { N = 100, A_TURN = 64 };
	int peer[N], closed = 0, first = f->peer;
	uint8_t bytes[512];
	for (int i = 0; i < N; i++) {
		f->peer = peer[i] = connect_peer(f);
		say_hello(f);
	}
	conns_make_room(&f->conns);
	conns_expire(&f->conns, after(f, 60 * SEC));
	for (int i = 0; i < N; i++) {
		closed += receive(peer[i], bytes, sizeof bytes) != 0;
		(void)close(peer[i]);
	}
	assert_int_equal(closed, A_TURN);
	f->peer = first;
}

/* Deaf: who asks on and reads no answer, as HAProxy 3.1 to 3.5 does. */

static void ask(struct fixture *f, uint64_t sid)
{
	uint8_t bytes[512];
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, sid));
	turn(f);
}

static void ask_much(struct fixture *f, uint64_t sid)
{
	for (uint64_t i = 0; i < 20; i++)
		ask(f, sid + i);
}

static void look(struct fixture *f)
{
	conns_expire(&f->conns, f->start);
}

/* Its HELLO was answered, and read. */
static void expect_heard(struct fixture *f)
{
	ask(f, 0);
	look(f);
	if (f->conns.head->sent == f->conns.head->read_seen)
		skip(); /* this kernel does not tell */
}

static void who_is_deaf_is_left(void **state)
{
	struct fixture *f = *state;
	uint8_t byte;
	say_hello(f);
	expect_heard(f);
	for (uint64_t i = 1; i <= 3; i++) {
		ask_much(f, 20 * i);
		look(f);
	}
	assert_int_equal(f->conns.n, 1);
	look(f); /* nothing was asked meanwhile */
	look(f);
	assert_int_equal(f->conns.n, 1);
	ask(f, 1);
	look(f);
	assert_int_equal(f->conns.n, 0);
	assert_int_equal(metric(f, METRIC_timeouts), 1);
	while (recv(f->peer, &byte, 1, 0) > 0)
		;
	assert_int_equal(
		send(f->peer, "x", 1, MSG_NOSIGNAL), -1); /* the next question is not lost */
}

/* All of them in one look. */
static void whoever_is_deaf_is_left(void **state)
{
	struct fixture *f = *state;
	int peer[3] = { f->peer };
	for (int i = 0; i < 3; i++) {
		f->peer = peer[i] = i ? connect_peer(f) : f->peer;
		say_hello(f);
		expect_heard(f);
	}
	for (uint64_t round = 1; round <= 4; round++) {
		assert_int_equal(f->conns.n, 3);
		for (int i = 0; i < 3; i++) {
			f->peer = peer[i];
			ask_much(f, 20 * round);
		}
		look(f);
	}
	assert_int_equal(f->conns.n, 0);
	for (int i = 1; i < 3; i++)
		(void)close(peer[i]);
	f->peer = peer[0];
}

/* The same when its socket is full, and it is not read any more: what it asks waits. */
static void who_is_deaf_and_full_is_left(void **state)
{
	struct fixture *f = *state;
	uint64_t sid = 1;
	say_hello(f);
	expect_heard(f);
	while (!f->conns.head->write_deadline)
		ask(f, sid++);
	look(f);
	for (int i = 0; i < 2; i++) {
		ask(f, sid++);
		look(f);
	}
	look(f); /* nothing was asked meanwhile */
	look(f);
	assert_int_equal(f->conns.n, 1);
	ask(f, sid);
	look(f);
	assert_int_equal(f->conns.n, 0);
}

static void who_reads_anything_is_not_deaf(void **state)
{
	struct fixture *f = *state;
	uint8_t byte;
	say_hello(f);
	expect_heard(f);
	for (uint64_t i = 1; i < 20; i++) {
		ask_much(f, 20 * i);
		if (i % 4 == 0)
			assert_int_equal(recv(f->peer, &byte, 1, 0), 1);
		look(f);
	}
	assert_int_equal(f->conns.n, 1);
	assert_int_equal(metric(f, METRIC_timeouts), 0);
}

/* A few answers may wait, however long. */
static void who_is_owed_little_is_not_deaf(void **state)
{
	struct fixture *f = *state;
	say_hello(f);
	expect_heard(f);
	for (uint64_t i = 1; i < 10; i++) {
		ask(f, i);
		look(f);
	}
	assert_int_equal(f->conns.n, 1);
}

/* HAProxy up to 3.0 reads; and has hundreds of connections. */
static void of_older_ones_nobody_is_deaf(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	send_bytes(
		f, bytes, put_hello_of(bytes, sizeof bytes, 16380, false, STR("pipelining,async")));
	turn(f);
	for (uint64_t i = 0; i < 20; i++) {
		ask_much(f, 20 * i);
		look(f);
	}
	assert_int_equal(f->conns.n, 1);
}

/* Many are looked at in turns, a few at a time. */
static void of_many_each_has_its_look(void **state)
{
	struct fixture *f = *state;
	enum { N = 40, A_TURN = 16, TURNS = N / A_TURN + 1 };
	int peer[N], first = f->peer, looked = 0;
	for (int i = 0; i < N; i++) {
		f->peer = peer[i] = connect_peer(f);
		say_hello(f);
	}
	for (int round = 0; round < TURNS; round++) {
		int before = looked;
		for (int i = 0; i < N; i++) {
			f->peer = peer[i];
			ask(f, (uint64_t)round);
		}
		look(f);
		for (const struct conn *c = f->conns.head; c; c = c->next)
			looked += c->sent_seen && c->sent_seen == c->sent;
		assert_in_range(looked - before, 1, A_TURN);
	}
	assert_int_equal(looked, N);
	for (int i = 0; i < N; i++)
		(void)close(peer[i]);
	f->peer = first;
}

static void rubbish_gets_its_status(void **state)
{
	struct fixture *f = *state;
	send_bytes(f, "GET / HTTP/1.1\r\n\r\n", 18);
	turn(f);
	expect_disconnect(f, SPOP_TOO_BIG);
	assert_int_equal(metric(f, METRIC_frames_bad), 1);
	/* It lingers, so that what the peer still sends cannot make a RST of the answer. */
	assert_int_equal(f->conns.n, 1);
	send_bytes(f, "more", 4);
	turn(f);
	assert_int_equal(f->conns.n, 1);
	conns_expire(&f->conns, after(f, 60 * SEC));
	assert_int_equal(f->conns.n, 0);
}

/* A peer that asks on and never reads: it is no longer read, its memory is bounded, and in the end
 * it is closed. When it reads again, every question has its answer, in order. */
static void fill(struct fixture *f, uint64_t *asked)
{
	uint8_t bytes[512];
	for (int stuck = 0; stuck < 3;) {
		size_t n = put_notify(bytes, sizeof bytes, *asked);
		ssize_t sent = send(f->peer, bytes, n, MSG_NOSIGNAL);
		if (sent < 0) {
			assert_int_equal(errno, EAGAIN);
			stuck++;
			turn(f);
			continue;
		}
		assert_int_equal(sent, n);
		stuck = 0;
		(*asked)++;
	}
}

static void who_does_not_read_is_not_read(void **state)
{
	struct fixture *f = *state;
	uint64_t asked = 0, answered = 0;
	say_hello(f);
	fill(f, &asked);
	assert_true(metric(f, METRIC_notifies) < asked);
	static uint8_t got[1 << 20];
	size_t have = 0;
	while (answered < asked) {
		ssize_t n = receive(f->peer, got + have, sizeof got - have);
		assert_true(n >= 0);
		have += (size_t)n;
		const uint8_t *p = got;
		struct frame frame;
		enum spop_status status;
		while (frame_next(&p, got + have, sizeof got, &frame, &status) == FRAME_OK) {
			assert_int_equal(frame.type, FRAME_ACK);
			assert_int_equal(frame.stream_id, answered);
			answered++;
		}
		have -= (size_t)(p - got);
		memmove(got, p, have);
		turn(f);
	}
	assert_int_equal(have, 0);
	assert_int_equal(metric(f, METRIC_notifies), asked);
}

/* What comes after a DISCONNECT is thrown away, but not for ever. */
static void who_sends_on_after_a_disconnect_is_closed(void **state)
{
	struct fixture *f = *state;
	static const uint8_t more[1 << 16];
	size_t sent = 0;
	send_bytes(f, "GET / HTTP/1.1\r\n\r\n", 18);
	turn(f);
	expect_disconnect(f, SPOP_TOO_BIG);
	while (f->conns.n && sent < 4 << 20) {
		ssize_t n = send(f->peer, more, sizeof more, MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
		turn(f);
	}
	assert_int_equal(f->conns.n, 0);
	assert_in_range(sent, 1 << 20, 2 << 20);
}

/* Reads until it ends: answers, as many as there were, and then a DISCONNECT. */
static void expect_answers_and_disconnect(struct fixture *f, uint64_t answers)
{
	static uint8_t got[1 << 20];
	const uint8_t *p = got;
	size_t have = 0;
	ssize_t n = 0;
	for (unsigned turns = 0; n >= 0 && turns < 10000; turns++) {
		n = receive(f->peer, got + have, sizeof got - have);
		have += n > 0 ? (size_t)n : 0;
		turn(f);
	}
	assert_int_equal(n, -1);
	for (uint64_t i = 0; i <= answers; i++) {
		struct frame frame;
		enum spop_status status;
		assert_int_equal(frame_next(&p, got + have, sizeof got, &frame, &status), FRAME_OK);
		assert_int_equal(frame.type, i < answers ? FRAME_ACK : FRAME_AGENT_DISCONNECT);
	}
	assert_ptr_equal(p, got + have);
	/* As any other it lingers. */
	assert_int_equal(f->conns.n, 1);
	conns_expire(&f->conns, after(f, 60 * SEC));
	assert_int_equal(f->conns.n, 0);
}

/* The DISCONNECT waits behind the answers. */
static void who_does_not_read_is_left_when_he_does(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	uint64_t asked = 0;
	say_hello(f);
	while (!f->conns.head->out) {
		send_bytes(f, bytes, put_notify(bytes, sizeof bytes, asked++));
		turn(f);
	}
	conn_disconnect(f->conns.head, SPOP_NORMAL, after(f, 0));
	expect_answers_and_disconnect(f, asked);
}

/* Also where it is the first that does not fit; and nobody is told a second time meanwhile. */
static void rubbish_behind_questions_does_not_cost_their_answers(void **state)
{
	struct fixture *f = *state;
	enum { ASKED = 100, BEGINNING = 5 };
	static uint8_t bytes[ASKED * 64];
	size_t n = 0;
	say_hello(f);
	assert_int_equal(
		setsockopt(f->conns.head->fd, SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int)), 0);
	for (unsigned i = 0; i < ASKED; i++)
		n += put_notify(bytes + n, sizeof bytes - n, i);
	send_bytes(f, bytes, BEGINNING);
	turn(f);
	memcpy(bytes + n, "GET /", 5);
	send_bytes(f, bytes + BEGINNING, n - BEGINNING + 5);
	turn(f);
	conns_expire(&f->conns, after(f, 9 * SEC));
	expect_answers_and_disconnect(f, ASKED);
	assert_int_equal(metric(f, METRIC_timeouts), 0);
}

static void who_never_reads_is_closed(void **state)
{
	struct fixture *f = *state;
	uint64_t asked = 0;
	say_hello(f);
	fill(f, &asked);
	conns_expire(&f->conns, after(f, 9 * SEC));
	assert_int_equal(f->conns.n, 1);
	conns_expire(&f->conns, after(f, 60 * SEC));
	assert_int_equal(f->conns.n, 0);
	assert_int_equal(metric(f, METRIC_timeouts), 1);
}

static void who_reads_some_has_time_anew(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[1 << 16];
	uint64_t asked = 0;
	say_hello(f);
	fill(f, &asked);
	const struct now filled = clock_read();
	while (clock_read().steady == filled.steady)
		;
	while (receive(f->peer, got, sizeof got) > 0)
		;
	turn(f);
	conns_expire(&f->conns, (struct now){ .steady = filled.steady + CONN_WRITE_TIMEOUT,
					.utc = filled.utc + CONN_WRITE_TIMEOUT });
	assert_int_equal(f->conns.n, 1);
	assert_int_equal(metric(f, METRIC_timeouts), 0);
}

static void a_stop_says_goodbye_after_the_last_answer(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, 3));
	assert_false(conns_stop(&f->conns, after(f, 0)));
	turn(f); /* what was received is answered */
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	struct now now = clock_read();
	assert_false(conns_stop(&f->conns, now));
	now.steady += 10 * USEC_PER_MSEC;
	assert_false(conns_stop(&f->conns, now));
	expect_disconnect(f, SPOP_NORMAL);
	(void)close(f->peer);
	f->peer = -1;
	turn(f);
	assert_true(conns_stop(&f->conns, now));
}

/* HAProxy 3.1.0 loses an ACK that a DISCONNECT follows at once, however long the stop goes on. */
static void a_stop_pauses_after_an_answer(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	assert_false(conns_stop(&f->conns, after(f, -20 * USEC_PER_MSEC)));
	struct now before = clock_read();
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, 3));
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	assert_false(conns_stop(&f->conns, before));
	assert_int_equal(receive(f->peer, bytes, sizeof bytes), 0);
	struct now later = clock_read();
	later.steady += 10 * USEC_PER_MSEC;
	assert_false(conns_stop(&f->conns, later));
	expect_disconnect(f, SPOP_NORMAL);
}

/* HAProxy up to 3.0 has what it has sent answered, and nothing is waited for after that. */
static void a_stop_leaves_between_two_requests(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	struct now later;
	send_bytes(
		f, bytes, put_hello_of(bytes, sizeof bytes, 16380, false, STR("pipelining,async")));
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_AGENT_HELLO);
	assert_false(conns_stop(&f->conns, clock_read()));
	/* The last moment before it would go, and a request has come. */
	send_bytes(f, bytes, put_notify(bytes, sizeof bytes, 3));
	later = clock_read();
	later.steady += 20 * USEC_PER_MSEC;
	assert_false(conns_stop(&f->conns, later));
	assert_int_equal(receive(f->peer, bytes, sizeof bytes), 0);
	turn(f);
	(void)expect_frame(f, bytes, sizeof bytes, FRAME_ACK);
	assert_false(conns_stop(&f->conns, later));
	expect_disconnect(f, SPOP_NORMAL);
	(void)close(f->peer);
	f->peer = -1;
	turn(f);
	assert_true(conns_stop(&f->conns, later));
}

static void a_stop_is_bounded(void **state)
{
	struct fixture *f = *state;
	uint64_t asked = 0;
	say_hello(f);
	fill(f, &asked);
	assert_false(conns_stop(&f->conns, after(f, 0)));
	assert_true(conns_stop(&f->conns, after(f, 2 * SEC)));
}

/* What was read is answered as soon as the peer reads again, and no more is read then. */
static void a_stop_reads_no_more_of_who_goes_on_asking(void **state)
{
	struct fixture *f = *state;
	uint64_t asked = 0;
	static uint8_t got[1 << 20];
	struct now before = clock_read();
	say_hello(f);
	fill(f, &asked);
	assert_true(metric(f, METRIC_notifies) < asked);
	assert_false(conns_stop(&f->conns, after(f, -400 * USEC_PER_MSEC)));
	assert_false(conns_stop(&f->conns, before));
	for (unsigned i = 0; i < 100; i++) {
		while (receive(f->peer, got, sizeof got) > 0)
			;
		turn(f);
	}
	assert_true(metric(f, METRIC_notifies) < asked);
}

static void a_reload_may_raise_the_frame_size(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	say_hello(f);
	send_bytes(f, bytes, 3);
	turn(f);
	struct snapshot fresh = f->snapshot;
	fresh.settings.agent.max_frame_size = 200000;
	conns_use(&f->conns, &fresh);
	assert_int_equal(f->conns.settings.accept_max, 200000);
	(void)close(f->peer);
	f->peer = connect_peer(f);
	say_hello(f);
	fresh.settings.agent.max_frame_size = 256;
	conns_use(&f->conns, &fresh);
	assert_int_equal(f->conns.settings.max_frame_size, 256);
	conns_use(&f->conns, &f->snapshot);
	turn(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(idle_ones_hold_no_buffer, setup, teardown),
		cmocka_unit_test_setup_teardown(frames_come_in_any_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(a_batch_is_answered_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(hello_is_waited_for_5_s, setup, teardown),
		cmocka_unit_test_setup_teardown(a_frame_begun_is_waited_for_5_s, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_next_frame_has_time_of_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(
			fragments_begun_are_waited_for_5_s, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_health_check_is_closed_in_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(health_checks_fail_while_draining, setup, teardown),
		cmocka_unit_test_setup_teardown(
			beyond_the_bound_are_only_health_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(
			beyond_the_bound_hello_is_waited_for_1_s, setup, teardown),
		cmocka_unit_test_setup_teardown(where_it_is_crowded_idle_ones_go, setup, teardown),
		cmocka_unit_test_setup_teardown(of_idle_ones_a_few_go_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_deaf_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(whoever_is_deaf_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_deaf_and_full_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(who_reads_anything_is_not_deaf, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_owed_little_is_not_deaf, setup, teardown),
		cmocka_unit_test_setup_teardown(of_older_ones_nobody_is_deaf, setup, teardown),
		cmocka_unit_test_setup_teardown(of_many_each_has_its_look, setup, teardown),
		cmocka_unit_test_setup_teardown(rubbish_gets_its_status, setup, teardown),
		cmocka_unit_test_setup_teardown(who_does_not_read_is_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_sends_on_after_a_disconnect_is_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_does_not_read_is_left_when_he_does, setup, teardown),
		cmocka_unit_test_setup_teardown(
			rubbish_behind_questions_does_not_cost_their_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(who_never_reads_is_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(who_reads_some_has_time_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_stop_says_goodbye_after_the_last_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stop_pauses_after_an_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_stop_leaves_between_two_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stop_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_stop_reads_no_more_of_who_goes_on_asking, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reload_may_raise_the_frame_size, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
