/* The answer: a decision as ACK bytes. */
#ifndef SERVER_ANSWER_H
#define SERVER_ANSWER_H

#include "base/wire.h"
#include "limit/answer.h"
#include "limit/decision.h"

#include <string.h>

/* All variables at their longest take less than this. */
enum { ANSWER_BYTES_MAX = 12288 };

/* Of most answers all bytes but two numbers follow from the limit that is reported and the tier: as
 * they were made for the last answer that told of both, by pieces that end where what differs is
 * put in. Made anew each time they take 300 instructions more. */
enum { ANSWER_PIECES = 3, PIECE_BYTES = 256, ANSWER_FORMS = 32 };

struct answer_form {
	const struct limit *limit; /* NULL: not made yet */
	uint32_t per_found, vars;  /* what it was made for, besides */
	int16_t tier_number;
	uint8_t tier_length;
	char tier[TIER_NAME_MAX]; /* where the policy knows no such name */
	uint32_t n[ANSWER_PIECES];
	uint8_t piece[ANSWER_PIECES][PIECE_BYTES];
};

struct answer_forms {
	struct answer_form form[ANSWER_FORMS]; /* by a hash of the limit's address */
};

/* Before the first answer by another policy: its limits may lie where others did. */
static inline void answer_forms_clear(struct answer_forms *f)
{
	memset(f, 0, sizeof *f);
}

/* Writes the actions of an ACK: the variables of `wanted` (bits by enum answer_var) that the
 * decision has, in the table's order; where there are none, `ack`. Those that do not fit are left
 * out from the end. Returns how many were left out. */
unsigned answer_put(struct wire_writer *, struct answer_forms *, uint32_t wanted,
	const struct policy *, const struct plan *, const struct decision *);

/* The one action of an ACK that decides nothing: `ack` = true. */
void answer_put_ack(struct wire_writer *);

#endif
