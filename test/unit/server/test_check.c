/* From a NOTIFY to its ACK: what the checker has learnt of the requests before must never show in
 * an answer, and no byte beyond a frame is read or written. */
#include "server/check.h"

#include "../base/guard.h"
#include "loaded.h"
#include "limit/answer.h"
#include "server/answer.h"
#include "spop/value.h"
#include "store/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { NOTIFY_MAX = 65536, SEND_MAX = 16380, OUT_MAX = 32768, KEYS_MAX = 100000 };

static const struct hash_key test_key = { .bytes = "0123456789abcde" };
static const struct now noon = { 1700000000 * USEC_PER_SEC, 1700000000 * USEC_PER_SEC, 0, 0 };

#define ALL_VARIABLES \
	"agent: { variables = [ \"deny\", \"reason\", \"retry_after\", \"limit\", \"remaining\", " \
	"\"reset\", \"rule\", \"tier\", \"scope\", \"warn\", \"shadow\", \"tag\", \"reset_at\", " \
	"\"algorithm\", \"policy\", \"ratelimit\" ]; };\n"

/* One agent without its sockets. */
struct rig {
	struct snapshot *snapshot;
	struct memory_store *store;
	struct metrics metrics;
	struct event_ring *events;
	struct checker checker, begun; /* begun: as it was at first */
};

static struct rig *rig_new(const char *text)
{
	struct rig *g = aligned_alloc(_Alignof(struct rig), sizeof *g);

	memset(g, 0, sizeof *g);
	g->snapshot = loaded(text, &test_key, 1);
	g->store = memory_store_new(KEYS_MAX, &test_key, noon);
	g->events = event_ring_new(1024);
	assert_true(checker_init(
		&g->checker, NOTIFY_MAX, memory_store_base(g->store), &g->metrics, g->events));
	g->begun = g->checker;
	return g;
}

static void rig_free(struct rig *g)
{
	checker_fini(&g->checker);
	event_ring_free(g->events);
	store_close(memory_store_base(g->store));
	drop(g->snapshot);
	free(g);
}

/* A checker that knows nothing of what came before: as it began, but for what it has counted. (A
 * new one each time takes 20 seconds, of which the kernel's pages are most.) */
static void forget(struct rig *g)
{
	g->checker = g->begun;
	memset(g->checker.scratch, 0xa5, 2 * g->checker.scratch_n);
}

static int setup(void **state)
{
	(void)state;
	return hash_init() ? 0 : -1;
}

/* ---- writing NOTIFYs ---- */

static void put_message(struct wire_writer *w, const char *name, unsigned args)
{
	wire_put_str(w, str_of(name));
	wire_put_u8(w, (uint8_t)args);
}

static void put_text(struct wire_writer *w, const char *name, const char *value)
{
	wire_put_str(w, str_of(name));
	wire_put_u8(w, VALUE_STRING);
	wire_put_str(w, str_of(value));
}

static void put_ipv4(struct wire_writer *w, const char *name, uint32_t address)
{
	wire_put_str(w, str_of(name));
	wire_put_u8(w, VALUE_IPV4);
	wire_put_u32(w, address);
}

static struct notify notify_of(const uint8_t *p, size_t n)
{
	return (struct notify){ .stream_id = 7, .frame_id = 1, .payload = p, .payload_n = n };
}

/* ---- reading ACKs ---- */

struct var {
	struct str name;
	struct value value;
};

struct ack {
	uint8_t bytes[OUT_MAX];
	size_t n;
	struct var var[ANSWER_COUNT + 1];
	unsigned vars;
};

/* Everything that is said of an ACK, whatever it answers. */
static void load_ack(struct ack *a, size_t send_max)
{
	const uint8_t *p = a->bytes;
	struct frame frame;
	enum spop_status status;

	assert_int_equal(frame_next(&p, a->bytes + a->n, send_max, &frame, &status), FRAME_OK);
	assert_ptr_equal(p, a->bytes + a->n);
	assert_int_equal(frame.type, FRAME_ACK);
	assert_int_equal(frame.flags, FRAME_FLAG_FIN);
	assert_true(frame.payload_n > 0);
	struct wire_reader r = { frame.payload, frame.payload + frame.payload_n, false };
	for (a->vars = 0; wire_left(&r); a->vars++) {
		assert_true(a->vars <= ANSWER_COUNT);
		assert_int_equal(wire_get_u8(&r), ACTION_SET_VAR);
		assert_int_equal(wire_get_u8(&r), ACTION_SET_VAR_ARGS);
		assert_int_equal(wire_get_u8(&r), SCOPE_TXN);
		struct var *v = &a->var[a->vars];
		v->name = wire_get_str(&r);
		v->value = value_get(&r);
		assert_false(r.bad);
		for (size_t i = 0; i < v->value.bytes.n; i++)
			assert_null(memchr("\r\n", v->value.bytes.p[i], 3)); /* and NUL */
	}
}

