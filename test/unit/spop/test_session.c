#include "spop/session.h"

#include "spop/value.h"

#include "../base/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static const struct session_settings settings = {
	.max_frame_size = 16380,
	.accept_max = 65536,
	.reassembly_max = 100,
};

/* ---- what HAProxy sends ---- */

/* HAPROXY-HELLO of HAProxy 2.6.12, its engine-id aside. */
static const char hello_26[] = "\0\0\0\x81\x01\0\0\0\x01\0\0\x12supported-versions\x08\x03"
			       "2.0\x0emax-frame-size\x03\xfc\xf0\x06\x0c"
			       "capabilities\x08\x10pipelining,async\x09"
			       "engine-id\x08\x24"
			       "01234567-89ab-cdef-0123-456789abcdef";
/* Its health check: the same bytes from 2.0 to 3.5. */
static const char check_26[] = "\0\0\0\x4e\x01\0\0\0\x01\0\0\x12supported-versions\x08\x03"
			       "2.0\x0emax-frame-size\x03\xfc\xf0\x06\x0c"
			       "capabilities\x08\x00\x0bhealthcheck\x11";
/* And what it sends when it stops. */
static const char disconnect_26[] = "\0\0\0\x25\x02\0\0\0\x01\0\0\x0bstatus-code\x03\x00\x07"
				    "message\x08\x06normal";

struct item {
	const char *name;
	enum value_type type;
	uint64_t number;
	const char *text;
};

static size_t put_frame(uint8_t *bytes, size_t size, uint8_t type, uint32_t flags, uint64_t sid,
	uint64_t fid, const struct item *items)
{
	struct wire_writer w = { bytes, bytes + size, false };
	uint8_t *length_word = frame_begin(&w, (enum frame_type)type, sid, fid);

	for (; items && items->name; items++) {
		wire_put_str(&w, str_of(items->name));
		wire_put_u8(&w, (uint8_t)(items->type |
					  (items->type == VALUE_BOOL && items->number ? 0x10 : 0)));
		if (items->type == VALUE_STRING || items->type == VALUE_BINARY)
			wire_put_str(&w, str_of(items->text));
		else if (items->type >= VALUE_INT32 && items->type <= VALUE_UINT64)
			wire_put_varint(&w, items->number);
	}
	frame_end(&w, length_word);
	assert_false(w.bad);
	struct wire_writer at = { bytes + 5, bytes + 9, false };
	wire_put_u32(&at, flags);
	return (size_t)(w.p - bytes);
}

/* ---- one session, fed frame by frame ---- */

struct bench {
	struct session session;
	uint8_t in[512]; /* the last frame: a NOTIFY that came whole lies there */
	uint8_t out[SESSION_OUT_MAX + 64];
	size_t out_n; /* of the last answer */
};

static void bench_init(struct bench *b)
{
	session_init(&b->session, &settings);
}

static enum session_rc feed(struct bench *b, const void *bytes, size_t n)
{
	struct wire_writer w = { b->out, b->out + sizeof b->out, false };
	const uint8_t *p = bytes;
	enum spop_status status;
	struct frame f;

	assert_int_equal(frame_next(&p, p + n, 65536, &f, &status), FRAME_OK);
	assert_ptr_equal(p, (const uint8_t *)bytes + n);
	enum session_rc rc = session_on_frame(&b->session, &settings, &f, &w);
	assert_false(w.bad);
	b->out_n = (size_t)(w.p - b->out);
	assert_true(b->out_n <= SESSION_OUT_MAX);
	return rc;
}

#define FEED(b, literal) feed(b, literal, sizeof(literal) - 1)

static enum session_rc feed_frame(struct bench *b, uint8_t type, uint32_t flags, uint64_t sid,
	uint64_t fid, const char *payload)
{
	uint8_t *bytes = b->in;
	size_t n = put_frame(bytes, sizeof b->in, type, flags, sid, fid, NULL);
	size_t payload_n = strlen(payload);

	assert_true(n + payload_n <= sizeof b->in);
	memcpy(bytes + n, payload, payload_n);
	struct wire_writer at = { bytes, bytes + 4, false };
	wire_put_u32(&at, (uint32_t)(n + payload_n - 4));
	return feed(b, bytes, n + payload_n);
}

