#include "server/busy_poll.h"

#include <sched.h>

/* A stretch that ends with traffic saves a sleep and a wake-up; one that does not burns the whole
 * of its time. So it goes on only while four of five end with traffic, and what was earned is
 * bounded, so that eight failures in a row are the most. */
enum { CREDIT_MAX = 32, CREDIT_FAILED = 4 };

/* A poll takes about a microsecond; if there was so much between two, another thread ran. An
 * interrupt takes up to 40 us in a virtual machine, 250 times a second. */
#define BETWEEN_POLLS_MAX ((usec_t)50)

/* How long it leaves off: where it did not pay, so long that one try at a time, of 30 us, is next
 * to nothing; where another thread wanted the core, so long that this one is no hindrance to it. */
#define REST_FAILED   (10 * USEC_PER_MSEC)
#define REST_UNWANTED (100 * USEC_PER_MSEC)

static void rest(struct busy_poll *b, usec_t now, usec_t how_long)
{
	b->credit = 0;
	b->again_at = now + how_long;
}

bool busy_poll_step(struct busy_poll *b, usec_t now)
{
	if (!b->since) { /* what came before was the traffic's own time */
		b->since = b->polled = now;
		return b->longest > 0;
	}
	if (now - b->polled > BETWEEN_POLLS_MAX) {
		rest(b, now, REST_UNWANTED);
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

void busy_poll_init(struct busy_poll *b, struct ev_loop *loop)
{
	*b = (struct busy_poll){ .loop = loop };
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
		if (b->credit < CREDIT_MAX)
			b->credit++;
	} else {
		if (!b->longest || now < b->again_at)
			return;
		ev_idle_start(b->loop, &b->idle);
	}
	b->since = 0;
}
