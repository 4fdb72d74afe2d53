#include "server/desk_inside.h"

#include "base/log.h"
#include "config/json.h"

#include <stdio.h>
#include <stdlib.h>

static bool fail(char *err, size_t err_size, const char *why)
{
	(void)snprintf(err, err_size, "%s", why);
	return false;
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

/* What is no ban is left out. false: it is one of which nobody need know any more. */
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

bool desk_load_ban(struct desk *d, const char *id, json_t *value, bool was_kept)
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
		return true;
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
	(void)bans_put(d->args.bans, &b, utc);
	return b.forget_at > utc;
}

struct desk *desk_new(const struct desk_args *args, char *err, size_t err_size)
{
	struct desk *d = calloc(1, sizeof *d);

	(void)fail(err, err_size, "no memory or threads left: raise the limits of the service");
	if (!d)
		return NULL;
	d->args = *args;
	desk_init_waits(d);
	desk_init_keep(d);
	d->changes = changes_new();
	if (!d->changes || (args->state_file[0] && !desk_open(d, err, err_size))) {
		desk_free(d);
		return NULL;
	}
	return d;
}

void desk_free(struct desk *d)
{
	if (!d)
		return;
	desk_close(d);
	changes_free(d->changes);
	free(d);
}

const struct changes *desk_changes(const struct desk *d)
{
	return d->changes;
}

/* `value` NULL: it is no more. */
void desk_share(struct desk *d, const char *name, json_t *value)
{
	if (!d->args.share)
		return;
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	uint64_t number = text || !value ? d->args.share(d->args.with, name, text) : 0;
	d->untold = number == 0;
	if (number)
		d->told = number;
	free(text);
}

