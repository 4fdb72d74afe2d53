#include "server/check.h"

#include "server/answer.h"
#include "server/describe.h"
#include "server/known.h"
#include "server/unlisted.h"
#include "spop/value.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

/* What view.h asks for. */
static size_t scratch_for(size_t notify_max)
{
	return 3 * notify_max + FIELDS_MAX * ADDR_TEXT_MAX;
}

bool checker_init(struct checker *c, size_t notify_max, struct store *store,
	struct metrics *metrics, struct event_ring *events)
{
	*c = (struct checker){ .store = store, .metrics = metrics, .events = events };
	bool room = checker_grow(c, notify_max);
	c->now = &c->draft[0];
	c->next = &c->draft[1];
	c->tally = tally_new();
	c->top = top_new();
	shapes_clear(&c->shapes);
	check_pool_init(&c->pool);
	penalties_init(&c->penalties, NULL, store, metrics);
	return room && c->tally && c->top;
}

bool checker_grow(struct checker *c, size_t notify_max)
{
	size_t n = scratch_for(notify_max);
	char *larger = malloc(2 * n);
	if (!larger)
		return false;
	free(c->scratch);
	c->scratch = larger;
	c->scratch_n = n;
	for (unsigned i = 0; i < 2; i++)
		c->draft[i].scratch = larger + i * n;
	return true;
}

void checker_fini(struct checker *c)
{
	penalties_fini(&c->penalties);
	check_pool_fini(&c->pool);
	free(c->scratch);
	c->scratch = NULL;
	tally_free(c->tally);
	c->tally = NULL;
	top_free(c->top);
	c->top = NULL;
}

static void count(struct checker *c, enum metric id)
{
	metric_add(c->metrics, id, 1);
}

/* `check`, or `check-` and a name. */
static bool is_check(struct str name)
{
	return name.n >= 5 && memcmp(name.p, "check", 5) == 0 && (name.n == 5 || name.p[5] == '-');
}

static __attribute__((noinline)) void skip_args(struct wire_reader *r, const struct message *m)
{
	struct str name;
	struct value value;
	for (unsigned i = 0; i < m->args; i++)
		if (!arg_next(r, &name, &value))
			return;
}

/* The first check of the NOTIFY becomes the view (other messages are `ignored`, and counted); all
 * of the payload is read, so that what is malformed is seen wherever it stands. Of a NOTIFY whose
 * end was cut off, what came before counts: nobody passes a limit by sending too much. */
static enum load_rc load_view(
	struct checker *c, const struct snapshot *snap, const struct notify *n, struct draft *to)
{
	struct wire_reader r = { n->payload, n->payload + n->payload_n, false };
	const struct layout *layout = &snap->policy->layout;
	struct message m;
	bool found = false;

	to->ignored = 0;
	if (c->shaped_by != snap->generation) {
		shapes_clear(&c->shapes);
		answer_forms_clear(&c->answers);
		c->shaped_by = snap->generation;
	}
	while (message_next(&r, &m)) {
		if (found || !is_check(m.name)) {
			skip_args(&r, &m);
			to->ignored++;
			continue;
		}
		found = true;
		view_init(&to->view, layout, m.name, to->scratch, c->scratch_n);
		args_load(&c->shapes, &r, m.args, &to->view);
		view_finish(&to->view);
	}
	if (r.bad && !n->truncated)
		return LOAD_MALFORMED;
	return found ? LOAD_CHECK : LOAD_NOTHING;
}

/* Lines for the log that one check may want. */
enum { LINE_DENIED = 1, LINE_SHADOW = 2 };

static __attribute__((noinline)) void put_events(struct checker *c, const struct policy *p,
	const struct plan *plan, const struct decision *d, unsigned lines)
{
	struct event e;

	if (lines & LINE_DENIED) {
		describe_event(p, plan, d, &c->now->view, &e);
		event_ring_put(c->events, &e);
	}
	if (lines & LINE_SHADOW) {
		describe_shadow(p, plan, d, &c->now->view, &e);
		event_ring_put(c->events, &e);
	}
}

