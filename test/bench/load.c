/* A SPOP load generator: speaks as HAProxy does, keeps `depth` NOTIFYs in flight on each of a few
 * connections, checks that every ACK answers one of them and says something, and prints how many
 * there were and how long they took. Bounded in count and in time.
 *
 * Without --rate a new request leaves as soon as one is answered; with it they leave on a
 * timetable, and latency counts from there, so that an agent that pauses cannot hide the requests
 * that it kept from being sent. */
#include "notify.h"

#include "base/wire.h"
#include "spop/frame.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	CONNECTIONS_MAX = 256,
	DEPTH_MAX = 1024,
	IN_BYTES = 256 * 1024,
	TICK_NS = 100000,
	SECONDS_MAX = 3600,
	PATIENCE_NS = 2000000000, /* for the last ACKs, and for a HELLO */
};

/* Latencies in a histogram of nanoseconds: 64 steps for each power of two, under 2 % of error. */
enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS, BUCKETS = (64 - STEP_BITS) * STEPS };

struct options {
	const char *address;
	const char *message;
	long connections, depth, clients, seconds_ms, requests, rate;
};

struct slot {
	uint32_t id; /* of the request in flight; NOTIFY_IDS: none is */
	int64_t since;
};

struct conn {
	int fd;
	struct slot *slot;
	uint16_t *idle; /* slots that wait for a request; with --rate only */
	unsigned idle_n;
	uint32_t turn; /* gives every reuse of a slot another id */
	uint8_t *in;
	size_t in_n;
	uint8_t *out;
	size_t out_from, out_to;
	bool waits_to_send;
};

struct load {
	struct options o;
	struct notify_form form;
	struct conn conn[CONNECTIONS_MAX];
	int poll_fd, timer_fd;
	unsigned slots_bits; /* of an id: which slot of its connection */
	uint32_t next_client;
	int64_t start, end;
	uint64_t sent, acked, denied, wrong, in_flight;
	bool stopping;
	unsigned next_conn;
	uint64_t bucket[BUCKETS];
	int64_t longest;
};

static int64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what, const char *why)
{
	fprintf(stderr, "load: %s: %s\n", what, why);
	exit(1);
}

/* --- latencies --- */

static unsigned bucket_of(uint64_t ns)
{
	if (ns < STEPS)
		return (unsigned)ns;
	unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - STEP_BITS;
	return (shift + 1) * STEPS + (unsigned)(ns >> shift) - STEPS;
}

/* The middle of a bucket. */
static double bucket_ns(unsigned b)
{
	if (b < STEPS)
		return b;
	unsigned shift = b / STEPS - 1;
	return ((double)(b % STEPS + STEPS) + 0.5) * (double)(1ull << shift);
}

static void note_latency(struct load *l, int64_t ns)
{
	if (ns < 0)
		ns = 0;
	l->bucket[bucket_of((uint64_t)ns)]++;
	if (ns > l->longest)
		l->longest = ns;
}

static double percentile_us(const struct load *l, double share)
{
	uint64_t total = 0, sum = 0;
	for (unsigned b = 0; b < BUCKETS; b++)
		total += l->bucket[b];
	for (unsigned b = 0; b < BUCKETS; b++) {
		sum += l->bucket[b];
		if (sum && (double)sum >= share * (double)total) {
			double ns = bucket_ns(b);
			return (ns < (double)l->longest ? ns : (double)l->longest) / 1000;
		}
	}
	return 0;
}

/* --- connecting --- */

static int connect_unix(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof un.sun_path)
		die(path, "too long for a UNIX socket");
	strcpy(un.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof un) < 0)
		die(path, strerror(errno));
	return fd;
}

