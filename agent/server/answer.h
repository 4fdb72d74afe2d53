/* The answer: a decision as ACK bytes. */
#ifndef SERVER_ANSWER_H
#define SERVER_ANSWER_H

#include "base/wire.h"
#include "limit/answer.h"
#include "limit/decision.h"

/* All variables at their longest take less than this. */
enum { ANSWER_BYTES_MAX = 12288 };

/* Writes the actions of an ACK: the variables of `wanted` (bits by enum answer_var) that the
 * decision has, in the table's order; where there are none, `ack`. Those that do not fit are left
 * out from the end. Returns how many were left out. */
unsigned answer_put(struct wire_writer *, uint32_t wanted, const struct policy *,
	const struct plan *, const struct decision *, struct now);

/* The one action of an ACK that decides nothing: `ack` = true. */
void answer_put_ack(struct wire_writer *);

#endif
