/* Who may do what, as a table. */
#include "admin/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TOKEN  "0123456789abcdef"
#define BEARER "Bearer " TOKEN

enum from { SOCKET, LOOPBACK, OUTSIDE };

static void rights(void **state)
{
	(void)state;
	static const struct {
		const char *title;
		enum from from;
		enum right right;
		bool safe;
		const char *token, *authorization;
		int status;
	} row[] = {
		{ "anyone, from outside", OUTSIDE, RIGHT_ANYONE, true, TOKEN, NULL, 0 },
		{ "with a wrong token", OUTSIDE, RIGHT_ANYONE, true, TOKEN, "Bearer x", 0 },
		{ "reading from outside", OUTSIDE, RIGHT_READ, true, TOKEN, NULL, 401 },
		{ "with the token", OUTSIDE, RIGHT_READ, true, TOKEN, BEARER, 0 },
		{ "without one configured", OUTSIDE, RIGHT_READ, true, "", NULL, 401 },
		{ "an empty one is none", OUTSIDE, RIGHT_READ, true, "", "Bearer ", 401 },
		{ "reading on loopback", LOOPBACK, RIGHT_READ, true, TOKEN, NULL, 0 },
		{ "with a wrong token", LOOPBACK, RIGHT_READ, true, TOKEN, "Bearer x", 401 },
		{ "where none is wanted", LOOPBACK, RIGHT_READ, true, "", "Bearer x", 0 },
		{ "asking by POST on loopback", LOOPBACK, RIGHT_READ, false, "", NULL, 0 },
		{ "changing on loopback", LOOPBACK, RIGHT_CHANGE, false, TOKEN, NULL, 401 },
		{ "with the token", LOOPBACK, RIGHT_CHANGE, false, TOKEN, BEARER, 0 },
		{ "with a longer one", LOOPBACK, RIGHT_CHANGE, false, TOKEN, BEARER "0", 401 },
		{ "with a shorter one", LOOPBACK, RIGHT_CHANGE, false, TOKEN,
			"Bearer 0123456789abcde", 401 },
		{ "by another scheme", LOOPBACK, RIGHT_CHANGE, false, TOKEN, "Basic " TOKEN, 401 },
		{ "of as many letters", LOOPBACK, RIGHT_CHANGE, false, TOKEN, "Digest " TOKEN,
			401 },
		{ "the scheme in any case", LOOPBACK, RIGHT_CHANGE, false, TOKEN, "bEARER  " TOKEN,
			0 },
		{ "without one configured", LOOPBACK, RIGHT_CHANGE, false, "", NULL, 403 },
		{ "and none shown", LOOPBACK, RIGHT_CHANGE, false, "", "Bearer ", 403 },
		{ "changing over the socket", SOCKET, RIGHT_CHANGE, false, "", NULL, 0 },
		{ "the token counts there, too", SOCKET, RIGHT_CHANGE, false, TOKEN, NULL, 401 },
		{ "and is enough", SOCKET, RIGHT_CHANGE, false, TOKEN, BEARER, 0 },
		{ "reading over the socket", SOCKET, RIGHT_READ, true, TOKEN, NULL, 0 },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct guard_verdict v = guard_check(&(struct guard_request){
			.right = row[i].right,
			.safe = row[i].safe,
			.is_unix = row[i].from == SOCKET,
			.is_local = row[i].from != OUTSIDE,
			.host = "127.0.0.1:9601",
			.authorization = row[i].authorization,
			.token = row[i].token,
			.listen_host = "",
		});
		if (v.status != row[i].status)
			fail_msg("row %zu, %s: %d, want %d", i, row[i].title, v.status,
				row[i].status);
		assert_true(!v.status == !v.detail);
	}
}

