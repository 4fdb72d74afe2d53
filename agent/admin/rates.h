/* How much is decided in a second and in a minute: a sample each second, kept for a minute. Pure.
 */
#ifndef ADMIN_RATES_H
#define ADMIN_RATES_H

#include <stdint.h>

enum { RATES_KEPT = 61 };

struct rates {
	struct rates_sample {
		uint64_t allowed, denied; /* since the start */
	} sample[RATES_KEPT];
	unsigned at, n; /* the next place; how many there are */
};

/* Once a second. */
void rates_add(struct rates *, uint64_t allowed, uint64_t denied);

struct rates_over {
	uint64_t allowed, denied;
	unsigned seconds;   /* that there were; 0: none yet */
	double denial_rate; /* denied share, 0 to 1; 0 where nothing was decided */
};

/* Of the last `seconds`, or of as many as there are. */
struct rates_over rates_of(const struct rates *, unsigned seconds);

#endif
