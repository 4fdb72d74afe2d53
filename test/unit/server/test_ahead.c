/* A batch of NOTIFYs with a store whose memory is waited for: what comes next is asked for before
 * what comes first is decided, and decided after it. */
#include "server/conn.h"

#include "hello.h"
#include "loaded.h"
#include "store/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 8192 };

/* Writes down what it is asked, as a letter and the request's cost. */
struct large_store {
	struct store base;
	bool is_small;
	char asked[256];
	size_t n;
};

struct fixture {
	struct ev_loop *loop;
	struct snapshot *snapshot;
	struct metrics metrics;
	struct large_store store;
	struct conns conns;
	int peer;
	uint8_t bytes[BYTES]; /* to be sent */
	struct wire_writer w;
};

static void note(struct store *base, char what, const struct plan *plan)
{
	struct large_store *s = (struct large_store *)base;
	char cost = plan->n ? (char)('0' + plan->take[0].cost) : '-';

	assert_true(s->n + 3 < sizeof s->asked);
	s->n += (size_t)sprintf(s->asked + s->n, "%c%c ", what, cost);
}

static enum store_rc take(struct store *base, struct plan *plan, struct now now)
{
	static const struct bucket *const none[PLAN_MAX];

	note(base, 'T', plan);
	plan_charge(plan, none, now);
	plan->now = now;
	return STORE_DONE;
}

static bool is_large(struct store *base)
{
	return !((struct large_store *)base)->is_small;
}

static void prefetch(struct store *base, struct plan *plan, enum prefetch what)
{
	note(base, what == PREFETCH_FIRST ? 'f' : 'r', plan);
}

static const struct store_ops large_ops = {
	.take = take, .is_large = is_large, .prefetch = prefetch
};

static void send_all(struct fixture *f, size_t n)
{
	assert_int_equal(send(f->peer, f->bytes, n, MSG_NOSIGNAL), (ssize_t)n);
	(void)ev_run(f->loop, EVRUN_NOWAIT);
}

static int setup(void **state)
{
	static const char text[] =
		"rules = ( { name = \"a\"; per = []; rate = \"100/minute\"; } );";
	struct fixture *f = aligned_alloc(_Alignof(struct fixture), sizeof *f);
	struct hash_key key = { .bytes = { 1 } };
	int pair[2];

	assert_true(hash_init());
	memset(f, 0, sizeof *f);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	f->store.base.ops = &large_ops;
	f->snapshot = loaded(text, &key, 1);
	assert_true(conns_init(&f->conns, f->loop, f->snapshot, &f->store.base, &f->metrics, NULL));
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	atomic_fetch_add(&f->conns.open, 1);
	conns_add(&f->conns, pair[0], "test", false, clock_read());
	f->peer = pair[1];
	f->w = (struct wire_writer){ f->bytes, f->bytes + sizeof f->bytes, false };
	f->w.p += put_hello(f->w.p, wire_room(&f->w), 16380, false);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	(void)close(f->peer);
	conns_fini(&f->conns);
	assert_true(snapshot_unref(f->snapshot));
	snapshot_free(f->snapshot);
	ev_loop_destroy(f->loop);
	free(f);
	return 0;
}

static void put_message(struct fixture *f, const char *name, uint64_t cost)
{
	wire_put_str(&f->w, str_of(name));
	wire_put_u8(&f->w, 1);
	wire_put_str(&f->w, STR("cost"));
	wire_put_u8(&f->w, 3);
	wire_put_varint(&f->w, cost);
}

/* A NOTIFY of that cost, which is its stream too. */
static void put_notify(struct fixture *f, const char *name, uint64_t cost)
{
	uint8_t *at = frame_begin(&f->w, FRAME_NOTIFY, cost, 1);
	put_message(f, name, cost);
	frame_end(&f->w, at);
}

/* The ACKs have come in this order; then, perhaps, a DISCONNECT. */
static void expect_acks(struct fixture *f, const char *streams, bool closes)
{
	static uint8_t in[BYTES];
	ssize_t got = recv(f->peer, in, sizeof in, 0);
	assert_true(got > 0);
	const uint8_t *p = in, *end = in + got;
	struct frame frame;
	enum spop_status status;
	assert_int_equal(frame_next(&p, end, BYTES, &frame, &status), FRAME_OK);
	assert_int_equal(frame.type, FRAME_AGENT_HELLO);
	for (; *streams; streams++) {
		assert_int_equal(frame_next(&p, end, BYTES, &frame, &status), FRAME_OK);
		assert_int_equal(frame.type, FRAME_ACK);
		assert_int_equal(frame.stream_id, *streams - '0');
	}
	if (closes) {
		assert_int_equal(frame_next(&p, end, BYTES, &frame, &status), FRAME_OK);
		assert_int_equal(frame.type, FRAME_AGENT_DISCONNECT);
	}
	assert_ptr_equal(p, end);
}