static struct frame answer(const struct bench *b)
{
	const uint8_t *p = b->out;
	enum spop_status status;
	struct frame f;

	assert_int_equal(frame_next(&p, b->out + b->out_n, 256, &f, &status), FRAME_OK);
	assert_ptr_equal(p, b->out + b->out_n); /* one frame, and nothing after it */
	assert_int_equal(f.flags, FRAME_FLAG_FIN);
	assert_int_equal(f.stream_id, 0);
	assert_int_equal(f.frame_id, 0);
	return f;
}

/* The answer is AGENT-DISCONNECT with this status and its text. */
static void assert_disconnected(const struct bench *b, enum spop_status want)
{
	struct frame f = answer(b);
	struct wire_reader r = { f.payload, f.payload + f.payload_n, false };
	struct str name;
	struct value v;

	assert_int_equal(f.type, FRAME_AGENT_DISCONNECT);
	assert_true(arg_next(&r, &name, &v));
	assert_true(str_eq(name, STR("status-code")));
	assert_int_equal(v.type, VALUE_UINT32);
	assert_int_equal(v.number, want);
	assert_true(arg_next(&r, &name, &v));
	assert_true(str_eq(name, STR("message")));
	assert_int_equal(v.type, VALUE_STRING);
	assert_true(str_eq(v.bytes, str_of(spop_status_text(want))));
	assert_int_equal(wire_left(&r), 0);
	assert_int_equal(b->session.state, SESSION_CLOSED);
}

static void assert_closed_by_us(struct bench *b, enum session_rc rc, enum spop_status want)
{
	assert_int_equal(rc, SESSION_CLOSE);
	assert_disconnected(b, want);
	assert_int_equal(b->session.status, want);
	assert_false(b->session.by_peer);
	/* After that nothing is said any more. */
	assert_int_equal(FEED(b, hello_26), SESSION_CLOSE);
	assert_int_equal(b->out_n, 0);
	session_fini(&b->session);
}

static void assert_agent_hello(const struct bench *b, uint32_t size, const char *capabilities)
{
	static const char *const name_want[] = { "version", "max-frame-size", "capabilities" };
	struct frame f = answer(b);
	struct wire_reader r = { f.payload, f.payload + f.payload_n, false };
	struct str name;
	struct value v[3];

	assert_int_equal(f.type, FRAME_AGENT_HELLO);
	for (int i = 0; i < 3; i++) {
		assert_true(arg_next(&r, &name, &v[i]));
		assert_true(str_eq(name, str_of(name_want[i])));
	}
	assert_int_equal(wire_left(&r), 0);
	assert_true(v[0].type == VALUE_STRING && str_eq(v[0].bytes, STR("2.0")));
	assert_int_equal(v[1].type, VALUE_UINT32);
	assert_int_equal(v[1].number, size);
	assert_true(v[2].type == VALUE_STRING && str_eq(v[2].bytes, str_of(capabilities)));
}

static void open_bench(struct bench *b)
{
	bench_init(b);
	assert_int_equal(FEED(b, hello_26), SESSION_REPLIED);
	assert_int_equal(b->session.state, SESSION_OPEN);
}

/* ---- HELLO ---- */

static void hello_of_2_6_opens(void **state)
{
	(void)state;
	struct bench b;

	bench_init(&b);
	assert_int_equal(session_frame_max(&b.session, &settings), 16380);
	assert_int_equal(FEED(&b, hello_26), SESSION_REPLIED);
	assert_agent_hello(&b, 16380, "pipelining,fragmentation");
	assert_int_equal(b.session.state, SESSION_OPEN);
	assert_true(b.session.pipelining);
	assert_false(b.session.healthcheck);
	assert_string_equal(b.session.engine_id, "01234567-89ab-cdef-0123-456789abcdef");
	session_fini(&b.session);
}

static void a_health_check_is_answered_once(void **state)
{
	(void)state;
	struct bench b;

	bench_init(&b);
	assert_int_equal(FEED(&b, check_26), SESSION_REPLIED);
	assert_agent_hello(&b, 16380, "fragmentation");
	assert_int_equal(b.session.state, SESSION_CHECKED);
	assert_true(b.session.healthcheck);
	assert_closed_by_us(
		&b, feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN, 0, 1, ""), SPOP_INVALID);

	bench_init(&b);
	assert_int_equal(FEED(&b, check_26), SESSION_REPLIED);
	assert_closed_by_us(&b, FEED(&b, check_26), SPOP_INVALID);

	bench_init(&b);
	assert_int_equal(FEED(&b, check_26), SESSION_REPLIED);
	assert_int_equal(FEED(&b, disconnect_26), SESSION_CLOSE);
	assert_disconnected(&b, SPOP_NORMAL);
	assert_true(b.session.by_peer);
	session_fini(&b.session);
}

