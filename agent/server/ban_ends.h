/* Which bans a configuration ends: those that none of its penalties could find. Pure. */
#ifndef SERVER_BAN_ENDS_H
#define SERVER_BAN_ENDS_H

#include "store/bans.h"

/* Why nothing finds this ban by the policy of now; NULL: something may. `before`: the policy that
 * it is from, NULL: not known (a start); then one that is not certain to be lost is left. */
const char *ban_ends(const struct policy *now, const struct policy *before, const struct ban *);

#endif
