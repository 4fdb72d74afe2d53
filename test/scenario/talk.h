/* Both ends of one exchange, written from SPOE.txt and not from agent/: what HAProxy would send as
 * a NOTIFY, and a strict reader of the ACK that it gets. Tests that used the agent's own codec on
 * both sides would not see a mistake that is made twice. */
#ifndef SCENARIO_TALK_H
#define SCENARIO_TALK_H

#include "spop/value.h"

enum { TALK_ARGS_MAX = 64, TALK_MESSAGES_MAX = 8, TALK_VARIABLES_MAX = 32, TALK_NAME_MAX = 63 };

struct talk_arg {
	struct str name;
	struct value value;
};

struct talk_message {
	struct str name;
	struct talk_arg arg[TALK_ARGS_MAX];
	unsigned n;
};

/* The payload of a NOTIFY in memory of exactly its size (an over-read is then seen); the caller
 * frees it. NULL: out of memory. */
uint8_t *talk_notify(const struct talk_message *, unsigned messages, size_t *size);

struct talk_variable {
	char name[TALK_NAME_MAX + 1];
	enum value_type type;
	int64_t number;  /* of integers and booleans */
	struct str text; /* of strings; points into the frame */
};

struct talk_ack {
	struct talk_variable variable[TALK_VARIABLES_MAX];
	unsigned n;
};

/* One whole ACK of `size` bytes that answers (stream_id, frame_id), at most `send_max` after its
 * length word. false: `why` says what about it HAProxy would not take, or CONTRACT.md forbids. */
bool talk_ack_read(const uint8_t *bytes, size_t size, uint64_t stream_id, uint64_t frame_id,
	uint32_t send_max, struct talk_ack *, char *why, size_t why_size);

/* NULL: not set. */
const struct talk_variable *talk_ack_find(const struct talk_ack *, const char *name);

#endif
