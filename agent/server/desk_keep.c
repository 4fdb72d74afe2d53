/* What was changed goes to disk, beside the state file (store/journal.h). */
#include "server/desk_inside.h"

#include "base/err.h"
#include "base/log.h"
#include "config/json.h"
#include "server/keeper.h"
#include "store/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	APPENDED_MIN = 1 << 20, /* bytes, from which on the whole is written anew */
	PIECE = 64,             /* changes that are composed in one turn of the loop */
	REFUSED_LINES = 100,    /* of the log, at a start */
};

#define WHOLE_EVERY (10 * USEC_PER_SEC)

static const char no_memory[] = "no memory to write it";
static const char catches_up[] = "the disk catches up: it is written with the whole, in a while";

/* ---- what an earlier run has left ---- */

struct loading {
	struct desk *desk;
	unsigned lost; /* bans and resets */
	unsigned refused;
};

static bool load_ban(struct desk *d, struct str name, struct str text, char *err, size_t err_size)
{
	json_error_t e;
	json_t *value = json_loadb(text.p, text.n, 0, &e);
	bool good = value && desk_load_ban(d, name.p + 4, value, true) != DESK_BAN_UNREADABLE;

	if (!good)
		(void)err_say(err, err_size, "it is no ban, or there is no memory for it");
	json_decref(value);
	return good;
}

static void load_one(void *with, struct str name, struct str text, bool same_counters)
{
	struct loading *l = with;
	struct desk *d = l->desk;
	bool is_ban = strncmp(name.p, "ban:", 4) == 0, good = true;
	char err[512];

	if ((is_ban || desk_is_reset(name.p)) && !same_counters)
		l->lost++;
	else if (is_ban && text.p)
		good = load_ban(d, name, text, err, sizeof err);
	else if (!text.p)
		(void)changes_remove(d->changes, name.p);
	else
		good = changes_put_text(d->changes, name.p, text, err, sizeof err);
	if (good)
		return;
	if (l->refused++ < REFUSED_LINES) /* how many there are says what set the file aside */
		log_error("changes_lost", KV_Z("change", name.p), KV_Z("why", err));
}

/* The whole is written anew at once: what is not taken now would be on no disk any more. */
static enum journal_rc read_journal(
	struct desk *d, struct loading *l, char *message, size_t message_size)
{
	usec_t utc = clock_read().utc;
	enum journal_rc rc = journal_load(d->journal, utc, load_one, l, message, message_size);

	if (rc == JOURNAL_LOADED && l->refused)
		rc = journal_refuse(d->journal, utc, l->refused, message, message_size);
	return rc;
}

static bool load_journal(struct desk *d, char *err, size_t err_size)
{
	struct loading l = { .desk = d };
	char message[1024];

	switch (read_journal(d, &l, message, sizeof message)) {
	case JOURNAL_LOADED:
	case JOURNAL_NONE:
		break;
	case JOURNAL_SET_ASIDE:
		log_warning("changes_set_aside", KV_Z("why", message));
		break;
	case JOURNAL_UNUSABLE:
		return err_say(err, err_size, "%s", message);
	}
	if (l.lost)
		log_warning("bans_lost", KV_INT("records", l.lost),
			KV_Z("why", "bans and resets are of another state file's counters"));
	return true;
}

/* As earlier releases kept it: one JSON object in the state file. */
static void load_notes(struct desk *d, const char *notes, size_t n)
{
	json_error_t e;
	json_t *all = json_loadb(notes, n, 0, &e), *value;
	const char *name;
	char err[512];

	if (!json_is_object(all))
		log_error(
			"changes_lost", KV_Z("why", "what the state file has of them is no JSON"));
	json_object_foreach(all, name, value)
	{
		if (strncmp(name, "ban:", 4) == 0)
			(void)desk_load_ban(d, name + 4, value, true);
		else if (!changes_put(d->changes, name, value, err, sizeof err))
			log_error("changes_lost", KV_Z("change", name), KV_Z("why", err));
	}
	json_decref(all);
}

/* The state file has these counters as they were before. */
static void erase_again(void *with, const char *name, json_t *value)
{
	struct desk *d = with;
	struct key key[RESET_KEYS_MAX];
	unsigned n = change_reset_keys(value, key);

	(void)name;
	for (unsigned i = 0; i < n; i++)
		(void)memory_store_erase(d->args.store, &key[i]);
	(void)json_object_set_new(value, "save", json_integer((json_int_t)desk_save_now(d)));
}

/* ---- the whole ---- */

static void pile_change(void *with, const char *name, json_t *value)
{
	struct pile *p = with;
	char *text = json_text(value, JSON_COMPACT);

	if (text)
		pile_put(p, str_of(name), str_of(text));
	else
		p->bad = true;
	free(text);
}

static void put_ban(void *with, const struct ban *b)
{
	char name[4 + BAN_ID_BYTES + 1] = "ban:";
	json_t *value = desk_ban_json(b);
	char *text = value ? json_text(value, JSON_COMPACT) : NULL;

	ban_id(b, name + 4);
	if (text)
		journal_put(with, str_of(name), str_of(text));
	else
		journal_spoil(with);
	free(text);
	json_decref(value);
}

