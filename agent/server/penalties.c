#include "server/penalties.h"

#include <assert.h>
#include <stdlib.h>

/* The denials of one request that are being counted. */
struct strikes {
	struct plan plan; /* first: plan->done() finds them by it */
	struct penalties *penalties;
	struct snapshot *snapshot; /* a reference */
	struct strikes *next;
	struct {
		struct key ban_key;
		const struct rule *rule;
		char client[BAN_CLIENT_MAX + 1];
	} of[PLAN_MAX];
};

void penalties_init(
	struct penalties *p, struct bans *bans, struct store *store, struct metrics *metrics)
{
	*p = (struct penalties){ .bans = bans, .store = store, .metrics = metrics };
}

void penalties_fini(struct penalties *p)
{
	for (struct strikes *s; (s = p->idle); p->n--) {
		p->idle = s->next;
		free(s);
	}
	assert(p->n == 0);
}

static struct strikes *get(struct penalties *p)
{
	struct strikes *s = p->idle;

	if (s) {
		p->idle = s->next;
		return s;
	}
	if (p->n == STRIKES_MAX || !(s = malloc(sizeof *s)))
		return NULL;
	s->penalties = p;
	p->n++;
	return s;
}

static void put_back(struct strikes *s)
{
	s->next = s->penalties->idle;
	s->penalties->idle = s;
}

void penalties_find(struct penalties *p, struct plan *plan, struct now now)
{
	usec_t until = p->bans ? bans_find(p->bans, plan, now.utc, &plan->banned) : 0;

	if (!until)
		return;
	plan->outcome = OUTCOME_BANNED;
	plan->marks = 0;
	plan->banned_until = until;
}

/* Who has had one too many is banned, by this agent's clock: until when. 0: nobody. */
static usec_t ban_who_is_out(struct strikes *s, usec_t utc)
{
	struct penalties *p = s->penalties;
	usec_t until = 0;

	for (unsigned i = 0; i < s->plan.n; i++) {
		if (!take_is_out(&s->plan.take[i]))
			continue;
		struct ban ban = { .key = s->of[i].ban_key };
		memcpy(ban.rule, s->of[i].rule->name, sizeof ban.rule);
		memcpy(ban.client, s->of[i].client, sizeof ban.client);
		if (!bans_begin(p->bans, s->of[i].rule->penalty, &ban, utc))
			continue;
		metric_add(p->metrics, METRIC_bans_begun, 1);
		if (ban.until > until)
			until = ban.until;
	}
	return until;
}

static void on_counted(struct plan *plan)
{
	struct strikes *s = (struct strikes *)plan;
	struct snapshot *snapshot = s->snapshot;

	(void)ban_who_is_out(s, clock_read().utc);
	/* Never the last: control has one, too, until every worker's is gone. */
	(void)snapshot_unref(snapshot);
	put_back(s);
}

usec_t penalties_count(struct penalties *p, struct snapshot *snap, const struct plan *denied,
	const struct view *view, struct now now)
{
	uint8_t of[PLAN_MAX];
	struct strikes *s = p->bans ? get(p) : NULL;

	if (!s) {
		if (p->bans)
			metric_add(p->metrics, METRIC_strikes_dropped, 1);
		return 0;
	}
	if (!plan_strikes(denied, &s->plan, of)) {
		put_back(s);
		return 0;
	}
	for (unsigned i = 0; i < s->plan.n; i++) {
		const struct take *t = &denied->take[of[i]];
		s->of[i].ban_key = take_ban_key(t);
		strikes_begin_anew(&s->plan.take[i], bans_epoch_to_count(p->bans, &s->of[i].ban_key,
							     t->limit->rule->penalty, now.utc));
		s->of[i].rule = t->limit->rule;
		size_t n = take_describe(snap->policy, t, view, s->of[i].client, BAN_CLIENT_MAX);
		s->of[i].client[n] = '\0';
	}
	s->plan.done = on_counted;
	s->plan.holders = &snap->refs;
	s->plan.now = now;
	s->snapshot = snap;
	if (store_take(p->store, &s->plan, now) == STORE_PENDING) {
		(void)snapshot_ref(snap);
		return 0;
	}
	usec_t until = ban_who_is_out(s, now.utc);
	put_back(s);
	return until;
}