static const struct value *find(const struct ack *a, const char *name)
{
	for (unsigned i = 0; i < a->vars; i++)
		if (str_eq(a->var[i].name, str_of(name)))
			return &a->var[i].value;
	return NULL;
}

/* The answer, into room that ends where nobody may write. */
static enum check_rc ask(
	struct rig *g, const struct notify *n, uint32_t send_max, struct now now, struct ack *a)
{
	static struct guard guard;
	size_t room = check_room(send_max);

	if (!guard.map)
		guard = guard_new(OUT_MAX);
	assert_true(room <= OUT_MAX);
	struct wire_writer w = { guard.end - room, guard.end, false };
	enum check_rc rc = check_answer(&g->checker, g->snapshot, n, send_max, now, &w, NULL);
	assert_false(w.bad);
	a->n = (size_t)(w.p - (guard.end - room));
	assert_true(a->n <= FRAME_LENGTH_BYTES + (size_t)send_max);
	memcpy(a->bytes, guard.end - room, a->n);
	if (rc == CHECK_ANSWERED)
		load_ack(a, send_max);
	else
		assert_int_equal(a->n, 0);
	return rc;
}

/* ---- random NOTIFYs ---- */

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % below;
}

static void put_random_bytes(struct wire_writer *w, size_t n)
{
	static const char some[] = "/aB.%2f:1\r\n\0\x80?-";

	wire_put_varint(w, n);
	for (size_t i = 0; i < n; i++)
		wire_put_u8(w, (uint8_t)some[rnd(sizeof some)]);
}

static const char *const values[] = { "", "a", "alice", "10.0.0.1", "::1", "::ffff:10.0.0.1",
	"free", "premium", "GET", "/api/x", "/%61pi/../api//y", "EXAMPLE.com:80", "-3", "7", "true",
	"18446744073709551616" };

static void put_random_value(struct wire_writer *w)
{
	static const size_t lengths[] = { 0, 1, 15, 16, 17, 48, 49, 239, 240, 241, 300, 2288 };
	unsigned type = rnd(4) ? VALUE_STRING : rnd(VALUE_BINARY + 1);

	if (rnd(4) == 0)
		type = VALUE_IPV4;
	wire_put_u8(w, (uint8_t)(type | (rnd(6) ? 0 : rnd(16) << 4)));
	switch (type) {
	case VALUE_NULL:
	case VALUE_BOOL:
		return;
	case VALUE_INT32:
	case VALUE_UINT32:
	case VALUE_INT64:
	case VALUE_UINT64:
		wire_put_varint(w, rnd(3) ? rnd(5) : UINT64_MAX - rnd(3));
		return;
	case VALUE_IPV4:
		wire_put_u32(w, 0x0a000001 + rnd(3));
		return;
	case VALUE_IPV6:
		for (unsigned i = 0; i < 16; i++)
			wire_put_u8(w, (uint8_t)(i < 8 ? 0x20 : rnd(2)));
		return;
	default:
		if (rnd(5))
			wire_put_str(w, str_of(values[rnd(sizeof values / sizeof *values)]));
		else
			put_random_bytes(w, lengths[rnd(sizeof lengths / sizeof *lengths)]);
	}
}

/* Names of every length around what a shape can hold, such that differ in one byte, and such that
 * no rule knows. */
static const char *const names[] = { "ip", "user", "key", "tier", "method", "path", "host", "cost",
	"endpoint", "message", "extra", "extrb", "x", "", "unit", "unknown", "abcdefghijklm",
	"abcdefghijklmn", "abcdefghijklmo", "abcdefghijklmno", "abcdefghijklmnop" };
enum { NAMES = sizeof names / sizeof *names };

static void put_random_message(struct wire_writer *w)
{
	static const char *const titles[] = { "check", "check", "check", "check-login", "report",
		"checks", "chec", "" };
	unsigned args = rnd(8) ? rnd(9) : rnd(40), at = rnd(NAMES);

	put_message(w, titles[rnd(sizeof titles / sizeof *titles)], args);
	for (unsigned i = 0; i < args; i++) {
		/* Mostly in the same places as before, so that there is something to remember. */
		wire_put_str(w, str_of(names[rnd(5) ? (i + (at & 1)) % NAMES : rnd(NAMES)]));
		put_random_value(w);
	}
}

static size_t put_random_notify(uint8_t *out, size_t size)
{
	struct wire_writer w = { out, out + size, false };
	unsigned messages = rnd(6) ? 1 : rnd(4);

	for (unsigned i = 0; i < messages; i++)
		put_random_message(&w);
	assert_false(w.bad);
	return (size_t)(w.p - out);
}

