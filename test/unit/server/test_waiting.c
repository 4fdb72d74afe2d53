/* Checks whose store answers later: a store that keeps its plans until the test lets them go, in
 * any order, with connections that end meanwhile. */
#include "server/conn.h"

#include "hello.h"
#include "late_store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PEERS = 4, IDS_MAX = 20000 };

struct fixture {
	struct ev_loop *loop;
	struct snapshot *snapshot;
	struct metrics metrics;
	struct event_ring *events;
	struct late_store store;
	struct conns conns;
	int peer[PEERS]; /* -1: closed */
	uint8_t asked[PEERS][IDS_MAX], answered[PEERS][IDS_MAX];
	unsigned denied;
	uint8_t rest[PEERS][65536]; /* a frame's beginning */
	size_t rest_n[PEERS];
};

static const struct now noon = { .steady = 1000000, .utc = 43200000000 };

/* Lets the i-th plan go. */
static void let_go(struct fixture *f, unsigned i)
{
	late_let_go(&f->store, i, noon);
}

static void turn(struct fixture *f)
{
	(void)ev_run(f->loop, EVRUN_NOWAIT);
}

static uint64_t metric(const struct fixture *f, enum metric id)
{
	return f->metrics.value[id];
}

static void connect_peer(struct fixture *f, unsigned i)
{
	int pair[2];
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	atomic_fetch_add(&f->conns.open, 1);
	conns_add(&f->conns, pair[0], "test", false, clock_read());
	f->peer[i] = pair[1];

	uint8_t bytes[512];
	size_t n = put_hello(bytes, sizeof bytes, 16380, false);
	assert_int_equal(send(pair[1], bytes, n, 0), (ssize_t)n);
	turn(f);
	assert_true(recv(pair[1], bytes, sizeof bytes, 0) > 0);
	f->rest_n[i] = 0;
}

static int setup(void **state)
{
	static const char text[] =
		"log: { level = \"error\"; };\n"
		"rules = ( { name = \"api\"; per = [ \"user\" ]; rate = \"10/minute\"; },"
		"{ name = \"none\"; match = { path = \"/none\"; }; rate = \"0/minute\"; "
		"per = []; } );";
	struct fixture *f = aligned_alloc(_Alignof(struct fixture),
		(sizeof *f + _Alignof(struct fixture) - 1) / _Alignof(struct fixture) *
			_Alignof(struct fixture));
	struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	assert_true(hash_init());
	memset(f, 0, sizeof *f);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	f->store.base.ops = &late_ops;
	f->snapshot = config_load_text("t.cfg", text, sizeof text - 1, &key, 1, &problems);
	if (!f->snapshot)
		fail_msg("%s", problems.message[0]);
	problems_free(&problems);
	f->events = event_ring_new(16);
	assert_true(conns_init(
		&f->conns, f->loop, f->snapshot, &f->store.base, &f->metrics, f->events));
	for (unsigned i = 0; i < PEERS; i++)
		connect_peer(f, i);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	conns_close(&f->conns);
	while (f->store.n)
		let_go(f, 0);
	assert_int_equal(metric(f, METRIC_checks_waiting), 0);
	assert_int_equal(f->snapshot->refs, 1);
	conns_fini(&f->conns);
	assert_int_equal(f->conns.checker.pool.n, 0);
	for (unsigned i = 0; i < PEERS; i++)
		if (f->peer[i] >= 0)
			(void)close(f->peer[i]);
	event_ring_free(f->events);
	assert_true(snapshot_unref(f->snapshot));
	snapshot_free(f->snapshot);
	ev_loop_destroy(f->loop);
	free(f);
	return 0;
}

