#include "admin/peer.h"

#include "base/addr.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 8 };

#define JUST_COME USEC_PER_SEC

static const double PAUSE_NO_DESCRIPTORS = 0.2, TICK = 1.;

static void gates_open(struct peers *all)
{
	for (unsigned i = 0; i < all->gate_n; i++)
		ev_io_start(all->loop, &all->gate[i].io);
}

static void gates_close(struct peers *all)
{
	for (unsigned i = 0; i < all->gate_n; i++)
		ev_io_stop(all->loop, &all->gate[i].io);
}

void peer_enter(struct peer *p, enum peer_state state)
{
	static const usec_t timeout[] = {
		[PEER_IDLE] = HTTP_HEADER_TIMEOUT,
		[PEER_BODY] = HTTP_BODY_TIMEOUT,
		[PEER_REFUSED] = HTTP_BODY_TIMEOUT,
		[PEER_REPLY] = HTTP_REPLY_TIMEOUT,
		[PEER_STREAM] = 0,
		[PEER_EVICTED] = 0,
	};
	if (p->state == PEER_EVICTED)
		return;
	p->state = state;
	p->since = clock_steady();
	p->deadline = timeout[state] ? p->since + timeout[state] : 0;
}

void peer_free(struct peer *p)
{
	struct peers *all = p->all;
	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
	free(p);
	if (all->n-- == HTTP_CONNECTIONS_MAX && !ev_is_active(&all->pause))
		gates_open(all);
}

/* The daemon sees the end of it, and closes. */
static void evict(struct peer *p)
{
	peer_enter(p, PEER_EVICTED);
	(void)shutdown(p->fd, SHUT_RDWR);
}

/* Nobody keeps others out by being there and asking nothing, or what is refused. (Who has just come
 * has had no time to; where all others are busy, it is the one.) */
static void evict_longest_idle(struct peers *all)
{
	struct peer *longest = NULL;
	for (struct peer *p = all->head; p; p = p->next) {
		if (p->state == PEER_EVICTED)
			return; /* there will be room */
		bool idle = p->state == PEER_IDLE || p->state == PEER_REFUSED;
		if (idle && (!longest || p->since < longest->since))
			longest = p;
	}
	if (longest && (longest != all->head || clock_steady() - longest->since >= JUST_COME))
		evict(longest);
}

static void write_who(struct peer *p, int fd, const struct sockaddr_storage *from)
{
	struct addr addr;
	if (p->is_unix) {
		struct ucred cred;
		socklen_t n = sizeof cred;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0)
			(void)snprintf(p->who, sizeof p->who, "uid=%u", (unsigned)cred.uid);
		else
			(void)snprintf(p->who, sizeof p->who, "unix");
		return;
	}
	if (from->ss_family == AF_INET)
		addr = addr_from_bytes(&((const struct sockaddr_in *)from)->sin_addr, 4);
	else
		addr = addr_from_bytes(&((const struct sockaddr_in6 *)from)->sin6_addr, 16);
	p->who[addr_format(&addr, p->who)] = '\0';
}

static void add(struct gate *g, int fd, const struct sockaddr_storage *from, socklen_t from_n)
{
	struct peers *all = g->peers;
	struct peer *p = calloc(1, sizeof *p);
	if (!p) {
		(void)close(fd);
		return;
	}
	*p = (struct peer){ .all = all,
		.fd = fd,
		.is_unix = g->listener->path[0] != '\0',
		.is_local = g->listener->is_local,
		.listen_host = g->listen_host };
	write_who(p, fd, from);
	peer_enter(p, PEER_IDLE);
	p->next = all->head;
	p->link = &all->head;
	if (p->next)
		p->next->link = &p->next;
	all->head = p;
	all->n++;
	if (!all->take(all->arg, p, fd, (const struct sockaddr *)from, from_n))
		log_warning_every(USEC_PER_SEC, "no_memory", KV_Z("for", "an admin connection"));
}

static void pause_gates(struct peers *all)
{
	gates_close(all);
	ev_timer_stop(all->loop, &all->pause);
	ev_timer_set(&all->pause, PAUSE_NO_DESCRIPTORS, 0.);
	ev_timer_start(all->loop, &all->pause);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	struct gate *g = io->data;
	struct peers *all = g->peers;
	if (revents & EV_ERROR) { /* epoll_ctl() refused: the loop has stopped to watch it */
		log_warning_every(10 * USEC_PER_SEC, "not_watched", KV_Z("for", "admin.listen"),
			KV_Z("hint", "no memory, or more than fs.epoll.max_user_watches"));
		pause_gates(all);
		return;
	}
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		if (all->n >= HTTP_CONNECTIONS_MAX) {
			gates_close(all); /* until one has gone */
			evict_longest_idle(all);
			return;
		}
		struct sockaddr_storage from = { 0 };
		socklen_t n = sizeof from;
		int fd = accept4(
			io->fd, (struct sockaddr *)&from, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			add(g, fd, &from, n);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			/* What waits in the queue goes on waiting: it would be readable for ever.
			 */
			log_warning_every(10 * USEC_PER_SEC, "no_descriptors",
				KV_Z("for", "an admin connection"),
				KV_Z("hint", "raise the limit of open files (LimitNOFILE= of the "
					     "service), or lower agent.max_connections"));
			pause_gates(all);
			return;
		}
	}
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct peers *all = timer->data;
	if (all->n < HTTP_CONNECTIONS_MAX)
		gates_open(all);
}

static void on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct peers *all = timer->data;
	usec_t now = clock_steady();
	for (struct peer *p = all->head; p; p = p->next)
		if (p->deadline && now >= p->deadline)
			evict(p);
	if (all->n >= HTTP_CONNECTIONS_MAX)
		evict_longest_idle(all); /* some may have become idle since */
}

void peers_init(struct peers *all, const struct http_settings *s)
{
	*all = (struct peers){ .loop = s->loop };
	for (unsigned i = 0; i < s->listeners->n; i++) {
		struct gate *g = &all->gate[all->gate_n++];
		g->peers = all;
		g->listener = &s->listeners->at[i];
		memcpy(g->listen_host, s->address[i].host, sizeof g->listen_host);
		ev_io_init(&g->io, on_accept, s->listeners->at[i].fd, EV_READ);
		ev_set_priority(&g->io, -1); /* signals, SPOP and the rest first */
		g->io.data = g;
	}
	ev_timer_init(&all->pause, on_pause_over, 0., 0.);
	ev_timer_init(&all->tick, on_tick, TICK, TICK);
	all->pause.data = all->tick.data = all;
	ev_timer_start(all->loop, &all->tick);
	gates_open(all);
}

void peers_stop(struct peers *all)
{
	gates_close(all);
	all->gate_n = 0;
	ev_timer_stop(all->loop, &all->pause);
	ev_timer_stop(all->loop, &all->tick);
}
