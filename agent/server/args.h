/* The arguments of a check, read into a view. Their names come as a rule in the same order as the
 * last time: what they look like in a frame is remembered, and so told by comparing sixteen bytes.
 * All else takes the long way, and is right there. */
#ifndef SERVER_ARGS_H
#define SERVER_ARGS_H

#include "limit/view.h"
#include "spop/value.h"

enum { SHAPES_MAX = 16, SHAPE_BYTES = 16 };

/* What the name of the i-th argument looked like, with its length, as bytes of the frame. */
struct shape {
	uint64_t bytes[2], mask[2]; /* a mask of zeros never fits */
	uint64_t bit;               /* of its slot */
	uint8_t n;                  /* how many of the bytes count */
	uint8_t slot;               /* FIELD_MESSAGE for a name that nobody wants to know of */
};

/* Of one layout: to be cleared before the first view of another. */
struct shapes {
	struct shape shape[SHAPES_MAX];
};

void shapes_clear(struct shapes *);

/* Reads the next `n` arguments into the view; what is malformed is seen at r->bad. */
void args_load(struct shapes *, struct wire_reader *r, unsigned n, struct view *);

#endif
