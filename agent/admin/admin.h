/* The admin interface: what the agent does, seen and changed over HTTP while it runs. On control's
 * loop, never on a worker's thread. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "server/control.h"

struct admin;

/* Serves on `listeners` (of listen_plan_admin(); borrowed, not empty) as soon as control runs,
 * until admin_free(): a drain is seen here. NULL: out of memory or descriptors. Control thread. */
struct admin *admin_new(struct control *, struct listeners *);
/* After control_run(), before control_free(). NULL is fine. */
void admin_free(struct admin *);

#endif