static void web_pages(void **state)
{
	(void)state;
	static const struct {
		const char *title;
		bool safe;
		const char *host, *origin, *site, *authorization;
		int status;
	} row[] = {
		{ "an address", true, "127.0.0.1:9601", NULL, NULL, NULL, 0 },
		{ "of IPv6", true, "[::1]:9601", NULL, NULL, NULL, 0 },
		{ "another address", true, "192.0.2.1", NULL, NULL, NULL, 0 },
		{ "localhost", true, "LocalHost:9601", NULL, NULL, NULL, 0 },
		{ "what is configured", true, "node1.example:9601", NULL, NULL, NULL, 0 },
		{ "a name that leads here", true, "evil.example:9601", NULL, NULL, NULL, 421 },
		{ "one that looks like it", true, "localhost.evil.example", NULL, NULL, NULL, 421 },
		{ "an address and more", true, "127.0.0.1.evil.example", NULL, NULL, NULL, 421 },
		{ "brackets that do not end", true, "[::1", NULL, NULL, NULL, 421 },
		{ "brackets alone", true, "[::1]", NULL, NULL, NULL, 0 },
		{ "brackets and more", true, "[::1].evil.example", NULL, NULL, NULL, 421 },
		{ "and with a port", true, "[::1].evil.example:9601", NULL, NULL, NULL, 421 },
		{ "behind the port", true, "[::1]:9601.evil.example", NULL, NULL, NULL, 421 },
		{ "a name in brackets", true, "[evil.example]", NULL, NULL, NULL, 421 },
		{ "the beginning of a name", true, "node1", NULL, NULL, NULL, 421 },
		{ "nothing", true, "", NULL, NULL, NULL, 421 },
		{ "a port alone", true, ":9601", NULL, NULL, NULL, 421 },
		{ "no Host", true, NULL, NULL, NULL, NULL, 421 },
		{ "any name with the token", true, "evil.example", NULL, NULL, BEARER, 0 },
		{ "another page may look", true, "localhost", "http://evil.example", "cross-site",
			NULL, 0 },
		{ "our page", false, "localhost:9601", "http://localhost:9601", "same-origin",
			BEARER, 0 },
		{ "ours, by way of TLS", false, "localhost:9601", "https://localhost:9601", NULL,
			BEARER, 0 },
		{ "another port is another", false, "localhost:9601", "http://localhost:80", NULL,
			BEARER, 403 },
		{ "another page", false, "localhost:9601", "http://evil.example", NULL, BEARER,
			403 },
		{ "a page, and no Host", false, NULL, "http://localhost:9601", NULL, BEARER, 403 },
		{ "a page without a name", false, "localhost:9601", "null", NULL, BEARER, 403 },
		{ "another kind of page", false, "localhost:9601", "file://localhost:9601", NULL,
			BEARER, 403 },
		{ "only told by the browser", false, "localhost:9601", NULL, "cross-site", BEARER,
			403 },
		{ "the same site is not us", false, "localhost:9601", NULL, "same-site", BEARER,
			403 },
		{ "the address bar", false, "localhost:9601", NULL, "none", BEARER, 0 },
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct guard_verdict v = guard_check(&(struct guard_request){
			.right = row[i].safe ? RIGHT_READ : RIGHT_CHANGE,
			.safe = row[i].safe,
			.is_local = true,
			.host = row[i].host,
			.origin = row[i].origin,
			.fetch_site = row[i].site,
			.authorization = row[i].authorization,
			.token = TOKEN,
			.listen_host = "node1.example",
		});
		if (v.status != row[i].status)
			fail_msg("row %zu, %s: %d, want %d", i, row[i].title, v.status,
				row[i].status);
	}
}

static void any_host_where_anyone_may(void **state)
{
	(void)state;
	struct guard_request r = { .right = RIGHT_ANYONE,
		.safe = true,
		.host = "lb.example",
		.token = TOKEN,
		.listen_host = "" };
	assert_int_equal(guard_check(&r).status, 0);
	r.host = NULL;
	assert_int_equal(guard_check(&r).status, 0);
	assert_false(guard_knows_host("", ""));
	assert_false(guard_knows_host(":9601", ""));
}

static void long_tokens(void **state)
{
	(void)state;
	char header[600], token[300];
	memset(token, 'a', sizeof token - 1);
	token[sizeof token - 1] = '\0';
	(void)snprintf(header, sizeof header, "Bearer %s", token);
	assert_false(guard_shows_token(header, token)); /* longer than can be configured */
	token[255] = '\0';
	assert_false(guard_shows_token(header, token));
	(void)snprintf(header, sizeof header, "Bearer %s", token);
	assert_true(guard_shows_token(header, token));
	header[261] = 'b';
	assert_false(guard_shows_token(header, token));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rights),
		cmocka_unit_test(web_pages),
		cmocka_unit_test(any_host_where_anyone_may),
		cmocka_unit_test(long_tokens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
