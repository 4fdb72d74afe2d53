#include "store/redis_follow.h"

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
	if (redis_conn_use(f->conn, a.n ? &a.address[0] : NULL, a.master_only))
		f->moved(f->owner);
}

void redis_follow_failed(struct redis_follow *f)
{
	redis_hub_ask_again(f->hub);
	if (!f->addresses.n)
		return;
	f->address_at = (f->address_at + 1) % f->addresses.n;
	redis_conn_aim(f->conn, &f->addresses.address[f->address_at], f->addresses.master_only);
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
