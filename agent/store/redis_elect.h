/* Who is master, by what several sentinels said last. Pure. */
#ifndef STORE_REDIS_ELECT_H
#define STORE_REDIS_ELECT_H

#include "base/clock.h"
#include "store/redis_address.h"

/* Of one sentinel. */
struct redis_opinion {
	struct redis_addresses masters; /* n 0: that is a name, and not looked up yet */
	usec_t heard_at, changed_at;    /* heard_at 0: never; since when it says so */
};

#define REDIS_OPINION_LASTS (5 * USEC_PER_SEC)

/* Whom most of them name first; of as many, whom one has come to name last. n 0: nobody has an
 * opinion that is not too old. */
void redis_elect(const struct redis_opinion *const opinion[], unsigned n, usec_t now,
	struct redis_addresses *out);

#endif
