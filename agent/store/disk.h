/* What the state file and the changes file beside it share: files that are written beside their
 * place and renamed over it, mode 0600, and set aside where they cannot be read. Blocks. */
#ifndef STORE_DISK_H
#define STORE_DISK_H

#include "base/clock.h"

#include <stdbool.h>
#include <stddef.h>

enum { DISK_PATH_BYTES = 4096 };

/* false: errno says why not all of it. */
bool disk_write(int fd, const void *, size_t);

/* Makes PATH.tmp, which is to be renamed over `path`; what an earlier one has left goes. Its name
 * is `tmp` then. -1: errno says why. */
int disk_open_beside(const char *path, char tmp[DISK_PATH_BYTES]);

/* What was renamed stays renamed after a crash. Not every file system can promise it. */
void disk_sync_folder(const char *path);

/* Renames it to PATH.bad-TIME, of which the name is `aside` then; never takes another file's place.
 * false: errno says why it could not. */
bool disk_set_aside(const char *path, usec_t utc, char aside[DISK_PATH_BYTES]);

/* The same, but it keeps its own name besides, until another file takes that place: nothing is lost
 * if none ever does. (Where files can have one name only, it is renamed.) */
bool disk_link_aside(const char *path, usec_t utc, char aside[DISK_PATH_BYTES]);

#endif
