/* The desk's bans: kept, told, listed, lifted, and ended. What begins them is server/penalties.h.
 */
#include "server/desk_inside.h"

#include "base/log.h"
#include "config/json.h"
#include "server/ban_ends.h"
#include "server/ban_hide.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 64 };

/* So long ago everybody else must have forgotten it, too, unless his clock is a day behind. Who
 * knew it takes it out himself when he forgets it. */
#define FORGOTTEN_FOR USEC_PER_DAY

void desk_each_ban(
	struct desk *d, usec_t utc, void (*each)(void *with, const struct ban *), void *with)
{
	struct ban ban[AT_ONCE];
	uint64_t cursor = 0;
	size_t n;

	while ((n = bans_copy(d->args.bans, &cursor, ban, AT_ONCE, utc)))
		for (size_t i = 0; i < n; i++)
			each(with, &ban[i]);
}

/* ---- bans, as they are kept and told: "ban:ID" { … } ---- */

void ban_id(const struct ban *b, char out[BAN_ID_BYTES + 1])
{
	key_format(&b->key, out);
}

json_t *desk_ban_json(const struct ban *b)
{
	/* (The client says what he is called: it need not be UTF-8.) */
	return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "rule", json_of(str_of(b->rule)),
		"client", json_of(str_of(b->client)), "level", (json_int_t)b->level, "epoch",
		(json_int_t)b->epoch, "since", (json_int_t)b->since, "until", (json_int_t)b->until,
		"forget_at", (json_int_t)b->forget_at);
}

/* Sums of instants stay far from their end, whoever wrote them. */
#define INSTANT_MAX (INT64_C(1) << 53)

/* One that begins in the future by the clock of now begins now. */
static void begin_by_now(struct ban *b, usec_t utc)
{
	usec_t ahead = b->since - utc;

	if (ahead <= 0)
		return;
	if (b->until > b->since) /* it was not lifted */
		b->until -= ahead;
	b->since -= ahead;
	b->forget_at -= ahead;
}

void desk_share_ban(struct desk *d, const struct ban *b)
{
	char name[4 + BAN_ID_BYTES + 1] = "ban:";
	json_t *value = desk_ban_json(b);

	ban_id(b, name + 4);
	if (value) {
		desk_keep(d, name, value);
		desk_share(d, name, value);
	} else {
		desk_keep_missed(d);
	}
	json_decref(value);
}

/* What penalties tell leaves room for what the operator does: in a flood, with Redis away, there
 * are as many of them as anything has room for. */
static void share_ban_if_room(struct desk *d, const struct ban *b)
{
	enum { OPERATORS = 1000 };

	if (d->args.shared &&
		d->args.shared(d->args.with).waiting >= REDIS_CHANGES_WAITING_MAX - OPERATORS)
		log_warning_every(10 * USEC_PER_SEC, "ban_not_shared", KV_Z("client", b->client),
			KV_Z("why", "too many wait for Redis"));
	else
		desk_share_ban(d, b);
}

enum desk_ban desk_load_ban(struct desk *d, const char *id, json_t *value, bool was_kept)
{
	struct ban b = { 0 };
	const char *rule, *client;
	json_int_t level, epoch, since, until, forget_at;

	if (!key_parse(id, &b.key) ||
		json_unpack(value, "{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "rule", &rule, "client",
			&client, "level", &level, "epoch", &epoch, "since", &since, "until", &until,
			"forget_at", &forget_at) != 0 ||
		since < 0 || since > INSTANT_MAX || until < 1 || until > INSTANT_MAX ||
		forget_at > INSTANT_MAX)
		return DESK_BAN_UNREADABLE;
	snprintf(b.rule, sizeof b.rule, "%s", rule);
	snprintf(b.client, sizeof b.client, "%s", client);
	b.level = level >= 0 && level <= UINT16_MAX ? (uint32_t)level : 0;
	b.epoch = (uint32_t)(epoch & UINT32_MAX);
	b.since = since;
	b.until = until;
	b.forget_at = forget_at;
	usec_t utc = clock_read().utc;
	if (was_kept)
		begin_by_now(&b, utc);
	bool hidden = ban_hide(d->args.current(d->args.with)->policy, &b);
	(void)bans_put(d->args.bans, &b, utc);
	/* There it is to be hidden, too. (What an earlier run has kept is written anew.) */
	if (hidden && !was_kept && bans_get(d->args.bans, &b.key, &b))
		share_ban_if_room(d, &b);
	return b.forget_at > utc - FORGOTTEN_FOR ? DESK_BAN_LOADED : DESK_BAN_FORGOTTEN;
}

