/* Agents that count in Redis and wait for nothing: for each user a counter, one INCR for each
 * request, and PEXPIRE when it is new. Better than what is written first (incr_plain.c), in two
 * ways:
 *
 *   one connection   hiredis' asynchronous interface: all that comes in one turn of the loop leaves
 * in one write. As good as INCR can be. CONNECTIONS      a pool of them with one INCR under way on
 * each, as the Redis clients of most languages do it: who finds none idle waits
 *
 * One thread; all ACKs of a connection in one send. */
#include "peer.h"

#include <hiredis/adapters/libev.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { KEEP_MS = 60000, POOL_MAX = 64 };

struct conn {
	struct peer peer; /* first: on_notify() finds its connection by it */
	ev_io readable;
	unsigned waiting; /* requests that Redis has not answered */
	bool closed;
	bool has_acks; /* in the list of those to be sent */
	struct conn *next;
};

/* One request that waits for Redis. */
struct request {
	struct conn *conn;
	struct peer_ids ids;
	char key[PEER_KEY_BYTES];
	struct request *next;
};

static struct ev_loop *loop;
static redisAsyncContext *pool[POOL_MAX]; /* pipelined: the first of them is the only one */
static redisAsyncContext *idle[POOL_MAX];
static unsigned idle_n;
static bool pipelined;
static struct request *queue, **queue_end = &queue;
static struct conn *with_acks;

static void conn_free_if_done(struct conn *c)
{
	if (c->closed && !c->waiting && !c->has_acks)
		free(c);
}

static void conn_close(struct conn *c)
{
	if (c->closed)
		return;
	c->closed = true;
	ev_io_stop(loop, &c->readable);
	close(c->peer.fd);
}

static void conn_has_acks(struct conn *c)
{
	if (c->has_acks)
		return;
	c->has_acks = true;
	c->next = with_acks;
	with_acks = c;
}

static void ask_next(void);

static void on_counted(redisAsyncContext *r, void *got, void *arg)
{
	struct request *request = arg;
	struct conn *c = request->conn;
	const redisReply *reply = got;

	if (!reply || reply->type != REDIS_REPLY_INTEGER)
		die("INCR", reply && reply->str ? reply->str : r->errstr);
	if (reply->integer == 1)
		redisAsyncCommand(r, NULL, NULL, "PEXPIRE %s %d", request->key, KEEP_MS);
	c->waiting--;
	if (!c->closed && peer_ack(&c->peer, &request->ids))
		conn_has_acks(c);
	else
		conn_close(c);
	free(request);
	conn_free_if_done(c);
	if (!pipelined) {
		idle[idle_n++] = r;
		ask_next();
	}
}

static void ask(redisAsyncContext *r, struct request *request)
{
	const char *argv[] = { "INCR", request->key };
	const size_t argv_bytes[] = { 4, strlen(request->key) };

	if (redisAsyncCommandArgv(r, on_counted, request, 2, argv, argv_bytes) != REDIS_OK)
		die("INCR", r->errstr);
}

/* The first of those that wait, if a connection is idle. */
static void ask_next(void)
{
	struct request *request = queue;

	if (!request || !idle_n)
		return;
	queue = request->next;
	if (!queue)
		queue_end = &queue;
	ask(idle[--idle_n], request);
}

static void on_notify(
	struct peer *peer, const struct peer_ids *ids, const uint8_t *payload, size_t n)
{
	struct conn *c = (struct conn *)peer;
	struct request *request = malloc(sizeof *request);

	if (!request)
		die("NOTIFY", "out of memory");
	request->conn = c;
	request->ids = *ids;
	request->next = NULL;
	peer_user_key(request->key, payload, n);
	c->waiting++;
	if (pipelined) {
		ask(pool[0], request);
		return;
	}
	*queue_end = request;
	queue_end = &request->next;
	ask_next();
}

static void on_readable(struct ev_loop *l, ev_io *readable, int revents)
{
	(void)l;
	(void)revents;
	struct conn *c = readable->data;

	if (!peer_receive(&c->peer, on_notify)) {
		(void)peer_send(&c->peer);
		conn_close(c);
		conn_free_if_done(c);
	} else if (c->peer.out_to) { /* a HELLO */
		conn_has_acks(c);
	}
}

/* Before the loop sleeps: what was answered in this turn leaves. */
static void on_prepare(struct ev_loop *l, ev_prepare *prepare, int revents)
{
	(void)l;
	(void)prepare;
	(void)revents;
	while (with_acks) {
		struct conn *c = with_acks;
		with_acks = c->next;
		c->has_acks = false;
		if (!c->closed && !peer_send(&c->peer))
			conn_close(c);
		conn_free_if_done(c);
	}
}

static void on_connection(struct ev_loop *l, ev_io *listening, int revents)
{
	(void)revents;
	struct conn *c = calloc(1, sizeof *c);

	if (!c || !peer_accept(&c->peer, listening->fd)) {
		free(c);
		return;
	}
	ev_io_init(&c->readable, on_readable, c->peer.fd, EV_READ);
	c->readable.data = c;
	ev_io_start(l, &c->readable);
}

static void on_connected(const redisAsyncContext *r, int status)
{
	if (status != REDIS_OK)
		die("Redis", r->errstr);
}

static redisAsyncContext *redis_open(int port)
{
	redisAsyncContext *r = redisAsyncConnect("127.0.0.1", port);
	if (!r || r->err)
		die("Redis", r ? r->errstr : "out of memory");
	redisLibevAttach(loop, r);
	redisAsyncSetConnectCallback(r, on_connected);
	return r;
}

/* usage: incr REDIS-PORT ADDRESS [CONNECTIONS] */
int main(int argc, char **argv)
{
	int port = argc > 2 ? atoi(argv[1]) : 0, connections = argc == 4 ? atoi(argv[3]) : 1;
	if (port < 1 || argc > 4 || connections < 1 || connections > POOL_MAX) {
		fputs("usage: incr REDIS-PORT 127.0.0.1:PORT|/PATH [CONNECTIONS]\n", stderr);
		return 1;
	}
	loop = ev_default_loop(0);
	if (!loop)
		die("loop", "cannot be made");
	pipelined = argc == 3;
	for (int i = 0; i < connections; i++)
		idle[idle_n++] = pool[i] = redis_open(port);
	static ev_io listening;
	ev_io_init(&listening, on_connection, peer_listen(argv[2]), EV_READ);
	ev_io_start(loop, &listening);
	static ev_prepare prepare;
	ev_prepare_init(&prepare, on_prepare);
	ev_prepare_start(loop, &prepare);
	ev_run(loop, 0);
	return 1;
}
