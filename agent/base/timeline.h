/* What calendar windows follow when the wall clock is set while the process runs.
 *
 * A step forward is followed at once. A step back of up to a minute must not reopen a window: the
 * windows' clock stands still until UTC has caught up. A longer one, or more of them in a row,
 * re-anchors: the windows' clock goes back with UTC, and counters keep what was consumed. What it
 * shows then is its anchor: windows that lie beyond it were charged by the clock before, and are
 * read as of the anchor, so that the time since counts (limit/algorithm.h). Pure. */
#ifndef BASE_TIMELINE_H
#define BASE_TIMELINE_H

#include "base/clock.h"

#define TIMELINE_STEP_MAX (60 * USEC_PER_SEC)

struct timeline {
	usec_t offset; /* UTC - steady when last read */
	usec_t high;   /* the latest that windows were read at */
	usec_t anchor; /* what that was when it last went back; 0: it never did */
};

struct timeline timeline_start(usec_t steady, usec_t utc);

/* Both clocks as just read -> what the rest of the program is told. */
struct now timeline_follow(struct timeline *, usec_t steady, usec_t utc);

#endif
