/* A whole connection, as the server runs it. Whatever comes: answers are whole frames that fit, the
 * state only goes on, a NOTIFY lies where it may, and memory stays within its bound.
 * Input: a byte whose lowest bit is `draining`, then the stream. */
#include "spop/session.h"

#include "spop/value.h"

#include <stdlib.h>

static const struct session_settings settings = {
	.max_frame_size = 1024,
	.accept_max = 4096,
	.reassembly_max = 300,
};

static void require(bool so)
{
	if (!so)
		abort();
}

/* HELLO or DISCONNECT, one, whole, as HAProxy reads them. */
static void require_answer(const uint8_t *out, const uint8_t *end, bool is_disconnect)
{
	enum spop_status status;
	struct frame f;

	require(frame_next(&out, end, FRAME_SIZE_MIN, &f, &status) == FRAME_OK && out == end);
	require(f.type == (is_disconnect ? FRAME_AGENT_DISCONNECT : FRAME_AGENT_HELLO));
	require(f.flags == FRAME_FLAG_FIN && f.stream_id == 0 && f.frame_id == 0);
	struct wire_reader r = { f.payload, f.payload + f.payload_n, false };
	while (wire_left(&r)) {
		struct str name;
		struct value v;
		require(arg_next(&r, &name, &v));
	}
}

static void read_notify(const struct session *s, const struct frame *f)
{
	const struct notify *n = &s->notify;
	uint64_t sum = 0;

	require(n->stream_id == f->stream_id && n->frame_id == f->frame_id);
	require(n->payload_n <= settings.accept_max && (!n->truncated || n->payload_n == 300));
	for (size_t i = 0; i < n->payload_n; i++)
		sum += n->payload[i]; /* each byte is there */
	require(sum <= 255 * (uint64_t)n->payload_n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	const uint8_t *p = data + 1, *end = data + size;
	struct session s;
	bool closed = false;

	session_init(&s, &settings);
	s.draining = data[0] & 1;
	while (!closed) {
		uint8_t out[SESSION_OUT_MAX];
		struct wire_writer w = { out, out + sizeof out, false };
		enum session_state before = s.state;
		enum spop_status status;
		struct frame f = { 0 };

		switch (frame_next(&p, end, session_frame_max(&s, &settings), &f, &status)) {
		case FRAME_PARTIAL:
			require(session_disconnect(&s, SPOP_TIMEOUT, &w) == SESSION_CLOSE);
			closed = true;
			break;
		case FRAME_BAD:
			require(session_disconnect(&s, status, &w) == SESSION_CLOSE);
			require(s.status == status && !s.by_peer);
			closed = true;
			break;
		case FRAME_OK:
			switch (session_on_frame(&s, &settings, &f, &w)) {
			case SESSION_REPLIED:
				require(s.state != SESSION_NEW && s.state != SESSION_CLOSED);
				break;
			case SESSION_NOTIFY:
				require(before == SESSION_OPEN && w.p == out);
				read_notify(&s, &f);
				break;
			case SESSION_CLOSE:
				closed = true;
			}
		}
		require(!w.bad && s.state >= before);
		require(closed == (s.state == SESSION_CLOSED));
		require(w.p > out || before != SESSION_NEW);
		if (w.p > out)
			require_answer(out, w.p, closed);
		require(s.fragments_n <= s.fragments_cap && s.fragments_cap <= 300);
		require(strlen(s.engine_id) < sizeof s.engine_id);
		if (s.state == SESSION_OPEN)
			require(s.send_max >= FRAME_SIZE_MIN && s.send_max <= 1024 &&
				s.receive_max >= s.send_max && s.receive_max <= 4096);
	}
	session_fini(&s);
	return 0;
}
