/* Users and addresses that are secret: what was set for one while he was not, or by an agent whose
 * configuration does not say so, is kept by his hash from then on. */
#include "server/desk_inside.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* false: it is no override by a user or an address, or hashed already. */
static bool hidden_name(const char *name, char out[CHANGE_NAME_MAX])
{
	static const char *const by[] = { "user", "ip" };
	char subject[CHANGE_NAME_MAX], err[256];
	const char *who = name + strlen("override:");

	for (unsigned i = 0; i < 2; i++) {
		size_t n = strlen(by[i]);
		if (strncmp(who, by[i], n) != 0 || who[n] != ':' ||
			!change_subject(by[i], str_of(who + n + 1), true, subject, err, sizeof err))
			continue;
		(void)snprintf(
			out, CHANGE_NAME_MAX, "override:%.*s", CHANGE_NAME_MAX - 10, subject);
		return strcmp(out, name) != 0;
	}
	return false;
}

static void find_plain(void *with, const char *name, json_t *value)
{
	char hidden[CHANGE_NAME_MAX];
	(void)value;

	if (hidden_name(name, hidden))
		(void)json_array_append_new(with, json_string(name));
}

static json_int_t since(const json_t *value)
{
	return json_integer_value(json_object_get(value, "since"));
}

/* There may be one by the hash: of two agents, one may know already that this is secret. */
static void hide(struct desk *d, const char *name)
{
	char hidden[CHANGE_NAME_MAX], err[256];
	json_t *value = json_incref(changes_get(d->changes, name));

	(void)hidden_name(name, hidden);
	(void)changes_remove(d->changes, name);
	json_t *there = changes_get(d->changes, hidden);
	if (!there || since(there) < since(value)) {
		if (!changes_put(d->changes, hidden, value, err, sizeof err))
			log_error("changes_lost", KV_Z("change", hidden), KV_Z("why", err));
		desk_keep(d, hidden, value);
		desk_share(d, hidden, value);
	}
	desk_keep(d, name, NULL);
	desk_share(d, name, NULL);
	json_decref(value);
}

static bool hide_all(struct desk *d, const char *prefix)
{
	json_t *plain = json_array(), *name;
	size_t i;

	changes_each(d->changes, prefix, find_plain, plain);
	json_array_foreach(plain, i, name) hide(d, json_string_value(name));
	bool any = json_array_size(plain) > 0;
	json_decref(plain);
	return any;
}

void desk_hide_subjects(struct desk *d, const struct policy *p)
{
	bool any = false;

	if (p->secret >> FIELD_USER & 1)
		any |= hide_all(d, "override:user:");
	if (p->secret >> FIELD_IP & 1)
		any |= hide_all(d, "override:ip:");
	/* What was appended before has them in clear. */
	if (any)
		desk_keep_whole_soon(d);
}