static void draining_fails_checks_and_serves_on(void **state)
{
	(void)state;
	struct bench b;

	bench_init(&b);
	b.session.draining = true;
	assert_int_equal(FEED(&b, hello_26), SESSION_REPLIED);
	assert_int_equal(b.session.state, SESSION_OPEN);
	assert_int_equal(feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN, 0, 1, ""), SESSION_NOTIFY);
	session_fini(&b.session);

	bench_init(&b);
	b.session.draining = true;
	assert_closed_by_us(&b, FEED(&b, check_26), SPOP_NO_RESOURCE);
	assert_true(b.session.healthcheck);
}

#define VERSIONS(text) \
	{ \
		"supported-versions", VALUE_STRING, 0, text \
	}
#define SIZE(n) \
	{ \
		"max-frame-size", VALUE_UINT32, n, NULL \
	}
#define CAPS(text) \
	{ \
		"capabilities", VALUE_STRING, 0, text \
	}

static const struct {
	const char *what;
	enum spop_status status; /* SPOP_NORMAL: it opens */
	uint32_t size;
	const char *capabilities;
	struct item items[6];
} hellos[] = {
	{ "the least", 0, 256, "fragmentation", { VERSIONS("2.0"), SIZE(256), CAPS("") } },
	{ "in any order", 0, 256, "fragmentation", { CAPS(""), SIZE(256), VERSIONS("2.0") } },
	{ "larger than ours", 0, 16380, "fragmentation",
		{ VERSIONS("2.0"), SIZE(1020396), CAPS("") } },
	{ "the largest uint32", 0, 16380, "fragmentation",
		{ VERSIONS("2.0"), SIZE(UINT32_MAX), CAPS("") } },
	{ "a size of another integer type", 0, 1000, "fragmentation",
		{ VERSIONS("2.0"), { "max-frame-size", VALUE_INT64, 1000, NULL }, CAPS("") } },
	{ "a size beyond 32 bits", 0, 16380, "fragmentation",
		{ VERSIONS("2.0"), { "max-frame-size", VALUE_UINT64, UINT64_MAX, NULL },
			CAPS("") } },
	{ "2.0 among others", 0, 256, "fragmentation",
		{ VERSIONS("1.0, 2.0 ,3.0"), SIZE(256), CAPS("") } },
	{ "2.0 at the end", 0, 256, "fragmentation",
		{ VERSIONS("3.0,  2.0  "), SIZE(256), CAPS("") } },
	{ "pipelining offered", 0, 256, "pipelining,fragmentation",
		{ VERSIONS("2.0"), SIZE(256), CAPS("async, pipelining") } },
	{ "something like pipelining", 0, 256, "fragmentation",
		{ VERSIONS("2.0"), SIZE(256), CAPS("pipelining2,xpipelining,pipe lining") } },
	{ "async and fragmentation only", 0, 256, "fragmentation",
		{ VERSIONS("2.0"), SIZE(256), CAPS("async,fragmentation") } },
	{ "unknown items", 0, 256, "fragmentation",
		{ { "x", VALUE_BINARY, 0, "y" }, VERSIONS("2.0"), SIZE(256), CAPS(""),
			{ "", VALUE_NULL, 0, NULL } } },
	{ "no health check", 0, 256, "fragmentation",
		{ VERSIONS("2.0"), SIZE(256), CAPS(""), { "healthcheck", VALUE_BOOL, 0, NULL } } },
	{ "the first of two", 0, 256, "fragmentation",
		{ VERSIONS("2.0"), SIZE(256), CAPS(""), VERSIONS("1.0"), SIZE(1) } },
	{ "a key that only begins so", SPOP_NO_VERSION, 0, NULL,
		{ { "supported-versionsX", VALUE_STRING, 0, "2.0" }, SIZE(256), CAPS("") } },

	{ "nothing", SPOP_NO_VERSION, 0, NULL, { { 0 } } },
	{ "no versions", SPOP_NO_VERSION, 0, NULL, { SIZE(256), CAPS("") } },
	{ "no size", SPOP_NO_MAX_FRAME_SIZE, 0, NULL, { VERSIONS("2.0"), CAPS("") } },
	{ "no capabilities", SPOP_NO_CAPABILITIES, 0, NULL, { VERSIONS("2.0"), SIZE(256) } },

	{ "another version", SPOP_BAD_VERSION, 0, NULL, { VERSIONS("1.0"), SIZE(256), CAPS("") } },
	{ "no version in the list", SPOP_BAD_VERSION, 0, NULL,
		{ VERSIONS(""), SIZE(256), CAPS("") } },
	{ "a longer version", SPOP_BAD_VERSION, 0, NULL,
		{ VERSIONS("2.0.1,12.0,2.00"), SIZE(256), CAPS("") } },
	{ "a shorter version", SPOP_BAD_VERSION, 0, NULL, { VERSIONS("2"), SIZE(256), CAPS("") } },
	{ "a space within", SPOP_BAD_VERSION, 0, NULL,
		{ VERSIONS("2 .0,,"), SIZE(256), CAPS("") } },

	{ "a size too small", SPOP_BAD_MAX_FRAME_SIZE, 0, NULL,
		{ VERSIONS("2.0"), SIZE(255), CAPS("") } },
	{ "no size at all", SPOP_BAD_MAX_FRAME_SIZE, 0, NULL,
		{ VERSIONS("2.0"), SIZE(0), CAPS("") } },
	{ "a negative size", SPOP_BAD_MAX_FRAME_SIZE, 0, NULL,
		{ VERSIONS("2.0"), { "max-frame-size", VALUE_INT32, (uint64_t)-5, NULL },
			CAPS("") } },
	{ "a size beyond its type", SPOP_BAD_MAX_FRAME_SIZE, 0, NULL,
		{ VERSIONS("2.0"), { "max-frame-size", VALUE_UINT32, UINT64_MAX, NULL },
			CAPS("") } },

	{ "versions no string", SPOP_INVALID, 0, NULL,
		{ { "supported-versions", VALUE_INT32, 2, NULL }, SIZE(256), CAPS("") } },
	{ "versions binary", SPOP_INVALID, 0, NULL,
		{ { "supported-versions", VALUE_BINARY, 0, "2.0" }, SIZE(256), CAPS("") } },
	{ "size a string", SPOP_INVALID, 0, NULL,
		{ VERSIONS("2.0"), { "max-frame-size", VALUE_STRING, 0, "256" }, CAPS("") } },
	{ "size null", SPOP_INVALID, 0, NULL,
		{ VERSIONS("2.0"), { "max-frame-size", VALUE_NULL, 0, NULL }, CAPS("") } },
	{ "capabilities null", SPOP_INVALID, 0, NULL,
		{ VERSIONS("2.0"), SIZE(256), { "capabilities", VALUE_NULL, 0, NULL } } },
	{ "health check a string", SPOP_INVALID, 0, NULL,
		{ VERSIONS("2.0"), SIZE(256), CAPS(""), { "healthcheck", VALUE_STRING, 0, "1" } } },
	{ "engine-id an integer", SPOP_INVALID, 0, NULL,
		{ VERSIONS("2.0"), SIZE(256), CAPS(""), { "engine-id", VALUE_INT32, 1, NULL } } },
	{ "a reserved type", SPOP_INVALID, 0, NULL,
		{ VERSIONS("2.0"), SIZE(256), CAPS(""), { "x", (enum value_type)12, 0, NULL } } },
};