static const char random_config[] = ALL_VARIABLES
	"block = ( { user = \"mallory\"; } );\n"
	"allow = ( { extra = \"7\"; } );\n"
	"rules = (\n"
	"  { name = \"one\"; per = [ \"key|user|ip\" ]; warn_at = 0.5;\n"
	"    rate = { free = \"20/minute\"; premium = [ \"50/minute burst 100\", \"900/hour\" ];\n"
	"             default = \"30/minute\"; }; },\n"
	"  { name = \"two\"; match = { path = \"/api/*\"; }; per = [ \"ip\" ];\n"
	"    algorithm = \"sliding-window\"; rate = \"40/minute\"; count_denied = true; },\n"
	"  { name = \"three\"; per = [ \"extra\", \"endpoint\" ]; rate = \"3/minute\";\n"
	"    algorithm = \"fixed-window\"; mode = \"shadow\"; },\n"
	"  { name = \"four\"; per = [ \"abcdefghijklm\", \"abcdefghijklmn\", \"abcdefghijklmno\" ];\n"
	"    rate = \"3/minute\"; action = \"tag\"; tag = \"seen\"; cost = \"unit\"; },\n"
	"  { name = \"five\"; per = [ \"host\", \"abcdefghijklmnop|method\" ]; rate = \"9/minute\"; }\n"
	");\n";

/* One of random_config's world, of whole, broken and cut NOTIFYs. */
static struct notify random_notify(uint8_t *bytes, size_t size)
{
	size_t n = put_random_notify(bytes, size);

	if (rnd(10) == 0)
		n = rnd((uint32_t)n + 1);
	else if (n && rnd(10) == 0)
		bytes[rnd((uint32_t)n)] ^= (uint8_t)(1u << rnd(8));
	return notify_of(bytes, n);
}

/* A checker that has seen all requests before, and one that has seen none. */
static void test_what_is_remembered_never_shows(void **state)
{
	static uint8_t bytes[NOTIFY_MAX];
	static struct ack known, fresh, small;
	struct rig *g = rig_new(random_config), *h = rig_new(random_config);
	struct rig *s = rig_new(random_config);
	struct guard guard = guard_new(NOTIFY_MAX);
	struct now now = noon;
	unsigned answered = 0, malformed = 0, shorter = 0;

	(void)state;
	seed = 42;
	for (unsigned i = 0; i < 30000; i++) {
		uint32_t small_max = FRAME_SIZE_MIN + rnd(300);
		struct notify whole = random_notify(bytes, sizeof bytes);
		whole.truncated = rnd(10) == 0;
		struct notify edge = whole;
		edge.payload = guard_copy(&guard, bytes, whole.payload_n);

		enum check_rc rc = ask(g, &edge, SEND_MAX, now, &known);
		forget(h);
		assert_int_equal(ask(h, &whole, SEND_MAX, now, &fresh), rc);
		if (known.n != fresh.n || memcmp(known.bytes, fresh.bytes, known.n) != 0)
			fail_msg("request %u is answered otherwise by who remembers", i);
		assert_int_equal(ask(s, &edge, small_max, now, &small), rc);
		answered += rc == CHECK_ANSWERED;
		malformed += rc == CHECK_MALFORMED;
		if (rc == CHECK_ANSWERED) {
			/* What does not fit is left out from the end: a beginning is left. */
			assert_true(small.n <= known.n);
			assert_memory_equal(small.bytes + FRAME_LENGTH_BYTES,
				known.bytes + FRAME_LENGTH_BYTES, small.n - FRAME_LENGTH_BYTES);
			assert_true(small.vars > 0);
			shorter += small.n < known.n;
		}
		now.steady += rnd(200000);
		now.utc = now.steady;
	}
	assert_true(answered > 10000 && malformed > 500 && shorter > 100);
	assert_true(g->metrics.value[METRIC_checks_denied] > 100);
	assert_int_equal(
		g->metrics.value[METRIC_checks_denied], h->metrics.value[METRIC_checks_denied]);
	assert_true(s->metrics.value[METRIC_actions_dropped] > 0);
	guard_free(&guard);
	rig_free(g);
	rig_free(h);
	rig_free(s);
}

/* Every line of the log, in order. */
static void compare_events(struct rig *g, struct rig *h)
{
	struct event a, b;

	memset(&a, 0, sizeof a);
	memset(&b, 0, sizeof b);
	while (event_ring_get(g->events, &a)) {
		assert_true(event_ring_get(h->events, &b));
		assert_string_equal(a.client, b.client);
		assert_string_equal(a.endpoint, b.endpoint);
		assert_string_equal(a.ip, b.ip);
		assert_string_equal(a.tier, b.tier);
		assert_string_equal(a.rule, b.rule);
	}
	assert_false(event_ring_get(h->events, &b));
}

