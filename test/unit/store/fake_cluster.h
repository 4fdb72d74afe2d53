/* Nodes of a cluster that are none: processes on loopback ports that answer what a test tells them
 * to, and count what they are asked. */
#ifndef TEST_STORE_FAKE_CLUSTER_H
#define TEST_STORE_FAKE_CLUSTER_H

#include "rig.h"
#include "ports.h"
#include "store/redis_call.h"
#include "store/redis_script.h"
#include "store/redis_slot.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAKE_NODES = 3, FAKE_CLIENTS = 16 };

enum fake_mode {
	FAKE_SERVES,
	FAKE_DENIES,   /* serves; all buckets are full of what was used */
	FAKE_MOVED,    /* to `other` */
	FAKE_ASK,      /* to `other`, which serves who says ASKING */
	FAKE_IMPORTS,  /* serves who says ASKING, else MOVED to `other` */
	FAKE_TRYAGAIN, /* `times`, then it serves */
	FAKE_SAYS,     /* `error` */
	FAKE_CLOSES,   /* serves `times`, and then closes in the middle of a call */
};

struct fake_node {
	_Atomic(int) mode, other, times;
	_Atomic(unsigned) calls, askings, refunds, denied; /* of calls with takes; takes by flag */
	char error[128];
	uint16_t port;
	pid_t pid;
};

struct fake_cluster {
	struct fake_node node[FAKE_NODES];
	/* What CLUSTER SLOTS says: who has all slots below `border`, and all others. */
	_Atomic(int) low, high, border;
};

static struct fake_cluster *fake;

struct fake_client {
	int fd;
	redisReader *reader;
	bool asking;
};

static void fake_say(struct fake_client *c, const char *text, size_t n)
{
	(void)!write(c->fd, text, n);
}

static void fake_say_slots(struct fake_client *c)
{
	char text[512];
	int border = fake->border, n = snprintf(text, sizeof text, "*%d\r\n", border > 0 ? 2 : 1);
	for (int i = border > 0 ? 0 : 1; i < 2; i++)
		n += snprintf(text + n, sizeof text - (size_t)n,
			"*3\r\n:%d\r\n:%d\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\nid\r\n",
			i ? border : 0, i ? REDIS_SLOTS - 1 : border - 1,
			fake->node[i ? fake->high : fake->low].port);
	fake_say(c, text, (size_t)n);
}

/* For each key what lies there, nothing or a full bucket. */
static void fake_serve(struct fake_client *c, unsigned keys, bool full)
{
	static char out[64 + REDIS_REPLY_MAX];
	size_t bytes = 8 + REDIS_VALUE_BYTES * (size_t)keys;
	usec_t now = clock_read().utc;
	int n = snprintf(out, sizeof out, "$%zu\r\n", bytes);
	char *p = out + n;

	memset(p, 0, bytes);
	memcpy(p, &now, 8);
	p += 8;
	for (unsigned i = 0; i < keys; i++, p += REDIS_VALUE_BYTES) {
		struct bucket b = { .used = 1e6, .at = now };
		if (full)
			memcpy(p, &b, sizeof b);
	}
	memcpy(p, "\r\n", 2);
	fake_say(c, out, (size_t)n + bytes + 2);
}

/* By the hash tag of the first key. */
static unsigned fake_slot(const redisReply *key)
{
	const char *tag = memchr(key->str, '{', (size_t)key->len);
	assert_non_null(tag);
	return redis_crc16(tag + 1, REDIS_TAG_BYTES) % REDIS_SLOTS;
}

static void fake_count(struct fake_node *me, const redisReply *takes)
{
	me->calls++;
	for (size_t i = 0; i < (size_t)takes->len; i += REDIS_TAKE_BYTES) {
		me->refunds += (takes->str[i + 2] & 8) != 0;
		me->denied += (takes->str[i + 2] & 16) != 0;
		if (takes->str[i + 2] & 32)
			i += REDIS_COST_BYTES;
	}
}

