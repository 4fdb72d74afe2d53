/* Everything that is counted, summed over all who count: for the log, the metrics, the status. */
#ifndef SERVER_REPORT_H
#define SERVER_REPORT_H

#include "server/worker.h"
#include "store/bans.h"
#include "store/memory.h"

enum redis_counter {
#define X(name, kind, help) REDIS_COUNTER_##name,
	REDIS_COUNTERS(X)
#undef X
		REDIS_COUNTER_COUNT
};

struct report {
	uint64_t metric[METRIC_COUNT];
	uint64_t disconnects[2][DISCONNECT_CODES]; /* by the agent, by HAProxy */
	struct histogram_sum check_time, call_time;
	struct memory_stats memory;
	uint64_t bans_evicted;
	bool has_redis;
	uint64_t redis[REDIS_COUNTER_COUNT];
	unsigned workers;
	unsigned degraded; /* of these, whose store answers by the failure policy */
};

/* Who counts; borrowed. */
struct report_of {
	const struct metrics *own; /* control's */
	struct worker *const *worker;
	unsigned worker_n;
	const struct memory_store *memory;
	const struct bans *bans;
	bool has_redis;
};

/* Control thread. */
void report_sum(struct report *, const struct report_of *);
void report_log(const struct report *, enum log_level, const char *event);

#endif
