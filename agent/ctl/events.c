/* events: what happens, as it happens. */
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Is it one of "denied,reload"? */
static bool wanted(const char *types, const char *type)
{
	size_t n = strlen(type);

	for (const char *p = types; p && *p; p += strspn(p, ",")) {
		size_t len = strcspn(p, ",");
		if (len == n && memcmp(p, type, n) == 0)
			return true;
		p += len;
	}
	return !types;
}

static void put_clean(const char *z)
{
	char *clean = text_clean(str_of(z));

	(void)fputs(clean ? clean : "?", stdout);
	free(clean);
}

static void put_value(const json_t *v)
{
	if (json_is_string(v)) {
		put_clean(json_string_value(v));
	} else {
		char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
		(void)fputs(text ? text : "?", stdout);
		free(text);
	}
}

static bool on_event(void *with, const char *type, const char *data)
{
	const struct ctl *c = with;
	json_t *event = json_loads(data, JSON_DECODE_ANY, NULL), *v;
	const char *name;
	char at[TEXT_MAX];

	if (!*type)
		type = *ctl_text(event, "type") ? ctl_text(event, "type") : "message";
	if (!event || !wanted(c->o->value[CTL_TYPES], type)) {
		json_decref(event);
		return true;
	}
	if (ctl_given(c->o, CTL_JSON)) {
		if (json_is_object(event) && !json_object_get(event, "type"))
			(void)json_object_set_new(event, "type", json_string(type));
		(void)ctl_print_json(event, true);
	} else {
		const json_t *when = json_object_get(event, "time");
		int64_t seconds = json_is_number(when) ? (int64_t)json_number_value(when)
						       : (int64_t)time(NULL);
		(void)printf("%s  ", text_instant(seconds, at));
		put_clean(type);
		json_object_foreach(event, name, v)
		{
			if (strcmp(name, "type") == 0 || strcmp(name, "time") == 0 ||
				json_is_null(v))
				continue;
			(void)fputs("  ", stdout);
			put_clean(name);
			(void)putchar('=');
			put_value(v);
		}
		(void)putchar('\n');
	}
	json_decref(event);
	return fflush(stdout) == 0;
}

int ctl_events(struct ctl *c)
{
	struct reply reply;
	char why[512];

	if (!ctl_find(c))
		return CTL_USAGE;
	if (!http_events(&c->place, "/api/v1/events", on_event, c, &reply, why, sizeof why))
		return ctl_away(c, why);
	if (reply.status != 200)
		return ctl_refused(c, &reply);
	return ctl_fail(CTL_AWAY, "the agent has ended its stream of events");
}
