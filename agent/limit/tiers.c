#include "limit/tiers.h"

#include "limit/names.h"

#include <stdlib.h>

/* Two tables, so that a client who has learnt of a hash in the file cannot send it as if it were
 * the key. */
struct tier_map {
	struct names *plain, *hashed; /* owned; hashed: by the hex after "sha256:" */
};

static const struct str sha256_prefix = { "sha256:", 7 };

static bool has_prefix(struct str s, struct str prefix)
{
	return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

struct tier_map *tier_map_new(void)
{
	struct tier_map *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->plain = names_new();
	m->hashed = names_new_of_hashes();
	if (!m->plain || !m->hashed) {
		tier_map_free(m);
		return NULL;
	}
	return m;
}

void tier_map_free(struct tier_map *m)
{
	if (!m)
		return;
	names_free(m->plain);
	names_free(m->hashed);
	free(m);
}

bool tier_map_add(struct tier_map *m, struct str name, unsigned tier)
{
	if (!has_prefix(name, sha256_prefix))
		return names_add(m->plain, name, tier);
	return names_add(m->hashed,
		(struct str){ name.p + sha256_prefix.n, name.n - sha256_prefix.n }, tier);
}

bool tier_map_has(const struct tier_map *m, struct str name)
{
	if (!has_prefix(name, sha256_prefix))
		return names_find(m->plain, name) >= 0;
	return names_find(m->hashed,
		       (struct str){ name.p + sha256_prefix.n, name.n - sha256_prefix.n }) >= 0;
}

int64_t tier_map_find(const struct tier_map *m, struct str name, bool secret)
{
	int64_t tier = names_find(m->plain, name);

	return tier < 0 && secret ? names_find_secret(m->hashed, name) : tier;
}

int64_t tier_map_find_hash(const struct tier_map *m, struct str hex)
{
	return names_find(m->hashed, hex);
}
