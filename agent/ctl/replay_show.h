/* What a replay came to, for people. */
#ifndef CTL_REPLAY_SHOW_H
#define CTL_REPLAY_SHOW_H

#include <jansson.h>
#include <stdbool.h>

/* Of replay_run_json() with what `replay` says of the lines ("lines", "left_out", "left_out_first",
 * "too_long"). false: out of memory. */
bool replay_show(const json_t *);

#endif
