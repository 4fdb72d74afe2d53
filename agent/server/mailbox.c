#include "server/mailbox.h"

#include "server/ring.h"

#include <stdlib.h>
#include <unistd.h>

struct mailbox {
	struct ring *ring;
};

struct mailbox *mailbox_new(void)
{
	struct mailbox *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->ring = ring_new(MAILBOX_LETTERS, sizeof(struct letter));
	if (!m->ring) {
		mailbox_free(m);
		return NULL;
	}
	return m;
}

void mailbox_free(struct mailbox *m)
{
	if (!m)
		return;
	struct letter letter;
	while (m->ring && ring_get(m->ring, &letter))
		(void)close(letter.fd);
	ring_free(m->ring);
	free(m);
}

bool mailbox_full(const struct mailbox *m)
{
	return ring_full(m->ring);
}

bool mailbox_empty(const struct mailbox *m)
{
	return ring_empty(m->ring);
}

bool mailbox_put(struct mailbox *m, const struct letter *letter)
{
	return ring_put(m->ring, letter);
}

bool mailbox_get(struct mailbox *m, struct letter *letter)
{
	return ring_get(m->ring, letter);
}
