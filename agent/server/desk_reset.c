/* Counters that begin anew: those of a rule are other ones from then on, those of one client are
 * written over in the store. */
#include "server/desk_inside.h"

#include "base/err.h"
#include "limit/penalty.h"
#include "server/keeper.h"

#include <stdio.h>
#include <string.h>

enum {
	RESETS_MAX = 1000, /* of single clients, that the other agents have to hear of, or the state
			    * file does not have yet */
	RESETS_MANY = 500, /* then it is written, though its time has not come */
	/* How long they can. Who has lost its connections for longer remembers no denials of
	 * before, but may have in its memory what stands in for Redis. */
	RESET_LIFE = 60, /* seconds */
};

bool desk_reset_rule(struct desk *d, const char *rule, struct act act, char *err, size_t err_size)
{
	char name[CHANGE_NAME_MAX];

	(void)snprintf(name, sizeof name, "epoch:%s", rule ? rule : "");
	json_int_t epoch = json_integer_value(
		json_object_get(changes_get(d->changes, name), "epoch"));
	json_t *value = json_pack("{s:I}", "epoch", (epoch + 1) & UINT32_MAX);
	if (!value)
		return err_say(err, err_size, "out of memory");
	bool good = desk_set(d, name, value, act, err, err_size);
	(void)snprintf(name, sizeof name, "%s%s", rule ? "rule:" : "all", rule ? rule : "");
	if (good)
		desk_audit(d, "reset", name, value, act);
	json_decref(value);
	return good;
}

/* ---- of one client ---- */

bool desk_is_reset(const char *name)
{
	return strncmp(name, "reset:", 6) == 0;
}

static void count(void *with, const char *name, json_t *value)
{
	(void)name;
	(void)value;
	++*(unsigned *)with;
}

bool desk_may_reset_client(struct desk *d, char *err, size_t err_size)
{
	unsigned n = 0;

	changes_each(d->changes, "reset:", count, &n);
	if (n >= RESETS_MANY && d->clerk)
		keeper_save_soon(d->args.keeper);
	if (n < RESETS_MAX)
		return desk_may_change(d, err, err_size);
	d->asks_to_wait = false;
	return err_say(err, err_size,
		"a thousand clients were reset just now: reset their rule, or wait a minute");
}

static void forget(struct desk *d, const struct key *key, unsigned n)
{
	if (d->args.erased)
		d->args.erased(d->args.with, key, n);
}

/* Others look for what has changed: one of the same counters in the same second is another one. On
 * disk it stands beside a state file that has these counters as they were. */
static void tell(struct desk *d, const struct key *key, unsigned n, struct act act)
{
	usec_t utc = clock_read().utc;
	json_t *value = change_reset(key, n, utc);
	char name[CHANGE_NAME_MAX], err[256];

	if (!value) {
		desk_keep_missed(d);
		return;
	}
	change_reset_name(key, n, name);
	if (d->args.share)
		(void)json_object_set_new(
			value, "until", json_integer(utc / USEC_PER_SEC + RESET_LIFE));
	if (d->clerk)
		(void)json_object_set_new(
			value, "save", json_integer((json_int_t)desk_save_now(d)));
	(void)json_object_set_new(value, "who", json_string(act.who));
	if (act.reason)
		(void)json_object_set_new(value, "reason", json_string(act.reason));
	/* Where there is no room here it comes back as news, which does no harm; or is kept, and
	 * forgotten when the whole is. */
	(void)changes_put(d->changes, name, value, err, sizeof err);
	desk_keep(d, name, value);
	desk_share(d, name, value);
	json_decref(value);
}

void desk_strikes(struct desk *d, const struct plan *counters, struct plan *strikes, usec_t utc)
{
	struct plan denied = *counters;
	uint8_t of[PLAN_MAX];

	for (unsigned i = 0; i < denied.n; i++) {
		denied.take[i].verdict = (struct verdict){ 0 };
		denied.take[i].cost = 1;
	}
	(void)plan_strikes(&denied, strikes, of);
	for (unsigned i = 0; i < strikes->n; i++) {
		struct key ban = take_ban_key(&denied.take[of[i]]);
		strikes_begin_anew(&strikes->take[i], bans_epoch(d->args.bans, &ban, utc));
	}
}

void desk_reset_counters(
	struct desk *d, const struct plan *plan, const struct plan *strikes, struct act act)
{
	struct key key[RESET_KEYS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < plan->n; i++)
		key[n++] = plan->take[i].key;
	for (unsigned i = 0; i < strikes->n; i++)
		key[n++] = strikes->take[i].key;
	forget(d, key, n);
	if ((d->args.share || d->clerk) && n)
		tell(d, key, n, act);
}

void desk_reset_done(struct desk *d, json_t *counters, bool in_part, struct act act)
{
	desk_audit(d, in_part ? "reset_in_part" : "reset", "counters", counters, act);
}

void desk_hear_reset(struct desk *d, json_t *value)
{
	struct key key[RESET_KEYS_MAX];

	forget(d, key, change_reset_keys(value, key));
}