static int connect_tcp(const char *address)
{
	char host[128];
	const char *colon = strrchr(address, ':');
	if (!colon || (size_t)(colon - address) >= sizeof host)
		die(address, "want HOST:PORT or an absolute path");
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = 0;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *found;
	int rc = getaddrinfo(host, colon + 1, &hints, &found);
	if (rc)
		die(address, gai_strerror(rc));
	int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0)
		die(address, strerror(errno));
	freeaddrinfo(found);
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static void put_pair(struct wire_writer *w, const char *name, const char *value)
{
	wire_put_str(w, str_of(name));
	wire_put_u8(w, 8);
	wire_put_str(w, str_of(value));
}

static void say_hello(int fd)
{
	uint8_t bytes[512];
	struct wire_writer w = { bytes, bytes + sizeof bytes, false };
	wire_put_u32(&w, 0);
	wire_put_u8(&w, FRAME_HAPROXY_HELLO);
	wire_put_u32(&w, FRAME_FLAG_FIN);
	wire_put_u8(&w, 0);
	wire_put_u8(&w, 0);
	put_pair(&w, "supported-versions", "2.0");
	wire_put_str(&w, STR("max-frame-size"));
	wire_put_u8(&w, 3);
	wire_put_varint(&w, 16380);
	put_pair(&w, "capabilities", "pipelining,async");
	put_pair(&w, "engine-id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
	struct wire_writer length = { bytes, bytes + FRAME_LENGTH_BYTES, false };
	wire_put_u32(&length, (uint32_t)(w.p - bytes - FRAME_LENGTH_BYTES));
	if (send(fd, bytes, (size_t)(w.p - bytes), MSG_NOSIGNAL) != w.p - bytes)
		die("HELLO", strerror(errno));
}

/* Nothing but the AGENT-HELLO can come before the first NOTIFY, so one may read as far as it goes.
 */
static void await_hello(int fd)
{
	uint8_t bytes[1024];
	size_t n = 0;
	int64_t deadline = clock_ns() + PATIENCE_NS;
	while (clock_ns() < deadline) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, 100) <= 0)
			continue;
		ssize_t got = recv(fd, bytes + n, sizeof bytes - n, 0);
		if (got <= 0)
			die("AGENT-HELLO", got ? strerror(errno) : "the agent closed");
		n += (size_t)got;
		struct wire_reader r = { bytes, bytes + n, false };
		uint32_t length = wire_get_u32(&r);
		uint8_t type = wire_get_u8(&r);
		if (!r.bad && type != FRAME_AGENT_HELLO)
			die("AGENT-HELLO", "another frame came in its place");
		if (!r.bad && n == length + FRAME_LENGTH_BYTES)
			return;
		if (n == sizeof bytes)
			break;
	}
	die("AGENT-HELLO", "none came");
}

static void conn_open(struct load *l, struct conn *c, unsigned number)
{
	size_t depth = (size_t)l->o.depth;
	c->fd = l->o.address[0] == '/' ? connect_unix(l->o.address) : connect_tcp(l->o.address);
	say_hello(c->fd);
	await_hello(c->fd);
	c->slot = calloc((size_t)1 << l->slots_bits, sizeof *c->slot);
	c->idle = calloc(depth, sizeof *c->idle);
	c->in = malloc(IN_BYTES);
	c->out = malloc(depth * l->form.n);
	if (!c->slot || !c->idle || !c->in || !c->out)
		die("start", "out of memory");
	for (size_t i = 0; i < (size_t)1 << l->slots_bits; i++)
		c->slot[i].id = NOTIFY_IDS;
	for (unsigned i = 0; i < depth; i++)
		c->idle[c->idle_n++] = (uint16_t)i;
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = number };
	if (epoll_ctl(l->poll_fd, EPOLL_CTL_ADD, c->fd, &e) < 0)
		die("epoll", strerror(errno));
}

/* --- sending --- */

