/* The agent that most write first: for each request INCR the user's counter in Redis, wait for the
 * reply, answer; hiredis as its README begins. Each thread has a connection to Redis of its own.
 *
 *   a thread for each connection of HAProxy   as many INCRs wait as HAProxy has connections
 *   THREADS                                   that share them: as many INCRs wait as there are
 *                                             threads, of one: one after the other */
#include "peer.h"

#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { KEEP_MS = 60000, THREAD_STACK_BYTES = 256 * 1024, THREADS_MAX = 64 };

struct conn {
	struct peer peer;    /* first: on_notify() finds its connection by it */
	redisContext *redis; /* its thread's */
	bool lost;           /* HAProxy is gone */
};

static int redis_port;

static void on_notify(
	struct peer *peer, const struct peer_ids *ids, const uint8_t *payload, size_t n)
{
	struct conn *c = (struct conn *)peer;
	char key[PEER_KEY_BYTES];
	redisReply *reply;

	peer_user_key(key, payload, n);
	reply = redisCommand(c->redis, "INCR %s", key);
	if (!reply || reply->type != REDIS_REPLY_INTEGER)
		die("INCR", reply && reply->str ? reply->str : c->redis->errstr);
	if (reply->integer == 1)
		freeReplyObject(redisCommand(c->redis, "PEXPIRE %s %d", key, KEEP_MS));
	freeReplyObject(reply);
	/* The next INCR is waited for: an answer that is known does not wait with it. */
	if (!peer_ack(peer, ids) || !peer_send(peer))
		c->lost = true;
}

static redisContext *redis_open(void)
{
	redisContext *redis = redisConnect("127.0.0.1", redis_port);

	if (!redis || redis->err)
		die("Redis", redis ? redis->errstr : "out of memory");
	return redis;
}

/* false: it is closed. */
static bool serve_once(struct conn *c)
{
	bool open = peer_receive(&c->peer, on_notify);

	if (peer_send(&c->peer) && open && !c->lost)
		return true;
	close(c->peer.fd);
	free(c);
	return false;
}

/* The thread of one connection of HAProxy. */
static void *serve(void *arg)
{
	struct conn *c = arg;
	redisContext *redis = redis_open();

	c->redis = redis;
	while (serve_once(c))
		;
	redisFree(redis);
	return NULL;
}

/* One of a number of threads; its connections are in the epoll set. */
static void *serve_some(void *arg)
{
	int poll_fd = *(int *)arg;
	redisContext *redis = redis_open();
	struct epoll_event e;

	for (;;) {
		if (epoll_wait(poll_fd, &e, 1, -1) != 1)
			continue;
		struct conn *c = e.data.ptr;
		c->redis = redis;
		(void)serve_once(c);
	}
	return NULL;
}

static void start(void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	if (pthread_create(&thread, &attr, run, arg))
		die("thread", "cannot start");
	pthread_attr_destroy(&attr);
}

/* `poll_fd`: of the thread that gets it; -1: a thread of its own. */
static void accept_one(int listen_fd, int poll_fd)
{
	struct conn *c = calloc(1, sizeof *c);

	if (!c || !peer_accept(&c->peer, listen_fd)) {
		free(c);
		return;
	}
	if (poll_fd < 0) {
		c->peer.flags = 0; /* its thread has nothing else to do */
		start(serve, c);
		return;
	}
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->peer.fd, &e) < 0)
		die("epoll", "cannot add");
}

/* usage: incr_plain REDIS-PORT ADDRESS [THREADS] */
int main(int argc, char **argv)
{
	static int poll_fd[THREADS_MAX];
	int threads = argc == 4 ? atoi(argv[3]) : 0;

	redis_port = argc == 3 || argc == 4 ? atoi(argv[1]) : 0;
	if (redis_port < 1 || threads < 0 || threads > THREADS_MAX) {
		fputs("usage: incr_plain REDIS-PORT 127.0.0.1:PORT|/PATH [THREADS]\n", stderr);
		return 1;
	}
	int listen_fd = peer_listen(argv[2]);
	for (int i = 0; i < threads; i++) {
		poll_fd[i] = epoll_create1(EPOLL_CLOEXEC);
		start(serve_some, &poll_fd[i]);
	}
	for (unsigned next = 0;; next++)
		accept_one(listen_fd, threads ? poll_fd[next % (unsigned)threads] : -1);
}
