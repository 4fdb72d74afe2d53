#include "admin/asking.h"

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

bool asking_begin(struct asking *x, json_t *fields,
	void (*ready)(struct asking *, struct str tier, struct now))
{
	struct store *store = control_store(x->admin->control);
	struct now now = clock_read();
	char hash[7 + SHA256_HEX_BYTES], err[256];

	if (!explain_init(&x->explain, x->snapshot->policy, fields, err, sizeof err)) {
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
