/* Frames: length word, type, flags, stream-id, frame-id, payload (SPOE.txt 3.2). Bytes in, bytes
 * out; knows nothing of sockets, limits or time. */
#ifndef SPOP_FRAME_H
#define SPOP_FRAME_H

#include "base/wire.h"

enum frame_type {
	FRAME_UNSET = 0, /* the next fragment */
	FRAME_HAPROXY_HELLO = 1,
	FRAME_HAPROXY_DISCONNECT = 2,
	FRAME_NOTIFY = 3,
	FRAME_AGENT_HELLO = 101,
	FRAME_AGENT_DISCONNECT = 102,
	FRAME_ACK = 103,
};

enum { FRAME_FLAG_FIN = 1, FRAME_FLAG_ABORT = 2 };

/* SPOE.txt 3.5; X(name, code, text that goes on the wire) */
#define SPOP_STATUS(X) \
	X(NORMAL, 0, "normal") \
	X(IO, 1, "I/O error") \
	X(TIMEOUT, 2, "a timeout occurred") \
	X(TOO_BIG, 3, "frame is too big") \
	X(INVALID, 4, "invalid frame received") \
	X(NO_VERSION, 5, "version value not found") \
	X(NO_MAX_FRAME_SIZE, 6, "max-frame-size value not found") \
	X(NO_CAPABILITIES, 7, "capabilities value not found") \
	X(BAD_VERSION, 8, "unsupported version") \
	X(BAD_MAX_FRAME_SIZE, 9, "max-frame-size too big or too small") \
	X(NO_FRAGMENTATION, 10, "fragmentation not supported") \
	X(INTERLACED, 11, "invalid interlaced frames") \
	X(NO_FRAME_ID, 12, "frame-id not found") \
	X(NO_RESOURCE, 13, "resource allocation error") \
	X(UNKNOWN, 99, "an unknown error occurred")

enum spop_status {
#define X(name, code, text) SPOP_##name = code,
	SPOP_STATUS(X)
#undef X
};

const char *spop_status_text(enum spop_status);

enum { FRAME_SIZE_MIN = 256, FRAME_LENGTH_BYTES = 4, FRAME_HEAD_MIN = 7, FRAME_HEAD_MAX = 29 };

struct frame {
	uint8_t type;
	uint32_t flags;
	uint64_t stream_id, frame_id;
	const uint8_t *payload;
	size_t payload_n;
};

enum frame_rc { FRAME_OK, FRAME_PARTIAL, FRAME_BAD };

/* The next frame of [*p, end), in place. FRAME_OK: *p is moved past it. FRAME_PARTIAL: wait for
 * more (the length word was checked against `max` as soon as it was there). FRAME_BAD: *status. */
enum frame_rc frame_next(const uint8_t **p, const uint8_t *end, size_t max, struct frame *,
	enum spop_status *status);

/* Of frame_begin(), where there may be no room. */
uint8_t *frame_begin_slow(
	struct wire_writer *, enum frame_type, uint64_t stream_id, uint64_t frame_id);

/* Begins a frame: everything up to the payload; returns where its length word is to be put by
 * frame_end(). On w->bad nothing counts. */
static inline uint8_t *frame_begin(
	struct wire_writer *w, enum frame_type type, uint64_t stream_id, uint64_t frame_id)
{
	/* HAProxy wants the flag on every frame of an agent. */
	const uint8_t head[] = { 0, 0, 0, 0, (uint8_t)type, 0, 0, 0, FRAME_FLAG_FIN };
	uint8_t *length_word = w->p;

	/* Nearly always there is room for the longest, which is looked at once then. */
	if (w->bad || wire_room(w) < FRAME_LENGTH_BYTES + FRAME_HEAD_MAX)
		return frame_begin_slow(w, type, stream_id, frame_id);
	memcpy(w->p, head, sizeof head);
	w->p = varint_put(varint_put(w->p + sizeof head, stream_id), frame_id);
	return length_word;
}

void frame_end(struct wire_writer *, uint8_t *length_word);

#endif
