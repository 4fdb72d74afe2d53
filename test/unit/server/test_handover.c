/* Connections that go from one loop to another, in every state they may have; two loops and one
 * thread, and a store that answers at once or when the test lets it. */
#include "server/handover.h"

#include "hello.h"
#include "late_store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define SEC USEC_PER_SEC

/* In the place of libc's: as where the user watches as many descriptors as he may. */
static bool watches_no_more;

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (watches_no_more && op == EPOLL_CTL_ADD) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

enum { PEERS = 4, BYTES = 65536 };

struct side {
	struct ev_loop *loop;
	struct metrics metrics;
	struct late_store store;
	struct conns conns;
	ev_check woken;
	uint32_t *lets_go; /* as the loop wakes up, before it looks at sockets; NULL: nothing */
};

struct fixture {
	struct snapshot *snapshot;
	struct side a, b;
	int peer[PEERS];
	uint8_t bytes[BYTES];
};

static void let_all_go(struct side *s)
{
	while (s->store.n)
		late_let_go(&s->store, s->store.n - 1, clock_read());
}

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
	*seed = *seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)*seed * n >> 32);
}

static void let_some_go(struct side *s, uint32_t *seed)
{
	for (unsigned n = random_below(seed, s->store.n + 1); n; n--)
		late_let_go(&s->store, random_below(seed, s->store.n), clock_read());
}

static void on_woken(struct ev_loop *loop, ev_check *check, int revents)
{
	(void)loop;
	(void)revents;
	struct side *s = check->data;
	if (s->lets_go)
		let_some_go(s, s->lets_go);
}

static void turn(struct side *s)
{
	(void)ev_run(s->loop, EVRUN_NOWAIT);
}

/* What its bell would do. */
static void fetch(struct side *s)
{
	conns_fetch(&s->conns, clock_read());
}

static void give_all(struct fixture *f)
{
	conns_give(&f->a.conns, &f->b.conns, 1000);
	fetch(&f->b);
}

