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

void metrics_show(struct request *r)
{
	const struct admin *a = request_context(r);
	const struct snapshot *s = control_snapshot(a->control);
	enum exposition_format format = exposition_format_for(request_header(r, "Accept"));
	struct report report;
	struct tally_sum tally;
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
	request_reply(r, 200, exposition_type(format), text, n);
}
