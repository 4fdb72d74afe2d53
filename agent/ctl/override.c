/* override add, list, remove. */
#include "base/hash.h"
#include "ctl/ctl.h"
#include "ctl/table.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>

/* {"user": NAME} and the like into `body`; a key as its hash: in clear it is nobody's business.
 * false: said why. */
static bool add_subject(const struct ctl_options *o, json_t *body)
{
	char hex[7 + SHA256_HEX_BYTES + 1] = "sha256:", said[SHA256_HEX_BYTES];
	json_t *fields = o->words == 2 ? ctl_fields(o, 1, false) : NULL;
	const char *key = ctl_text(fields, "key");

	if (o->words != 2)
		(void)ctl_fail(0, "want for whom: user=NAME, key=- or ip=ADDRESS");
	if (!fields)
		return false;
	if (!*ctl_text(fields, "user") && !*ctl_text(fields, "ip") && !*key) {
		(void)ctl_fail(
			0, "\"%s\": want user=NAME, key=- or ip=ADDRESS, not empty", o->word[1]);
		json_decref(fields);
		return false;
	}
	if (*key && hash_said(str_of(key), said) == HASH_NOT_SAID) {
		hash_sha256_hex(str_of(key), hex + 7);
		(void)json_object_set_new(fields, "key", json_string(hex));
	}
	(void)json_object_update(body, fields);
	json_decref(fields);
	return true;
}

/* --rate RULE=RATE, each; several of one rule are a list. false: said why. */
static bool add_rates(const struct ctl_options *o, json_t *body)
{
	json_t *rates = json_object();
	bool good = true;

	for (size_t i = 0; i < o->rates && good; i++) {
		const char *equals = strrchr(o->rate[i], '='); /* a rule's name may have some */
		char *rule = equals ? strndup(o->rate[i], (size_t)(equals - o->rate[i])) : NULL;
		json_t *list = rule ? json_object_get(rates, rule) : NULL;
		if (rule && *rule && !list &&
			json_object_set_new(rates, rule, list = json_array()) < 0)
			list = NULL;
		good = list && json_array_append_new(list, json_string(equals + 1)) == 0;
		if (!good)
			(void)ctl_fail(
				0, "--rate %s: want RULE=RATE, like api=100/minute", o->rate[i]);
		free(rule);
	}
	if (o->rates && good)
		(void)json_object_set(body, "rates", rates);
	json_decref(rates);
	return good;
}

/* "tier premium", "api 100/minute", "bypass". free() it. */
static char *describe(const json_t *o)
{
	const json_t *rates = json_object_get(o, "rates"), *rate;
	const char *rule;
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	if (*ctl_text(o, "tier"))
		(void)fprintf(f, "tier %s", ctl_text(o, "tier"));
	else if (json_is_true(json_object_get(o, "bypass")))
		(void)fputs("bypass", f);
	else if (json_is_true(json_object_get(o, "block")))
		(void)fputs("block", f);
	const char *separator = "";
	json_object_foreach((json_t *)rates, rule, rate)
	{
		(void)fprintf(f, "%s%s ", separator, rule);
		if (json_is_string(rate))
			(void)fputs(json_string_value(rate), f);
		for (size_t i = 0; i < json_array_size(rate); i++)
			(void)fprintf(f, "%s%s", i ? " and " : "",
				json_string_value(json_array_get(rate, i)));
		separator = ", ";
	}
	(void)fclose(f);
	return text;
}

/* "user=alice" of an override. */
static void subject_of(const json_t *o, char *out, size_t size)
{
	static const char *const by[] = { "user", "key", "ip" };

	out[0] = '\0';
	for (unsigned i = 0; i < 3; i++)
		if (*ctl_text(o, by[i]))
			(void)snprintf(out, size, "%s=%s", by[i], ctl_text(o, by[i]));
}

static const struct column columns[] = { { "FOR", false }, { "WHAT", false }, { "UNTIL", false },
	{ "BY", false }, { "REASON", false } };
enum { COLUMNS = sizeof columns / sizeof *columns };

static void add_row(struct table *t, const json_t *o)
{
	char subject[512], until[TEXT_MAX];
	char *what = describe(o);
	int64_t at = ctl_int(o, "until");

	subject_of(o, subject, sizeof subject);
	table_put(t, subject);
	table_put(t, what);
	table_put(t, at ? text_instant(at, until) : "it is removed");
	table_put(t, ctl_text(o, "who"));
	table_put(t, ctl_text(o, "reason"));
	free(what);
}

