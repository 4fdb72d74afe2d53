#include "ctl/replay_run.h"

#include "config/json.h"
#include "ctl/replay_count.h"
#include "store/bans.h"
#include "store/memory.h"

#include <stdlib.h>

#define SWEEP_EVERY (60 * USEC_PER_SEC)
/* After so long a pause every counter is full again, and a store's clock may not jump farther. */
#define PAUSE_MAX (740 * USEC_PER_DAY)

enum { SWEEP_BUDGET = 256 };

struct replay_run {
	const struct snapshot *snapshot;
	const struct hash_key *key;
	struct memory_store *store; /* NULL before the first request */
	struct bans *bans;          /* NULL: there are no penalties */
	struct replay_count *count;
	struct plan plan;
	usec_t first, latest, swept; /* UTC */
	uint64_t late, evicted;
	usec_t late_by;
	uint64_t seen; /* slots that some request had */
};

struct replay_run *replay_run_new(const struct snapshot *s, const struct hash_key *key)
{
	struct replay_run *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->snapshot = s;
	r->key = key;
	r->count = replay_count_new(s->policy);
	if (s->policy->has_penalties)
		r->bans = bans_new();
	if (r->count && (r->bans || !s->policy->has_penalties))
		return r;
	replay_run_free(r);
	return NULL;
}

static void close_store(struct replay_run *r)
{
	if (!r->store)
		return;
	r->evicted += memory_store_stats(r->store).evicted;
	store_close(memory_store_base(r->store));
	r->store = NULL;
}

void replay_run_free(struct replay_run *r)
{
	if (!r)
		return;
	close_store(r);
	bans_free(r->bans);
	replay_count_free(r->count);
	free(r);
}

/* ---- time ---- */

static struct now now_of(const struct replay_run *r)
{
	return (struct now){ .steady = r->latest, .utc = r->latest };
}

static bool follow(struct replay_run *r, usec_t utc)
{
	bool began = r->store != NULL;

	if (began && utc < r->latest) {
		r->late++;
		if (r->latest - utc > r->late_by)
			r->late_by = r->latest - utc;
		return true;
	}
	if (began && utc - r->latest > PAUSE_MAX)
		close_store(r);
	r->latest = utc;
	if (!began)
		r->first = utc;
	if (!r->store) {
		r->swept = utc;
		r->store = memory_store_new(
			(uint64_t)r->snapshot->settings.store.max_keys, r->key, now_of(r));
	} else if (utc - r->swept >= SWEEP_EVERY) {
		r->swept = utc;
		(void)memory_store_sweep(r->store, now_of(r), SWEEP_BUDGET);
	}
	return r->store != NULL;
}

/* ---- penalties ---- */

static void find_ban(struct replay_run *r)
{
	usec_t until = r->bans && r->plan.outcome == OUTCOME_LIMITS
			       ? bans_find(r->bans, &r->plan, r->latest, &r->plan.banned)
			       : 0;

	if (!until)
		return;
	r->plan.outcome = OUTCOME_BANNED;
	r->plan.banned_until = until;
}

/* The plan was denied: who has had one too many is banned. */
static void count_strikes(struct replay_run *r)
{
	struct plan strikes;
	uint8_t of[PLAN_MAX];

	if (!r->bans || r->plan.outcome != OUTCOME_LIMITS || !plan_strikes(&r->plan, &strikes, of))
		return;
	for (unsigned i = 0; i < strikes.n; i++) {
		const struct take *t = &r->plan.take[of[i]];
		struct key key = take_ban_key(t);
		strikes_begin_anew(&strikes.take[i],
			bans_epoch_to_count(r->bans, &key, t->limit->rule->penalty, r->latest));
	}
	(void)store_take(memory_store_base(r->store), &strikes, now_of(r));
	for (unsigned i = 0; i < strikes.n; i++) {
		const struct take *t = &r->plan.take[of[i]];
		struct ban ban = { .key = take_ban_key(t) };
		if (take_is_out(&strikes.take[i]) &&
			bans_begin(r->bans, t->limit->rule->penalty, &ban, r->latest))
			replay_count_ban(r->count, t->limit->rule);
	}
}

/* ---- requests ---- */

bool replay_run_take(struct replay_run *r, struct view *view, usec_t utc)
{
	struct plan *plan = &r->plan;

	if (!follow(r, utc))
		return false;
	r->seen |= (view->present & ~(1ull << FIELD_MESSAGE)) | view->integer |
		   (view->seen & 1ull << FIELD_MESSAGE);
	policy_plan(r->snapshot->policy, view, plan);
	plan->now = now_of(r);
	find_ban(r);
	if (plan->outcome == OUTCOME_LIMITS && plan->n)
		(void)store_take(memory_store_base(r->store), plan, now_of(r));
	struct decision d = decide(plan, now_of(r));
	replay_count_add(r->count, plan, &d, view, r->latest);
	if (d.deny)
		count_strikes(r);
	return true;
}

