/* A configuration, read here; check-config and version: what needs no agent. */
#include "config/snapshot.h"
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <stdlib.h>
#include <string.h>

static void tell(const struct problems *p)
{
	for (size_t i = 0; i < p->n; i++) {
		char *clean = text_clean(str_of(p->message[i]));
		(void)fprintf(stderr, "%s\n", clean ? clean : "out of memory");
		free(clean);
	}
}

static json_t *json_of_problems(const struct problems *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n; i++) {
		char *clean = text_clean(str_of(p->message[i]));
		(void)json_array_append_new(list, json_string(clean ? clean : ""));
		free(clean);
	}
	return list;
}

static struct snapshot *load(
	const struct ctl_options *o, const struct hash_key *key, struct problems *problems)
{
	static const char *const usual[] = { DEFAULT_CONFIG };

	return config_load(o->files ? o->file : usual, o->files ? o->files : 1, key, 1, problems);
}

struct snapshot *ctl_load_config(const struct ctl_options *o, const struct hash_key *key)
{
	struct problems problems = { 0 };
	struct snapshot *s = load(o, key, &problems);

	for (size_t i = 0; i < problems.n; i++)
		(void)ctl_fail(0, "%s", problems.message[i]);
	problems_free(&problems);
	return s;
}

int ctl_check_config(struct ctl *c)
{
	const struct ctl_options *o = c->o;
	struct problems problems = { 0 };
	struct hash_key key;

	hash_key_random(&key);
	struct snapshot *s = load(o, &key, &problems);
	tell(&problems);
	if (ctl_given(o, CTL_JSON)) {
		json_t *answer = json_pack("{s:b, s:I, s:o}", "valid", s != NULL, "warnings",
			(json_int_t)problems.warnings, "problems", json_of_problems(&problems));
		(void)ctl_print_json(answer, false);
		json_decref(answer);
	} else if (s) {
		(void)puts("Configuration file is valid");
	}
	problems_free(&problems);
	if (!s)
		return CTL_REFUSED;
	if (snapshot_unref(s))
		snapshot_free(s);
	return CTL_DONE;
}

/* Whether an agent answers or not: this program's version is there. */
int ctl_version(struct ctl *c)
{
	struct reply reply = { 0 };
	char why[512] = "";
	bool found = ctl_find(c);
	bool called = found &&
		      http_call(&c->place, "GET", "/api/v1/status", NULL, &reply, why, sizeof why);
	const char *agent = ctl_text(reply.json, "version");

	if (!found)
		return CTL_USAGE;
	if (ctl_given(c->o, CTL_JSON)) {
		json_t *answer = json_pack(
			"{s:s, s:s?}", "ratelimitctl", c->version, "agent", *agent ? agent : NULL);
		(void)ctl_print_json(answer, false);
		json_decref(answer);
	} else {
		(void)printf("ratelimitctl %s\n", c->version);
		char *clean = text_clean(str_of(agent));
		if (*agent)
			(void)printf(
				"agent %s at %s\n", clean ? clean : "?", place_text(&c->place));
		else if (called)
			(void)printf("agent at %s: tells no version (status %ld)\n",
				place_text(&c->place), reply.status);
		else
			(void)printf("no agent answers at %s\n", place_text(&c->place));
		free(clean);
	}
	json_decref(reply.json);
	return CTL_DONE;
}
