/* /api/v1/explain: what a request would get, and why. */
#include "admin/asking.h"
#include "admin/body.h"

/* What the operator knows of an override beside its kind. */
static void add_change(struct asking *x, json_t *answer)
{
	char name[EXPLAIN_NAME_MAX + 16] = "override:";
	size_t n = strlen(name);

	if (!explain_override(&x->explain, name + n))
		return;
	json_t *change = changes_get(desk_changes(control_desk(x->admin->control)), name);
	if (change)
		(void)json_object_update_missing(json_object_get(answer, "override"), change);
}

/* A Redis that takes no writes (out of memory, a replica) answers this, which writes nothing, and
 * refuses the checks: those who decide know that. */
static void add_degraded(struct asking *x, json_t *answer)
{
	struct report report;

	control_report(x->admin->control, &report);
	(void)json_object_set_new(answer, "threads_degraded", json_integer(report.degraded));
}

static void reply(struct asking *x)
{
	struct explain *e = &x->explain;

	if (x->request) {
		json_t *answer = explain_json(e);
		if (answer) {
			add_change(x, answer);
			add_degraded(x, answer);
		}
		request_reply_json(x->request, 200, answer);
	}
	asking_end(x);
}

static void on_taken(struct plan *plan)
{
	reply((struct asking *)plan);
}

/* It decides before any limit, and then none is asked. */
static void find_ban(struct asking *x, usec_t utc)
{
	struct explain *e = &x->explain;
	struct ban ban;

	if (!e->policy->has_penalties || e->plan.outcome != OUTCOME_LIMITS)
		return;
	if (!desk_find_ban(control_desk(x->admin->control), &e->plan, utc, &ban))
		return;
	e->plan.outcome = OUTCOME_BANNED;
	e->plan.banned_until = ban.until;
	e->ban = ban_json(&ban);
}

static void take(struct asking *x, struct str tier, struct now now)
{
	struct store *store = control_store(x->admin->control);
	struct explain *e = &x->explain;

	explain_plan(e, tier);
	e->plan.now = now;
	e->plan.done = on_taken;
	e->plan.holders = &x->snapshot->refs;
	find_ban(x, now.utc);
	/* What this store remembers is of earlier questions. */
	if (store->ops->forget)
		store->ops->forget(store);
	if (e->plan.outcome == OUTCOME_LIMITS && e->plan.n &&
		store_take(store, &e->plan, now) == STORE_PENDING)
		return;
	reply(x);
}

void explain_now(struct request *r)
{
	static const char *const known[] = { "fields" };
	json_t *body = body_of(r), *fields = NULL;
	struct asking *x;

	if (body)
		fields = body_fields(body, NULL, 0);
	if (body && (!json_object_get(body, "fields") || body_knows(r, body, known, 1)) &&
		(x = asking_new(r, sizeof *x)) && !asking_begin(x, fields, take))
		asking_end(x);
	json_decref(fields);
	json_decref(body);
}
