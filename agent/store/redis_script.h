/* The script that Redis runs (redis_script.lua), as the build embeds it. */
#ifndef STORE_REDIS_SCRIPT_H
#define STORE_REDIS_SCRIPT_H

#include <stddef.h>

extern const char redis_script[]; /* for SCRIPT LOAD; a NUL follows it */
extern const size_t redis_script_bytes;
extern const char redis_script_sha1[41]; /* for EVALSHA: what SCRIPT LOAD answers */

#endif
