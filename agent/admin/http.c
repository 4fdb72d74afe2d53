#include "admin/http.h"

#include "admin/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const double WATCH_AGAIN_AFTER = 0.2; /* seconds */

/* ---- requests ---- */

void *request_context(const struct request *r)
{
	return r->http->settings.context;
}

const struct http_settings *request_settings(const struct request *r)
{
	return &r->http->settings;
}

const char *request_query(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *request_header(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

struct str request_body(const struct request *r)
{
	return (struct str){ r->body, r->body_n };
}

const char *request_who(const struct request *r)
{
	return r->by_token ? "token" : r->peer->who;
}

void request_on_gone(struct request *r, void (*gone)(void *arg), void *arg)
{
	r->gone = gone;
	r->gone_arg = arg;
}

static struct request *request_new(struct http *http, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct request *r = info && info->socket_context ? calloc(1, sizeof *r) : NULL;
	if (!r)
		return NULL;
	r->http = http;
	r->connection = connection;
	r->peer = info->socket_context;
	r->next = http->head;
	r->link = &http->head;
	if (r->next)
		r->next->link = &r->next;
	http->head = r;
	http->requests++;
	return r;
}

static void request_free(struct request *r)
{
	if (r->gone)
		r->gone(r->gone_arg);
	request_end_stream(r);
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	if (r->response)
		MHD_destroy_response(r->response);
	if (r->body)
		explicit_bzero(r->body, r->body_n); /* keys may be in it */
	free(r->body);
	free(r);
}

/* The methods of a path, for Allow; how many there are. */
static unsigned methods_of(const struct http_settings *s, const char *path, char *out, size_t size)
{
	static const char *const name[] = { "GET, HEAD", "POST", "PUT", "DELETE" };
	unsigned n = 0;
	out[0] = '\0';
	for (unsigned i = 0; i < s->route_n; i++) {
		if (strcmp(s->route[i].path, path) != 0)
			continue;
		size_t used = strlen(out);
		(void)snprintf(
			out + used, size - used, "%s%s", n++ ? ", " : "", name[s->route[i].method]);
	}
	return n;
}

static enum method method_of(const char *name)
{
	if (strcmp(name, "GET") == 0 || strcmp(name, "HEAD") == 0)
		return METHOD_GET;
	if (strcmp(name, "POST") == 0)
		return METHOD_POST;
	if (strcmp(name, "PUT") == 0)
		return METHOD_PUT;
	return strcmp(name, "DELETE") == 0 ? METHOD_DELETE : METHOD_OTHER;
}

static const struct route *find_route(
	const struct http_settings *s, const char *path, enum method method)
{
	for (unsigned i = 0; i < s->route_n; i++)
		if (s->route[i].method == method && strcmp(s->route[i].path, path) == 0)
			return &s->route[i];
	return NULL;
}

/* Also where there is no such route: who may not read learns nothing of what there is. */
static bool may(struct request *r, const struct route *route, bool safe)
{
	const struct http_settings *s = &r->http->settings;
	struct guard_verdict v = guard_check(&(struct guard_request){
		.right = route ? route->right : RIGHT_READ,
		.safe = safe,
		.is_unix = r->peer->is_unix,
		.is_local = r->peer->is_local,
		.host = request_header(r, MHD_HTTP_HEADER_HOST),
		.origin = request_header(r, MHD_HTTP_HEADER_ORIGIN),
		.fetch_site = request_header(r, "Sec-Fetch-Site"),
		.authorization = request_header(r, MHD_HTTP_HEADER_AUTHORIZATION),
		.token = s->token(s->context),
		.listen_host = r->peer->listen_host,
	});
	r->by_token = v.by_token;
	if (!v.status)
		return true;
	if (v.status == 401)
		log_warning_every(USEC_PER_SEC, "admin_refused", KV_Z("peer", r->peer->who),
			KV_Z("why", v.detail));
	request_refuse(r, v.status, v.detail, v.status == 401 ? "WWW-Authenticate" : NULL,
		"Bearer realm=\"spoa-ratelimit\"");
	return false;
}

static bool is_json(const char *type)
{
	static const char json[] = "application/json";
	return type && strncasecmp(type, json, sizeof json - 1) == 0 &&
	       strchr("; \t", type[sizeof json - 1]);
}

/* Bytes that its headers announce; UINT64_MAX: as many as will come. */
static uint64_t body_length(const struct request *r)
{
	const char *length = request_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
	if (request_header(r, MHD_HTTP_HEADER_TRANSFER_ENCODING))
		return UINT64_MAX;
	return length ? strtoull(length, NULL, 10) : 0;
}

/* Is its body, if it has one, of the only kind there is, and not too long? */
static bool check_body(struct request *r, bool safe)
{
	uint64_t n = body_length(r);
	if (n > HTTP_BODY_MAX && n != UINT64_MAX)
		request_problem(r, 413, "the body is longer than %d bytes", HTTP_BODY_MAX);
	else if (n && !safe && !is_json(request_header(r, MHD_HTTP_HEADER_CONTENT_TYPE)))
		request_problem(r, 415, "bodies are Content-Type: application/json here");
	else
		return true;
	return false;
}

/* Of a target in absolute form (RFC 9112, 3.2.2), which a proxy may send; `Host` is judged all the
 * same. */
static const char *path_of(const char *target)
{
	static const char scheme[] = "http://";

	if (strncasecmp(target, scheme, sizeof scheme - 1) != 0)
		return target;
	target = strchr(target + sizeof scheme - 1, '/');
	return target ? target : "/";
}

/* The headers are there. It may have a reply after this. */
static void judge(struct request *r, const char *path, const char *method_name)
{
	const struct http_settings *s = &r->http->settings;
	enum method method = method_of(method_name);
	const struct route *route = find_route(s, path, method);
	bool says_nul = r->peer->says_nul;
	char allow[64];

	r->peer->says_nul = false;
	if (!may(r, route, method == METHOD_GET))
		return;
	if (says_nul) {
		request_problem(r, 400, "%%00: nothing here has a NUL in its name");
	} else if (!route && methods_of(s, path, allow, sizeof allow)) {
		char detail[160];
		(void)snprintf(detail, sizeof detail, "this path knows %s", allow);
		request_refuse(r, 405, detail, MHD_HTTP_HEADER_ALLOW, allow);
	} else if (!route) {
		request_problem(
			r, 404, "there is no %.200s here: GET /api/v1 tells what there is", path);
	} else if (check_body(r, method == METHOD_GET)) {
		r->route = route;
	}
}

/* false: so much that it is not waited for any longer. */
static bool throw_away(struct request *r, size_t n)
{
	r->thrown_n += n;
	return r->thrown_n <= HTTP_BODY_REFUSED_MAX;
}

static bool take_body(struct request *r, const char *bytes, size_t n)
{
	if (r->too_long || n > HTTP_BODY_MAX - r->body_n) {
		r->too_long = true;
		return throw_away(r, n);
	}
	char *longer = malloc(r->body_n + n + 1);
	if (!longer)
		return false;
	if (r->body_n)
		memcpy(longer, r->body, r->body_n);
	memcpy(longer + r->body_n, bytes, n);
	longer[r->body_n + n] = '\0';
	if (r->body)
		explicit_bzero(r->body, r->body_n);
	free(r->body);
	r->body = longer;
	r->body_n += n;
	return true;
}

/* All of it is there. */
static void ask_handler(struct request *r)
{
	r->asked = true;
	peer_enter(r->peer, PEER_REPLY);
	if (r->too_long)
		request_problem(r, 413, "the body is longer than %d bytes", HTTP_BODY_MAX);
	else if (r->http->stopping) /* nobody would reply later */
		request_problem(r, 503, "the agent stops");
	else
		r->route->handle(r);
	if (r->response || r->status)
		return;
	MHD_suspend_connection(r->connection); /* until it has a reply */
	r->suspended = true;
}

static enum MHD_Result send_reply(struct request *r)
{
	if (r->stream)
		peer_enter(r->peer, PEER_STREAM);
	else
		peer_enter(r->peer, PEER_REPLY);
	return r->response ? MHD_queue_response(r->connection, (unsigned)r->status, r->response)
			   : MHD_NO;
}

/* A refusal: is its body read first, and thrown away? Who is answered earlier finds the connection
 * closed while he still sends, and may never see why (UNIX sockets: EPIPE, and what was received is
 * lost). Not the body of one who asks before he sends it, nor one that is far too long; then the
 * connection goes with it. */
static bool reads_first(const struct request *r)
{
	uint64_t n = body_length(r);

	return !request_header(r, MHD_HTTP_HEADER_EXPECT) &&
	       (n <= HTTP_BODY_REFUSED_MAX || n == UINT64_MAX);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_n, void **state)
{
	(void)version;
	struct request *r = *state;
	if (!r) {
		r = *state = request_new(arg, connection);
		if (!r)
			return MHD_NO;
		r->head = strcmp(method, "HEAD") == 0;
		peer_enter(r->peer, PEER_BODY);
		judge(r, path_of(url), method);
		if (!r->status)
			return MHD_YES;
		peer_enter(r->peer, PEER_REFUSED);
		return reads_first(r) ? MHD_YES : send_reply(r);
	}
	if (*upload_n) {
		bool go_on = r->status ? throw_away(r, *upload_n)
				       : r->route && take_body(r, upload, *upload_n);
		*upload_n = 0;
		return go_on ? MHD_YES : MHD_NO;
	}
	if (!r->asked && r->route)
		ask_handler(r);
	return r->status ? send_reply(r) : MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
	enum MHD_RequestTerminationCode code)
{
	(void)arg;
	(void)connection;
	(void)code;
	struct request *r = *state;
	*state = NULL;
	if (!r)
		return;
	peer_enter(r->peer, PEER_IDLE);
	request_free(r);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
	enum MHD_ConnectionNotificationCode code)
{
	(void)connection;
	struct http *http = arg;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*context = http->adding;
		http->adding = NULL;
	} else if (*context) {
		peer_free(*context);
		*context = NULL;
	}
}

/* Of a path, and of each name and value of a query, before on_request(): a text would end at a NUL
 * in it, and pass for what stands before. */
static size_t unescape(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct peer *peer = info ? info->socket_context : NULL;
	size_t n = MHD_http_unescape(text);
	if (peer && strlen(text) != n)
		peer->says_nul = true;
	return n;
}

/* ---- the loop ---- */

static void on_log(void *arg, const char *format, va_list args)
{
	(void)arg;
	char text[256];
	if (!log_enabled(LOG_LEVEL_DEBUG))
		return;
	(void)vsnprintf(text, sizeof text, format, args);
	text[strcspn(text, "\r\n")] = '\0';
	log_debug("admin_http", KV_Z("text", text));
}

static void run(struct http *http)
{
	MHD_UNSIGNED_LONG_LONG ms = 0;
	http->woken = false;
	(void)MHD_run(http->daemon);
	ev_timer_stop(http->settings.loop, &http->timer);
	if (http->woken || MHD_get_timeout(http->daemon, &ms) == MHD_YES) {
		ev_timer_set(&http->timer, (double)ms / 1000., 0.);
		ev_timer_start(http->settings.loop, &http->timer);
	}
}

static void on_io(struct ev_loop *loop, ev_io *io, int revents)
{
	struct http *http = io->data;
	if (revents & EV_ERROR) { /* epoll_ctl() refused: the loop has stopped to watch it */
		log_warning_every(10 * USEC_PER_SEC, "not_watched", KV_Z("for", "admin"),
			KV_Z("hint", "no memory, or more than fs.epoll.max_user_watches"));
		ev_timer_start(loop, &http->watch_again);
		return;
	}
	run(http);
}

static void on_watch_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)revents;
	ev_io_start(loop, &((struct http *)timer->data)->io);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	run(timer->data);
}

