#include "store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

bool disk_write(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t did = write(fd, p, n);
		if (did < 0 && errno == EINTR)
			continue;
		if (did <= 0) {
			errno = did ? errno : EIO;
			return false;
		}
		p = (const char *)p + did;
		n -= (size_t)did;
	}
	return true;
}

int disk_open_beside(const char *path, char tmp[DISK_PATH_BYTES])
{
	int n = snprintf(tmp, DISK_PATH_BYTES, "%s.tmp", path);
	if (n < 0 || n >= DISK_PATH_BYTES) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (unlink(tmp) < 0 && errno != ENOENT)
		return -1;
	return open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

void disk_sync_folder(const char *path)
{
	char folder[DISK_PATH_BYTES];
	const char *slash = strrchr(path, '/');
	int n = slash ? (int)(slash - path) + (slash == path) : 1;
	(void)snprintf(folder, sizeof folder, "%.*s", n, slash ? path : ".");
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd);
	(void)close(fd);
}

/* Renames without ever taking another file's place. */
static bool rename_to_new(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return true;
	if (errno != EINVAL && errno != ENOSYS)
		return false;
	return link(from, to) == 0 && unlink(from) == 0;
}

static bool link_to_new(const char *from, const char *to)
{
	return link(from, to) == 0 || (errno != EEXIST && rename_to_new(from, to));
}

static bool set_aside(const char *path, usec_t utc, char aside[DISK_PATH_BYTES],
	bool (*to_new)(const char *from, const char *to))
{
	enum { TRIES = 100 };
	char stamp[32];
	time_t seconds = (time_t)(utc / USEC_PER_SEC);
	struct tm tm;
	if (!gmtime_r(&seconds, &tm) || !strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm))
		(void)snprintf(stamp, sizeof stamp, "%lld", (long long)seconds);

	for (int i = 1; i <= TRIES; i++) {
		int n = i == 1 ? snprintf(aside, DISK_PATH_BYTES, "%s.bad-%s", path, stamp)
			       : snprintf(aside, DISK_PATH_BYTES, "%s.bad-%s-%d", path, stamp, i);
		if (n < 0 || n >= DISK_PATH_BYTES) {
			errno = ENAMETOOLONG;
			return false;
		}
		if (to_new(path, aside)) {
			disk_sync_folder(path);
			return true;
		}
		if (errno != EEXIST)
			return false;
	}
	return false;
}

bool disk_set_aside(const char *path, usec_t utc, char aside[DISK_PATH_BYTES])
{
	return set_aside(path, utc, aside, rename_to_new);
}

bool disk_link_aside(const char *path, usec_t utc, char aside[DISK_PATH_BYTES])
{
	return set_aside(path, utc, aside, link_to_new);
}
