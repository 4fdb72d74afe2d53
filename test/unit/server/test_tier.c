/* Checks of clients whose tier the store knows: a store that is told by the test whom it knows, at
 * once or later. From NOTIFY bytes to the ACK and what was taken. */
#include "server/check.h"

#include "spop/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { NOTIFY_MAX = 256 * 1024, SEND_MAX = 16380, ASKS_MAX = 64 };

static const struct hash_key test_key = { .bytes = "0123456789abcde" };
static const struct now noon = { .steady = 5000000, .utc = 43200000000 };
static const struct now later = { .steady = 5002000, .utc = 43200002000 };

static const char config[] =
	"log: { level = \"error\"; };\n"
	"agent: { variables = [ \"deny\", \"reason\", \"limit\", \"rule\", \"tier\" ]; };\n"
	"block = ( { user = \"mallory\"; } );\n"
	"rules = ( { name = \"api\"; per = [ \"user\" ]; rate = { anonymous = \"1/day\"; "
	"gold = \"4/day\"; default = \"9/day\"; }; },\n"
	"{ name = \"end\"; match = { path = \"*/end\"; tier = \"gold\"; }; per = []; "
	"rate = \"2/day\"; },\n"
	"{ name = \"none\"; match = { path = \"/none\"; }; per = [ \"tier\" ]; "
	"rate = \"0/day\"; } );";

/* ---- the store ---- */

struct knowing_store {
	struct store base;
	bool later;        /* find_tier() waits, if it may */
	const char *knows; /* NULL: none */
	struct tier_ask *ask[ASKS_MAX];
	unsigned n, asked;
	/* the last that asked */
	char name[2][64];
	bool secret[2], may_wait;
	unsigned names;
	/* the last that took */
	unsigned taken, fell_back;
	usec_t begun;
};

static void verdicts(struct plan *plan, struct now now)
{
	static const struct bucket *const none[PLAN_MAX];
	plan_charge(plan, none, now);
	plan->now = now;
}

static enum store_rc take(struct store *base, struct plan *plan, struct now now)
{
	struct knowing_store *s = (struct knowing_store *)base;
	s->taken++;
	s->begun = plan->begun;
	verdicts(plan, now);
	return STORE_DONE;
}

static void fall_back(struct store *base, struct plan *plan, struct now now)
{
	((struct knowing_store *)base)->fell_back++;
	verdicts(plan, now);
}

static void tell(struct tier_ask *ask, const char *tier)
{
	ask->tier.length = (uint8_t)(tier ? strlen(tier) : 0);
	if (tier)
		memcpy(ask->tier.text, tier, ask->tier.length);
}

static enum store_rc find_tier(struct store *base, struct tier_ask *ask, struct now now)
{
	struct knowing_store *s = (struct knowing_store *)base;
	s->asked++;
	s->names = ask->n;
	s->may_wait = ask->done != NULL;
	for (unsigned i = 0; i < ask->n; i++) {
		snprintf(
			s->name[i], sizeof s->name[i], "%.*s", (int)ask->name[i].n, ask->name[i].p);
		s->secret[i] = ask->secret[i];
	}
	if (s->later && ask->done) {
		ask->begun = now.steady;
		s->ask[s->n++] = ask;
		return STORE_PENDING;
	}
	tell(ask, s->knows);
	return STORE_DONE;
}

static const struct store_ops ops = {
	.take = take, .fall_back = fall_back, .find_tier = find_tier
};

/* ---- the rig ---- */

struct rig {
	struct snapshot *snapshot;
	struct knowing_store store;
	struct metrics metrics;
	struct event_ring *events;
	struct checker checker;
	struct check *decided, *pending;
	uint8_t payload[NOTIFY_MAX], ack[SEND_MAX * 2];
	char said[256]; /* of the ACK: "deny=0 reason=ok …" */
};

static struct rig *the_rig;

static void on_decided(struct check *check)
{
	the_rig->decided = check;
}

static int setup(void **state)
{
	struct rig *g = aligned_alloc(_Alignof(struct rig), (sizeof *g + _Alignof(struct rig) - 1) /
								    _Alignof(struct rig) *
								    _Alignof(struct rig));
	struct problems problems = { 0 };
	assert_true(hash_init());
	memset(g, 0, sizeof *g);
	g->snapshot = config_load_text("t.cfg", config, sizeof config - 1, &test_key, 1, &problems);
	if (!g->snapshot)
		fail_msg("%s", problems.message[0]);
	problems_free(&problems);
	g->store.base.ops = &ops;
	g->events = event_ring_new(16);
	assert_true(checker_init(&g->checker, NOTIFY_MAX, &g->store.base, &g->metrics, g->events));
	g->checker.decided = on_decided;
	*state = the_rig = g;
	return 0;
}

