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
			       ? bans_find(r->bans, &r->plan, r->latest)
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
		struct key key = take_ban_key(&r->plan.take[of[i]]);
		strikes_begin_anew(&strikes.take[i], bans_epoch(r->bans, &key, r->latest));
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
	r->seen |= view->present | view->integer;
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

/* What rules, lists and the tiers file look at. `cost` itself every rule does that names no other.
 */
static uint64_t looked_at(const struct policy *p)
{
	const uint64_t path = 1ull << FIELD_METHOD | 1ull << FIELD_PATH;
	uint64_t slots = p->tier_map ? 1ull << FIELD_USER | 1ull << FIELD_KEY : 0;

	for (unsigned i = 0; i < p->allow_n; i++)
		slots |= match_slots(p->allow[i]);
	for (unsigned i = 0; i < p->block_n; i++)
		slots |= match_slots(p->block[i]);
	for (const struct rule *r = p->rule, *end = r ? r + p->rule_n : r; r < end; r++) {
		slots |= r->match ? match_slots(r->match) : 0;
		for (unsigned e = 0; e < r->per_n; e++)
			for (unsigned a = 0; a < r->per[e].n; a++)
				slots |= 1ull << r->per[e].slot[a];
		if (r->cost_slot != FIELD_COST)
			slots |= 1ull << r->cost_slot;
	}
	return slots >> FIELD_ENDPOINT & 1 ? slots | path : slots;
}

/* The rest follows from these, or is there in any case. */
static json_t *unseen_json(const struct replay_run *r)
{
	const uint64_t derived = 1ull << FIELD_ENDPOINT | 1ull << FIELD_TIER;
	const struct layout *l = &r->snapshot->policy->layout;
	uint64_t unseen = looked_at(r->snapshot->policy) & ~r->seen & ~derived;
	json_t *list = json_array();

	for (unsigned i = 0; i < l->n; i++)
		if (unseen >> i & 1)
			(void)json_array_append_new(list, json_of(str_of(l->field[i].name)));
	return list;
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
	json_t *more = json_pack("{s:o, s:o, s:I, s:I, s:I, s:o, s:s}", "from",
		instant_json(r, r->first), "to", instant_json(r, r->latest), "late",
		(json_int_t)r->late, "late_seconds", (json_int_t)(r->late_by / USEC_PER_SEC),
		"evicted", (json_int_t)evicted, "unseen", unseen_json(r), "store",
		r->snapshot->settings.store.backend == BACKEND_REDIS ? "redis" : "memory");
	if (!more || json_object_update(o, more) < 0) {
		json_decref(o);
		o = NULL;
	}
	json_decref(more);
	return o;
}
