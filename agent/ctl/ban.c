/* ban list, ban lift: whom penalties have banned. */
#include "ctl/ctl.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int show(const json_t *answer)
{
	static const struct column column[] = { { "ID", false }, { "RULE", false },
		{ "CLIENT", false }, { "ENDS IN", true }, { "BEFORE", true }, { "SINCE", false } };
	const json_t *list = json_object_get(answer, "bans"), *b;
	int64_t now = (int64_t)time(NULL), count = ctl_int(answer, "count");
	char text[TEXT_MAX];
	size_t i;

	if (!json_array_size(list)) {
		(void)puts("nobody is banned");
		return CTL_DONE;
	}
	struct table *t = table_new(column, sizeof column / sizeof *column);
	json_array_foreach(list, i, b)
	{
		table_put(t, ctl_text(b, "id"));
		table_put(t, ctl_text(b, "rule"));
		table_put(t, ctl_text(b, "client"));
		/* `until` is rounded up, and `now` down: one second less, and never none. */
		int64_t left = ctl_int(b, "until") - now - 1;
		table_put(t, text_seconds(left > 1 ? left : 1, text));
		table_int(t, ctl_int(b, "bans_before"));
		table_put(t, text_instant(ctl_int(b, "since"), text));
	}
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	if (count > (int64_t)json_array_size(list))
		(void)printf("... of %lld\n", (long long)count);
	return whole ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
}

static int list(struct ctl *c)
{
	json_t *answer;
	int status = ctl_ask(c, "GET", "/api/v1/bans", NULL, &answer);

	if (status != CTL_DONE)
		return status;
	status = ctl_given(c->o, CTL_JSON) ? ctl_print_json(answer, false) : show(answer);
	json_decref(answer);
	return status;
}

static int lift(struct ctl *c)
{
	json_t *body = ctl_change_body(c->o);

	if (!body)
		return CTL_USAGE;
	if (json_object_set_new(body, "id", json_string(c->o->word[1])) < 0) {
		json_decref(body);
		return ctl_fail(CTL_USAGE, "want an ID, as ratelimitctl ban list shows it");
	}
	int status = ctl_do(c, "DELETE", "/api/v1/bans", body);
	if (status == CTL_DONE && !ctl_given(c->o, CTL_JSON))
		(void)puts("lifted");
	return status;
}

int ctl_ban(struct ctl *c)
{
	const char *verb = c->o->word[0];

	if (strcmp(verb, "list") == 0 && c->o->words == 1)
		return list(c);
	if (strcmp(verb, "lift") == 0 && c->o->words == 2)
		return lift(c);
	return ctl_fail(CTL_USAGE, "want: ratelimitctl ban list, or: ratelimitctl ban lift ID");
}