/* A checker that is told what comes next, mostly the truth, and one that is told nothing. */
static void test_what_is_expected_never_shows(void **state)
{
	static uint8_t bytes[3][NOTIFY_MAX];
	static struct ack told, untold;
	struct rig *g = rig_new(random_config), *h = rig_new(random_config);
	struct now now = noon;
	unsigned ahead = 0, answered = 0;

	(void)state;
	seed = 7;
	struct notify n[3] = { random_notify(bytes[0], NOTIFY_MAX) };
	for (unsigned i = 0; i < 20000; i++) {
		struct notify *this = &n[i % 3], *next = &n[(i + 1) % 3], *other = &n[(i + 2) % 3];
		*next = random_notify(bytes[(i + 1) % 3], NOTIFY_MAX);
		if (rnd(8) == 0)
			*next = notify_of(
				memcpy(bytes[(i + 1) % 3], this->payload, this->payload_n),
				this->payload_n);
		switch (rnd(12)) {
		case 0: /* what came before, or something shorter */
			check_expect(&g->checker, other->payload, other->payload_n);
			break;
		case 1:
			check_expect(
				&g->checker, next->payload, rnd((uint32_t)next->payload_n + 1));
			break;
		case 2:
			check_expect_nothing(&g->checker);
			break;
		default:
			check_expect(&g->checker, next->payload, next->payload_n);
		}
		enum check_rc rc = ask(g, this, SEND_MAX, now, &told);
		assert_int_equal(ask(h, this, SEND_MAX, now, &untold), rc);
		if (told.n != untold.n || memcmp(told.bytes, untold.bytes, told.n) != 0)
			fail_msg("request %u is answered otherwise by who was told of it", i);
		ahead += g->checker.ahead == next->payload;
		answered += rc == CHECK_ANSWERED;
		compare_events(g, h);
		now.steady += rnd(50000);
		now.utc = now.steady;
	}
	assert_true(ahead > 4000 && answered > 8000);
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		assert_int_equal(g->metrics.value[id], h->metrics.value[id]);
	assert_true(g->metrics.value[METRIC_checks_denied] > 100);
	rig_free(g);
	rig_free(h);
}

/* It is banned by the denial before it, though it was read before that. */
static void test_a_ban_meets_who_was_expected(void **state)
{
	static const char config[] =
		"rules = ( { name = \"a\"; per = [ \"user\" ]; rate = \"1/minute\";"
		" penalty = { after = \"1/1m\"; ban = \"10m\"; }; } );";
	static struct ack ack;
	uint8_t bytes[3][64];
	struct notify n[3];
	struct rig *g = rig_new(config);
	struct bans *bans = bans_new();

	(void)state;
	g->checker.penalties.bans = bans;
	for (unsigned i = 0; i < 3; i++) {
		struct wire_writer w = { bytes[i], bytes[i] + sizeof bytes[i], false };
		put_message(&w, "check", 1);
		put_text(&w, "user", "mallory");
		n[i] = notify_of(bytes[i], (size_t)(w.p - bytes[i]));
	}
	static const char *const reasons[] = { "ok", "limited", "banned" };
	for (unsigned i = 0; i < 3; i++) {
		if (i < 2)
			check_expect(&g->checker, n[i + 1].payload, n[i + 1].payload_n);
		assert_int_equal(ask(g, &n[i], SEND_MAX, noon, &ack), CHECK_ANSWERED);
		assert_true(str_eq(find(&ack, "reason")->bytes, str_of(reasons[i])));
	}
	rig_free(g);
	bans_free(bans);
}

/* The same request, cut everywhere: never an answer that counts, never a byte beyond. */
static void test_every_cut(void **state)
{
	uint8_t bytes[512];
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	static struct ack ack;
	struct rig *g = rig_new(random_config);
	struct guard guard = guard_new(sizeof bytes);

	(void)state;
	put_message(&w, "check", 6);
	put_ipv4(&w, "ip", 0x0a000001);
	put_text(&w, "abcdefghijklmn", "x"); /* its name and type fill a shape */
	put_text(&w, "path", "/api/x");
	put_ipv4(&w, "extra", 1);
	put_ipv4(&w, "abcdefghijklmo", 1);
	put_text(&w, "abcdefghijklmno", "x"); /* its name alone does */
	size_t n = (size_t)(w.p - bytes);
	for (unsigned round = 0; round < 2; round++) {
		struct notify whole = notify_of(guard_copy(&guard, bytes, n), n);
		assert_int_equal(ask(g, &whole, SEND_MAX, noon, &ack), CHECK_ANSWERED);
		assert_int_equal(find(&ack, "remaining")->number, 29 - round);
		for (size_t cut = 1; cut < n; cut++) {
			struct notify part = notify_of(guard_copy(&guard, bytes, cut), cut);
			assert_int_equal(ask(g, &part, SEND_MAX, noon, &ack), CHECK_MALFORMED);
		}
	}
	guard_free(&guard);
	rig_free(g);
}

