#include "server/notices.h"

#include "server/denials.h"

#include <stdlib.h>

#define STATS_EVERY      (60 * USEC_PER_SEC)
#define TABLE_FULL_EVERY (60 * USEC_PER_SEC)
#define CLOCK_STEP_MIN   USEC_PER_SEC /* less moves no window that matters */

struct notices {
	struct denials *denials;
	const struct memory_store *memory;
	uint64_t dropped[2]; /* events, and of shadow mode, as of the last second summed up */
	uint64_t evicted, evicted_limited, bans_evicted; /* as of the last warning of each */
	usec_t table_full_at, bans_full_at, stats_at;    /* steady */
	usec_t clock_offset;                             /* UTC less steady, as of the last look */
};

struct notices *notices_new(const struct memory_store *memory, struct now now)
{
	struct notices *n = calloc(1, sizeof *n);
	if (!n)
		return NULL;
	n->denials = denials_new();
	if (!n->denials) {
		free(n);
		return NULL;
	}
	n->memory = memory;
	struct memory_stats s = memory_store_stats(memory);
	n->evicted = s.evicted;
	n->evicted_limited = s.evicted_limited;
	n->stats_at = now.steady;
	n->clock_offset = now.utc - now.steady;
	return n;
}

void notices_free(struct notices *n)
{
	if (!n)
		return;
	denials_free(n->denials);
	free(n);
}

void notices_tell_disabled(const struct policy *policy)
{
	if (!policy->enabled)
		log_warning("disabled",
			KV_Z("what",
				"limiting is off: every request passes, whatever the rules say"),
			KV_Z("hint", "it is on again with enabled = true, or `ratelimitctl enable` "
				     "where an operator has switched it off"));
}

void notices_start(const struct notices *n, const struct notices_started *s)
{
	const struct policy *policy = s->snapshot->policy;
	log_info("started", KV_Z("version", s->version),
		KV_INT("generation", s->snapshot->generation), KV_INT("listen", s->listeners->n),
		KV_INT("threads", s->threads), KV_Z("store", s->has_redis ? "redis" : "memory"),
		KV_INT("max_keys", s->snapshot->settings.store.max_keys),
		KV_INT("keys", memory_store_stats(n->memory).keys), KV_INT("rules", policy->rule_n),
		KV_Z("enabled", policy->enabled ? "true" : "false"));
	notices_tell_disabled(policy);
	for (unsigned i = 0; i < s->listeners->n; i++)
		log_info("listening", KV_Z("addr", s->listeners->at[i].text));
	for (unsigned i = 0; i < policy->rule_n; i++) {
		char text[1024];
		size_t length = snapshot_describe_rule(
			s->snapshot, &policy->rule[i], text, sizeof text);
		log_info("rule", KV_STR("text", ((struct str){ text, length })));
	}
}

static void log_denial(const struct event *e)
{
	log_info(e->shadow ? "shadow" : "denied", KV_Z("client", e->client), KV_Z("ip", e->ip),
		KV_Z("rule", e->rule), KV_Z("reason", reason_name(e->reason)),
		KV_INT("limit", e->limit), KV_INT("retry_after", e->retry_after),
		KV_Z("tier", e->tier), KV_Z("endpoint", e->endpoint));
}

void notices_read(struct notices *n, struct worker *const *worker, unsigned workers)
{
	struct event event;
	for (unsigned i = 0; i < workers; i++)
		while (event_ring_get(worker_events(worker[i]), &event))
			if (denials_take(n->denials, &event))
				log_denial(&event);
}

void notices_sum_up(struct notices *n, struct worker *const *worker, unsigned workers)
{
	static const char *const event[] = { "denied_more", "shadow_more" };
	struct denials_more more;
	while (denials_next(n->denials, &more))
		log_info(event[more.shadow], KV_Z("rule", more.rule),
			KV_Z("reason", reason_name(more.reason)), KV_INT("count", more.count));
	for (unsigned shadow = 0; shadow < 2; shadow++) {
		uint64_t dropped = 0;
		for (unsigned i = 0; i < workers; i++)
			dropped += event_ring_dropped(worker_events(worker[i]), shadow);
		if (dropped != n->dropped[shadow])
			log_info(event[shadow], KV_Z("rule", "any"),
				KV_INT("count", dropped - n->dropped[shadow]));
		n->dropped[shadow] = dropped;
	}
}

void notices_look_at_table(struct notices *n, const struct snapshot *snapshot, struct now now)
{
	struct memory_stats s = memory_store_stats(n->memory);
	if (s.evicted == n->evicted ||
		(n->table_full_at && now.steady - n->table_full_at < TABLE_FULL_EVERY))
		return;
	log_warning("table_full", KV_INT("max_keys", snapshot->settings.store.max_keys),
		KV_INT("evicted", s.evicted - n->evicted),
		KV_INT("evicted_at_their_limit", s.evicted_limited - n->evicted_limited),
		KV_Z("hint", "raise store.max_keys, or count by fewer different values (per)"));
	n->evicted = s.evicted;
	n->evicted_limited = s.evicted_limited;
	n->table_full_at = now.steady;
}

void notices_look_at_bans(struct notices *n, const struct bans *bans, struct now now)
{
	uint64_t evicted = bans_evicted(bans);
	if (evicted == n->bans_evicted ||
		(n->bans_full_at && now.steady - n->bans_full_at < TABLE_FULL_EVERY))
		return;
	log_warning("bans_full", KV_INT("evicted", evicted - n->bans_evicted),
		KV_INT("bans", bans_count(bans)), KV_INT("bans_max", BANS_MAX),
		KV_Z("hint",
			"shorter bans (penalty), or block whole networks: ratelimitctl override "
			"add ip=PREFIX --block"));
	n->bans_evicted = evicted;
	n->bans_full_at = now.steady;
}

void notices_look_at_clock(struct notices *n, struct now now)
{
	usec_t offset = now.utc - now.steady, by = offset - n->clock_offset;
	if (by > -CLOCK_STEP_MIN && by < CLOCK_STEP_MIN)
		return;
	n->clock_offset = offset;
	log_warning("clock_stepped",
		KV_INT("by_seconds", (by + (by > 0 ? 1 : -1) * USEC_PER_SEC / 2) / USEC_PER_SEC),
		KV_Z("what",
			by > 0     ? "windows that the new time is beyond have ended; token "
				     "buckets follow another clock, and gave nothing"
			: now.held ? "windows stand still until the time is again where it was"
				   : "windows begin by the new time; what was counted before stays "
				     "counted in them"),
		KV_Z("hint", "see the time service of this machine; if counters are wrong now: "
			     "`ratelimitctl reset --rule RULE`, or --all"));
}

bool notices_stats_are_due(struct notices *n, struct now now)
{
	if (now.steady - n->stats_at < STATS_EVERY)
		return false;
	n->stats_at = now.steady;
	return true;
}
