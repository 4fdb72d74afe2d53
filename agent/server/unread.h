/* What the peer of a connection has not read yet, as the kernel has it: sock_diag(7). The peer has
 * to be in the same network namespace: on this machine, and in no container of its own.
 *
 * All functions: on one thread for each `struct unread`. */
#ifndef SERVER_UNREAD_H
#define SERVER_UNREAD_H

#include <stdint.h>

struct unread {
	int fd; /* a netlink socket; -1: the kernel does not tell */
};

/* Asks once, for nothing: the kernel may have to load a module for it, which takes its time. */
void unread_init(struct unread *);
void unread_fini(struct unread *);

/* Bytes that were sent on `socket` (TCP or UNIX) and that its peer has not read. -1: not known.
 * Does not wait; some microseconds. */
int64_t unread_by_peer(const struct unread *, int socket);

#endif
