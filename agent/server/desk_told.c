/* What the other agents say. */
#include "server/desk_inside.h"

#include "base/log.h"

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

/* One that was told: true: it is another one than is here. */
static bool take_told(struct desk *d, struct str name, struct str text)
{
	char z[CHANGE_NAME_MAX], err[512];
	json_t *value = json_loadb(text.p, text.n, 0, NULL);
	bool changed = false;

	if (!value || name.n >= sizeof z || memchr(name.p, '\0', name.n)) {
		json_decref(value);
		return false;
	}
	memcpy(z, name.p, name.n);
	z[name.n] = '\0';
	if (strncmp(z, "ban:", 4) == 0) {
		if (!desk_load_ban(d, z + 4, value))
			desk_share(d, z, NULL);
	} else if (!json_equal(changes_get(d->changes, z), value)) {
		changed = changes_put(d->changes, z, value, err, sizeof err);
		if (!changed)
			log_warning_every(USEC_PER_SEC, "change_not_understood", KV_Z("change", z),
				KV_Z("why", err));
		if (changed && desk_is_reset(z)) {
			desk_hear_reset(d, value);
			changed = false;
		}
	}
	json_decref(value);
	return changed;
}

void desk_told(struct desk *d, const struct str *name, const struct str *text, size_t n)
{
	bool changed = false;
	char err[256];

	if (!remove_gone(d, name, n, &changed))
		log_error("changes_not_taken_out", KV_Z("why", "out of memory"));
	for (size_t i = 0; i < n; i++)
		changed |= take_told(d, name[i], text[i]);
	if (!changed)
		return;
	log_info("changes_told", KV_INT("changes", changes_count(d->changes)));
	d->behind = !desk_serve(d, NULL, err, sizeof err);
}