static void hellos_are_checked(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof hellos / sizeof *hellos; i++) {
		uint8_t bytes[512];
		struct bench b;
		size_t n = put_frame(bytes, sizeof bytes, FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 0, 0,
			hellos[i].items);

		bench_init(&b);
		enum session_rc rc = feed(&b, bytes, n);
		if (rc != (hellos[i].status ? SESSION_CLOSE : SESSION_REPLIED) ||
			b.session.status != hellos[i].status)
			fail_msg("%s: %d, status %u", hellos[i].what, rc, b.session.status);
		if (rc == SESSION_CLOSE) {
			assert_closed_by_us(&b, rc, hellos[i].status);
			continue;
		}
		assert_agent_hello(&b, hellos[i].size, hellos[i].capabilities);
		assert_int_equal(b.session.send_max, hellos[i].size);
		assert_int_equal(b.session.state, SESSION_OPEN);
		session_fini(&b.session);
	}
}

/* 3.1.0 sends frames as long as it advertised, whatever was agreed on; but not without bound. */
static void frames_are_accepted_as_long_as_advertised(void **state)
{
	(void)state;
	static const uint32_t advertised[] = { 256, 16380, 65532, 65536, 1020396 };

	for (int i = 0; i < 5; i++) {
		const struct item items[] = { VERSIONS("2.0"), SIZE(advertised[i]), CAPS(""),
			{ 0 } };
		uint8_t bytes[512];
		struct bench b;
		size_t n = put_frame(
			bytes, sizeof bytes, FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 0, 0, items);

		bench_init(&b);
		assert_int_equal(feed(&b, bytes, n), SESSION_REPLIED);
		assert_int_equal(session_frame_max(&b.session, &settings),
			advertised[i] < 65536 ? advertised[i] : 65536);
		session_fini(&b.session);
	}
}

