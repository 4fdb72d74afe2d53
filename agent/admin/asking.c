#include "admin/asking.h"

#include "server/known.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { ASKING_MAX = 64 }; /* that wait for the store, those of peers that are gone included */

struct asking *asking_new(struct request *r, size_t size)
{
	struct admin *a = request_context(r);
	struct asking *x = a->asking < ASKING_MAX ? calloc(1, size) : NULL;

	if (!x) {
		request_problem(r, 503, "too many wait for the store, or no memory: try again");
		return NULL;
	}
	a->asking++;
	x->admin = a;
	x->request = r;
	x->snapshot = control_hold_snapshot(a->control);
	return x;
}

void asking_end(struct asking *x)
{
	x->admin->asking--;
	explain_fini(&x->explain);
	control_drop_snapshot(x->snapshot);
	free(x);
}

static void on_gone(void *arg)
{
	((struct asking *)arg)->request = NULL;
}

static void on_tier(struct tier_ask *ask)
{
	struct asking *x = (struct asking *)((char *)ask - offsetof(struct asking, ask));

	x->ready(x, (struct str){ ask->tier.text, ask->tier.length }, ask->now);
}

/* Who the client is, as server/check.c asks for a tier; of a key the hash will do. */
static bool may_know_tier(struct asking *x, char hash[7 + SHA256_HEX_BYTES])
{
	static const uint8_t by[] = { FIELD_KEY, FIELD_USER };
	const struct view *v = &x->explain.view;
	struct tier_ask *ask = &x->ask;

	if (!control_store(x->admin->control)->ops->find_tier || view_has(v, FIELD_TIER))
		return false;
	for (unsigned i = 0; i < 2; i++) {
		if (!view_has(v, by[i]))
			continue;
		ask->name[ask->n] = v->text[by[i]];
		if (v->hashed >> by[i] & 1) {
			memcpy(hash, "sha256:", 7);
			memcpy(hash + 7, v->text[by[i]].p, SHA256_HEX_BYTES);
			ask->name[ask->n] = (struct str){ hash, 7 + SHA256_HEX_BYTES };
			ask->is_hash = true;
		}
		ask->secret[ask->n] = x->explain.policy->secret >> by[i] & 1 &&
				      !(v->hashed >> by[i] & 1);
		ask->n++;
	}
	ask->done = on_tier;
	return ask->n != 0;
}

/* A key that is said by the first digits of its hash, as lists and lines have it, is said by all of
 * them in `*said`; else these are the fields as they are. A reference. false: `err` says why not.
 */
static bool say_whole_hash(
	const struct asking *x, json_t *fields, json_t **said, char *err, size_t size)
{
	json_t *key = json_object_get(fields, "key");
	struct str digits = hash_said_in_part(
		(struct str){ json_string_value(key), json_string_length(key) });
	char lower[SHA256_HEX_BYTES], text[7 + SHA256_HEX_BYTES] = "sha256:";

	*said = json_incref(fields);
	if (!digits.n || !(x->snapshot->policy->secret >> FIELD_KEY & 1))
		return true;
	for (size_t i = 0; i < digits.n; i++)
		lower[i] = (char)tolower((unsigned char)digits.p[i]);
	switch (known_hash(
		control_known(x->admin->control), (struct str){ lower, digits.n }, text + 7)) {
	case 0:
		(void)snprintf(err, size,
			"key: no key whose hash begins so was seen by this agent lately: want all 64 "
			"digits after sha256:, or the key itself");
		return false;
	case 1:
		break;
	default:
		(void)snprintf(err, size,
			"key: several keys have a hash that begins so: want all 64 digits after "
			"sha256:, or the key itself");
		return false;
	}
	json_decref(*said);
	*said = json_copy(fields);
	if (json_object_set_new(*said, "key", json_stringn(text, sizeof text)) == 0)
		return true;
	(void)snprintf(err, size, "out of memory");
	return false;
}

/* false: `err` says why. */
static bool look_at_fields(struct asking *x, json_t *fields, char *err, size_t size)
{
	json_t *said;
	bool good = say_whole_hash(x, fields, &said, err, size) &&
		    explain_init(&x->explain, x->snapshot->policy, said, err, size);

	x->explain.known = (struct by_hash){ known_find, control_known(x->admin->control) };
	json_decref(said);
	return good;
}

bool asking_begin(struct asking *x, json_t *fields,
	void (*ready)(struct asking *, struct str tier, struct now))
{
	struct store *store = control_store(x->admin->control);
	struct now now = clock_read();
	char hash[7 + SHA256_HEX_BYTES], err[256];

	if (!look_at_fields(x, fields, err, sizeof err)) {
		request_problem(x->request, 422, "%s", err);
		return false;
	}
	x->ready = ready;
	request_on_gone(x->request, on_gone, x);
	if (may_know_tier(x, hash) && store->ops->find_tier(store, &x->ask, now) == STORE_PENDING)
		return true;
	x->ask.now = now;
	on_tier(&x->ask);
	return true;
}
