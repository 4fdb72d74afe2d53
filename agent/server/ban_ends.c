#include "server/ban_ends.h"

/* NULL: it has none. */
static const struct rule *rule_of(const struct policy *p, const char *name)
{
	for (unsigned i = 0; p && i < p->rule_n; i++)
		if (strcmp(p->rule[i].name, name) == 0)
			return p->rule[i].penalty ? &p->rule[i] : NULL;
	return NULL;
}

/* Where the value of a field begins in the text of a descriptor, "ip=10.0.0.1+host=a": the first
 * one at `from`, others anywhere behind it, since what is before is free text. NULL: it is not
 * there. */
static const char *value_at(const char *from, bool first, const char *name, size_t length)
{
	for (const char *at = first ? from : strchr(from, '+'); at; at = strchr(at, '+')) {
		const char *z = at + !first;
		if (strncmp(z, name, length) == 0 && z[length] == '=')
			return z + length + 1;
		if (first)
			return NULL;
		at++;
	}
	return NULL;
}

/* Is this address another client by the prefixes of now? */
static bool is_cut_otherwise(
	const struct policy *now, const struct policy *before, const char *value)
{
	struct str s = { value, strcspn(value, "+") };
	struct addr a;

	if (!addr_parse(s, &a)) /* hashed, or cut */
		return before && (now->ipv4_prefix != before->ipv4_prefix ||
					 now->ipv6_prefix != before->ipv6_prefix);
	if (before && (a.len == 4 ? now->ipv4_prefix != before->ipv4_prefix
				  : now->ipv6_prefix != before->ipv6_prefix))
		return true;
	struct addr masked = addr_mask(&a, now->ipv4_prefix, now->ipv6_prefix);
	return memcmp(masked.bytes, a.bytes, a.len) != 0;
}

/* Does each + stand between two fields? Else clients have said some: "user=a+ip=::1+ip=10.0.0.1",
 * and which value is the address's is not certain. */
static bool is_certain(const struct rule *r, const char *client)
{
	unsigned n = 1;

	for (; (client = strchr(client, '+')); client++)
		n++;
	return n <= r->per_n;
}

/* By the text of a ban's descriptor, which says what it counts by. */
static const char *why_lost(const struct policy *now, const struct policy *before,
	const struct rule *r, const char *client)
{
	const char *at = client;
	bool certain = is_certain(r, client);

	/* A text that was cut may have lost fields at its end. */
	if (strlen(client) == BAN_CLIENT_MAX)
		return NULL;
	for (unsigned i = 0; i < r->per_n; i++) {
		const char *value = NULL;
		for (unsigned a = 0; a < r->per[i].n && !value; a++) {
			unsigned slot = r->per[i].slot[a];
			value = value_at(at, i == 0, now->layout.field[slot].name,
				now->layout.field[slot].length);
			if (value && certain && slot == FIELD_IP &&
				is_cut_otherwise(now, before, value))
				return "addresses are cut by another prefix now";
		}
		if (!value)
			return "its rule counts by something else now";
		at = value;
	}
	return NULL;
}

const char *ban_ends(const struct policy *now, const struct policy *before, const struct ban *b)
{
	const struct rule *r = rule_of(now, b->rule), *was = rule_of(before, b->rule);

	/* What was not found before either is of another agent, which has another configuration. */
	if (before && ban_ends(before, NULL, b))
		return NULL;
	if (!r)
		return "its rule has no penalty any more";
	if (was && (was->penalty->salt.a != r->penalty->salt.a ||
			   was->penalty->salt.b != r->penalty->salt.b))
		return "its penalty counts in another time now";
	if (r->mode == MODE_OFF && r->configured == MODE_OFF)
		return "its rule is off";
	if (was && was->per_n != r->per_n)
		return "its rule counts by something else now";
	return why_lost(now, before, r, b->client);
}
