/* Times as logs write them. Pure but for the local time zone (TZ), in which those are that name
 * none. */
#ifndef CTL_STAMP_H
#define CTL_STAMP_H

#include "base/clock.h"
#include "base/str.h"

#include <stdbool.h>

enum { STAMP_LOCAL = INT16_MAX };

struct stamp {
	int year, month, day, hour, minute, second; /* month: 1..12 */
	usec_t fraction;
	int zone; /* minutes east of UTC, or STAMP_LOCAL */
};

/* Both read what `text` begins with and return its length; 0: it is no such time, or has a field
 * that is out of range. */
size_t stamp_parse_log(struct str text, struct stamp *); /* 21/Nov/2026:16:33:01[.123][ +0100] */
size_t stamp_parse_iso(struct str text, struct stamp *); /* 2026-11-21T16:33:01[.123][Z|+01:00] */

/* A log's lines come in order: the last minute is remembered, as the calendar takes long. */
struct stamp_clock {
	bool known;
	struct stamp minute;
	int64_t seconds;
};

/* Unix time; -1: before 1970, or there is none. */
usec_t stamp_to_utc(struct stamp_clock *, const struct stamp *);

#endif