static void test_a_reload_forgets_the_slots(void **state)
{
	static const char before[] = "rules = ( { name = \"a\"; per = [ \"left\", \"right\" ];"
				     " rate = \"5/minute\"; } );";
	static const char after[] = "rules = ( { name = \"b\"; per = [ \"right\" ];"
				    " rate = \"5/minute\"; },"
				    " { name = \"c\"; per = [ \"left\" ];"
				    " rate = \"3/minute\"; } );";
	uint8_t bytes[128];
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	static struct ack ack;
	struct rig *g = rig_new(before);

	(void)state;
	put_message(&w, "check", 1);
	put_text(&w, "left", "a value that is long enough");
	struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
	assert_int_equal(ask(g, &n, SEND_MAX, noon, &ack), CHECK_ANSWERED);
	assert_null(find(&ack, "rule"));
	drop(g->snapshot);
	g->snapshot = loaded(after, &test_key, 2);
	assert_int_equal(ask(g, &n, SEND_MAX, noon, &ack), CHECK_ANSWERED);
	assert_true(str_eq(find(&ack, "rule")->bytes, STR("c")));
	rig_free(g);
}

/* ---- the longest ---- */

enum { LONG_LIMITS = PLAN_MAX - 2 };

static void fill(char *out, char c, size_t n)
{
	memset(out, c, n);
	out[n] = '\0';
}

/* `n` times a quotation mark, as libconfig writes it, and `last` to tell names apart. */
static char *put_quotes(char *p, unsigned n, char last)
{
	for (unsigned i = 0; i + 1 < n; i++)
		p += sprintf(p, "\\\"");
	*p++ = last;
	*p = '\0';
	return p;
}

static void test_the_longest_answer_has_room(void **state)
{
	static char config[65536], per[PER_MAX][FIELD_NAME_MAX + 1], tier[TIER_NAME_MAX + 1],
		tag[256];
	static uint8_t bytes[4096];
	static struct ack ack, less;
	char *p = config;

	(void)state;
	for (unsigned i = 0; i < PER_MAX; i++)
		fill(per[i], (char)('a' + i), FIELD_NAME_MAX);
	fill(tier, 't', TIER_NAME_MAX);
	fill(tag, '#', 255);
	p += sprintf(p, "%s rules = ( { name = \"", ALL_VARIABLES);
	p = put_quotes(p, RULE_NAME_MAX, '1');
	p += sprintf(p, "\"; per = []; rate = [");
	for (unsigned i = 0; i < LONG_LIMITS; i++)
		p += sprintf(p, "%s \"1/%ud burst 1000000000\"", i ? "," : "", 366 - i);
	p += sprintf(p, " ]; }, { name = \"");
	p = put_quotes(p, RULE_NAME_MAX, '2');
	p += sprintf(p, "\"; per = []; rate = \"0/minute\"; mode = \"shadow\"; }, { name = \"");
	p = put_quotes(p, RULE_NAME_MAX, '3');
	p += sprintf(p,
		"\"; rate = \"0/minute\"; action = \"tag\"; algorithm = \"sliding-window\"; tag = "
		"\"%s\"; per = [",
		tag);
	for (unsigned i = 0; i < PER_MAX; i++)
		p += sprintf(p, "%s \"%s\"", i ? "," : "", per[i]);
	(void)sprintf(p, " ]; } );");

	struct rig *g = rig_new(config);
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	put_message(&w, "check", PER_MAX + 1);
	put_text(&w, "tier", tier);
	for (unsigned i = 0; i < PER_MAX; i++)
		put_text(&w, per[i], "v");
	assert_false(w.bad);
	struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
	n.stream_id = n.frame_id = UINT64_MAX;
	assert_int_equal(ask(g, &n, 65535, noon, &ack), CHECK_ANSWERED);
	assert_int_equal(ack.vars, ANSWER_COUNT);
	assert_true(ack.n < ANSWER_BYTES_MAX);
	assert_int_equal(find(&ack, "tag")->bytes.n, 255);
	assert_int_equal(find(&ack, "shadow")->bytes.n, RULE_NAME_MAX);
	assert_int_equal(find(&ack, "rule")->bytes.n, RULE_NAME_MAX);
	assert_int_equal(find(&ack, "tier")->bytes.n, TIER_NAME_MAX);
	assert_int_equal(find(&ack, "scope")->bytes.n, PER_MAX * (FIELD_NAME_MAX + 1) - 1);

	struct str policy = find(&ack, "policy")->bytes;
	unsigned limits = 0;
	for (size_t i = 0; i + 3 <= policy.n; i++) {
		size_t digits = 0;
		if (memcmp(policy.p + i, ";q=", 3) == 0)
			limits++;
		if (memcmp(policy.p + i, ";w=", 3) != 0)
			continue;
		while (i + 3 + digits < policy.n && policy.p[i + 3 + digits] >= '0' &&
			policy.p[i + 3 + digits] <= '9')
			digits++;
		/* RFC 9651 section 3.3.1: an Integer that is longer spoils the whole field. */
		assert_true(digits >= 1 && digits <= 15);
	}
	assert_int_equal(limits, LONG_LIMITS);

	for (uint32_t max = FRAME_SIZE_MIN; max < ack.n + 64; max += 13) {
		assert_int_equal(ask(g, &n, max, noon, &less), CHECK_ANSWERED);
		assert_true(less.vars > 0 && less.vars <= ANSWER_COUNT);
		assert_int_equal(find(&less, "deny")->number, 0);
	}
	rig_free(g);
}

