#include "store/redis_follow.h"

enum { REDIRECTS_MAX = 4 }; /* in a second: two nodes may each say that the other has it */

static void on_bell(struct ev_loop *loop, ev_async *bell, int revents)
{
	(void)loop;
	(void)revents;
	struct redis_follow *f = bell->data;
	struct redis_addresses a = redis_hub_addresses_of(f->hub, f->slot);

	if (a.generation == f->addresses.generation)
		return;
	f->addresses = a;
	f->address_at = 0;
	f->sent_to.host[0] = '\0';
	if (redis_conn_use(f->conn, a.n ? &a.address[0] : NULL, a.master_only))
		f->moved(f->owner);
}

void redis_follow_failed(struct redis_follow *f)
{
	redis_hub_ask_again(f->hub);
	f->sent_to.host[0] = '\0';
	if (!f->addresses.n)
		return;
	f->address_at = (f->address_at + 1) % f->addresses.n;
	redis_conn_aim(f->conn, &f->addresses.address[f->address_at], f->addresses.master_only);
}

static const struct redis_address *place(const struct redis_follow *f)
{
	return f->sent_to.host[0] ? &f->sent_to : &f->addresses.address[f->address_at];
}

const struct redis_address *redis_follow_place(const struct redis_follow *f)
{
	const struct redis_address *at = place(f);

	return at->host[0] ? at : NULL;
}

void redis_follow_anew(struct redis_follow *f)
{
	struct redis_address to = *place(f);

	(void)redis_conn_use(f->conn, NULL, false);
	f->moved(f->owner);
	if (to.host[0])
		(void)redis_conn_use(f->conn, &to, f->addresses.master_only);
}

static bool may_follow(struct redis_follow *f, usec_t now)
{
	if (now - f->sent_at > USEC_PER_SEC) {
		f->sent_at = now;
		f->sent_n = 0;
	}
	return ++f->sent_n <= REDIRECTS_MAX;
}

enum redis_redirect redis_follow_redirect(struct redis_follow *f, const char *error)
{
	const struct redis_address *asked = place(f);
	struct redis_address to;
	uint16_t slot = f->slot;

	if (!redis_hub_is_cluster(f->hub))
		return REDIRECT_NONE;
	enum redis_redirect how = redis_redirect_read(error, asked, &slot, &to);
	if (slot != f->slot)
		return REDIRECT_NONE;
	if (how != REDIRECT_MOVED)
		return how;
	redis_hub_ask_again(f->hub);
	if (to.host[0] && may_follow(f, clock_steady()) && redis_conn_use(f->conn, &to, false)) {
		f->sent_to = to;
		f->moved(f->owner);
	}
	return how;
}

void redis_follow_start(struct redis_follow *f, struct redis_hub *hub, struct redis_conn *conn,
	uint16_t slot, struct ev_loop *loop, void (*moved)(void *owner), void *owner)
{
	*f = (struct redis_follow){
		.hub = hub, .conn = conn, .loop = loop, .slot = slot, .moved = moved, .owner = owner
	};
	ev_async_init(&f->bell, on_bell);
	f->bell.data = f;
	ev_async_start(loop, &f->bell);
	f->listener = (struct redis_listener){ .loop = loop, .bell = &f->bell };
	redis_hub_listen(hub, &f->listener);
}

void redis_follow_stop(struct redis_follow *f)
{
	redis_hub_leave(f->hub, &f->listener);
	ev_async_stop(f->loop, &f->bell);
}
