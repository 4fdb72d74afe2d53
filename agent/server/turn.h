/* Whose turn it is to count: a process that starts while the one before it still stops waits for
 * that one's last save. What connects meanwhile waits in the listening socket. */
#ifndef SERVER_TURN_H
#define SERVER_TURN_H

#include "base/clock.h"

#include <stddef.h>

enum turn {
	TURN_OURS, /* *lock is for state_unlock(), after the last save; -1: none can be had there */
	TURN_STOPPED, /* SIGTERM or SIGINT came, and still waits to be seen (control_hold_signals())
		       */
	TURN_NEVER,   /* `err` says who has it, or why it cannot be had, and what to do */
};

/* Waits at most `within`. Before any thread; the log is open. */
enum turn turn_await(const char *state_file, usec_t within, int *lock, char *err, size_t err_size);

#endif
