#include "server/handover.h"

#include "server/conn_inside.h"

#include <assert.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WHOLE = 1000, DESCRIPTORS_MAX = 65536 };

static struct conn shut; /* as the list of arrivals: there will be none */

static void on_probe(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	(void)io;
	(void)revents;
}

/* libev does not name it; but there is one only that knows what only this loop watches. */
int loop_epoll(struct ev_loop *loop)
{
	int probe = ev_backend(loop) == EVBACKEND_EPOLL ? eventfd(0, EFD_CLOEXEC) : -1;
	if (probe < 0)
		return -1;
	ev_io io;
	ev_io_init(&io, on_probe, probe, EV_READ);
	ev_io_start(loop, &io);
	(void)ev_run(loop, EVRUN_NOWAIT);
	struct epoll_event event = { .events = EPOLLIN };
	int fd = 0;
	while (fd < DESCRIPTORS_MAX && epoll_ctl(fd, EPOLL_CTL_MOD, probe, &event) < 0)
		fd++;
	(void)close(probe);
	ev_io_stop(loop, &io);
	(void)ev_run(loop, EVRUN_NOWAIT);
	return fd < DESCRIPTORS_MAX ? fd : -1;
}

static bool push(struct conns *to, struct conn *c)
{
	struct conn *first = atomic_load_explicit(&to->arrivals, memory_order_relaxed);
	do {
		if (first == &shut)
			return false;
		c->next = first;
	} while (!atomic_compare_exchange_weak_explicit(
		&to->arrivals, &first, c, memory_order_release, memory_order_relaxed));
	if (to->bell)
		ev_async_send(to->loop, to->bell);
	return true;
}

bool conn_hand_over(struct conn *c)
{
	struct conns *from = c->all, *to = c->leaving;
	assert(!c->checks_n);
	c->leaving = NULL;
	if (from->stopping_since)
		return false;
	c->paused = false;
	conn_detach(c);
	if (from->epoll >= 0)
		(void)epoll_ctl(from->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	atomic_fetch_add_explicit(&to->open, 1, memory_order_relaxed);
	if (push(to, c))
		return true;
	atomic_fetch_sub_explicit(&to->open, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&from->open, 1, memory_order_relaxed);
	conn_attach(c, from);
	return false;
}

/* May free `c`. */
static void leave(struct conn *c, struct conns *to, struct now now)
{
	c->leaving = to;
	if (c->checks_n || c->is_dirty) {
		/* It is asked no more; once all is answered, it goes. */
		c->paused = true;
		ev_io_stop(c->all->loop, &c->reader);
	} else if (!conn_hand_over(c)) {
		conn_go_on(c, now);
	}
}

void conns_give(struct conns *from, struct conns *to, unsigned share)
{
	uint64_t asked = 0, given = 0;
	unsigned n = 0;
	struct now now = clock_read();

	if (from == to || from->stopping_since)
		return;
	for (struct conn *c = from->head; c; c = c->next)
		asked += c->recent;
	uint64_t most = asked * share / WHOLE;
	for (struct conn *c = from->head, *next; c && n < MOVES_MAX; c = next) {
		next = c->next;
		bool fits = share == WHOLE || (c->recent && given + c->recent <= most);
		if (!fits || c->leaving || c->state != CONN_OPEN)
			continue;
		given += c->recent;
		n++;
		leave(c, to, now);
	}
}

static void take_in(struct conns *all, struct conn *first, bool serve, struct now now)
{
	for (struct conn *c = first, *next; c; c = next) {
		next = c->next;
		conn_attach(c, all);
		c->session.draining = c->session.draining || all->draining;
		if (!serve)
			continue;
		/* It may have begun by settings that this loop has not seen yet. */
		if (conns_fit(all, &c->settings))
			conn_go_on(c, now);
		else
			conn_end(c, "no memory");
	}
}

void conns_fetch(struct conns *all, struct now now)
{
	if (atomic_load_explicit(&all->arrivals, memory_order_relaxed) == &shut)
		return;
	take_in(all, atomic_exchange_explicit(&all->arrivals, NULL, memory_order_acquire), true,
		now);
}

void conns_shut(struct conns *all, bool serve)
{
	struct conn *first = atomic_exchange_explicit(&all->arrivals, &shut, memory_order_acquire);
	if (first != &shut)
		take_in(all, first, serve, clock_read());
}