static void count_reason(struct checker *c, enum reason reason)
{
	switch (reason) {
	case REASON_LIMITED:
		count(c, METRIC_checks_limited);
		break;
	case REASON_OVERSIZE:
		count(c, METRIC_checks_oversize);
		break;
	case REASON_BLOCKED:
		count(c, METRIC_checks_blocked);
		break;
	case REASON_BYPASSED:
		count(c, METRIC_checks_bypassed);
		break;
	case REASON_DISABLED:
		count(c, METRIC_checks_disabled);
		break;
	case REASON_DEGRADED:
		count(c, METRIC_checks_degraded);
		break;
	case REASON_BANNED:
		count(c, METRIC_checks_banned);
		break;
	case REASON_OK:
		break;
	}
}

/* Inlined, as write_ack() is. */
static inline __attribute__((always_inline)) void count_decision(
	struct checker *c, const struct plan *plan, const struct decision *d)
{
	tally_count(c->tally, plan, d);
	tally_applied(c->tally, plan);
	count(c, METRIC_checks_allowed + d->deny);
	if (d->reason != REASON_OK)
		count_reason(c, d->reason);
	if (d->shadow) {
		count(c, METRIC_checks_shadow);
		tally_shadowed(c->tally, plan, d);
	}
	if (d->tag) {
		count(c, METRIC_checks_tagged);
		tally_tagged(c->tally, d->tag);
	}
	if (d->warn) {
		count(c, METRIC_checks_warned);
		tally_warned(c->tally, d->reported);
	}
}

static_assert(METRIC_checks_denied == METRIC_checks_allowed + 1, "count_decision() has it so");

/* No ACK is longer, so that a large frame size costs no room. */
enum { ACK_BYTES_MAX = FRAME_HEAD_MAX + ANSWER_BYTES_MAX };

size_t check_room(uint32_t send_max)
{
	return FRAME_LENGTH_BYTES + (send_max < ACK_BYTES_MAX ? send_max : ACK_BYTES_MAX);
}

static __attribute__((noinline)) unsigned find_lines(
	struct checker *c, const struct plan *plan, const struct decision *d)
{
	const struct take *shadow = decision_shadow(plan, d);
	unsigned lines = 0;

	if (d->deny && !(d->reported && d->reported->cost == 0) &&
		event_ring_has_room(c->events, false))
		lines |= LINE_DENIED;
	if (d->shadow && !(shadow && shadow->cost == 0) && event_ring_has_room(c->events, true))
		lines |= LINE_SHADOW;
	return lines;
}

/* Are there lines to be written? Asked first of all: a flood of denials must not compose what
 * nobody will read. Cost 0 only asks: nobody was refused. */
static inline unsigned wanted_lines(
	struct checker *c, const struct plan *plan, const struct decision *d)
{
	return (d->deny || d->shadow) && c->events ? find_lines(c, plan, d) : 0;
}

struct ids {
	uint64_t stream, frame;
};

/* The frame's bound is the writer's end: variables that do not fit are left out. Inlined, as a call
 * takes 30 instructions. */
static inline __attribute__((always_inline)) void write_ack(struct checker *c,
	const struct snapshot *snap, const struct plan *plan, const struct decision *d,
	struct ids ids, uint32_t send_max, struct wire_writer *out)
{
	struct wire_writer w = { out->p, out->p + check_room(send_max), false };
	uint8_t *length_word = frame_begin(&w, FRAME_ACK, ids.stream, ids.frame);
	if (answer_put(&w, &c->answers, snap->settings.agent.variables, snap->policy, plan, d))
		count(c, METRIC_actions_dropped);
	frame_end(&w, length_word);
	out->p = w.p;
	count(c, METRIC_notifies);
}

/* Where there was nothing to decide. */
static void write_bare_ack(struct checker *c, struct ids ids, struct wire_writer *out)
{
	uint8_t *length_word = frame_begin(out, FRAME_ACK, ids.stream, ids.frame);
	answer_put_ack(out);
	frame_end(out, length_word);
	count(c, METRIC_notifies);
}

static inline void find_ban(
	struct checker *c, const struct policy *p, struct plan *plan, struct now now)
{
	plan->now = now;
	if (p->has_penalties && plan->outcome == OUTCOME_LIMITS)
		penalties_find(&c->penalties, plan, now);
}

