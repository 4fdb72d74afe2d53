/* The text of a ban's client, where a field of it has become secret, or another agent does not know
 * that it is. Pure. */
#ifndef SERVER_BAN_HIDE_H
#define SERVER_BAN_HIDE_H

#include "store/bans.h"

/* Of secret fields only the hash stays, as take_describe() has it. Where it is not certain what of
 * the text is the value of one, all that follows is taken for it. false: there was none to hide. */
bool ban_hide(const struct policy *, struct ban *);

#endif
