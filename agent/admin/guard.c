#include "admin/guard.h"

#include "base/addr.h"

#include <sodium.h>
#include <string.h>
#include <strings.h>

enum { TOKEN_ROOM = 256 };

bool guard_shows_token(const char *header, const char *token)
{
	static const char scheme[] = "bearer ";
	unsigned char shown[TOKEN_ROOM] = { 0 }, wanted[TOKEN_ROOM] = { 0 };

	if (!header || strncasecmp(header, scheme, sizeof scheme - 1) != 0)
		return false;
	header += sizeof scheme - 1;
	header += strspn(header, " ");
	size_t shown_n = strlen(header), wanted_n = strlen(token);
	bool fits = shown_n < TOKEN_ROOM && wanted_n > 0 && wanted_n < TOKEN_ROOM;
	memcpy(shown, header, shown_n < TOKEN_ROOM ? shown_n : TOKEN_ROOM);
	memcpy(wanted, token, wanted_n < TOKEN_ROOM ? wanted_n : TOKEN_ROOM);
	bool same = sodium_memcmp(shown, wanted, TOKEN_ROOM) == 0;
	sodium_memzero(shown, sizeof shown);
	sodium_memzero(wanted, sizeof wanted);
	return fits && same;
}

/* What follows an address in brackets: else "[::1].evil.example" would pass for one. */
static bool is_port_or_nothing(const char *text)
{
	return !*text || (*text == ':' && !text[1 + strspn(text + 1, "0123456789")]);
}

bool guard_knows_host(const char *host, const char *listen_host)
{
	struct str name = str_of(host);
	struct addr addr;

	if (host[0] == '[') {
		const char *end = strchr(host, ']');
		if (!end || !is_port_or_nothing(end + 1))
			return false;
		return addr_parse((struct str){ host + 1, (size_t)(end - host) - 1 }, &addr);
	}
	const char *colon = strchr(host, ':');
	if (colon)
		name.n = (size_t)(colon - host);
	if (addr_parse(name, &addr))
		return true;
	const char *known[] = { "localhost", listen_host };
	for (int i = 0; i < 2; i++)
		if (name.n && strlen(known[i]) == name.n &&
			strncasecmp(known[i], name.p, name.n) == 0)
			return true;
	return false;
}

/* "http://HOST" or "https://HOST", of the Host that the same request names. */
static bool is_own_origin(const char *origin, const char *host)
{
	const char *rest = strncmp(origin, "http://", 7) == 0    ? origin + 7
			   : strncmp(origin, "https://", 8) == 0 ? origin + 8
								 : NULL;
	return rest && host && strcasecmp(rest, host) == 0;
}

static bool is_of_another_page(const struct guard_request *r)
{
	if (r->origin && !is_own_origin(r->origin, r->host))
		return true;
	return r->fetch_site && strcmp(r->fetch_site, "same-origin") != 0 &&
	       strcmp(r->fetch_site, "none") != 0;
}

static struct guard_verdict refuse(int status, const char *detail)
{
	return (struct guard_verdict){ .status = status, .detail = detail };
}

static struct guard_verdict check_right(const struct guard_request *r, bool by_token)
{
	const struct guard_verdict yes = { .by_token = by_token };

	if (by_token || r->right == RIGHT_ANYONE)
		return yes;
	if (r->right == RIGHT_READ)
		return r->is_local
			       ? yes
			       : refuse(401, "other machines can reach this address, so reading "
					     "needs admin.token: send Authorization: Bearer TOKEN");
	if (r->token[0])
		return refuse(401, "this changes something, and needs admin.token: send "
				   "Authorization: Bearer TOKEN");
	return r->is_unix ? yes
			  : refuse(403, "without admin.token changes are possible only over a UNIX "
					"socket: set admin.token, or add a socket to admin.listen");
}

struct guard_verdict guard_check(const struct guard_request *r)
{
	bool by_token = guard_shows_token(r->authorization, r->token);

	if (r->right != RIGHT_ANYONE && r->authorization && r->token[0] && !by_token)
		return refuse(401, "this is not the token of admin.token");
	if (!r->safe && is_of_another_page(r))
		return refuse(403, "a web page of another origin may change nothing here");
	/* Who knows the token is no page that was led here. */
	if (r->right != RIGHT_ANYONE && !r->is_unix && !by_token &&
		!(r->host && guard_knows_host(r->host, r->listen_host)))
		return refuse(421, "this is not the Host that is served here: use an IP address, "
				   "localhost, the name in admin.listen, or the token");
	return check_right(r, by_token);
}
