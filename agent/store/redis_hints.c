#include "store/redis_hints.h"

#include "base/addr.h"
#include "store/redis_address.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* It knows these commands of no other. */
#define SENTINEL \
	"a sentinel seems to listen there: set redis.mode = \"sentinel\", or name the server itself"

#define DENIED "its ACL denies the user a command or keys; the README lists what is needed"

#define HINTS(X) \
	X("LOADING", "it reads its data back from disk; wait") \
	X("BUSY", "some script runs for too long there; SCRIPT KILL ends it") \
	X("OOM", \
		"raise its maxmemory; maxmemory-policy stays noeviction, as what it evicts is a limit " \
		"granted anew") \
	X("READONLY", \
		"redis.servers names a replica; name the master, or use mode = \"sentinel\"") \
	X("MASTERDOWN", "redis.servers names a replica that has lost its master") \
	X("NOAUTH", "set redis.password") \
	X("WRONGPASS", "redis.username or redis.password is not what it knows") \
	X("ERR invalid password", "redis.password is not what it knows") \
	X("ERR AUTH", "redis.password or redis.username is set, but it knows no such user") \
	X("ERR Client sent AUTH", "redis.password is set, but it wants none") \
	X("ERR DB index", "redis.db is more than its `databases`") \
	X("ERR SELECT is not allowed", "a cluster has no db but 0") \
	X("ERR max number of clients", "raise its maxclients") \
	X("NOPERM", DENIED) \
	X("ERR The user executing the script", DENIED) /* Redis 7.0 */ \
	X("ERR ACL failure in script", DENIED)         /* Redis 7.2 and newer, Valkey */ \
	X("MISCONF", "it cannot save to disk and takes no writes; see its log") \
	X("NOREPLICAS", "it takes no writes with fewer than min-replicas-to-write") \
	X("CLUSTERDOWN", "the cluster does not cover all slots") \
	X("WRONGTYPE", \
		"something else stands under a name of ours: redis.prefix has to be ours alone") \
	X("MOVED", "it is a node of a cluster: set redis.mode = \"cluster\"") \
	X("ERR This instance has cluster support disabled", \
		"it is no node of a cluster: set redis.mode = \"single\"") \
	X("DENIED", "it is in protected mode: set a password or its `bind`") \
	X("ERR unknown command 'SCRIPT'", SENTINEL) \
	X("ERR unknown command 'SELECT'", SENTINEL) \
	X("ERR unknown command 'CLUSTER'", SENTINEL) \
	X("ERR unknown command 'SENTINEL'", \
		"it is no sentinel: redis.servers names these in mode \"sentinel\"; of a server itself " \
		"set redis.mode = \"single\"") \
	X("ERR unknown command", \
		"a command that is needed is renamed or disabled there (rename-command), or what " \
		"listens is no Redis; the README lists what is needed")

/* Earlier servers have ` where later ones have '; and a command is as it was sent. */
static bool begins(const char *error, const char *prefix)
{
	for (; *prefix; error++, prefix++)
		if (*error != *prefix && !(*prefix == '\'' && *error == '`'))
			return false;
	return true;
}

const char *redis_error_core(const char *error)
{
	const char *core = begins(error, "ERR Error running script") ? strstr(error, ": -") : NULL;

	return core ? core + strlen(": -") : error;
}

bool redis_error_is_of_replica(const char *error)
{
	const char *core = redis_error_core(error);

	return strncmp(core, "READONLY", 8) == 0 || strncmp(core, "MASTERDOWN", 10) == 0;
}

const char *redis_error_hint(const char *error)
{
	const char *core = redis_error_core(error);

#define X(prefix, hint) \
	if (begins(core, prefix)) \
		return hint;
	HINTS(X)
#undef X
	return NULL;
}

/* The unit of contrib/systemd lets the agent reach loopback only, while redis-cli beside it works.
 */
const char *redis_reach_hint(const struct redis_address *a)
{
	struct addr ip;

	if (!a || !addr_parse(str_of(a->host), &ip) || addr_is_loopback(&ip))
		return NULL;
	return "see whether it runs, and can be reached from here; under systemd the unit lets the agent "
	       "reach loopback only: its IPAddressAllow= has to have the address";
}
