#include "admitted.h"
#include "chance.h"
#include "limit/lease.h"

#include <string.h>

enum { HOLDERS = 6, ASKS = 8, HELD_STEPS = 400 };

struct holding {
	uint32_t units, left; /* units: not yet reported */
	int64_t mark;
	usec_t until;
};

struct held {
	struct chance chance;
	struct quota quota;
	usec_t now, ahead; /* of Redis' clock */
	usec_t latest;     /* that it told: a window that has begun has begun */
	struct leased stored;
	struct holding holding[HOLDERS];
	struct lease_ask ask[ASKS]; /* under way */
	usec_t asked[ASKS];         /* 0: none */
	struct admitted admitted[HELD_STEPS];
	unsigned n;
};

static struct now held_now(const struct held *h)
{
	return (struct now){ .steady = h->now + h->ahead, .utc = h->now + h->ahead };
}

static void held_admit(struct held *h, int64_t cost)
{
	h->admitted[h->n++] = (struct admitted){ h->now, h->latest, h->n, cost };
}

static void held_time_moves(struct held *h)
{
	struct chance *c = &h->chance;
	struct holding *some = &h->holding[between(c, 0, HOLDERS - 1)];
	usec_t refill = h->quota.window.length * h->quota.capacity / h->quota.units;

	switch (between(c, 0, 9)) {
	case 0:
		h->now += between(c, 0, LEASE_LIFE);
		break;
	case 1:
		h->now += between(c, 0, refill);
		break;
	case 2: /* to the last moment of a block */
		if (some->left && some->until - 1 > h->now)
			h->now = some->until - 1;
		break;
	case 3: /* to where a turn begins, or just before */
		h->now += LEASE_LIFE - (h->now + h->ahead) % LEASE_LIFE - between(c, 0, 1);
		break;
	default:
		h->now += between(c, 0, 10 * MS);
	}
}

static void held_spend(struct held *h)
{
	struct chance *c = &h->chance;
	struct holding *b = &h->holding[between(c, 0, HOLDERS - 1)];

	if (!b->left || b->until <= h->now)
		return;
	uint32_t cost = one_in(c, 2) ? b->left : (uint32_t)between(c, 1, b->left);
	b->left -= cost;
	held_admit(h, cost);
}

static void held_take(struct held *h)
{
	struct leased l = lease_read(&h->quota, &h->stored, held_now(h));
	struct bucket b = bucket_read(&h->quota, &l.bucket, held_now(h));
	int64_t most = (int64_t)bucket_left(&h->quota, &b, held_now(h));
	int64_t cost = one_in(&h->chance, 2) ? most : between(&h->chance, 0, most);

	if (cost < 1 || !bucket_admits(&h->quota, &b, cost, held_now(h)))
		return;
	bucket_charge(&h->quota, &b, cost);
	l.bucket = b;
	h->stored = l;
	held_admit(h, cost);
}

static void held_ask(struct held *h)
{
	struct chance *c = &h->chance;
	unsigned i = (unsigned)between(c, 0, ASKS - 1);
	struct holding *b = &h->holding[between(c, 0, HOLDERS - 1)];

	if (h->asked[i])
		return;
	h->asked[i] = h->now;
	h->ask[i] = (struct lease_ask){ .want = (uint32_t)between(c, 0, 2 * h->quota.capacity) };
	if (!b->units || one_in(c, 3))
		return;
	bool all = one_in(c, 2);
	h->ask[i].mark = b->mark;
	h->ask[i].done = all ? b->units : b->units - b->left;
	h->ask[i].back = all ? b->left : 0;
	b->units -= h->ask[i].done;
	b->left = all ? 0 : b->left;
}

/* The block that is granted goes to who has none; else nobody ever hears of it. */
static void held_heard(struct held *h)
{
	unsigned i = (unsigned)between(&h->chance, 0, ASKS - 1);
	struct leased state;

	if (!h->asked[i])
		return;
	uint32_t units = lease_apply(&h->quota, &h->stored, &h->ask[i], held_now(h), &state);
	h->stored = state;
	for (unsigned k = 0; units && k < HOLDERS; k++) {
		struct holding *b = &h->holding[k];
		if (b->left && b->until > h->now)
			continue;
		*b = (struct holding){ units, units, lease_mark(&h->quota, &state, held_now(h)),
			h->asked[i] + lease_life(&h->quota, &state, held_now(h)) };
		break;
	}
	h->asked[i] = 0;
}

/* A server that is behind: what was under way is lost. (Of windows nobody could say then in which
 * of two somebody was.) */
static void held_step_back(struct held *h)
{
	memset(h->asked, 0, sizeof h->asked);
	for (unsigned k = 0; k < HOLDERS; k++)
		h->holding[k].units = 0; /* not to be told of */
	h->ahead -= between(&h->chance, 0, 2 * LEASE_LIFE);
}

void holders_run(uint64_t seed)
{
	static struct held h;
	struct chance *c = &h.chance;

	seed_now = seed;
	memset(&h, 0, sizeof h);
	c->state = seed * UINT64_C(0x9e6c63d0876a9a99);
	h.quota.algorithm = (enum algorithm)between(c, 0, 2);
	h.quota.window.length = between(c, 1, 10) * 1000 * MS;
	h.quota.units = h.quota.capacity = between(c, 8, 1000);
	if (h.quota.algorithm == ALGORITHM_TOKEN_BUCKET && one_in(c, 2))
		h.quota.capacity = between(c, 8, 1000);
	h.now = ORIGIN;
	for (unsigned i = 0; i < HELD_STEPS; i++) {
		held_time_moves(&h);
		if (h.latest < h.now + h.ahead)
			h.latest = h.now + h.ahead;
		switch (between(c, 0, 7)) {
		case 0:
		case 1:
			held_spend(&h);
			break;
		case 2:
		case 3:
			held_take(&h);
			break;
		case 4:
		case 5:
			held_ask(&h);
			break;
		default:
			held_heard(&h);
		}
		if (seed % 4 == 0 && h.quota.algorithm == ALGORITHM_TOKEN_BUCKET && one_in(c, 50))
			held_step_back(&h);
	}
	admitted_check(&h.quota, h.admitted, h.n, 0, 0);
}
