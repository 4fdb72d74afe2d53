/* The desk from inside: only for desk*.c. */
#ifndef SERVER_DESK_INSIDE_H
#define SERVER_DESK_INSIDE_H

#include "server/clerk.h"
#include "server/desk.h"

#include <ev.h>

enum { DESK_GONE_MAX = 64 };

struct desk {
	struct desk_args args;
	struct changes *changes;
	json_t *idle; /* what config_rebuild() has said of them when what is served was built */
	bool behind;  /* what is served does not have all changes yet */
	bool asks_to_wait;
	uint64_t forget_at; /* bans_forget()'s cursor */

	uint64_t told; /* the last number that args.share gave */
	bool untold;   /* it gave none to the last one */

	/* desk_gone.c's */
	struct gone {
		char name[CHANGE_NAME_MAX];
		json_t *value; /* NULL: none */
	} gone[DESK_GONE_MAX];
	unsigned gone_next;
	usec_t lost_at; /* steady: when Redis had lost what was changed last; 0: never */

	/* desk_wait.c's */
	struct desk_wait *first, *last;
	unsigned waits;
	ev_timer late;

	/* desk_keep.c's; clerk NULL: nothing is kept */
	struct journal *journal;
	struct clerk *clerk;
	uint64_t handed; /* the last number that the clerk gave */
	struct whole {   /* that is being composed, a piece a turn of the loop */
		bool is_begun;
		bool has_alone; /* something that was handed to nobody else: it is the next number
				 */
		char last[CHANGE_NAME_MAX + 16]; /* name that is in it */
		struct pile pile;
		ev_timer next;
	} composed;
	uint64_t whole;  /* that of the last time the whole was written anew */
	usec_t whole_at; /* steady */
	bool whole_wanted;
	bool is_settled;     /* nothing came since desk_settle() */
	bool broken;         /* nothing but the whole can be kept, */
	usec_t broken_since; /* steady, */
	char broken_why[256];
	const char *missing; /* why something was not handed to the clerk: the whole will have it */
	uint64_t saves_seen; /* of the state file */
};

void desk_init_keep(struct desk *);
/* With what an earlier run has left; then it can keep. */
bool desk_open(struct desk *, char *err, size_t err_size);
void desk_close(struct desk *);
/* To the disk; `value` NULL: it is no more. */
void desk_keep(struct desk *, const char *name, json_t *value);
bool desk_keeps_up(struct desk *); /* false: too much waits for the disk */
/* Now and then: the whole is written anew, resets that a state file has are forgotten. */
void desk_keep_tick(struct desk *, usec_t steady);
/* Bans that began were not all told of: the whole is to be kept. */
void desk_keep_whole_soon(struct desk *);
/* There was no memory to put something into words: for the disk the whole is to be kept, and Redis
 * was not told. */
void desk_keep_missed(struct desk *);
/* The state file has counters as they are after this save, and those before it as they were. */
uint64_t desk_save_now(const struct desk *);

/* desk_put() without its line in the log. */
bool desk_set(
	struct desk *, const char *name, json_t *value, struct act, char *err, size_t err_size);

/* Tells the other agents; `value` NULL: it is no more. */
void desk_share(struct desk *, const char *name, json_t *value);
/* Serves by the changes as they are now. `name`: refused where that one is without effect; NULL: in
 * any case. */
bool desk_serve(struct desk *, const char *name, char *err, size_t err_size);
/* false: so much waits for the disk or for Redis that nothing more is changed; `err` says so. */
bool desk_may_change(struct desk *, char *err, size_t err_size);
void desk_init_waits(struct desk *);
/* What they wait for beyond d->handed will not come: why is in d->missing. */
void desk_miss_waits(struct desk *);
/* There is news for who waits. */
void desk_look_at_waits(struct desk *);
/* They wait no longer, for the agent stops. */
void desk_end_waits(struct desk *);
/* To the log, as soon as what was changed is kept. */
void desk_audit(struct desk *, const char *what, const char *name, json_t *value, struct act);

/* Overrides by users and addresses go to their hashes, where these are secret. */
void desk_hide_subjects(struct desk *, const struct policy *);

/* ---- desk_gone.c ---- */

/* It is no more. The oldest of these are forgotten. */
void desk_gone_note(struct desk *, const char *name, json_t *value);
/* It is set anew: to the same value, maybe. */
void desk_gone_forget(struct desk *, const char *name);
/* It is told as it was before it was taken away, by a Redis that has lost that, or by who had not
 * heard of it. */
bool desk_gone_is_back(const struct desk *, const char *name, const json_t *value);
void desk_gone_fini(struct desk *);

/* ---- desk_bans.c ---- */

json_t *desk_ban_json(const struct ban *);
/* Their clients, as desk_hide_subjects(). */
void desk_hide_bans(struct desk *, const struct policy *);
void desk_share_ban(struct desk *, const struct ban *);
/* Calls `each` for all that are not forgotten yet. Any thread. */
void desk_each_ban(
	struct desk *, usec_t utc, void (*each)(void *with, const struct ban *), void *with);
/* All of them, to Redis, which has lost them. */
void desk_tell_bans_again(struct desk *);
/* desk_tell_bans(), and those that are over are forgotten. */
void desk_tick_bans(struct desk *, usec_t utc);
enum desk_ban {
	DESK_BAN_LOADED,
	DESK_BAN_FORGOTTEN,  /* it is one of which nobody need know any more */
	DESK_BAN_UNREADABLE, /* it is no ban, or there was no memory to read it: left out */
};
/* `was_kept`: by an earlier run, where one that began in the future by the clock of now begins now
 * instead; another agent's clock may differ. */
enum desk_ban desk_load_ban(struct desk *, const char *id, json_t *value, bool was_kept);

/* "reset:…": it is told to the other agents, and has no part in what is served. */
bool desk_is_reset(const char *name);
/* What another agent has told. */
void desk_hear_reset(struct desk *, json_t *value);

#endif
