/* /api/v1/reset: counters begin anew, of a rule, of all, or of one client. */
#include "admin/asking.h"
#include "admin/body.h"
#include "admin/keeping.h"
#include "admin/peer.h"
#include "config/nearest.h"

#include <stdio.h>
#include <string.h>

static struct desk *desk_of(const struct admin *a)
{
	return control_desk(a->control);
}

/* ---- of a rule, or of all ---- */

static void reset_rules(struct request *r, const char *rule, struct act act)
{
	struct desk *desk = desk_of(request_context(r));
	char err[512];

	if (desk_reset_rule(desk, rule, act, err, sizeof err))
		reply_when_kept(r, json_pack("{s:s}", "reset", rule ? rule : "all rules"));
	else
		request_problem(r, desk_asks_to_wait(desk) ? 503 : 422, "%s", err);
}

/* ---- of one client ---- */

enum { WHO_MAX = sizeof(((struct peer *)0)->who) };

/* Its plan holds what is to be forgotten next; then its strikes, what counts for penalties of it.
 */
struct resetting {
	struct asking asking; /* first */
	struct plan strikes;
	struct counters_at at;
	json_t *counters;          /* that were forgotten; a reference */
	json_t *body;              /* a reference: of it are */
	const char *rule, *reason; /* NULL: none was given */
	char who[WHO_MAX];         /* the request may go first */
	bool in_part;              /* the store is not certain of all */
	json_t *ban;               /* owned; NULL: none holds */
	usec_t utc;
};

static void end(struct resetting *x)
{
	json_decref(x->body);
	json_decref(x->counters);
	json_decref(x->ban);
	asking_end(&x->asking);
}

static json_t *answer(const struct resetting *x)
{
	return json_pack("{s:s, s:O, s:o, s:o, s:o}", "reset", "counters", "counters", x->counters,
		"left", explain_left_json(&x->asking.explain, x->rule), "untouched",
		explain_untouched_json(&x->asking.explain, x->rule), "banned",
		x->ban ? json_incref(x->ban) : json_null());
}

static struct act act_of(const struct resetting *x)
{
	return (struct act){ .who = x->who, .reason = x->reason };
}

static void finish(struct resetting *x)
{
	struct request *r = x->asking.request;

	desk_reset_done(desk_of(x->asking.admin), x->counters, x->in_part, act_of(x));
	if (r && x->in_part)
		request_problem(
			r, 503, "Redis has not answered for all of the counters: ask again");
	else if (r)
		reply_when_kept(r, answer(x));
	end(x);
}

/* Some of them, then what counts for penalties by these; and so on until there are no more. */

static void erase_counters(struct resetting *x);

static void next_counters(struct resetting *x)
{
	struct explain *e = &x->asking.explain;

	explain_add_counters(e, x->counters);
	desk_reset_counters(desk_of(x->asking.admin), &e->plan, &x->strikes, act_of(x));
	explain_counters(e, (struct str){ 0 }, x->rule, &x->at);
	if (e->plan.n)
		erase_counters(x);
	else
		finish(x);
}

static void on_strikes(struct plan *plan)
{
	struct resetting *x = (struct resetting *)((char *)plan -
						   offsetof(struct resetting, strikes));

	x->in_part |= plan->degraded;
	next_counters(x);
}

static void on_counters(struct plan *plan)
{
	struct resetting *x = (struct resetting *)plan;
	struct store *store = control_store(x->asking.admin->control);

	x->in_part |= plan->degraded;
	x->strikes.done = on_strikes;
	if (!x->strikes.n)
		next_counters(x);
	else if (store->ops->erase(store, &x->strikes) == STORE_DONE)
		on_strikes(&x->strikes);
}

static void erase_counters(struct resetting *x)
{
	struct store *store = control_store(x->asking.admin->control);
	struct plan *plan = &x->asking.explain.plan;

	desk_strikes(desk_of(x->asking.admin), plan, &x->strikes, x->utc);
	plan->done = on_counters;
	if (store->ops->erase(store, plan) == STORE_PENDING)
		return;
	if (plan->degraded && !json_array_size(x->counters) && x->asking.request) {
		request_problem(x->asking.request, 503,
			"Redis is away: nothing was forgotten: ask again later");
		end(x);
		return;
	}
	on_counters(plan);
}