static void conn_send(struct load *l, struct conn *c)
{
	while (c->out_from < c->out_to) {
		ssize_t n = send(c->fd, c->out + c->out_from, c->out_to - c->out_from,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			die("send", strerror(errno));
		if (n < 0)
			break;
		c->out_from += (size_t)n;
	}
	bool waits = c->out_from < c->out_to;
	if (!waits)
		c->out_from = c->out_to = 0;
	if (waits == c->waits_to_send)
		return;
	c->waits_to_send = waits;
	struct epoll_event e = { .events = EPOLLIN | (waits ? EPOLLOUT : 0),
		.data.u32 = (uint32_t)(c - l->conn) };
	epoll_ctl(l->poll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

/* Puts one request into the out-buffer: there is room for `depth` of them, and so many are in
 * flight at most. */
static void request_put(struct load *l, struct conn *c, unsigned slot, int64_t since)
{
	if (c->out_from && c->out_to + l->form.n > (size_t)l->o.depth * l->form.n) {
		memmove(c->out, c->out + c->out_from, c->out_to - c->out_from);
		c->out_to -= c->out_from;
		c->out_from = 0;
	}
	uint32_t id = (++c->turn << l->slots_bits | slot) & (NOTIFY_IDS - 1);
	notify_stamp(&l->form, c->out + c->out_to, id, l->next_client);
	c->out_to += l->form.n;
	c->slot[slot].id = id;
	c->slot[slot].since = since;
	if (++l->next_client == (uint32_t)l->o.clients)
		l->next_client = 0;
	l->sent++;
	l->in_flight++;
	if (l->o.requests && l->sent == (uint64_t)l->o.requests)
		l->stopping = true;
}

/* When the next request is due, by the timetable. */
static int64_t due_at(const struct load *l)
{
	return l->start + (int64_t)((double)l->sent * 1e9 / (double)l->o.rate);
}

/* Sends what is due, over the connections in turn; what finds no idle slot waits, its time kept. */
static void send_due(struct load *l, int64_t now)
{
	unsigned n = (unsigned)l->o.connections, full = 0;
	while (!l->stopping && full < n && due_at(l) <= now) {
		struct conn *c = &l->conn[l->next_conn];
		l->next_conn = (l->next_conn + 1) % n;
		if (!c->idle_n) {
			full++;
			continue;
		}
		full = 0;
		request_put(l, c, c->idle[--c->idle_n], due_at(l));
	}
	for (unsigned i = 0; i < n; i++)
		if (l->conn[i].out_to)
			conn_send(l, &l->conn[i]);
}

/* --- receiving --- */

static const uint8_t set_deny[] = { 1, 3, 2, 4, 'd', 'e', 'n', 'y' }; /* set-var txn deny */

/* One whole ACK, without its length word. */
static void on_ack(struct load *l, struct conn *c, struct wire_reader r, int64_t now)
{
	uint8_t type = wire_get_u8(&r);
	uint32_t flags = wire_get_u32(&r);
	uint64_t id = wire_get_varint(&r) - NOTIFY_ID_MIN;
	uint64_t frame_id = wire_get_varint(&r);
	unsigned slot = (unsigned)id & ((1u << l->slots_bits) - 1);
	if (r.bad || type != FRAME_ACK || !(flags & FRAME_FLAG_FIN) || frame_id != 1 ||
		id >= NOTIFY_IDS || c->slot[slot].id != id || wire_left(&r) == 0) {
		l->wrong++;
		return;
	}
	c->slot[slot].id = NOTIFY_IDS;
	l->in_flight--;
	l->acked++;
	note_latency(l, now - c->slot[slot].since);
	if (wire_left(&r) > sizeof set_deny && !memcmp(r.p, set_deny, sizeof set_deny) &&
		r.p[sizeof set_deny] == 0x11)
		l->denied++;
	if (l->o.rate)
		c->idle[c->idle_n++] = (uint16_t)slot;
	else if (!l->stopping)
		request_put(l, c, slot, now);
}

static void conn_receive(struct load *l, struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_n, IN_BYTES - c->in_n, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		die("recv", n ? strerror(errno) : "the agent closed");
	c->in_n += (size_t)n;
	int64_t now = clock_ns();
	if (now >= l->end)
		l->stopping = true;
	struct wire_reader r = { c->in, c->in + c->in_n, false };
	while (wire_left(&r) >= FRAME_LENGTH_BYTES) {
		struct wire_reader whole = r;
		uint32_t length = wire_get_u32(&whole);
		if (length > 16384)
			die("recv", "a frame longer than was agreed on");
		if (length > wire_left(&whole))
			break;
		struct wire_reader frame = { whole.p, whole.p + length, false };
		on_ack(l, c, frame, now);
		r.p = frame.end;
	}
	c->in_n = wire_left(&r);
	memmove(c->in, r.p, c->in_n);
	if (l->o.rate)
		send_due(l, now);
	else if (c->out_to)
		conn_send(l, c);
}

/* --- the whole run --- */

static void timer_open(struct load *l)
{
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct itimerspec t = { { 0, TICK_NS }, { 0, TICK_NS } };
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = CONNECTIONS_MAX };
	if (l->timer_fd < 0 || timerfd_settime(l->timer_fd, 0, &t, NULL) < 0 ||
		epoll_ctl(l->poll_fd, EPOLL_CTL_ADD, l->timer_fd, &e) < 0)
		die("timer", strerror(errno));
}

static void load_start(struct load *l)
{
	l->start = clock_ns();
	l->end = l->start + (int64_t)l->o.seconds_ms * 1000000;
	if (l->o.rate) {
		timer_open(l);
		return;
	}
	for (unsigned i = 0; i < (unsigned)l->o.connections; i++) {
		for (unsigned slot = 0; slot < (unsigned)l->o.depth && !l->stopping; slot++)
			request_put(l, &l->conn[i], slot, clock_ns());
		conn_send(l, &l->conn[i]);
	}
}

static void load_run(struct load *l)
{
	struct epoll_event e[64];
	load_start(l);
	while (!l->stopping || l->in_flight) {
		int n = epoll_wait(l->poll_fd, e, 64, 100);
		if (n < 0 && errno != EINTR)
			die("epoll", strerror(errno));
		for (int i = 0; i < n; i++) {
			if (e[i].data.u32 == CONNECTIONS_MAX) {
				uint64_t ticks;
				if (read(l->timer_fd, &ticks, sizeof ticks) > 0)
					send_due(l, clock_ns());
				continue;
			}
			struct conn *c = &l->conn[e[i].data.u32];
			if (e[i].events & EPOLLOUT)
				conn_send(l, c);
			if (e[i].events & ~(uint32_t)EPOLLOUT)
				conn_receive(l, c);
		}
		int64_t now = clock_ns();
		if (now >= l->end)
			l->stopping = true;
		if (now >= l->end + PATIENCE_NS)
			break;
	}
}

static void load_print(const struct load *l, int64_t end)
{
	struct rusage self;
	getrusage(RUSAGE_SELF, &self);
	double seconds = (double)(end - l->start) / 1e9;
	printf("requests=%" PRIu64 "\n", l->acked);
	printf("seconds=%.3f\n", seconds);
	printf("per_second=%.0f\n", (double)l->acked / seconds);
	printf("denied=%" PRIu64 "\n", l->denied);
	printf("wrong=%" PRIu64 "\n", l->wrong);
	printf("unanswered=%" PRIu64 "\n", l->in_flight);
	printf("p50_us=%.1f\n", percentile_us(l, 0.50));
	printf("p99_us=%.1f\n", percentile_us(l, 0.99));
	printf("p999_us=%.1f\n", percentile_us(l, 0.999));
	printf("p9999_us=%.1f\n", percentile_us(l, 0.9999));
	printf("max_us=%.1f\n", (double)l->longest / 1000);
	printf("own_cpu_seconds=%.3f\n",
		(double)self.ru_utime.tv_sec + (double)self.ru_stime.tv_sec +
			(double)(self.ru_utime.tv_usec + self.ru_stime.tv_usec) / 1e6);
}

static void load_free(struct load *l)
{
	for (unsigned i = 0; i < (unsigned)l->o.connections; i++) {
		struct conn *c = &l->conn[i];
		close(c->fd);
		free(c->slot);
		free(c->idle);
		free(c->in);
		free(c->out);
	}
	close(l->poll_fd);
	if (l->o.rate)
		close(l->timer_fd);
	free(l);
}

static const char usage[] =
	"usage: load --address HOST:PORT|/PATH [options]\n"
	"  --connections N   how many (4)\n"
	"  --depth N         NOTIFYs in flight on each (32)\n"
	"  --clients N       distinct clients, in turn (1000)\n"
	"  --seconds S       how long, at most 3600 (3)\n"
	"  --requests N      how many at most; 0: as many as the time allows (0)\n"
	"  --rate N          so many a second, by a timetable; 0: as fast as it is answered (0)\n"
	"  --message NAME    name of the message (check)\n";

static long number(const char *option, const char *text, long min, long max)
{
	char *end;
	errno = 0;
	long v = strtol(text, &end, 10);
	if (errno || end == text || *end || v < min || v > max) {
		fprintf(stderr, "load: --%s %s: want %ld..%ld\n", option, text, min, max);
		exit(1);
	}
	return v;
}

static struct options options_read(int argc, char **argv)
{
	static const struct option known[] = { { "address", 1, 0, 'a' },
		{ "connections", 1, 0, 'c' }, { "depth", 1, 0, 'd' }, { "clients", 1, 0, 'k' },
		{ "seconds", 1, 0, 's' }, { "requests", 1, 0, 'n' }, { "rate", 1, 0, 'r' },
		{ "message", 1, 0, 'm' }, { 0 } };
	struct options o = { NULL, "check", 4, 32, 1000, 3000, 0, 0 };
	int c, i;
	while ((c = getopt_long(argc, argv, "", known, &i)) != -1) {
		switch (c) {
		case 'a':
			o.address = optarg;
			break;
		case 'c':
			o.connections = number(known[i].name, optarg, 1, CONNECTIONS_MAX);
			break;
		case 'd':
			o.depth = number(known[i].name, optarg, 1, DEPTH_MAX);
			break;
		case 'k':
			o.clients = number(known[i].name, optarg, 1, NOTIFY_CLIENTS_MAX);
			break;
		case 's':
			o.seconds_ms = (long)(strtod(optarg, NULL) * 1000);
			if (o.seconds_ms < 1 || o.seconds_ms > SECONDS_MAX * 1000L)
				die("--seconds", "want 0.001..3600");
			break;
		case 'n':
			o.requests = number(known[i].name, optarg, 0, 1000000000);
			break;
		case 'r':
			o.rate = number(known[i].name, optarg, 0, 10000000);
			break;
		case 'm':
			o.message = optarg;
			break;
		default:
			o.address = NULL;
			optind = argc;
		}
	}
	if (!o.address || optind < argc) {
		fputs(usage, stderr);
		exit(1);
	}
	return o;
}

int main(int argc, char **argv)
{
	struct load *l = calloc(1, sizeof *l);
	if (!l)
		die("start", "out of memory");
	l->o = options_read(argc, argv);
	if (!notify_form_init(&l->form, l->o.message))
		die("--message", "too long");
	while (1l << l->slots_bits < l->o.depth)
		l->slots_bits++;
	l->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < (unsigned)l->o.connections; i++)
		conn_open(l, &l->conn[i], i);
	load_run(l);
	load_print(l, clock_ns());
	bool good = !l->wrong && !l->in_flight && l->acked == l->sent;
	load_free(l);
	return good ? 0 : 1;
}
