#include "spop/frame.h"

const char *spop_status_text(enum spop_status status)
{
	switch (status) {
#define X(name, code, text) \
	case SPOP_##name: \
		return text;
		SPOP_STATUS(X)
#undef X
	}
	return "a status code that is not in the specification"; /* a peer may send any */
}

enum frame_rc frame_next(const uint8_t **p, const uint8_t *end, size_t max, struct frame *frame,
	enum spop_status *status)
{
	struct wire_reader r = { *p, end, false };

	if (wire_left(&r) < FRAME_LENGTH_BYTES)
		return FRAME_PARTIAL;
	uint32_t length = wire_get_u32(&r);
	if (length > max) {
		*status = SPOP_TOO_BIG;
		return FRAME_BAD;
	}
	if (length < FRAME_HEAD_MIN) {
		*status = SPOP_INVALID;
		return FRAME_BAD;
	}
	if (length > wire_left(&r))
		return FRAME_PARTIAL;

	r.end = r.p + length; /* what comes after belongs to the next frame */
	frame->type = wire_get_u8(&r);
	frame->flags = wire_get_u32(&r);
	frame->stream_id = wire_get_varint(&r);
	frame->frame_id = wire_get_varint(&r);
	if (r.bad) {
		*status = SPOP_INVALID;
		return FRAME_BAD;
	}
	frame->payload = r.p;
	frame->payload_n = wire_left(&r);
	*p = r.end;
	return FRAME_OK;
}

uint8_t *frame_begin_slow(
	struct wire_writer *w, enum frame_type type, uint64_t stream_id, uint64_t frame_id)
{
	uint8_t *length_word = w->p;

	wire_put_u32(w, 0);
	wire_put_u8(w, (uint8_t)type);
	wire_put_u32(w, FRAME_FLAG_FIN);
	wire_put_varint(w, stream_id);
	wire_put_varint(w, frame_id);
	return length_word;
}

void frame_end(struct wire_writer *w, uint8_t *length_word)
{
	if (w->bad)
		return;
	struct wire_writer at = { length_word, length_word + FRAME_LENGTH_BYTES, false };
	wire_put_u32(&at, (uint32_t)(w->p - at.end));
}
