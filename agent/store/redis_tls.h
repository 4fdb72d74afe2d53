/* TLS to Redis, in a build that has it (REDIS_TLS: hiredis 1.x brings hiredis_ssl). Certificates
 * are always verified, and the name in them. What all connections share: certificates are read here
 * once, and again at a reload.
 *
 * redis_tls_new(), _reload() and _free() are the control thread's, and read files; the rest is
 * called on the thread of the connection, and blocks for nothing. */
#ifndef STORE_REDIS_TLS_H
#define STORE_REDIS_TLS_H

#include "store/redis_address.h"

#include <stddef.h>

struct redisAsyncContext;
struct ssl_st; /* OpenSSL's */

struct redis_tls_settings {
	char ca[256];   /* a file, or a folder as c_rehash makes them; "": the system's */
	char cert[256]; /* ours, with its chain; "": none */
	char key[256];  /* of it */
	char name[256]; /* to ask for and to find in every server's certificate; "": of each
			 * what redis_address_name() says */
};

struct redis_tls;

/* NULL: `err` says why. A build without TLS always says so. */
struct redis_tls *redis_tls_new(const struct redis_tls_settings *, char *err, size_t err_size);
/* After the last connection. NULL is fine. */
void redis_tls_free(struct redis_tls *);

/* Reads the files again: for connections from then on. false: `err` says why, and all stays. */
bool redis_tls_reload(struct redis_tls *, char *err, size_t err_size);

/* All that is sent over it from now on is TLS, the handshake first; for a context that is
 * connected, with nothing to be sent. The answer is hiredis', and lives as long. NULL: `why` says
 * why, and `*hint` as that of redis_tls_explain(). */
struct ssl_st *redis_tls_begin(struct redis_tls *, struct redisAsyncContext *,
	const struct redis_address *, char *why, size_t why_size, const char **hint);

/* What lies in OpenSSL's queue of errors, which is the thread's, is not taken for the next
 * connection's: before each call of hiredis. */
void redis_tls_enter(void);

/* Why it came to an end: puts what OpenSSL knows in place of the errno that hiredis tells; for one
 * that is of no other use any more. Returns what to do about it; NULL: nothing that this knows. */
const char *redis_tls_explain(struct ssl_st *, char *why, size_t why_size);

/* "OpenSSL 3.5.1 …", or "no". */
const char *redis_tls_version(void);

#endif