/* Whose client was told or begun in clear, and is secret by this policy. */
struct hiding {
	struct desk *desk;
	const struct policy *policy;
	bool any;
};

static void hide_ban(void *with, const struct ban *b)
{
	struct hiding *h = with;
	struct ban hidden = *b;

	if (!ban_hide(h->policy, &hidden) ||
		!bans_rename(h->desk->args.bans, &b->key, hidden.client))
		return;
	h->any = true;
	share_ban_if_room(h->desk, &hidden);
}

void desk_hide_bans(struct desk *d, const struct policy *p)
{
	struct hiding h = { .desk = d, .policy = p };

	if (bans_count(d->args.bans))
		desk_each_ban(d, clock_read().utc, hide_ban, &h);
	/* What was appended before has them in clear. */
	if (h.any)
		desk_keep_whole_soon(d);
}

static void tell_ban_again(void *with, const struct ban *b)
{
	share_ban_if_room(with, b);
}

void desk_tell_bans_again(struct desk *d)
{
	desk_each_ban(d, clock_read().utc, tell_ban_again, d);
}

/* ---- in the log ---- */

/* "ban:user=alice": a ban goes by its client in the log, as in the list of them. */
enum { BAN_CHANGE_MAX = BAN_CLIENT_MAX + 8 };
static const char *ban_change(const struct ban *b, char out[BAN_CHANGE_MAX])
{
	(void)snprintf(out, BAN_CHANGE_MAX, "ban:%s", b->client);
	return out;
}

static void log_begun(const struct ban *b)
{
	char who[RULE_NAME_MAX + 16], change[BAN_CHANGE_MAX], id[BAN_ID_BYTES + 1];

	snprintf(who, sizeof who, "rule %s", b->rule);
	ban_id(b, id);
	log_put_always(LOG_LEVEL_WARNING, "audit",
		LOG_FIELDS(KV_Z("what", "ban"), KV_Z("change", ban_change(b, change)),
			KV_Z("who", who), KV_Z("id", id),
			KV_INT("for_s", (b->until - b->since) / USEC_PER_SEC),
			KV_INT("until", (b->until + USEC_PER_SEC - 1) / USEC_PER_SEC),
			KV_INT("bans_before", b->level)));
}

/* `reason` NULL: none but that. */
static void log_ended(const struct ban *b, const char *who, const char *reason)
{
	char change[BAN_CHANGE_MAX], id[BAN_ID_BYTES + 1];

	ban_id(b, id);
	struct log_field field[7] = { KV_Z("what", "end"), KV_Z("change", ban_change(b, change)),
		KV_Z("who", who), KV_Z("id", id), KV_Z("rule", b->rule) };
	if (reason)
		field[5] = (struct log_field)KV_Z("reason", reason);
	log_put_always(LOG_LEVEL_WARNING, "audit", field);
}

/* ---- bans that no rule of the configuration knows any more ---- */

struct ending {
	struct desk *desk;
	const struct policy *now, *before;
	const char *who;
	usec_t utc;
};

static void end_if_unknown(void *with, const struct ban *b)
{
	const struct ending *e = with;
	struct ban ended;
	const char *why = b->until > e->utc ? ban_ends(e->now, e->before, b) : NULL;

	if (!why || !bans_lift(e->desk->args.bans, &b->key, e->utc))
		return;
	if (bans_get(e->desk->args.bans, &b->key, &ended))
		share_ban_if_room(e->desk, &ended);
	log_ended(b, e->who, why);
}

