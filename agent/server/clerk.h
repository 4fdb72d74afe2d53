/* A thread that puts on disk what the desk hands it (store/journal.h), and says when it is there:
 * whoever is answered on the control thread is answered after that, and nobody waits for a disk. */
#ifndef SERVER_CLERK_H
#define SERVER_CLERK_H

#include "store/journal.h"

#include <ev.h>

struct clerk;

/* A text under each of some names, in that order; text.p NULL: the name is no more. */
struct pile {
	char *bytes; /* owned */
	size_t n, room;
	bool bad; /* out of memory: something is missing */
};
void pile_put(struct pile *, struct str name, struct str text);
void pile_fini(struct pile *);
/* journal_put() of all of them. */
void pile_write(struct journal *, const struct pile *);

struct clerk_args {
	struct journal *journal; /* borrowed; the clerk's alone until clerk_free() */
	/* Where the whole is written anew: puts with journal_put() what the pile does not have. On
	 * the clerk's thread. NULL: it has all. */
	void (*rest)(void *with, struct journal *);
	/* There is news for clerk_state(). On the loop. */
	void (*kept)(void *with);
	void *with;
	struct ev_loop *loop;
};

/* NULL: out of memory or threads. */
struct clerk *clerk_new(const struct clerk_args *);
/* After all that was handed over was tried. NULL is fine. */
void clerk_free(struct clerk *);

/* Hands over one more text, which is copied. Its number: each has one more than the one before. 0:
 * no memory, or too much waits for a disk that hangs: it is not kept, and the whole has to be.
 * Control thread, as all that follow. */
uint64_t clerk_put(struct clerk *, struct str name, struct str text);
/* That much waits that clerk_put() may say 0. */
bool clerk_is_behind(struct clerk *);
/* The whole is to be written anew: what is in the pile (taken over, and emptied) and what args.rest
 * adds. Its number. 0: no memory. */
uint64_t clerk_replace(struct clerk *, struct pile *);

/* How far it is. What is up to `good` is on disk; what is after it and up to `tried` may not be,
 * and `why` says why not: after a whole that could not be written, until one could. */
struct clerk_state {
	uint64_t good, tried;
	usec_t busy_since; /* steady: so long the disk has been at what it does now; 0: nothing */
	char why[256];
};
void clerk_state(struct clerk *, struct clerk_state *);
/* Waits until all that was handed over was tried, or until `deadline` (steady). false: the disk is
 * still at it, and clerk_free() would wait for it. */
bool clerk_settle(struct clerk *, usec_t deadline);

#endif