/* In words, why there is nothing to be forgotten. */
static void refuse_nothing(struct resetting *x)
{
	json_t *list = explain_left_json(&x->asking.explain, x->rule), *first;
	json_t *untouched = explain_untouched_json(&x->asking.explain, x->rule);

	(void)json_array_extend(list, untouched);
	json_decref(untouched);
	first = json_array_get(list, 0);
	if (x->rule && !first) {
		const struct policy *p = control_snapshot(x->asking.admin->control)->policy;
		char hint[HINT_MAX];
		request_problem(x->asking.request, 422, "there is no rule \"%s\"%s", x->rule,
			nearest_rule_hint(p, x->rule, hint));
	} else {
		request_problem(x->asking.request, 422,
			"no counter of this client is found by these fields: rule \"%s\" %s%s",
			json_string_value(json_object_get(first, "rule")),
			json_string_value(json_object_get(first, "why")),
			json_array_size(list) > 1 ? ", and so on: ratelimitctl explain" : "");
	}
	json_decref(list);
	end(x);
}

static void erase(struct asking *a, struct str tier, struct now now)
{
	struct resetting *x = (struct resetting *)a;
	struct desk *desk = desk_of(a->admin);
	struct ban ban;
	char err[256];

	explain_counters(&a->explain, tier, x->rule, &x->at);
	if (!a->request) { /* nobody waits for it any more, and nothing was done */
		end(x);
		return;
	}
	if (!a->explain.plan.n) {
		refuse_nothing(x);
		return;
	}
	x->counters = json_array();
	if (!x->counters || !desk_may_reset_client(desk, err, sizeof err)) {
		bool many = x->counters && !desk_asks_to_wait(desk);
		request_problem(
			a->request, many ? 429 : 503, "%s", x->counters ? err : "no memory");
		end(x);
		return;
	}
	if (desk_find_ban(desk, &a->explain.plan, now.utc, &ban))
		x->ban = ban_json(&ban);
	x->utc = now.utc;
	erase_counters(x);
}

static void reset_client(
	struct request *r, json_t *body, json_t *fields, const char *rule, struct act act)
{
	struct resetting *x = (struct resetting *)asking_new(r, sizeof *x);
	const struct policy *policy;
	const char *unknown;

	if (!x)
		return;
	policy = x->asking.snapshot->policy;
	unknown = explain_unknown_field(policy, fields);
	x->body = json_incref(body);
	x->rule = *rule ? rule : NULL;
	x->reason = act.reason;
	(void)snprintf(x->who, sizeof x->who, "%s", act.who);
	if (unknown)
		request_problem(r, 422, "%.64s: no rule looks at such a field", unknown);
	if (unknown || !asking_begin(&x->asking, fields, erase))
		end(x);
}

/* ---- which of them ---- */

static void reset(struct request *r, json_t *body)
{
	static const char *const known[] = { "rule", "all", "reason", "fields" };
	const char *rule = body_text(r, body, "rule");
	const char *reason = rule ? body_reason(r, body) : NULL;
	bool all = json_is_true(json_object_get(body, "all"));
	json_t *fields;

	if (!reason)
		return;
	if (json_object_get(body, "fields") && !body_knows(r, body, known, 4))
		return;
	fields = body_fields(body, known, 3);
	struct act act = { .who = request_who(r), .reason = *reason ? reason : NULL };
	if (fields && !all)
		reset_client(r, body, fields, rule, act);
	else if (!fields && all != (*rule != '\0'))
		reset_rules(r, all ? NULL : rule, act);
	else
		request_problem(r, 422,
			"want \"fields\": {…} for the counters of one client, \"rule\": NAME for "
			"those of one rule, or \"all\": true for those of all");
	json_decref(fields);
}

void reset_now(struct request *r)
{
	json_t *body = body_of(r);

	if (body)
		reset(r, body);
	json_decref(body);
}