static int teardown(void **state)
{
	struct rig *g = *state;
	assert_int_equal(g->store.n, 0);
	assert_int_equal(g->metrics.value[METRIC_checks_waiting], 0);
	assert_int_equal(g->snapshot->refs, 1);
	assert_int_equal(g->checker.pool.long_bytes, 0);
	checker_fini(&g->checker);
	assert_int_equal(g->checker.pool.n, 0);
	event_ring_free(g->events);
	assert_true(snapshot_unref(g->snapshot));
	snapshot_free(g->snapshot);
	free(g);
	return 0;
}

static void read_ack(struct rig *g, size_t n)
{
	const uint8_t *p = g->ack;
	struct frame frame;
	enum spop_status status;
	size_t at = 0;
	assert_int_equal(frame_next(&p, g->ack + n, SEND_MAX, &frame, &status), FRAME_OK);
	struct wire_reader r = { frame.payload, frame.payload + frame.payload_n, false };
	g->said[0] = '\0';
	while (wire_left(&r)) {
		struct value v;
		(void)wire_get_u8(&r);
		(void)wire_get_u8(&r);
		(void)wire_get_u8(&r);
		struct str name = wire_get_str(&r);
		v = value_get(&r);
		if (v.type == VALUE_STRING)
			at += (size_t)snprintf(g->said + at, sizeof g->said - at, "%.*s=%.*s ",
				(int)name.n, name.p, (int)v.bytes.n, v.bytes.p);
		else
			at += (size_t)snprintf(g->said + at, sizeof g->said - at, "%.*s=%d ",
				(int)name.n, name.p, (int)v.number);
	}
	assert_false(r.bad);
}

struct field {
	const char *name, *value;
};

static size_t put_notify(struct rig *g, const struct field *fields, unsigned n)
{
	struct wire_writer w = { g->payload, g->payload + sizeof g->payload, false };
	wire_put_str(&w, STR("check"));
	wire_put_u8(&w, (uint8_t)n);
	for (unsigned i = 0; i < n; i++) {
		wire_put_str(&w, str_of(fields[i].name));
		wire_put_u8(&w, VALUE_STRING);
		wire_put_str(&w, str_of(fields[i].value));
	}
	assert_false(w.bad);
	return (size_t)(w.p - g->payload);
}

static enum check_rc check_bytes(struct rig *g, size_t n, bool truncated)
{
	const struct notify notify = { .stream_id = 7,
		.frame_id = 1,
		.payload = g->payload,
		.payload_n = n,
		.truncated = truncated };
	struct wire_writer out = { g->ack, g->ack + sizeof g->ack, false };
	enum check_rc rc = check_answer(
		&g->checker, g->snapshot, &notify, SEND_MAX, noon, &out, &g->pending);
	if (rc == CHECK_ANSWERED)
		read_ack(g, (size_t)(out.p - g->ack));
	else if (rc == CHECK_PENDING)
		g->pending->owner = g;
	memset(g->payload, 0xee, n); /* it is gone */
	return rc;
}

static enum check_rc check_fields(struct rig *g, const struct field *fields, unsigned n)
{
	return check_bytes(g, put_notify(g, fields, n), false);
}
#define CHECK(g, ...) \
	check_fields(g, (const struct field[]){ __VA_ARGS__ }, \
		sizeof((const struct field[]){ __VA_ARGS__ }) / sizeof(struct field))

/* The i-th that waits hears of its tier. */
static void let_know(struct rig *g, unsigned i, const char *tier)
{
	struct tier_ask *ask = g->store.ask[i];
	g->store.ask[i] = g->store.ask[--g->store.n];
	tell(ask, tier);
	ask->now = later;
	g->decided = NULL;
	ask->done(ask);
}

static void write_decided(struct rig *g)
{
	struct wire_writer out = { g->ack, g->ack + sizeof g->ack, false };
	assert_non_null(g->decided);
	assert_true(check_write(g->decided, &out));
	read_ack(g, (size_t)(out.p - g->ack));
}

/* ---- whom it is asked for ---- */

static void whom(void **state)
{
	struct rig *g = *state;
	static const struct {
		const char *what;
		struct field field[3];
		unsigned n, names;
		const char *name[2];
		bool secret[2];
	} rows[] = {
		{ "nobody", { { "ip", "192.0.2.1" } }, 1, 0, { 0 }, { 0 } },
		{ "a user", { { "user", "alice" } }, 1, 1, { "alice" }, { false } },
		{ "a key, which is secret", { { "key", "k" } }, 1, 1, { "k" }, { true } },
		{ "key before user", { { "user", "alice" }, { "key", "k" } }, 2, 2,
			{ "k", "alice" }, { true, false } },
		{ "who brings a tier is not asked for", { { "user", "alice" }, { "tier", "x" } }, 2,
			0, { 0 }, { 0 } },
		{ "an empty one is none", { { "user", "alice" }, { "tier", "" } }, 2, 1,
			{ "alice" }, { false } },
		{ "nor is an empty user one", { { "user", "" } }, 1, 0, { 0 }, { 0 } },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		g->store.asked = g->store.names = 0;
		assert_int_equal(check_fields(g, rows[i].field, rows[i].n), CHECK_ANSWERED);
		if (g->store.asked != (rows[i].names != 0) || g->store.names != rows[i].names)
			fail_msg("%s: asked %u times for %u", rows[i].what, g->store.asked,
				g->store.names);
		for (unsigned k = 0; k < rows[i].names; k++) {
			assert_string_equal(g->store.name[k], rows[i].name[k]);
			assert_int_equal(g->store.secret[k], rows[i].secret[k]);
		}
	}
}

