/* What the kernel says of a peer that has not read: TCP over both families, and UNIX. */
#include "server/unread.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { SERVER, CLIENT };

/* A listener at `address`, and in `pair` a connection to it from `from` on. The listener is closed.
 */
static bool connect_tcp(
	const struct sockaddr_in6 *address, const void *to, socklen_t to_n, int pair[2])
{
	struct sockaddr_in6 at = *address;
	struct sockaddr_storage whom = { 0 };
	socklen_t n = sizeof at;
	int off = 0, listener = socket(at.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0);
	if (at.sin6_family == AF_INET6)
		(void)setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (bind(listener, (void *)&at, sizeof at) < 0) {
		(void)close(listener);
		return false; /* no IPv6 here */
	}
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (void *)&at, &n), 0);
	memcpy(&whom, to, to_n);
	((struct sockaddr_in *)&whom)->sin_port =
		at.sin6_port; /* of either family at the same place */
	pair[CLIENT] = socket(whom.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(pair[CLIENT] >= 0);
	assert_int_equal(connect(pair[CLIENT], (void *)&whom, to_n), 0);
	pair[SERVER] = accept(listener, NULL, NULL);
	assert_true(pair[SERVER] >= 0);
	(void)close(listener);
	return true;
}

/* Until both sockets are full. */
static int64_t fill(int fd)
{
	char bytes[1000] = { 0 };
	int64_t sent = 0;
	for (ssize_t n; (n = send(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0;)
		sent += n;
	return sent;
}

static void expect_told(int pair[2])
{
	struct unread u;
	char bytes[100];
	unread_init(&u);
	if (unread_by_peer(&u, pair[SERVER]) < 0)
		print_message("this kernel does not tell\n");
	else {
		assert_int_equal(unread_by_peer(&u, pair[SERVER]), 0);
		memset(bytes, 'x', sizeof bytes);
		assert_int_equal(send(pair[SERVER], bytes, 70, 0), 70);
		assert_int_equal(send(pair[SERVER], bytes, 30, 0), 30);
		assert_int_equal(
			send(pair[CLIENT], bytes, 7, 0), 7); /* what we have is another thing */
		assert_int_equal(unread_by_peer(&u, pair[SERVER]), 100);
		assert_int_equal(recv(pair[CLIENT], bytes, 40, 0), 40);
		assert_int_equal(unread_by_peer(&u, pair[SERVER]), 60);
		assert_int_equal(recv(pair[CLIENT], bytes, 100, 0), 60);
		assert_int_equal(unread_by_peer(&u, pair[SERVER]), 0);
		int64_t sent = fill(pair[SERVER]);
		assert_int_equal(unread_by_peer(&u, pair[SERVER]), sent);
	}
	(void)close(pair[CLIENT]);
	(void)close(pair[SERVER]);
	int fd = u.fd;
	unread_fini(&u);
	assert_int_equal(u.fd, -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* it is closed */
}

static const struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
	.sin6_addr = IN6ADDR_LOOPBACK_INIT };
static const struct sockaddr_in6 any = { .sin6_family = AF_INET6 };

static struct sockaddr_in v4_loopback(void)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void of_ipv4(void **state)
{
	(void)state;
	const struct sockaddr_in v4 = v4_loopback();
	int pair[2];
	struct sockaddr_in6 at = { 0 };
	memcpy(&at, &v4, sizeof v4);
	assert_true(connect_tcp(&at, &v4, sizeof v4, pair));
	expect_told(pair);
}

static void of_ipv6(void **state)
{
	(void)state;
	int pair[2];
	if (!connect_tcp(&v6, &v6, sizeof v6, pair))
		skip();
	expect_told(pair);
}

/* An agent that listens at [::] has HAProxy's IPv4 mapped. */
static void of_ipv4_mapped(void **state)
{
	(void)state;
	const struct sockaddr_in v4 = v4_loopback();
	int pair[2];
	if (!connect_tcp(&any, &v4, sizeof v4, pair))
		skip();
	expect_told(pair);
}

static void of_unix(void **state)
{
	(void)state;
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	expect_told(pair);
}

static void of_nobody_it_is_not_known(void **state)
{
	(void)state;
	struct unread u, none = { .fd = -1 };
	int pair[2], alone = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(alone >= 0);
	unread_init(&u);
	assert_int_equal(unread_by_peer(&u, -1), -1);
	assert_int_equal(unread_by_peer(&u, STDIN_FILENO), -1);
	assert_int_equal(unread_by_peer(&u, alone), -1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(unread_by_peer(&none, pair[SERVER]), -1);
	(void)close(pair[CLIENT]);
	assert_int_equal(unread_by_peer(&u, pair[SERVER]), -1);
	(void)close(pair[SERVER]);
	(void)close(alone);
	unread_fini(&u);
	unread_fini(&none);
}

/* What is left of his socket, if anything, is not he. */
static void of_one_who_has_closed_it_is_not_known(void **state)
{
	(void)state;
	const struct sockaddr_in v4 = v4_loopback();
	struct unread u;
	int pair[2];
	struct sockaddr_in6 at = { 0 };
	memcpy(&at, &v4, sizeof v4);
	assert_true(connect_tcp(&at, &v4, sizeof v4, pair));
	unread_init(&u);
	(void)close(pair[CLIENT]);
	assert_int_equal(unread_by_peer(&u, pair[SERVER]), -1);
	(void)close(pair[SERVER]);
	unread_fini(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_ipv4),
		cmocka_unit_test(of_ipv6),
		cmocka_unit_test(of_ipv4_mapped),
		cmocka_unit_test(of_unix),
		cmocka_unit_test(of_nobody_it_is_not_known),
		cmocka_unit_test(of_one_who_has_closed_it_is_not_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
