#include "server/acceptor.h"

#include "server/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	ACCEPTS_A_TURN = 64, /* of one listener: signals and the rest get their turn too */
	CHECKS_BEYOND = 16,  /* connections that may be health checks when all others are open */
	DESCRIPTORS_OTHERWISE = 160 /* loops, log, state file, the admin interface, … */
};

/* How long nothing is accepted when there are no descriptors, and when mailboxes are full. */
static const double PAUSE_NO_DESCRIPTORS = 0.2, PAUSE_MAILBOX = 0.005;

struct watch {
	ev_io io;
	struct acceptor *acceptor;
	const struct listener *listener;
};

struct acceptor {
	struct ev_loop *loop;
	struct watch watch[LISTEN_MAX];
	unsigned watch_n;
	ev_timer pause;
	int spare; /* closed to accept, and refuse, one connection when there is no other */
	struct worker *const *workers;
	unsigned workers_n;
	const struct balancer *balancer;
	struct metrics *metrics;
	const struct snapshot *snapshot;
};

static void watch_all(struct acceptor *a)
{
	for (unsigned i = 0; i < a->watch_n; i++)
		ev_io_start(a->loop, &a->watch[i].io);
}

static void pause_for(struct acceptor *a, double seconds)
{
	for (unsigned i = 0; i < a->watch_n; i++)
		ev_io_stop(a->loop, &a->watch[i].io);
	ev_timer_stop(a->loop, &a->pause);
	ev_timer_set(&a->pause, seconds, 0.);
	ev_timer_start(a->loop, &a->pause);
}

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	struct acceptor *a = timer->data;
	if (a->spare < 0)
		a->spare = open_spare();
	watch_all(a);
}

/* No descriptors are left: the spare one takes a connection out of the queue, so that its peer
 * learns at once that there is no room. Then a pause: the listener would stay readable. */
static void refuse_by_spare(struct acceptor *a, int listener_fd)
{
	if (a->spare >= 0) {
		(void)close(a->spare);
		int fd = accept4(listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			(void)close(fd);
			metric_add(a->metrics, METRIC_connections_refused, 1);
		}
		a->spare = open_spare();
	}
	pause_for(a, PAUSE_NO_DESCRIPTORS);
}

static void write_peer(
	const struct listener *l, const struct sockaddr_storage *from, socklen_t n, char *out)
{
	char host[64], port[8];
	if (l->path[0]) {
		(void)snprintf(out, PEER_TEXT_MAX + 1, "unix:%s", l->path);
		return;
	}
	if (getnameinfo((const struct sockaddr *)from, n, host, sizeof host, port, sizeof port,
		    NI_NUMERICHOST | NI_NUMERICSERV)) {
		(void)snprintf(out, PEER_TEXT_MAX + 1, "unknown");
		return;
	}
	(void)snprintf(out, PEER_TEXT_MAX + 1, from->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
		host, port);
}

static struct addr addr_of(const struct sockaddr_storage *from)
{
	if (from->ss_family == AF_INET)
		return addr_from_bytes(&((const struct sockaddr_in *)from)->sin_addr, 4);
	if (from->ss_family == AF_INET6)
		return addr_from_bytes(&((const struct sockaddr_in6 *)from)->sin6_addr, 16);
	return (struct addr){ 0 };
}

static bool is_allowed(
	const struct acceptor *a, const struct listener *l, const struct sockaddr_storage *from)
{
	const struct cidr_set *allowed = a->snapshot->settings.agent.allow_from;
	if (!allowed || l->path[0])
		return true; /* a UNIX socket has its mode and owner for this */
	struct addr addr = addr_of(from);
	return cidr_set_has(allowed, &addr);
}

/* Not by who has them: one on its way from a worker to another would be missed, or counted twice.
 */
static unsigned connections(const struct acceptor *a)
{
	uint64_t n = atomic_load_explicit(
		&a->metrics->value[METRIC_connections_accepted], memory_order_relaxed);
	for (unsigned i = 0; i < a->workers_n; i++)
		n -= atomic_load_explicit(
			&worker_metrics(a->workers[i])->value[METRIC_connections_closed],
			memory_order_relaxed);
	return (unsigned)n;
}

static void make_room(struct acceptor *a, int64_t open, int64_t max)
{
	log_warning_every(60 * USEC_PER_SEC, "connections_crowded", KV_INT("connections", open),
		KV_INT("max_connections", max),
		KV_Z("what", "those that ask nothing for 10 s are closed"),
		KV_Z("hint",
			"HAProxy up to 3.0 opens one for each request of a burst, and keeps it for "
			"the \"timeout idle\" of its spoe-agent section: shorten that, or raise "
			"agent.max_connections"));
	for (unsigned i = 0; i < a->workers_n; i++)
		worker_make_room(a->workers[i]);
}