/* ---- what comes of it, at once or later ---- */

static void what_comes_of_it(void **state)
{
	struct rig *g = *state;
	static const struct {
		const char *what;
		struct field field[3];
		unsigned n;
		const char *knows, *said;
		unsigned takes;
	} rows[] = {
		{ "its limits hold", { { "user", "alice" } }, 1, "gold",
			"deny=0 reason=ok limit=4 rule=api tier=gold ", 1 },
		{ "none: the default", { { "user", "alice" } }, 1, NULL,
			"deny=0 reason=ok limit=1 rule=api tier=anonymous ", 1 },
		{ "rules match it", { { "user", "alice" }, { "path", "/a/end" } }, 2, "gold",
			"deny=0 reason=ok limit=2 rule=end tier=gold ", 1 },
		{ "one that no rule knows is the default's", { { "user", "alice" } }, 1,
			"odd\r\nX: y", "deny=0 reason=ok limit=9 rule=api tier=odd__X: y ", 1 },
		{ "who is blocked takes nothing", { { "user", "mallory" } }, 1, "gold",
			"deny=1 reason=blocked tier=gold ", 0 },
	};
	for (size_t i = 0; i < 2 * (sizeof rows / sizeof *rows); i++) {
		size_t row = i / 2;
		g->store.later = i & 1;
		g->store.knows = rows[row].knows;
		g->store.taken = 0;
		enum check_rc rc = check_fields(g, rows[row].field, rows[row].n);
		assert_int_equal(rc, g->store.later ? CHECK_PENDING : CHECK_ANSWERED);
		if (g->store.later) {
			assert_int_equal(g->store.taken, 0);
			assert_int_equal(g->metrics.value[METRIC_checks_waiting], 1);
			let_know(g, 0, rows[row].knows);
			write_decided(g);
		}
		if (strcmp(g->said, rows[row].said) != 0 || g->store.taken != rows[row].takes)
			fail_msg(
				"%s, %s: %s", rows[row].what, i & 1 ? "later" : "at once", g->said);
		/* What it waited for is waited for no longer than anything else. */
		if (rows[row].takes)
			assert_int_equal(g->store.begun, g->store.later ? noon.steady : 0);
	}
}

static void any_order(void **state)
{
	struct rig *g = *state;
	g->store.later = true;
	struct check *check[20];
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(CHECK(g, { "user", "alice" }), CHECK_PENDING);
		check[i] = g->pending;
	}
	for (unsigned i = 0; i < 20; i++) {
		struct tier_ask *ask = &check[(i * 7) % 20]->ask;
		unsigned at = 0;
		while (g->store.ask[at] != ask)
			at++;
		let_know(g, at, i & 1 ? "gold" : NULL);
		assert_ptr_equal(g->decided, check[(i * 7) % 20]);
		write_decided(g);
		assert_non_null(strstr(g->said, i & 1 ? "tier=gold" : "tier=anonymous"));
	}
}

/* Its owner has gone: nothing is taken for nobody. */
static void who_has_gone_takes_nothing(void **state)
{
	struct rig *g = *state;
	g->store.later = true;
	assert_int_equal(CHECK(g, { "user", "alice" }), CHECK_PENDING);
	check_abandon(g->pending);
	let_know(g, 0, "gold");
	assert_null(g->decided);
	assert_int_equal(g->store.taken, 0);
	assert_int_equal(g->metrics.value[METRIC_checks_abandoned], 1);
}

/* ---- what is kept of the NOTIFY ---- */

static void a_long_one_is_read_again_as_a_whole(void **state)
{
	struct rig *g = *state;
	static const size_t lengths[] = { 1, CHECK_PAYLOAD_MAX - 100, CHECK_PAYLOAD_MAX,
		CHECK_PAYLOAD_MAX + 1, 16000, 200000 };
	static char path[200100];
	for (size_t i = 0; i < 2 * (sizeof lengths / sizeof *lengths); i++) {
		size_t n = lengths[i / 2];
		memset(path, 'x', n);
		path[0] = '/';
		strcpy(path + n, "/end");
		g->store.later = i & 1;
		g->store.knows = "gold";
		enum check_rc rc = CHECK(g, { "user", "alice" }, { "path", path });
		assert_int_equal(rc, g->store.later ? CHECK_PENDING : CHECK_ANSWERED);
		if (g->store.later) {
			let_know(g, 0, "gold");
			write_decided(g);
		}
		assert_string_equal(g->said, "deny=0 reason=ok limit=2 rule=end tier=gold ");
	}
}

