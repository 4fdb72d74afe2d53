/* A disk that says when it is asked to keep what was written, and can refuse it. */
#ifndef TEST_STORE_BROKEN_DISK_H
#define TEST_STORE_BROKEN_DISK_H

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

static unsigned synced;
static bool disk_is_broken;

/* In the place of the C library's. */
int fsync(int fd)
{
	(void)fd;
	synced++;
	errno = EIO;
	return disk_is_broken ? -1 : 0;
}

#endif