static void engine_ids_are_cleaned(void **state)
{
	(void)state;
	static const char *const ids[][2] = {
		{ "", "" },
		{ "a\nb\"c=d e", "abcde" },
		{ "\xff\x01-_.", "-" },
		{ "0123456789012345678901234567890123456789",
			"012345678901234567890123456789012345" },
	};

	for (int i = 0; i < 4; i++) {
		const struct item items[] = { VERSIONS("2.0"), SIZE(256), CAPS(""),
			{ "engine-id", VALUE_STRING, 0, ids[i][0] }, { 0 } };
		uint8_t bytes[512];
		struct bench b;
		size_t n = put_frame(
			bytes, sizeof bytes, FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 0, 0, items);

		bench_init(&b);
		assert_int_equal(feed(&b, bytes, n), SESSION_REPLIED);
		assert_string_equal(b.session.engine_id, ids[i][1]);
		session_fini(&b.session);
	}
}

static void hello_heads_are_checked(void **state)
{
	(void)state;
	static const struct {
		uint8_t type;
		uint32_t flags;
		uint64_t sid, fid;
		enum spop_status status;
	} rows[] = {
		{ FRAME_HAPROXY_HELLO, 0, 0, 0, SPOP_NO_FRAGMENTATION },
		{ FRAME_HAPROXY_HELLO, FRAME_FLAG_ABORT, 0, 0, SPOP_NO_FRAGMENTATION },
		{ FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 1, 0, SPOP_INVALID },
		{ FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 0, 1, SPOP_INVALID },
		{ FRAME_HAPROXY_DISCONNECT, 0, 0, 0, SPOP_NO_FRAGMENTATION },
		{ FRAME_HAPROXY_DISCONNECT, FRAME_FLAG_FIN, 1, 0, SPOP_INVALID },
		{ FRAME_HAPROXY_DISCONNECT, FRAME_FLAG_FIN, 0, 1, SPOP_INVALID },
	};
	static const struct item items[] = { VERSIONS("2.0"), SIZE(256), CAPS(""), { 0 } };

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint8_t bytes[512];
		struct bench b;
		size_t n = put_frame(bytes, sizeof bytes, rows[i].type, rows[i].flags, rows[i].sid,
			rows[i].fid, items);

		bench_init(&b);
		assert_closed_by_us(&b, feed(&b, bytes, n), rows[i].status);
	}
	/* Reserved flags mean nothing. */
	uint8_t bytes[512];
	struct bench b;
	size_t n = put_frame(bytes, sizeof bytes, FRAME_HAPROXY_HELLO, 0xfffffffd, 0, 0, items);
	bench_init(&b);
	assert_int_equal(feed(&b, bytes, n), SESSION_REPLIED);
	session_fini(&b.session);
}

