#include "server/unlisted.h"

#include "base/log_tap.h"
#include "config/nearest.h"
#include "limit/override.h"

#define TELL_EVERY (600 * USEC_PER_SEC)

static const char unlisted[] = "tier_unlisted";

enum { SITES = 64 }; /* so that one name does not hide another */

static struct log_site *site_of(struct str tier)
{
	static struct log_site site[SITES];
	uint32_t hash = str_fnv(tier, 0);

	return &site[(hash ^ hash >> 16) % SITES];
}

static const char *where_from(const struct policy *p, const struct view *v, bool from_redis)
{
	const struct override *o = p->overrides ? overrides_find(p->overrides, v) : NULL;

	if (o && o->kind == OVERRIDE_TIER)
		return "override";
	return from_redis ? "redis" : "message";
}

static const char *meant(const struct policy *p, const char *tier)
{
	for (unsigned i = 0; i < p->tier_named; i++)
		if (is_slip(tier, p->tier[i].name))
			return p->tier[i].name;
	return "";
}

static __attribute__((noinline)) void tell(const struct policy *p, const struct plan *plan,
	const struct view *v, bool from_redis, struct log_site *site)
{
	bool shows_user = view_has(v, FIELD_USER) && !(p->secret >> FIELD_USER & 1);
	bool shows_tier = !(p->secret >> FIELD_TIER & 1);
	const struct log_field fields[] = {
		KV_STR("tier",
			shows_tier ? ((struct str){ plan->tier, plan->tier_length }) : STR("")),
		KV_Z("nearest", shows_tier ? meant(p, plan->tier) : ""),
		KV_STR("user", shows_user ? v->text[FIELD_USER] : STR("")),
		KV_Z("from", where_from(p, v, from_redis)),
		KV_Z("hint",
			"no rule lists this tier: it has what `default` says where a rule has one, else "
			"no limit by tier: mend its name, or list it (\"unlimited\" where that is meant)"),
		{ 0 },
	};
	log_put_every(site, TELL_EVERY, LOG_LEVEL_WARNING, unlisted, fields);
}

void unlisted_tell(const struct policy *p, const struct plan *plan, const struct view *v,
	bool from_redis, struct now now)
{
	struct str tier = { plan->tier, plan->tier_length };

	if (!p->lists_tiers || plan->outcome != OUTCOME_LIMITS)
		return;
	struct log_site *site = site_of(tier);
	if (now.steady < atomic_load_explicit(&site->next, memory_order_relaxed))
		return;
	/* A line that nobody reads has no next time: it would be composed for each check. */
	if (!log_enabled(LOG_LEVEL_WARNING) && !log_tap_is_wanted(LOG_LEVEL_WARNING, unlisted))
		return;
	if (policy_misses_tier(p, view_has(v, FIELD_TIER) ? v->text[FIELD_TIER] : tier))
		tell(p, plan, v, from_redis, site);
}
