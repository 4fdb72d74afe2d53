/* The right to a state file. A process has it from before it reads the file until its last save is
 * done: two that count from the same numbers would let everyone have his limit twice.
 *
 * A flock(2) of PATH.lock, which holds the process' id for people, and is never removed: who waits
 * for a file that is removed, and who comes after, would hold two different ones. The lock ends
 * with the process, however that ends. */
#ifndef STORE_STATE_LOCK_H
#define STORE_STATE_LOCK_H

#include <stddef.h>

enum state_lock_rc {
	STATE_LOCK_OURS,
	STATE_LOCK_BUSY,   /* `message` says who has it; ask again */
	STATE_LOCK_CANNOT, /* this file system knows no locks: `message` */
	STATE_LOCK_FAILED, /* `message` says why and what to do */
};

/* Does not wait. OURS: *fd is the lock, for state_unlock(); otherwise -1. */
enum state_lock_rc state_lock(const char *path, int *fd, char *message, size_t message_size);

void state_unlock(int fd); /* -1 is fine */

#endif
