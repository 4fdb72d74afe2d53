/* /metrics. */
#include "admin/metrics.h"
#include "admin/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static uint64_t resident_bytes(void)
{
	char line[128] = "";
	FILE *f = fopen("/proc/self/statm", "re");
	if (!f)
		return 0;
	bool there = fgets(line, sizeof line, f) != NULL;
	(void)fclose(f);
	const char *second = there ? strchr(line, ' ') : NULL; /* pages, all and resident */
	return second ? strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static double cpu_seconds(void)
{
	struct rusage u;
	if (getrusage(RUSAGE_SELF, &u) < 0)
		return 0;
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* `list` lives longer than what is made of it. NULL: out of memory, or there is none. */
static struct exposition_switch *switches_of(const json_t *list, size_t *n)
{
	struct exposition_switch *all = calloc(json_array_size(list) + 1, sizeof *all);

	*n = all ? json_array_size(list) : 0;
	for (size_t i = 0; i < *n; i++) {
		const json_t *v = json_array_get(list, i);
		const char *rule = json_string_value(json_object_get(v, "rule"));
		const char *mode = json_string_value(json_object_get(v, "mode"));
		all[i] = (struct exposition_switch){ rule ? rule : "", mode ? mode : "" };
	}
	return all;
}

void metrics_show(struct request *r)
{
	const struct admin *a = request_context(r);
	const struct snapshot *s = control_snapshot(a->control);
	enum exposition_format format = exposition_format_for(request_header(r, "Accept"));
	struct report report;
	struct tally_sum tally;
	struct keeper_trouble trouble;
	struct redis_changes_trouble not_shared;
	json_t *list = switches_json(a, true);
	size_t switch_n;
	struct exposition_switch *switches = switches_of(list, &switch_n);
	char *text = NULL;
	size_t n = 0;

	if (!control_tally(a->control, &tally))
		tally = (struct tally_sum){ 0 };
	control_report(a->control, &report);
	FILE *f = open_memstream(&text, &n);
	if (f) {
		exposition_write(f,
			&(struct exposition){
				.report = &report,
				.tally = &tally,
				.version = control_args(a->control)->version,
				.generation = s->generation,
				.rules = s->policy->rule_n,
				.enabled = s->policy->enabled,
				.switches = switches,
				.switch_n = switch_n,
				.state_file_up = !control_state_trouble(a->control, &trouble),
				.changes_up = !control_changes_trouble(a->control, &not_shared),
				.draining = control_phase(a->control) != CONTROL_RUN,
				.admin_connections = http_connections(a->http),
				.admin_requests = http_requests(a->http),
				.started = (double)control_started_at(a->control) / 1e6,
				.cpu_seconds = cpu_seconds(),
				.resident_bytes = resident_bytes(),
			},
			format);
		if (fclose(f) != 0) {
			free(text);
			text = NULL;
		}
	}
	tally_sum_free(&tally);
	free(switches);
	json_decref(list);
	request_reply(r, 200, exposition_type(format), text, n);
}
