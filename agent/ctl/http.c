#include "ctl/http.h"

#include "base/str.h"
#include "config/json.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPLY_MAX = 64 * 1024 * 1024, EVENT_MAX = 64 * 1024 };

#define CONNECT_SECONDS 5L
#define ANSWER_SECONDS  10L
#define CHANGED_SECONDS 15L /* the agent may wait for its disk, or for Redis, for ten */

bool place_set(struct place *p, const char *text)
{
	int n;

	p->socket[0] = p->url[0] = '\0';
	if (text[0] == '/') {
		n = snprintf(p->socket, sizeof p->socket, "%s", text);
		(void)snprintf(p->url, sizeof p->url, "http://localhost");
		return n < (int)sizeof p->socket;
	}
	if (strstr(text, "://"))
		n = snprintf(p->url, sizeof p->url, "%s", text);
	else if (text[0] == ':' || strncmp(text, "*:", 2) == 0)
		n = snprintf(p->url, sizeof p->url, "http://127.0.0.1%s", strchr(text, ':'));
	else if (strncmp(text, "0.0.0.0:", 8) == 0)
		n = snprintf(p->url, sizeof p->url, "http://127.0.0.1%s", text + 7);
	else if (strncmp(text, "[::]:", 5) == 0)
		n = snprintf(p->url, sizeof p->url, "http://[::1]%s", text + 4);
	else
		n = snprintf(p->url, sizeof p->url, "http://%s", text);
	if (n >= (int)sizeof p->url)
		return false;
	while (n && p->url[n - 1] == '/')
		p->url[--n] = '\0';
	return true;
}

const char *place_text(const struct place *p)
{
	return p->socket[0] ? p->socket : p->url;
}

bool http_start(void)
{
	return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

void http_stop(void)
{
	curl_global_cleanup();
}

char *http_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0), *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}

/* ---- one exchange ---- */

struct exchange {
	CURL *curl;
	struct curl_slist *headers;
	char *body; /* malloc()ed by jansson */
	char why[CURL_ERROR_SIZE];
};

static void exchange_fini(struct exchange *x)
{
	curl_slist_free_all(x->headers);
	curl_easy_cleanup(x->curl);
	free(x->body);
}

static bool add_header(struct exchange *x, const char *line)
{
	struct curl_slist *more = curl_slist_append(x->headers, line);

	if (more)
		x->headers = more;
	return more;
}

static bool set_url(struct exchange *x, const struct place *p, const char *path)
{
	char *url;
	bool good = asprintf(&url, "%s%s", p->url, path) >= 0;

	if (!good)
		return false;
	good = curl_easy_setopt(x->curl, CURLOPT_URL, url) == CURLE_OK;
	free(url);
	return good;
}