/* ---- what came of it ---- */

/* The rest follows from these, or is there in any case. */
static uint64_t asked_for(uint64_t slots)
{
	const uint64_t path = 1ull << FIELD_METHOD | 1ull << FIELD_PATH;
	const uint64_t derived = 1ull << FIELD_ENDPOINT | 1ull << FIELD_TIER;

	return (slots >> FIELD_ENDPOINT & 1 ? slots | path : slots) & ~derived;
}

static uint64_t alternatives(const struct per *per)
{
	uint64_t slots = 0;

	for (unsigned a = 0; a < per->n; a++)
		slots |= 1ull << per->slot[a];
	return slots;
}

/* `cost` itself every rule looks at that names no other. */
static uint64_t looked_at_by(const struct rule *r)
{
	uint64_t slots = r->match ? match_slots(r->match) : 0;

	for (unsigned e = 0; e < r->per_n; e++)
		slots |= alternatives(&r->per[e]);
	if (r->cost_slot != FIELD_COST)
		slots |= 1ull << r->cost_slot;
	return asked_for(slots);
}

/* What rules, lists and the tiers file look at. */
static uint64_t looked_at(const struct policy *p)
{
	uint64_t slots = p->tier_map ? 1ull << FIELD_USER | 1ull << FIELD_KEY : 0;

	for (unsigned i = 0; i < p->allow_n; i++)
		slots |= match_slots(p->allow[i]);
	for (unsigned i = 0; i < p->block_n; i++)
		slots |= match_slots(p->block[i]);
	slots = asked_for(slots);
	for (unsigned i = 0; i < p->rule_n; i++)
		slots |= looked_at_by(&p->rule[i]);
	return slots;
}

static bool is_unknown(const struct replay_run *r, const struct per *per)
{
	for (unsigned a = 0; a < per->n; a++)
		if (!(asked_for(1ull << per->slot[a]) & ~r->seen))
			return false;
	return true;
}

/* What a rule cannot do without, and no request had: what it would have done is not known. Of
 * alternatives one is enough. */
static uint64_t missing_for(const struct replay_run *r, const struct rule *rule)
{
	uint64_t slots = rule->match ? match_slots(rule->match) : 0;

	for (unsigned e = 0; e < rule->per_n; e++)
		if (is_unknown(r, &rule->per[e]))
			slots |= alternatives(&rule->per[e]);
	if (rule->cost_slot != FIELD_COST)
		slots |= 1ull << rule->cost_slot;
	return asked_for(slots) & ~r->seen;
}

static json_t *names_json(const struct replay_run *r, uint64_t slots)
{
	const struct layout *l = &r->snapshot->policy->layout;
	json_t *list = json_array();

	for (unsigned i = 0; i < l->n; i++)
		if (slots >> i & 1)
			(void)json_array_append_new(list, json_of(str_of(l->field[i].name)));
	return list;
}

/* Rules stand there as in the policy. */
static void add_missing(const struct replay_run *r, json_t *rules)
{
	json_t *rule;
	size_t i;

	json_array_foreach(rules, i, rule)
	{
		uint64_t slots = missing_for(r, &r->snapshot->policy->rule[i]);
		(void)json_object_set_new(rule, "missing", names_json(r, slots));
	}
}

static json_t *instant_json(const struct replay_run *r, usec_t at)
{
	return r->store ? json_integer((json_int_t)(at / USEC_PER_SEC)) : json_null();
}

json_t *replay_run_json(const struct replay_run *r, unsigned most)
{
	json_t *o = replay_count_json(r->count, most);
	uint64_t evicted = r->evicted + (r->store ? memory_store_stats(r->store).evicted : 0);

	if (!o)
		return NULL;
	add_missing(r, json_object_get(o, "rules"));
	json_t *more = json_pack("{s:o, s:o, s:I, s:I, s:I, s:o, s:s}", "from",
		instant_json(r, r->first), "to", instant_json(r, r->latest), "late",
		(json_int_t)r->late, "late_seconds", (json_int_t)(r->late_by / USEC_PER_SEC),
		"evicted", (json_int_t)evicted, "unseen",
		names_json(r, looked_at(r->snapshot->policy) & ~r->seen), "store",
		r->snapshot->settings.store.backend == BACKEND_REDIS ? "redis" : "memory");
	if (!more || json_object_update(o, more) < 0) {
		json_decref(o);
		o = NULL;
	}
	json_decref(more);
	return o;
}
