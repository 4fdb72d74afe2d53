/* What was taken away last. A Redis that has lost the last of its data, as a replica that takes
 * over, still has it, and so has an agent that had not heard: what comes back as it was is taken
 * away again. */
#include "server/desk_inside.h"

#include <stdio.h>
#include <string.h>

#define AGAIN_WITHIN (10 * USEC_PER_SEC) /* of the loss: by then all agents have told */

/* Counters that began anew are forgotten by themselves, and ever again. */
void desk_gone_note(struct desk *d, const char *name, json_t *value)
{
	struct gone *g = &d->gone[d->gone_next];

	if (!value || desk_is_reset(name))
		return;
	json_decref(g->value);
	g->value = json_incref(value);
	(void)snprintf(g->name, sizeof g->name, "%s", name);
	d->gone_next = (d->gone_next + 1) % DESK_GONE_MAX;
}

void desk_gone_forget(struct desk *d, const char *name)
{
	for (unsigned i = 0; i < DESK_GONE_MAX; i++) {
		if (strcmp(d->gone[i].name, name) != 0)
			continue;
		json_decref(d->gone[i].value);
		d->gone[i] = (struct gone){ .value = NULL };
	}
}

bool desk_gone_is_back(const struct desk *d, const char *name, const json_t *value)
{
	if (!d->lost_at || clock_steady() - d->lost_at > AGAIN_WITHIN)
		return false;
	for (unsigned i = 0; i < DESK_GONE_MAX; i++)
		if (strcmp(d->gone[i].name, name) == 0 && json_equal(d->gone[i].value, value))
			return true;
	return false;
}

void desk_gone_fini(struct desk *d)
{
	for (unsigned i = 0; i < DESK_GONE_MAX; i++)
		json_decref(d->gone[i].value);
}