static void take(struct acceptor *a, const struct listener *l, struct worker *worker, int fd,
	const struct sockaddr_storage *from, socklen_t from_n)
{
	struct letter letter = { .fd = fd };
	write_peer(l, from, from_n, letter.peer);
	int64_t max = a->snapshot->settings.agent.max_connections;
	if (!is_allowed(a, l, from)) {
		metric_add(a->metrics, METRIC_connections_refused, 1);
		log_warning_every(10 * USEC_PER_SEC, "connection_refused",
			KV_Z("peer", letter.peer), KV_Z("why", "not in agent.allow_from"));
		(void)close(fd);
		return;
	}
	int64_t open = connections(a);
	if (open >= max - max / 8)
		make_room(a, open, max);
	if (open >= max + CHECKS_BEYOND) {
		conn_refused(a->metrics, letter.peer, max);
		(void)close(fd);
		return;
	}
	letter.beyond = open >= max;
	metric_add(a->metrics, METRIC_connections_accepted, 1);
	if (log_enabled(LOG_LEVEL_DEBUG))
		log_debug("connection", KV_Z("peer", letter.peer), KV_Z("listen", l->text));
	worker_mail(worker, &letter);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	struct watch *w = io->data;
	struct acceptor *a = w->acceptor;
	if (revents & EV_ERROR) { /* epoll_ctl() refused: the loop has stopped to watch it */
		log_warning_every(10 * USEC_PER_SEC, "not_watched",
			KV_Z("listen", w->listener->text),
			KV_Z("hint", "no memory, or more than fs.epoll.max_user_watches"));
		pause_for(a, PAUSE_NO_DESCRIPTORS);
		return;
	}
	int failed = 0;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		struct worker *worker = balancer_choose(a->balancer);
		if (!worker) {
			pause_for(a, PAUSE_MAILBOX);
			return;
		}
		struct sockaddr_storage from;
		socklen_t n = sizeof from;
		int fd = accept4(
			io->fd, (struct sockaddr *)&from, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			take(a, w->listener, worker, fd, &from, n);
			continue;
		}
		switch (errno) {
		case EAGAIN:
			return;
		case EMFILE:
		case ENFILE:
			log_warning_every(10 * USEC_PER_SEC, "no_descriptors",
				KV_INT("connections", connections(a)),
				KV_Z("hint", "raise the limit of open files (LimitNOFILE= of the "
					     "service), or lower agent.max_connections"));
			refuse_by_spare(a, io->fd);
			return;
		case ENOBUFS:
		case ENOMEM:
			log_warning_every(10 * USEC_PER_SEC, "no_memory",
				KV_Z("for", "accepting a connection"));
			pause_for(a, PAUSE_NO_DESCRIPTORS);
			return;
		case ECONNABORTED: /* the next one */
			break;
		default: /* what Linux hands on from the network: as a rule the next one, too */
			failed++;
			break;
		}
	}
	if (failed < ACCEPTS_A_TURN)
		return;
	/* None of them: it is not of the network, as where a security module forbids it. */
	log_warning_every(10 * USEC_PER_SEC, "not_accepted", KV_Z("listen", w->listener->text),
		KV_Z("why", strerror(errno)));
	pause_for(a, PAUSE_NO_DESCRIPTORS);
}

struct acceptor *acceptor_new(struct ev_loop *loop, const struct listeners *ls,
	struct worker *const *workers, unsigned workers_n, const struct balancer *balancer,
	struct metrics *metrics, const struct snapshot *snapshot)
{
	struct acceptor *a = calloc(1, sizeof *a);
	if (!a)
		return NULL;
	a->loop = loop;
	a->workers = workers;
	a->workers_n = workers_n;
	a->balancer = balancer;
	a->metrics = metrics;
	a->snapshot = snapshot;
	ev_timer_init(&a->pause, on_pause_over, 0., 0.);
	a->pause.data = a;
	a->spare = open_spare();
	if (a->spare < 0) {
		free(a);
		return NULL;
	}
	for (unsigned i = 0; i < ls->n; i++) {
		struct watch *w = &a->watch[a->watch_n++];
		w->acceptor = a;
		w->listener = &ls->at[i];
		ev_io_init(&w->io, on_accept, ls->at[i].fd, EV_READ);
		w->io.data = w;
	}
	watch_all(a);
	return a;
}

void acceptor_free(struct acceptor *a)
{
	if (!a)
		return;
	for (unsigned i = 0; i < a->watch_n; i++)
		ev_io_stop(a->loop, &a->watch[i].io);
	ev_timer_stop(a->loop, &a->pause);
	if (a->spare >= 0)
		(void)close(a->spare);
	free(a);
}

void acceptor_use(struct acceptor *a, const struct snapshot *snapshot)
{
	a->snapshot = snapshot;
}

void acceptor_raise_limit(const struct settings *s, unsigned workers_n)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	/* A loop has an epoll and an event descriptor, and some to spare. */
	rlim_t need = (rlim_t)s->agent.max_connections + CHECKS_BEYOND + s->agent.listen_n +
		      4 * workers_n + DESCRIPTORS_OTHERWISE;
	if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= need)
		return;
	bool enough = limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= need;
	limit.rlim_cur = enough ? need : limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && enough)
		return;
	log_warning("few_descriptors", KV_INT("have", limit.rlim_cur), KV_INT("need", need),
		KV_INT("max_connections", s->agent.max_connections),
		KV_Z("hint", "raise the hard limit of open files (LimitNOFILE= of the service), or "
			     "lower agent.max_connections"));
}
