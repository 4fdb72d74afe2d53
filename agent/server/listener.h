/* The sockets that agent.listen and admin.listen name: bound and listening, or a sentence that says
 * why not. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include "config/snapshot.h"
#include "server/inherited.h"

#include <sys/types.h>

struct listener {
	int fd;
	bool is_inherited; /* server/inherited.h: it lives on without us */
	bool is_awaited;   /* another process listens there; fd is -1 until listeners_open_rest() */
	bool is_local;  /* only this machine connects: a UNIX socket, or an address of loopback */
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

/* What to listen on, and how; borrowed. */
struct listen_plan {
	const char *group; /* of the settings, for messages: "agent" */
	const struct listen_address *address;
	unsigned n; /* 0..LISTEN_MAX */
	mode_t mode;
	const char *socket_owner, *socket_group; /* "": as the process */
	struct inherited
		*inherited; /* what is in there is taken instead of opened; NULL: nothing */
	bool may_wait; /* an address that another process has is left for listeners_open_rest() */
};

struct listen_plan listen_plan_agent(const struct settings *);
struct listen_plan listen_plan_admin(const struct settings *); /* n is 0: there is none */

/* All or none (but for what may wait). false: `err` says which address, why, and what to do. Before
 * any thread. */
bool listeners_open(struct listeners *, const struct listen_plan *, char *err, size_t err_size);

/* What listeners_open() by the same plan has left: the process that had it has gone, or it is an
 * error now. All or none, as there. */
bool listeners_open_rest(
	struct listeners *, const struct listen_plan *, char *err, size_t err_size);

/* All of them go on listening when this process has ended. */
bool listeners_are_inherited(const struct listeners *);

/* Closes them and removes the files of UNIX sockets that were not inherited. Twice is fine. */
void listeners_close(struct listeners *);

#endif
