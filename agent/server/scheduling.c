#include "server/scheduling.h"

#define STEP (100 * USEC_PER_MSEC)

/* Cores are contended where it ran, and waited for one, so long; in thousandths of the time. */
enum { RAN_MIN = 50, WAITED_MIN = 50 };

/* Who asks little at a time asks little more while the agent waits: with 16 connections the same is
 * answered, later. */
enum { ANSWERS_PER_TURN_MIN = 6 };

/* HAProxy sleeps after 100 to 200 us, with 50 to 200 connections; who computes all the time has the
 * core for some milliseconds. */
enum { WAIT_PER_TURN_MAX = 200 };

#define REST_MIN USEC_PER_SEC
#define REST_MAX (64 * USEC_PER_SEC)

static bool pays(const struct scheduling_account *d, usec_t took)
{
	return d->turns && d->ran * 1000 >= RAN_MIN * (uint64_t)took &&
	       d->waited * 1000 >= WAITED_MIN * (uint64_t)took &&
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
	usec_t took = now - s->at;
	if (s->at && took < STEP)
		return s->is_batch;
	struct scheduling_account d = { a->ran - s->last.ran, a->waited - s->last.waited,
		a->turns - s->last.turns, a->answered - s->last.answered };
	bool is_first = !s->at;
	s->last = *a;
	s->at = now;
	if (is_first)
		return s->is_batch;

	bool costs = d.waited > WAIT_PER_TURN_MAX * d.turns;
	if (s->is_batch && costs)
		rest(s, now);
	s->is_batch = !costs && now >= s->again_at && pays(&d, took);
	return s->is_batch;
}