/* false: the connection ends. */
static bool fake_call(struct fake_node *me, struct fake_client *c, const redisReply *call)
{
	char text[256];
	unsigned keys = (unsigned)atoi(call->element[2]->str);
	bool asking = c->asking;
	int n = 0;

	c->asking = false;
	if (keys == 0) {
		fake_serve(c, 0, false);
		return true;
	}
	fake_count(me, call->element[3 + keys + 1]);
	unsigned slot = fake_slot(call->element[3]), port = fake->node[me->other].port;
	switch ((enum fake_mode)me->mode) {
	case FAKE_DENIES:
		fake_serve(c, keys, true);
		return true;
	case FAKE_CLOSES:
		if (me->times-- <= 0)
			return false;
		break;
	case FAKE_SAYS:
		n = snprintf(text, sizeof text, "-%s\r\n", me->error);
		break;
	case FAKE_TRYAGAIN:
		if (me->times > 0) {
			me->times--;
			n = snprintf(text, sizeof text, "-TRYAGAIN Multiple keys\r\n");
		}
		break;
	case FAKE_MOVED:
		n = snprintf(text, sizeof text, "-MOVED %u 127.0.0.1:%u\r\n", slot, port);
		break;
	case FAKE_ASK:
		n = snprintf(text, sizeof text, "-ASK %u 127.0.0.1:%u\r\n", slot, port);
		break;
	case FAKE_IMPORTS:
		if (!asking)
			n = snprintf(text, sizeof text, "-MOVED %u 127.0.0.1:%u\r\n", slot, port);
		break;
	case FAKE_SERVES:
		break;
	}
	if (n)
		fake_say(c, text, (size_t)n);
	else
		fake_serve(c, keys, false);
	return true;
}

static bool fake_command(struct fake_node *me, struct fake_client *c, const redisReply *r)
{
	char text[64];
	const char *name = r->element[0]->str;

	if (strcmp(name, "EVALSHA") == 0)
		return fake_call(me, c, r);
	if (strcmp(name, "CLUSTER") == 0) {
		fake_say_slots(c);
	} else if (strcmp(name, "PING") == 0) {
		fake_say(c, "+PONG\r\n", 7);
	} else if (strcmp(name, "SCRIPT") == 0) {
		int n = snprintf(text, sizeof text, "$40\r\n%s\r\n", redis_script_sha1);
		fake_say(c, text, (size_t)n);
	} else {
		c->asking = strcmp(name, "ASKING") == 0;
		me->askings += c->asking;
		fake_say(c, "+OK\r\n", 5);
	}
	return true;
}

static bool fake_reads(struct fake_node *me, struct fake_client *c)
{
	static char in[65536];
	ssize_t n = read(c->fd, in, sizeof in);
	void *reply;

	if (n <= 0 || redisReaderFeed(c->reader, in, (size_t)n) != REDIS_OK)
		return false;
	while (redisReaderGetReply(c->reader, &reply) == REDIS_OK && reply) {
		bool good = fake_command(me, c, reply);
		freeReplyObject(reply);
		if (!good)
			return false;
	}
	return true;
}

static void fake_run(struct fake_node *me, int listener)
{
	struct fake_client client[FAKE_CLIENTS];
	struct pollfd poll_fd[FAKE_CLIENTS + 1];
	unsigned n = 0;

	for (;;) {
		poll_fd[n] = (struct pollfd){ .fd = listener, .events = POLLIN };
		for (unsigned i = 0; i < n; i++)
			poll_fd[i] = (struct pollfd){ .fd = client[i].fd, .events = POLLIN };
		(void)poll(poll_fd, n + 1, -1);
		bool comes = poll_fd[n].revents;
		for (unsigned i = n; i-- > 0;) {
			if (!poll_fd[i].revents || fake_reads(me, &client[i]))
				continue;
			close(client[i].fd);
			redisReaderFree(client[i].reader);
			client[i] = client[--n];
		}
		if (comes && n < FAKE_CLIENTS)
			client[n++] = (struct fake_client){ .fd = accept(listener, NULL, NULL),
				.reader = redisReaderCreate() };
	}
}

static void fake_node_start(struct fake_node *me)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(me->port) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(listener, 16), 0);
	pid_t parent = getpid(), pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			fake_run(me, listener);
		_exit(127);
	}
	me->pid = pid;
	close(listener);
}

static void fake_node_stop(struct fake_node *me)
{
	if (me->pid > 0) {
		kill(me->pid, SIGKILL);
		waitpid(me->pid, NULL, 0);
	}
	me->pid = 0;
}

static void fake_start(void)
{
	fake = mmap(NULL, sizeof *fake, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(fake != MAP_FAILED);
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		fake->node[i].port = reserve_port();
		fake_node_start(&fake->node[i]);
	}
}

static void fake_stop(void)
{
	for (unsigned i = 0; i < FAKE_NODES; i++)
		fake_node_stop(&fake->node[i]);
	release_ports();
	munmap(fake, sizeof *fake);
}

#endif
