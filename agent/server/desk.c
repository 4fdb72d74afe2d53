#include "server/desk_inside.h"

#include "base/err.h"
#include "base/log.h"
#include "config/json.h"
#include "config/problems.h"

#include <stdio.h>
#include <stdlib.h>

struct desk *desk_new(const struct desk_args *args, char *err, size_t err_size)
{
	struct desk *d = calloc(1, sizeof *d);

	(void)err_say(err, err_size, "no memory or threads left: raise the limits of the service");
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
	json_decref(d->idle);
	desk_gone_fini(d);
	changes_free(d->changes);
	free(d);
}

bool desk_asks_to_wait(const struct desk *d)
{
	return d->asks_to_wait;
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
	char *text = value ? json_text(value, JSON_COMPACT) : NULL;
	uint64_t number = text || !value ? d->args.share(d->args.with, name, text) : 0;
	d->untold = number == 0;
	if (number)
		d->told = number;
	free(text);
}

/* ---- applied ---- */

static void drop(struct snapshot *s)
{
	if (s && snapshot_unref(s))
		snapshot_free(s);
}

/* What was said when this was built is true as long as it is served. */
static void take_idle(struct desk *d, json_t *idle)
{
	json_decref(d->idle);
	d->idle = idle;
}

enum { IDLE_LINES = 100 }; /* of the log, at one reload */

/* (That counters of a rule which is no more were reset once is nobody's concern.) */
static void tell_idle(const json_t *said, struct problems *idle)
{
	const char *name;
	size_t lines = 0;
	json_t *list, *text;
	size_t i;

	json_object_foreach((json_t *)(uintptr_t)said, name, list)
	{
		if (strncmp(name, "epoch:", 6) == 0)
			continue;
		json_array_foreach(list, i, text)
		{
			if (lines++ < IDLE_LINES)
				log_warning("change_without_effect", KV_Z("change", name),
					KV_Z("problem", json_string_value(text)));
			if (idle)
				problem_warn(idle, (struct place){ name, 0 }, "%s",
					json_string_value(text));
		}
	}
	if (lines > IDLE_LINES)
		log_warning("changes_without_effect", KV_INT("more", (int64_t)(lines - IDLE_LINES)),
			KV_Z("hint", "ratelimitctl override list names them all"));
}

struct snapshot *desk_apply(struct desk *d, struct snapshot *fresh, struct problems *idle)
{
	struct problems problems = { 0 };

	desk_hide_subjects(d, fresh->policy);
	desk_hide_bans(d, fresh->policy);
	take_idle(d, json_object());
	if (changes_count(d->changes) == 0)
		return fresh;
	struct snapshot *s = config_rebuild(
		fresh, d->changes, fresh->generation, &problems, d->idle);
	problems_free(&problems); /* of the configuration: they were told when it was read */
	tell_idle(d->idle, idle);
	if (!s) {
		log_error("changes_not_applied", KV_Z("why", "out of memory"),
			KV_Z("hint", "until it is tried again, every second, none of them holds"));
		d->behind = true;
		return fresh;
	}
	drop(fresh);
	return s;
}

json_t *desk_warnings(const struct desk *d, const char *name)
{
	return json_deep_copy(json_object_get(d->idle, name));
}

/* Serves by the changes as they are now. `name`: refused where that one is without effect; NULL: in
 * any case. */
bool desk_serve(struct desk *d, const char *name, char *err, size_t err_size)
{
	const struct snapshot *now = d->args.current(d->args.with);
	struct problems problems = { 0 };
	json_t *idle = json_object(), *said;
	struct snapshot *s = config_rebuild(now, d->changes, now->generation + 1, &problems, idle);
	bool fits = true, good = false;

	if (name && (said = json_array_get(json_object_get(idle, name), 0)))
		fits = err_say(err, err_size, "%s", json_string_value(said));
	if (!s || !idle)
		(void)err_say(err, err_size, "out of memory");
	else if (fits && d->args.publish(d->args.with, s))
		good = true;
	else if (fits)
		(void)err_say(err, err_size,
			"workers have not taken over the last changes yet: try again");
	d->asks_to_wait = !good && (!s || !idle || fits);
	problems_free(&problems);
	if (good) {
		take_idle(d, idle);
	} else {
		json_decref(idle);
		drop(s);
	}
	return good;
}

/* ---- by the operator ---- */

bool desk_set(
	struct desk *d, const char *name, json_t *value, struct act act, char *err, size_t err_size)
{
	struct change_out before;

	if (!desk_may_change(d, err, err_size))
		return false;
	bool good = json_object_set_new(
			    value, "since", json_integer(clock_read().utc / USEC_PER_SEC)) == 0 &&
		    json_object_set_new(value, "who", json_string(act.who)) == 0 &&
		    (!act.reason ||
			    json_object_set_new(value, "reason", json_string(act.reason)) == 0);
	if (!good)
		return err_say(err, err_size, "out of memory");
	changes_take(d->changes, name, &before);
	good = changes_put(d->changes, name, value, err, err_size) &&
	       desk_serve(d, name, err, err_size);
	if (!good)
		changes_put_back(d->changes, name, &before);
	change_out_fini(&before);
	if (!good)
		return false;
	desk_gone_forget(d, name);
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
	struct change_out before;

	if (!desk_may_change(d, err, err_size))
		return false;
	changes_take(d->changes, name, &before);
	if (!before.name)
		return err_say(err, err_size, "nothing is set under this name");
	bool good = desk_serve(d, NULL, err, err_size);
	if (good) {
		desk_gone_note(d, name, before.value);
		desk_keep(d, name, NULL);
		desk_share(d, name, NULL);
		desk_audit(d, "remove", name, before.value, act);
	} else {
		changes_put_back(d->changes, name, &before);
	}
	change_out_fini(&before);
	return good;
}

static void tell_again(void *with, const char *name, json_t *value)
{
	desk_share(with, name, value);
}

void desk_tell_again(struct desk *d)
{
	log_warning("changes_told_again", KV_INT("changes", changes_count(d->changes)),
		KV_INT("bans", bans_count(d->args.bans)), KV_Z("why", "Redis has lost them"));
	d->lost_at = clock_steady();
	changes_each(d->changes, "", tell_again, d);
	desk_tell_bans_again(d);
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

void desk_tick(struct desk *d, struct now at)
{
	char err[256];
	int64_t now = at.utc / USEC_PER_SEC;

	desk_tick_bans(d, at.utc);
	desk_keep_tick(d, at.steady);
	if (!d->behind && changes_next_end(d->changes) > now)
		return;
	struct ending ending = { .desk = d };
	(void)changes_end(d->changes, now, tell_end, &ending);
	if (!d->behind && !ending.is_served)
		return;
	d->behind = !desk_serve(d, NULL, err, sizeof err);
}
