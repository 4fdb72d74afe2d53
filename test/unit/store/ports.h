/* Ports of loopback that are this test's until release_ports(): bound, so that nobody else gets
 * them, and only who says SO_REUSEADDR, as Redis does, may listen there. */
#ifndef TEST_STORE_PORTS_H
#define TEST_STORE_PORTS_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

static int reserved_port[8];
static unsigned reserved_port_n;

static inline uint16_t reserve_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	assert_true(reserved_port_n < sizeof reserved_port / sizeof *reserved_port);
	/* (With SO_REUSEADDR before, the kernel would choose what another test has reserved so.) */
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	reserved_port[reserved_port_n++] = fd;
	return ntohs(a.sin_port);
}

static inline void release_ports(void)
{
	while (reserved_port_n)
		close(reserved_port[--reserved_port_n]);
}

#endif
