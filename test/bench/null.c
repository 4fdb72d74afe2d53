/* The do-nothing agent: what a SPOP agent costs that decides nothing. It has the same loop as the
 * real one: epoll, one recv, one send for all that it answered. An ACK sets the boolean `ack`. */
#include "peer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { THREADS_MAX = 64, LISTEN_MAX = 4 };

static void on_notify(struct peer *c, const struct peer_ids *ids, const uint8_t *payload, size_t n)
{
	(void)payload;
	(void)n;
	(void)peer_ack(c, ids); /* there was room before */
}

static void conn_close(struct peer *c)
{
	close(c->fd);
	free(c);
}

static void *worker(void *arg)
{
	int poll_fd = *(int *)arg;
	struct epoll_event e[64];
	for (;;) {
		int n = epoll_wait(poll_fd, e, 64, -1);
		for (int i = 0; i < n; i++) {
			struct peer *c = e[i].data.ptr;
			bool open = peer_receive(c, on_notify);
			if (!peer_send(c) || !open)
				conn_close(c);
		}
	}
	return NULL;
}

static void accept_one(int listen_fd, int poll_fd)
{
	struct peer *c = malloc(sizeof *c);
	if (!c || !peer_accept(c, listen_fd)) {
		free(c);
		return;
	}
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &e) < 0)
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
		int fd = peer_listen(argv[i]);
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
