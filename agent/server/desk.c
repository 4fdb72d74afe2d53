#include "server/desk.h"

#include "base/log.h"
#include "server/keeper.h"

#include <stdio.h>
#include <stdlib.h>

struct desk {
	struct desk_args args;
	struct changes *changes;
	bool behind; /* what is served does not have all changes yet */
};

static bool fail(char *err, size_t err_size, const char *why)
{
	(void)snprintf(err, err_size, "%s", why);
	return false;
}

/* ---- kept ---- */

static void load_notes(struct desk *d)
{
	size_t n;
	char *notes = memory_store_notes(d->args.store, &n);
	json_error_t e;
	json_t *all = notes && n ? json_loadb(notes, n, 0, &e) : NULL, *value;
	const char *name;
	char err[512];

	if (n && !json_is_object(all))
		log_error(
			"changes_lost", KV_Z("why", "what the state file has of them is no JSON"));
	json_object_foreach(all, name, value)
	{
		if (!changes_put(d->changes, name, value, err, sizeof err))
			log_error("changes_lost", KV_Z("change", name), KV_Z("why", err));
	}
	json_decref(all);
	free(notes);
}

static void gather(void *with, const char *name, json_t *value)
{
	(void)json_object_set(with, name, value);
}

static void keep(struct desk *d)
{
	json_t *all = json_object();
	changes_each(d->changes, "", gather, all);
	char *text = json_object_size(all) ? json_dumps(all, JSON_COMPACT) : strdup("");
	size_t n = text ? strlen(text) : 0;

	if (!text || n > NOTES_BYTES_MAX || !memory_store_set_notes(d->args.store, text, n))
		log_error("changes_not_kept",
			KV_Z("why", "out of memory: they hold until a restart"));
	else
		keeper_save_soon(d->args.keeper);
	free(text);
	json_decref(all);
}

struct desk *desk_new(const struct desk_args *args)
{
	struct desk *d = calloc(1, sizeof *d);

	if (!d)
		return NULL;
	d->args = *args;
	d->changes = changes_new();
	if (!d->changes) {
		free(d);
		return NULL;
	}
	load_notes(d);
	return d;
}

void desk_free(struct desk *d)
{
	if (!d)
		return;
	changes_free(d->changes);
	free(d);
}

const struct changes *desk_changes(const struct desk *d)
{
	return d->changes;
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
static bool serve(struct desk *d, const char *name, char *err, size_t err_size)
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

/* ---- by whom, and why ---- */

static void audit(const char *what, const char *name, json_t *value, struct act act)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

	log_warning("audit", KV_Z("what", what), KV_Z("change", name), KV_Z("who", act.who),
		KV_Z("reason", act.reason ? act.reason : ""), KV_Z("value", text ? text : ""));
	free(text);
}

bool desk_put(
	struct desk *d, const char *name, json_t *value, struct act act, char *err, size_t err_size)
{
	json_t *before = json_incref(changes_get(d->changes, name));
	char again[512];

	(void)json_object_set_new(value, "since", json_integer(clock_read().utc / USEC_PER_SEC));
	(void)json_object_set_new(value, "who", json_string(act.who));
	if (act.reason)
		(void)json_object_set_new(value, "reason", json_string(act.reason));
	bool good = changes_put(d->changes, name, value, err, err_size);
	if (good && !serve(d, name, err, err_size)) {
		good = false;
		if (before)
			(void)changes_put(d->changes, name, before, again, sizeof again);
		else
			(void)changes_remove(d->changes, name);
	}
	json_decref(before);
	if (!good)
		return false;
	keep(d);
	audit("put", name, value, act);
	return true;
}

bool desk_remove(struct desk *d, const char *name, struct act act, char *err, size_t err_size)
{
	json_t *before = json_incref(changes_get(d->changes, name));
	char again[512];

	if (!before)
		return fail(err, err_size, "there is none of that name");
	(void)changes_remove(d->changes, name);
	bool good = serve(d, NULL, err, err_size);
	if (good) {
		keep(d);
		audit("remove", name, before, act);
	} else {
		(void)changes_put(d->changes, name, before, again, sizeof again);
	}
	json_decref(before);
	return good;
}

bool desk_reset_rule(struct desk *d, const char *rule, struct act act, char *err, size_t err_size)
{
	char name[CHANGE_NAME_MAX];

	(void)snprintf(name, sizeof name, "epoch:%s", rule ? rule : "");
	json_int_t epoch = json_integer_value(
		json_object_get(changes_get(d->changes, name), "epoch"));
	json_t *value = json_pack("{s:I}", "epoch", (epoch + 1) & UINT32_MAX);
	if (!value)
		return fail(err, err_size, "out of memory");
	bool good = desk_put(d, name, value, act, err, err_size);
	json_decref(value);
	return good;
}

static void tell_end(void *with, const char *name, json_t *value)
{
	(void)with;
	audit("end", name, value, (struct act){ .who = "its time" });
}

void desk_tick(struct desk *d, usec_t utc)
{
	char err[256];
	int64_t now = utc / USEC_PER_SEC;

	if (!d->behind && changes_next_end(d->changes) > now)
		return;
	if (changes_end(d->changes, now, tell_end, NULL))
		keep(d);
	d->behind = !serve(d, NULL, err, sizeof err);
}