static size_t all(const struct fixture *f)
{
	return (size_t)(f->w.p - f->bytes);
}

static void each_asks_for_the_next_ones_memory(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 1; i <= 4; i++)
		put_notify(f, "check", i);
	send_all(f, all(f));
	assert_string_equal(f->store.asked, "f2 T1 r2 f3 T2 r3 f4 T3 r4 T4 ");
	expect_acks(f, "1234", false);
}

static void what_is_in_the_cache_is_not_asked_for(void **state)
{
	struct fixture *f = *state;
	f->store.is_small = true;
	for (unsigned i = 1; i <= 3; i++)
		put_notify(f, "check", i);
	send_all(f, all(f));
	assert_string_equal(f->store.asked, "T1 T2 T3 ");
	expect_acks(f, "123", false);
}

/* The end of a batch is the beginning of a frame: it is read when it is whole, and nothing that was
 * known of its bytes counts. */
static void a_frame_that_is_cut_is_not_read_ahead(void **state)
{
	struct fixture *f = *state;
	put_notify(f, "check", 1);
	put_notify(f, "check", 2);
	send_all(f, all(f) - 1);
	assert_string_equal(f->store.asked, "T1 ");
	f->bytes[0] = f->w.p[-1];
	send_all(f, 1);
	assert_string_equal(f->store.asked, "T1 T2 ");
	expect_acks(f, "12", false);
}

static void a_fragment_is_not_read_ahead(void **state)
{
	struct fixture *f = *state;
	put_notify(f, "check", 1);
	uint8_t *at = frame_begin(&f->w, FRAME_NOTIFY, 2, 1);
	at[8] = 0; /* FIN is not set */
	put_message(f, "check", 2);
	frame_end(&f->w, at);
	at = frame_begin(&f->w, FRAME_UNSET, 2, 1);
	frame_end(&f->w, at);
	put_notify(f, "check", 3);
	send_all(f, all(f));
	assert_string_equal(f->store.asked, "T1 T2 T3 ");
	expect_acks(f, "123", false);
}

static void what_is_no_check_charges_nothing(void **state)
{
	struct fixture *f = *state;
	put_notify(f, "check", 1);
	put_notify(f, "report", 2);
	put_notify(f, "check", 3);
	send_all(f, all(f));
	assert_string_equal(f->store.asked, "f- T1 r- T3 ");
	assert_int_equal(f->metrics.value[METRIC_messages_ignored], 1);
	expect_acks(f, "123", false);
}

/* What comes before it is answered, and what comes after it is not; nor is it expected any more, as
 * its bytes are somebody else's from now on. */
static void a_malformed_one_ends_it_in_its_turn(void **state)
{
	struct fixture *f = *state;
	put_notify(f, "check", 1);
	uint8_t *at = frame_begin(&f->w, FRAME_NOTIFY, 2, 1);
	wire_put_str(&f->w, STR("check"));
	wire_put_u8(&f->w, 3);
	frame_end(&f->w, at);
	put_notify(f, "check", 3);
	send_all(f, all(f));
	assert_string_equal(f->store.asked, "f- T1 r- ");
	assert_null(f->conns.checker.expected);
	assert_null(f->conns.checker.ahead);
	expect_acks(f, "1", true);
}

/* ---- whatever comes ---- */

/* An agent of one connection, which looks ahead or does not. Its store has a clock of its own: that
 * of the process is never the same for two. */
struct world {
	struct store base; /* first */
	bool is_large;
	struct memory_store *store;
	struct now now;
	unsigned drafts;
	struct ev_loop *loop;
	struct snapshot *snapshot;
	struct metrics metrics;
	struct conns conns;
	int peer; /* -1: none */
	uint8_t heard[1 << 16];
	size_t heard_n;
};

static enum store_rc world_take(struct store *base, struct plan *plan, struct now now)
{
	struct world *w = (struct world *)base;
	struct store *m = memory_store_base(w->store);

	(void)now;
	w->now.steady += USEC_PER_SEC / 8;
	w->now.utc = w->now.steady;
	return m->ops->take(m, plan, w->now);
}

static bool world_is_large(struct store *base)
{
	return ((struct world *)base)->is_large;
}

static void world_prefetch(struct store *base, struct plan *plan, enum prefetch what)
{
	struct world *w = (struct world *)base;
	struct store *m = memory_store_base(w->store);

	w->drafts += what == PREFETCH_REST;
	m->ops->prefetch(m, plan, what);
}

static const struct store_ops world_ops = {
	.take = world_take, .is_large = world_is_large, .prefetch = world_prefetch
};

