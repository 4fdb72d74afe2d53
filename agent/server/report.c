#include "server/report.h"

static void add_metrics(struct report *r, const struct metrics *m)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		r->metric[i] += atomic_load_explicit(&m->value[i], memory_order_relaxed);
	for (unsigned by = 0; by < 2; by++)
		for (unsigned i = 0; i < DISCONNECT_CODES; i++)
			r->disconnects[by][i] += atomic_load_explicit(
				&m->disconnects[by][i], memory_order_relaxed);
	histogram_read(&r->check_time, &m->check_time);
}

static void add_redis(struct report *r, const struct redis_stats *s)
{
	unsigned n = 0;
#define X(name, kind, help) r->redis[n++] += atomic_load_explicit(&s->name, memory_order_relaxed);
	REDIS_COUNTERS(X)
#undef X
	histogram_read(&r->call_time, &s->call_time);
	r->degraded += atomic_load_explicit(&s->degraded, memory_order_relaxed);
}

void report_sum(struct report *r, const struct report_of *of)
{
	*r = (struct report){ .workers = of->worker_n, .has_redis = of->has_redis };
	add_metrics(r, of->own);
	for (unsigned i = 0; i < of->worker_n; i++) {
		const struct redis_stats *redis = worker_redis(of->worker[i]);
		add_metrics(r, worker_metrics(of->worker[i]));
		if (redis)
			add_redis(r, redis);
	}
	r->memory = memory_store_stats(of->memory);
	r->bans_evicted = bans_evicted(of->bans);
}

void report_log(const struct report *r, enum log_level level, const char *event)
{
	static const char *const names[] = {
#define X(name, kind, help) #name,
		METRICS(X)
#undef X
	};
	static const char *const redis_names[] = {
#define X(name, kind, help) "redis_" #name,
		REDIS_COUNTERS(X)
#undef X
	};
	struct log_field fields[METRIC_COUNT + REDIS_COUNTER_COUNT + 4] = { 0 };
	unsigned n = 0;
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		fields[n++] = (struct log_field)KV_INT(names[i], r->metric[i]);
	fields[n++] = (struct log_field)KV_INT("keys", r->memory.keys);
	fields[n++] = (struct log_field)KV_INT("keys_expired", r->memory.expired);
	fields[n++] = (struct log_field)KV_INT("keys_evicted", r->memory.evicted);
	for (unsigned i = 0; r->has_redis && i < REDIS_COUNTER_COUNT; i++)
		fields[n++] = (struct log_field)KV_INT(redis_names[i], r->redis[i]);
	log_put(level, event, fields);
}
