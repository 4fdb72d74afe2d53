/* The lines of a file, of which each is only so long. */
#ifndef CTL_LINES_H
#define CTL_LINES_H

#include "base/str.h"

enum lines_rc { LINES_ONE, LINES_TOO_LONG, LINES_END, LINES_FAILED };

struct lines {
	int fd;        /* borrowed */
	char *room;    /* owned: `most` bytes and a newline */
	size_t most;   /* bytes of a line */
	size_t at, n;  /* what is read and not told of yet */
	bool skipping; /* the rest of one that was too long */
	bool ended;
};

bool lines_init(struct lines *, int fd, size_t most); /* false: out of memory */
void lines_fini(struct lines *);

/* Borrowed until the next one; without its newline. Of one that is too long its beginning.
 * LINES_FAILED: see errno. */
enum lines_rc lines_next(struct lines *, struct str *line);

#endif