/* What the view is charged by, or that its client is banned. `ask`: what its store was asked. */
static inline void plan_view(struct checker *c, const struct policy *p, struct plan *plan,
	const struct tier_ask *ask, struct now now)
{
	policy_plan(p, &c->now->view, plan);
	if (plan->tier_number < 0)
		unlisted_tell(p, plan, &c->now->view, ask->tier.length != 0, now);
	find_ban(c, p, plan, now);
}

static inline bool may_be_a_strike(
	const struct policy *p, const struct plan *plan, const struct decision *d)
{
	return d->deny && p->has_penalties && plan->outcome == OUTCOME_LIMITS;
}

/* When the ban ends that begins by this denial; 0: none does, or it is not known yet. */
static usec_t count_strikes(struct checker *c, struct snapshot *snap, const struct plan *plan)
{
	/* A store that answers later has a clock of its own, which plan->now is by. */
	struct now now = store_may_be_pending(c->store) ? clock_read() : plan->now;
	return penalties_count(&c->penalties, snap, plan, &c->now->view, now);
}

static void answer_now(struct checker *c, struct snapshot *snap, const struct plan *plan,
	const struct notify *n, uint32_t send_max, struct wire_writer *out)
{
	struct decision d = decide(plan, plan->now);
	struct top_rest rest;
	if (may_be_a_strike(snap->policy, plan, &d))
		decision_wait_for_ban(&d, count_strikes(c, snap, plan), plan->now);
	write_ack(c, snap, plan, &d, (struct ids){ n->stream_id, n->frame_id }, send_max, out);
	count_decision(c, plan, &d);
	bool named = top_count(c->top, plan, &d, &rest);
	unsigned lines = wanted_lines(c, plan, &d);
	if (named)
		top_add_rest(c->top, snap->policy, &d, &c->now->view, &rest);
	if (lines)
		put_events(c, snap->policy, plan, &d, lines);
	if (named || lines)
		known_learn(c->known, snap->policy, plan, &c->now->view);
}

/* ---- checks whose store answers later ---- */

static void check_end(struct check *check)
{
	struct checker *c = check->checker;

	(void)snapshot_unref(check->snapshot); /* never the last: worker_publish() */
	metric_add(c->metrics, METRIC_checks_waiting, (uint64_t)-1);
	check_put_back(&c->pool, check);
}

/* The view died long ago: what was kept of the NOTIFY is read once more. */
static enum load_rc load_again(struct check *check)
{
	const struct notify again = {
		.payload = check->long_payload ? check->long_payload : check->payload,
		.payload_n = check->payload_n,
		.truncated = check->truncated,
	};
	return load_view(check->checker, check->snapshot, &again, check->checker->now);
}

static void tell_late(struct check *check)
{
	struct checker *c = check->checker;
	const struct policy *p = check->snapshot->policy;
	const struct plan *plan = &check->plan;
	const struct decision *d = &check->decision;
	struct top_rest rest;
	bool names = top_count(c->top, plan, d, &rest);
	unsigned lines = wanted_lines(c, plan, d);
	bool strike = may_be_a_strike(p, plan, d);

	if (!(names || lines || strike) || load_again(check) != LOAD_CHECK)
		return;
	if (!view_has(&c->now->view, FIELD_TIER))
		view_put_tier(&c->now->view, (struct str){ plan->tier, plan->tier_length });
	if (names)
		top_add_rest(c->top, p, d, &c->now->view, &rest);
	if (lines)
		put_events(c, p, plan, d, lines);
	if (names || lines)
		known_learn(c->known, p, plan, &c->now->view);
	if (strike) /* its ban is told with the next request: this one's answer is not kept for it
		     */
		(void)count_strikes(c, check->snapshot, plan);
}

static void on_taken(struct plan *plan)
{
	struct check *check = (struct check *)plan;
	struct checker *c = check->checker;

	check->state = CHECK_DECIDED;
	check->decision = decide(plan, plan->now);
	count_decision(c, plan, &check->decision);
	tell_late(check);
	if (check->owner)
		c->decided(check);
	else
		check_end(check);
}

bool check_write(struct check *check, struct wire_writer *out)
{
	if (out->bad || wire_room(out) < check_room(check->send_max))
		return false;
	write_ack(check->checker, check->snapshot, &check->plan, &check->decision,
		(struct ids){ check->stream_id, check->frame_id }, check->send_max, out);
	check_end(check);
	return true;
}

