/* The operator's desk: his changes at work (config/changes.h): applied to what is served, kept on
 * disk beside the counters, and each written to the log as `audit` when it is there. Knows nothing
 * of HTTP. Control thread. */
#ifndef SERVER_DESK_H
#define SERVER_DESK_H

#include "config/changes.h"
#include "config/snapshot.h"
#include "store/bans.h"
#include "store/memory.h"
#include "store/redis_changes.h"

struct ev_loop;
struct keeper;
struct desk;

struct desk_args {
	struct memory_store *store;
	struct bans *bans;
	struct keeper *keeper;
	const char *state_file; /* beside it changes and bans are kept; "": nowhere */
	struct ev_loop *loop;
	/* Tells the other agents of a change or a ban, through Redis; `text` NULL: it is no more.
	 * Its number, as redis_changes_put(). NULL: there are none. */
	uint64_t (*share)(void *with, const char *name, const char *text);
	/* How far Redis is with that. NULL where `share` is. */
	struct redis_changes_state (*shared)(void *with);
	/* As long who has changed something waits for the disk, or for Redis. */
	usec_t wait_within;
	/* These counters began anew: what is remembered of them here, in the place of the store's
	 * or beside it, is forgotten. NULL: nothing is. */
	void (*erased)(void *with, const struct key *, unsigned n);
	/* What is served now; borrowed. */
	struct snapshot *(*current)(void *with);
	/* Serves `fresh` from now on, and takes it over. false: not now (too many that workers have
	 * not taken over yet), and `fresh` is still the caller's. */
	bool (*publish)(void *with, struct snapshot *fresh);
	void *with;
};

/* With what an earlier run has left beside the state file, or, a release ago, in it (the store's
 * notes); it is not applied yet. What cannot be read of it is logged and left out. NULL: `err` says
 * what is missing, or cannot be written. */
struct desk *desk_new(const struct desk_args *, char *err, size_t err_size);
void desk_free(struct desk *); /* waits for the disk. NULL is fine */

/* All that was changed is on disk, or will not be; after the state file was written for the last
 * time. Who waits for Redis does so no longer. The disk is waited for until `deadline` (steady).
 * What is lost is logged. */
enum desk_end {
	DESK_KEPT,  /* or there is no state file */
	DESK_LOST,  /* something could not be written */
	DESK_HANGS, /* the disk is still at it: desk_free() would wait for it */
};
enum desk_end desk_settle(struct desk *, usec_t deadline);

/* Whether what was changed cannot be written, since when (steady), and why. */
bool desk_is_in_trouble(const struct desk *, usec_t *since, const char **why);

/* What becomes of what was changed. */
struct desk_kept {
	const char *not_on_disk; /* why not, and so it ends with a restart; NULL: it is there, or
				  * there is no state file */
	const char *not_shared; /* why Redis does not have it yet, and so other agents do not, and a
				 * restart ends it; NULL: it has, or is not the store */
};

/* What was changed so far is on disk and in Redis: calls `kept` then, which may be at once; or when
 * it is known that it is not, or nobody has said in time. The wait is the caller's until then.
 */
struct desk_wait {
	void (*kept)(struct desk_wait *, const struct desk_kept *);
	/* the desk's */
	struct desk_wait *next;
	uint64_t number, told; /* the last ones that were handed to the disk, and to Redis */
	const char *missing;   /* why it could not be handed to the disk; NULL: it was */
	bool untold;           /* it could not be handed to Redis */
	usec_t until;          /* steady */
};
void desk_when_kept(struct desk *, struct desk_wait *);
/* args.shared has news. */
void desk_shared(struct desk *);

const struct changes *desk_changes(const struct desk *);
/* Why the change `name` does not do what it says, as a new array of texts: a rule that it is for is
 * no more. NULL: it does. */
json_t *desk_warnings(const struct desk *, const char *name);

/* A configuration that was just loaded, with all changes: `fresh` itself where there are none, or
 * in its place another. What does not go with it is logged, and added to `idle` (NULL: not). Never
 * NULL. */
struct snapshot *desk_apply(struct desk *, struct snapshot *fresh, struct problems *idle);

/* All changes and bans that hold for all agents, as they told each other: in the place of what is
 * here. */
void desk_told(struct desk *, const struct str *name, const struct str *text, size_t n);

/* These have changed since, in that order; text.p NULL: it is no more. */
void desk_news(struct desk *, const struct str *name, const struct str *text, size_t n);

/* They have lost what they told: all that is known here is told again. */
void desk_tell_again(struct desk *);

/* Who does it, and why; for the log, and for whoever looks at the change later. */
struct act {
	const char *who;    /* "token", "uid 0" */
	const char *reason; /* NULL: none was given */
};

/* What was refused last was so for now: the same may pass in a moment. */
bool desk_asks_to_wait(const struct desk *);

/* A change, in the place of one of that name. `value` gets since, who and reason. false: `err` says
 * why not (also where it does not go with the configuration, or the disk or Redis do not keep up),
 * and nothing has changed. true: it holds; desk_when_kept() tells when it is kept. So for the
 * others below. */
bool desk_put(
	struct desk *, const char *name, json_t *value, struct act, char *err, size_t err_size);
/* false: there is none of that name, or it cannot be taken out now. */
bool desk_remove(struct desk *, const char *name, struct act, char *err, size_t err_size);
/* All counters of a rule begin anew; NULL: of all rules. */
bool desk_reset_rule(struct desk *, const char *rule, struct act, char *err, size_t err_size);

/* The counters of one client begin anew: whether one more client is too many; which denials are
 * counted for penalties, that go with these counters; when the store has been told to erase them,
 * what remembers anything of them is told; and when that is done for all of them (a plan at a
 * time), it is written down: `counters` says it to people, `in_part`: it is not certain of all. */
bool desk_may_reset_client(struct desk *, char *err, size_t err_size);
void desk_strikes(struct desk *, const struct plan *counters, struct plan *strikes, usec_t utc);
void desk_reset_counters(
	struct desk *, const struct plan *, const struct plan *strikes, struct act);
void desk_reset_done(struct desk *, json_t *counters, bool in_part, struct act);

/* A ban by a penalty, as desk_bans() shows it: its name for desk_lift(). */
enum { BAN_ID_BYTES = 32 };
void ban_id(const struct ban *, char out[BAN_ID_BYTES + 1]);
/* Calls `each` for those that hold at `utc`. */
void desk_bans(struct desk *, usec_t utc, void (*each)(void *with, const struct ban *), void *with);
/* The ban that holds for the plan's client, copied. false: none does. */
bool desk_find_ban(struct desk *, const struct plan *, usec_t utc, struct ban *);
/* Lifts it, and forgets how often this client was banned. false: there is none of that name. (A
 * lift that the disk cannot take holds all the same.) */
bool desk_lift(struct desk *, const char *id, struct act);
/* A configuration was read, in the place of `before` (NULL: at a start): bans that none of its
 * penalties knows end, and are forgotten as after a lift. `who`: for the log. */
void desk_end_unknown_bans(
	struct desk *, const struct policy *now, const struct policy *before, const char *who);

/* Bans that began or ended are written down, and told to the other agents: before what is said of
 * these clients next. */
void desk_tell_bans(struct desk *);

/* What ends by itself, ends; bans that began are written down. Every second or so. */
void desk_tick(struct desk *, struct now);

#endif
