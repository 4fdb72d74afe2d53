#include "server/conn_inside.h"

#include "server/handover.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

enum {
	RECV_MAX = 8192, /* of one turn: a peer that sends without end gets its share, not more;
			  * about what HAProxy asks at a time (20 NOTIFYs) */
	CHECKS_EACH_MAX = CHECKS_MAX / 4, /* of one connection: it must not take everyone's */
	LINGER_BYTES_MAX = 1 << 20, /* unread input that is still drained after a DISCONNECT */
};

/* ---- checks whose answer comes later ---- */

static void check_link(struct check *check, struct check **list)
{
	check->next = *list;
	check->link = list;
	if (check->next)
		check->next->link = &check->next;
	*list = check;
}

static void check_unlink(struct check *check)
{
	*check->link = check->next;
	if (check->next)
		check->next->link = check->link;
}

static void keep_asked(struct conn *c, struct check *check)
{
	check->owner = c;
	check_link(check, &c->asked);
	c->checks_n++;
}

static void mark_dirty(struct conn *c)
{
	if (c->is_dirty)
		return;
	c->is_dirty = true;
	c->next_dirty = c->all->dirty;
	c->all->dirty = c;
	ev_prepare_start(c->all->loop, &c->all->flusher);
}

/* From the store: many at once, as a rule; so all that they say to one peer goes in one send. */
static void on_decided(struct check *check)
{
	struct conn *c = check->owner;

	check_unlink(check);
	check->next = NULL;
	*c->decided_end = check;
	c->decided_end = &check->next;
	mark_dirty(c);
}

void conn_abandon_checks(struct conn *c)
{
	while (c->asked) {
		struct check *check = c->asked;
		check_unlink(check);
		check_abandon(check);
	}
	while (c->decided) {
		struct check *check = c->decided;
		c->decided = check->next;
		check_abandon(check);
	}
	c->decided_end = &c->decided;
	c->checks_n = 0;
}

/* Sending. */

enum flush_rc { FLUSH_DONE, FLUSH_WAIT, FLUSH_BROKEN };

