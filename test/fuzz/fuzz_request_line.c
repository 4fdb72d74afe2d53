/* Lines of logs from any bytes: never beyond them, a time that there is, fields that can be read,
 * planned and described. */
#include "config/snapshot.h"
#include "ctl/request_line.h"
#include "limit/plan.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char config[] =
	"rules = ( { name = \"a\"; per = [ \"ip|user|key\", \"app|tier\" ]; cost = \"units\";\n"
	"            match = { path = \"!/x/*\"; host = \"!x.*\"; message = \"check*\"; };\n"
	"            rate = \"1/day\"; },\n"
	"          { name = \"b\"; per = [ \"endpoint\" ]; rate = \"1/day\"; } );\n";

static struct snapshot *snapshot;
static struct request_line parser;

static void start(void)
{
	static const struct hash_key key = { .bytes = { 1 } };
	struct problems problems = { 0 };
	char why[256];

	(void)setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	if (!hash_init())
		abort();
	snapshot = config_load_text("f.cfg", config, sizeof config - 1, &key, 1, &problems);
	problems_free(&problems);
	if (!snapshot || !request_line_init(
				 &parser, snapshot->policy, "user,key,-,host,app", why, sizeof why))
		abort();
}

static void try_line(struct str line)
{
	static const usec_t most = (usec_t)253402387200 *
				   USEC_PER_SEC; /* the year 10000, anywhere */
	struct plan plan;
	struct view v;
	usec_t utc = -1;
	char text[256];

	if (!request_line_load(&parser, line, &v, &utc))
		return;
	if (utc < 0 || utc > most)
		abort();
	policy_plan(snapshot->policy, &v, &plan);
	for (unsigned i = 0; i < plan.n; i++)
		(void)take_describe(snapshot->policy, &plan.take[i], &v, text, sizeof text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct str all = { (const char *)data, n };

	if (!snapshot)
		start();
	while (all.n) {
		const char *end = memchr(all.p, '\n', all.n);
		size_t length = end ? (size_t)(end - all.p) : all.n;
		/* In memory of its own, of just its size. */
		char *line = malloc(length);
		if (line && length <= REQUEST_LINE_MAX) {
			memcpy(line, all.p, length);
			try_line((struct str){ line, length });
		}
		free(line);
		all.p += length + (end != NULL);
		all.n -= length + (end != NULL);
	}
	return 0;
}
