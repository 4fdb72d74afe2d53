/* The sockets that agent.listen names: bound and listening, or a sentence that says why not. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include "config/snapshot.h"

#include <sys/types.h>

struct listener {
	int fd;
	char text[160]; /* as bound: where a port 0 was asked for, the port that it became */
	/* a UNIX socket's file, to remove it at the end if it still is ours */
	char path[112]; /* "": TCP */
	dev_t dev;
	ino_t ino;
};

struct listeners {
	struct listener at[LISTEN_MAX];
	unsigned n;
};

/* All or none. false: `err` says which address, why, and what to do. Before any thread. */
bool listeners_open(struct listeners *, const struct settings *, char *err, size_t err_size);

/* Closes them and removes the files of UNIX sockets. Twice is fine. */
void listeners_close(struct listeners *);

#endif
