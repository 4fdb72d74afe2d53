#include "server/ban_hide.h"

#include <string.h>

static const char prefix[] = "sha256:";
enum { PREFIX = sizeof prefix - 1, SHOWN = PREFIX + SECRET_HEX_SHOWN };

/* Bytes of "NAME=" where a secret field begins; 0: none does. */
static size_t secret_begins(const struct policy *p, const char *at)
{
	for (unsigned slot = 0; slot < p->layout.n; slot++) {
		size_t n = p->layout.field[slot].length;
		if (p->secret >> slot & 1 && strncmp(at, p->layout.field[slot].name, n) == 0 &&
			at[n] == '=')
			return n + 1;
	}
	return 0;
}

/* `cut`: of a hash that stands last only the beginning may be there. */
static bool is_hidden(const char *value, size_t n, bool cut)
{
	size_t begun = n < PREFIX ? n : PREFIX;

	return memcmp(value, prefix, begun) == 0 &&
	       strspn(value + begun, "0123456789abcdef") >= n - begun &&
	       (n == SHOWN || (n < SHOWN && cut && !value[n]));
}

/* Does each + stand between two fields? Else clients have said some. */
static bool is_certain(const struct policy *p, const struct ban *b)
{
	const struct rule *r = NULL;
	unsigned n = 1;

	for (unsigned i = 0; i < p->rule_n && !r; i++)
		if (strcmp(p->rule[i].name, b->rule) == 0)
			r = &p->rule[i];
	for (const char *at = b->client; (at = strchr(at, '+')); at++)
		n++;
	return r && n <= r->per_n;
}

struct text {
	char z[BAN_CLIENT_MAX + 1];
	size_t n;
};

static void put(struct text *t, const char *p, size_t n)
{
	size_t room = BAN_CLIENT_MAX - t->n;

	n = n < room ? n : room;
	memcpy(t->z + t->n, p, n);
	t->n += n;
}

bool ban_hide(const struct policy *p, struct ban *b)
{
	struct text out = { .n = 0 };
	bool certain = is_certain(p, b), cut = strlen(b->client) == BAN_CLIENT_MAX, any = false;
	char hex[SHA256_HEX_BYTES];

	for (const char *at = b->client; *at;) {
		size_t name = secret_begins(p, at), n = name + strcspn(at + name, "+");
		bool plain = name && !is_hidden(at + name, n - name, cut);
		if (plain && !certain)
			n = strlen(at);
		if (plain) {
			hash_sha256_hex((struct str){ at + name, n - name }, hex);
			put(&out, at, name);
			put(&out, prefix, PREFIX);
			put(&out, hex, SECRET_HEX_SHOWN);
		} else {
			put(&out, at, n);
		}
		any |= plain;
		at += n;
		if (*at)
			put(&out, at++, 1);
	}
	if (!any)
		return false;
	memcpy(b->client, out.z, out.n);
	b->client[out.n] = '\0';
	return true;
}
