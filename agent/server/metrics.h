/* Counters: one writer each (a worker, or control), summed on read. One table names them. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "base/histogram.h"
#include "spop/frame.h"

#define METRICS(X) \
	X(connections_accepted, COUNTER, "SPOP connections accepted") \
	X(connections_refused, COUNTER, \
		"connections refused: max_connections, allow_from, or no descriptors left") \
	X(connections_closed, COUNTER, "SPOP connections that have ended") \
	X(connections_open, GAUGE, "SPOP connections open now") \
	X(health_checks, COUNTER, "health checks answered") \
	X(frames_received, COUNTER, "frames received") \
	X(frames_bad, COUNTER, "frames answered with a DISCONNECT that names an error") \
	X(fragments_truncated, COUNTER, \
		"NOTIFYs longer than can be put together, decided on their beginning") \
	X(timeouts, COUNTER, \
		"connections closed for not finishing a HELLO, a frame or a read in time") \
	X(notifies, COUNTER, "NOTIFYs answered") \
	X(messages_ignored, COUNTER, "messages that are no check, or came after one") \
	X(checks_allowed, COUNTER, "checks answered allow") \
	X(checks_denied, COUNTER, "checks answered deny") \
	X(checks_limited, COUNTER, "of the denied: over a limit") \
	X(checks_oversize, COUNTER, "of the denied: cost above what could ever pass") \
	X(checks_blocked, COUNTER, "of the denied: on the block list") \
	X(checks_banned, COUNTER, "of the denied: banned by a penalty") \
	X(bans_begun, COUNTER, "bans that penalties began") \
	X(strikes_dropped, COUNTER, \
		"denials that no penalty counted: too many of them wait for the store") \
	X(checks_bypassed, COUNTER, "of the allowed: on the allow list") \
	X(checks_disabled, COUNTER, "of the allowed: limiting is switched off") \
	X(checks_shadow, COUNTER, "checks that a rule in shadow mode would have denied") \
	X(checks_tagged, COUNTER, "checks tagged by a rule with action = \"tag\"") \
	X(checks_warned, COUNTER, "checks answered with warn") \
	X(checks_degraded, COUNTER, "checks answered by the failure policy, the store being away") \
	X(checks_waiting, GAUGE, "checks that wait for the store now") \
	X(checks_unpooled, COUNTER, \
		"checks answered by the failure policy for want of room to wait") \
	X(checks_unkept, COUNTER, \
		"checks for which Redis was not asked for the tier: too many long NOTIFYs waited") \
	X(tiers_changed, COUNTER, \
		"times that tiers were read from Redis anew, for a change there") \
	X(checks_abandoned, COUNTER, \
		"checks whose connection ended before the store had answered") \
	X(actions_dropped, COUNTER, "ACKs that had to leave variables out for want of frame size") \
	X(busy_polls, COUNTER, \
		"times that a worker waited awake for more traffic: agent.busy_poll") \
	X(reloads, COUNTER, "reloads that were taken over") \
	X(reloads_refused, COUNTER, "reloads that were refused, with the old configuration kept")

enum metric {
#define X(name, kind, help) METRIC_##name,
	METRICS(X)
#undef X
		METRIC_COUNT
};

/* Codes of DISCONNECT as they are counted: those of the specification, and all others. */
enum disconnect_code {
#define X(name, code, text) DISCONNECT_##name,
	SPOP_STATUS(X)
#undef X
		DISCONNECT_CODES
};

struct metrics {
	_Alignas(64) _Atomic(uint64_t) value[METRIC_COUNT];
	_Atomic(uint64_t) disconnects[2][DISCONNECT_CODES]; /* by the agent, by HAProxy */
	struct histogram check_time; /* of a check, from recv to its answer written */
};

/* Only the owner writes: a plain load and store is enough. */
static inline void metric_add(struct metrics *m, enum metric id, uint64_t n)
{
	uint64_t v = atomic_load_explicit(&m->value[id], memory_order_relaxed);
	atomic_store_explicit(&m->value[id], v + n, memory_order_relaxed);
}

static inline void metric_disconnect(struct metrics *m, bool by_peer, unsigned code)
{
	unsigned i = code < DISCONNECT_UNKNOWN ? code : DISCONNECT_UNKNOWN;
	uint64_t v = atomic_load_explicit(&m->disconnects[by_peer][i], memory_order_relaxed);
	atomic_store_explicit(&m->disconnects[by_peer][i], v + 1, memory_order_relaxed);
}

#endif