/* A HELLO that is cut anywhere is malformed, unless the cut lies between two items. */
static void hello_is_tried_at_every_cut(void **state)
{
	(void)state;
	struct guard g = guard_new(sizeof hello_26);

	for (size_t cut = 0; cut < sizeof hello_26 - 1 - 11; cut++) {
		struct frame f = { FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 0, 0,
			guard_copy(&g, hello_26 + 11, cut), cut };
		uint8_t out[SESSION_OUT_MAX];
		struct wire_writer w = { out, out + sizeof out, false };
		struct session s;

		session_init(&s, &settings);
		enum session_rc rc = session_on_frame(&s, &settings, &f, &w);
		/* 24, 43 and 74: after the first, second and third item. */
		enum spop_status want = cut == 0    ? SPOP_NO_VERSION
					: cut == 24 ? SPOP_NO_MAX_FRAME_SIZE
					: cut == 43 ? SPOP_NO_CAPABILITIES
					: cut == 74 ? SPOP_NORMAL
						    : SPOP_INVALID;
		assert_int_equal(rc, want == SPOP_NORMAL ? SESSION_REPLIED : SESSION_CLOSE);
		assert_int_equal(s.status, want);
		session_fini(&s);
	}
	guard_free(&g);
}

static void nothing_comes_before_hello(void **state)
{
	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		struct bench b;

		if (type == FRAME_HAPROXY_HELLO || type == FRAME_HAPROXY_DISCONNECT)
			continue;
		bench_init(&b);
		assert_closed_by_us(
			&b, feed_frame(&b, (uint8_t)type, FRAME_FLAG_FIN, 0, 0, ""), SPOP_INVALID);
	}
}

static void unknown_frames_are_refused(void **state)
{
	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		struct bench b;

		if (type == FRAME_UNSET || type == FRAME_HAPROXY_DISCONNECT || type == FRAME_NOTIFY)
			continue;
		open_bench(&b);
		assert_closed_by_us(
			&b, feed_frame(&b, (uint8_t)type, FRAME_FLAG_FIN, 0, 0, ""), SPOP_INVALID);
	}
}

/* ---- DISCONNECT ---- */

static const struct {
	const char *what;
	bool by_peer;
	enum spop_status status;
	struct item items[4];
} disconnects[] = {
	{ "idle", true, SPOP_TIMEOUT,
		{ { "status-code", VALUE_UINT32, 2, NULL },
			{ "message", VALUE_STRING, 0, "a timeout occurred" } } },
	{ "the message first", true, SPOP_IO,
		{ { "message", VALUE_STRING, 0, "" }, { "status-code", VALUE_INT64, 1, NULL } } },
	{ "unknown items", true, SPOP_IO,
		{ { "x", VALUE_NULL, 0, NULL }, { "status-code", VALUE_UINT32, 1, NULL },
			{ "y", VALUE_BOOL, 1, NULL } } },
	{ "a status of its own", true, (enum spop_status)200,
		{ { "status-code", VALUE_UINT32, 200, NULL } } },
	{ "a status that is none", true, SPOP_UNKNOWN,
		{ { "status-code", VALUE_INT64, UINT64_MAX, NULL } } },
	{ "without a word", true, SPOP_NORMAL, { { 0 } } },
	{ "a status in words", false, SPOP_INVALID, { { "status-code", VALUE_STRING, 0, "0" } } },
	{ "a reserved type", false, SPOP_INVALID, { { "x", (enum value_type)11, 0, NULL } } },
};

static void a_farewell_is_answered(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof disconnects / sizeof *disconnects; i++) {
		uint8_t bytes[512];
		size_t n = put_frame(bytes, sizeof bytes, FRAME_HAPROXY_DISCONNECT, FRAME_FLAG_FIN,
			0, 0, disconnects[i].items);

		/* Before HELLO, after it, and in the middle of fragments. */
		for (int when = 0; when < 3; when++) {
			struct bench b;

			bench_init(&b);
			if (when > 0)
				assert_int_equal(FEED(&b, hello_26), SESSION_REPLIED);
			if (when > 1)
				assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 0, 1, "x"),
					SESSION_REPLIED);
			assert_int_equal(feed(&b, bytes, n), SESSION_CLOSE);
			if (b.session.by_peer != disconnects[i].by_peer ||
				b.session.status != disconnects[i].status)
				fail_msg("%s: %u", disconnects[i].what, b.session.status);
			assert_disconnected(
				&b, disconnects[i].by_peer ? SPOP_NORMAL : disconnects[i].status);
			session_fini(&b.session);
		}
	}
}

