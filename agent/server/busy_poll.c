#include "server/busy_poll.h"

#include <sched.h>

/* A stretch that ends with traffic saves a sleep and a wake-up; one that does not burns the whole
 * of its time. So it goes on only while four of five end with traffic, and what was earned is
 * bounded, so that eight failures in a row are the most. */
enum { CREDIT_MAX = 32, CREDIT_FAILED = 4 };

/* A poll takes about a microsecond; if there was so much between two, another thread ran. An
 * interrupt takes up to 40 us in a virtual machine, 250 times a second. */
#define BETWEEN_POLLS_MAX ((usec_t)50)

/* Once yielded to, a thread that never sleeps, were it one for idle time only, has the core until
 * the kernel's next tick: one to ten milliseconds in which requests wait. */
#define TICK_MIN (USEC_PER_MSEC / 2)

/* How long it leaves off: where it did not pay, so long that one try at a time, of 30 us, is next
 * to nothing; where another thread wanted the core, so long that this one is no hindrance to it;
 * where that took a tick and then another, twice as long each time. */
#define REST_FAILED   (10 * USEC_PER_MSEC)
#define REST_UNWANTED (100 * USEC_PER_MSEC)
#define REST_TICK_MAX (32 * REST_UNWANTED)

static void rest(struct busy_poll *b, usec_t now, usec_t how_long)
{
	b->credit = 0;
	b->again_at = now + how_long;
}

/* Another thread had the core for `taken`. */
static void give_way(struct busy_poll *b, usec_t now, usec_t taken)
{
	if (taken < TICK_MIN) {
		rest(b, now, REST_UNWANTED);
		return;
	}
	bool is_still_there = b->tick_at && now - b->tick_at < 3 * b->tick_rest;
	if (!is_still_there)
		b->tick_rest = REST_UNWANTED;
	else if (b->tick_rest < REST_TICK_MAX)
		b->tick_rest *= 2;
	b->tick_at = now;
	rest(b, now, b->tick_rest);
}

bool busy_poll_step(struct busy_poll *b, usec_t now)
{
	if (!b->since) { /* what came before was the traffic's own time */
		b->since = b->polled = now;
		if (b->longest)
			metric_add(b->metrics, METRIC_busy_polls, 1);
		return b->longest > 0;
	}
	if (now - b->polled > BETWEEN_POLLS_MAX) {
		give_way(b, now, now - b->polled);
		return false;
	}
	if (now - b->since > b->longest) {
		b->credit -= CREDIT_FAILED;
		if (b->credit <= 0)
			rest(b, now, REST_FAILED);
		return false;
	}
	usec_t spent = atomic_load_explicit(&b->spent, memory_order_relaxed) + now - b->polled;
	atomic_store_explicit(&b->spent, spent, memory_order_relaxed);
	b->polled = now;
	return true;
}

static void on_idle(struct ev_loop *loop, ev_idle *idle, int revents)
{
	(void)loop;
	(void)revents;
	struct busy_poll *b = idle->data;
	if (busy_poll_step(b, clock_steady()))
		(void)sched_yield();
	else
		busy_poll_stop(b);
}

void busy_poll_init(struct busy_poll *b, struct ev_loop *loop, struct metrics *metrics)
{
	*b = (struct busy_poll){ .loop = loop, .metrics = metrics };
	ev_idle_init(&b->idle, on_idle);
	/* After all else that the loop has to do. */
	ev_set_priority(&b->idle, EV_MINPRI);
	b->idle.data = b;
}

void busy_poll_stop(struct busy_poll *b)
{
	ev_idle_stop(b->loop, &b->idle);
}

void busy_poll_set(struct busy_poll *b, usec_t longest)
{
	b->longest = longest;
	if (!longest)
		busy_poll_stop(b);
}

void busy_poll_note(struct busy_poll *b, usec_t now)
{
	if (ev_is_active(&b->idle)) {
		if (b->since && now - b->polled >= TICK_MIN) {
			give_way(b, now, now - b->polled); /* it came meanwhile, and waited */
			busy_poll_stop(b);
			return;
		}
		if (b->credit < CREDIT_MAX)
			b->credit++;
	} else {
		if (!b->longest || now < b->again_at)
			return;
		ev_idle_start(b->loop, &b->idle);
	}
	b->since = 0;
}
