/* Starting a thread. Signals are the control thread's alone: one that is started here gets none
 * (SIGPIPE, blocked too, becomes an error of write()). */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* `name`: what people see of it, 15 bytes at most. 0, or an errno: there is none. */
int thread_start(pthread_t *, const char *name, void *(*run)(void *), void *with);

#endif