static void disconnect_is_said_once(void **state)
{
	(void)state;
	uint8_t out[SESSION_OUT_MAX];
	struct wire_writer w = { out, out + sizeof out, false };
	struct bench b;

	open_bench(&b);
	assert_int_equal(session_disconnect(&b.session, SPOP_TIMEOUT, &w), SESSION_CLOSE);
	assert_int_equal(b.session.state, SESSION_CLOSED);
	assert_int_equal(b.session.status, SPOP_TIMEOUT);
	uint8_t *after = w.p;
	assert_true(after > out);
	assert_int_equal(session_disconnect(&b.session, SPOP_NORMAL, &w), SESSION_CLOSE);
	assert_ptr_equal(w.p, after);
	assert_int_equal(b.session.status, SPOP_TIMEOUT);
	session_fini(&b.session);
}

/* ---- NOTIFY ---- */

static void assert_notify(
	const struct bench *b, uint64_t sid, uint64_t fid, const char *payload, bool truncated)
{
	const struct notify *n = &b->session.notify;

	assert_int_equal(n->stream_id, sid);
	assert_int_equal(n->frame_id, fid);
	assert_int_equal(n->payload_n, strlen(payload));
	assert_memory_equal(n->payload, payload, n->payload_n);
	assert_int_equal(n->truncated, truncated);
	assert_int_equal(b->out_n, 0);
	assert_false(b->session.assembling);
}

static void a_whole_notify_is_handed_over(void **state)
{
	(void)state;
	struct bench b;

	open_bench(&b);
	assert_int_equal(feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN, 0, 1, "abc"), SESSION_NOTIFY);
	assert_notify(&b, 0, 1, "abc", false);
	/* An empty one is legal, and is answered like any other. */
	assert_int_equal(
		feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN, UINT64_MAX, 300, ""), SESSION_NOTIFY);
	assert_notify(&b, UINT64_MAX, 300, "", false);
	/* ABORT can be ignored where nothing is fragmented. */
	assert_int_equal(feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN | FRAME_FLAG_ABORT, 7, 1, "x"),
		SESSION_NOTIFY);
	assert_notify(&b, 7, 1, "x", false);
	assert_null(b.session.fragments); /* no memory for who sends none */
	session_fini(&b.session);
}

static void fragments_are_put_together(void **state)
{
	(void)state;
	struct bench b;

	open_bench(&b);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 300, 2, "ab"), SESSION_REPLIED);
		assert_int_equal(b.out_n, 0);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, 0, 300, 2, "c"), SESSION_REPLIED);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, 0, 300, 2, ""), SESSION_REPLIED);
		assert_int_equal(b.out_n, 0);
		assert_int_equal(
			feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 300, 2, "def"), SESSION_NOTIFY);
		assert_notify(&b, 300, 2, "abcdef", false);
		/* And a whole one in between. */
		assert_int_equal(
			feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN, 1, 1, "w"), SESSION_NOTIFY);
		assert_notify(&b, 1, 1, "w", false);
	}
	session_fini(&b.session);
}

static void an_abort_discards(void **state)
{
	(void)state;
	static const uint32_t aborts[] = { FRAME_FLAG_ABORT | FRAME_FLAG_FIN, FRAME_FLAG_ABORT };

	for (int i = 0; i < 2; i++) {
		struct bench b;

		open_bench(&b);
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 3, 1, "ab"), SESSION_REPLIED);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, aborts[i], 3, 1, ""), SESSION_REPLIED);
		assert_int_equal(b.out_n, 0);
		assert_false(b.session.assembling);
		/* The next one begins anew. */
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 3, 2, "x"), SESSION_REPLIED);
		assert_int_equal(
			feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 3, 2, "y"), SESSION_NOTIFY);
		assert_notify(&b, 3, 2, "xy", false);
		/* A first fragment that says ABORT begins nothing. */
		assert_int_equal(
			feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_ABORT, 3, 3, "x"), SESSION_REPLIED);
		assert_false(b.session.assembling);
		session_fini(&b.session);
	}
}

