/* Accepted connections on their way from the control thread to a worker. */
#ifndef SERVER_MAILBOX_H
#define SERVER_MAILBOX_H

#include <stdbool.h>

enum { PEER_TEXT_MAX = 127, MAILBOX_LETTERS = 256 };

struct letter {
	int fd;                       /* owned by whoever holds the letter */
	char peer[PEER_TEXT_MAX + 1]; /* "127.0.0.1:41234", for the log */
	bool beyond;                  /* agent.max_connections: to be a health check, or to go */
};

struct mailbox;

struct mailbox *mailbox_new(void);   /* NULL: out of memory */
void mailbox_free(struct mailbox *); /* closes what nobody fetched; after both threads are done */

bool mailbox_full(const struct mailbox *);                 /* control thread */
bool mailbox_empty(const struct mailbox *);                /* control thread */
bool mailbox_put(struct mailbox *, const struct letter *); /* control thread; false: full */
bool mailbox_get(struct mailbox *, struct letter *);       /* worker; false: empty */

#endif
