/* What the other agents say. */
#include "server/desk_inside.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct telling {
	struct str *name; /* owned; by_name() */
	size_t n;
	json_t *gone; /* names */
};

static int by_name(const void *a, const void *b)
{
	const struct str *x = a, *y = b;
	int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
	return order ? order : (x->n > y->n) - (x->n < y->n);
}

static void find_gone(void *with, const char *name, json_t *value)
{
	struct telling *t = with;
	struct str wanted = str_of(name);
	(void)value;

	if (!bsearch(&wanted, t->name, t->n, sizeof wanted, by_name))
		(void)json_array_append_new(t->gone, json_string(name));
}

/* false: out of memory. Texts that are missing have no name, either. */
static bool remove_gone(struct desk *d, const struct str *name, size_t n, bool *changed)
{
	struct telling t = { malloc((n + 1) * sizeof *name), 0, json_array() };
	json_t *gone;
	size_t i;

	for (i = 0; t.name && i < n; i++)
		if (name[i].p)
			t.name[t.n++] = name[i];
	if (t.name && t.gone) {
		qsort(t.name, t.n, sizeof *t.name, by_name);
		changes_each(d->changes, "", find_gone, &t);
	}
	json_array_foreach(t.gone, i, gone)
	{
		const char *z = json_string_value(gone);
		*changed |= changes_remove(d->changes, z) && !desk_is_reset(z);
	}
	bool good = t.name && t.gone;
	json_decref(t.gone);
	free(t.name);
	return good;
}

/* What was told and is left alone. */
struct unread {
	unsigned n;
	char name[CHANGE_NAME_MAX], why[512]; /* of the first */
};

static void not_understood(struct unread *u, const char *name, const char *why)
{
	if (u->n++)
		return;
	snprintf(u->name, sizeof u->name, "%s", name);
	snprintf(u->why, sizeof u->why, "%s", why);
}

static void tell_unread(const struct unread *u)
{
	if (u->n)
		log_warning_every(USEC_PER_SEC, "change_not_understood", KV_Z("change", u->name),
			KV_Z("why", u->why), KV_INT("others", u->n - 1));
}

static bool take_value(struct desk *d, const char *name, json_t *value, struct unread *unread)
{
	char err[512];

	if (strncmp(name, "ban:", 4) == 0) {
		if (!change_format_is_known(value, err, sizeof err))
			not_understood(unread, name, err);
		else if (desk_load_ban(d, name + 4, value, false) == DESK_BAN_FORGOTTEN)
			desk_share(d, name, NULL);
		return false;
	}
	if (json_equal(changes_get(d->changes, name), value))
		return false;
	if (desk_gone_is_back(d, name, value)) {
		desk_share(d, name, NULL);
		return false;
	}
	desk_gone_forget(d, name);
	if (!changes_put(d->changes, name, value, err, sizeof err)) {
		not_understood(unread, name, err);
		/* What was known of that name is no more, and must not come back in its place. */
		return changes_remove(d->changes, name) && !desk_is_reset(name);
	}
	if (!desk_is_reset(name))
		return true;
	desk_hear_reset(d, value);
	return false;
}

static void forget_ban(struct desk *d, const char *id)
{
	struct key key;
	struct ban ban;

	if (!key_parse(id, &key))
		return;
	/* Who forgot it knew an older one: an agent that starts is to hear of this one, too. */
	if (bans_forget_one(d->args.bans, &key, clock_read().utc, &ban))
		desk_share_ban(d, &ban);
}

/* One that was told: true: what is served is another one by it. */
static bool take_told(struct desk *d, struct str name, struct str text, struct unread *unread)
{
	char z[CHANGE_NAME_MAX];

	if (name.n >= sizeof z || memchr(name.p, '\0', name.n))
		return false;
	memcpy(z, name.p, name.n);
	z[name.n] = '\0';
	if (!text.p && strncmp(z, "ban:", 4) == 0)
		forget_ban(d, z + 4);
	if (!text.p) {
		desk_gone_note(d, z, changes_get(d->changes, z));
		return changes_remove(d->changes, z) && !desk_is_reset(z);
	}
	json_t *value = json_loadb(text.p, text.n, 0, NULL);
	bool changed = value && take_value(d, z, value, unread);

	if (!value)
		not_understood(unread, z, "it is no JSON");
	json_decref(value);
	return changed;
}

static void serve_told(struct desk *d)
{
	char err[256];

	log_info("changes_told", KV_INT("changes", changes_count(d->changes)));
	desk_hide_subjects(d, d->args.current(d->args.with)->policy);
	d->behind = !desk_serve(d, NULL, err, sizeof err);
}

void desk_news(struct desk *d, const struct str *name, const struct str *text, size_t n)
{
	struct unread unread = { 0 };
	bool changed = false;

	for (size_t i = 0; i < n; i++)
		changed |= take_told(d, name[i], text[i], &unread);
	tell_unread(&unread);
	if (changed)
		serve_told(d);
}

void desk_told(struct desk *d, const struct str *name, const struct str *text, size_t n)
{
	struct unread unread = { 0 };
	bool changed = false;

	if (!remove_gone(d, name, n, &changed))
		log_error("changes_not_taken_out", KV_Z("why", "out of memory"));
	for (size_t i = 0; i < n; i++)
		if (name[i].p && text[i].p)
			changed |= take_told(d, name[i], text[i], &unread);
	tell_unread(&unread);
	if (changed)
		serve_told(d);
}
