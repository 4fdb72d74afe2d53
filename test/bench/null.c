/* The do-nothing agent: what a SPOP agent costs that decides nothing. It has the same loop as the
 * real one: epoll, one recv, one send for all that it answered. An ACK sets the boolean `ack`; with
 * -v the agent's default variables, to what is always the same: what is HAProxy's work for them is
 * no agent's to save. */
#include "peer.h"

#include "base/wire.h"
#include "spop/value.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { THREADS_MAX = 64, LISTEN_MAX = 4 };

/* CONTRACT: those that are set by default. As long as those of three.cfg, about. */
static const struct variable {
	const char *name;
	enum value_type type;
	const char *text;
	uint64_t number;
} variable[] = {
	{ "deny", VALUE_BOOL, NULL, 0 },
	{ "reason", VALUE_STRING, "ok", 0 },
	{ "limit", VALUE_INT64, NULL, 1000000000 },
	{ "remaining", VALUE_INT64, NULL, 999999000 },
	{ "reset", VALUE_INT64, NULL, 43200 },
	{ "retry_after", VALUE_INT64, NULL, 0 },
	{ "rule", VALUE_STRING, "endpoint", 0 },
	{ "tier", VALUE_STRING, "anonymous", 0 },
	{ "scope", VALUE_STRING, "ip+endpoint", 0 },
	{ "warn", VALUE_BOOL, NULL, 0 },
	{ "shadow", VALUE_STRING, "", 0 },
	{ "tag", VALUE_STRING, "", 0 },
};

static uint8_t actions[PEER_ACTIONS_MAX];
static size_t actions_n; /* 0: an ACK says only that it is one */

static void make_actions(void)
{
	struct wire_writer w = { actions, actions + sizeof actions, false };
	for (size_t i = 0; i < sizeof variable / sizeof *variable; i++) {
		const struct variable *v = &variable[i];
		w.p = action_put_head(w.p, SCOPE_TXN, str_of(v->name), (uint8_t)v->type);
		if (v->type == VALUE_STRING)
			wire_put_str(&w, str_of(v->text));
		else if (v->type == VALUE_INT64)
			wire_put_varint(&w, v->number);
	}
	actions_n = (size_t)(w.p - actions);
}

static void on_notify(struct peer *c, const struct peer_ids *ids, const uint8_t *payload, size_t n)
{
	(void)payload;
	(void)n;
	/* There was room before. */
	(void)(actions_n ? peer_answer(c, ids, actions, actions_n) : peer_ack(c, ids));
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

/* usage: null [-v] THREADS ADDRESS... */
int main(int argc, char **argv)
{
	static int worker_fd[THREADS_MAX];
	if (argc > 1 && strcmp(argv[1], "-v") == 0) {
		make_actions();
		argc--;
		argv++;
	}
	int threads = argc > 1 ? atoi(argv[1]) : 0, next = 0;
	if (threads < 1 || threads > THREADS_MAX || argc < 3 || argc > 2 + LISTEN_MAX) {
		fputs("usage: null [-v] THREADS 127.0.0.1:PORT|/PATH...\n", stderr);
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
