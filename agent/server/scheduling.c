#include "server/scheduling.h"

#define STEP (100 * USEC_PER_MSEC)

/* Cores are contended where it worked, and waited for one, so long; in thousandths of the time. Who
 * is SCHED_BATCH needs less for the same requests, by a third. */
enum { WORKED_MIN = 50, WORKED_MIN_BATCH = 25, WAITED_MIN = 50 };

/* Who asks little at a time asks little more while the agent waits: with 16 connections the same is
 * answered, later. */
enum { ANSWERS_PER_TURN_MIN = 6 };

/* HAProxy sleeps after 100 to 200 us, with 50 to 200 connections; who computes all the time has the
 * core for some milliseconds. */
enum { WAIT_PER_TURN_MAX = 200 };

#define REST_MIN USEC_PER_SEC
#define REST_MAX (64 * USEC_PER_SEC)

static bool is_share(uint64_t part, unsigned thousandths, usec_t whole)
{
	return part * 1000 >= thousandths * (uint64_t)whole;
}

/* Who polls is awake when they come, and interrupts nobody; and one turn of his is many wake-ups
 * saved, which says nothing of how many come at a time. */
static bool pays(bool is_batch, const struct scheduling_account *d, usec_t took)
{
	uint64_t worked = d->ran > d->polled ? d->ran - d->polled : 0;
	return d->turns && d->polled <= worked &&
	       is_share(worked, is_batch ? WORKED_MIN_BATCH : WORKED_MIN, took) &&
	       d->answered >= ANSWERS_PER_TURN_MIN * d->turns;
}

/* Rests twice as long each time that it costs too much again soon after it was tried again. */
static void rest(struct scheduling *s, usec_t now)
{
	bool is_soon = s->rest && now - s->again_at < s->rest;
	s->rest = !is_soon ? REST_MIN : s->rest < REST_MAX ? 2 * s->rest : REST_MAX;
	s->again_at = now + s->rest;
}

bool scheduling_step(struct scheduling *s, const struct scheduling_account *a, usec_t now)
{
	if (!a) {
		s->at = 0;
		return s->is_batch = false;
	}
	usec_t took = now - s->at;
	if (s->at && took < STEP)
		return s->is_batch;
	struct scheduling_account d = { a->ran - s->last.ran, a->polled - s->last.polled,
		a->waited - s->last.waited, a->turns - s->last.turns,
		a->answered - s->last.answered };
	bool is_first = !s->at;
	s->last = *a;
	s->at = now;
	if (is_first)
		return s->is_batch;

	/* One wait of one wake-up, long as it may be, says nothing. */
	bool waits = is_share(d.waited, WAITED_MIN, took);
	bool costs = waits && d.waited > WAIT_PER_TURN_MAX * d.turns;
	if (s->is_batch && costs)
		rest(s, now);
	s->is_batch = waits && !costs && now >= s->again_at && pays(s->is_batch, &d, took);
	return s->is_batch;
}
