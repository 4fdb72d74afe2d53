#include "store/redis_hints.h"

#include <stddef.h>
#include <string.h>

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
	X("NOPERM", "its ACL denies the user a command or keys; the README lists what is needed") \
	X("MISCONF", "it cannot save to disk and takes no writes; see its log") \
	X("NOREPLICAS", "it takes no writes with fewer than min-replicas-to-write") \
	X("CLUSTERDOWN", "the cluster does not cover all slots") \
	X("WRONGTYPE", \
		"something else stands under a name of ours: redis.prefix has to be ours alone") \
	X("MOVED", "it is a node of a cluster: set redis.mode = \"cluster\"") \
	X("ERR This instance has cluster support disabled", \
		"it is no node of a cluster: set redis.mode = \"single\"") \
	X("DENIED", "it is in protected mode: set a password or its `bind`")

const char *redis_error_hint(const char *error)
{
#define X(prefix, hint) \
	if (strncmp(error, prefix, sizeof(prefix) - 1) == 0) \
		return hint;
	HINTS(X)
#undef X
	return NULL;
}