void check_abandon(struct check *check)
{
	count(check->checker, METRIC_checks_abandoned);
	check->owner = NULL;
	if (check->state == CHECK_DECIDED)
		check_end(check);
}

/* Who the client is, where the message does not say his tier and the store may know it. */
static bool may_know_tier(const struct checker *c, const struct policy *p, struct tier_ask *ask)
{
	static const uint8_t by[] = { FIELD_KEY, FIELD_USER };
	const struct view *v = &c->now->view;

	ask->n = 0;
	ask->tier.length = 0;
	ask->is_hash = false;
	ask->begun = 0;
	if (!c->store->ops->find_tier || view_has(v, FIELD_TIER))
		return false;
	for (unsigned i = 0; i < 2; i++) {
		if (!view_has(v, by[i]))
			continue;
		ask->name[ask->n] = v->text[by[i]];
		ask->secret[ask->n++] = p->secret >> by[i] & 1;
	}
	return ask->n != 0;
}

static void use_tier(struct view *v, const struct tier_ask *ask)
{
	if (ask->tier.length)
		view_put_tier(v, (struct str){ ask->tier.text, ask->tier.length });
}

/* What the view takes. true: it waits; false: the plan is done. */
static bool take_limits(struct check *check, struct now now)
{
	struct checker *c = check->checker;
	struct plan *plan = &check->plan;

	use_tier(&c->now->view, &check->ask);
	plan_view(c, check->snapshot->policy, plan, &check->ask, now);
	plan->begun = check->ask.begun;
	if (plan->outcome != OUTCOME_LIMITS || !plan->n)
		return false;
	plan->done = on_taken;
	plan->holders = &check->snapshot->refs;
	check->state = CHECK_ASKED;
	return store_take(c->store, plan, now) == STORE_PENDING;
}

static void on_tier(struct tier_ask *ask)
{
	struct check *check = (struct check *)((char *)ask - offsetof(struct check, ask));

	if (!check->owner) { /* nobody wants it, and nothing was charged yet */
		check_end(check);
		return;
	}
	enum load_rc rc = load_again(check);
	assert(rc == LOAD_CHECK); /* as it was before */
	(void)rc;
	if (!take_limits(check, ask->now))
		on_taken(&check->plan);
}

/* true: the check waits for its client's tier. */
static bool waits_for_tier(struct check *check, const struct notify *n, struct now now)
{
	struct checker *c = check->checker;
	struct tier_ask *ask = &check->ask;

	if (!may_know_tier(c, check->snapshot->policy, ask))
		return false;
	ask->done = on_tier;
	/* Long ones before, as there may be no room. */
	if (n->payload_n > CHECK_PAYLOAD_MAX && !check_keep_payload(&c->pool, check, n, KEEP_ALL)) {
		count(c, METRIC_checks_unkept);
		ask->done = NULL;
	}
	check->state = CHECK_LOOKS_UP;
	return c->store->ops->find_tier(c->store, ask, now) == STORE_PENDING;
}

/* true: it waits; false: its plan is done. */
static bool is_kept_waiting(struct check *check, struct checker *c, struct snapshot *snap,
	const struct notify *n, uint32_t send_max, struct now now)
{
	check->checker = c;
	check->snapshot = snap;
	check->owner = NULL;
	check->asked_at = now.steady;
	if (!waits_for_tier(check, n, now) && !take_limits(check, now))
		return false;
	(void)snapshot_ref(snap);
	check->stream_id = n->stream_id;
	check->frame_id = n->frame_id;
	check->send_max = send_max;
	(void)check_keep_payload(&c->pool, check, n, KEEP_BEGINNING);
	metric_add(c->metrics, METRIC_checks_waiting, 1);
	return true;
}

