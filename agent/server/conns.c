#include "server/conn_inside.h"

#include "server/handover.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	ACCEPT_FRAME_MAX = 65536, /* accepted whatever is configured: HAProxy 3.1.0 ignores what was
				   * negotiated and sends up to its own size */
	LEAVES_A_TURN = 64,       /* where it is crowded: a fraction of a millisecond */
	READS_A_TURN = 16,        /* looks at what a peer has read: some microseconds each */
	DEAF_LOOKS = 4,           /* two seconds at least */
	DEAF_BYTES = 2048,        /* some ten answers: fewer are no harm yet */
};

/* So long nothing was asked, where it is crowded. A NOTIFY that crosses the DISCONNECT is lost: of
 * these that is one in a hundred thousand. */
#define IDLE (10 * USEC_PER_SEC)

#define STOP_QUIET (10 * USEC_PER_MSEC) /* between the last ACK and DISCONNECT: HAProxy 3.1.0 */
#define STOP_BUSY_MAX \
	(400 * USEC_PER_MSEC) /* a connection that is never quiet is cut after this \
			       */
#define STOP_ENTIRE_MAX (1000 * USEC_PER_MSEC)

/* Creation and end. */

static struct session_settings session_settings_of(const struct settings *s)
{
	uint32_t own = (uint32_t)s->agent.max_frame_size;
	uint32_t accept = own > ACCEPT_FRAME_MAX ? own : ACCEPT_FRAME_MAX;
	return (struct session_settings){
		.max_frame_size = own,
		.accept_max = accept,
		.reassembly_max = accept,
	};
}