/* One send of all that waits. */
static enum flush_rc flush(struct conn *c, struct now now)
{
	struct buffer *out = c->out;
	if (!buffer_waiting(out)) {
		buffer_put(&c->all->pool, out);
		c->out = NULL;
		return FLUSH_DONE;
	}
	ssize_t n = send(
		c->fd, out->bytes + out->begin, out->end - out->begin, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		return FLUSH_BROKEN;
	if (n > 0) {
		out->begin += (size_t)n;
		c->sent += (uint64_t)n;
		c->answered_at = now.steady;
		c->write_deadline = 0;
	}
	if (buffer_waiting(out)) {
		if (!c->write_deadline)
			c->write_deadline = now.steady + CONN_WRITE_TIMEOUT;
		return FLUSH_WAIT;
	}
	buffer_put(&c->all->pool, out);
	c->out = NULL;
	return FLUSH_DONE;
}

/* Back pressure: who does not take answers is not asked for more questions. */
static void wait_for_peer(struct conn *c)
{
	ev_io_stop(c->all->loop, &c->reader);
	ev_io_start(c->all->loop, &c->writer);
}

static void linger(struct conn *c, struct now now)
{
	(void)shutdown(c->fd, SHUT_WR);
	buffer_put(&c->all->pool, c->in);
	c->in = NULL;
	c->state = CONN_LINGERING;
	c->deadline = now.steady + CONN_LINGER_TIMEOUT;
	ev_io_stop(c->all->loop, &c->writer);
	ev_io_start(c->all->loop, &c->reader);
}

/* What waits goes, and then the connection. May free `c`. */
static void close_after_flush(struct conn *c, struct now now)
{
	c->state = CONN_FLUSHING;
	c->deadline = 0;
	conn_abandon_checks(c);
	switch (flush(c, now)) {
	case FLUSH_DONE:
		linger(c, now);
		return;
	case FLUSH_WAIT:
		wait_for_peer(c);
		return;
	case FLUSH_BROKEN:
		conn_end(c, "cannot send");
		return;
	}
}

void conn_disconnect(struct conn *c, enum spop_status status, struct now now)
{
	struct buffer *out = c->out;
	if (!out)
		out = c->out = buffer_get(&c->all->pool);
	if (!out) {
		conn_end(c, "no memory");
		return;
	}
	buffer_pack(out);
	struct wire_writer w = { out->bytes + out->end, out->bytes + out->size, false };
	metric_disconnect(c->all->metrics, false, status);
	(void)session_disconnect(&c->session, status, &w);
	if (!w.bad)
		out->end = (size_t)(w.p - out->bytes);
	close_after_flush(c, now);
}

/* Frames. */

void conn_refused(struct metrics *metrics, const char *peer, int64_t max_connections)
{
	metric_add(metrics, METRIC_connections_refused, 1);
	log_warning_every(10 * USEC_PER_SEC, "connection_refused", KV_Z("peer", peer),
		KV_Z("why", "agent.max_connections are open"),
		KV_INT("max_connections", max_connections),
		KV_Z("hint", "each thread of each HAProxy opens some: raise it"));
}

static void log_disconnect(const struct conn *c)
{
	const struct session *s = &c->session;
	const char *text = spop_status_text(s->status);
	/* 0, 1 and 2 from HAProxy are its daily life: reload, end of I/O, idle timeout. */
	bool normal = s->by_peer ? s->status <= SPOP_TIMEOUT : s->status == SPOP_NORMAL;
	if (s->healthcheck && s->draining)
		normal = true;
	metric_disconnect(c->all->metrics, s->by_peer, s->status);
	if (s->beyond && !s->healthcheck && !s->by_peer && s->status == SPOP_NO_RESOURCE) {
		conn_refused(
			c->all->metrics, c->peer, c->all->snapshot->settings.agent.max_connections);
		return;
	}
	if (!s->by_peer && !normal)
		metric_add(c->all->metrics, METRIC_frames_bad, 1);
	if (normal) {
		if (log_enabled(LOG_LEVEL_DEBUG))
			log_debug("disconnect", KV_Z("peer", c->peer),
				KV_Z("by", s->by_peer ? "haproxy" : "agent"),
				KV_INT("status", s->status), KV_Z("text", text));
	} else if (s->by_peer) {
		log_warning_every(USEC_PER_SEC, "haproxy_disconnect", KV_Z("peer", c->peer),
			KV_INT("status", s->status), KV_Z("text", text));
	} else {
		log_warning_every(USEC_PER_SEC, "bad_frame", KV_Z("peer", c->peer),
			KV_INT("status", s->status), KV_Z("text", text),
			KV_Z("hint", "is it HAProxy that connects there?"));
	}
}

static __attribute__((noinline)) void note_truncated(const struct conn *c)
{
	metric_add(c->all->metrics, METRIC_fragments_truncated, 1);
	log_warning_every(60 * USEC_PER_SEC, "notify_truncated", KV_Z("peer", c->peer),
		KV_INT("bytes", (int64_t)c->settings.reassembly_max),
		KV_Z("what",
			"arguments that do not fit into so many count as absent, and rules that "
			"look at them do not apply"),
		KV_Z("hint",
			"in HAProxy's spoe-message say who it is first, and bound what a client can "
			"make long: path=path,bytes(0,2048); or raise agent.max_frame_size"));
}

/* One frame; its answer goes to `w`, which has c->room at least. */
static enum session_rc on_frame(
	struct conn *c, const struct frame *frame, struct wire_writer *w, struct now now)
{
	struct conns *all = c->all;
	struct session *s = &c->session;
	enum session_state before = s->state;
	metric_add(all->metrics, METRIC_frames_received, 1);
	enum session_rc rc = session_on_frame(s, &c->settings, frame, w);
	if (before == SESSION_NEW && s->state == SESSION_CHECKED) {
		metric_add(all->metrics, METRIC_health_checks, 1);
		c->deadline = now.steady + CONN_CHECK_TIMEOUT;
	}
	if (before == SESSION_NEW && s->state == SESSION_OPEN) {
		size_t answer = check_room(s->send_max);
		c->room = answer > SESSION_OUT_MAX ? answer : SESSION_OUT_MAX;
		if (log_enabled(LOG_LEVEL_DEBUG))
			log_debug("hello", KV_Z("peer", c->peer), KV_Z("engine_id", s->engine_id),
				KV_INT("max_frame_size", s->send_max),
				KV_INT("pipelining", s->pipelining));
	}
	if (rc != SESSION_NOTIFY)
		return rc;
	if (s->notify.truncated)
		note_truncated(c);
	struct check *pending;
	switch (check_answer(
		&all->checker, all->snapshot, &s->notify, s->send_max, now, w, &pending)) {
	case CHECK_ANSWERED:
		return SESSION_REPLIED;
	case CHECK_PENDING:
		keep_asked(c, pending);
		return SESSION_REPLIED;
	case CHECK_MALFORMED:
		return session_disconnect(s, SPOP_INVALID, w);
	case CHECK_NO_ROOM:
		break;
	}
	assert(!"c->room is check_room()");
	return session_disconnect(s, SPOP_NO_RESOURCE, w);
}

/* What was asked before it is answered before it. */
static void keep_goodbye(struct conn *c, struct wire_writer *w, uint8_t *from)
{
	size_t n = (size_t)(w->p - from);
	assert(n <= sizeof c->goodbye);
	memcpy(c->goodbye, from, n);
	c->goodbye_n = (uint16_t)n;
	w->p = from;
}

/* The frame after the one that is handled next, if it is there and a NOTIFY. */
static void look_ahead(struct conn *c, const uint8_t *p, const uint8_t *end)
{
	size_t max = session_frame_max(&c->session, &c->settings);
	struct frame f = { .payload = NULL };
	enum spop_status status;
	if (frame_next(&p, end, max, &f, &status) == FRAME_OK && session_is_notify(&c->session, &f))
		check_expect(&c->all->checker, f.payload, f.payload_n);
	else
		check_expect(&c->all->checker, NULL, 0);
}

enum frames_rc { FRAMES_ALL, FRAMES_NO_ROOM, FRAMES_PAUSE, FRAMES_CLOSE };

/* Handles the frames of [*p, end) while `out` has room for an answer. */
static enum frames_rc handle_frames(
	struct conn *c, const uint8_t **p, const uint8_t *end, struct now now)
{
	struct wire_writer w = { c->out->bytes + c->out->end, c->out->bytes + c->out->size, false };
	struct checker *checker = &c->all->checker;
	bool looks_ahead = check_looks_ahead(checker);
	enum frames_rc result = FRAMES_ALL;
	for (;;) {
		if (wire_room(&w) < c->room) {
			result = FRAMES_NO_ROOM;
			break;
		}
		if (c->checks_n >= CHECKS_EACH_MAX) {
			result = FRAMES_PAUSE;
			break;
		}
		struct frame frame;
		enum spop_status status;
		enum frame_rc got = frame_next(
			p, end, session_frame_max(&c->session, &c->settings), &frame, &status);
		if (got == FRAME_PARTIAL)
			break;
		if (looks_ahead && got == FRAME_OK)
			look_ahead(c, *p, end);
		uint8_t *before = w.p;
		enum session_rc rc = got == FRAME_BAD ? session_disconnect(&c->session, status, &w)
						      : on_frame(c, &frame, &w, now);
		if (rc == SESSION_CLOSE) {
			log_disconnect(c);
			if (c->checks_n)
				keep_goodbye(c, &w, before);
			result = FRAMES_CLOSE;
			break;
		}
	}
	check_expect_nothing(checker);
	c->out->end = (size_t)(w.p - c->out->bytes);
	return result;
}

/* What HAProxy owes us now: the rest of a frame, or nothing. */
static void set_deadline(struct conn *c, bool moved, struct now now)
{
	if (c->session.state != SESSION_OPEN)
		return; /* HELLO's and the health check's run from their own beginnings */
	if (!c->in && !c->session.assembling)
		c->deadline = 0;
	else if (moved || !c->deadline)
		c->deadline = now.steady + CONN_FRAME_TIMEOUT;
}

/* Reads nothing more, and ends when the store has answered: within its own bound on a check. */
static void finish(struct conn *c, struct now now)
{
	c->state = CONN_FINISHING;
	c->deadline = now.steady + CONN_FRAME_TIMEOUT;
	ev_io_stop(c->all->loop, &c->reader);
	mark_dirty(c); /* what is in `out` already */
}

/* The DISCONNECT after the last answer. May free `c`. */
static void say_goodbye(struct conn *c, struct now now)
{
	struct buffer *out = c->out;
	if (!out && !(out = c->out = buffer_get(&c->all->pool))) {
		conn_end(c, "no memory");
		return;
	}
	memcpy(out->bytes + out->end, c->goodbye, c->goodbye_n);
	out->end += c->goodbye_n;
	close_after_flush(c, now);
}

/* Answers all whole frames in `in`, by one send as long as they fit into one. May free `c`. */
static void serve(struct conn *c, struct now now)
{
	struct buffer_pool *pool = &c->all->pool;
	bool moved = false;
	for (;;) {
		if (!c->out && !(c->out = buffer_get(pool))) {
			conn_end(c, "no memory");
			return;
		}
		const uint8_t *begin = c->in->bytes + c->in->begin;
		const uint8_t *p = begin;
		enum frames_rc rc = handle_frames(c, &p, c->in->bytes + c->in->end, now);
		c->in->begin += (size_t)(p - begin);
		moved = moved || p != begin;
		if (rc == FRAMES_CLOSE) {
			if (c->checks_n)
				finish(c, now);
			else
				close_after_flush(c, now);
			return;
		}
		enum flush_rc sent = flush(c, now);
		if (sent == FLUSH_BROKEN) {
			conn_end(c, "cannot send");
			return;
		}
		if (sent == FLUSH_WAIT) {
			buffer_pack(c->in);
			c->deadline = 0; /* the write deadline watches now */
			wait_for_peer(c);
			return;
		}
		if (rc == FRAMES_PAUSE) {
			buffer_pack(c->in);
			c->deadline = 0; /* the store's own watches now */
			c->paused = true;
			ev_io_stop(c->all->loop, &c->reader);
			return;
		}
		if (rc == FRAMES_ALL)
			break;
	}
	if (!buffer_waiting(c->in)) {
		buffer_put(pool, c->in);
		c->in = NULL;
	} else {
		buffer_pack(c->in);
	}
	set_deadline(c, moved, now);
}

/* Sends what waits and what has been decided since, by one send as long as it fits into one. false:
 * not all of it went yet, or `c` was freed. */
static bool send_decided(struct conn *c, struct now now)
{
	while (c->decided || buffer_waiting(c->out)) {
		struct buffer *out = c->out;
		if (!out && !(out = c->out = buffer_get(&c->all->pool))) {
			conn_end(c, "no memory");
			return false;
		}
		struct wire_writer w = { out->bytes + out->end, out->bytes + out->size, false };
		while (c->decided) {
			struct check *check = c->decided, *next = check->next;
			usec_t asked_at = check->asked_at;
			if (!check_write(check, &w))
				break;
			histogram_add(&c->all->metrics->check_time, now.steady - asked_at, 1);
			c->decided = next;
			c->checks_n--;
		}
		if (!c->decided)
			c->decided_end = &c->decided;
		out->end = (size_t)(w.p - out->bytes);
		switch (flush(c, now)) {
		case FLUSH_DONE:
			break;
		case FLUSH_WAIT:
			wait_for_peer(c);
			return false;
		case FLUSH_BROKEN:
			conn_end(c, "cannot send");
			return false;
		}
	}
	return true;
}

/* Reads on, beginning with what waits, or ends. May free `c`. */
static void read_on(struct conn *c, struct now now)
{
	if (c->state == CONN_FINISHING) {
		if (!c->checks_n)
			say_goodbye(c, now);
		return;
	}
	if (c->leaving && (c->checks_n || conn_hand_over(c)))
		return;
	if (c->paused && c->checks_n >= CHECKS_EACH_MAX / 2)
		return;
	c->paused = false;
	if (!c->all->reads_no_more)
		ev_io_start(c->all->loop, &c->reader);
	if (c->in)
		serve(c, now);
}

void conn_go_on(struct conn *c, struct now now)
{
	if (buffer_waiting(c->out))
		wait_for_peer(c);
	else
		read_on(c, now);
}

/* serve(), and how long what it answered took: one more look at the clock for the whole batch. */
static void serve_and_time(struct conn *c, struct now now)
{
	struct metrics *m = c->all->metrics;
	const _Atomic(uint64_t) *answered = &m->value[METRIC_notifies];
	uint64_t before = atomic_load_explicit(answered, memory_order_relaxed);
	serve(c, now);
	uint64_t n = atomic_load_explicit(answered, memory_order_relaxed) - before;
	if (n)
		histogram_add(&m->check_time, clock_steady() - now.steady, n);
}

/* Callbacks. */

static void discard(struct conn *c)
{
	char bytes[16384];
	ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (n > 0)
		c->lingered += (size_t)n;
	if (n <= 0 || c->lingered > LINGER_BYTES_MAX)
		conn_end(c, n <= 0 ? "closed" : "sends on after DISCONNECT");
}

/* The loop could not watch it (epoll_ctl() had no memory, or the user watches too many), and has
 * stopped to: nothing would come of it any more. Whoever is there connects again. */
static void end_unwatched(struct conn *c)
{
	log_warning_every(10 * USEC_PER_SEC, "not_watched", KV_Z("peer", c->peer),
		KV_Z("hint", "no memory, or more than fs.epoll.max_user_watches"));
	conn_end(c, "not watched");
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	(void)loop;
	struct conn *c = w->data;
	if (revents & EV_ERROR) {
		end_unwatched(c);
		return;
	}
	if (c->state == CONN_LINGERING) {
		discard(c);
		return;
	}
	struct buffer *in = c->in;
	if (!in && !(in = c->in = buffer_get(&c->all->pool))) {
		conn_end(c, "no memory");
		return;
	}
	size_t room = in->size - in->end;
	ssize_t n = recv(c->fd, in->bytes + in->end, room < RECV_MAX ? room : RECV_MAX, 0);
	if (n > 0) {
		in->end += (size_t)n;
		c->recent += (size_t)n;
		struct now now = clock_read();
		busy_poll_note(&c->all->busy_poll, now.steady);
		serve_and_time(c, now);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
		if (!buffer_waiting(in)) {
			buffer_put(&c->all->pool, in);
			c->in = NULL;
		}
		return;
	}
	/* Both are normal: health checks end with a RST, and so do idle connections of HAProxy 3.1
	 * and later. */
	conn_end(c, n == 0 ? "peer closed" : strerror(errno));
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct conn *c = w->data;
	struct now now = clock_read();
	if (revents & EV_ERROR) {
		end_unwatched(c);
		return;
	}
	if (c->state == CONN_FLUSHING) {
		close_after_flush(c, now);
		return;
	}
	switch (flush(c, now)) {
	case FLUSH_WAIT:
		return;
	case FLUSH_BROKEN:
		conn_end(c, "cannot send");
		return;
	case FLUSH_DONE:
		break;
	}
	ev_io_stop(loop, &c->writer);
	if (send_decided(c, now))
		read_on(c, now);
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
	(void)revents;
	struct conns *all = w->data;
	struct now now = clock_read();
	busy_poll_note(&all->busy_poll, now.steady); /* the store's answers are traffic, too */
	while (all->dirty) {
		struct conn *c = all->dirty;
		all->dirty = c->next_dirty;
		c->is_dirty = false;
		/* Where the peer does not take what it got, on_writable() will go on. */
		if (c->state <= CONN_FINISHING && !ev_is_active(&c->writer) &&
			send_decided(c, now) && (c->paused || c->state == CONN_FINISHING))
			read_on(c, now);
	}
	ev_prepare_stop(loop, w);
}

void conn_watch(struct conn *c)
{
	ev_init(&c->reader, on_readable);
	ev_init(&c->writer, on_writable);
	c->reader.data = c->writer.data = c;
}

void conns_watch(struct conns *all)
{
	ev_prepare_init(&all->flusher, on_prepare);
	all->flusher.data = all;
	all->checker.decided = on_decided;
}