static void one_that_was_cut_stays_so(void **state)
{
	struct rig *g = *state;
	g->store.later = true;
	size_t n = put_notify(
		g, (const struct field[]){ { "user", "alice" }, { "path", "/and/so/on" } }, 2);
	assert_int_equal(check_bytes(g, n - 4, true), CHECK_PENDING);
	let_know(g, 0, "gold");
	write_decided(g);
	assert_string_equal(g->said, "deny=0 reason=ok limit=4 rule=api tier=gold ");
}

/* So many that no more is kept: what is known at once has to do. */
static void too_many_long_ones(void **state)
{
	struct rig *g = *state;
	static char path[200100];
	memset(path, 'x', 200000);
	path[0] = '/';
	g->store.later = true;
	unsigned waiting = 0;
	while (CHECK(g, { "user", "alice" }, { "path", path }) == CHECK_PENDING)
		assert_true(++waiting < ASKS_MAX);
	assert_int_equal(waiting, LONG_PAYLOADS_MAX / 200000);
	assert_false(g->store.may_wait);
	assert_int_equal(g->metrics.value[METRIC_checks_unkept], 1);
	assert_string_equal(g->said, "deny=0 reason=ok limit=1 rule=api tier=anonymous ");
	/* Short ones are not concerned, and room comes back. */
	assert_int_equal(CHECK(g, { "user", "alice" }), CHECK_PENDING);
	while (g->store.n) {
		let_know(g, 0, "gold");
		write_decided(g);
	}
	assert_int_equal(g->checker.pool.long_bytes, 0);
	assert_int_equal(CHECK(g, { "user", "alice" }, { "path", path }), CHECK_PENDING);
	let_know(g, 0, NULL);
	write_decided(g);
}

static void no_room_to_wait(void **state)
{
	struct rig *g = *state;
	struct check *taken[CHECKS_MAX];
	for (unsigned i = 0; i < CHECKS_MAX; i++)
		assert_non_null(taken[i] = check_get(&g->checker.pool));
	g->store.later = true;
	g->store.knows = "gold";
	assert_int_equal(CHECK(g, { "user", "alice" }), CHECK_ANSWERED);
	assert_false(g->store.may_wait);
	assert_int_equal(g->store.fell_back, 1);
	assert_non_null(strstr(g->said, "limit=4 rule=api tier=gold"));
	for (unsigned i = 0; i < CHECKS_MAX; i++)
		check_put_back(&g->checker.pool, taken[i]);
}

/* Read twice, counted once. */
static void messages_are_counted_once(void **state)
{
	struct rig *g = *state;
	g->store.later = true;
	size_t n = put_notify(
		g, (const struct field[]){ { "user", "alice" }, { "path", "/none" } }, 2);
	struct wire_writer w = { g->payload + n, g->payload + sizeof g->payload, false };
	wire_put_str(&w, STR("report"));
	wire_put_u8(&w, 0);
	assert_int_equal(check_bytes(g, (size_t)(w.p - g->payload), false), CHECK_PENDING);
	let_know(g, 0, "gold");
	write_decided(g);
	assert_int_equal(g->metrics.value[METRIC_messages_ignored], 1);
	assert_int_equal(g->metrics.value[METRIC_notifies], 1);
	assert_int_equal(g->metrics.value[METRIC_checks_denied], 1);
}

/* The log's line names the tier that was found, also where the rule counts by it. */
static void the_log_says_it(void **state)
{
	struct rig *g = *state;
	struct event e;
	g->store.later = true;
	assert_int_equal(CHECK(g, { "user", "alice" }, { "path", "/none" }), CHECK_PENDING);
	let_know(g, 0, "gold");
	write_decided(g);
	assert_true(event_ring_get(g->events, &e));
	assert_string_equal(e.tier, "gold");
	assert_string_equal(e.client, "tier=gold");
	assert_string_equal(e.rule, "none");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(whom),
		TEST(what_comes_of_it),
		TEST(any_order),
		TEST(who_has_gone_takes_nothing),
		TEST(a_long_one_is_read_again_as_a_whole),
		TEST(one_that_was_cut_stays_so),
		TEST(too_many_long_ones),
		TEST(no_room_to_wait),
		TEST(messages_are_counted_once),
		TEST(the_log_says_it),
	};
	return cmocka_run_group_tests_name("server/tier", tests, NULL, NULL);
}