/* The token goes in a header: nothing of it is ever in a process list. */
static bool exchange_init(struct exchange *x, const struct place *p, const char *method,
	const char *path, const json_t *body)
{
	char bearer[sizeof p->token + 32];

	*x = (struct exchange){ .curl = curl_easy_init() };
	if (!x->curl || !set_url(x, p, path))
		return false;
	(void)snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", p->token);
	if ((p->token[0] && !add_header(x, bearer)) || !add_header(x, "Accept: application/json") ||
		(body && !add_header(x, "Content-Type: application/json")))
		return false;
	x->body = body ? json_text(body, JSON_COMPACT) : strdup("");
	if (!x->body)
		return false;
	curl_easy_setopt(x->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(x->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(x->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(x->curl, CURLOPT_USERAGENT, "ratelimitctl");
	curl_easy_setopt(x->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	curl_easy_setopt(x->curl, CURLOPT_ERRORBUFFER, x->why);
	curl_easy_setopt(x->curl, CURLOPT_HTTPHEADER, x->headers);
	if (p->socket[0])
		curl_easy_setopt(x->curl, CURLOPT_UNIX_SOCKET_PATH, p->socket);
	if (strcmp(method, "GET") != 0) {
		curl_easy_setopt(x->curl, CURLOPT_POSTFIELDS, x->body);
		curl_easy_setopt(x->curl, CURLOPT_CUSTOMREQUEST, method);
	}
	return true;
}

struct room {
	char *bytes;
	size_t n, max;
	bool full;
};

static bool room_add(struct room *r, const char *bytes, size_t n)
{
	char *more = n <= r->max - r->n ? realloc(r->bytes, r->n + n + 1) : NULL;

	if (!more) {
		r->full = true;
		return false;
	}
	r->bytes = more;
	memcpy(r->bytes + r->n, bytes, n);
	r->n += n;
	r->bytes[r->n] = '\0';
	return true;
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *with)
{
	return room_add(with, bytes, size * n) ? size * n : 0;
}

/* false: nobody answered. */
static bool exchange_run(struct exchange *x, struct reply *reply, char *err, size_t err_size)
{
	CURLcode rc = curl_easy_perform(x->curl);

	curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &reply->status);
	if (rc == CURLE_OK)
		return true;
	long number = 0;
	curl_easy_getinfo(x->curl, CURLINFO_OS_ERRNO, &number);
	/* Of a socket libcurl speaks as of a port. */
	const char *why = rc == CURLE_COULDNT_CONNECT && number ? strerror((int)number) : x->why;
	(void)snprintf(err, err_size, "%s", why[0] ? why : curl_easy_strerror(rc));
	return false;
}

bool http_call(const struct place *p, const char *method, const char *path, const json_t *body,
	struct reply *reply, char *err, size_t err_size)
{
	struct exchange x;
	struct room room = { .max = REPLY_MAX };
	bool done = false;

	*reply = (struct reply){ 0 };
	if (!exchange_init(&x, p, method, path, body)) {
		(void)snprintf(err, err_size, "this is no address, or memory is out");
		goto end;
	}
	curl_easy_setopt(x.curl, CURLOPT_TIMEOUT,
		strcmp(method, "GET") == 0 || strcmp(path, "/api/v1/explain") == 0
			? ANSWER_SECONDS
			: CHANGED_SECONDS);
	curl_easy_setopt(x.curl, CURLOPT_WRITEFUNCTION, on_bytes);
	curl_easy_setopt(x.curl, CURLOPT_WRITEDATA, &room);
	done = exchange_run(&x, reply, err, err_size);
	if (done)
		reply->json = json_loadb(room.n ? room.bytes : "", room.n, 0, NULL);
end:
	free(room.bytes);
	exchange_fini(&x);
	return done;
}

/* ---- server-sent events ---- */

struct listening {
	CURL *curl;
	struct room line, data, other; /* `other`: what is no stream of events */
	char type[64];
	bool (*event)(void *with, const char *type, const char *data);
	void *with;
	bool ended; /* by `event` */
};

static bool on_field(struct listening *l, const char *line)
{
	if (strncmp(line, "event:", 6) == 0) {
		(void)snprintf(l->type, sizeof l->type, "%s", line + 6 + (line[6] == ' '));
	} else if (strncmp(line, "data:", 5) == 0) {
		line += 5 + (line[5] == ' ');
		return (!l->data.n || room_add(&l->data, "\n", 1)) &&
		       room_add(&l->data, line, strlen(line));
	} else if (!*line) {
		bool more = !l->data.n || l->event(l->with, l->type, l->data.bytes);
		l->ended = !more;
		l->data.n = 0;
		l->type[0] = '\0';
		return more;
	}
	return true; /* comments keep the connection alive; id and retry are for browsers */
}

static size_t on_stream(char *bytes, size_t size, size_t n, void *with)
{
	struct listening *l = with;
	long status = 0;

	n *= size;
	curl_easy_getinfo(l->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		return room_add(&l->other, bytes, n) ? n : 0;
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\r')
			continue;
		if (bytes[i] != '\n') {
			if (!room_add(&l->line, bytes + i, 1))
				return 0;
			continue;
		}
		if (!on_field(l, l->line.n ? l->line.bytes : ""))
			return 0;
		l->line.n = 0;
		if (l->line.bytes)
			l->line.bytes[0] = '\0';
	}
	return n;
}

bool http_events(const struct place *p, const char *path,
	bool (*event)(void *with, const char *type, const char *data), void *with,
	struct reply *reply, char *err, size_t err_size)
{
	struct exchange x;
	struct listening l = { .event = event, .with = with };
	bool done = false;

	l.line.max = l.data.max = l.other.max = EVENT_MAX;
	*reply = (struct reply){ 0 };
	if (!exchange_init(&x, p, "GET", path, NULL)) {
		(void)snprintf(err, err_size, "this is no address, or memory is out");
		goto end;
	}
	l.curl = x.curl;
	curl_easy_setopt(x.curl, CURLOPT_WRITEFUNCTION, on_stream);
	curl_easy_setopt(x.curl, CURLOPT_WRITEDATA, &l);
	done = exchange_run(&x, reply, err, err_size) || l.ended;
	if (done && reply->status != 200)
		reply->json = json_loadb(l.other.n ? l.other.bytes : "", l.other.n, 0, NULL);
end:
	free(l.line.bytes);
	free(l.data.bytes);
	free(l.other.bytes);
	exchange_fini(&x);
	return done;
}
