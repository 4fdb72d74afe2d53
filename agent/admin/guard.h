/* Who may do what: a request's headers against its route's right. Pure.
 *
 *   where it comes in       reading                     changing
 *   UNIX socket             free                        token; without one configured: free (the
 *                                                       file's permissions decide)
 *   address of loopback     free                        token
 *   any other address       token                       token
 *
 * Web pages: one of another origin is told by Origin and Sec-Fetch-Site, and never changes
 * anything; one that had its own name resolved to this address (DNS rebinding) is told by Host. */
#ifndef ADMIN_GUARD_H
#define ADMIN_GUARD_H

#include <stdbool.h>

enum right {
	RIGHT_ANYONE, /* from wherever the address can be reached */
	RIGHT_READ,
	RIGHT_CHANGE,
};

/* NULL: the request has no such header. */
struct guard_request {
	enum right right;
	bool safe;     /* GET or HEAD: what a web page of any origin may send */
	bool is_unix;  /* came in by a UNIX socket */
	bool is_local; /* by that, or by an address of loopback */
	const char *host, *origin, *fetch_site, *authorization;
	const char *token;       /* admin.token; "": none */
	const char *listen_host; /* the name that admin.listen has for this address; may be "" */
};

struct guard_verdict {
	int status; /* 0: go on */
	bool by_token;
	const char *detail;
};

struct guard_verdict guard_check(const struct guard_request *);

/* Is `header` "Bearer TOKEN" with that token? Takes as long whatever it holds. A token of "" is
 * never shown. */
bool guard_shows_token(const char *header, const char *token);

/* "127.0.0.1:9601", "[::1]", "localhost:9601", or listen_host with or without a port. */
bool guard_knows_host(const char *host, const char *listen_host);

#endif
