/* /api/v1/reload. */
#include "config/json.h"
#include "admin/body.h"
#include "admin/routes.h"

#include <ctype.h>
#include <stdlib.h>

/* "FILE:LINE: MESSAGE" in parts. Names of files may hold colons: the first ":NUMBER: " it is. */
static json_t *problem_json(const char *text, bool is_warning)
{
	static const char warning[] = "warning: ";
	for (const char *p = strchr(text, ':'); p; p = strchr(p + 1, ':')) {
		char *end;
		if (!isdigit((unsigned char)p[1]))
			continue;
		unsigned long line = strtoul(p + 1, &end, 10);
		if (end[0] != ':' || end[1] != ' ')
			continue;
		const char *message = end + 2;
		if (is_warning && strncmp(message, warning, sizeof warning - 1) == 0)
			message += sizeof warning - 1;
		return json_pack("{s:o, s:I, s:o}", "file",
			json_of((struct str){ text, (size_t)(p - text) }), "line", (json_int_t)line,
			"message", json_of(str_of(message)));
	}
	/* A warning of a file as a whole has no line. */
	const char *end = is_warning ? strstr(text, ": warning: ") : NULL;
	if (end)
		return json_pack("{s:o, s:n, s:o}", "file",
			json_of((struct str){ text, (size_t)(end - text) }), "line", "message",
			json_of(str_of(end + 2 + sizeof warning - 1)));
	return json_pack("{s:n, s:n, s:o}", "file", "line", "message", json_of(str_of(text)));
}

static json_t *problems_json(const struct problems *p, bool warnings)
{
	json_t *list = json_array();
	for (size_t i = 0; list && i < p->n; i++)
		if (p->is_warning[i] == warnings)
			(void)json_array_append_new(list, problem_json(p->message[i], warnings));
	return list;
}

static void reload(struct request *r, struct act act)
{
	const struct admin *a = request_context(r);
	struct reload reload;
	bool done = control_reload(a->control, act, &reload);
	json_t *warnings = problems_json(&reload.problems, true);
	if (done)
		request_reply_json(r, 200,
			json_pack("{s:I, s:o, s:o}", "generation", (json_int_t)reload.generation,
				"changed", json_of(str_of(reload.changed)), "warnings", warnings));
	else
		request_reply_problem(r, 422,
			json_pack("{s:s, s:s, s:i, s:s, s:I, s:o, s:o}", "type", "about:blank",
				"title", "Unprocessable Content", "status", 422, "detail",
				"the configuration is refused; the old one stays", "generation",
				(json_int_t)reload.generation, "errors",
				problems_json(&reload.problems, false), "warnings", warnings));
	reload_fini(&reload);
}

/* Its body may be left out, and hold a reason. */
void reload_now(struct request *r)
{
	static const char *const known[] = { "reason" };
	bool has_body = request_body(r).n != 0;
	json_t *body = has_body ? body_of(r) : NULL;
	const char *reason = has_body ? NULL : "";

	if (body && body_knows(r, body, known, 1))
		reason = body_reason(r, body);
	if (reason)
		reload(r, (struct act){ request_who(r), *reason ? reason : NULL });
	json_decref(body);
}