/* ---- the small print ---- */

static void test_without_room_nothing_is_charged(void **state)
{
	uint8_t bytes[64], out[4096];
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	static struct ack ack;
	struct rig *g = rig_new("rules = ( { name = \"a\"; per = []; rate = \"5/minute\"; } );");

	(void)state;
	put_message(&w, "check", 0);
	struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
	struct wire_writer tight = { out, out + check_room(256) - 1, false };
	assert_int_equal(
		check_answer(&g->checker, g->snapshot, &n, 256, noon, &tight, NULL), CHECK_NO_ROOM);
	assert_ptr_equal(tight.p, out);
	assert_int_equal(ask(g, &n, 256, noon, &ack), CHECK_ANSWERED);
	assert_int_equal(find(&ack, "remaining")->number, 4);
	rig_free(g);
}

static void test_what_is_no_check_is_acknowledged(void **state)
{
	static const char *const titles[] = { "report", "checks", "CHECK", "chec", "" };
	static struct ack ack;
	struct rig *g = rig_new("rules = ( { name = \"a\"; per = []; rate = \"1/minute\"; } );");

	(void)state;
	for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
		uint8_t bytes[64];
		struct wire_writer w = { bytes, bytes + sizeof bytes, false };
		put_message(&w, titles[i], 1);
		put_text(&w, "user", "u");
		struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
		assert_int_equal(ask(g, &n, SEND_MAX, noon, &ack), CHECK_ANSWERED);
		assert_int_equal(ack.vars, 1);
		assert_int_equal(find(&ack, "ack")->number, 1);
	}
	struct notify nothing = notify_of((const uint8_t *)"", 0);
	assert_int_equal(ask(g, &nothing, SEND_MAX, noon, &ack), CHECK_ANSWERED);
	assert_int_equal(find(&ack, "ack")->number, 1);
	rig_free(g);
}

/* Of a secret field the log shows no value, nor of one that is made of it. */
static void test_secrets_in_the_log(void **state)
{
	static const struct {
		const char *what, *config;
	} rows[] = {
		{ "the key",
			"rules = ( { name = \"a\"; per = [ \"key\" ]; rate = \"0/minute\"; } );" },
		{ "a path, within the endpoint",
			"identity: { secret = [ \"path\" ]; };"
			"rules = ( { name = \"a\"; per = [ \"endpoint\" ]; rate = \"0/minute\"; } );" },
		{ "a method, within the endpoint",
			"identity: { secret = [ \"method\" ]; };"
			"rules = ( { name = \"a\"; per = [ \"endpoint\" ]; rate = \"0/minute\"; } );" },
		{ "the endpoint, as method and path",
			"identity: { secret = [ \"endpoint\" ]; };"
			"rules = ( { name = \"a\"; per = [ \"endpoint\" ]; rate = \"0/minute\"; } );" },
		{ "an address",
			"identity: { secret = [ \"ip\" ]; };"
			"rules = ( { name = \"a\"; per = [ \"ip\" ]; rate = \"0/minute\"; } );" },
		{ "a tier",
			"identity: { secret = [ \"tier\" ]; };"
			"rules = ( { name = \"a\"; per = [ \"tier\" ]; rate = \"0/minute\"; } );" },
	};
	static const char *const secret[] = { "KEYSECRET", "PATHSECRET", "METHODSECRET",
		"PATHSECRET", "10.11.12.13", "TIERSECRET" };
	static struct ack ack;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct rig *g = rig_new(rows[i].config);
		uint8_t bytes[256];
		struct wire_writer w = { bytes, bytes + sizeof bytes, false };
		struct event e;
		put_message(&w, "check", 5);
		put_text(&w, "key", "KEYSECRET");
		put_text(&w, "path", "/PATHSECRET");
		put_text(&w, "method", "METHODSECRET");
		put_text(&w, "ip", "10.11.12.13");
		put_text(&w, "tier", "TIERSECRET");
		struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
		assert_int_equal(ask(g, &n, SEND_MAX, noon, &ack), CHECK_ANSWERED);
		assert_int_equal(find(&ack, "deny")->number, 1);
		assert_true(event_ring_get(g->events, &e));
		if (strstr(e.client, secret[i]) || strstr(e.ip, secret[i]) ||
			strstr(e.tier, secret[i]) || strstr(e.endpoint, secret[i]))
			fail_msg("%s: client=%s ip=%s tier=%s endpoint=%s", rows[i].what, e.client,
				e.ip, e.tier, e.endpoint);
		rig_free(g);
	}
}

