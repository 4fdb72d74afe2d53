/* events: what happens, as it happens. */
#include "ctl/ctl.h"
#include "config/json.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of a real 15 digits, which it keeps of a decimal: the time is the number that the agent wrote. In
 * ASCII, as in ctl_print_json(). */
#define EVENT_JSON (JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15))

static void put_clean(struct str s)
{
	char *clean = text_clean(s);

	(void)fputs(clean ? clean : "?", stdout);
	free(clean);
}

static void put_value(const json_t *v)
{
	if (json_is_string(v)) {
		put_clean((struct str){ json_string_value(v), json_string_length(v) });
	} else {
		char *text = json_text(v, EVENT_JSON);
		(void)fputs(text ? text : "?", stdout);
		free(text);
	}
}

/* What is in every line has places of its own. */
static bool has_place(const char *name)
{
	return strcmp(name, "time") == 0 || strcmp(name, "level") == 0 ||
	       strcmp(name, "event") == 0;
}

static void put_line(const json_t *event, const char *type)
{
	const json_t *when = json_object_get(event, "time");
	const char *what = ctl_text(event, "event"), *name;
	char at[TEXT_MAX];
	json_t *v;

	(void)printf("%s  ", text_instant(json_is_number(when) ? (int64_t)json_number_value(when)
							       : (int64_t)time(NULL),
				     at));
	put_clean(str_of(type));
	if (*what && strcmp(what, type) != 0) {
		(void)fputs("  ", stdout);
		put_clean(str_of(what));
	}
	json_object_foreach((json_t *)event, name, v)
	{
		if (has_place(name) || json_is_null(v))
			continue;
		(void)fputs("  ", stdout);
		put_clean(str_of(name));
		(void)putchar('=');
		put_value(v);
	}
	(void)putchar('\n');
}

static bool on_event(void *with, const char *type, const char *data)
{
	const struct ctl *c = with;
	json_t *event = json_loads(data, JSON_ALLOW_NUL, NULL);

	if (!*type)
		type = "message";
	if (!event)
		return true;
	if (ctl_given(c->o, CTL_JSON)) {
		if (!json_object_get(event, "type"))
			(void)json_object_set_new(event, "type", json_string(type));
		(void)json_dumpf(event, stdout, EVENT_JSON);
		(void)putchar('\n');
	} else {
		put_line(event, type);
	}
	json_decref(event);
	return fflush(stdout) == 0;
}

int ctl_events(struct ctl *c)
{
	const char *types = c->o->value[CTL_TYPES];
	char *escaped = types ? http_escape(types) : NULL, *path = NULL;
	struct reply reply;
	char why[512];

	if (!ctl_find(c)) {
		free(escaped);
		return CTL_USAGE;
	}
	int n = asprintf(
		&path, "/api/v1/events%s%s", types ? "?types=" : "", escaped ? escaped : "");
	free(escaped);
	if (n < 0)
		return ctl_fail(CTL_REFUSED, "out of memory");
	bool heard = http_events(&c->place, path, on_event, c, &reply, why, sizeof why);
	free(path);
	if (!heard)
		return ctl_away(c, why);
	if (reply.status != 200)
		return ctl_refused(c, &reply);
	return ctl_fail(CTL_AWAY, "the agent has ended its stream of events");
}