static void tell_bans(struct ending *e)
{
	struct desk *d = e->desk;
	struct ban b, now;

	for (unsigned n = 1; bans_next_begun(d->args.bans, &b); n++) {
		if (n == BANS_BEGUN_MAX) /* more began than are told of */
			desk_keep_whole_soon(d);
		/* By a worker that does not know yet what is secret. */
		if (ban_hide(e->now, &b))
			(void)bans_rename(d->args.bans, &b.key, b.client);
		/* As it is by now: it may have been lifted already, and that was told. */
		bool known = bans_get(d->args.bans, &b.key, &now);
		if (known)
			share_ban_if_room(d, &now);
		log_begun(&b);
		/* By a worker that had not taken over the reload yet. */
		if (known)
			end_if_unknown(e, &now);
	}
}

static void tell_ends_of_bans(struct desk *d, usec_t utc)
{
	struct ban ban[AT_ONCE];
	uint64_t cursor = 0;
	size_t n;

	while ((n = bans_ended(d->args.bans, &cursor, ban, AT_ONCE, utc)))
		for (size_t i = 0; i < n; i++)
			log_ended(&ban[i], "its time", NULL);
}

void desk_tell_bans(struct desk *d)
{
	usec_t utc = clock_read().utc;

	tell_ends_of_bans(d, utc); /* first: the next one of a client may have begun */
	tell_bans(&(struct ending){ .desk = d,
		.now = d->args.current(d->args.with)->policy,
		.who = "configuration",
		.utc = utc });
}

void desk_end_unknown_bans(
	struct desk *d, const struct policy *now, const struct policy *before, const char *who)
{
	struct ending e = { d, now, before, who, clock_read().utc };

	if (bans_count(d->args.bans) == 0)
		return;
	tell_bans(&e); /* in the log a ban begins before it ends */
	desk_each_ban(d, e.utc, end_if_unknown, &e);
}

/* ---- every second ---- */

static bool has_shared_all(struct desk *d)
{
	if (!d->args.shared)
		return false;
	struct redis_changes_state s = d->args.shared(d->args.with);
	return !s.away_since && !s.refused && !s.waiting;
}

/* Those that are kept for all agents go when they are forgotten: else there they would be for good,
 * and all read by each that starts. (While others hear nothing they wait: who is back reads all,
 * and takes them out.) */
static void forget_bans(struct desk *d, usec_t utc)
{
	enum { KEYS = 256 };
	struct key key[KEYS];
	char name[4 + BAN_ID_BYTES + 1] = "ban:";

	if (!has_shared_all(d))
		return;
	size_t n = bans_forget(d->args.bans, &d->forget_at, key, KEYS, utc);
	for (size_t i = 0; i < n; i++) {
		key_format(&key[i], name + 4);
		desk_share(d, name, NULL);
	}
}

struct showing {
	usec_t utc;
	void (*each)(void *with, const struct ban *);
	void *with;
};

static void show_if_it_holds(void *with, const struct ban *b)
{
	const struct showing *s = with;

	if (b->until > s->utc)
		s->each(s->with, b);
}

void desk_bans(struct desk *d, usec_t utc, void (*each)(void *with, const struct ban *), void *with)
{
	struct showing s = { utc, each, with };

	desk_each_ban(d, utc, show_if_it_holds, &s);
}

bool desk_find_ban(struct desk *d, const struct plan *plan, usec_t utc, struct ban *ban)
{
	unsigned take;
	struct key key;

	if (!bans_find(d->args.bans, plan, utc, &take))
		return false;
	key = take_ban_key(&plan->take[take]);
	return bans_get(d->args.bans, &key, ban) && ban->until > utc;
}

bool desk_lift(struct desk *d, const char *id, struct act act)
{
	char change[BAN_CHANGE_MAX];
	struct ban b;

	desk_tell_bans(d); /* in the log a ban begins before it is lifted */
	if (!key_parse(id, &b.key) || !bans_lift(d->args.bans, &b.key, clock_read().utc) ||
		!bans_get(d->args.bans, &b.key, &b))
		return false;
	desk_share_ban(d, &b);
	json_t *value = json_pack("{s:s, s:o}", "id", id, "rule", json_of(str_of(b.rule)));
	desk_audit(d, "lift", ban_change(&b, change), value, act);
	json_decref(value);
	return true;
}

void desk_tick_bans(struct desk *d, usec_t utc)
{
	desk_tell_bans(d);
	tell_ends_of_bans(d, utc);
	forget_bans(d, utc);
}