/* Who only asks (cost 0) is refused nothing: neither of his answers becomes a line. */
static void test_who_asks_is_not_in_the_log(void **state)
{
	static const char config[] =
		"rules = ( { name = \"a\"; per = [ \"user\" ]; rate = \"1/minute\"; },"
		"{ name = \"s\"; mode = \"shadow\"; per = [ \"user\" ]; rate = \"1/hour\"; } );";
	static const char *const cost[] = { "1", "0", "0", "1" };
	static struct ack ack;
	struct rig *g = rig_new(config);
	struct now now = noon;
	struct event e;
	unsigned lines = 0;

	(void)state;
	/* Over the one, and a minute later over the other alone. */
	for (unsigned i = 0; i < 8; i++) {
		uint8_t bytes[64];
		struct wire_writer w = { bytes, bytes + sizeof bytes, false };
		if (i == 4) {
			now.steady += 61 * USEC_PER_SEC;
			now.utc += 61 * USEC_PER_SEC;
		}
		put_message(&w, "check", 2);
		put_text(&w, "user", "alice");
		put_text(&w, "cost", i == 4 ? "0" : cost[i % 4]);
		struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
		assert_int_equal(ask(g, &n, SEND_MAX, now, &ack), CHECK_ANSWERED);
		while (event_ring_get(g->events, &e)) {
			assert_true(i == 3 || i == 7);
			lines |= 1u << e.shadow;
		}
	}
	assert_int_equal(lines, 1u << false | 1u << true);
	rig_free(g);
}

/* What is told in answers, and how often. */
struct told {
	uint64_t allowed, denied, shadow, tag, warn, reason[8];
};

static void tell(struct told *t, const struct ack *a)
{
	static const char *const reasons[] = { "ok", "limited", "oversize", "blocked", "bypassed" };

	t->allowed += !find(a, "deny")->number;
	t->denied += find(a, "deny")->number;
	for (unsigned i = 0; i < sizeof reasons / sizeof *reasons; i++)
		t->reason[i] += str_eq(find(a, "reason")->bytes, str_of(reasons[i]));
	t->shadow += find(a, "shadow") && find(a, "shadow")->bytes.n;
	t->tag += find(a, "tag") && find(a, "tag")->bytes.n;
	t->warn += find(a, "warn") && find(a, "warn")->number;
}

/* What the metrics say is what was answered. */
static void test_what_is_answered_is_counted(void **state)
{
	static const char config[] =
		"allow = ( { user = \"root\"; } ); block = ( { user = \"eve\"; } );"
		"rules = ( { name = \"r\"; per = [ \"user\" ]; rate = \"3/hour\"; warn_at = 0.4; },"
		"{ name = \"s\"; mode = \"shadow\"; per = [ \"user\" ]; rate = \"1/hour\"; },"
		"{ name = \"t\"; action = \"tag\"; tag = \"x\"; per = [ \"user\" ]; rate = \"2/hour\"; } );";
	static const struct {
		const char *user, *cost;
	} row[] = { { "alice", "1" }, { "alice", "1" }, { "alice", "1" }, { "alice", "1" },
		{ "alice", "1" }, { "bob", "9" }, { "eve", "1" }, { "root", "1" },
		{ "root", "1" } };
	static struct ack ack;
	struct rig *g = rig_new(config);
	struct tally_names *places = tally_names_new();
	const struct tally *of[] = { g->checker.tally };
	struct told told = { 0 };
	struct tally_sum sum;

	(void)state;
	tally_names_apply(places, g->snapshot->policy);
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		uint8_t bytes[64];
		struct wire_writer w = { bytes, bytes + sizeof bytes, false };
		put_message(&w, "check", 2);
		put_text(&w, "user", row[i].user);
		put_text(&w, "cost", row[i].cost);
		struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
		assert_int_equal(ask(g, &n, SEND_MAX, noon, &ack), CHECK_ANSWERED);
		tell(&told, &ack);
	}
	const _Atomic(uint64_t) *m = g->metrics.value;
	assert_true(told.shadow && told.tag && told.warn && told.shadow != told.tag);
	assert_int_equal(m[METRIC_checks_allowed], told.allowed);
	assert_int_equal(m[METRIC_checks_denied], told.denied);
	assert_int_equal(m[METRIC_checks_limited], told.reason[1]);
	assert_int_equal(m[METRIC_checks_oversize], told.reason[2]);
	assert_int_equal(m[METRIC_checks_blocked], told.reason[3]);
	assert_int_equal(m[METRIC_checks_bypassed], told.reason[4]);
	assert_int_equal(m[METRIC_checks_shadow], told.shadow);
	assert_int_equal(m[METRIC_checks_tagged], told.tag);
	assert_int_equal(m[METRIC_checks_warned], told.warn);
	assert_true(tally_sum(places, of, 1, &sum));
	assert_int_equal(sum.rule_n, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(sum.rule[i].applied, 6); /* alice's and bob's */
	assert_int_equal(sum.rule[1].shadowed, told.shadow);
	assert_int_equal(sum.rule[2].tagged, told.tag);
	assert_int_equal(sum.rule[0].warned + sum.rule[1].warned + sum.rule[2].warned, told.warn);
	uint64_t checks = 0;
	for (size_t i = 0; i < sum.line_n; i++)
		checks += sum.line[i].n;
	assert_int_equal(checks, told.allowed + told.denied);
	tally_sum_free(&sum);
	tally_names_free(places);
	rig_free(g);
}

