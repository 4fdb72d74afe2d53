/* ${NAME} and ${NAME:-default} in strings of the configuration. */
#ifndef CONFIG_ENV_H
#define CONFIG_ENV_H

#include <stdbool.h>
#include <stddef.h>

enum { ENV_TEXT_MAX = 65536 }; /* bytes of a string after expansion */

/* `text` with its references replaced from the environment, to be freed. As in a shell the default
 * also stands where NAME is empty; ${NAME} that is unset is an error. What comes out is not looked
 * at again, and a default holds no reference of its own. A `$` that no `{` follows is just that.
 * NULL: `why` says what is wrong, or is "" when memory ran out. */
char *env_expand(const char *text, char *why, size_t why_size);

/* `$NAME` and nothing else, NAME in capitals: as a shell would write a reference. */
bool env_is_bare(const char *text);

#endif
