/* The lines of the log that are nobody else's: at the start, of denials, of a full table, and the
 * statistics now and then. Control thread. */
#ifndef SERVER_NOTICES_H
#define SERVER_NOTICES_H

#include "config/snapshot.h"
#include "server/listener.h"
#include "server/report.h"
#include "store/bans.h"

struct notices;

struct notices *notices_new(const struct memory_store *, struct now); /* NULL: out of memory */
void notices_free(struct notices *);                                  /* NULL is fine */

struct notices_started {
	const char *version;
	const struct snapshot *snapshot;
	const struct listeners *listeners;
	unsigned threads;
	bool has_redis;
};

/* What runs now, a line for each listener and each rule. */
void notices_start(const struct notices *, const struct notices_started *);

/* A warning where nothing is limited, however that came. Also after a reload. */
void notices_tell_disabled(const struct policy *);

/* Reads what the workers tell of denials, and writes a line for some of them (denials.h). Call it
 * some times a second: what finds no room in a worker's ring is only counted. */
void notices_read(struct notices *, struct worker *const *, unsigned workers);

/* Once a second: the denials that got no line of their own. */
void notices_sum_up(struct notices *, struct worker *const *, unsigned workers);

/* A warning, at most once a minute, if live keys had to go since the last one. */
void notices_look_at_table(struct notices *, const struct snapshot *, struct now);

/* The same of bans that held. */
void notices_look_at_bans(struct notices *, const struct bans *, struct now);

/* A warning if the wall clock was set, by a second or more, since the last look: calendar windows
 * follow it (base/timeline.h). Once a second. */
void notices_look_at_clock(struct notices *, struct now);

/* Is it time for statistics again? Once a minute. */
bool notices_stats_are_due(struct notices *, struct now);

#endif