#define EVERYTHING \
	"agent: { variables = [ \"deny\", \"reason\", \"limit\", \"remaining\", \"reset\", " \
	"\"rule\", \"tier\", \"scope\", \"policy\" ]; };\n"

/* By turns: the same names have other slots in the second, and other rules. */
static const char *const worlds[] = {
	EVERYTHING "rules = (\n"
		   "  { name = \"a\"; per = [ \"user\", \"x\" ]; rate = { gold = \"20/minute\";\n"
		   "    default = \"9/minute\"; }; },\n"
		   "  { name = \"b\"; match = { path = \"/a/*\"; }; per = [ \"ip\" ];\n"
		   "    rate = \"30/minute\"; algorithm = \"sliding-window\"; } );\n",
	EVERYTHING "block = ( { y = \"mallory\"; } );\n"
		   "rules = (\n"
		   "  { name = \"c\"; per = [ \"y\", \"endpoint\" ]; rate = \"5/minute\"; },\n"
		   "  { name = \"a\"; per = [ \"x\" ]; rate = \"9/minute\"; } );\n",
};

static struct snapshot *load_world(uint64_t generation)
{
	static const struct hash_key key = { .bytes = { 1 } };

	return loaded(worlds[generation % 2], &key, generation);
}

static struct world *world_new(bool is_large)
{
	struct world *w = aligned_alloc(_Alignof(struct world), sizeof *w);
	struct hash_key key = { .bytes = { 1 } };

	memset(w, 0, sizeof *w);
	w->base.ops = &world_ops;
	w->is_large = is_large;
	w->now.steady = w->now.utc = 1700000000 * USEC_PER_SEC;
	w->store = memory_store_new(10000, &key, w->now);
	w->loop = ev_loop_new(EVFLAG_AUTO);
	w->snapshot = load_world(1);
	w->peer = -1;
	assert_true(conns_init(&w->conns, w->loop, w->snapshot, &w->base, &w->metrics, NULL));
	return w;
}

static void world_free(struct world *w)
{
	if (w->peer >= 0)
		(void)close(w->peer);
	conns_fini(&w->conns);
	store_close(memory_store_base(w->store));
	drop(w->snapshot);
	ev_loop_destroy(w->loop);
	free(w);
}

static void world_reload(struct world *w)
{
	struct snapshot *old = w->snapshot;

	w->snapshot = load_world(old->generation + 1);
	conns_use(&w->conns, w->snapshot);
	drop(old);
}

static void world_send(struct world *w, const uint8_t *p, size_t n)
{
	if (w->peer < 0) {
		int pair[2], least = 1;
		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			0);
		/* So that answers have to wait for who reads them late. */
		(void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
		atomic_fetch_add(&w->conns.open, 1);
		conns_add(&w->conns, pair[0], "test", false, clock_read());
		w->peer = pair[1];
	}
	/* Where it has closed already nobody hears the rest. */
	if (send(w->peer, p, n, MSG_NOSIGNAL) < 0)
		assert_true(errno == EPIPE || errno == ECONNRESET);
	(void)ev_run(w->loop, EVRUN_NOWAIT);
}

/* Reads what there is; true: it was closed. */
static bool world_hear(struct world *w)
{
	for (;;) {
		assert_true(w->heard_n + 4096 <= sizeof w->heard);
		ssize_t n = recv(w->peer, w->heard + w->heard_n, 4096, 0);
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n <= 0) {
			(void)close(w->peer);
			w->peer = -1;
			(void)ev_run(w->loop, EVRUN_NOWAIT);
			return true;
		}
		w->heard_n += (size_t)n;
		(void)ev_run(w->loop, EVRUN_NOWAIT);
	}
}

static uint64_t seed = 11;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % below;
}

static void put_random_message(struct wire_writer *w)
{
	static const char *const titles[] = { "check", "check", "check", "check-x", "report" };
	static const char *const names[] = { "user", "x", "path", "ip", "y", "tier", "method",
		"cost", "nobody-knows-this" };
	static const char *const texts[] = { "alice", "bob", "mallory", "/a/b", "/a/../%61//b",
		"10.0.0.1", "gold", "GET", "3", "" };
	enum { NAMES = sizeof names / sizeof *names, TEXTS = sizeof texts / sizeof *texts };
	unsigned args = rnd(NAMES + 1);

	wire_put_str(w, str_of(titles[rnd(sizeof titles / sizeof *titles)]));
	wire_put_u8(w, (uint8_t)args);
	for (unsigned i = 0; i < args; i++) {
		wire_put_str(w, str_of(names[rnd(6) ? i : rnd(NAMES)]));
		switch (rnd(8)) {
		case 0:
			wire_put_u8(w, 0);
			break;
		case 1:
			wire_put_u8(w, 6);
			wire_put_u32(w, 0x0a000000 + rnd(3));
			break;
		case 2:
			wire_put_u8(w, 3);
			wire_put_varint(w, rnd(300));
			break;
		default:
			wire_put_u8(w, 8);
			wire_put_str(w, str_of(texts[rnd(TEXTS)]));
		}
	}
}

