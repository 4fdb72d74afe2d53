/* What the agents of the benchmark share, the do-nothing one and those that count in Redis: a
 * SPOP connection with a buffer each way, HELLO and DISCONNECT answered, and NOTIFYs handed on. It
 * trusts its peer (a benchmark on loopback) as far as memory safety allows: what it does not
 * understand closes the connection. One thread each. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PEER_IN_BYTES = 64 * 1024,
	PEER_OUT_BYTES = 64 * 1024,
	PEER_IDS_MAX = 20,
	PEER_ACTIONS_MAX = 384,
	PEER_KEY_BYTES = 64
};

struct peer {
	int fd;
	int flags; /* of recv() and send(): MSG_DONTWAIT, or 0 where a thread waits for this one
		      alone */
	size_t in_n, out_from, out_to;
	uint8_t in[PEER_IN_BYTES], out[PEER_OUT_BYTES];
};

/* Of a NOTIFY: stream-id and frame-id as they came. */
struct peer_ids {
	uint8_t n, bytes[PEER_IDS_MAX];
};

typedef void (*peer_on_notify)(
	struct peer *, const struct peer_ids *, const uint8_t *payload, size_t n);

/* A listening socket; ends the process with a message where there can be none. */
int peer_listen(const char *address);
/* The next connection: begins as `*peer`, whose calls do not wait. false: there is none. */
bool peer_accept(struct peer *, int listen_fd);

/* One recv, and `on_notify` for each NOTIFY in it. What is to be sent waits for peer_send(). false:
 * send what there is, and close. */
bool peer_receive(struct peer *, peer_on_notify);
/* An ACK with these actions, at most PEER_ACTIONS_MAX bytes. false: no room; the peer asks and
 * never reads. */
bool peer_answer(struct peer *, const struct peer_ids *, const uint8_t *actions, size_t n);
/* An ACK with the boolean `ack`. */
bool peer_ack(struct peer *, const struct peer_ids *);
/* false: close. */
bool peer_send(struct peer *);

/* The key in Redis of who sent this payload: of the argument `user` of its first message. */
void peer_user_key(char key[PEER_KEY_BYTES], const uint8_t *payload, size_t n);

_Noreturn void die(const char *what, const char *why);

#endif