/* What of it is without effect. */
static void warn_of(const json_t *o)
{
	const json_t *warning;
	char subject[512];
	size_t i;

	subject_of(o, subject, sizeof subject);
	json_array_foreach(json_object_get(o, "warnings"), i, warning)
	{
		(void)ctl_fail(0, "warning: %s: %s", subject, json_string_value(warning));
	}
}

static int show(const json_t *list)
{
	struct table *t = table_new(columns, COLUMNS);
	const json_t *o;
	size_t i;

	json_array_foreach(list, i, o) add_row(t, o);
	bool whole = table_write(t, stdout, 0);
	table_free(t);
	return whole ? CTL_DONE : ctl_fail(CTL_REFUSED, "out of memory");
}

/* And what of them is without effect: who lists them was not there when it was told. */
static int show_all(const json_t *list)
{
	const json_t *o;
	size_t i;
	int status = show(list);

	(void)fflush(stdout);
	json_array_foreach(list, i, o) warn_of(o);
	return status;
}

static int list(struct ctl *c)
{
	json_t *answer;
	int status;

	if (c->o->words != 1)
		return ctl_fail(CTL_USAGE, "want: ratelimitctl override list");
	status = ctl_ask(c, "GET", "/api/v1/overrides", NULL, &answer);
	if (status != CTL_DONE)
		return status;
	if (ctl_given(c->o, CTL_JSON))
		status = ctl_print_json(answer, false);
	else if (!json_array_size(json_object_get(answer, "overrides")))
		(void)puts("there are no overrides");
	else
		status = show_all(json_object_get(answer, "overrides"));
	json_decref(answer);
	return status;
}

static int add(struct ctl *c)
{
	const struct ctl_options *o = c->o;
	json_t *body, *answer;
	int status;

	if (ctl_given(o, CTL_TIER) + ctl_given(o, CTL_RATE) + ctl_given(o, CTL_BYPASS) +
			ctl_given(o, CTL_BLOCK) !=
		1)
		return ctl_fail(CTL_USAGE,
			"override add: want one of --tier NAME, --rate RULE=RATE, --bypass, --block");
	body = ctl_change_body(o);
	if (!body || !add_subject(o, body) || !add_rates(o, body)) {
		json_decref(body);
		return CTL_USAGE;
	}
	if (ctl_given(o, CTL_TIER))
		(void)json_object_set_new(body, "tier", json_string(o->value[CTL_TIER]));
	if (ctl_given(o, CTL_BYPASS))
		(void)json_object_set_new(body, "bypass", json_true());
	if (ctl_given(o, CTL_BLOCK))
		(void)json_object_set_new(body, "block", json_true());
	status = ctl_ask(c, "PUT", "/api/v1/overrides", body, &answer);
	if (status != CTL_DONE)
		return status;
	ctl_warn(answer);
	json_t *one = json_pack("[O]", answer);
	status = ctl_given(o, CTL_JSON) ? ctl_print_json(answer, false) : show(one);
	json_decref(one);
	json_decref(answer);
	return status;
}

static int take_out(struct ctl *c)
{
	json_t *body, *answer;
	int status;

	if (c->o->given &
		(CTL_ENDS | CTL_BIT(TIER) | CTL_BIT(RATE) | CTL_BIT(BYPASS) | CTL_BIT(BLOCK)))
		return ctl_fail(CTL_USAGE, "override remove: want only for whom, and --reason");
	body = ctl_change_body(c->o);
	if (!body || !add_subject(c->o, body)) {
		json_decref(body);
		return CTL_USAGE;
	}
	status = ctl_ask(c, "DELETE", "/api/v1/overrides", body, &answer);
	if (status != CTL_DONE)
		return status;
	ctl_warn(answer);
	if (ctl_given(c->o, CTL_JSON)) {
		(void)ctl_print_json(answer, false);
	} else {
		char *clean = text_clean(str_of(ctl_text(answer, "removed")));
		(void)printf("removed: %s\n", clean ? clean : "");
		free(clean);
	}
	json_decref(answer);
	return CTL_DONE;
}

int ctl_override(struct ctl *c)
{
	const char *verb = c->o->word[0];

	if (strcmp(verb, "add") == 0)
		return add(c);
	if (strcmp(verb, "list") == 0)
		return list(c);
	if (strcmp(verb, "remove") == 0)
		return take_out(c);
	return ctl_fail(CTL_USAGE, "override: \"%s\": want add, list or remove", verb);
}