/* On the clerk's thread: of bans there may be many. */
static void put_bans(void *with, struct journal *j)
{
	desk_each_ban(with, clock_read().utc, put_ban, j);
}

static void compose(void *with, const char *name, json_t *value)
{
	struct whole *whole = with;

	pile_change(&whole->pile, name, value);
	(void)snprintf(whole->last, sizeof whole->last, "%s", name);
}

static void hand_over(struct desk *d)
{
	uint64_t number = clerk_replace(d->clerk, &d->composed.pile);

	d->composed.is_begun = d->composed.has_alone = false;
	d->whole_wanted = number == 0;
	d->missing = number ? NULL : no_memory;
	if (number)
		d->whole = d->handed = number;
	else
		desk_miss_waits(d);
}

static void compose_piece(struct desk *d)
{
	struct whole *whole = &d->composed;

	ev_timer_stop(d->args.loop, &whole->next);
	if (changes_after(d->changes, whole->last, PIECE, compose, whole) < PIECE)
		hand_over(d);
	else
		ev_timer_start(d->args.loop, &whole->next);
}

static void on_next_piece(struct ev_loop *loop, ev_timer *next, int revents)
{
	(void)loop;
	(void)revents;
	compose_piece(next->data);
}

void desk_init_keep(struct desk *d)
{
	ev_timer_init(&d->composed.next, on_next_piece, 0., 0.);
	d->composed.next.data = d;
}

/* Of ten thousand changes nobody else should wait for the last: a piece now, the next ones in later
 * turns of the loop. What is changed meanwhile is added to it (desk_keep()). `alone`: it is to have
 * something that was handed to nobody. */
static void keep_whole(struct desk *d, bool alone)
{
	d->composed.is_begun = true;
	d->is_settled = false;
	d->composed.has_alone = alone || d->missing;
	d->composed.last[0] = '\0';
	d->whole_wanted = false;
	d->missing = NULL;
	d->whole_at = clock_steady();
	compose_piece(d);
}

static bool whole_is_under_way(struct desk *d)
{
	struct clerk_state s;

	clerk_state(d->clerk, &s);
	return s.tried < d->whole;
}

void desk_keep_whole_soon(struct desk *d)
{
	d->whole_wanted = true;
}

void desk_keep_missed(struct desk *d)
{
	d->untold = d->args.share != NULL;
	if (!d->clerk)
		return;
	d->is_settled = false;
	d->whole_wanted = true;
	d->missing = no_memory;
}

/* ---- to the disk ---- */

static void look_at_disk(struct desk *d)
{
	struct clerk_state s;

	clerk_state(d->clerk, &s);
	bool broken = s.tried > s.good;
	if (broken)
		log_warning_every(WHOLE_EVERY, "changes_not_kept", KV_Z("why", s.why),
			KV_Z("hint", "what is changed now holds until a restart; it is tried again "
				     "every ten seconds"));
	else if (d->broken)
		log_warning("changes_kept", KV_Z("file", journal_path(d->journal)));
	if (broken) {
		d->broken_since = d->broken ? d->broken_since : clock_steady();
		memcpy(d->broken_why, s.why, sizeof d->broken_why);
	}
	d->broken = broken;
}

static void on_kept(void *with)
{
	look_at_disk(with);
	desk_look_at_waits(with);
}

bool desk_keeps_up(struct desk *d)
{
	return !d->clerk || (!clerk_is_behind(d->clerk) && !(d->broken && whole_is_under_way(d)));
}

/* What is in the whole that is being composed is after what that has of it already. */
void desk_keep(struct desk *d, const char *name, json_t *value)
{
	struct whole *whole = &d->composed;

	if (!d->clerk)
		return;
	d->is_settled = false;
	look_at_disk(d);
	char *text = value ? json_text(value, JSON_COMPACT) : NULL;
	bool has_text = text || !value;
	uint64_t number = 0;
	if (whole->is_begun && has_text)
		pile_put(&whole->pile, str_of(name), str_of(text));
	whole->pile.bad |= whole->is_begun && !has_text;
	if (!d->broken && !whole->has_alone && has_text)
		number = clerk_put(d->clerk, str_of(name), str_of(text));
	free(text);
	if (number)
		d->handed = number;
	else if (whole->is_begun)
		whole->has_alone = true;
	else if (!whole_is_under_way(d))
		keep_whole(d, true);
	else {
		d->whole_wanted = true;
		d->missing = has_text && (d->broken || clerk_is_behind(d->clerk)) ? catches_up
										  : no_memory;
	}
}

/* Those that were erased before a save began which is done: nobody need erase them again. */
struct saved {
	uint64_t kept;
	json_t *gone; /* names */
};