static void tell(struct fixture *f, unsigned i, const void *bytes, size_t n)
{
	assert_int_equal(send(f->peer[i], bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static size_t put_notify(uint8_t *out, size_t size, uint64_t id, size_t filling)
{
	static const char text[BYTES];
	struct wire_writer w = { out, out + size, false };
	uint8_t *at = frame_begin(&w, FRAME_NOTIFY, id, 1);
	wire_put_str(&w, STR("check"));
	wire_put_u8(&w, 2);
	wire_put_str(&w, STR("user"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, STR("alice"));
	wire_put_str(&w, STR("filling"));
	wire_put_u8(&w, 8);
	wire_put_str(&w, (struct str){ text, filling });
	frame_end(&w, at);
	assert_false(w.bad);
	return (size_t)(w.p - out);
}

static void ask(struct fixture *f, unsigned i, uint64_t id)
{
	uint8_t bytes[256];
	tell(f, i, bytes, put_notify(bytes, sizeof bytes, id, 0));
}

static void expect(struct fixture *f, unsigned i, enum frame_type type, uint64_t id)
{
	ssize_t n = recv(f->peer[i], f->bytes, sizeof f->bytes, 0);
	const uint8_t *p = f->bytes;
	struct frame frame;
	enum spop_status status;
	assert_true(n > 0);
	assert_int_equal(frame_next(&p, p + n, sizeof f->bytes, &frame, &status), FRAME_OK);
	assert_int_equal(frame.type, type);
	assert_int_equal(frame.stream_id, id);
	assert_ptr_equal(p, f->bytes + n);
}

static void expect_nothing(struct fixture *f, unsigned i)
{
	assert_int_equal(recv(f->peer[i], f->bytes, sizeof f->bytes, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static void connect_peer(struct fixture *f, struct side *s, unsigned i)
{
	int pair[2], small = 4096;
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	/* So that answers soon wait for their peer. */
	assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
	if (f->peer[i] >= 0)
		(void)close(f->peer[i]);
	atomic_fetch_add(&s->conns.open, 1);
	conns_add(&s->conns, pair[0], "test", false, clock_read());
	f->peer[i] = pair[1];
}

static void say_hello(struct fixture *f, struct side *s, unsigned i)
{
	uint8_t bytes[512];
	tell(f, i, bytes, put_hello(bytes, sizeof bytes, 16380, false));
	turn(s);
	expect(f, i, FRAME_AGENT_HELLO, 0);
}

static void side_init(struct fixture *f, struct side *s)
{
	s->loop = ev_loop_new(EVFLAG_AUTO);
	int epoll = loop_epoll(s->loop);
	assert_true(epoll >= 0);
	s->store.base.ops = &late_ops;
	assert_true(conns_init(&s->conns, s->loop, f->snapshot, &s->store.base, &s->metrics, NULL));
	s->conns.epoll = epoll;
	ev_check_init(&s->woken, on_woken);
	ev_set_priority(&s->woken, EV_MAXPRI);
	s->woken.data = s;
	ev_check_start(s->loop, &s->woken);
}

static void side_fini(struct side *s)
{
	conns_close(&s->conns);
	let_all_go(s);
	assert_int_equal(s->metrics.value[METRIC_checks_waiting], 0);
	conns_fini(&s->conns);
	assert_int_equal(s->conns.n, 0);
	assert_int_equal(s->conns.open, 0);
	assert_int_equal(s->metrics.value[METRIC_connections_open], 0);
	ev_loop_destroy(s->loop);
}

static int setup(void **state)
{
	static const char text[] = "log: { level = \"error\"; };\n"
				   "rules = ( { name = \"api\"; per = [ \"user\" ]; "
				   "rate = \"1000000/minute\"; } );";
	size_t size = (sizeof(struct fixture) + 63) / 64 * 64;
	struct fixture *f = aligned_alloc(64, size);
	struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	assert_non_null(f);
	assert_true(hash_init());
	memset(f, 0, size);
	f->snapshot = config_load_text("t.cfg", text, sizeof text - 1, &key, 1, &problems);
	assert_non_null(f->snapshot);
	problems_free(&problems);
	side_init(f, &f->a);
	side_init(f, &f->b);
	for (unsigned i = 0; i < PEERS; i++) {
		f->peer[i] = -1;
		connect_peer(f, &f->a, i);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	side_fini(&f->a);
	side_fini(&f->b);
	for (unsigned i = 0; i < PEERS; i++)
		(void)close(f->peer[i]);
	assert_true(snapshot_unref(f->snapshot));
	snapshot_free(f->snapshot);
	free(f);
	return 0;
}

static void expect_at(struct fixture *f, unsigned at_a, unsigned at_b)
{
	assert_int_equal(f->a.conns.n, at_a);
	assert_int_equal(f->b.conns.n, at_b);
	assert_int_equal(f->a.conns.open, at_a);
	assert_int_equal(f->b.conns.open, at_b);
	assert_int_equal(f->a.metrics.value[METRIC_connections_open], at_a);
	assert_int_equal(f->b.metrics.value[METRIC_connections_open], at_b);
}

static void they_are_served_where_they_are(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	give_all(f);
	expect_at(f, 0, PEERS);
	ask(f, 0, 1);
	turn(&f->a);
	assert_int_equal(f->a.store.n, 0);
	turn(&f->b);
	let_all_go(&f->b);
	turn(&f->b);
	expect(f, 0, FRAME_ACK, 1);
	/* And the others have not lost their time to say HELLO, nor got a new one. */
	struct now now = clock_read();
	now.steady += CONN_HELLO_TIMEOUT + SEC;
	conns_expire(&f->b.conns, now);
	expect(f, 1, FRAME_AGENT_DISCONNECT, 0);
	expect_nothing(f, 0);
	/* There and back: the descriptor comes to a loop that had it. */
	connect_peer(f, &f->b, 2);
	say_hello(f, &f->b, 2);
	conns_give(&f->b.conns, &f->a.conns, 1000);
	fetch(&f->a);
	give_all(f);
	conns_give(&f->b.conns, &f->a.conns, 1000);
	fetch(&f->a);
	ask(f, 2, 5);
	turn(&f->b);
	turn(&f->a);
	let_all_go(&f->a);
	turn(&f->a);
	expect(f, 2, FRAME_ACK, 5);
}

/* A frame, cut at every byte, its halves read by different loops. */
static void half_a_frame_goes_with_it(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[256];
	struct side *here = &f->a, *there = &f->b;
	say_hello(f, here, 0);
	size_t n = put_notify(bytes, sizeof bytes, 1, 10);
	for (size_t cut = 0; cut <= n; cut++) {
		tell(f, 0, bytes, cut);
		turn(here);
		conns_give(&here->conns, &there->conns, 1000);
		let_all_go(here);
		turn(here);
		fetch(there);
		tell(f, 0, bytes + cut, n - cut);
		turn(there);
		let_all_go(there);
		turn(there);
		expect(f, 0, FRAME_ACK, 1);
		struct side *was = here;
		here = there;
		there = was;
	}
}

/* Who begins a frame has five seconds for it, however often it moves. */
static void a_slow_frame_gains_no_time(void **state)
{
	struct fixture *f = *state;
	static const uint8_t byte[1];
	say_hello(f, &f->a, 0);
	struct now now = clock_read();
	tell(f, 0, byte, 1);
	turn(&f->a);
	for (unsigned i = 0; i < 4; i++) {
		conns_give(&f->a.conns, &f->b.conns, 1000);
		conns_fetch(&f->b.conns, now);
		conns_give(&f->b.conns, &f->a.conns, 1000);
		now.steady += SEC;
		conns_fetch(&f->a.conns, now);
	}
	now.steady += 2 * SEC;
	conns_expire(&f->a.conns, now);
	expect(f, 0, FRAME_AGENT_DISCONNECT, 0);
}

static void what_the_store_has_comes_first(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	for (uint64_t id = 1; id <= 3; id++)
		ask(f, 0, id);
	turn(&f->a);
	assert_int_equal(f->a.store.n, 3);
	give_all(f);
	expect_at(f, 1, PEERS - 1);
	/* It is not asked any more, here. */
	ask(f, 0, 4);
	turn(&f->a);
	assert_int_equal(f->a.store.n, 3);
	conns_give(&f->a.conns, &f->b.conns, 1000); /* once is enough */
	let_all_go(&f->a);
	turn(&f->a);
	fetch(&f->b);
	expect_at(f, 0, PEERS);
	turn(&f->b);
	assert_int_equal(f->b.store.n, 1);
	let_all_go(&f->b);
	turn(&f->b);
	ssize_t n = recv(f->peer[0], f->bytes, sizeof f->bytes, 0);
	const uint8_t *p = f->bytes;
	struct frame frame;
	enum spop_status status;
	unsigned seen = 0;
	assert_true(n > 0);
	while (p < f->bytes + n) {
		assert_int_equal(
			frame_next(&p, f->bytes + n, sizeof f->bytes, &frame, &status), FRAME_OK);
		assert_int_equal(frame.type, FRAME_ACK);
		assert_false(seen >> frame.stream_id & 1);
		seen |= 1U << frame.stream_id;
	}
	assert_int_equal(seen, 1U << 1 | 1U << 2 | 1U << 3 | 1U << 4);
}

static void who_goes_meanwhile_is_missed_by_nobody(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	ask(f, 0, 1);
	turn(&f->a);
	conns_give(
		&f->a.conns, &f->b.conns, 1000); /* the first waits here, the rest is on its way */
	for (unsigned i = 0; i < PEERS; i++)
		(void)shutdown(f->peer[i], SHUT_RDWR);
	let_all_go(&f->a);
	turn(&f->a);
	turn(&f->a);
	fetch(&f->b);
	turn(&f->b);
	turn(&f->b);
	expect_at(f, 0, 0);
}

/* The peer takes nothing: what it was told waits, and goes from the other loop. */
static void unsent_answers_go_with_it(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = f->bytes;
	uint64_t asked = 0, answered = 0;
	static uint8_t unread[BYTES], seen[BYTES];
	size_t unread_n = 0;
	say_hello(f, &f->a, 0);
	for (unsigned quiet = 0; quiet < 20 && asked < BYTES;) {
		size_t n = put_notify(bytes, 256, asked, 0);
		if (send(f->peer[0], bytes, n, MSG_NOSIGNAL) == (ssize_t)n) {
			asked++;
			quiet = 0;
		} else {
			quiet++;
		}
		turn(&f->a);
		let_all_go(&f->a);
		turn(&f->a);
	}
	give_all(f);
	expect_at(f, 0, PEERS);
	for (unsigned quiet = 0; answered < asked && quiet < 1000; quiet++) {
		ssize_t n = recv(f->peer[0], unread + unread_n, sizeof unread - unread_n, 0);
		unread_n += n > 0 ? (size_t)n : 0;
		const uint8_t *p = unread;
		struct frame frame;
		enum spop_status status;
		while (frame_next(&p, unread + unread_n, sizeof unread, &frame, &status) ==
			FRAME_OK) {
			assert_true(frame.stream_id < asked);
			assert_int_equal(seen[frame.stream_id]++, 0);
			answered++;
			quiet = 0;
		}
		unread_n -= (size_t)(p - unread);
		memmove(unread, p, unread_n);
		turn(&f->b);
		let_all_go(&f->b);
		turn(&f->b);
	}
	assert_int_equal(answered, asked);
}

/* What a peer was asked and told, over all the loops that it came to. */
struct ledger {
	uint64_t asked, answered;
	size_t unread_n;
	uint8_t unread[BYTES], seen[BYTES];
};

static void take_answers(struct fixture *f, unsigned i, struct ledger *l, size_t most)
{
	size_t room = sizeof l->unread - l->unread_n;
	ssize_t n = recv(f->peer[i], l->unread + l->unread_n, most < room ? most : room, 0);
	const uint8_t *p = l->unread;
	struct frame frame;
	enum spop_status status;
	l->unread_n += n > 0 ? (size_t)n : 0;
	while (frame_next(&p, l->unread + l->unread_n, sizeof l->unread, &frame, &status) ==
		FRAME_OK) {
		assert_int_equal(frame.type, FRAME_ACK);
		assert_true(frame.stream_id < l->asked);
		assert_int_equal(l->seen[frame.stream_id]++, 0);
		l->answered++;
	}
	l->unread_n -= (size_t)(p - l->unread);
	memmove(l->unread, p, l->unread_n);
}

static void ask_some(struct fixture *f, unsigned i, struct ledger *l, unsigned most)
{
	uint8_t bytes[256];
	for (unsigned n = 0; n < most && l->asked < BYTES; n++) {
		size_t length = put_notify(bytes, sizeof bytes, l->asked, 0);
		if (send(f->peer[i], bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
			return;
		l->asked++;
	}
}

static void move_some(struct fixture *f, uint32_t *seed)
{
	struct side *from = random_below(seed, 2) ? &f->a : &f->b;
	struct side *to = from == &f->a ? &f->b : &f->a;
	conns_give(&from->conns, &to->conns, random_below(seed, 2) ? 1000 : 500);
	if (random_below(seed, 2))
		fetch(to);
}

/* Anything in any order; the store's answers come as a loop wakes up, beside what sockets have to
 * say in the same turn, or between two. */
static void whatever_comes_when(struct fixture *f, uint32_t seed)
{
	static struct ledger ledger[PEERS];
	memset(ledger, 0, sizeof ledger);
	f->a.lets_go = f->b.lets_go = NULL;
	for (unsigned i = 0; i < PEERS; i++) {
		connect_peer(f, &f->a, i);
		say_hello(f, &f->a, i);
	}
	f->a.lets_go = f->b.lets_go = &seed;
	for (unsigned step = 0; step < 600; step++) {
		unsigned i = random_below(&seed, PEERS);
		struct side *s = random_below(&seed, 2) ? &f->a : &f->b;
		switch (random_below(&seed, 8)) {
		case 0:
		case 1:
			ask_some(f, i, &ledger[i], 1 + random_below(&seed, 400));
			break;
		case 2:
			take_answers(f, i, &ledger[i], 1 + random_below(&seed, BYTES));
			break;
		case 3:
			move_some(f, &seed);
			break;
		case 4:
			let_some_go(s, &seed);
			break;
		default:
			turn(s);
		}
	}
	f->a.lets_go = f->b.lets_go = NULL;
	for (unsigned n = 0; n < 100; n++) {
		struct side *s = n % 2 ? &f->a : &f->b;
		fetch(s);
		let_all_go(s);
		turn(s);
		for (unsigned i = 0; i < PEERS; i++)
			take_answers(f, i, &ledger[i], BYTES);
	}
	for (unsigned i = 0; i < PEERS; i++)
		if (ledger[i].answered != ledger[i].asked)
			fail_msg("peer %u: %u of %u answered", i, (unsigned)ledger[i].answered,
				(unsigned)ledger[i].asked);
}

static void in_any_order(void **state)
{
	for (uint32_t seed = 1; seed <= 60; seed++) {
		whatever_comes_when(*state, seed);
		/* They go from where they are. */
		for (unsigned i = 0; i < PEERS; i++) {
			struct fixture *f = *state;
			(void)close(f->peer[i]);
			f->peer[i] = -1;
			turn(&f->a);
			turn(&f->b);
		}
		expect_at(*state, 0, 0);
	}
}

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	*(bool *)bell->data = true;
}

/* A loop that sleeps hears of whom it is given. */
static void who_is_given_one_is_woken(void **state)
{
	struct fixture *f = *state;
	bool rang = false;
	ev_async bell;
	ev_async_init(&bell, on_bell);
	bell.data = &rang;
	ev_async_start(f->b.loop, &bell);
	f->b.conns.bell = &bell;
	say_hello(f, &f->a, 0);
	turn(&f->b);
	assert_false(rang);
	conns_give(&f->a.conns, &f->b.conns, 1000);
	turn(&f->b);
	assert_true(rang);
	f->b.conns.bell = NULL;
	ev_async_stop(f->b.loop, &bell);
}

static void a_shut_door(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	say_hello(f, &f->a, 1);
	ask(f, 1, 1);
	turn(&f->a);
	conns_give(&f->a.conns, &f->b.conns, 1000);
	/* What came before it is served; the one that still waited for its answer stays. */
	conns_shut(&f->b.conns, true);
	let_all_go(&f->a);
	turn(&f->a);
	expect(f, 1, FRAME_ACK, 1);
	expect_at(f, 1, PEERS - 1);
	conns_give(&f->a.conns, &f->b.conns, 1000);
	expect_at(f, 1, PEERS - 1);
	fetch(&f->b);
	ask(f, 0, 1);
	ask(f, 1, 2);
	turn(&f->a);
	turn(&f->b);
	let_all_go(&f->a);
	let_all_go(&f->b);
	turn(&f->a);
	turn(&f->b);
	expect(f, 0, FRAME_ACK, 1);
	expect(f, 1, FRAME_ACK, 2);
}

static void who_stops_gives_nothing(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	ask(f, 0, 1);
	turn(&f->a);
	conns_give(&f->a.conns, &f->b.conns, 1000);
	struct now now = clock_read();
	assert_false(conns_stop(&f->a.conns, now));
	let_all_go(&f->a);
	turn(&f->a);
	expect(f, 0, FRAME_ACK, 1);
	assert_int_equal(f->a.conns.n, 1);
	/* What went before is still on its way, and ends with those to whom it goes. */
	assert_int_equal(f->b.conns.open, PEERS - 1);
}

static void what_drains_there_drains_here(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	conns_drain(&f->b.conns);
	give_all(f);
	uint8_t bytes[512];
	/* A health check is told to go; a connection that had its HELLO is served on. */
	tell(f, 1, bytes, put_hello(bytes, sizeof bytes, 16380, true));
	ask(f, 0, 1);
	turn(&f->b);
	let_all_go(&f->b);
	turn(&f->b);
	expect(f, 0, FRAME_ACK, 1);
	expect(f, 1, FRAME_AGENT_DISCONNECT, 0);
}

/* A reload has reached one loop and not the other. */
static void longer_frames_than_there_were(void **state)
{
	struct fixture *f = *state;
	static uint8_t bytes[300000];
	static const char text[] = "agent: { max_frame_size = 200000; };";
	struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	struct snapshot *fresh = config_load_text(
		"t.cfg", text, sizeof text - 1, &key, 2, &problems);
	assert_non_null(fresh);
	problems_free(&problems);
	conns_use(&f->a.conns, fresh);
	connect_peer(f, &f->a, 0);
	tell(f, 0, bytes, put_hello(bytes, sizeof bytes, 200000, false));
	turn(&f->a);
	expect(f, 0, FRAME_AGENT_HELLO, 0);
	give_all(f);
	assert_int_equal(f->b.conns.settings.accept_max, 200000);
	size_t n = put_notify(bytes, sizeof bytes, 1, BYTES - 1), sent = 0;
	assert_true(n > 65536);
	while (sent < n) {
		ssize_t more = send(f->peer[0], bytes + sent, n - sent, MSG_NOSIGNAL);
		sent += more > 0 ? (size_t)more : 0;
		turn(&f->b);
	}
	for (unsigned i = 0; i < 50; i++)
		turn(&f->b);
	let_all_go(&f->b);
	turn(&f->b);
	expect(f, 0, FRAME_ACK, 1);
	conns_use(&f->a.conns, f->snapshot);
	assert_true(snapshot_unref(fresh));
	snapshot_free(fresh);
}

static void as_much_as_is_wanted(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *what;
		unsigned asks[PEERS];
		unsigned share, moved;
	} row[] = {
		{ "nobody asks: nobody is worth it", { 0, 0, 0, 0 }, 500, 0 },
		{ "half of four", { 5, 5, 5, 5 }, 500, 2 },
		{ "a quarter of four", { 5, 5, 5, 5 }, 250, 1 },
		{ "who floods stays, the rest goes", { 1, 30, 1, 1 }, 500, 3 },
		{ "the only one that asks stays", { 0, 9, 0, 0 }, 500, 0 },
		{ "all", { 0, 9, 0, 5 }, 1000, 4 },
	};
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		for (unsigned p = 0; p < PEERS; p++) {
			connect_peer(f, &f->a, p);
			say_hello(f, &f->a, p);
		}
		for (unsigned n = 0; n < 20; n++) /* HELLO is forgotten after some seconds */
			conns_expire(&f->a.conns, clock_read());
		for (unsigned p = 0; p < PEERS; p++) {
			for (unsigned n = 0; n < row[i].asks[p]; n++)
				ask(f, p, n);
			turn(&f->a);
			let_all_go(&f->a);
			turn(&f->a);
		}
		conns_give(&f->a.conns, &f->b.conns, row[i].share);
		fetch(&f->b);
		unsigned moved = f->b.conns.n;
		if (moved != row[i].moved)
			fail_msg("%s: %u moved", row[i].what, moved);
		conns_give(&f->b.conns, &f->a.conns, 1000);
		fetch(&f->a);
	}
}

/* Its loop hears nothing of it: it ends, and so its peer connects again, instead of waiting for
 * answers for good. */
static void who_cannot_be_watched_there_ends(void **state)
{
	struct fixture *f = *state;
	say_hello(f, &f->a, 0);
	give_all(f);
	expect_at(f, 0, PEERS);
	watches_no_more = true;
	turn(&f->b);
	watches_no_more = false;
	expect_at(f, 0, 0);
	for (unsigned i = 0; i < PEERS; i++)
		assert_int_equal(recv(f->peer[i], f->bytes, sizeof f->bytes, 0), 0);
	connect_peer(f, &f->b, 0);
	say_hello(f, &f->b, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(they_are_served_where_they_are),
		TEST(half_a_frame_goes_with_it),
		TEST(a_slow_frame_gains_no_time),
		TEST(what_the_store_has_comes_first),
		TEST(who_goes_meanwhile_is_missed_by_nobody),
		TEST(unsent_answers_go_with_it),
		TEST(in_any_order),
		TEST(who_is_given_one_is_woken),
		TEST(a_shut_door),
		TEST(who_stops_gives_nothing),
		TEST(what_drains_there_drains_here),
		TEST(longer_frames_than_there_were),
		TEST(as_much_as_is_wanted),
		TEST(who_cannot_be_watched_there_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
