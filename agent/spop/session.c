#include "spop/session.h"

#include "spop/value.h"

#include <assert.h>
#include <stdlib.h>

#define SPOP_VERSION "2.0"

void session_init(struct session *s, const struct session_settings *settings)
{
	*s = (struct session){
		.state = SESSION_NEW,
		.send_max = settings->max_frame_size,
		.receive_max = settings->max_frame_size,
	};
}

void session_fini(struct session *s)
{
	free(s->fragments);
	s->fragments = NULL;
	s->fragments_cap = 0;
	s->fragments_n = 0;
	s->assembling = false;
}

size_t session_frame_max(const struct session *s, const struct session_settings *settings)
{
	return s->state == SESSION_NEW ? settings->max_frame_size : s->receive_max;
}

static void put_disconnect(struct wire_writer *out, enum spop_status status)
{
	uint8_t *length_word = frame_begin(out, FRAME_AGENT_DISCONNECT, 0, 0);

	wire_put_str(out, STR("status-code"));
	wire_put_u8(out, VALUE_UINT32);
	wire_put_varint(out, status);
	wire_put_str(out, STR("message"));
	wire_put_u8(out, VALUE_STRING);
	wire_put_str(out, str_of(spop_status_text(status)));
	frame_end(out, length_word);
}

enum session_rc session_disconnect(
	struct session *s, enum spop_status status, struct wire_writer *out)
{
	if (s->state == SESSION_CLOSED)
		return SESSION_CLOSE;
	s->state = SESSION_CLOSED;
	s->status = status;
	s->assembling = false;
	put_disconnect(out, status);
	return SESSION_CLOSE;
}

/* Is `token` one of a comma-separated list, spaces around it aside? */
static bool list_has(struct str list, struct str token)
{
	size_t begin = 0;

	while (begin < list.n) {
		const char *comma = memchr(list.p + begin, ',', list.n - begin);
		size_t next = comma ? (size_t)(comma - list.p) + 1 : list.n + 1;
		size_t end = next - 1;

		while (begin < end && list.p[begin] == ' ')
			begin++;
		while (end > begin && list.p[end - 1] == ' ')
			end--;
		if (str_eq((struct str){ list.p + begin, end - begin }, token))
			return true;
		begin = next;
	}
	return false;
}

/* What HAProxy said in its HELLO; a key that was not there has a NULL pointer. */
struct hello {
	struct str versions, capabilities, engine_id;
	struct value max_frame_size;
	bool has_max_frame_size;
	bool healthcheck;
};

/* false: of another type. Of a key that comes twice the first counts. */
static bool keep_string(const struct value *v, struct str *to)
{
	if (v->type != VALUE_STRING)
		return false;
	if (!to->p)
		*to = v->bytes;
	return true;
}

/* One item of the list; unknown ones are passed over, as the specification wants. */
static bool load_item(struct str name, const struct value *v, struct hello *h)
{
	if (str_eq(name, STR("supported-versions")))
		return keep_string(v, &h->versions);
	if (str_eq(name, STR("capabilities")))
		return keep_string(v, &h->capabilities);
	if (str_eq(name, STR("engine-id")))
		return keep_string(v, &h->engine_id);
	if (str_eq(name, STR("max-frame-size"))) {
		if (!value_is_integer(v))
			return false;
		if (!h->has_max_frame_size)
			h->max_frame_size = *v;
		h->has_max_frame_size = true;
		return true;
	}
	if (str_eq(name, STR("healthcheck"))) {
		if (v->type != VALUE_BOOL)
			return false;
		h->healthcheck = v->number != 0;
	}
	return true;
}

static bool max_frame_size_is_valid(const struct value *v)
{
	bool is_signed = v->type == VALUE_INT32 || v->type == VALUE_INT64;

	if (is_signed && v->number > INT64_MAX)
		return false; /* negative */
	if (v->type == VALUE_UINT32 && v->number > UINT32_MAX)
		return false;
	return v->number >= FRAME_SIZE_MIN;
}

/* Reads and checks; the status says what is wrong, SPOP_NORMAL that nothing is. A value that is
 * wrong is named before a key that is missing, as HAProxy does with the answer. */
static enum spop_status load_hello(const struct frame *frame, struct hello *h)
{
	struct wire_reader r = { frame->payload, frame->payload + frame->payload_n, false };

