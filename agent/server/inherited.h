/* Listening sockets that whoever started the agent has opened for it (sd_listen_fds(3)), and keeps
 * open while it is restarted: what connects meanwhile waits, and is not refused. */
#ifndef SERVER_INHERITED_H
#define SERVER_INHERITED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

enum { INHERITED_MAX = 64 };

struct inherited {
	int fd[INHERITED_MAX]; /* -1: taken */
	unsigned n;
};

/* Those of this process, once: the environment is not asked again. false: `err` says why they
 * cannot be used. Before any thread. */
bool inherited_init(struct inherited *, char *err, size_t err_size);

/* The one that listens on this address (TCP) or path (UNIX), now the caller's; -1: none does. */
int inherited_take_tcp(struct inherited *, const struct sockaddr *, socklen_t);
int inherited_take_unix(struct inherited *, const char *path);

/* false: one was not taken, and `err` says which and what to do. */
bool inherited_all_taken(const struct inherited *, char *err, size_t err_size);

void inherited_fini(
	struct inherited *); /* closes what was not taken; all zero, or twice, is fine */

#endif
