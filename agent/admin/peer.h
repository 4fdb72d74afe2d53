/* Connections to the admin interface: accepting, who is there, how many, and until when. What they
 * say is http.c's. */
#ifndef ADMIN_PEER_H
#define ADMIN_PEER_H

#include "admin/http.h"

#include <sys/socket.h>

enum peer_state {
	PEER_IDLE,    /* a request is awaited, or its headers come in */
	PEER_BODY,    /* its body comes in */
	PEER_REFUSED, /* its body comes in and is thrown away: then it is refused */
	PEER_REPLY,   /* it is answered */
	PEER_STREAM,  /* it is answered as long as it listens */
	PEER_EVICTED, /* its socket was shut down */
};

struct peer {
	struct peers *all;
	struct peer *next, **link;
	int fd; /* the daemon's */
	enum peer_state state;
	usec_t since, deadline; /* steady; deadline 0: none */
	bool is_unix, is_local;
	bool says_nul;           /* escaped, in the path or the query of the request that begins */
	const char *listen_host; /* the gate's */
	char who[64];
};

struct peers {
	struct ev_loop *loop;
	struct gate {
		ev_io io;
		struct peers *peers;
		const struct listener *listener;
		char listen_host[sizeof(((struct listen_address *)0)->host)];
	} gate[LISTEN_MAX];
	unsigned gate_n;
	struct peer *head;
	unsigned n;
	ev_timer pause; /* nothing is accepted: no descriptors or no memory */
	ev_timer tick;  /* deadlines */
	/* A connection that came in: it takes `peer` over, or false: no memory. */
	bool (*take)(void *arg, struct peer *, int fd, const struct sockaddr *, socklen_t);
	void *arg;
};

void peers_init(struct peers *, const struct http_settings *);
void peers_stop(struct peers *); /* accepts no more, and looks at no deadline */

void peer_enter(struct peer *, enum peer_state); /* with the deadline that goes with it */
void peer_free(struct peer *);                   /* its connection is closed */

#endif
