/* Denials on their way from a worker to the log: a ring that counts what did not fit. */
#ifndef SERVER_EVENT_H
#define SERVER_EVENT_H

#include "base/addr.h"
#include "limit/decision.h"

/* A denial for the log, or what a rule in shadow mode would have denied; copied: what it came from
 * is gone when it is written. */
struct event {
	usec_t utc;
	bool shadow;
	enum reason reason;
	int64_t limit, retry_after;
	char rule[RULE_NAME_MAX + 1], tier[TIER_NAME_MAX + 1];
	char client[128]; /* the descriptor, or of who is blocked user and key: "ip=10.0.0.1",
			   * secrets hashed */
	char ip[ADDR_TEXT_MAX + 1];
	char endpoint[96]; /* METHOD:/path, cut */
};

/* One writer (a worker), one reader (control): never blocks; what does not fit is counted. */
struct event_ring;
struct event_ring *event_ring_new(unsigned capacity); /* a power of two */
void event_ring_free(struct event_ring *);
bool event_ring_put(struct event_ring *, const struct event *); /* false: full; counted */
/* Is there room? So that a flood of denials does not compose what would be dropped; where there is
 * none, that counts as one dropped. For shadow mode there is half of it: however many it would have
 * denied, those that are denied have their lines. The writer. */
bool event_ring_has_room(struct event_ring *, bool shadow);
bool event_ring_get(struct event_ring *, struct event *);            /* false: empty */
uint64_t event_ring_dropped(const struct event_ring *, bool shadow); /* since the start; reader */

#endif
