/* Addresses to listen on or to connect to, as text. Looks nothing up. */
#ifndef CONFIG_ADDRESS_H
#define CONFIG_ADDRESS_H

#include "config/snapshot.h"

/* "host:port", "[v6]:port", ":port" and "*:port" (all of IPv4), or an absolute path. Port 0 is
 * any that is free. On false `why` says "want" and what. */
bool listen_parse(const char *text, struct listen_address *out, char *why, size_t why_size);

/* There cannot be listeners for both, as far as it can be told without looking a name up. */
bool listen_clashes(const struct listen_address *, const struct listen_address *);
/* The same of two in one list, whatever else is there: "::" may leave IPv4 to others (all of it is
 * in the list, or the service manager has bound it so). */
bool listen_clashes_surely(const struct listen_address *, const struct listen_address *);

#endif
