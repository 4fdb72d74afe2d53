/* What those who live on control's loop may know. */
#include "server/control_inside.h"

#include <stdio.h>

void control_report(struct control *c, struct report *r)
{
	report_sum(r, &(struct report_of){ &c->metrics, c->crew.worker, c->crew.n, c->args.store,
			      c->bans, c->redis.hub != NULL });
}

bool control_state_trouble(struct control *c, struct keeper_trouble *t)
{
	const char *why;
	if (keeper_is_in_trouble(c->keeper, clock_steady(), t))
		return true;
	if (!desk_is_in_trouble(c->desk, &t->since, &why))
		return false;
	(void)snprintf(t->why, sizeof t->why, "%s", why);
	return true;
}

bool control_store_away(struct control *c, struct redis_hub_away *away)
{
	return c->redis.hub && redis_hub_is_away(c->redis.hub, away);
}

bool control_changes_trouble(const struct control *c, struct redis_changes_trouble *t)
{
	return backend_changes_trouble(&c->redis, t);
}

struct ev_loop *control_loop(struct control *c)
{
	return c->loop;
}

struct desk *control_desk(struct control *c)
{
	return c->desk;
}

struct known *control_known(struct control *c)
{
	return c->known;
}

const struct snapshot *control_snapshot(const struct control *c)
{
	return c->snapshot;
}

struct snapshot *control_hold_snapshot(struct control *c)
{
	return snapshot_ref(c->snapshot);
}

struct store *control_store(struct control *c)
{
	return backend_store(&c->redis, c->args.store);
}

void control_settle_store(struct control *c)
{
	if (c->redis.store)
		redis_store_settle(c->redis.store);
}

enum control_phase control_phase(const struct control *c)
{
	return c->phase;
}

const struct control_args *control_args(const struct control *c)
{
	return &c->args;
}

usec_t control_started_at(const struct control *c)
{
	return c->started_at;
}

usec_t control_uptime(const struct control *c)
{
	return clock_steady() - c->up_since;
}

bool control_tally(struct control *c, struct tally_sum *sum)
{
	return crew_tally(&c->crew, c->tally_names, sum);
}

bool control_top(struct control *c, enum top_kind kind, struct top_list *list)
{
	return crew_top(&c->crew, kind, clock_steady(), list);
}

const char *control_rule_at(const struct control *c, uint32_t place)
{
	return tally_rule_at(c->tally_names, place);
}
