#include "ctl/lines.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

bool lines_init(struct lines *l, int fd, size_t most)
{
	*l = (struct lines){ .fd = fd, .most = most, .room = malloc(most + 1) };
	return l->room != NULL;
}

void lines_fini(struct lines *l)
{
	free(l->room);
	l->room = NULL;
}

/* More of the file, after what is there; there is room. */
static bool fill(struct lines *l)
{
	ssize_t got;

	if (l->at) {
		memmove(l->room, l->room + l->at, l->n);
		l->at = 0;
	}
	do
		got = read(l->fd, l->room + l->n, l->most + 1 - l->n);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		l->n += (size_t)got;
	l->ended = got == 0;
	return got >= 0;
}

static struct str take(struct lines *l, size_t n)
{
	struct str s = { l->room + l->at, n };

	l->at += n;
	l->n -= n;
	return s;
}

enum lines_rc lines_next(struct lines *l, struct str *line)
{
	for (;;) {
		const char *end = l->n ? memchr(l->room + l->at, '\n', l->n) : NULL;
		if (!end && !(l->ended && l->n)) {
			if (l->ended)
				return LINES_END;
			if (l->n <= l->most) {
				if (!fill(l))
					return LINES_FAILED;
				continue;
			}
		}
		size_t n = end ? (size_t)(end - l->room) - l->at : l->n;
		bool whole = end || l->ended, was_skipping = l->skipping;
		*line = take(l, n);
		if (end)
			(void)take(l, 1);
		l->skipping = !whole;
		if (!was_skipping)
			return whole ? LINES_ONE : LINES_TOO_LONG;
	}
}
