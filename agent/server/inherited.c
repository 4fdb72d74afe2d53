#include "server/inherited.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static bool listens(int fd)
{
	return sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) > 0;
}

bool inherited_init(struct inherited *g, char *err, size_t err_size)
{
	*g = (struct inherited){ 0 };
	int n = sd_listen_fds(1);
	if (n < 0) {
		(void)snprintf(err, err_size,
			"LISTEN_FDS: %s: start the agent without it, or by a socket unit",
			strerror(-n));
		return false;
	}
	if (n > INHERITED_MAX) {
		(void)snprintf(err, err_size,
			"%d sockets were handed over, and %d are the most: name fewer in the socket "
			"unit",
			n, INHERITED_MAX);
		return false;
	}
	for (int i = 0; i < n; i++)
		g->fd[g->n++] = SD_LISTEN_FDS_START + i;
	for (unsigned i = 0; i < g->n; i++)
		if (!listens(g->fd[i])) {
			(void)snprintf(err, err_size,
				"descriptor %d was handed over and is no socket that listens: the "
				"socket unit must have ListenStream= only, and Accept=no",
				g->fd[i]);
			return false;
		}
	return true;
}

static int take(struct inherited *g, unsigned i)
{
	int fd = g->fd[i];
	g->fd[i] = -1;
	return fd;
}

int inherited_take_tcp(struct inherited *g, const struct sockaddr *address, socklen_t n)
{
	for (unsigned i = 0; i < g->n; i++)
		if (g->fd[i] >= 0 &&
			sd_is_socket_sockaddr(g->fd[i], SOCK_STREAM, address, n, 1) > 0)
			return take(g, i);
	return -1;
}

int inherited_take_unix(struct inherited *g, const char *path)
{
	for (unsigned i = 0; i < g->n; i++)
		if (g->fd[i] >= 0 && sd_is_socket_unix(g->fd[i], SOCK_STREAM, 1, path, 0) > 0)
			return take(g, i);
	return -1;
}

static void write_address(int fd, char *out, size_t size)
{
	struct sockaddr_storage address = { 0 };
	socklen_t n = sizeof address;
	char host[NI_MAXHOST], port[NI_MAXSERV];
	(void)snprintf(out, size, "descriptor %d", fd);
	if (getsockname(fd, (struct sockaddr *)&address, &n) < 0)
		return;
	if (address.ss_family == AF_UNIX)
		(void)snprintf(
			out, size, "%.107s", ((const struct sockaddr_un *)&address)->sun_path);
	else if (getnameinfo((struct sockaddr *)&address, n, host, sizeof host, port, sizeof port,
			 NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		(void)snprintf(out, size, address.ss_family == AF_INET6 ? "[%.60s]:%s" : "%.60s:%s",
			host, port);
}

bool inherited_all_taken(const struct inherited *g, char *err, size_t err_size)
{
	for (unsigned i = 0; i < g->n; i++) {
		if (g->fd[i] < 0)
			continue;
		char address[160];
		write_address(g->fd[i], address, sizeof address);
		(void)snprintf(err, err_size,
			"%s was handed over, and neither agent.listen nor admin.listen names it: "
			"make them and ListenStream= of the socket unit the same",
			address);
		return false;
	}
	return true;
}

void inherited_fini(struct inherited *g)
{
	for (unsigned i = 0; i < g->n; i++)
		if (g->fd[i] >= 0)
			(void)close(g->fd[i]);
	g->n = 0;
}
