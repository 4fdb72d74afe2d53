/* What is said first on a connection to Redis, sent as a whole, and what are good answers: who we
 * are, which database, is it a master, the script. Pure: commands out, replies in. */
#ifndef STORE_REDIS_HANDSHAKE_H
#define STORE_REDIS_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

struct redisReply;
struct redis_conn_settings;

enum { HANDSHAKE_STEPS_MAX = 4, HANDSHAKE_ARGS_MAX = 3 };

/* Begins zeroed. */
struct redis_handshake {
	unsigned char step[HANDSHAKE_STEPS_MAX]; /* enum step */
	unsigned n, at;                          /* at: whose reply comes next */
	bool asked_who; /* the server has said NOAUTH: settings.auth_if_asked holds */
};

/* One command: points into the settings and itself. */
struct handshake_command {
	unsigned argc;
	const char *argv[HANDSHAKE_ARGS_MAX];
	size_t bytes[HANDSHAKE_ARGS_MAX];
	char db[12];
};

/* From the beginning. `asked_who` stays as it is. */
void redis_handshake_begin(
	struct redis_handshake *, const struct redis_conn_settings *, bool master_only);
/* The command of step `i`, below `n`. */
void redis_handshake_command(const struct redis_handshake *, const struct redis_conn_settings *,
	unsigned i, struct handshake_command *);

/* The reply to the next step. false: it did not go well; `why` says why (terminated), and `*hint`
 * what to do, or is NULL. */
bool redis_handshake_reply(struct redis_handshake *, const struct redis_conn_settings *,
	const struct redisReply *, char *why, size_t why_size, const char **hint);
bool redis_handshake_is_done(const struct redis_handshake *);

#endif
