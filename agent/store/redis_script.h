/* The scripts that Redis runs, as the build embeds them: redis_script.lua charges requests,
 * redis_changes_script.lua puts a change. */
#ifndef STORE_REDIS_SCRIPT_H
#define STORE_REDIS_SCRIPT_H

#include <stddef.h>

extern const char redis_script[]; /* for SCRIPT LOAD; a NUL follows it */
extern const size_t redis_script_bytes;
extern const char redis_script_sha1[41]; /* for EVALSHA: what SCRIPT LOAD answers */

extern const char redis_changes_script[]; /* likewise */
extern const size_t redis_changes_script_bytes;
extern const char redis_changes_script_sha1[41];

#endif
