#include "config/address.h"

#include "config/rate.h"

#include <sys/un.h>

static bool refuse(char *why, size_t size, const char *text)
{
	snprintf(why, size, "%s", text);
	return false;
}

static bool is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '-' || c == '_';
}

static bool host_parse(struct str host, bool bracketed, char *why, size_t size)
{
	struct addr addr;

	if (bracketed) {
		const char *zone = memchr(host.p, '%', host.n);
		struct str address = { host.p, zone ? (size_t)(zone - host.p) : host.n };
		/* the mapped form of an IPv4 address is IPv4 to addr_parse() */
		if (!memchr(address.p, ':', address.n) || !addr_parse(address, &addr))
			return refuse(why, size, "want an IPv6 address between [ and ]");
		return true;
	}
	if (host.n == 0 || str_eq(host, STR("*")))
		return true;
	if (memchr(host.p, ':', host.n))
		return refuse(why, size, "want an IPv6 address in brackets: [::1]:9600");
	bool name = false;
	for (size_t i = 0; i < host.n; i++) {
		if (!is_host_char(host.p[i]))
			return refuse(why, size,
				"want host:port, [v6]:port, or an absolute path for a UNIX socket");
		name = name || !(host.p[i] == '.' || (host.p[i] >= '0' && host.p[i] <= '9'));
	}
	if (!name && !addr_parse(host, &addr))
		return refuse(why, size, "want an IPv4 address or a host's name");
	return true;
}

bool listen_parse(const char *text, struct listen_address *out, char *why, size_t why_size)
{
	size_t n = strlen(text);

	*out = (struct listen_address){ 0 };
	if (n == 0)
		return refuse(why, why_size,
			"want host:port, [v6]:port, or an absolute path for a UNIX socket");
	if (text[0] == '/') {
		size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
		if (n > max || n >= sizeof out->text) {
			snprintf(why, why_size, "want a path of at most %zu bytes", max);
			return false;
		}
		out->is_unix = true;
		memcpy(out->text, text, n + 1);
		return true;
	}
	const char *scheme = strstr(text, "://");
	if (scheme) {
		snprintf(why, why_size, "want it without \"%.*s\"", (int)(scheme + 3 - text), text);
		return false;
	}
	const char *colon = strrchr(text, ':');
	bool bracketed = text[0] == '[';
	if (!colon || (bracketed && (colon < text + 2 || colon[-1] != ']')))
		return refuse(why, why_size,
			"want host:port, [v6]:port, or an absolute path for a UNIX socket");
	struct str host = { text, (size_t)(colon - text) };
	if (bracketed)
		host = (struct str){ text + 1, host.n - 2 };
	int64_t port;
	if (colon[1] == '+' || colon[1] == '-' || !integer_parse(str_of(colon + 1), &port) ||
		port > 65535)
		return refuse(why, why_size, "want a port after the colon, at most 65535");
	if (host.n >= sizeof out->host || n >= sizeof out->text)
		return refuse(why, why_size, "want a shorter name of the host");
	if (!host_parse(host, bracketed, why, why_size))
		return false;
	if (!str_eq(host, STR("*")))
		memcpy(out->host, host.p, host.n);
	snprintf(out->port, sizeof out->port, "%d", (int)port);
	memcpy(out->text, text, n + 1);
	return true;
}

/* Bytes of its address; 0: it is a name. */
static unsigned family(const struct listen_address *a)
{
	struct addr addr;

	if (!a->host[0])
		return 4;
	return addr_parse(str_of(a->host), &addr) ? addr.len : 0;
}

static bool is_any(const struct listen_address *a)
{
	return !a->host[0] || strcmp(a->host, "0.0.0.0") == 0 || strcmp(a->host, "::") == 0;
}

static bool is_same_address(const struct listen_address *a, const struct listen_address *b)
{
	struct addr x, y;

	return strcmp(a->host, b->host) == 0 ||
	       (addr_parse(str_of(a->host), &x) && addr_parse(str_of(b->host), &y) &&
		       x.len == y.len && memcmp(x.bytes, y.bytes, x.len) == 0);
}

bool listen_clashes(const struct listen_address *a, const struct listen_address *b)
{
	if (a->is_unix || b->is_unix)
		return strcmp(a->text, b->text) == 0;
	if (strcmp(a->port, b->port) != 0 || strcmp(a->port, "0") == 0)
		return false;
	if (is_same_address(a, b))
		return true;
	/* "::" takes IPv4, too (server/listener.c), unless its own list has all of IPv4 at this
	 * port, which clashes then. */
	if (strcmp(a->host, "::") == 0 || strcmp(b->host, "::") == 0)
		return family(a) && family(b);
	return family(a) && family(a) == family(b) && (is_any(a) || is_any(b));
}

bool listen_clashes_surely(const struct listen_address *a, const struct listen_address *b)
{
	return listen_clashes(a, b) && (a->is_unix || family(a) == family(b));
}

bool listen_is_local(const struct listen_address *a)
{
	struct addr addr;

	if (a->is_unix || strcmp(a->host, "localhost") == 0)
		return true;
	return addr_parse(str_of(a->host), &addr) && addr_is_loopback(&addr);
}
