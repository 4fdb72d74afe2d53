/* Users that are secret: what was set for one while he was not, or by an agent whose configuration
 * does not say so, is kept by his hash from then on. */
#include "server/desk_inside.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

static const char override_user[] = "override:user:";

/* false: it is no override by a user, or hashed already. */
static bool hidden_name(const char *name, char out[CHANGE_NAME_MAX])
{
	const size_t n = strlen(override_user);
	char subject[CHANGE_NAME_MAX], err[256];

	if (strncmp(name, override_user, n) != 0 ||
		!change_subject("user", str_of(name + n), true, subject, err, sizeof err))
		return false;
	(void)snprintf(out, CHANGE_NAME_MAX, "override:%.*s", CHANGE_NAME_MAX - 10, subject);
	return strcmp(out, name) != 0;
}

static void find_plain(void *with, const char *name, json_t *value)
{
	char hidden[CHANGE_NAME_MAX];
	(void)value;

	if (hidden_name(name, hidden))
		(void)json_array_append_new(with, json_string(name));
}

/* Where there is one by the hash, that is the newer: since then none was made in clear. */
static void hide(struct desk *d, const char *name)
{
	char hidden[CHANGE_NAME_MAX], err[256];
	json_t *value = json_incref(changes_get(d->changes, name));

	(void)hidden_name(name, hidden);
	(void)changes_remove(d->changes, name);
	if (!changes_get(d->changes, hidden)) {
		if (!changes_put(d->changes, hidden, value, err, sizeof err))
			log_error("changes_lost", KV_Z("change", hidden), KV_Z("why", err));
		desk_keep(d, hidden, value);
		desk_share(d, hidden, value);
	}
	desk_keep(d, name, NULL);
	desk_share(d, name, NULL);
	json_decref(value);
}

void desk_hide_users(struct desk *d, const struct policy *p)
{
	json_t *plain = p->secret >> FIELD_USER & 1 ? json_array() : NULL, *name;
	size_t i;

	if (!plain)
		return;
	changes_each(d->changes, override_user, find_plain, plain);
	json_array_foreach(plain, i, name) hide(d, json_string_value(name));
	/* What was appended before has them in clear. */
	if (json_array_size(plain))
		desk_keep_whole_soon(d);
	json_decref(plain);
}
