/* Frames: whatever the bytes, what is found lies within them, is found again from the same bytes
 * however they arrive, and is written as it was read. Input: two bytes of bound, then the stream.
 */
#include "spop/frame.h"

#include <stdlib.h>

static void require(bool so)
{
	if (!so)
		abort();
}

static void write_again(const struct frame *f, const uint8_t *start, const uint8_t *end)
{
	static uint8_t bytes[1 << 17];
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	uint8_t *length_word = frame_begin(&w, (enum frame_type)f->type, f->stream_id, f->frame_id);

	wire_put_bytes(&w, f->payload, f->payload_n);
	frame_end(&w, length_word);
	require(!w.bad && w.p - bytes == end - start);
	struct wire_writer flags = { bytes + 5, bytes + 9, false };
	wire_put_u32(&flags, f->flags);
	require(memcmp(bytes, start, (size_t)(w.p - bytes)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	size_t max = (size_t)data[0] << 8 | data[1];
	const uint8_t *p = data + 2, *end = data + size;

	for (;;) {
		const uint8_t *start = p;
		enum spop_status status = SPOP_NORMAL;
		struct frame f = { 0 };
		enum frame_rc rc = frame_next(&p, end, max, &f, &status);

		if (rc != FRAME_OK) {
			require(p == start);
			require((rc == FRAME_BAD) == (status != SPOP_NORMAL));
			return 0;
		}
		require(p > start && p <= end);
		require(f.payload >= start && f.payload + f.payload_n == p);
		require((size_t)(p - start) <= max + FRAME_LENGTH_BYTES);
		write_again(&f, start, p);

		/* One byte less is waited for, and nothing else. */
		const uint8_t *again = start;
		require(frame_next(&again, p - 1, max, &f, &status) == FRAME_PARTIAL);
		require(again == start);
	}
}
