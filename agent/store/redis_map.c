#include "store/redis_map.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_text(const struct redisReply *r)
{
	return r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS;
}

static bool text_is(const struct redisReply *r, const char *text)
{
	return is_text(r) && (size_t)r->len == strlen(text) &&
	       memcmp(r->str, text, (size_t)r->len) == 0;
}

/* ---- an address ---- */

/* false: it is none that could be connected to. */
static bool copy_host(const char *host, size_t n, struct redis_address *out)
{
	if (n == 0 || n >= sizeof out->host || memchr(host, '\0', n))
		return false;
	memcpy(out->host, host, n);
	memset(out->host + n, 0, sizeof out->host - n);
	return redis_address_is_numeric(out->host);
}

/* Redis 7 says by [ "ip", "127.0.0.1" ] what a name means. */
static bool copy_ip_beside(const struct redisReply *node, struct redis_address *out)
{
	if (node->elements < 4 || node->element[3]->type != REDIS_REPLY_ARRAY)
		return false;
	const struct redisReply *more = node->element[3];
	for (size_t i = 0; i + 1 < more->elements; i += 2)
		if (text_is(more->element[i], "ip") && is_text(more->element[i + 1]))
			return copy_host(
				more->element[i + 1]->str, (size_t)more->element[i + 1]->len, out);
	return false;
}

static bool read_node(const struct redisReply *node, const struct redis_address *asked,
	struct redis_address *out, char *why, size_t why_size)
{
	if (node->type != REDIS_REPLY_ARRAY || node->elements < 2 ||
		node->element[1]->type != REDIS_REPLY_INTEGER)
		goto garbage;
	const struct redisReply *host = node->element[0];
	long long port = node->element[1]->integer;
	if (port < 1 || port > UINT16_MAX)
		goto garbage;
	bool known = true;
	memset(out, 0, sizeof *out);
	if (host->type == REDIS_REPLY_NIL || text_is(host, "") || text_is(host, "?"))
		memcpy(out->host, asked->host, sizeof out->host);
	else if (!is_text(host))
		goto garbage;
	else
		known = copy_host(host->str, (size_t)host->len, out) || copy_ip_beside(node, out);
	out->port = (uint16_t)port;
	if (!known)
		snprintf(why, why_size,
			"it names a node without an address: set cluster-preferred-endpoint-type ip");
	return known;
garbage:
	snprintf(why, why_size, "what it says of its slots is not what a cluster says");
	return false;
}

/* ---- the map ---- */

static unsigned node_place(struct redis_map *m, const struct redis_address *a)
{
	unsigned i = 0;

	while (i < m->node_n && !redis_address_eq(&m->node[i], a))
		i++;
	if (i == m->node_n && i < REDIS_NODES_MAX)
		m->node[m->node_n++] = *a;
	return i;
}

static bool read_range(struct redis_map *m, const struct redisReply *range,
	const struct redis_address *asked, char *why, size_t why_size)
{
	struct redis_address a;

	if (range->type != REDIS_REPLY_ARRAY || range->elements < 3 ||
		range->element[0]->type != REDIS_REPLY_INTEGER ||
		range->element[1]->type != REDIS_REPLY_INTEGER)
		goto garbage;
	long long first = range->element[0]->integer, last = range->element[1]->integer;
	if (first < 0 || last < first || last >= REDIS_SLOTS)
		goto garbage;
	if (!read_node(range->element[2], asked, &a, why, why_size))
		return false;
	unsigned node = node_place(m, &a);
	if (node == REDIS_NODES_MAX) {
		snprintf(why, why_size, "it has more than %d masters", REDIS_NODES_MAX);
		return false;
	}
	memset(m->slot + first, (int)node, (size_t)(last - first + 1));
	return true;
garbage:
	snprintf(why, why_size, "what it says of its slots is not what a cluster says");
	return false;
}

struct redis_map *redis_map_read(
	const struct redisReply *r, const struct redis_address *asked, char *why, size_t why_size)
{
	if (r->type != REDIS_REPLY_ARRAY) {
		snprintf(why, why_size, "%s",
			r->type == REDIS_REPLY_ERROR
				? r->str
				: "what it says of its slots is not what a cluster says");
		return NULL;
	}
	struct redis_map *m = calloc(1, sizeof *m);
	if (!m) {
		snprintf(why, why_size, "out of memory");
		return NULL;
	}
	atomic_init(&m->refs, 1);
	memset(m->slot, REDIS_NO_NODE, sizeof m->slot);
	for (size_t i = 0; i < r->elements; i++) {
		if (!read_range(m, r->element[i], asked, why, why_size)) {
			free(m);
			return NULL;
		}
	}
	if (m->node_n)
		return m;
	snprintf(why, why_size, "it knows of no slot that is served");
	free(m);
	return NULL;
}

bool redis_map_eq(const struct redis_map *a, const struct redis_map *b)
{
	bool same[REDIS_NODES_MAX] = { false };

	if (a->node_n != b->node_n)
		return false;
	for (unsigned i = 0; i < REDIS_SLOTS; i++) {
		uint8_t x = a->slot[i], y = b->slot[i];
		if ((x == REDIS_NO_NODE) != (y == REDIS_NO_NODE))
			return false;
		if (x == REDIS_NO_NODE || (x == y && same[x]))
			continue;
		if (!redis_address_eq(&a->node[x], &b->node[y]))
			return false;
		same[x] |= x == y;
	}
	return true;
}

struct redis_map *redis_map_ref(struct redis_map *m)
{
	atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

void redis_map_unref(struct redis_map *m)
{
	if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
		free(m);
}

/* ---- redirections ---- */

/* " 3999 host:port", to the end. */
static bool read_target(
	const char *p, const struct redis_address *asked, uint16_t *slot, struct redis_address *to)
{
	char *end;

	if (*p < '0' || *p > '9')
		return false;
	unsigned long number = strtoul(p, &end, 10);
	if (number >= REDIS_SLOTS || *end != ' ')
		return false;
	const char *host = end + 1, *colon = strrchr(host, ':');
	if (!colon || colon[1] < '0' || colon[1] > '9')
		return false;
	unsigned long port = strtoul(colon + 1, &end, 10);
	if (*end || port < 1 || port > UINT16_MAX)
		return false;
	*slot = (uint16_t)number;
	memset(to, 0, sizeof *to);
	if (colon == host) {
		if (asked)
			memcpy(to->host, asked->host, sizeof to->host);
	} else if (!copy_host(host, (size_t)(colon - host), to)) {
		memset(to->host, 0, sizeof to->host);
	}
	to->port = (uint16_t)port;
	return true;
}

enum redis_redirect redis_redirect_read(const char *error, const struct redis_address *asked,
	uint16_t *slot, struct redis_address *to)
{
	if (strncmp(error, "TRYAGAIN", 8) == 0)
		return REDIRECT_TRYAGAIN;
	if (strncmp(error, "MOVED ", 6) == 0 && read_target(error + 6, asked, slot, to))
		return REDIRECT_MOVED;
	if (strncmp(error, "ASK ", 4) == 0 && read_target(error + 4, asked, slot, to))
		return REDIRECT_ASK;
	return REDIRECT_NONE;
}
