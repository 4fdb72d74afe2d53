/* What an operator can do about an error that Redis answered. Pure. */
#ifndef STORE_REDIS_HINTS_H
#define STORE_REDIS_HINTS_H

const char *redis_error_hint(const char *error); /* NULL: no idea */

#endif