static void fragments_out_of_place_are_refused(void **state)
{
	(void)state;
	struct bench b;

	open_bench(&b);
	assert_closed_by_us(
		&b, feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 0, 1, ""), SPOP_NO_FRAME_ID);

	open_bench(&b); /* after one was finished */
	assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 0, 1, "a"), SESSION_REPLIED);
	assert_int_equal(feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 0, 1, "b"), SESSION_NOTIFY);
	assert_closed_by_us(
		&b, feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 0, 1, ""), SPOP_NO_FRAME_ID);

	static const struct {
		uint8_t type;
		uint32_t flags;
		uint64_t sid, fid;
		enum spop_status status;
	} rows[] = {
		{ FRAME_UNSET, FRAME_FLAG_FIN, 6, 1, SPOP_INTERLACED },
		{ FRAME_UNSET, FRAME_FLAG_FIN, 5, 2, SPOP_INTERLACED },
		{ FRAME_UNSET, FRAME_FLAG_ABORT | FRAME_FLAG_FIN, 6, 1, SPOP_INTERLACED },
		{ FRAME_NOTIFY, FRAME_FLAG_FIN, 6, 1, SPOP_INTERLACED },
		{ FRAME_NOTIFY, 0, 5, 1, SPOP_INTERLACED },
		{ FRAME_HAPROXY_HELLO, FRAME_FLAG_FIN, 0, 0, SPOP_INVALID },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		open_bench(&b);
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 5, 1, "a"), SESSION_REPLIED);
		assert_closed_by_us(&b,
			feed_frame(&b, rows[i].type, rows[i].flags, rows[i].sid, rows[i].fid, ""),
			rows[i].status);
	}
}

/* 100 bytes are kept: one client's header never ends the connection of all, nor fills memory. */
static void beyond_the_bound_the_beginning_is_kept(void **state)
{
	(void)state;
	char forty[41], hundred[101];
	struct bench b;

	memset(forty, 'x', 40);
	forty[40] = '\0';
	memset(hundred, 'x', 100);
	hundred[100] = '\0';
	open_bench(&b);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 1, 1, forty), SESSION_REPLIED);
		for (int i = 0; i < 1000; i++)
			assert_int_equal(
				feed_frame(&b, FRAME_UNSET, 0, 1, 1, forty), SESSION_REPLIED);
		assert_int_equal(
			feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 1, 1, forty), SESSION_NOTIFY);
		assert_notify(&b, 1, 1, hundred, true);
		assert_int_equal(b.session.fragments_cap, 100);

		/* The next one is whole again, up to the last byte of the bound. */
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 2, 1, forty), SESSION_REPLIED);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, 0, 2, 1, forty), SESSION_REPLIED);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, FRAME_FLAG_FIN, 2, 1, forty + 20),
			SESSION_NOTIFY);
		assert_notify(&b, 2, 1, hundred, false);

		/* An overflow that is aborted leaves no trace. */
		assert_int_equal(feed_frame(&b, FRAME_NOTIFY, 0, 3, 1, hundred), SESSION_REPLIED);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, 0, 3, 1, "y"), SESSION_REPLIED);
		assert_true(b.session.overflown);
		assert_int_equal(feed_frame(&b, FRAME_UNSET, 3, 3, 1, ""), SESSION_REPLIED);
		assert_int_equal(
			feed_frame(&b, FRAME_NOTIFY, FRAME_FLAG_FIN, 4, 1, ""), SESSION_NOTIFY);
		assert_notify(&b, 4, 1, "", false);
	}
	session_fini(&b.session);
	session_fini(&b.session); /* harmless */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_of_2_6_opens),
		cmocka_unit_test(a_health_check_is_answered_once),
		cmocka_unit_test(draining_fails_checks_and_serves_on),
		cmocka_unit_test(hellos_are_checked),
		cmocka_unit_test(frames_are_accepted_as_long_as_advertised),
		cmocka_unit_test(engine_ids_are_cleaned),
		cmocka_unit_test(hello_heads_are_checked),
		cmocka_unit_test(hello_is_tried_at_every_cut),
		cmocka_unit_test(nothing_comes_before_hello),
		cmocka_unit_test(unknown_frames_are_refused),
		cmocka_unit_test(a_farewell_is_answered),
		cmocka_unit_test(disconnect_is_said_once),
		cmocka_unit_test(a_whole_notify_is_handed_over),
		cmocka_unit_test(fragments_are_put_together),
		cmocka_unit_test(an_abort_discards),
		cmocka_unit_test(fragments_out_of_place_are_refused),
		cmocka_unit_test(beyond_the_bound_the_beginning_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
