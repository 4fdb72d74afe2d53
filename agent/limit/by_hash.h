/* Counters of a key of which only the SHA-256 is known. A counter is a keyed hash of the key
 * itself, so no hash leads to it: somebody has to remember which descriptor went with which hash.
 * Pure. */
#ifndef LIMIT_BY_HASH_H
#define LIMIT_BY_HASH_H

#include "limit/plan.h"

/* Does the take count by a key that is secret, and has the view all that it counts by? (One that
 * was read once more, from a NOTIFY that was kept in part, may not.) */
bool take_has_name_by_hash(const struct policy *, const struct take *, const struct view *);

/* The take's descriptor by a name that needs no more than the key's SHA-256 in lower-case hex,
 * `hex`; the other fields are the view's. */
struct key take_name_by_hash(const struct policy *, const struct take *, const struct view *,
	const char hex[SHA256_HEX_BYTES]);

/* What it hashes to, which is in its keys: the same for all limits that count by it. */
struct key take_descriptor(const struct take *);
void take_set_descriptor(struct take *, struct key descriptor);

/* Who remembers. */
struct by_hash {
	bool (*find)(void *with, const struct key *name, struct key *descriptor); /* NULL: nobody */
	void *with;
};

#endif
