#include "base/timeline.h"

struct timeline timeline_start(usec_t steady, usec_t utc)
{
	return (struct timeline){ .offset = utc - steady, .high = utc };
}

struct now timeline_follow(struct timeline *t, usec_t steady, usec_t utc)
{
	/* Where UTC would be, had nobody set it since the last time: however long that is ago. */
	usec_t expected = steady + t->offset;
	if (expected - utc > TIMELINE_STEP_MAX)
		t->high = utc;
	t->offset = utc - steady;
	if (utc > t->high)
		t->high = utc;
	return (struct now){ .steady = steady, .utc = utc, .held = t->high - utc };
}