static void find_saved(void *with, const char *name, json_t *value)
{
	struct saved *s = with;

	if ((uint64_t)json_integer_value(json_object_get(value, "save")) < s->kept)
		(void)json_array_append_new(s->gone, json_string(name));
}

static void forget_saved(struct desk *d)
{
	uint64_t begun;
	struct saved s;
	json_t *name;
	size_t i;

	keeper_saves(d->args.keeper, &begun, &s.kept);
	if (s.kept == d->saves_seen || !(s.gone = json_array()))
		return;
	d->saves_seen = s.kept;
	changes_each(d->changes, "reset:", find_saved, &s);
	json_array_foreach(s.gone, i, name)
	{
		(void)changes_remove(d->changes, json_string_value(name));
		desk_keep(d, json_string_value(name), NULL);
	}
	json_decref(s.gone);
}

uint64_t desk_save_now(const struct desk *d)
{
	uint64_t begun, kept;

	keeper_saves(d->args.keeper, &begun, &kept);
	return begun;
}

void desk_keep_tick(struct desk *d, usec_t steady)
{
	if (!d->clerk)
		return;
	forget_saved(d);
	uint64_t appended = journal_appended(d->journal), whole = journal_whole(d->journal);
	bool due = d->whole_wanted || d->broken ||
		   appended > (whole > APPENDED_MIN ? whole : APPENDED_MIN);
	if (due && steady - d->whole_at >= WHOLE_EVERY && !whole_is_under_way(d) &&
		!d->composed.is_begun)
		keep_whole(d, false);
}

/* ---- beginning and end ---- */

/* Before anything is served, and by this thread: it is known then that it can be written. */
static bool write_whole(struct desk *d, char *err, size_t err_size)
{
	struct pile pile = { 0 };
	bool good = journal_begin(d->journal, err, err_size);

	changes_each(d->changes, "", pile_change, &pile);
	if (good && pile.bad)
		good = err_say(err, err_size, "no memory to write changes: free some");
	if (good) {
		pile_write(d->journal, &pile);
		put_bans(d, d->journal);
		good = journal_replace(d->journal, err, err_size);
	}
	pile_fini(&pile);
	d->whole_at = clock_steady();
	return good;
}

bool desk_open(struct desk *d, char *err, size_t err_size)
{
	size_t n;
	char *notes = memory_store_notes(d->args.store, &n);

	d->journal = journal_new(d->args.state_file, memory_store_key(d->args.store));
	bool good = notes && d->journal;
	/* With notes, an earlier release was the last to write: they are newer than anything else.
	 */
	if (good && n)
		load_notes(d, notes, n);
	else if (good)
		good = load_journal(d, err, err_size);
	free(notes);
	if (!good)
		return false;
	changes_each(d->changes, "reset:", erase_again, d);
	if (!write_whole(d, err, err_size))
		return false;
	if (n && !memory_store_set_notes(d->args.store, "", 0))
		return err_say(err, err_size, "no memory to write the state file: free some");
	if (n && state_save(d->args.store, d->args.state_file, clock_read(), err, err_size) < 0)
		return false;
	d->clerk = clerk_new(&(struct clerk_args){
		.journal = d->journal,
		.rest = put_bans,
		.kept = on_kept,
		.with = d,
		.loop = d->args.loop,
	});
	return d->clerk != NULL;
}

bool desk_is_in_trouble(const struct desk *d, usec_t *since, const char **why)
{
	*since = d->broken_since;
	*why = d->broken_why;
	return d->broken;
}

static enum desk_end tell_lost(const struct desk *d, const char *why, enum desk_end end)
{
	log_error("changes_lost", KV_Z("file", journal_path(d->journal)), KV_Z("why", why),
		KV_Z("hint",
			"what operators changed last, and bans, may not be there at the next start"));
	return end;
}

/* All that was handed over, and the whole, if one was begun. */
static bool settle(struct desk *d, usec_t deadline)
{
	while (d->composed.is_begun)
		compose_piece(d);
	bool settled = clerk_settle(d->clerk, deadline);
	look_at_disk(d);
	return settled;
}

enum desk_end desk_settle(struct desk *d, usec_t deadline)
{
	enum desk_end end = DESK_KEPT;

	if (d->clerk) {
		forget_saved(d);
		bool settled = settle(d, deadline);
		/* There is no later time for what was to be written then. */
		if (settled && (d->whole_wanted || d->broken || d->missing)) {
			keep_whole(d, false);
			settled = settle(d, deadline);
		}
		on_kept(d);
		if (!settled)
			end = tell_lost(d, "the disk does not answer", DESK_HANGS);
		else if (d->broken || d->missing)
			end = tell_lost(d, d->broken ? d->broken_why : d->missing, DESK_LOST);
	}
	desk_end_waits(d);
	d->is_settled = true;
	return end;
}

void desk_close(struct desk *d)
{
	if (!d->is_settled)
		(void)desk_settle(d, clock_steady() + USEC_PER_DAY);
	desk_end_waits(d); /* what Redis was waited for until the end */
	clerk_free(d->clerk);
	journal_free(d->journal);
}
