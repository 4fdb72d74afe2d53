#include "server/known.h"

#include "base/lock.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { WAYS = 8, SETS = KNOWN_MAX / WAYS, LOCKS = 64, LEARNT = 2 * KNOWN_MAX };

struct one {
	struct key name, descriptor;
	char hex[SHA256_HEX_BYTES]; /* of the key; hex[0] 0: nothing is here */
	uint64_t told;              /* set->n when it was */
};

struct set {
	uint64_t n; /* how often it was told of one */
	struct one one[WAYS];
};

struct known {
	struct lock lock[LOCKS]; /* of set % LOCKS */
	struct set set[SETS];
	/* Some of the descriptors that are in the sets, each at its own place: whoever finds one
	 * there is spared the SHA-256, which takes more than a decision. */
	_Atomic(uint64_t) learnt[LEARNT];
};

struct known *known_new(void)
{
	return calloc(1, sizeof(struct known));
}

void known_free(struct known *k)
{
	free(k);
}

/* Names are keyed hashes already. */
static unsigned set_of(const struct key *name)
{
	return (unsigned)(name->a % SETS);
}

static struct one *find(struct set *set, const struct key *name)
{
	for (unsigned i = 0; i < WAYS; i++) {
		struct one *one = &set->one[i];
		if (one->hex[0] && one->name.a == name->a && one->name.b == name->b)
			return one;
	}
	return NULL;
}

static struct one *oldest(struct set *set)
{
	struct one *best = &set->one[0];

	for (unsigned i = 1; i < WAYS; i++)
		if (set->one[i].told < best->told)
			best = &set->one[i];
	return best;
}

static _Atomic(uint64_t) *learnt_at(struct known *k, const struct key *descriptor)
{
	return &k->learnt[descriptor->a % LEARNT];
}

static bool is_learnt(struct known *k, const struct key *descriptor)
{
	return atomic_load_explicit(learnt_at(k, descriptor), memory_order_relaxed) ==
	       descriptor->b;
}

/* He is learnt anew when he is named next. */
static void let_go(struct known *k, const struct key *descriptor)
{
	if (is_learnt(k, descriptor))
		atomic_store_explicit(learnt_at(k, descriptor), 0, memory_order_relaxed);
}

static void put(struct known *k, const struct key *name, const struct key *descriptor,
	const char hex[SHA256_HEX_BYTES])
{
	unsigned at = set_of(name);
	struct set *set = &k->set[at];

	lock_get(&k->lock[at % LOCKS]);
	struct one *one = find(set, name);
	if (!one)
		one = oldest(set);
	let_go(k, &one->descriptor);
	one->name = *name;
	one->descriptor = *descriptor;
	memcpy(one->hex, hex, sizeof one->hex);
	one->told = ++set->n;
	atomic_store_explicit(learnt_at(k, descriptor), descriptor->b, memory_order_relaxed);
	lock_put(&k->lock[at % LOCKS]);
}

void known_learn(
	struct known *k, const struct policy *p, const struct plan *plan, const struct view *v)
{
	char hex[SHA256_HEX_BYTES];
	struct key last = { 0, 0 };
	bool hashed = false;

	if (!k || !(p->secret >> FIELD_KEY & 1) || !view_has(v, FIELD_KEY))
		return;
	for (unsigned i = 0; i < plan->n; i++) {
		const struct take *t = &plan->take[i];
		struct key descriptor = take_descriptor(t);
		bool again = hashed && descriptor.a == last.a && descriptor.b == last.b;
		if (again || is_learnt(k, &descriptor) || !take_has_name_by_hash(p, t, v))
			continue;
		if (!hashed)
			hash_sha256_hex(v->text[FIELD_KEY], hex);
		hashed = true;
		last = descriptor;
		struct key name = take_name_by_hash(p, t, v, hex);
		put(k, &name, &descriptor, hex);
	}
}

bool known_find(void *known, const struct key *name, struct key *descriptor)
{
	struct known *k = known;
	unsigned at = set_of(name);

	lock_get(&k->lock[at % LOCKS]);
	const struct one *one = find(&k->set[at], name);
	if (one)
		*descriptor = one->descriptor;
	lock_put(&k->lock[at % LOCKS]);
	return one != NULL;
}

unsigned known_hash(struct known *k, struct str digits, char hex[SHA256_HEX_BYTES])
{
	unsigned n = 0;

	for (unsigned at = 0; at < SETS; at++) {
		lock_get(&k->lock[at % LOCKS]);
		for (unsigned i = 0; i < WAYS; i++) {
			const struct one *one = &k->set[at].one[i];
			if (!one->hex[0] || digits.n > sizeof one->hex ||
				memcmp(one->hex, digits.p, digits.n) != 0 ||
				(n && memcmp(one->hex, hex, sizeof one->hex) == 0))
				continue;
			memcpy(hex, one->hex, sizeof one->hex);
			n++;
		}
		lock_put(&k->lock[at % LOCKS]);
	}
	return n;
}
