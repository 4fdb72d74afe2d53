"""A wall clock for one process that a test may set while it runs."""

import mmap
import shutil
import struct
import subprocess

import pytest

# Before everything that the process is linked with: what it asks for the time comes here first.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t ahead(void)
{
	static const volatile int64_t *seconds;
	if (!seconds) {
		int fd = open(getenv("WALL_AHEAD"), O_RDONLY);
		void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, fd, 0);
		if (at == MAP_FAILED)
			_exit(98);
		close(fd);
		seconds = at;
	}
	return *seconds;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	static int (*real)(struct timeval *, void *);
	if (!real)
		real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
	int rc = real(now, zone);
	now->tv_sec += ahead();
	return rc;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int rc = real(id, now);
	if (id == CLOCK_REALTIME)
		now->tv_sec += ahead();
	return rc;
}

#if __TIMESIZE == 32 /* what a program asks there that knows times after 2038 */
struct longer {
	int64_t sec;
	int32_t nsec, none;
};

int __clock_gettime64(clockid_t id, struct longer *now)
{
	static int (*real)(clockid_t, struct longer *);
	if (!real)
		real = (int (*)(clockid_t, struct longer *))dlsym(RTLD_NEXT, "__clock_gettime64");
	int rc = real(id, now);
	if (id == CLOCK_REALTIME)
		now->sec += ahead();
	return rc;
}
#endif
"""


class Wall:
    """`env` is for the process; ahead(seconds) sets its clock so far from this machine's."""

    def __init__(self, directory):
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            pytest.skip("needs a compiler")
        source, library, place = (directory / f"wall.{x}" for x in ("c", "so", "ahead"))
        source.write_text(SHIM)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"],
                       check=True, stdin=subprocess.DEVNULL, capture_output=True)
        place.write_bytes(bytes(8))
        with open(place, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8)
        # The sanitizer's runtime wants to be first, and gets on with being second.
        self.env = {"LD_PRELOAD": str(library), "WALL_AHEAD": str(place),
                    "ASAN_OPTIONS": "exitcode=99:verify_asan_link_order=0"}

    def ahead(self, seconds):
        self.map[:] = struct.pack("=q", int(seconds))