/* Nobody can wait: what is known at once has to do. */
static void answer_unpooled(struct checker *c, struct snapshot *snap, const struct notify *n,
	uint32_t send_max, struct now now, struct wire_writer *out)
{
	if (may_know_tier(c, snap->policy, &c->ask)) {
		c->ask.done = NULL;
		(void)c->store->ops->find_tier(c->store, &c->ask, now);
		use_tier(&c->now->view, &c->ask);
	}
	plan_view(c, snap->policy, &c->now->plan, &c->ask, now);
	if (c->now->plan.outcome == OUTCOME_LIMITS && c->now->plan.n) {
		count(c, METRIC_checks_unpooled);
		c->store->ops->fall_back(c->store, &c->now->plan, now);
	}
	answer_now(c, snap, &c->now->plan, n, send_max, out);
}

static enum check_rc ask_store(struct checker *c, struct snapshot *snap, const struct notify *n,
	uint32_t send_max, struct now now, struct wire_writer *out, struct check **pending)
{
	struct check *check = check_get(&c->pool);
	if (!check) {
		answer_unpooled(c, snap, n, send_max, now, out);
		return CHECK_ANSWERED;
	}
	if (is_kept_waiting(check, c, snap, n, send_max, now)) {
		*pending = check;
		return CHECK_PENDING;
	}
	answer_now(c, snap, &check->plan, n, send_max, out);
	check_put_back(&c->pool, check);
	return CHECK_ANSWERED;
}

/* ---- the way of every NOTIFY ---- */

/* While the one before is decided, what this one will want comes from memory. It is read and
 * planned, and nothing is asked that a decision could change. */
static __attribute__((noinline)) void draft_next(struct checker *c, const struct snapshot *snap)
{
	const struct notify n = { .payload = c->expected, .payload_n = c->expected_n };
	struct draft *d = c->next;

	c->expected = NULL;
	c->ahead = n.payload;
	c->ahead_n = n.payload_n;
	d->loaded = load_view(c, snap, &n, d);
	if (d->loaded == LOAD_CHECK)
		policy_plan(snap->policy, &d->view, &d->plan);
	if (d->loaded != LOAD_CHECK || d->plan.outcome != OUTCOME_LIMITS)
		d->plan.n = 0;
	c->store->ops->prefetch(c->store, &d->plan, PREFETCH_FIRST);
}

/* Was the draft of `n` made ahead? Then it is its turn, and what has come from memory tells what
 * else to ask for. */
static __attribute__((noinline)) bool is_ahead(struct checker *c, const struct notify *n)
{
	struct draft *d = c->next;
	bool is_it = c->ahead == n->payload && c->ahead_n == n->payload_n;

	c->ahead = NULL;
	if (!is_it)
		return false;
	c->next = c->now;
	c->now = d;
	c->store->ops->prefetch(c->store, &d->plan, PREFETCH_REST);
	return true;
}

void check_expect(struct checker *c, const uint8_t *payload, size_t n)
{
	if (c->store && c->store->ops->prefetch) {
		c->expected = payload;
		c->expected_n = n;
	}
}

enum check_rc check_answer(struct checker *c, struct snapshot *snap, const struct notify *n,
	uint32_t send_max, struct now now, struct wire_writer *out, struct check **pending)
{
	if (out->bad || wire_room(out) < check_room(send_max))
		return CHECK_NO_ROOM;

	bool ahead = c->ahead && is_ahead(c, n);
	struct draft *d = c->now;
	enum load_rc rc = ahead ? d->loaded : load_view(c, snap, n, d);
	if (d->ignored)
		metric_add(c->metrics, METRIC_messages_ignored, d->ignored);
	if (rc == LOAD_MALFORMED)
		return CHECK_MALFORMED;
	if (rc == LOAD_NOTHING) {
		write_bare_ack(c, (struct ids){ n->stream_id, n->frame_id }, out);
		return CHECK_ANSWERED;
	}
	if (store_may_be_pending(c->store))
		return ask_store(c, snap, n, send_max, now, out, pending);

	if (!ahead)
		policy_plan(snap->policy, &d->view, &d->plan);
	if (d->plan.tier_number < 0)
		unlisted_tell(snap->policy, &d->plan, &d->view, false, now);
	if (c->expected)
		draft_next(c, snap);
	find_ban(c, snap->policy, &d->plan, now);
	if (d->plan.outcome == OUTCOME_LIMITS && d->plan.n)
		(void)store_take(c->store, &d->plan, now);
	answer_now(c, snap, &d->plan, n, send_max, out);
	return CHECK_ANSWERED;
}
