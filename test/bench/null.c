/* The do-nothing agent: what a SPOP agent costs that decides nothing. It has the same loop as the
 * real one: epoll, one recv, one send for all that it answered. An ACK sets the boolean `ack`. It
 * trusts its peer (a benchmark on loopback) as far as memory safety allows: what it does not
 * understand closes the connection. */
#include "base/wire.h"
#include "spop/frame.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { THREADS_MAX = 64, LISTEN_MAX = 4, IN_BYTES = 64 * 1024, OUT_BYTES = 64 * 1024 };

struct conn {
	int fd;
	size_t in_n, out_from, out_to;
	uint8_t in[IN_BYTES], out[OUT_BYTES];
};

static const uint8_t agent_hello[] = "\0\0\0\x40\x65\0\0\0\1\0\0"
				     "\7version\10\3"
				     "2.0"
				     "\16max-frame-size\3\xfc\xf0\6"
				     "\14capabilities\10\12pipelining";
static const uint8_t agent_hello_plain[] = "\0\0\0\x36\x65\0\0\0\1\0\0"
					   "\7version\10\3"
					   "2.0"
					   "\16max-frame-size\3\xfc\xf0\6"
					   "\14capabilities\10\0";
static const uint8_t agent_disconnect[] = "\0\0\0\x25\x66\0\0\0\1\0\0"
					  "\13status-code\3\0"
					  "\7message\10\6normal";
static const uint8_t set_ack[] = { 1, 3, 2, 3, 'a', 'c', 'k', 0x11 }; /* set-var txn ack true */

static void die(const char *what, const char *why)
{
	fprintf(stderr, "null: %s: %s\n", what, why);
	exit(1);
}

static void conn_close(struct conn *c)
{
	close(c->fd);
	free(c);
}

/* false: close. */
static bool conn_send(struct conn *c)
{
	while (c->out_from < c->out_to) {
		ssize_t n = send(c->fd, c->out + c->out_from, c->out_to - c->out_from,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		c->out_from += (size_t)n;
	}
	c->out_from = c->out_to = 0;
	return true;
}

static void put(struct conn *c, const void *p, size_t n)
{
	memcpy(c->out + c->out_to, p, n);
	c->out_to += n;
}

/* One frame without its length word; there is room for an answer. false: close after a send. */
static bool on_frame(struct conn *c, const uint8_t *p, uint32_t length)
{
	if (p[0] == FRAME_HAPROXY_HELLO) {
		if (memmem(p, length, "pipelining", 10))
			put(c, agent_hello, sizeof agent_hello - 1);
		else
			put(c, agent_hello_plain, sizeof agent_hello_plain - 1);
		return true;
	}
	if (p[0] != FRAME_NOTIFY) {
		put(c, agent_disconnect, sizeof agent_disconnect - 1);
		return false;
	}
	struct wire_reader r = { p + 5, p + length, false };
	wire_get_varint(&r);
	wire_get_varint(&r);
	if (r.bad)
		return false;
	uint8_t ids = (uint8_t)(r.p - p - 5);
	uint8_t head[9] = { 0, 0, 0, (uint8_t)(5 + ids + sizeof set_ack), FRAME_ACK, 0, 0, 0,
		FRAME_FLAG_FIN };
	put(c, head, sizeof head);
	put(c, p + 5, ids);
	put(c, set_ack, sizeof set_ack);
	return true;
}

/* false: close. */
static bool conn_on_readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_n, IN_BYTES - c->in_n, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	c->in_n += (size_t)n;
	bool open = true;
	struct wire_reader r = { c->in, c->in + c->in_n, false };
	while (open && wire_left(&r) >= FRAME_LENGTH_BYTES) {
		struct wire_reader whole = r;
		uint32_t length = wire_get_u32(&whole);
		if (length < FRAME_HEAD_MIN || length > IN_BYTES / 2)
			return false;
		if (length > wire_left(&whole))
			break;
		if (OUT_BYTES - c->out_to < 128 && (!conn_send(c) || c->out_to))
			return false; /* a peer that asks and never reads */
		open = on_frame(c, whole.p, length);
		r.p = whole.p + length;
	}
	c->in_n = wire_left(&r);
	memmove(c->in, r.p, c->in_n);
	return conn_send(c) && open;
}

static void *worker(void *arg)
{
	int poll_fd = *(int *)arg;
	struct epoll_event e[64];
	for (;;) {
		int n = epoll_wait(poll_fd, e, 64, -1);
		for (int i = 0; i < n; i++) {
			struct conn *c = e[i].data.ptr;
			if (!conn_on_readable(c))
				conn_close(c);
		}
	}
	return NULL;
}

static int listen_on(const char *address)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr *sa = (struct sockaddr *)&un;
	socklen_t length = sizeof un;
	if (address[0] == '/') {
		if (strlen(address) >= sizeof un.sun_path)
			die(address, "too long for a UNIX socket");
		strcpy(un.sun_path, address);
		unlink(address);
	} else {
		const char *colon = strrchr(address, ':');
		in.sin_port = htons((uint16_t)(colon ? atoi(colon + 1) : 0));
		in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if (!in.sin_port)
			die(address, "want 127.0.0.1:PORT or an absolute path");
		sa = (struct sockaddr *)&in;
		length = sizeof in;
	}
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, sa, length) < 0 || listen(fd, 1024) < 0)
		die(address, strerror(errno));
	return fd;
}

static void accept_one(int listen_fd, int poll_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC), on = 1;
	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	struct conn *c = malloc(sizeof *c);
	if (!c) {
		close(fd);
		return;
	}
	c->fd = fd;
	c->in_n = c->out_from = c->out_to = 0;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
		conn_close(c);
}

/* usage: null THREADS ADDRESS... */
int main(int argc, char **argv)
{
	static int worker_fd[THREADS_MAX];
	int threads = argc > 1 ? atoi(argv[1]) : 0, next = 0;
	if (threads < 1 || threads > THREADS_MAX || argc < 3 || argc > 2 + LISTEN_MAX) {
		fputs("usage: null THREADS 127.0.0.1:PORT|/PATH...\n", stderr);
		return 1;
	}
	int accept_fd = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 2; i < argc; i++) {
		int fd = listen_on(argv[i]);
		struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
		epoll_ctl(accept_fd, EPOLL_CTL_ADD, fd, &e);
	}
	for (int i = 0; i < threads; i++) {
		pthread_t thread;
		worker_fd[i] = epoll_create1(EPOLL_CLOEXEC);
		if (pthread_create(&thread, NULL, worker, &worker_fd[i]))
			die("thread", "cannot start");
	}
	for (;;) {
		struct epoll_event e;
		if (epoll_wait(accept_fd, &e, 1, -1) == 1)
			accept_one(e.data.fd, worker_fd[next++ % threads]);
	}
}
