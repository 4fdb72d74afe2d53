/* A command's bytes, as Redis reads them. hiredis makes the same, argument by argument in strings
 * that grow: that takes five times as long for a call of the script, which has many. Pure. */
#ifndef STORE_REDIS_FORMAT_H
#define STORE_REDIS_FORMAT_H

#include <stddef.h>

/* At most so many bytes, the NUL among them. */
size_t redis_format_room(unsigned argc, const size_t argv_bytes[]);
/* Into `out`, which has room for them. Returns how many it took, but for the NUL that follows:
 * hiredis looks at what comes after the first argument, also where there is no other. */
size_t redis_format(char *out, unsigned argc, const char *const argv[], const size_t argv_bytes[]);

#endif
