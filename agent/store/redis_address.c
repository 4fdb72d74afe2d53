#include "store/redis_address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

bool redis_host_eq(const struct redis_host *a, const struct redis_host *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

bool redis_address_eq(const struct redis_address *a, const struct redis_address *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

const char *redis_address_name(const struct redis_address *a)
{
	return a->name[0] ? a->name : a->host;
}

const char *redis_address_text(const struct redis_address *a, char out[REDIS_ADDRESS_TEXT_MAX])
{
	if (!a->port)
		snprintf(out, REDIS_ADDRESS_TEXT_MAX, "%s", a->host);
	else if (strchr(a->host, ':'))
		snprintf(out, REDIS_ADDRESS_TEXT_MAX, "[%s]:%u", a->host, (unsigned)a->port);
	else
		snprintf(out, REDIS_ADDRESS_TEXT_MAX, "%s:%u", a->host, (unsigned)a->port);
	return out;
}

bool redis_address_is_numeric(const char *host)
{
	struct in6_addr any;
	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

bool redis_address_of(const struct redis_host *s, struct redis_address *out)
{
	size_t n = strlen(s->host);

	if ((s->host[0] != '/' && !redis_address_is_numeric(s->host)) || n >= sizeof out->host)
		return false;
	memcpy(out->host, s->host, n + 1);
	out->port = s->port;
	return true;
}

bool redis_addresses_eq(const struct redis_addresses *a, const struct redis_addresses *b)
{
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++)
		if (!redis_address_eq(&a->address[i], &b->address[i]))
			return false;
	return true;
}