	*h = (struct hello){ .healthcheck = false };
	while (wire_left(&r)) {
		struct str name;
		struct value v;

		if (!arg_next(&r, &name, &v) || !load_item(name, &v, h))
			return SPOP_INVALID;
	}
	if (h->versions.p && !list_has(h->versions, STR(SPOP_VERSION)))
		return SPOP_BAD_VERSION;
	if (h->has_max_frame_size && !max_frame_size_is_valid(&h->max_frame_size))
		return SPOP_BAD_MAX_FRAME_SIZE;
	if (!h->versions.p)
		return SPOP_NO_VERSION;
	if (!h->has_max_frame_size)
		return SPOP_NO_MAX_FRAME_SIZE;
	if (!h->capabilities.p)
		return SPOP_NO_CAPABILITIES;
	return SPOP_NORMAL;
}

static void keep_engine_id(struct session *s, struct str id)
{
	size_t n = 0;

	for (size_t i = 0; i < id.n && n + 1 < sizeof s->engine_id; i++) {
		char c = id.p[i];

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			c == '-')
			s->engine_id[n++] = c;
	}
	s->engine_id[n] = '\0';
}

static void put_hello(const struct session *s, struct wire_writer *out)
{
	uint8_t *length_word = frame_begin(out, FRAME_AGENT_HELLO, 0, 0);

	wire_put_str(out, STR("version"));
	wire_put_u8(out, VALUE_STRING);
	wire_put_str(out, STR(SPOP_VERSION));
	wire_put_str(out, STR("max-frame-size"));
	wire_put_u8(out, VALUE_UINT32);
	wire_put_varint(out, s->send_max);
	wire_put_str(out, STR("capabilities"));
	wire_put_u8(out, VALUE_STRING);
	/* HAProxy 2.x sends fragments without having offered it, and closes where it is not
	 * announced: always. Pipelining only to who offers it. */
	wire_put_str(out, s->pipelining ? STR("pipelining,fragmentation") : STR("fragmentation"));
	frame_end(out, length_word);
}

/* HELLO and DISCONNECT speak of the connection: whole, and of no stream. */
static enum spop_status check_head(const struct frame *frame)
{
	if (!(frame->flags & FRAME_FLAG_FIN))
		return SPOP_NO_FRAGMENTATION;
	if (frame->stream_id != 0 || frame->frame_id != 0)
		return SPOP_INVALID;
	return SPOP_NORMAL;
}