static bool take_connection(
	void *arg, struct peer *p, int fd, const struct sockaddr *from, socklen_t from_n)
{
	struct http *http = arg;
	http->adding = p;
	bool taken = MHD_add_connection(http->daemon, fd, from, from_n) == MHD_YES;
	if (http->adding) { /* it never got there */
		http->adding = NULL;
		peer_free(p);
	}
	return taken;
}

/* One thread has all of it. Newer releases, if not told so, take a connection that they are given
 * into account only when they run next. */
#if MHD_VERSION >= 0x00097707
#define ONE_THREAD MHD_USE_NO_THREAD_SAFETY
#else
#define ONE_THREAD 0
#endif

struct http *http_new(const struct http_settings *settings)
{
	struct http *http = calloc(1, sizeof *http);
	if (!http)
		return NULL;
	http->settings = *settings;
	http->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
						MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
						ONE_THREAD,
		0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, http,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADERS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
		on_connection, http, MHD_OPTION_END);
	const union MHD_DaemonInfo *info = http->daemon ? MHD_get_daemon_info(http->daemon,
								  MHD_DAEMON_INFO_EPOLL_FD)
							: NULL;
	if (!info) {
		if (http->daemon)
			MHD_stop_daemon(http->daemon);
		free(http);
		return NULL;
	}
	ev_io_init(&http->io, on_io, info->epoll_fd, EV_READ);
	ev_timer_init(&http->timer, on_timer, 0., 0.);
	ev_timer_init(&http->watch_again, on_watch_again, WATCH_AGAIN_AFTER, 0.);
	http->io.data = http->timer.data = http->watch_again.data = http;
	ev_set_priority(&http->io, -1);
	ev_io_start(settings->loop, &http->io);
	peers_init(&http->peers, settings);
	http->peers.take = take_connection;
	http->peers.arg = http;
	return http;
}

/* The daemon wants nothing suspended at its end. */
static void release_all(struct http *http)
{
	for (struct request *r = http->head; r; r = r->next) {
		void (*gone)(void *) = r->gone;
		r->gone = NULL;
		if (gone)
			gone(r->gone_arg);
		if (r->asked && !r->status)
			request_problem(r, 503, "the agent stops");
		else
			request_resume(r);
	}
}

void http_free(struct http *http)
{
	if (!http)
		return;
	http->stopping = true;
	peers_stop(&http->peers);
	release_all(http);
	run(http); /* what is ready goes out */
	ev_io_stop(http->settings.loop, &http->io);
	ev_timer_stop(http->settings.loop, &http->timer);
	ev_timer_stop(http->settings.loop, &http->watch_again);
	MHD_stop_daemon(http->daemon);
	free(http);
}

unsigned http_connections(const struct http *http)
{
	return http->peers.n;
}

uint64_t http_requests(const struct http *http)
{
	return http->requests;
}
