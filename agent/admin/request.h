/* A request and its daemon from the inside: what http.c and reply.c share. */
#ifndef ADMIN_REQUEST_H
#define ADMIN_REQUEST_H

#include "admin/peer.h"

#include <microhttpd.h>

struct http {
	struct http_settings settings;
	struct peers peers;
	struct MHD_Daemon *daemon;
	ev_io io;
	ev_timer timer;
	ev_timer watch_again; /* the daemon's descriptor, where the kernel refused that */
	struct request *head; /* all that are under way */
	struct peer *adding;  /* the connection that the daemon is being given */
	uint64_t requests;
	bool woken; /* a connection was resumed */
	bool stopping;
};

struct request {
	struct http *http;
	struct request *next, **link;
	struct MHD_Connection *connection;
	struct peer *peer;
	const struct route *route; /* NULL: refused */
	bool by_token;
	bool head;      /* asked by HEAD: its reply has no body */
	bool asked;     /* the handler has it, or had */
	bool suspended; /* the daemon does nothing about it until it is resumed */
	bool too_long;
	struct MHD_Response *response; /* owned; what it will get */
	int status;
	char *body; /* owned */
	size_t body_n;
	uint64_t thrown_n; /* bytes of its body that nobody wants */
	void (*gone)(void *arg);
	void *gone_arg;
	struct stream *stream; /* owned */
};

struct stream {
	struct request *request;
	void (*ended)(void *arg);
	void *arg;
	size_t n;
	char bytes[HTTP_STREAM_BYTES_MAX];
};

/* application/problem+json with that detail and one more header (NULL: none). */
void request_refuse(
	struct request *, int status, const char *detail, const char *header, const char *value);
/* The daemon goes on with a request that was suspended; nothing where it was not. */
void request_resume(struct request *);
/* Its stream, if it has one, is over. */
void request_end_stream(struct request *);

#endif
