/* The control thread: signals, accepting, reload, drain, the log of denials, the watchdog. */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include "server/listener.h"
#include "store/memory.h"

enum verbosity { VERBOSITY_CONFIGURED, VERBOSITY_QUIET, VERBOSITY_DEBUG };

/* What the configuration says of the log, and what the command line says against it. */
struct log_settings log_settings_for(const struct settings *, enum verbosity);

/* Signals wait from now on until control_run() looks at them: none is lost, and none ends the
 * process, while it starts. Main thread, before there is any other. */
void control_hold_signals(void);

struct control_args {
	const char *const *files; /* read again at a reload */
	size_t files_n;
	enum verbosity verbosity;
	struct snapshot *snapshot; /* control takes a reference of its own */
	struct listeners *listeners;
	struct memory_store *store;
	const char *version; /* for the log */
};

struct control;

/* Workers are made, threads are started, nothing is accepted yet. One at a time in a process (it
 * has the default loop and the signals). NULL: `err` says why and what to do. Main thread. */
struct control *control_new(const struct control_args *, char *err, size_t err_size);

/* Serves until SIGTERM or SIGINT and the drain that follows. The listeners are closed then. */
void control_run(struct control *);

void control_free(struct control *); /* NULL is fine */

#endif
