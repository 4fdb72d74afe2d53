/* Requests over real sockets, with routes of the test's own: routing, replies that come later,
 * streams, bounds, the end. One thread: the client's side is looked at between turns of the loop.
 */
#include "admin/http.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define BOUND (20 * USEC_PER_SEC)
#define TOKEN "0123456789abcdef"

/* In the place of libc's: of this descriptor it refuses so many, as where no memory is left. */
static int refused_fd = -1;
static unsigned refusals;
static bool refuses_epoll; /* and of those that are epoll descriptors */

static bool is_epoll(int fd)
{
	char link[32], what[32] = "";
	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	return readlink(link, what, sizeof what - 1) > 0 && strstr(what, "eventpoll");
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	bool refused = fd == refused_fd || (refuses_epoll && is_epoll(fd));
	if (refused && op == EPOLL_CTL_ADD && refusals) {
		refusals--;
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

struct rig {
	struct ev_loop *loop;
	struct listeners listeners;
	struct listen_address address;
	struct http *http;
	const char *token;
	/* What handlers leave here. */
	struct request *kept;
	struct stream *stream;
	unsigned gone, ended, changed;
	size_t body_n;
};

static void on_hello(struct request *r)
{
	const char *name = request_query(r, "name");
	char *text = NULL;
	int n = asprintf(&text, "hello %s", name ? name : "you");
	request_reply(r, 200, "text/plain", text, (size_t)n);
}

static void on_change(struct request *r)
{
	struct rig *g = request_context(r);
	g->changed++;
	g->body_n = request_body(r).n;
	request_reply_json(r, 200, json_pack("{s:s}", "who", request_who(r)));
}

static void on_gone(void *arg)
{
	struct rig *g = arg;
	g->gone++;
	g->kept = NULL;
}

static void on_later(struct request *r)
{
	struct rig *g = request_context(r);
	g->kept = r;
	request_on_gone(r, on_gone, g);
}

static void on_ended(void *arg)
{
	struct rig *g = arg;
	g->ended++;
	g->stream = NULL;
}

static void on_stream(struct request *r)
{
	struct rig *g = request_context(r);
	g->stream = request_stream(r, "text/event-stream", on_ended, g);
}

static const struct route routes[] = {
	{ METHOD_GET, "/hello", RIGHT_READ, on_hello, "" },
	{ METHOD_PUT, "/hello", RIGHT_CHANGE, on_change, "" },
	{ METHOD_DELETE, "/hello", RIGHT_CHANGE, on_change, "" },
	{ METHOD_GET, "/later", RIGHT_READ, on_later, "" },
	{ METHOD_GET, "/stream", RIGHT_READ, on_stream, "" },
};

static const char *token_of(void *context)
{
	return ((struct rig *)context)->token;
}

static int setup(void **state)
{
	struct rig *g = calloc(1, sizeof *g);
	char err[512];
	assert_non_null(g);
	g->token = "";
	g->loop = ev_loop_new(EVFLAG_AUTO);
	g->address = (struct listen_address){ .is_unix = true };
	(void)snprintf(g->address.text, sizeof g->address.text, "/tmp/test-http-%d.sock", getpid());
	struct listen_plan plan = { "admin", &g->address, 1, 0600, "", "", NULL, false };
	if (!listeners_open(&g->listeners, &plan, err, sizeof err))
		fail_msg("%s", err);
	g->http = http_new(&(struct http_settings){ .loop = g->loop,
		.listeners = &g->listeners,
		.address = &g->address,
		.route = routes,
		.route_n = sizeof routes / sizeof *routes,
		.token = token_of,
		.context = g });
	assert_non_null(g->http);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct rig *g = *state;
	http_free(g->http);
	listeners_close(&g->listeners);
	ev_loop_destroy(g->loop);
	free(g);
	return 0;
}

static int dial(struct rig *g)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	memcpy(to.sun_path, g->address.text, strlen(g->address.text) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	return fd;
}

static void turn(struct rig *g)
{
	ev_run(g->loop, EVRUN_NOWAIT);
	(void)usleep(200);
}

static void say(struct rig *g, int fd, const char *text)
{
	size_t n = strlen(text);
	while (n) {
		ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
		if (sent > 0) {
			text += sent;
			n -= (size_t)sent;
		} else if (errno != EAGAIN) {
			return;
		}
		turn(g);
	}
}

/* Reads on until `text` holds `wanted`, or (NULL) the other side has closed. */
static bool hear(struct rig *g, int fd, char *text, size_t size, const char *wanted)
{
	usec_t end = clock_steady() + BOUND;
	size_t n = strlen(text);
	while (clock_steady() < end) {
		if (wanted && strstr(text, wanted))
			return true;
		ssize_t got = recv(fd, text + n, size - n - 1, 0);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			return !wanted;
		if (got > 0)
			text[n += (size_t)got] = '\0';
		turn(g);
	}
	return false;
}

static void ask(struct rig *g, const char *request, const char *wanted)
{
	char text[4096] = "";
	int fd = dial(g);
	say(g, fd, request);
	if (!hear(g, fd, text, sizeof text, wanted))
		fail_msg("%s\ngot\n%s\nand not\n%s", request, text, wanted);
	(void)close(fd);
	turn(g);
}

#define HTTP " HTTP/1.1\r\nHost: x\r\n"

static void routing(void **state)
{
	struct rig *g = *state;
	ask(g, "GET /hello" HTTP "\r\n", "\r\n\r\nhello you");
	ask(g, "GET /hello?name=ann%20b" HTTP "\r\n", "\r\n\r\nhello ann b");
	ask(g, "HEAD /hello" HTTP "Connection: close\r\n\r\n", "Content-Length: 9\r\n");
	ask(g, "GET http://x:9601/hello?name=ann" HTTP "\r\n", "\r\n\r\nhello ann");
	ask(g, "GET HTTP://x/hell" HTTP "\r\n", "there is no /hell here");
	ask(g, "GET http://x" HTTP "\r\n", "there is no / here");
	ask(g, "GET /hell" HTTP "\r\n", "there is no /hell here");
	ask(g, "GET /hello/" HTTP "\r\n", "HTTP/1.1 404 ");
	ask(g, "GET /%ff" HTTP "\r\n", "HTTP/1.1 404 ");
	/* A text ends at a NUL: it must not pass for what stands before. */
	ask(g, "GET /%ff%00" HTTP "\r\n", "HTTP/1.1 400 ");
	ask(g, "GET /hello%00/../x" HTTP "\r\n", "HTTP/1.1 400 ");
	ask(g, "GET /hello?name=ann%00b" HTTP "\r\n", "HTTP/1.1 400 ");
	ask(g, "GET /hello?name=%00" HTTP "\r\n", "HTTP/1.1 400 ");
	ask(g, "GET /hello?name%00=ann" HTTP "\r\n", "HTTP/1.1 400 ");
	ask(g, "GET /hello?x%00&name=ann" HTTP "\r\n", "HTTP/1.1 400 ");
	ask(g, "GET /hello?name=%2500" HTTP "\r\n", "\r\n\r\nhello %00");
	ask(g, "GET /hello?name=%00" HTTP "\r\nGET /hello?name=ann" HTTP "\r\n",
		"\r\n\r\nhello ann"); /* the next one of the same connection */
	ask(g, "POST /hello" HTTP "\r\n", "Allow: GET, HEAD, PUT, DELETE\r\n");
	ask(g, "OPTIONS /later" HTTP "\r\n", "Allow: GET, HEAD\r\n");
	ask(g, "BREW /hello" HTTP "\r\n", "HTTP/1.1 405 ");
	ask(g, "GET /hello" HTTP "\r\n", "Content-Security-Policy: default-src 'none'");
	ask(g, "GET /hell" HTTP "\r\n", "Content-Type: application/problem+json\r\n");
}

static void changes(void **state)
{
	struct rig *g = *state;
	char who[64];
	(void)snprintf(who, sizeof who, "\"uid=%u\"", (unsigned)getuid());
	ask(g, "DELETE /hello" HTTP "\r\n", who);
	assert_int_equal(g->changed, 1);
	ask(g, "PUT /hello" HTTP "Content-Length: 2\r\n\r\n{}", "HTTP/1.1 415 ");
	ask(g, "PUT /hello" HTTP "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 415 ");
	ask(g, "PUT /hello" HTTP "Content-Type: application/jsonp\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 415 ");
	/* Nor where it does not say how long it is; who only reads may send what he likes. */
	ask(g, "PUT /hello" HTTP "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"HTTP/1.1 415 ");
	ask(g, "GET /hello" HTTP "Content-Length: 2\r\n\r\n{}", "hello you");
	assert_int_equal(g->changed, 1);
	ask(g, "DELETE /hello" HTTP "Origin: http://evil.example\r\n\r\n", "HTTP/1.1 403 ");
	g->token = TOKEN;
	ask(g, "DELETE /hello" HTTP "\r\n", "WWW-Authenticate: Bearer");
	assert_int_equal(g->changed, 1);
	ask(g, "DELETE /hello" HTTP "Authorization: Bearer " TOKEN "\r\n\r\n", "\"token\"");
	assert_int_equal(g->changed, 2);
	ask(g,
		"PUT /hello" HTTP "Authorization: Bearer " TOKEN
		"\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 ");
	assert_int_equal(g->body_n, 2);
	ask(g,
		"PUT /hello" HTTP "Authorization: Bearer " TOKEN
		"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
		"3\r\n[1,\r\n4\r\n2  ]\r\n0\r\n\r\n",
		"HTTP/1.1 200 ");
	assert_int_equal(g->body_n, 7);
}

/* Whoever sends headers and body apart gets a refusal all the same, and may go on. */
static void refusals_come_after_the_body(void **state)
{
	struct rig *g = *state;
	static const struct {
		const char *token, *headers, *wanted;
	} row[] = {
		{ TOKEN, "Content-Type: application/json\r\n", "HTTP/1.1 401 " },
		{ "", "Content-Type: application/json\r\nOrigin: http://x.example\r\n",
			"HTTP/1.1 403 " },
		{ "", "Content-Type: text/plain\r\n", "HTTP/1.1 415 " },
		{ "", "Content-Type: application/json\r\n", "HTTP/1.1 413 " },
	};
	enum { LENGTH = 3 * HTTP_BODY_MAX / 2 };
	char *body = malloc(LENGTH + 1);
	assert_non_null(body);
	memset(body, ' ', LENGTH);
	for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
		char text[4096] = "", head[512];
		unsigned n = i == 3 ? LENGTH : HTTP_BODY_MAX;
		int fd = dial(g);
		g->token = row[i].token;
		(void)snprintf(head, sizeof head, "PUT /hello" HTTP "%sContent-Length: %u\r\n\r\n",
			row[i].headers, n);
		say(g, fd, head);
		for (unsigned k = 0; k < 20; k++)
			turn(g);
		assert_int_equal(recv(fd, text, sizeof text - 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
		body[n] = '\0';
		say(g, fd, body);
		body[n] = ' ';
		assert_true(hear(g, fd, text, sizeof text, row[i].wanted));
		g->token = "";
		say(g, fd, "GET /hello" HTTP "\r\n");
		assert_true(hear(g, fd, text, sizeof text, "hello you"));
		(void)close(fd);
	}
	/* Nor is more thrown away than that where nothing says how long it is, refused or too long.
	 */
	body[HTTP_BODY_MAX] = '\0';
	for (unsigned i = 0; i < 2; i++) {
		char chunk[16];
		int fd = dial(g);
		g->token = i ? "" : TOKEN;
		say(g, fd,
			"PUT /hello" HTTP "Content-Type: application/json\r\n"
			"Transfer-Encoding: chunked\r\n\r\n");
		(void)snprintf(chunk, sizeof chunk, "%x\r\n", HTTP_BODY_MAX);
		for (unsigned k = 0; k < HTTP_BODY_REFUSED_MAX / HTTP_BODY_MAX + 4; k++) {
			say(g, fd, chunk);
			say(g, fd, body);
			say(g, fd, "\r\n");
		}
		assert_int_equal(send(fd, "0", 1, MSG_NOSIGNAL), -1);
		assert_int_equal(errno, EPIPE);
		(void)close(fd);
	}
	g->token = "";
	free(body);
	assert_int_equal(g->changed, 0);
	/* Who asks before, or would send far too much, is told at once. */
	ask(g, "PUT /hello" HTTP "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
		"HTTP/1.1 415 ");
	ask(g, "PUT /hello" HTTP "Content-Length: 1048577\r\n\r\n", "HTTP/1.1 413 ");
}

static void bounds(void **state)
{
	struct rig *g = *state;
	enum { LONG = 2 * HTTP_BODY_MAX };
	char *text = malloc(LONG + 512);
	assert_non_null(text);
	/* As long as may be, and one more, without saying so before. */
	for (unsigned more = 0; more < 2; more++) {
		int n = sprintf(text,
			"PUT /hello" HTTP "Content-Type: application/json\r\n"
			"Transfer-Encoding: chunked\r\n\r\n%x\r\n",
			HTTP_BODY_MAX + more);
		memset(text + n, 'x', HTTP_BODY_MAX + more);
		(void)strcpy(text + n + HTTP_BODY_MAX + more, "\r\n0\r\n\r\n");
		ask(g, text, more ? "HTTP/1.1 413 " : "HTTP/1.1 200 ");
	}
	assert_int_equal(g->body_n, HTTP_BODY_MAX);
	assert_int_equal(g->changed, 1);
	int n = sprintf(text, "GET /hello" HTTP "X: ");
	memset(text + n, 'x', LONG);
	(void)strcpy(text + n + LONG, "\r\n\r\n");
	ask(g, text, "HTTP/1.1 431 ");
	n = sprintf(text, "GET /");
	memset(text + n, 'x', LONG);
	(void)strcpy(text + n + LONG, HTTP "\r\n");
	ask(g, text, "HTTP/1.1 414 ");
	free(text);
}

static void later(void **state)
{
	struct rig *g = *state;
	char text[4096] = "";
	int fd = dial(g);
	say(g, fd, "GET /later" HTTP "\r\n");
	while (!g->kept)
		turn(g);
	for (int i = 0; i < 20; i++)
		turn(g);
	assert_int_equal(recv(fd, text, sizeof text, 0), -1);
	ask(g, "GET /hello" HTTP "\r\n", "hello"); /* others are served meanwhile */
	request_reply_json(g->kept, 200, json_pack("{s:i}", "answer", 42));
	assert_true(hear(g, fd, text, sizeof text, "\"answer\": 42"));
	/* The connection goes on. */
	say(g, fd, "GET /hello" HTTP "\r\n");
	assert_true(hear(g, fd, text, sizeof text, "hello you"));
	assert_int_equal(g->gone, 0);
	(void)close(fd);
}

static void stopped_before_the_reply(void **state)
{
	struct rig *g = *state;
	char text[4096] = "";
	int fd = dial(g), waiting = dial(g);
	say(g, fd, "GET /later" HTTP "\r\n");
	say(g, waiting, "GET /stream" HTTP "\r\n");
	while (!g->kept || !g->stream)
		turn(g);
	http_free(g->http);
	g->http = NULL;
	assert_int_equal(g->gone, 1);
	assert_int_equal(g->ended, 1);
	assert_true(hear(g, fd, text, sizeof text, "HTTP/1.1 503 "));
	(void)close(fd);
	(void)close(waiting);
}

static void streams(void **state)
{
	struct rig *g = *state;
	char text[4096] = "";
	int fd = dial(g);
	say(g, fd, "GET /stream" HTTP "\r\n");
	assert_true(hear(g, fd, text, sizeof text, "\r\n\r\n"));
	while (!g->stream)
		turn(g);
	assert_true(stream_write(g->stream, "one", 3));
	assert_true(hear(g, fd, text, sizeof text, "one"));
	assert_true(stream_write(g->stream, "two", 3));
	assert_true(hear(g, fd, text, sizeof text, "two"));
	/* Who does not read gets no more than there is room for. */
	static char block[8192];
	memset(block, 'x', sizeof block);
	unsigned blocks = 0;
	while (stream_write(g->stream, block, sizeof block) && ++blocks < 100000)
		turn(g);
	assert_true(blocks < 100000);
	assert_int_equal(g->ended, 0);
	(void)close(fd);
	usec_t end = clock_steady() + BOUND;
	while (!g->ended && clock_steady() < end) {
		if (g->stream)
			(void)stream_write(g->stream, "x", 1);
		turn(g);
	}
	assert_int_equal(g->ended, 1);
}

/* What stood behind the headers, as the last chunk, would be read as the next answer. */
static void a_stream_by_head_is_headers_alone(void **state)
{
	struct rig *g = *state;
	char text[4096] = "";
	int fd = dial(g);
	say(g, fd, "HEAD /stream" HTTP "Connection: close\r\n\r\n");
	assert_true(hear(g, fd, text, sizeof text, NULL));
	assert_non_null(strstr(text, "text/event-stream"));
	assert_null(strstr(text, "chunked"));
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
	(void)close(fd);
}

static void many_connections(void **state)
{
	struct rig *g = *state;
	enum { MANY = 3 * HTTP_CONNECTIONS_MAX };
	int fd[MANY];
	/* Who is there and asks nothing keeps nobody out. */
	for (int i = 0; i < MANY; i++) {
		fd[i] = dial(g);
		if (i % 3 == 0)
			say(g, fd[i], "GET /hel");
		turn(g);
		assert_true(http_connections(g->http) <= HTTP_CONNECTIONS_MAX);
	}
	ask(g, "GET /hello" HTTP "\r\n", "hello you");
	for (int i = 0; i < MANY; i++)
		(void)close(fd[i]);
	usec_t end = clock_steady() + BOUND;
	while (http_connections(g->http) && clock_steady() < end)
		turn(g);
	assert_int_equal(http_connections(g->http), 0);
	ask(g, "GET /hello" HTTP "\r\n", "hello you");
}

/* Nor does who is refused, and does not send the body that is read first: before their time is
 * over, which would end all of them. */
static void refused_in_every_place(void **state)
{
	struct rig *g = *state;
	int fd[HTTP_CONNECTIONS_MAX];

	for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
		fd[i] = dial(g);
		say(g, fd[i], "POST /change" HTTP "Content-Length: 10\r\n\r\n");
	}
	while (http_requests(g->http) < HTTP_CONNECTIONS_MAX)
		turn(g);
	ask(g, "GET /hello" HTTP "\r\n", "hello you");
	int left = 0;
	for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
		char byte;
		left += recv(fd[i], &byte, 1, 0) < 0 && errno == EAGAIN;
		(void)close(fd[i]);
	}
	assert_true(left > HTTP_CONNECTIONS_MAX / 2);
}

/* It is tried again, by and by. */
static void a_listener_that_cannot_be_watched(void **state)
{
	struct rig *g = *state;
	refused_fd = g->listeners.at[0].fd;
	refusals = 2;
	ask(g, "GET /hello" HTTP "\r\n", "\r\n\r\nhello you");
	assert_int_equal(refusals, 0);
	refused_fd = -1;
}

static void a_daemon_that_cannot_be_watched(void **state)
{
	refuses_epoll = true;
	refusals = 2;
	ask(*state, "GET /hello" HTTP "\r\n", "\r\n\r\nhello you");
	assert_int_equal(refusals, 0);
	refuses_epoll = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(routing, setup, teardown),
		cmocka_unit_test_setup_teardown(changes, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_come_after_the_body, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(later, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_before_the_reply, setup, teardown),
		cmocka_unit_test_setup_teardown(streams, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stream_by_head_is_headers_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(many_connections, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_in_every_place, setup, teardown),
		cmocka_unit_test_setup_teardown(a_listener_that_cannot_be_watched, setup, teardown),
		cmocka_unit_test_setup_teardown(a_daemon_that_cannot_be_watched, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
