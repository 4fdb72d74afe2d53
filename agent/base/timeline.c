#include "base/timeline.h"

/* Less than this is a clock being slewed, which windows may follow: no window is reopened by it for
 * longer than that. */
#define STEP_MIN (USEC_PER_SEC / 2)

struct timeline timeline_start(usec_t steady, usec_t utc)
{
	return (struct timeline){ .offset = utc - steady, .high = utc };
}

struct now timeline_follow(struct timeline *t, usec_t steady, usec_t utc)
{
	/* Where UTC would be had nobody set it since the last time, however long that is ago. */
	usec_t expected = steady + t->offset;

	t->offset = utc - steady;
	if (expected - utc > STEP_MIN && expected > t->high)
		t->high = expected;
	if (t->high - utc > TIMELINE_STEP_MAX)
		t->high = t->anchor = utc;
	if (utc > t->high)
		t->high = utc;
	return (struct now){ .steady = steady,
		.utc = utc,
		.held = t->high - utc,
		.anchor_age = t->high - t->anchor };
}