/* Most answers are put together from pieces of earlier ones where there is room for any answer, and
 * from nothing where there is not: the same bytes, whoever asked before. */
static void test_an_answer_from_pieces(void **state)
{
	static const char *const configs[] = {
		"agent: { variables = [ \"deny\", \"reason\", \"retry_after\", \"limit\", \"remaining\","
		" \"reset\", \"reset_at\", \"rule\", \"tier\", \"scope\", \"algorithm\", \"warn\","
		" \"shadow\", \"tag\", \"policy\", \"ratelimit\" ]; };",
		"agent: { variables = [ \"remaining\", \"scope\" ]; };",
		"agent: { variables = [ \"tier\" ]; };",
		"agent: { variables = [ \"tag\" ]; };",
		"",
	};
	static const char rules[] =
		"rules = ("
		" { name = \"a-rule-of-a-rather-long-name-that-is-longer-than-one-block\";"
		"   per = [ \"key|user|ip\" ]; rate = { default = \"30/minute\"; gold = \"300/minute\"; };"
		"   warn_at = 0.5; },"
		" { name = \"b\"; per = [ \"ip\", \"method\" ]; algorithm = \"fixed-window\";"
		"   rate = [ \"20/minute\", \"1000000000/day\" ]; },"
		" { name = \"wide-and-of-a-name-as-long-as-a-name-may-be-or-nearly-so\"; per = [ \"ip\","
		"   \"a-field-whose-name-is-as-long-as-a-name-may-be-or-nearly-so\","
		"   \"another-field-of-a-name-as-long-as-a-name-may-be-or-nearly-so\" ];"
		"   rate = \"10/minute\"; },"
		" { name = \"s\"; per = []; rate = \"90/minute\"; mode = \"shadow\"; } );";
	static const char *const tiers[] = { "", "gold", "somebody's own", "somebody else's",
		"an own one of a name as long as a name may be, or nearly so" };
	static struct ack from_pieces, from_nothing;
	struct now now = noon;

	(void)state;
	srand(7);
	for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
		char text[4096];
		snprintf(text, sizeof text, "%s%s", configs[c], rules);
		struct rig *g = rig_new(text);
		for (int i = 0; i < 600; i++) {
			uint8_t bytes[512];
			struct wire_writer w = { bytes, bytes + sizeof bytes, false };
			int shown = rand();
			put_message(&w, "check", 7);
			put_ipv4(&w, "ip", 0x0a000001 + (uint32_t)rand() % 8);
			put_text(&w, "key", shown & 1 ? "k" : "");
			put_text(&w, "user", shown & 2 ? "u" : "");
			put_text(&w, "method", shown & 4 ? "GET" : "");
			put_text(&w, "tier", tiers[rand() % 5]);
			put_text(&w, "a-field-whose-name-is-as-long-as-a-name-may-be-or-nearly-so",
				shown & 0x30 ? "" : "x");
			put_text(&w,
				"another-field-of-a-name-as-long-as-a-name-may-be-or-nearly-so",
				"y");
			assert_false(w.bad);
			struct notify n = notify_of(bytes, (size_t)(w.p - bytes));
			now.steady += rand() % USEC_PER_SEC;
			now.utc = now.steady;
			assert_int_equal(ask(g, &n, 16380, now, &from_pieces), CHECK_ANSWERED);
			/* The next to ask is this one again, in vain: nothing that is told changes.
			 */
			bytes[6] = 8;
			put_text(&w, "cost", "0");
			n = notify_of(bytes, (size_t)(w.p - bytes));
			assert_int_equal(ask(g, &n, 16380, now, &from_pieces), CHECK_ANSWERED);
			assert_int_equal(ask(g, &n, 8000, now, &from_nothing), CHECK_ANSWERED);
			assert_int_equal(from_pieces.n, from_nothing.n);
			assert_memory_equal(from_pieces.bytes, from_nothing.bytes, from_nothing.n);
		}
		rig_free(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_remembered_never_shows),
		cmocka_unit_test(test_what_is_expected_never_shows),
		cmocka_unit_test(test_a_ban_meets_who_was_expected),
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_a_reload_forgets_the_slots),
		cmocka_unit_test(test_the_longest_answer_has_room),
		cmocka_unit_test(test_without_room_nothing_is_charged),
		cmocka_unit_test(test_what_is_no_check_is_acknowledged),
		cmocka_unit_test(test_secrets_in_the_log),
		cmocka_unit_test(test_who_asks_is_not_in_the_log),
		cmocka_unit_test(test_what_is_answered_is_counted),
		cmocka_unit_test(test_an_answer_from_pieces),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
