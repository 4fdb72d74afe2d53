#include "server/service.h"

#include <inttypes.h>
#include <stdint.h>
#include <systemd/sd-daemon.h>
#include <time.h>

void service_ready(const char *status)
{
	(void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void service_reloading(void)
{
	/* The manager compares with its own reading of this very clock; ours (base/clock.h) has
	 * another zero. */
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=reloading",
		(int64_t)t.tv_sec * USEC_PER_SEC + t.tv_nsec / 1000);
}

void service_stopping(usec_t within)
{
	(void)sd_notifyf(0, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRId64 "\nSTATUS=draining", within);
}

usec_t service_watchdog(void)
{
	uint64_t interval;
	return sd_watchdog_enabled(0, &interval) > 0 ? (usec_t)interval : 0;
}

void service_alive(void)
{
	(void)sd_notify(0, "WATCHDOG=1");
}