static uint32_t smaller(uint64_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

static enum session_rc on_hello(struct session *s, const struct session_settings *settings,
	const struct frame *frame, struct wire_writer *out)
{
	struct hello h;
	enum spop_status status = check_head(frame);

	if (status == SPOP_NORMAL)
		status = load_hello(frame, &h);
	if (status != SPOP_NORMAL)
		return session_disconnect(s, status, out);

	s->healthcheck = h.healthcheck;
	s->pipelining = list_has(h.capabilities, STR("pipelining"));
	s->async = list_has(h.capabilities, STR("async"));
	if (h.engine_id.p)
		keep_engine_id(s, h.engine_id);
	s->send_max = smaller(h.max_frame_size.number, settings->max_frame_size);
	/* HAProxy 3.1.0 sends frames of the size that it advertised, whatever was agreed on. */
	s->receive_max = smaller(h.max_frame_size.number, settings->accept_max);
	if (s->receive_max < s->send_max)
		s->receive_max = s->send_max;

	/* A status other than 0 is what fails a check: no new connections come, while those that
	 * are there go on being served. */
	if (s->healthcheck ? s->draining : s->beyond)
		return session_disconnect(s, SPOP_NO_RESOURCE, out);
	put_hello(s, out);
	s->state = s->healthcheck ? SESSION_CHECKED : SESSION_OPEN;
	return SESSION_REPLIED;
}

static enum session_rc on_disconnect(
	struct session *s, const struct frame *frame, struct wire_writer *out)
{
	struct wire_reader r = { frame->payload, frame->payload + frame->payload_n, false };
	enum spop_status status = check_head(frame), theirs = SPOP_NORMAL;

	if (status != SPOP_NORMAL)
		return session_disconnect(s, status, out);
	while (wire_left(&r)) {
		struct str name;
		struct value v;

		if (!arg_next(&r, &name, &v))
			return session_disconnect(s, SPOP_INVALID, out);
		if (!str_eq(name, STR("status-code")))
			continue; /* its message says the same in words */
		if (!value_is_integer(&v))
			return session_disconnect(s, SPOP_INVALID, out);
		theirs = v.number <= INT32_MAX ? (enum spop_status)v.number : SPOP_UNKNOWN;
	}
	(void)session_disconnect(s, SPOP_NORMAL, out);
	s->status = theirs;
	s->by_peer = true;
	return SESSION_CLOSE;
}

static enum session_rc deliver(
	struct session *s, const struct frame *head, const uint8_t *payload, size_t n)
{
	s->notify = (struct notify){
		.stream_id = head->stream_id,
		.frame_id = head->frame_id,
		.payload = payload,
		.payload_n = n,
		.truncated = s->overflown,
	};
	s->assembling = false;
	s->overflown = false;
	return SESSION_NOTIFY;
}

/* One client's huge header must not end a connection that many share: what goes beyond the bound
 * is swallowed, and the check is decided on the beginning. */
static void append(struct session *s, const struct frame *fragment)
{
	size_t room = s->fragments_cap - s->fragments_n;
	size_t n = fragment->payload_n < room ? fragment->payload_n : room;

	if (n < fragment->payload_n)
		s->overflown = true;
	if (n)
		memcpy(s->fragments + s->fragments_n, fragment->payload, n);
	s->fragments_n += n;
}

static enum session_rc on_notify(struct session *s, const struct session_settings *settings,
	const struct frame *frame, struct wire_writer *out)
{
	if (s->assembling)
		return session_disconnect(s, SPOP_INTERLACED, out);
	/* ABORT means nothing on a frame that is whole (SPOE.txt 3.2): it is answered. */
	if (frame->flags & FRAME_FLAG_FIN)
		return deliver(s, frame, frame->payload, frame->payload_n);
	if (frame->flags & FRAME_FLAG_ABORT)
		return SESSION_REPLIED;

	if (!s->fragments) {
		s->fragments = malloc(settings->reassembly_max ? settings->reassembly_max : 1);
		if (!s->fragments)
			return session_disconnect(s, SPOP_NO_RESOURCE, out);
		s->fragments_cap = settings->reassembly_max;
	}
	s->assembling = true;
	s->fragment_stream_id = frame->stream_id;
	s->fragment_frame_id = frame->frame_id;
	s->fragments_n = 0;
	append(s, frame);
	return SESSION_REPLIED;
}

static enum session_rc on_fragment(
	struct session *s, const struct frame *frame, struct wire_writer *out)
{
	if (!s->assembling)
		return session_disconnect(s, SPOP_NO_FRAME_ID, out);
	if (frame->stream_id != s->fragment_stream_id || frame->frame_id != s->fragment_frame_id)
		return session_disconnect(s, SPOP_INTERLACED, out);
	if (frame->flags & FRAME_FLAG_ABORT) {
		/* HAProxy has given the NOTIFY up and waits for no ACK. */
		s->assembling = false;
		s->overflown = false;
		return SESSION_REPLIED;
	}
	append(s, frame);
	if (!(frame->flags & FRAME_FLAG_FIN))
		return SESSION_REPLIED;
	return deliver(s, frame, s->fragments, s->fragments_n);
}

enum session_rc session_on_frame(struct session *s, const struct session_settings *settings,
	const struct frame *frame, struct wire_writer *out)
{
	assert(wire_room(out) >= SESSION_OUT_MAX);
	if (s->state == SESSION_CLOSED)
		return SESSION_CLOSE;
	if (frame->type == FRAME_HAPROXY_DISCONNECT)
		return on_disconnect(s, frame, out); /* whenever it comes, it is a farewell */
	if (s->state == SESSION_NEW && frame->type == FRAME_HAPROXY_HELLO)
		return on_hello(s, settings, frame, out);
	if (s->state == SESSION_OPEN && frame->type == FRAME_NOTIFY)
		return on_notify(s, settings, frame, out);
	if (s->state == SESSION_OPEN && frame->type == FRAME_UNSET)
		return on_fragment(s, frame, out);
	/* Before HELLO, after a health check, a second HELLO, or a type that is not HAProxy's. */
	return session_disconnect(s, SPOP_INVALID, out);
}
