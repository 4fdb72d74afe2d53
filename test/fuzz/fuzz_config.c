/* Any text as a configuration: it is refused with problems or becomes a snapshot, and the process
 * goes on. Files beside it may be included. */
#include "config/snapshot.h"

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/fuzz-config-XXXXXX";
static char config_name[128];
static struct snapshot *plain; /* to compare with */
static const struct hash_key key = { .bytes = { 1 } };

static const struct {
	const char *name, *text;
} file[] = {
	{ "part.cfg", "threads = 2; /* of agent */\n" },
	{ "self.cfg", "@include \"self.cfg\"\n" },
	{ "open.cfg", "/* never closed\n" },
	{ "tiers.map", "alice gold\nbob free\n# comment\n" },
};

static void in_folder(char out[128], const char *name)
{
	snprintf(out, 128, "%s/%s", folder, name);
}

static void clean(void)
{
	char path[128];

	for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
		in_folder(path, file[i].name);
		unlink(path);
	}
	rmdir(folder);
	if (snapshot_unref(plain))
		snapshot_free(plain);
}

/* Once, before the first input. */
static void prepare(void)
{
	static const char text[] = "rules = ( { name = \"api\"; per = [ \"ip\" ]; rate = { gold = "
				   "\"10/minute\"; default = \"1/hour\"; }; } );\n";
	struct problems problems = { 0 };

	if (!hash_init() || !mkdtemp(folder))
		abort();
	for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
		char path[128];
		in_folder(path, file[i].name);
		FILE *f = fopen(path, "w");
		if (!f || fputs(file[i].text, f) < 0 || fclose(f) != 0)
			abort();
	}
	setenv("SET", "value", 1);
	setenv("NUMBER", "7", 1);
	setenv("EMPTY", "", 1);
	unsetenv("UNSET");
	in_folder(config_name, "fuzz.cfg");
	plain = config_load_text(config_name, text, sizeof text - 1, &key, 1, &problems);
	if (!plain)
		abort();
	problems_free(&problems);
	atexit(clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct problems problems = { 0 }, others = { 0 };
	char text[300];

	if (!plain)
		prepare();
	struct snapshot *s = config_load_text(
		config_name, (const char *)data, size, &key, 2, &problems);

	/* refused if and only if something was said */
	if ((s == NULL) == (problems.n == problems.warnings))
		abort();
	if (s) {
		for (unsigned i = 0; i < s->policy->rule_n; i++)
			(void)snapshot_describe_rule(s, &s->policy->rule[i], text, sizeof text);
		(void)snapshot_describe_changes(plain, s, text, sizeof text);
		(void)snapshot_describe_changes(s, plain, text, sizeof text);
		(void)snapshot_can_replace(plain, s, &others);
		if (snapshot_slower_by(plain, s) < 1.0 || snapshot_slower_by(s, s) > 1.0)
			abort();
		if (snapshot_unref(s))
			snapshot_free(s);
	}
	problems_free(&problems);
	problems_free(&others);
	return 0;
}
