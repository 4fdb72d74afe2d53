/* Asking the agent over HTTP, by libcurl, which is seen only behind this header. */
#ifndef CTL_HTTP_H
#define CTL_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct place {
	char socket[128]; /* "": by TCP */
	char url[320];    /* without the path: "http://127.0.0.1:9601" */
	char token[260];  /* "": none */
};

/* From "/a/socket", "HOST:PORT" or a URL. An address that means all of this machine's is its
 * loopback. false: too long. */
bool place_set(struct place *, const char *text);
/* As a person would write it. */
const char *place_text(const struct place *);

struct reply {
	long status;  /* of HTTP */
	json_t *json; /* NULL: it is none. json_decref() it */
};

bool http_start(void);
void http_stop(void);

/* `body` may be NULL. false: `err` says why nobody answered. */
bool http_call(const struct place *, const char *method, const char *path, const json_t *body,
	struct reply *, char *err, size_t err_size);

/* Server-sent events: `event` is called for each with its type and data, until it returns false or
 * the agent ends it (true, with .status; where that is not 200, .json is what it said). */
bool http_events(const struct place *, const char *path,
	bool (*event)(void *with, const char *type, const char *data), void *with, struct reply *,
	char *err, size_t err_size);

/* `text` as part of a query. free() it; NULL: out of memory. */
char *http_escape(const char *text);

#endif
