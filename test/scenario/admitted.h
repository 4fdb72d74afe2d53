/* What was admitted of a limit, and what must hold of it: for the models of leases. */
#ifndef TEST_SCENARIO_ADMITTED_H
#define TEST_SCENARIO_ADMITTED_H

#include "limit/policy.h"

/* Mon 2026-01-05T00:00:00Z, and a little: no window begins there. */
#define ORIGIN (INT64_C(1767571200) * USEC_PER_SEC + 12345)
#define MS     USEC_PER_MSEC

extern uint64_t seed_now;
extern unsigned failures;

/* Counts, and says on stderr with the seed, what does not. */
__attribute__((format(printf, 2, 3))) bool hold(bool ok, const char *format, ...);

struct admitted {
	usec_t at, redis_at;
	uint64_t order; /* of those at one instant */
	int64_t cost;   /* DENIED: it was not, and would have cost 1 */
};
#define DENIED (-1)

/* Sorts `list`. Never more than the quota at once, by real time (token bucket) or by Redis'
 * (windows), but for so much `besides`; and nothing was denied with more left than `leases` units.
 */
void admitted_check(
	const struct quota *, struct admitted *list, unsigned n, double leases, double besides);

/* One counter, without agents: whoever has a block does with it what he likes, as long as it lives,
 * and says so once, or never. */
void holders_run(uint64_t seed);

#endif
