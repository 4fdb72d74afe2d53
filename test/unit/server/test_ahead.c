/* A batch of NOTIFYs with a store whose memory is waited for: what comes next is asked for before
 * what comes first is decided, and decided after it. */
#include "server/conn.h"

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

static void put_hello(struct wire_writer *w)
{
	uint8_t *at = frame_begin(w, FRAME_HAPROXY_HELLO, 0, 0);
	wire_put_str(w, STR("supported-versions"));
	wire_put_u8(w, 8);
	wire_put_str(w, STR("2.0"));
	wire_put_str(w, STR("max-frame-size"));
	wire_put_u8(w, 3);
	wire_put_varint(w, 16380);
	wire_put_str(w, STR("capabilities"));
	wire_put_u8(w, 8);
	wire_put_str(w, STR("pipelining"));
	frame_end(w, at);
}

static int setup(void **state)
{
	static const char text[] =
		"rules = ( { name = \"a\"; per = []; rate = \"100/minute\"; } );";
	struct fixture *f = aligned_alloc(_Alignof(struct fixture), sizeof *f);
	struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	int pair[2];

	assert_true(hash_init());
	memset(f, 0, sizeof *f);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	f->store.base.ops = &large_ops;
	f->snapshot = config_load_text("t.cfg", text, sizeof text - 1, &key, 1, &problems);
	assert_non_null(f->snapshot);
	problems_free(&problems);
	assert_true(conns_init(&f->conns, f->loop, f->snapshot, &f->store.base, &f->metrics, NULL));
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	atomic_fetch_add(&f->conns.open, 1);
	conns_add(&f->conns, pair[0], "test", clock_read());
	f->peer = pair[1];
	f->w = (struct wire_writer){ f->bytes, f->bytes + sizeof f->bytes, false };
	put_hello(&f->w);
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
