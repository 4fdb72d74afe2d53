/* The normal form of a request's path, so that `/api/../auth/login` and `/%61uth//login` are
 * matched and counted as what the server will take them for (RFC 3986 section 6.2.2 and 5.2.4). */
#ifndef LIMIT_PATH_H
#define LIMIT_PATH_H

#include "base/str.h"

/* Returns `raw` itself (or a part of it) when that is normal already; else writes to `out`, which
 * must hold raw.n + 1 bytes, and returns that. Never longer than raw.n + 1. Pure. */
struct str path_normalise(struct str raw, char *out);

/* "http://host:80/x" is "/x"; anything that does not begin like that is returned as it is. */
struct str path_without_authority(struct str);

/* Lower case, without port and final dot; `out` must hold raw.n bytes. Returns `raw` or a part of
 * it when nothing had to be changed. "[::1]:8080" becomes "[::1]". */
struct str host_normalise(struct str raw, char *out);

#endif
