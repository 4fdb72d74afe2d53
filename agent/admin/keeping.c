#include "admin/keeping.h"

#include "admin/routes.h"

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

static void warn(json_t *answer, const char *why)
{
	json_t *list = json_object_get(answer, "warnings");

	if (!list) {
		list = json_array();
		(void)json_object_set_new(answer, "warnings", list);
	}
	(void)json_array_append_new(list,
		json_sprintf("this holds, but ends with a restart: it is not on disk: %s", why));
}

static void on_kept(struct desk_wait *w, const char *why)
{
	struct keeping *k = (struct keeping *)w;

	if (why)
		warn(k->answer, why);
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
