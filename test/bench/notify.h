/* NOTIFY frames as HAProxy sends them for `args ip key user method path host`, made once and then
 * only stamped: with an id, and with which of many clients asks. Knows nothing of sockets. */
#ifndef BENCH_NOTIFY_H
#define BENCH_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Stream-ids of three bytes: all frames have one length. */
enum { NOTIFY_ID_MIN = 2288, NOTIFY_IDS = 1 << 18, NOTIFY_CLIENTS_MAX = 1 << 24 };

struct notify_form {
	uint8_t bytes[256];
	size_t n;
	size_t payload_at; /* of the frame's bytes; what is before is its head */
	size_t id_at, ip_at, key_at, user_at;
};

/* `message` is what HAProxy calls the message, at most 64 bytes. false: it does not fit. */
bool notify_form_init(struct notify_form *, const char *message);

/* Writes the form's `n` bytes to `out`, as request `id` (0..NOTIFY_IDS - 1) of `client`
 * (0..NOTIFY_CLIENTS_MAX - 1). */
void notify_stamp(const struct notify_form *, uint8_t *out, uint32_t id, uint32_t client);

#endif