/* In as many frames as it likes, which others may come between; the last may be missing. */
static void put_fragments(struct wire_writer *w, uint64_t stream)
{
	uint8_t bytes[1024];
	struct wire_writer whole = { bytes, bytes + sizeof bytes, false };
	enum frame_type type = FRAME_NOTIFY;

	put_random_message(&whole);
	assert_false(whole.bad);
	size_t n = (size_t)(whole.p - bytes);
	for (size_t at = 0, part;; at += part) {
		part = rnd((uint32_t)(n - at) + 1);
		bool last = rnd(3) == 0;
		if (last)
			part = n - at;
		uint8_t *length_word = frame_begin(w, type, stream, 1);
		length_word[8] = last;
		if (rnd(20) == 0)
			length_word[8] |= FRAME_FLAG_ABORT;
		wire_put_bytes(w, bytes + at, part);
		frame_end(w, length_word);
		type = FRAME_UNSET;
		if (last || rnd(40) == 0)
			return;
	}
}

/* Mostly NOTIFYs; some other frame, and a broken one. */
static void put_random_frame(struct wire_writer *w, uint64_t stream)
{
	unsigned what = rnd(200);

	if (what < 20) {
		put_fragments(w, stream);
		return;
	}
	enum frame_type type = what == 20   ? FRAME_HAPROXY_DISCONNECT
			       : what == 21 ? FRAME_UNSET
			       : what == 22 ? (enum frame_type)rnd(256)
					    : FRAME_NOTIFY;
	uint8_t *at = frame_begin(w, type, stream, 1);
	if (type != FRAME_HAPROXY_DISCONNECT)
		for (unsigned n = rnd(8) ? 1 : rnd(4); n; n--)
			put_random_message(w);
	frame_end(w, at);
	if (what == 23)
		at[rnd((uint32_t)(w->p - at))] ^= (uint8_t)(1u << rnd(8));
}

static void compare_worlds(struct world *w, struct world *v)
{
	bool closed = world_hear(w);

	assert_int_equal(world_hear(v), closed);
	assert_int_equal(w->heard_n, v->heard_n);
	assert_memory_equal(w->heard, v->heard, v->heard_n);
	w->heard_n = v->heard_n = 0;
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		assert_int_equal(w->metrics.value[id], v->metrics.value[id]);
	assert_int_equal(w->now.steady, v->now.steady);
	assert_null(w->conns.checker.expected);
	assert_null(w->conns.checker.ahead);
}

/* Whoever looks ahead says what he would have said, byte by byte, and charges and counts it: of
 * frames in any order and of any kind, cut anywhere, with reloads between them and a peer that
 * reads late. */
static void what_is_read_ahead_never_shows(void **state)
{
	static uint8_t bytes[1 << 15];
	struct world *w = world_new(true), *v = world_new(false);

	(void)state;
	for (unsigned turn = 0; turn < 3000; turn++) {
		struct wire_writer out = { bytes, bytes + sizeof bytes, false };
		if (w->peer < 0)
			out.p += put_hello(out.p, wire_room(&out), 16380, false);
		for (unsigned n = rnd(40); n; n--)
			put_random_frame(&out, 1 + rnd(5));
		assert_false(out.bad);
		size_t all = (size_t)(out.p - bytes);
		for (size_t at = 0, n; at < all; at += n) {
			n = rnd(4) ? all - at : 1 + rnd((uint32_t)(all - at));
			world_send(w, bytes + at, n);
			world_send(v, bytes + at, n);
			if (rnd(4) == 0)
				compare_worlds(w, v);
			if (w->peer < 0)
				break;
			if (rnd(8) == 0) {
				world_reload(w);
				world_reload(v);
			}
		}
		if (w->peer >= 0)
			compare_worlds(w, v);
	}
	assert_true(w->drafts > 10000 && v->drafts == 0);
	assert_true(w->metrics.value[METRIC_checks_denied] > 1000);
	assert_true(w->metrics.value[METRIC_checks_allowed] > 1000);
	assert_true(w->metrics.value[METRIC_connections_closed] > 100);
	world_free(w);
	world_free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			each_asks_for_the_next_ones_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_is_in_the_cache_is_not_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_frame_that_is_cut_is_not_read_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(a_fragment_is_not_read_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_check_charges_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_malformed_one_ends_it_in_its_turn, setup, teardown),
		cmocka_unit_test(what_is_read_ahead_never_shows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
