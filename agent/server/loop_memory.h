/* Memory for libev, which ends the process where it gets none: what it wants is little, and seldom
 * wanted (its tables grow with the descriptors that a loop watches), so a shortage that is over
 * soon is waited for. */
#ifndef SERVER_LOOP_MEMORY_H
#define SERVER_LOOP_MEMORY_H

#include <stddef.h>

enum { LOOP_MEMORY_TRIES = 2000 }; /* a millisecond each */

/* For all loops of the process; before the first. */
void loop_memory_init(void);

/* What it is: `get` is realloc(), `wait` waits between two tries. */
void *loop_memory_get(void *p, long n, void *(*get)(void *p, size_t n), void (*wait)(void));

#endif