/* false: the socket is full. */
static bool ask(struct fixture *f, unsigned peer, uint64_t id, const char *path)
{
	uint8_t bytes[256];
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	uint8_t *at = frame_begin(&w, FRAME_NOTIFY, id, 1);
	wire_put_str(&w, STR("check"));
	wire_put_u8(&w, 2);
	wire_put_str(&w, STR("user"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, STR("alice"));
	wire_put_str(&w, STR("path"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, str_of(path));
	frame_end(&w, at);
	ssize_t n = send(f->peer[peer], bytes, (size_t)(w.p - bytes), MSG_NOSIGNAL);
	if (n < 0)
		return false;
	assert_int_equal(n, w.p - bytes);
	f->asked[peer][id]++;
	return true;
}

/* Takes what has come; each ACK must be a question's, and the first to it. */
static void take_answers(struct fixture *f, unsigned peer)
{
	uint8_t *bytes = f->rest[peer];
	size_t room = sizeof f->rest[peer];
	ssize_t got;
	while ((got = recv(f->peer[peer], bytes + f->rest_n[peer], room - f->rest_n[peer], 0)) >
		0) {
		f->rest_n[peer] += (size_t)got;
		const uint8_t *p = bytes, *end = bytes + f->rest_n[peer];
		struct frame frame;
		enum spop_status status;
		enum frame_rc rc;
		while ((rc = frame_next(&p, end, room, &frame, &status)) == FRAME_OK) {
			assert_int_equal(frame.type, FRAME_ACK);
			assert_true(frame.stream_id < IDS_MAX);
			assert_int_equal(f->asked[peer][frame.stream_id], 1);
			assert_int_equal(f->answered[peer][frame.stream_id]++, 0);
			assert_true(frame.payload_n > 0);
		}
		assert_int_equal(rc, FRAME_PARTIAL);
		f->rest_n[peer] = (size_t)(end - p);
		memmove(bytes, p, f->rest_n[peer]);
	}
}

static unsigned sum(const uint8_t *count)
{
	unsigned n = 0;
	for (unsigned i = 0; i < IDS_MAX; i++)
		n += count[i];
	return n;
}

static void an_answer_comes_when_the_store_has_one(void **state)
{
	struct fixture *f = *state;
	assert_true(ask(f, 0, 1, "/a"));
	assert_true(ask(f, 0, 2, "/b"));
	turn(f);
	take_answers(f, 0);
	assert_int_equal(sum(f->answered[0]), 0);
	assert_int_equal(f->store.n, 2);
	assert_int_equal(metric(f, METRIC_checks_waiting), 2);
	let_go(f, 1);
	turn(f);
	take_answers(f, 0);
	assert_int_equal(f->answered[0][2], 1);
	assert_int_equal(f->answered[0][1], 0);
	let_go(f, 0);
	turn(f);
	take_answers(f, 0);
	assert_int_equal(f->answered[0][1], 1);
	assert_int_equal(metric(f, METRIC_notifies), 2);
	assert_int_equal(metric(f, METRIC_checks_waiting), 0);
}

/* Its line says who and what, though the request is long gone. */
static void a_late_denial_is_told_in_full(void **state)
{
	struct fixture *f = *state;
	struct event e;
	assert_true(ask(f, 0, 1, "/none"));
	turn(f);
	assert_false(event_ring_get(f->events, &e));
	let_go(f, 0);
	assert_true(event_ring_get(f->events, &e));
	assert_string_equal(e.rule, "none");
	assert_string_equal(e.endpoint, ":/none");
	assert_int_equal(e.reason, REASON_OVERSIZE);
	assert_int_equal(e.utc, noon.utc);
}

static void who_has_gone_is_not_answered(void **state)
{
	struct fixture *f = *state;
	assert_true(ask(f, 0, 1, "/a"));
	assert_true(ask(f, 1, 1, "/a"));
	turn(f);
	(void)close(f->peer[0]);
	f->peer[0] = -1;
	turn(f);
	assert_int_equal(f->conns.n, PEERS - 1);
	assert_int_equal(metric(f, METRIC_checks_abandoned), 1);
	while (f->store.n)
		let_go(f, 0);
	turn(f);
	take_answers(f, 1);
	assert_int_equal(sum(f->answered[1]), 1);
}

/* Decided, but not written yet. */
static void who_goes_before_the_send_harms_nobody(void **state)
{
	struct fixture *f = *state;
	assert_true(ask(f, 0, 1, "/a"));
	assert_true(ask(f, 1, 1, "/a"));
	turn(f);
	let_go(f, 0);
	let_go(f, 0);
	conns_close(&f->conns);
	assert_int_equal(metric(f, METRIC_checks_waiting), 0);
	assert_int_equal(metric(f, METRIC_checks_abandoned), 2);
	turn(f);
}

/* One connection cannot have every check there is, and loses nothing for that. */
static void one_connection_gets_its_share(void **state)
{
	struct fixture *f = *state;
	unsigned asked = 0;
	for (unsigned id = 0; id < 3000; id++) {
		while (!ask(f, 0, id, "/a"))
			turn(f);
		asked++;
		if (id % 16 == 15)
			turn(f);
		if (f->store.n == CHECKS_MAX / 4 && id > CHECKS_MAX / 4 + 100)
			break; /* it has stopped reading */
	}
	for (unsigned i = 0; i < 50; i++)
		turn(f);
	assert_int_equal(f->store.n, CHECKS_MAX / 4);
	assert_int_equal(f->store.fell_back, 0);
	/* Another one is served meanwhile. */
	assert_true(ask(f, 1, 7, "/a"));
	turn(f);
	assert_int_equal(f->store.n, CHECKS_MAX / 4 + 1);
	for (unsigned i = 0; i < 1000 && sum(f->answered[0]) < asked; i++) {
		while (f->store.n)
			let_go(f, f->store.n / 2);
		turn(f);
		take_answers(f, 0);
	}
	take_answers(f, 1);
	assert_int_equal(sum(f->answered[0]), asked);
	assert_int_equal(sum(f->answered[1]), 1);
}

/* More than CHECKS_MAX: the failure policy answers, at once. */
static void no_room_to_wait(void **state)
{
	struct fixture *f = *state;
	struct check *taken[CHECKS_MAX];
	unsigned n = 0;
	while (n < CHECKS_MAX && (taken[n] = check_get(&f->conns.checker.pool)))
		n++;
	assert_int_equal(n, CHECKS_MAX);
	assert_null(check_get(&f->conns.checker.pool));
	assert_true(ask(f, 0, 1, "/a"));
	turn(f);
	take_answers(f, 0);
	assert_int_equal(f->answered[0][1], 1);
	assert_int_equal(f->store.fell_back, 1);
	assert_int_equal(metric(f, METRIC_checks_unpooled), 1);
	while (n)
		check_put_back(&f->conns.checker.pool, taken[--n]);
}

/* A stop waits for what has been asked, and then says DISCONNECT. */
static void a_stop_waits_for_answers(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[512];
	assert_true(ask(f, 0, 1, "/a"));
	turn(f);
	struct now now = clock_read();
	assert_false(conns_stop(&f->conns, now));
	now.steady += 100 * USEC_PER_MSEC;
	assert_false(conns_stop(&f->conns, now));
	assert_int_equal(recv(f->peer[0], bytes, sizeof bytes, 0), -1);
	assert_true(recv(f->peer[1], bytes, sizeof bytes, 0) > 0);
	let_go(f, 0);
	turn(f);
	take_answers(f, 0);
	assert_int_equal(f->answered[0][1], 1);
	now = clock_read();
	now.steady += 200 * USEC_PER_MSEC;
	(void)conns_stop(&f->conns, now);
	assert_true(recv(f->peer[0], bytes, sizeof bytes, 0) > 0);
	assert_int_equal(bytes[FRAME_LENGTH_BYTES], FRAME_AGENT_DISCONNECT);
}

/* A DISCONNECT, or rubbish, does not cost the answer to what came before it. */
static void what_waits_is_answered_before_the_end(void **state)
{
	struct fixture *f = *state;
	static const uint8_t rubbish[] = { 0, 0, 0, 8, FRAME_NOTIFY, 0, 0, 0, 1, 0xff, 0xff, 0xff };
	uint8_t bytes[65536];
	assert_true(ask(f, 0, 1, "/a"));
	assert_true(ask(f, 0, 2, "/a"));
	assert_int_equal(send(f->peer[0], rubbish, sizeof rubbish, 0), sizeof rubbish);
	turn(f);
	let_go(f, 0);
	turn(f);
	ssize_t n = recv(f->peer[0], bytes, sizeof bytes, 0);
	assert_true(n > 0);
	assert_int_equal(bytes[FRAME_LENGTH_BYTES], FRAME_ACK);
	assert_int_equal(recv(f->peer[0], bytes, sizeof bytes, 0), -1); /* the other one waits */
	let_go(f, 0);
	turn(f);
	n = recv(f->peer[0], bytes, sizeof bytes, 0);
	assert_true(n > 0);
	assert_int_equal(bytes[FRAME_LENGTH_BYTES], FRAME_ACK);
	turn(f);
	const uint8_t *p = bytes, *end = bytes + n;
	struct frame frame;
	enum spop_status status;
	assert_int_equal(frame_next(&p, end, sizeof bytes, &frame, &status), FRAME_OK);
	if (p == end) {
		n = recv(f->peer[0], bytes, sizeof bytes, 0);
		assert_true(n > 0);
		p = bytes;
		end = bytes + n;
	}
	assert_int_equal(frame_next(&p, end, sizeof bytes, &frame, &status), FRAME_OK);
	assert_int_equal(frame.type, FRAME_AGENT_DISCONNECT);
	assert_ptr_equal(p, end);
	assert_int_equal(recv(f->peer[0], bytes, sizeof bytes, 0), 0);
}

/* Any order of all of it, peers that read late or go away included: one answer for each question.
 */
static void any_order(void **state)
{
	struct fixture *f = *state;
	uint32_t seed = 12345;
	uint32_t id[PEERS] = { 0 };
	for (unsigned step = 0; step < 60000; step++) {
		seed = seed * 1664525 + 1013904223;
		unsigned what = seed >> 24, peer = seed >> 20 & (PEERS - 1);
		if (f->peer[peer] < 0) {
			memset(f->asked[peer], 0, sizeof f->asked[peer]);
			memset(f->answered[peer], 0, sizeof f->answered[peer]);
			id[peer] = 0;
			connect_peer(f, peer);
		} else if (what < 130 && id[peer] < IDS_MAX) {
			if (ask(f, peer, id[peer], what & 1 ? "/a" : "/none"))
				id[peer]++;
		} else if (what < 200 && f->store.n) {
			let_go(f, (seed >> 8) % f->store.n);
		} else if (what < 230) {
			turn(f);
		} else if (what < 254) {
			take_answers(f, peer);
		} else if (seed >> 16 & 7) {
			continue;
		} else {
			(void)close(f->peer[peer]);
			f->peer[peer] = -1;
		}
	}
	for (unsigned i = 0; i < 2000; i++) {
		while (f->store.n)
			let_go(f, 0);
		turn(f);
		for (unsigned peer = 0; peer < PEERS; peer++)
			if (f->peer[peer] >= 0)
				take_answers(f, peer);
	}
	for (unsigned peer = 0; peer < PEERS; peer++)
		if (f->peer[peer] >= 0)
			assert_memory_equal(
				f->asked[peer], f->answered[peer], sizeof f->asked[peer]);
	assert_int_equal(metric(f, METRIC_checks_waiting), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_answer_comes_when_the_store_has_one),
		TEST(a_late_denial_is_told_in_full),
		TEST(who_has_gone_is_not_answered),
		TEST(who_goes_before_the_send_harms_nobody),
		TEST(one_connection_gets_its_share),
		TEST(no_room_to_wait),
		TEST(a_stop_waits_for_answers),
		TEST(what_waits_is_answered_before_the_end),
		TEST(any_order),
	};
	return cmocka_run_group_tests_name("server/waiting", tests, NULL, NULL);
}
