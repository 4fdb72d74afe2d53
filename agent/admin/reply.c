/* What a request gets: replies, problems, streams. */
#include "config/json.h"
#include "admin/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void put_header(struct MHD_Response *r, const char *name, const char *value)
{
	(void)MHD_add_response_header(r, name, value);
}

/* The Content-Security-Policy of all but the page. */
static const char data_only[] = "default-src 'none'; frame-ancestors 'none'";

/* The same for everything: nothing that is served here is to be framed, sniffed or kept. */
static void put_headers(struct MHD_Response *r, const char *type, const char *policy)
{
	put_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	put_header(r, "Content-Security-Policy", policy);
	put_header(r, "X-Content-Type-Options", "nosniff");
	put_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	put_header(r, "Referrer-Policy", "no-referrer");
	put_header(r, "Cross-Origin-Resource-Policy", "same-origin");
}

/* The daemon runs when a socket is ready, or some time is over; a connection that goes on is
 * neither (it has no descriptor of its own to tell its loop). */
void request_resume(struct request *r)
{
	struct http *http = r->http;
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->connection);
	http->woken = true;
	ev_timer_stop(http->settings.loop, &http->timer);
	ev_timer_set(&http->timer, 0., 0.);
	ev_timer_start(http->settings.loop, &http->timer);
}

static void set_response(struct request *r, int status, struct MHD_Response *response)
{
	r->response = response;
	r->status = status;
	r->gone = NULL;
	request_resume(r); /* where the handler kept it */
}

static struct MHD_Response *make_response(
	char *body, size_t n, const char *type, const char *policy)
{
	struct MHD_Response *response = body ? MHD_create_response_from_buffer(
						       n, body, MHD_RESPMEM_MUST_FREE)
					     : NULL;
	if (!response) {
		free(body);
		return NULL;
	}
	put_headers(response, type, policy);
	return response;
}

static void reply_no_memory(struct request *r)
{
	static const char text[] = "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\","
				   "\"status\":503,\"detail\":\"no memory\"}\n";
	struct MHD_Response *response = MHD_create_response_from_buffer(
		sizeof text - 1, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
	if (response)
		put_headers(response, "application/problem+json", data_only);
	set_response(r, 503, response);
}

static void reply(struct request *r, int status, struct MHD_Response *response)
{
	if (response)
		set_response(r, status, response);
	else
		reply_no_memory(r);
}

void request_reply(struct request *r, int status, const char *type, char *body, size_t n)
{
	reply(r, status, make_response(body, n, type, data_only));
}

void request_reply_page(struct request *r, char *body, size_t n, const char *policy)
{
	reply(r, 200, make_response(body, n, "text/html; charset=utf-8", policy));
}

/* With a newline at its end, for people. NULL: no memory. */
static char *dump(json_t *json, size_t *n)
{
	char *text = json ? json_text(json, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
	json_decref(json);
	if (!text)
		return NULL;
	*n = strlen(text);
	char *longer = realloc(text, *n + 2);
	if (!longer) {
		free(text);
		return NULL;
	}
	memcpy(longer + (*n)++, "\n", 2);
	return longer;
}

void request_reply_json(struct request *r, int status, json_t *json)
{
	size_t n = 0;
	char *text = dump(json, &n);
	request_reply(r, status, "application/json", text, n);
}

void request_reply_problem(struct request *r, int status, json_t *json)
{
	size_t n = 0;
	char *text = dump(json, &n);
	request_reply(r, status, "application/problem+json", text, n);
}

static const char *title_of(int status)
{
	const char *title = MHD_get_reason_phrase_for((unsigned)status);
	return title ? title : "Error";
}

void request_refuse(
	struct request *r, int status, const char *detail, const char *header, const char *value)
{
	size_t n = 0;
	char *text = dump(
		json_pack("{s:s, s:s, s:i, s:o}", "type", "about:blank", "title", title_of(status),
			"status", status, "detail", json_of(str_of(detail))),
		&n);
	struct MHD_Response *response = make_response(
		text, n, "application/problem+json", data_only);
	if (!response) {
		reply_no_memory(r);
		return;
	}
	if (header)
		put_header(response, header, value);
	set_response(r, status, response);
}

void request_problem(struct request *r, int status, const char *format, ...)
{
	char detail[1024];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	request_refuse(r, status, detail, NULL, NULL);
}

/* ---- streams ---- */

static ssize_t on_read(void *arg, uint64_t pos, char *out, size_t max)
{
	(void)pos;
	struct request *r = arg;
	struct stream *s = r->stream;
	if (!s)
		return MHD_CONTENT_READER_END_OF_STREAM;
	size_t n = s->n < max ? s->n : max;
	if (!n) {
		if (r->http->stopping)
			return MHD_CONTENT_READER_END_OF_STREAM;
		MHD_suspend_connection(r->connection); /* until stream_write() */
		r->suspended = true;
		return 0;
	}
	memcpy(out, s->bytes, n);
	memmove(s->bytes, s->bytes + n, s->n - n);
	s->n -= n;
	if (!s->n)
		peer_enter(r->peer, PEER_STREAM);
	return (ssize_t)n;
}

struct stream *request_stream(
	struct request *r, const char *type, void (*ended)(void *arg), void *arg)
{
	enum { BLOCK = 4096 };
	struct stream *s = malloc(sizeof *s);
	struct MHD_Response *response = s ? MHD_create_response_from_callback(
						    MHD_SIZE_UNKNOWN, BLOCK, on_read, r, NULL)
					  : NULL;
	if (!response) {
		free(s);
		reply_no_memory(r);
		return NULL;
	}
	s->request = r;
	s->ended = ended;
	s->arg = arg;
	s->n = 0;
	/* Not in chunks: libmicrohttpd 0.9.75 sends the last one behind a HEAD's headers, too, and
	 * who keeps the connection would read it as the beginning of the next answer. */
	if (r->head)
		(void)MHD_set_response_options(
			response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
	put_headers(response, type, data_only);
	r->stream = s;
	set_response(r, 200, response);
	return s;
}

bool stream_write(struct stream *s, const char *bytes, size_t n)
{
	if (n > sizeof s->bytes - s->n)
		return false;
	if (!s->n)
		peer_enter(s->request->peer, PEER_REPLY); /* its deadline: to be read */
	memcpy(s->bytes + s->n, bytes, n);
	s->n += n;
	/* Not the one that waits for its handler: its reply goes out first. */
	if (s->request->response)
		request_resume(s->request);
	return true;
}

bool stream_is_left(const struct stream *s)
{
	char byte;
	ssize_t n = recv(s->request->peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void request_end_stream(struct request *r)
{
	struct stream *s = r->stream;
	if (!s)
		return;
	r->stream = NULL;
	s->ended(s->arg);
	free(s);
}
