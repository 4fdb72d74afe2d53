/* What the service manager is told (sd_notify): nothing at all where there is none. */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include "base/clock.h"

void service_ready(const char *status);
void service_reloading(void);
/* `within`: how long the stop may take. */
void service_stopping(usec_t within);

/* How often it wants to hear service_alive(); 0: never. */
usec_t service_watchdog(void);
void service_alive(void);

#endif
