/* /api/v1/explain: what a request would get, and why. */
#include "config/explain.h"

#include "admin/body.h"
#include "admin/routes.h"

#include <stdlib.h>

enum { EXPLAINING_MAX = 64 }; /* that wait for the store, those of peers that are gone included */

/* From the request until the store has answered, even if its peer is gone by then. */
struct explaining {
	struct explain
		explain; /* first: its plan is its first, and both callbacks find it by that */
	struct tier_ask ask;
	struct admin *admin;
	struct snapshot *snapshot; /* a reference */
	struct request *request;   /* NULL: its peer is gone */
};

static void end(struct explaining *x)
{
	x->admin->explaining--;
	explain_fini(&x->explain);
	control_drop_snapshot(x->snapshot);
	free(x);
}

static void on_gone(void *arg)
{
	((struct explaining *)arg)->request = NULL;
}

/* What the operator knows of an override beside its kind. */
static void add_change(struct explaining *x, json_t *answer)
{
	char name[EXPLAIN_NAME_MAX + 16] = "override:";
	size_t n = strlen(name);

	if (!explain_override(&x->explain, name + n))
		return;
	json_t *change = changes_get(desk_changes(control_desk(x->admin->control)), name);
	if (change)
		(void)json_object_update_missing(json_object_get(answer, "override"), change);
}

static void reply(struct explaining *x)
{
	struct explain *e = &x->explain;

	if (x->request) {
		json_t *answer = explain_json(e);
		if (answer)
			add_change(x, answer);
		request_reply_json(x->request, 200, answer);
	}
	end(x);
}

static void on_taken(struct plan *plan)
{
	reply((struct explaining *)plan);
}

/* A ban decides before any limit; what they say is shown all the same. */
static void find_ban(struct explaining *x, usec_t utc)
{
	struct explain *e = &x->explain;
	usec_t until;

	if (!e->policy->has_penalties || e->plan.outcome != OUTCOME_LIMITS)
		return;
	until = desk_banned_until(control_desk(x->admin->control), &e->plan, utc);
	if (!until)
		return;
	e->outcome = OUTCOME_BANNED;
	e->plan.banned_until = until;
}

static void take(struct explaining *x, struct now now)
{
	struct store *store = control_store(x->admin->control);
	struct explain *e = &x->explain;

	explain_plan(e, (struct str){ x->ask.tier.text, x->ask.tier.length });
	e->plan.now = now;
	e->plan.done = on_taken;
	find_ban(x, now.utc);
	/* What this store remembers is of earlier questions. */
	if (store->ops->forget)
		store->ops->forget(store);
	if (e->plan.outcome == OUTCOME_LIMITS && e->plan.n &&
		store_take(store, &e->plan, now) == STORE_PENDING)
		return;
	reply(x);
}

static void on_tier(struct tier_ask *ask)
{
	take((struct explaining *)((char *)ask - offsetof(struct explaining, ask)), ask->now);
}

/* Who the client is, as server/check.c asks for a tier; of a key the hash will do. */
static bool may_know_tier(struct explaining *x, char hash[7 + SHA256_HEX_BYTES])
{
	static const uint8_t by[] = { FIELD_KEY, FIELD_USER };
	const struct view *v = &x->explain.view;
	struct tier_ask *ask = &x->ask;

	if (!control_store(x->admin->control)->ops->find_tier || view_has(v, FIELD_TIER))
		return false;
	for (unsigned i = 0; i < 2; i++) {
		if (!view_has(v, by[i]))
			continue;
		ask->name[ask->n] = v->text[by[i]];
		if (v->hashed >> by[i] & 1) {
			memcpy(hash, "sha256:", 7);
			memcpy(hash + 7, v->text[by[i]].p, SHA256_HEX_BYTES);
			ask->name[ask->n] = (struct str){ hash, 7 + SHA256_HEX_BYTES };
			ask->is_hash = true;
		}
		ask->secret[ask->n] = x->explain.policy->secret >> by[i] & 1 &&
				      !(v->hashed >> by[i] & 1);
		ask->n++;
	}
	ask->done = on_tier;
	return ask->n != 0;
}

static void begin(struct explaining *x)
{
	struct store *store = control_store(x->admin->control);
	struct now now = clock_read();
	char hash[7 + SHA256_HEX_BYTES];

	request_on_gone(x->request, on_gone, x);
	if (may_know_tier(x, hash) && store->ops->find_tier(store, &x->ask, now) == STORE_PENDING)
		return;
	take(x, now);
}

/* The request has its answer, or will have it. */
static void explain(struct request *r, json_t *fields)
{
	struct admin *a = request_context(r);
	struct explaining *x = a->explaining < EXPLAINING_MAX ? calloc(1, sizeof *x) : NULL;
	char err[256];

	if (!x) {
		request_problem(r, 503, "too many wait for the store, or no memory: try again");
		return;
	}
	a->explaining++;
	x->admin = a;
	x->request = r;
	x->snapshot = control_hold_snapshot(a->control);
	if (explain_init(&x->explain, x->snapshot->policy, fields, err, sizeof err)) {
		begin(x);
		return;
	}
	request_problem(r, 422, "%s", err);
	end(x);
}

void explain_now(struct request *r)
{
	static const char *const known[] = { "fields" };
	json_t *body = body_of(r);

	if (body && body_knows(r, body, known, sizeof known / sizeof *known))
		explain(r, json_object_get(body, "fields"));
	json_decref(body);
}
