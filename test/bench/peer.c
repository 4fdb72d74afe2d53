#include "peer.h"

#include "base/wire.h"
#include "spop/frame.h"
#include "spop/value.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 128 + PEER_ACTIONS_MAX }; /* more than any frame that is sent */

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

void die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

bool peer_send(struct peer *c)
{
	while (c->out_from < c->out_to) {
		ssize_t n = send(c->fd, c->out + c->out_from, c->out_to - c->out_from,
			MSG_NOSIGNAL | c->flags);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		c->out_from += (size_t)n;
	}
	c->out_from = c->out_to = 0;
	return true;
}

static bool has_room(struct peer *c)
{
	return PEER_OUT_BYTES - c->out_to >= ROOM || (peer_send(c) && !c->out_to);
}

static void put(struct peer *c, const void *p, size_t n)
{
	memcpy(c->out + c->out_to, p, n);
	c->out_to += n;
}

bool peer_answer(struct peer *c, const struct peer_ids *ids, const uint8_t *actions, size_t n)
{
	size_t length = 5 + ids->n + n;
	uint8_t head[9] = { 0, 0, (uint8_t)(length >> 8), (uint8_t)length, FRAME_ACK, 0, 0, 0,
		FRAME_FLAG_FIN };

	if (!has_room(c))
		return false;
	put(c, head, sizeof head);
	put(c, ids->bytes, ids->n);
	put(c, actions, n);
	return true;
}

bool peer_ack(struct peer *c, const struct peer_ids *ids)
{
	return peer_answer(c, ids, set_ack, sizeof set_ack);
}

/* One frame without its length word. false: close after a send. */
static bool on_frame(struct peer *c, const uint8_t *p, uint32_t length, peer_on_notify on_notify)
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
	struct peer_ids ids;
	wire_get_varint(&r);
	wire_get_varint(&r);
	ids.n = (uint8_t)(r.p - p - 5);
	if (r.bad || ids.n > sizeof ids.bytes)
		return false;
	memcpy(ids.bytes, p + 5, ids.n);
	on_notify(c, &ids, r.p, wire_left(&r));
	return true;
}

bool peer_receive(struct peer *c, peer_on_notify on_notify)
{
	ssize_t n = recv(c->fd, c->in + c->in_n, PEER_IN_BYTES - c->in_n, c->flags);
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
		if (length < FRAME_HEAD_MIN || length > PEER_IN_BYTES / 2)
			return false;
		if (length > wire_left(&whole))
			break;
		if (!has_room(c))
			return false;
		open = on_frame(c, whole.p, length, on_notify);
		r.p = whole.p + length;
	}
	c->in_n = wire_left(&r);
	memmove(c->in, r.p, c->in_n);
	return open;
}

/* The text of the argument `user` of the first message; "": none. */
static struct str user_of(const uint8_t *payload, size_t n)
{
	struct wire_reader r = { payload, payload + n, false };
	struct message m;
	struct str name;
	struct value value;

	if (!message_next(&r, &m))
		return (struct str){ 0 };
	for (unsigned i = 0; i < m.args && arg_next(&r, &name, &value); i++)
		if (str_eq(name, STR("user")) && value.type == VALUE_STRING)
			return value.bytes;
	return (struct str){ 0 };
}

void peer_user_key(char key[PEER_KEY_BYTES], const uint8_t *payload, size_t n)
{
	struct str user = user_of(payload, n);

	snprintf(key, PEER_KEY_BYTES, "incr:%.*s", (int)(user.n < 50 ? user.n : 50),
		user.p ? (const char *)user.p : "");
}

int peer_listen(const char *address)
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

bool peer_accept(struct peer *c, int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC), on = 1;
	if (fd < 0)
		return false;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c->fd = fd;
	c->flags = MSG_DONTWAIT;
	c->in_n = c->out_from = c->out_to = 0;
	return true;
}
