/* What one sentinel says by itself: a subscription to +switch-master, so that a failover is known
 * when it happens. It only says that it is time to ask, and nothing rests on it: who says too much
 * is left alone for a while, and who denies it for a minute.
 *
 * The control thread's, on its loop. */
#ifndef STORE_REDIS_NEWS_H
#define STORE_REDIS_NEWS_H

#include "store/redis_conn.h"

struct redis_news;

/* `heard`: this sentinel says that `master` (copied) is another one now; from the loop. NULL: out
 * of memory. */
struct redis_news *redis_news_new(const struct redis_conn_settings *, const char *master,
	void (*heard)(void *owner), void *owner, struct ev_loop *);
void redis_news_free(struct redis_news *); /* not from inside `heard`; NULL is fine */

/* Where the sentinel is: it is connected to until it is told otherwise. */
void redis_news_use(struct redis_news *, const struct redis_address *);

/* About once a second: a connection that hangs is as good as one that is closed. */
void redis_news_tick(struct redis_news *, usec_t now);

#endif