void desk_share_ban(struct desk *d, const struct ban *b)
{
	char name[4 + BAN_ID_BYTES + 1] = "ban:";
	json_t *value = desk_ban_json(b);

	ban_id(b, name + 4);
	if (value) {
		desk_keep(d, name, value);
		desk_share(d, name, value);
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

/* ---- applied ---- */

static void drop(struct snapshot *s)
{
	if (s && snapshot_unref(s))
		snapshot_free(s);
}

/* Warnings of the configuration itself were told when it was read: those of changes alone. (That
 * counters of a rule which is no more were reset once is nobody's concern.) */
static bool is_of_changes(const char *problem)
{
	return strncmp(problem, "override:", 9) == 0 || strncmp(problem, "switch:", 7) == 0;
}

struct snapshot *desk_apply(struct desk *d, struct snapshot *fresh)
{
	struct problems problems = { 0 };

	desk_hide_users(d, fresh->policy);
	if (changes_count(d->changes) == 0)
		return fresh;
	struct snapshot *s = config_rebuild(fresh, d->changes, fresh->generation, &problems);
	for (size_t i = 0; i < problems.n; i++)
		if (is_of_changes(problems.message[i]))
			log_warning("change_without_effect", KV_Z("problem", problems.message[i]));
	problems_free(&problems);
	if (!s) {
		log_error("changes_not_applied", KV_Z("why", "out of memory"));
		return fresh;
	}
	drop(fresh);
	return s;
}

/* What problems say of the change `name`; false: nothing. */
static bool says(const struct problems *p, const char *name, char *err, size_t err_size)
{
	static const char warning[] = ": warning: ";
	size_t n = strlen(name);

	for (size_t i = 0; i < p->n; i++) {
		const char *m = p->message[i];
		if (strncmp(m, name, n) != 0 || strncmp(m + n, warning, strlen(warning)) != 0)
			continue;
		(void)snprintf(err, err_size, "%s", m + n + strlen(warning));
		return true;
	}
	return false;
}

/* Serves by the changes as they are now. `name`: refused where that one is without effect; NULL: in
 * any case. */
bool desk_serve(struct desk *d, const char *name, char *err, size_t err_size)
{
	const struct snapshot *now = d->args.current(d->args.with);
	struct problems problems = { 0 };
	struct snapshot *s = config_rebuild(now, d->changes, now->generation + 1, &problems);
	bool good = s != NULL;

	if (!s)
		(void)fail(err, err_size, "out of memory");
	else if (name && says(&problems, name, err, err_size))
		good = false;
	else if (!d->args.publish(d->args.with, s))
		good = fail(err, err_size,
			"workers have not taken over the last changes yet: try again");
	problems_free(&problems);
	if (!good)
		drop(s);
	return good;
}

/* ---- by the operator ---- */

bool desk_set(
	struct desk *d, const char *name, json_t *value, struct act act, char *err, size_t err_size)
{
	char again[512];

	if (!desk_may_change(d, err, err_size))
		return false;
	json_t *before = json_incref(changes_get(d->changes, name));
	(void)json_object_set_new(value, "since", json_integer(clock_read().utc / USEC_PER_SEC));
	(void)json_object_set_new(value, "who", json_string(act.who));
	if (act.reason)
		(void)json_object_set_new(value, "reason", json_string(act.reason));
	bool good = changes_put(d->changes, name, value, err, err_size);
	if (good && !desk_serve(d, name, err, err_size)) {
		good = false;
		if (before)
			(void)changes_put(d->changes, name, before, again, sizeof again);
		else
			(void)changes_remove(d->changes, name);
	}
	json_decref(before);
	if (!good)
		return false;
	desk_keep(d, name, value);
	desk_share(d, name, value);
	return true;
}

bool desk_put(
	struct desk *d, const char *name, json_t *value, struct act act, char *err, size_t err_size)
{
	if (!desk_set(d, name, value, act, err, err_size))
		return false;
	desk_audit(d, "put", name, value, act);
	return true;
}

bool desk_remove(struct desk *d, const char *name, struct act act, char *err, size_t err_size)
{
	char again[512];

	if (!desk_may_change(d, err, err_size))
		return false;
	json_t *before = json_incref(changes_get(d->changes, name));
	if (!before)
		return fail(err, err_size, "nothing is set under this name");
	(void)changes_remove(d->changes, name);
	bool good = desk_serve(d, NULL, err, err_size);
	if (good) {
		desk_keep(d, name, NULL);
		desk_share(d, name, NULL);
		desk_audit(d, "remove", name, before, act);
	} else {
		(void)changes_put(d->changes, name, before, again, sizeof again);
	}
	json_decref(before);
	return good;
}

static void tell_again(void *with, const char *name, json_t *value)
{
	desk_share(with, name, value);
}

void desk_tell_again(struct desk *d)
{
	enum { AT_ONCE = 64 };
	struct ban ban[AT_ONCE];
	usec_t utc = clock_read().utc;
	uint64_t cursor = 0;
	size_t n;

	log_warning("changes_told_again", KV_INT("changes", changes_count(d->changes)),
		KV_INT("bans", bans_count(d->args.bans)), KV_Z("why", "Redis has lost them"));
	changes_each(d->changes, "", tell_again, d);
	while ((n = bans_copy(d->args.bans, &cursor, ban, AT_ONCE, utc)))
		for (size_t i = 0; i < n; i++)
			share_ban_if_room(d, &ban[i]);
}

struct ending {
	struct desk *desk;
	bool is_served; /* one of them had a part in what is */
};

static void tell_end(void *with, const char *name, json_t *value)
{
	struct ending *e = with;

	desk_keep(e->desk, name, NULL);
	desk_share(e->desk, name, NULL);
	if (desk_is_reset(name))
		return;
	e->is_served = true;
	desk_audit(e->desk, "end", name, value, (struct act){ .who = "its time" });
}

/* ---- bans ---- */

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

static void log_ended(const struct ban *b)
{
	char change[BAN_CHANGE_MAX], id[BAN_ID_BYTES + 1];

	ban_id(b, id);
	log_put_always(LOG_LEVEL_WARNING, "audit",
		LOG_FIELDS(KV_Z("what", "end"), KV_Z("change", ban_change(b, change)),
			KV_Z("who", "its time"), KV_Z("id", id), KV_Z("rule", b->rule)));
}

static void tell_bans(struct desk *d)
{
	struct ban b, now;

	for (unsigned n = 1; bans_next_begun(d->args.bans, &b); n++) {
		if (n == BANS_BEGUN_MAX) /* more began than are told of */
			desk_keep_whole_soon(d);
		/* As it is by now: it may have been lifted already, and that was told. */
		if (bans_get(d->args.bans, &b.key, &now))
			share_ban_if_room(d, &now);
		log_begun(&b);
	}
}

static void tell_ends_of_bans(struct desk *d, usec_t utc)
{
	enum { AT_ONCE = 64 };
	struct ban ban[AT_ONCE];
	uint64_t cursor = 0;
	size_t n;

	while ((n = bans_ended(d->args.bans, &cursor, ban, AT_ONCE, utc)))
		for (size_t i = 0; i < n; i++)
			log_ended(&ban[i]);
}

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
	enum { AT_ONCE = 256 };
	struct key key[AT_ONCE];
	char name[4 + BAN_ID_BYTES + 1] = "ban:";

	if (!has_shared_all(d))
		return;
	size_t n = bans_forget(d->args.bans, &d->forget_at, key, AT_ONCE, utc);
	for (size_t i = 0; i < n; i++) {
		key_format(&key[i], name + 4);
		desk_share(d, name, NULL);
	}
}

void desk_bans(struct desk *d, usec_t utc, void (*each)(void *with, const struct ban *), void *with)
{
	enum { AT_ONCE = 64 };
	struct ban ban[AT_ONCE];
	uint64_t cursor = 0;
	size_t n;

	while ((n = bans_copy(d->args.bans, &cursor, ban, AT_ONCE, utc)))
		for (size_t i = 0; i < n; i++)
			if (ban[i].until > utc)
				each(with, &ban[i]);
}

usec_t desk_banned_until(struct desk *d, const struct plan *plan, usec_t utc)
{
	return bans_find(d->args.bans, plan, utc);
}

bool desk_lift(struct desk *d, const char *id, struct act act)
{
	char change[BAN_CHANGE_MAX];
	struct ban b;

	if (!key_parse(id, &b.key) || !bans_lift(d->args.bans, &b.key, clock_read().utc) ||
		!bans_get(d->args.bans, &b.key, &b))
		return false;
	desk_share_ban(d, &b);
	json_t *value = json_pack("{s:s, s:o}", "id", id, "rule", json_of(str_of(b.rule)));
	desk_audit(d, "lift", ban_change(&b, change), value, act);
	json_decref(value);
	return true;
}

void desk_tick(struct desk *d, struct now at)
{
	char err[256];
	int64_t now = at.utc / USEC_PER_SEC;

	tell_ends_of_bans(d, at.utc); /* first: the next one of a client may have begun */
	tell_bans(d);
	forget_bans(d, at.utc);
	desk_keep_tick(d, at.steady);
	if (!d->behind && changes_next_end(d->changes) > now)
		return;
	struct ending ending = { .desk = d };
	(void)changes_end(d->changes, now, tell_end, &ending);
	if (!d->behind && !ending.is_served)
		return;
	d->behind = !desk_serve(d, NULL, err, sizeof err);
}
