/* The control thread: signals, accepting, reload, drain, the log of denials, the watchdog. */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include "server/desk.h"
#include "server/keeper.h"
#include "server/listener.h"
#include "server/report.h"
#include "server/tally.h"
#include "store/redis_hub.h"

/* How long a stop may take after the drain, the state file included. */
#define CONTROL_STOP_WITHIN (15 * USEC_PER_SEC)

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

/* Serves until SIGTERM or SIGINT and the drain that follows. The listeners are closed then, and
 * what was counted and changed is on disk, or the log says why not. */
enum control_end {
	CONTROL_ENDED,
	CONTROL_LOST,  /* something could not be written */
	CONTROL_HANGS, /* a disk does not answer: threads are at it which nobody can end but the
			* process' end, and control and its store are theirs */
};
enum control_end control_run(struct control *);

void control_free(struct control *); /* NULL is fine. Not after CONTROL_HANGS */

/* ---- for who lives on its loop (the admin interface): control thread, from control_new() until
 * control_free() ---- */

enum control_phase { CONTROL_RUN, CONTROL_DRAIN, CONTROL_STOP, CONTROL_STOP_NOW };

struct ev_loop *control_loop(struct control *);
enum control_phase control_phase(const struct control *);
const struct control_args *control_args(const struct control *);
usec_t control_started_at(const struct control *); /* UTC, as the clock said then */
usec_t control_uptime(const struct control *);     /* whatever the clock was set to since */
/* Borrowed, until a reload: not longer than this turn of the loop. */
const struct snapshot *control_snapshot(const struct control *);

struct desk *control_desk(struct control *); /* what the operator changes */
struct known *control_known(struct control *);

/* The store, to be asked on control's loop; there if the configuration has an admin interface. */
struct store *control_store(struct control *);
/* All that waits for it is answered before this returns. */
void control_settle_store(struct control *);
/* A reference, for who cannot be done within this turn of the loop. */
struct snapshot *control_hold_snapshot(struct control *);
void control_drop_snapshot(struct snapshot *);

/* Why the state file, or what stands beside it, cannot be written; false: it can. */
bool control_state_trouble(struct control *, struct keeper_trouble *);

/* Why Redis does not answer; false: it does, or there is none, or it was not tried yet. */
bool control_store_away(struct control *, struct redis_hub_away *);

/* Why what operators change is not shared with the other agents; false: it is, or there is no
 * Redis. */
bool control_changes_trouble(const struct control *, struct redis_changes_trouble *);

void control_report(struct control *, struct report *);
bool control_tally(struct control *, struct tally_sum *); /* false: out of memory */

bool control_top(struct control *, enum top_kind, struct top_list *); /* false: out of memory */
const char *control_rule_at(const struct control *, uint32_t place);  /* tally_rule_at() */

/* What SIGHUP does; who asks for it, and why, for the log. */
struct reload {
	uint64_t generation;      /* that counts now */
	char changed[2048];       /* snapshot_describe_changes() */
	struct problems problems; /* why it was refused; warnings */
};

/* false: refused, and nothing changed */
bool control_reload(struct control *, struct act, struct reload *);
void reload_fini(struct reload *);

#endif
