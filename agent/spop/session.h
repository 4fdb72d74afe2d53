/* The SPOP state of one connection (not an HTTP session): HELLO, NOTIFY with reassembly of
 * fragments, DISCONNECT. Bytes in, bytes out: no socket, no time, no limits. */
#ifndef SPOP_SESSION_H
#define SPOP_SESSION_H

#include "spop/frame.h"

enum session_state {
	SESSION_NEW,
	SESSION_OPEN,
	SESSION_CHECKED, /* a health check was answered */
	SESSION_CLOSED,
};

enum session_rc {
	SESSION_REPLIED, /* go on; something may have been written to `out` */
	SESSION_NOTIFY,  /* session->notify is a whole NOTIFY: answer it with exactly one ACK */
	SESSION_CLOSE,   /* flush `out` (it may hold an AGENT-DISCONNECT), then close */
};

struct session_settings {
	uint32_t max_frame_size; /* ours */
	uint32_t accept_max;     /* absolute bound on a frame that is accepted */
	size_t reassembly_max;   /* bound on a NOTIFY put together from fragments, e.g. 65536 */
};

struct notify {
	uint64_t stream_id, frame_id;
	const uint8_t *payload;
	size_t payload_n;
	bool truncated; /* fragments went beyond reassembly_max: only the beginning is here */
};

struct session {
	enum session_state state;
	uint32_t send_max;    /* negotiated: frames sent are at most so long */
	uint32_t receive_max; /* frames accepted: what HAProxy advertised, within accept_max */
	bool pipelining;
	bool async; /* announced; never used, but up to HAProxy 3.0 only */
	bool healthcheck;
	bool draining; /* set by the owner: health checks are answered with a DISCONNECT */
	bool beyond;   /* set by the owner: all but health checks are */
	enum spop_status
		status;     /* after SESSION_CLOSE: ours if we closed, else what HAProxy sent */
	bool by_peer;       /* after SESSION_CLOSE: HAProxy said DISCONNECT */
	char engine_id[37]; /* for logs; cleaned of anything but [0-9A-Za-z-] */
	/* fragments of the NOTIFY that is being put together */
	bool assembling, overflown;
	uint64_t fragment_stream_id, fragment_frame_id;
	uint8_t *fragments; /* owned; allocated at the first fragment, kept */
	size_t fragments_n, fragments_cap;
	struct notify notify;
};

void session_init(struct session *, const struct session_settings *);
void session_fini(struct session *);

/* Bound for frame_next(): before HELLO our own size, after it receive_max. */
size_t session_frame_max(const struct session *, const struct session_settings *);

/* Handles one frame. `out` must have room for SESSION_OUT_MAX bytes. */
enum { SESSION_OUT_MAX = 512 };
enum session_rc session_on_frame(struct session *, const struct session_settings *,
	const struct frame *, struct wire_writer *out);

/* Would this frame be delivered as it is: SESSION_NOTIFY, with its own payload? */
static inline bool session_is_notify(const struct session *s, const struct frame *frame)
{
	return s->state == SESSION_OPEN && !s->assembling && frame->type == FRAME_NOTIFY &&
	       frame->flags & FRAME_FLAG_FIN;
}

/* Writes AGENT-DISCONNECT with `status` (once; later calls write nothing) and returns
 * SESSION_CLOSE: for a bad frame, a timeout, a drain. */
enum session_rc session_disconnect(struct session *, enum spop_status, struct wire_writer *out);

#endif
