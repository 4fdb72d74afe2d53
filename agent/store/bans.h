/* Who is banned by a penalty: a bounded table, shared by all workers. An entry outlives its ban by
 * as long as the penalty's longest one, so that the next ban is longer; and by as long as denials
 * are counted, before it or now: without it they would be counted by the former epoch once more.
 *
 * Instants are UTC: agents that share a store tell each other, and a restart keeps them. Any
 * thread; a lookup takes a lock of one in many, and none where nobody is banned. */
#ifndef STORE_BANS_H
#define STORE_BANS_H

#include "limit/penalty.h"

enum {
	BANS_MAX = 65536,     /* in sets of eight: a full one lets go who is free soonest */
	BANS_BEGUN_MAX = 256, /* that bans_next_begun() can tell of */
	BAN_CLIENT_MAX = 127, /* bytes of what people are shown */
};

struct bans;

struct ban {
	struct key key;
	usec_t since, until, forget_at;
	uint32_t level; /* 0: the first */
	uint32_t epoch; /* rises with each ban and lift: denials before it do not count again */
	char rule[RULE_NAME_MAX + 1];
	char client[BAN_CLIENT_MAX + 1]; /* "ip=10.0.0.1", secrets hashed */
	bool end_told, told_again;       /* the table's own: bans_ended(), bans_forget_one() */
};

struct bans *bans_new(void); /* NULL: out of memory */
void bans_free(struct bans *);

/* When the last ban ends of those that hold at `utc` for the takes' clients, by their rules; 0:
 * none does. `*take` is its take then, plan->banned for who sets the outcome. */
usec_t bans_find(struct bans *, const struct plan *, usec_t utc, unsigned *take);

/* Bans anew, or for the first time, from `utc` on. `ban` has the key, the rule and the client; the
 * rest is filled in. false: it is banned already, and nothing has changed. */
bool bans_begin(struct bans *, const struct penalty *, struct ban *, usec_t utc);

/* The next of those that bans_begin() began and that this has not told of yet; where it is asked
 * too seldom, those that are too many are missing (bans_copy() has them). false: there is none. */
bool bans_next_begun(struct bans *, struct ban *);

/* Those that ended by themselves by `utc`, each once: up to `n` (8 at least) of them. Asked until
 * it returns 0, with `*cursor` 0 at first. What had ended when it was put is not among them. */
size_t bans_ended(struct bans *, uint64_t *cursor, struct ban *, size_t n, usec_t utc);

/* As another agent or an earlier run tells: in the place of what is there of that key, unless that
 * is of a later epoch, or of this one and ends later; a ban that has begun since then, and holds
 * where that is over, is taken of any epoch. false: it was not taken. */
bool bans_put(struct bans *, const struct ban *, usec_t utc);

/* Ends it, and forgets how often this client was banned. false: none holds. */
bool bans_lift(struct bans *, const struct key *, usec_t utc);

/* What people are shown of it, from now on. false: nothing is known of it. */
bool bans_rename(struct bans *, const struct key *, const char client[BAN_CLIENT_MAX + 1]);

/* A copy; false: nothing is known of it. */
bool bans_get(struct bans *, const struct key *, struct ban *);

/* ban.epoch of this client; 0: nothing is known of it. */
uint32_t bans_epoch(struct bans *, const struct key *, usec_t utc);

/* The same for who counts a denial now: the epoch is not forgotten before that count is over. */
uint32_t bans_epoch_to_count(struct bans *, const struct key *, const struct penalty *, usec_t utc);

/* All that are not forgotten yet: up to `n` (8 at least) from `*cursor` on (0 at first). Returns
 * how many; 0: the end. What comes and goes meanwhile may be missing. */
size_t bans_copy(struct bans *, uint64_t *cursor, struct ban *, size_t n, usec_t utc);

/* Lets go who is to be forgotten by `utc`: looks at a part of the table, from `*cursor` on (0 at
 * first; it goes round), and tells up to `n` (8 at least) of their keys. Returns how many. */
size_t bans_forget(struct bans *, uint64_t *cursor, struct key *, size_t n, usec_t utc);
/* Another agent did: so does this one, where that is due within a minute (clocks differ). true: it
 * is not: then `ban` is what it is to be told again, once: of an older one or by a clock that is
 * far ahead, it would take out this one, too, and so on for ever. */
bool bans_forget_one(struct bans *, const struct key *, usec_t utc, struct ban *);

uint64_t bans_count(const struct bans *);   /* about; those that ended and are not forgotten, too */
uint64_t bans_evicted(const struct bans *); /* that held, and were let go for want of room */

#endif
