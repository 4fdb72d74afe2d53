/* /api/v1/bans: whom penalties have banned. */
#include "admin/body.h"
#include "admin/keeping.h"
#include "config/json.h"
#include "admin/routes.h"

json_t *ban_json(const struct ban *b)
{
	char id[BAN_ID_BYTES + 1];

	ban_id(b, id);
	return json_pack("{s:s, s:o, s:o, s:I, s:I, s:I}", "id", id, "rule",
		json_of(str_of(b->rule)), "client", json_of(str_of(b->client)), "bans_before",
		(json_int_t)b->level, "since", (json_int_t)(b->since / USEC_PER_SEC), "until",
		(json_int_t)((b->until + USEC_PER_SEC - 1) / USEC_PER_SEC));
}

/* As many as anyone reads. */
enum { SHOWN_MAX = 1000 };

struct shown {
	json_t *list;
	unsigned all;
};

static void add_ban(void *with, const struct ban *b)
{
	struct shown *s = with;

	if (s->all++ < SHOWN_MAX)
		(void)json_array_append_new(s->list, ban_json(b));
}

void bans_show(struct request *r)
{
	const struct admin *a = request_context(r);
	struct shown s = { .list = json_array() };

	desk_bans(control_desk(a->control), clock_read().utc, add_ban, &s);
	request_reply_json(r, 200, json_pack("{s:i, s:o}", "count", (int)s.all, "bans", s.list));
}

void bans_remove(struct request *r)
{
	static const char *const known[] = { "id", "reason" };
	const struct admin *a = request_context(r);
	json_t *body = body_of(r);
	const char *id = body ? body_text(r, body, "id") : NULL;
	const char *reason = id ? body_reason(r, body) : NULL;

	if (reason && body_knows(r, body, known, sizeof known / sizeof *known)) {
		struct act act = { request_who(r), *reason ? reason : NULL };
		if (desk_lift(control_desk(a->control), id, act))
			reply_when_kept(r, json_pack("{s:s}", "lifted", id));
		else
			request_problem(r, 404,
				"no ban that holds has this id (`ratelimitctl ban list`, GET "
				"/api/v1/bans)");
	}
	json_decref(body);
}
