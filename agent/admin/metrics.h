/* Everything that is counted, as Prometheus reads it. Pure: numbers -> text. */
#ifndef ADMIN_METRICS_H
#define ADMIN_METRICS_H

#include "server/report.h"
#include "server/tally.h"

struct exposition_switch {
	const char *rule, *mode; /* "": all rules */
};

struct exposition {
	const struct report *report;
	const struct tally_sum *tally;
	const char *version;
	uint64_t generation, rules;
	bool enabled, draining;
	bool state_file_up;
	bool changes_up;                          /* of a store in Redis */
	const struct exposition_switch *switches; /* that are in force */
	size_t switch_n;
	uint64_t admin_connections, admin_requests;
	/* Of the process. */
	double started, cpu_seconds;
	uint64_t resident_bytes;
};

enum exposition_format { FORMAT_PROMETHEUS, FORMAT_OPENMETRICS };

/* "application/openmetrics-text" where that is accepted, and not with less weight than what
 * everyone knows. NULL is anything. */
enum exposition_format exposition_format_for(const char *accept);
const char *exposition_type(enum exposition_format);

void exposition_write(FILE *, const struct exposition *, enum exposition_format);

#endif
