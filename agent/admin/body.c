#include "admin/body.h"

#include "config/changes.h"

#include <string.h>

json_t *body_of(struct request *r)
{
	struct str body = request_body(r);
	json_error_t e;
	json_t *v = json_loadb(body.p ? body.p : "", body.n, JSON_REJECT_DUPLICATES, &e);

	if (json_is_object(v))
		return v;
	if (!v && json_error_code(&e) == json_error_out_of_memory)
		request_problem(r, 503, "out of memory");
	else if (v)
		request_problem(r, 400, "the body is no JSON object: want { … }");
	else
		request_problem(r, 400, "the body is no JSON: %s at byte %d", e.text, e.position);
	json_decref(v);
	return NULL;
}

const char *body_text(struct request *r, json_t *body, const char *name)
{
	json_t *v = json_object_get(body, name);

	if (!v || json_is_null(v))
		return "";
	if (json_is_string(v)) /* without NUL: body_of() lets none in */
		return json_string_value(v);
	request_problem(r, 422, "%s: want a text", name);
	return NULL;
}

const char *body_reason(struct request *r, json_t *body)
{
	const char *reason = body_text(r, body, "reason");

	if (reason && strlen(reason) > CHANGE_REASON_MAX) {
		request_problem(
			r, 422, "reason: want a text of at most %d bytes", CHANGE_REASON_MAX);
		return NULL;
	}
	return reason;
}

bool body_knows(struct request *r, json_t *body, const char *const *known, size_t n)
{
	const char *name;
	json_t *v;

	json_object_foreach(body, name, v)
	{
		size_t i = 0;
		while (i < n && strcmp(name, known[i]) != 0)
			i++;
		if (i == n) {
			request_problem(r, 422, "\"%.64s\": no such member", name);
			return false;
		}
	}
	return true;
}

json_t *body_fields(json_t *body, const char *const *known, size_t n)
{
	json_t *fields = json_object_get(body, "fields");

	if (fields)
		return json_incref(fields);
	fields = json_copy(body);
	if (json_object_size(fields) != json_object_size(body)) {
		/* No memory. What was asked of one client is not done to all: this is refused. */
		json_decref(fields);
		return json_null();
	}
	for (size_t i = 0; i < n; i++)
		(void)json_object_del(fields, known[i]);
	if (json_object_size(fields))
		return fields;
	json_decref(fields);
	return NULL;
}