static size_t max_of(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Room for the longest frame in either direction, and for what follows an ACK in one send. */
static size_t buffer_size_for(const struct session_settings *s)
{
	return max_of(s->accept_max + (size_t)FRAME_LENGTH_BYTES, check_room(s->max_frame_size)) +
	       SESSION_OUT_MAX;
}

bool conns_init(struct conns *all, struct ev_loop *loop, struct snapshot *snapshot,
	struct store *store, struct metrics *metrics, struct event_ring *events)
{
	*all = (struct conns){
		.loop = loop, .snapshot = snapshot, .metrics = metrics, .epoll = -1
	};
	all->settings = session_settings_of(&snapshot->settings);
	buffer_pool_init(&all->pool, buffer_size_for(&all->settings));
	busy_poll_init(&all->busy_poll, loop, metrics);
	unread_init(&all->unread);
	if (!checker_init(&all->checker, all->settings.accept_max, store, metrics, events))
		return false;
	conns_watch(all);
	return true;
}

static void forget_dirty(struct conn *c)
{
	if (!c->is_dirty)
		return;
	struct conn **link = &c->all->dirty;
	while (*link != c)
		link = &(*link)->next_dirty;
	*link = c->next_dirty;
	c->is_dirty = false;
}

void conn_attach(struct conn *c, struct conns *all)
{
	c->all = all;
	/* Set anew, so that the loop does not take it for one that it has had and knows of. */
	ev_io_set(&c->reader, c->fd, EV_READ);
	ev_io_set(&c->writer, c->fd, EV_WRITE);
	c->next = all->head;
	c->link = &all->head;
	if (c->next)
		c->next->link = &c->next;
	all->head = c;
	all->n++;
	metric_add(all->metrics, METRIC_connections_open, 1);
}

void conn_detach(struct conn *c)
{
	struct conns *all = c->all;
	forget_dirty(c); /* its answers may have gone with what waited for its peer */
	ev_io_stop(all->loop, &c->reader);
	ev_io_stop(all->loop, &c->writer);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	all->n--;
	atomic_fetch_sub_explicit(&all->open, 1, memory_order_relaxed);
	metric_add(all->metrics, METRIC_connections_open, (uint64_t)-1);
	c->all = NULL;
}

static void conn_free(struct conn *c)
{
	struct conns *all = c->all;
	conn_abandon_checks(c);
	conn_detach(c);
	(void)close(c->fd);
	buffer_put(&all->pool, c->in);
	buffer_put(&all->pool, c->out);
	session_fini(&c->session);
	free(c);
	metric_add(all->metrics, METRIC_connections_closed, 1);
}

void conns_close(struct conns *all)
{
	conns_shut(all, false);
	while (all->head)             /* which conn_free() moves on, through c->link */
		conn_free(all->head); /* NOLINT(clang-analyzer-unix.Malloc) */
	ev_prepare_stop(all->loop, &all->flusher);
}

void conns_fini(struct conns *all)
{
	conns_close(all);
	busy_poll_stop(&all->busy_poll);
	unread_fini(&all->unread);
	checker_fini(&all->checker);
	buffer_pool_fini(&all->pool);
}

static void set_busy_poll(struct conns *all)
{
	busy_poll_set(
		&all->busy_poll, all->may_busy_poll ? all->snapshot->settings.agent.busy_poll : 0);
}

void conns_allow_busy_poll(struct conns *all, bool allow)
{
	all->may_busy_poll = allow;
	set_busy_poll(all);
}

bool conns_fit(struct conns *all, const struct session_settings *wanted)
{
	/* A frame may be longer now than the view's memory was made for. Without the new memory a
	 * value that does not fit counts as absent, so sizes stay as they were. */
	if (wanted->accept_max > all->settings.accept_max &&
		!checker_grow(&all->checker, wanted->accept_max))
		return false;
	/* What was made large stays large: there may be connections that still need it. */
	struct session_settings larger = *wanted;
	larger.accept_max = (uint32_t)max_of(all->settings.accept_max, wanted->accept_max);
	all->settings.accept_max = larger.accept_max;
	all->settings.reassembly_max = larger.accept_max;
	buffer_pool_grow(&all->pool, buffer_size_for(&larger));
	return true;
}

void conns_use(struct conns *all, struct snapshot *snapshot)
{
	bool hides_more = policy_hides_more(snapshot->policy, all->snapshot->policy);
	all->snapshot = snapshot;
	set_busy_poll(all);
	if (hides_more)
		top_forget(all->checker.top);
	struct store *store = all->checker.store;
	if (store && store->ops->forget)
		store->ops->forget(store);
	struct session_settings fresh = session_settings_of(&snapshot->settings);
	if (!conns_fit(all, &fresh)) {
		log_error("no_memory", KV_Z("for", "a larger agent.max_frame_size"),
			KV_Z("hint", "the sizes from before the reload are kept"));
		return;
	}
	all->settings.max_frame_size = fresh.max_frame_size;
}

void conns_add(struct conns *all, int fd, const char *peer, bool beyond, struct now now)
{
	struct conn *c = calloc(1, sizeof *c);
	if (!c) {
		log_warning_every(USEC_PER_SEC, "no_memory", KV_Z("for", "a connection"));
		(void)close(fd);
		atomic_fetch_sub_explicit(&all->open, 1, memory_order_relaxed);
		metric_add(all->metrics, METRIC_connections_closed, 1);
		return;
	}
	c->fd = fd;
	(void)snprintf(c->peer, sizeof c->peer, "%s", peer);
	c->settings = all->settings;
	session_init(&c->session, &c->settings);
	c->session.draining = all->draining;
	c->session.beyond = beyond;
	c->room = SESSION_OUT_MAX;
	c->decided_end = &c->decided;
	c->deadline = now.steady + (beyond ? CONN_BEYOND_TIMEOUT : CONN_HELLO_TIMEOUT);
	c->answered_at = now.steady;
	conn_watch(c);
	conn_attach(c, all);
	ev_io_start(all->loop, &c->reader);
}

void conn_end(struct conn *c, const char *why)
{
	if (log_enabled(LOG_LEVEL_DEBUG))
		log_debug("connection_closed", KV_Z("peer", c->peer), KV_Z("why", why));
	conn_free(c);
}

/* Deadlines and the end. */

static bool has_nothing_under_way(const struct conn *c)
{
	return !c->in && !c->out && !c->session.assembling && !c->checks_n;
}

/* Between two looks of its reader: what came since is to be answered first. */
static bool has_something_to_read(const struct conn *c)
{
	char byte;
	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void expire(struct conn *c, struct now now)
{
	if (c->write_deadline && now.steady >= c->write_deadline) {
		metric_add(c->all->metrics, METRIC_timeouts, 1);
		log_warning_every(USEC_PER_SEC, "timeout", KV_Z("peer", c->peer),
			KV_Z("of", "a peer that does not read its answers"));
		conn_end(c, "write timeout");
		return;
	}
	if (!c->deadline || now.steady < c->deadline)
		return;
	if (c->state == CONN_LINGERING) {
		conn_end(c, "lingered long enough");
		return;
	}
	if (c->session.state == SESSION_CHECKED) {
		conn_disconnect(c, SPOP_NORMAL, now);
		return;
	}
	metric_add(c->all->metrics, METRIC_timeouts, 1);
	log_warning_every(USEC_PER_SEC, "timeout", KV_Z("peer", c->peer),
		KV_Z("of", c->session.state == SESSION_NEW ? "HELLO" : "a frame"));
	conn_disconnect(c, SPOP_TIMEOUT, now);
}

/* Is it the turn of the `i`th connection to be looked at? */
static bool is_looked_at(const struct conns *all, unsigned i)
{
	unsigned turns = all->n / READS_A_TURN + 1;
	return i % turns == all->looks % turns;
}

/* Since the last look. Who takes no answers is not read: what he asks waits in the socket. */
static bool asked_on(struct conn *c)
{
	int waiting = 0, seen = c->waiting_seen;
	if (c->write_deadline)
		(void)ioctl(c->fd, FIONREAD, &waiting);
	c->waiting_seen = waiting;
	return c->sent != c->sent_seen || waiting > seen;
}

/* Does it ask on, and take no answer? HAProxy 3.1 to 3.5 does for ever, once it had all of its
 * buffer to read at once, after a moment's delay, and each check there is lost. One that was
 * stopped, or has no processor, asks nothing either. */
static bool is_deaf(struct conn *c)
{
	if (c->state != CONN_OPEN || c->session.async || !asked_on(c))
		return false;
	int64_t unread = unread_by_peer(&c->all->unread, c->fd);
	uint64_t read = c->sent - (uint64_t)(unread > 0 ? unread : 0);
	c->deaf_looks = read == c->read_seen ? c->deaf_looks + 1 : 0;
	c->sent_seen = c->sent;
	c->read_seen = read;
	return c->deaf_looks >= DEAF_LOOKS && unread >= DEAF_BYTES;
}

/* With a reset: it would not read of our end, either. */
static void leave_deaf(struct conn *c)
{
	static const struct linger at_once = { .l_onoff = 1 };
	metric_add(c->all->metrics, METRIC_timeouts, 1);
	log_warning_every(USEC_PER_SEC, "timeout", KV_Z("peer", c->peer),
		KV_Z("of", "a peer that asks on and does not read its answers"),
		KV_Z("hint",
			"HAProxy 3.1 and newer: its server line of this agent wants max-reuse 24"));
	(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	conn_end(c, "deaf");
}

static bool is_idle(const struct conn *c, struct now now)
{
	return c->state == CONN_OPEN && c->session.state == SESSION_OPEN &&
	       now.steady - c->answered_at >= IDLE && has_nothing_under_way(c) &&
	       !has_something_to_read(c);
}

void conns_make_room(struct conns *all)
{
	atomic_store_explicit(&all->crowded, true, memory_order_relaxed);
}

void conns_expire(struct conns *all, struct now now)
{
	bool crowded = atomic_exchange_explicit(&all->crowded, false, memory_order_relaxed);
	unsigned may_leave = crowded ? LEAVES_A_TURN : 0, i = 0;
	all->looks++;
	for (struct conn *c = all->head, *next; c; c = next) {
		next = c->next;
		c->recent /= 2;
		if (is_looked_at(all, i++) && is_deaf(c)) {
			leave_deaf(c);
			continue;
		}
		if (may_leave && is_idle(c, now)) {
			may_leave--;
			conn_disconnect(c, SPOP_NORMAL, now);
			continue;
		}
		expire(c, now);
	}
}

void conns_drain(struct conns *all)
{
	all->draining = true;
	for (struct conn *c = all->head; c; c = c->next)
		c->session.draining = true;
}

/* Checks that wait are answered within redis.timeout, and at a stop, too. */
static usec_t store_time(const struct conn *c)
{
	usec_t timeout = c->checks_n ? c->all->snapshot->settings.redis.timeout : 0;
	return timeout < STOP_STORE_MAX ? timeout : STOP_STORE_MAX;
}

/* What HAProxy sends while the DISCONNECT is on its way is lost. HAProxy 3.1.0 would miss the ACK
 * just before it, too, so whoever may be that is left after a pause, which a busy connection does
 * not make by itself. Older ones, which announce async, are left between two requests. */
static bool may_leave(const struct conn *c, usec_t since, struct now now)
{
	bool busy_too_long = since >= STOP_BUSY_MAX + store_time(c);
	/* One round of the loop at least, for what has been received already. */
	if (since < STOP_QUIET || (!busy_too_long && !has_nothing_under_way(c)))
		return false;
	if (c->session.async && !busy_too_long)
		return !has_something_to_read(c);
	return now.steady - c->answered_at >= STOP_QUIET;
}

bool conns_stop(struct conns *all, struct now now)
{
	if (!all->stopping_since) {
		all->stopping_since = now.steady;
		conns_drain(all);
		return all->n == 0;
	}
	usec_t since = now.steady - all->stopping_since;
	all->reads_no_more = since >= STOP_BUSY_MAX;
	for (struct conn *c = all->head, *next; c; c = next) {
		next = c->next;
		if (since >= STOP_ENTIRE_MAX + store_time(c)) {
			conn_end(c, "stopping");
			continue;
		}
		if (c->state != CONN_OPEN) {
			expire(c, now);
			continue;
		}
		if (all->reads_no_more)
			ev_io_stop(all->loop, &c->reader); /* so that it becomes quiet */
		if (may_leave(c, since, now))
			conn_disconnect(c, SPOP_NORMAL, now);
	}
	return all->n == 0;
}
