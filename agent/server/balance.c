#include "server/balance.h"

#include <string.h>

enum {
	WHOLE = 1000,
	SATURATED = 900, /* busy or waiting for a core */
	WELL = 600,      /* fewer carry it, if each is no busier than this */
	CROWDED = 200,   /* of the time that they want to run, they wait for cores */
	PAYS = 1100,     /* answered, against before */
	NO_LOSS = 950,   /* about as much */
	HURTS = 850,     /* so much less that nobody has to look longer */
};

#define SATURATED_FOR (200 * USEC_PER_MSEC)
#define DOUBTED_FOR   (1 * USEC_PER_SEC)
#define LOOSE_FOR     (2 * USEC_PER_SEC)
#define EVEN_EVERY    (1 * USEC_PER_SEC)
#define STEP_EVERY    (100 * USEC_PER_MSEC)
/* A trial: until what moved is there, and then so long that what is answered can be compared; where
 * it hurts, a glance is enough. */
#define TRIAL_STEP_EVERY (20 * USEC_PER_MSEC)
#define SETTLE           (40 * USEC_PER_MSEC)
#define GLANCE           (60 * USEC_PER_MSEC)
#define MEASURE          (300 * USEC_PER_MSEC)
/* A trial that fails has cost something: so it comes ever more rarely. */
#define REST_MIN   (2 * USEC_PER_SEC)
#define REST_MAX   (64 * USEC_PER_SEC)
#define REST_TIMES 4

struct totals {
	uint64_t wait, want;
};

void balance_init(struct balance *b, unsigned workers)
{
	*b = (struct balance){
		.workers = workers, .active = 1, .more_rest = REST_MIN, .fewer_rest = REST_MIN
	};
}

static unsigned want(const struct balance_load *load)
{
	return load->busy + load->wait;
}

/* Who has one connection has nothing to give. */
static bool is_saturated(const struct balance_load *load)
{
	return load->connections > 1 && (load->full || want(load) >= SATURATED);
}

static struct totals sum(const struct balance *b, const struct balance_load *load)
{
	struct totals t = { 0 };
	for (unsigned i = 0; i < b->workers; i++) {
		t.wait += load[i].wait;
		t.want += want(&load[i]);
	}
	return t;
}

static uint64_t rate(uint64_t answered, usec_t time)
{
	return time > 0 ? answered * (uint64_t)USEC_PER_SEC / (uint64_t)time : 0;
}

static usec_t longer(usec_t rest)
{
	return rest * REST_TIMES > REST_MAX ? REST_MAX : rest * REST_TIMES;
}

static void forget_signs(struct balance *b)
{
	b->saturated = b->doubted = b->loose = 0;
}

static void begin_trial(struct balance *b, enum balance_trial trial, unsigned active,
	uint64_t rate_before, usec_t now)
{
	b->trial = trial;
	b->active_before = b->active;
	b->active = active;
	b->rate_before = rate_before;
	b->began = now;
	b->measured = 0;
	b->waited = b->wanted = 0;
	forget_signs(b);
}

static unsigned least_wanted(const struct balance *b, const struct balance_load *load)
{
	unsigned best = 0;
	for (unsigned i = 1; i < b->active; i++)
		if (want(&load[i]) < want(&load[best]))
			best = i;
	return best;
}

/* Each that is saturated shares with one that was not active. */
static unsigned share_out(
	struct balance *b, const struct balance_load *load, struct balance_move *move)
{
	unsigned n = 0, active = b->active;
	for (unsigned i = 0; i < active && b->active < b->workers; i++)
		if (is_saturated(&load[i]))
			move[n++] = (struct balance_move){ i, b->active++, WHOLE / 2 };
	return n;
}

/* Who is not active gives away all that it has: whatever came too late, or could not move then,
 * too. */
static unsigned gather(
	const struct balance *b, const struct balance_load *load, struct balance_move *move)
{
	struct balance_load then[WORKERS_MAX];
	unsigned n = 0;
	memcpy(then, load, b->active * sizeof *then);
	for (unsigned i = b->active; i < b->workers; i++) {
		if (!load[i].connections)
			continue;
		unsigned to = least_wanted(b, then);
		then[to].busy += want(&load[i]);
		move[n++] = (struct balance_move){ i, to, WHOLE };
	}
	return n;
}

/* The one that wants most shares with the one that wants least. */
static unsigned even_out(
	struct balance *b, const struct balance_load *load, usec_t now, struct balance_move *move)
{
	unsigned most = b->active, least = least_wanted(b, load);
	for (unsigned i = 0; i < b->active; i++)
		if (is_saturated(&load[i]) &&
			(most == b->active || want(&load[i]) > want(&load[most])))
			most = i;
	if (want(&load[least]) > WELL || now - b->evened < EVEN_EVERY)
		return 0;
	unsigned more = want(&load[most]), less = want(&load[least]);
	if (more <= less)
		return 0;
	b->evened = now;
	move[0] = (struct balance_move){ most, least, (more - less) * WHOLE / 2 / more };
	return 1;
}

