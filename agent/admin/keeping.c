#include "admin/keeping.h"

#include "admin/routes.h"
#include "config/json.h"

#include <stdio.h>
#include <stdlib.h>

struct keeping {
	struct desk_wait wait;   /* first */
	struct request *request; /* NULL: its peer is gone */
	json_t *answer;          /* a reference */
};

static void on_gone(void *arg)
{
	((struct keeping *)arg)->request = NULL;
}

static void warn(json_t *answer, const char *what, const char *why)
{
	json_t *list = json_object_get(answer, "warnings");
	char text[512];

	if (!list) {
		list = json_array();
		(void)json_object_set_new(answer, "warnings", list);
	}
	(void)snprintf(text, sizeof text, "%s: %s", what, why);
	(void)json_array_append_new(list, json_of(str_of(text)));
}

static void on_kept(struct desk_wait *w, const struct desk_kept *kept)
{
	struct keeping *k = (struct keeping *)w;

	if (kept->not_on_disk)
		warn(k->answer, "this holds, but ends with a restart: it is not on disk",
			kept->not_on_disk);
	if (kept->not_shared)
		warn(k->answer,
			"this holds at this agent alone, and ends with its restart, until Redis has it",
			kept->not_shared);
	if (k->request)
		request_reply_json(k->request, 200, json_incref(k->answer));
	json_decref(k->answer);
	free(k);
}

void reply_when_kept(struct request *r, json_t *answer)
{
	const struct admin *a = request_context(r);
	struct keeping *k = answer ? calloc(1, sizeof *k) : NULL;

	if (!k) {
		request_problem(r, 503, "it is done; no memory to say more");
		json_decref(answer);
		return;
	}
	k->wait.kept = on_kept;
	k->request = r;
	k->answer = answer;
	request_on_gone(r, on_gone, k);
	desk_when_kept(control_desk(a->control), &k->wait);
}
