/* HTTP on a loop: connections, requests, replies, streams, bounded in number, size and time. Knows
 * routes, and nothing of what they are about. libmicrohttpd is seen only behind this header.
 *
 * All functions: on the loop's thread. */
#ifndef ADMIN_HTTP_H
#define ADMIN_HTTP_H

#include "admin/guard.h"
#include "base/str.h"
#include "server/listener.h"

#include <ev.h>
#include <jansson.h>

enum {
	HTTP_CONNECTIONS_MAX = 64,        /* then the longest idle, or refused, goes */
	HTTP_HEADERS_MAX = 32 * 1024,     /* bytes */
	HTTP_BODY_MAX = 64 * 1024,        /* bytes */
	HTTP_BODY_REFUSED_MAX = 1 << 20,  /* bytes that are read, not kept, before a refusal */
	HTTP_STREAM_BYTES_MAX = 64 * 1024 /* that wait for who listens to a stream */
};

/* Each from its beginning to its end, however much comes meanwhile. */
#define HTTP_HEADER_TIMEOUT (15 * USEC_PER_SEC) /* from the end of the last request */
#define HTTP_BODY_TIMEOUT   (15 * USEC_PER_SEC)
#define HTTP_REPLY_TIMEOUT  (60 * USEC_PER_SEC)

enum method { METHOD_GET, METHOD_POST, METHOD_PUT, METHOD_DELETE, METHOD_OTHER };

struct request;

/* Replies now (below), or keeps the request and replies later, on this loop: then it asks to be
 * told by request_on_gone(), unless it cannot take long. */
struct route {
	enum method method; /* METHOD_GET: HEAD, too */
	const char *path;   /* all of it */
	enum right right;
	void (*handle)(struct request *);
	const char *help;
};

struct http_settings {
	struct ev_loop *loop;
	struct listeners *listeners;          /* borrowed; closed by who opened them */
	const struct listen_address *address; /* as configured, one for each listener; copied */
	const struct route *route;
	unsigned route_n;
	const char *(*token)(void *context); /* admin.token as it is now */
	void *context;                       /* for handlers */
};

struct http;

struct http *http_new(const struct http_settings *); /* NULL: out of memory or descriptors */
void http_free(struct http *);                       /* ends what is under way. NULL is fine */
unsigned http_connections(const struct http *);
uint64_t http_requests(const struct http *); /* since the start */

/* ---- of a request ---- */

void *request_context(const struct request *);
const struct http_settings *request_settings(const struct request *);
const char *request_query(const struct request *, const char *name);  /* NULL: not there */
const char *request_header(const struct request *, const char *name); /* NULL: not there */
struct str request_body(const struct request *);
/* Who asks, for the log: "token", "uid=0", or the peer's address. */
const char *request_who(const struct request *);
/* gone(arg) is called where its peer is gone, or the agent stops, before it got a reply. */
void request_on_gone(struct request *, void (*gone)(void *arg), void *arg);

/* ---- replies: exactly one of these, once; the request is not to be touched after ---- */

/* `body` came from malloc(), and is taken over (NULL: no memory; the reply is 503 then). */
void request_reply(struct request *, int status, const char *type, char *body, size_t n);
/* 200 with HTML, and a Content-Security-Policy of its own: all else is no more than data. */
void request_reply_page(struct request *, char *body, size_t n, const char *policy);
/* Takes the reference. */
void request_reply_json(struct request *, int status, json_t *);
/* The same as application/problem+json, with members beyond RFC 9457's. */
void request_reply_problem(struct request *, int status, json_t *);
/* application/problem+json with that detail. */
void request_problem(struct request *, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A reply that goes on: bytes that are written to it reach the peer as they come. */
struct stream;
/* 200. `ended(arg)` is called once, when the peer is gone or the agent stops; the stream is no more
 * then. NULL: out of memory, and the request got a 503. */
struct stream *request_stream(
	struct request *, const char *type, void (*ended)(void *arg), void *arg);
/* false: no room, the peer does not read; nothing of it is sent. */
bool stream_write(struct stream *, const char *bytes, size_t n);
/* Its peer has closed its side; while nothing is written, nobody else finds out. Who writes
 * something then, and again, gets it ended. */
bool stream_is_left(const struct stream *);

#endif