static unsigned on_saturated(struct balance *b, const struct balance_load *load, uint64_t answered,
	usec_t now, struct balance_move *move)
{
	bool any = false;
	for (unsigned i = 0; i < b->active; i++)
		any = any || is_saturated(&load[i]);
	if (!any) {
		b->saturated = 0;
		return 0;
	}
	if (!b->saturated) {
		b->saturated = now;
		b->answered_saturated = answered;
		return 0;
	}
	if (now - b->saturated < SATURATED_FOR)
		return 0;
	unsigned n = even_out(b, load, now, move);
	if (n || b->active == b->workers || now < b->more_at)
		return n;
	uint64_t before = rate(answered - b->answered_saturated, now - b->saturated);
	unsigned active = b->active;
	n = share_out(b, load, move);
	unsigned grown = b->active;
	b->active = active;
	begin_trial(b, TRIAL_MORE, grown, before, now);
	return n;
}

/* Would fewer answer as much? */
static void on_doubt(struct balance *b, uint64_t answered, usec_t now)
{
	if (b->active == 1 || now < b->fewer_at) {
		b->doubted = 0;
	} else if (!b->doubted) {
		b->doubted = now;
		b->answered_doubted = answered;
	} else if (now - b->doubted >= DOUBTED_FOR) {
		begin_trial(b, TRIAL_FEWER, b->active - 1,
			rate(answered - b->answered_doubted, now - b->doubted), now);
	}
}

static void on_loose(struct balance *b, struct totals t, usec_t now)
{
	unsigned needed = (unsigned)((t.want + WELL - 1) / WELL);
	if (!needed)
		needed = 1;
	if (needed >= b->active) {
		b->loose = 0;
		return;
	}
	if (!b->loose) {
		b->loose = now;
		b->loose_needed = needed;
	}
	if (needed > b->loose_needed)
		b->loose_needed = needed;
	if (now - b->loose < LOOSE_FOR)
		return;
	b->active = b->loose_needed;
	if (b->active == 1)
		b->fewer_rest = REST_MIN;
	forget_signs(b);
}

/* It did not pay. */
static void rest_from_more(struct balance *b, usec_t now)
{
	b->more_at = now + b->more_rest;
	b->more_rest = longer(b->more_rest);
}

static void judge_more(struct balance *b, uint64_t gain, usec_t now)
{
	bool crowded = b->waited * WHOLE >= b->wanted * CROWDED;
	if (gain >= PAYS || (gain >= NO_LOSS && !crowded)) {
		b->grown_to = b->active;
		b->fewer_at = now + REST_MIN;
		return;
	}
	b->active = b->active_before;
	rest_from_more(b, now);
}

/* Of many, one more or fewer is not much: half of its part is the most that may be lost. */
static unsigned no_loss_of(unsigned active)
{
	unsigned n = WHOLE - WHOLE / 2 / active;
	return n > NO_LOSS ? n : NO_LOSS;
}

static unsigned judge_fewer(struct balance *b, const struct balance_load *load, uint64_t gain,
	usec_t now, struct balance_move *move)
{
	if (gain >= no_loss_of(b->active_before)) {
		b->fewer_at = now + REST_MIN;
		rest_from_more(b, now);
		return 0;
	}
	b->fewer_at = now + b->fewer_rest;
	b->fewer_rest = longer(b->fewer_rest);
	if (b->active_before == b->grown_to)
		b->more_rest = REST_MIN; /* the last step up pays */
	unsigned most = 0;
	for (unsigned i = 1; i < b->active; i++)
		if (want(&load[i]) > want(&load[most]))
			most = i;
	move[0] = (struct balance_move){ most, b->active, WHOLE / 2 };
	b->active = b->active_before;
	return 1;
}

static unsigned on_trial(struct balance *b, const struct balance_load *load, struct totals t,
	uint64_t answered, usec_t now, struct balance_move *move)
{
	if (!b->measured) {
		if (now - b->began >= SETTLE) {
			b->measured = now;
			b->answered_measured = answered;
		}
		return 0;
	}
	b->waited += t.wait;
	b->wanted += t.want;
	usec_t measured = now - b->measured;
	if (measured < GLANCE)
		return 0;
	uint64_t after = rate(answered - b->answered_measured, measured);
	uint64_t gain = b->rate_before ? after * WHOLE / b->rate_before : WHOLE;
	if (measured < MEASURE && gain >= HURTS)
		return 0;
	enum balance_trial trial = b->trial;
	b->trial = TRIAL_NONE;
	if (trial == TRIAL_FEWER)
		return judge_fewer(b, load, gain, now, move);
	judge_more(b, gain, now);
	return 0;
}

unsigned balance_step(struct balance *b, const struct balance_load *load, uint64_t answered,
	usec_t now, struct balance_move *move)
{
	struct totals t = sum(b, load);
	unsigned n;
	if (b->trial != TRIAL_NONE) {
		n = on_trial(b, load, t, answered, now, move);
	} else {
		n = on_saturated(b, load, answered, now, move);
		if (!n && b->trial == TRIAL_NONE)
			on_doubt(b, answered, now);
		if (!n && b->trial == TRIAL_NONE)
			on_loose(b, t, now);
	}
	return n ? n : gather(b, load, move);
}

usec_t balance_interval(const struct balance *b)
{
	return b->trial == TRIAL_NONE ? STEP_EVERY : TRIAL_STEP_EVERY;
}
