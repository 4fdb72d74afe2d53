/* Every setting outside of rules and lists, in one table: parsing, range checks, defaults, what a
 * reload may change, the effective configuration and conf/full.cfg all come from it. */
#ifndef CONFIG_OPTIONS_H
#define CONFIG_OPTIONS_H

#include "config/snapshot.h"

enum { TIERS_FILE_PATH_MAX = 1024 };

/* What the table fills. */
struct values {
	bool enabled;
	struct settings settings;
	int64_t ipv4_prefix, ipv6_prefix;
	uint64_t secret; /* slots */
	char tiers_file[TIERS_FILE_PATH_MAX];
	char default_tier[TIER_NAME_MAX + 1];
	int header_format;
};

enum option_kind {
	OPTION_BOOLEAN,
	OPTION_INTEGER,
	OPTION_DURATION,
	OPTION_WORD,   /* one of `words` */
	OPTION_TEXT,   /* `min`: bytes at least */
	OPTION_SECRET, /* a text that is never shown */
	OPTION_PATH,   /* relative ones start at the folder of the file that names them */
	OPTION_MODE,   /* permissions in octal, as a string */
	OPTION_TARGET, /* of the log */
	OPTION_LISTEN, /* lists from here on */
	OPTION_SERVERS,
	OPTION_PREFIXES,
	OPTION_VARIABLES, /* default: those that limit/answer.h marks */
	OPTION_FIELDS,
};

enum { OPTION_MINUTE = 60 * 1000000, OPTION_RELOAD = 1, OPTION_RESTART = 0 };
#define OPTION_HOUR (60 * (int64_t)OPTION_MINUTE)
#define OPTION_DAY  (24 * OPTION_HOUR)

/* X(id, name, kind, default, min, max, change at a reload?, words, member of struct values, help)
 * Defaults are written as strings; those of lists are separated by blanks. Ranges of durations are
 * microseconds. Of words, those after a `!` are reserved for a later version. */
#define OPTIONS(X) \
	X(enabled, "enabled", BOOLEAN, "true", 0, 0, RELOAD, "", enabled, \
		"false: every request passes, reason \"disabled\"") \
	X(agent_listen, "agent.listen", LISTEN, "127.0.0.1:9600", 1, LISTEN_MAX, RESTART, "", \
		settings.agent.listen, \
		"where HAProxy connects: \"host:port\", \"[v6]:port\", \":port\" for all of IPv4, " \
		"\"[::]:port\" for IPv6 too, or an absolute path for a UNIX socket") \
	X(agent_threads, "agent.threads", INTEGER, "0", 0, 64, RESTART, "", \
		settings.agent.threads, \
		"threads that decide, at most: connections lie on as few as carry them; 0: one for " \
		"each core") \
	X(agent_max_connections, "agent.max_connections", INTEGER, "1024", 1, 1000000, RELOAD, "", \
		settings.agent.max_connections, \
		"connections open at once; of more only health checks are answered") \
	X(agent_max_frame_size, "agent.max_frame_size", INTEGER, "16380", 256, 1048576, RELOAD, \
		"", settings.agent.max_frame_size, \
		"bytes of a frame, as announced to HAProxy; for connections made from then on. " \
		"Where HAProxy's tune.bufsize was raised, that less 4: what is longer passes unchecked") \
	X(agent_allow_from, "agent.allow_from", PREFIXES, "", 0, 65536, RELOAD, "", \
		settings.agent.allow_from, \
		"addresses and prefixes that may connect; [] is all: SPOP knows no authentication. What is " \
		"open stays open") \
	X(agent_socket_mode, "agent.socket_mode", MODE, "0660", 0, 0777, RESTART, "", \
		settings.agent.socket_mode, "permissions of UNIX sockets, in octal, as a string") \
	X(agent_socket_owner, "agent.socket_owner", TEXT, "", 0, 0, RESTART, "", \
		settings.agent.socket_owner, \
		"user that owns UNIX sockets, a name or number; \"\": as the process") \
	X(agent_socket_group, "agent.socket_group", TEXT, "", 0, 0, RESTART, "", \
		settings.agent.socket_group, \
		"group that owns UNIX sockets, a name or number; \"\": as the process") \
	X(agent_drain, "agent.drain", DURATION, "2s", 0, OPTION_HOUR, RELOAD, "", \
		settings.agent.drain, \
		"how long health checks fail before a stop closes what is left; \"0s\" where HAProxy " \
		"has no other agent to turn to") \
	X(agent_busy_poll, "agent.busy_poll", DURATION, "30us", 0, 1000, RELOAD, "", \
		settings.agent.busy_poll, \
		"after requests a thread asks for more, so long at most, before it sleeps: less " \
		"delay for more CPU time; only where there are more cores than threads that have " \
		"connections") \
	X(agent_batch_scheduling, "agent.batch_scheduling", BOOLEAN, "true", 0, 0, RELOAD, "", \
		settings.agent.batch_scheduling, \
		"where HAProxy and the agent share busy cores, a thread of the agent that is woken lets " \
		"who runs there go on until he sleeps (SCHED_BATCH): more requests with each send; " \
		"not while it waits long for that on average, nor where it was given another " \
		"policy (CPUSchedulingPolicy=, chrt)") \
	X(agent_header_format, "agent.header_format", WORD, "ietf-11", 0, 0, RELOAD, "ietf-11", \
		header_format, \
		"which draft of the RateLimit fields the variables policy and ratelimit follow") \
	X(agent_variables, "agent.variables", VARIABLES, "", 1, 64, RELOAD, "", \
		settings.agent.variables, \
		"what HAProxy is told; there are also reset_at, algorithm, policy and ratelimit") \
	X(store_backend, "store.backend", WORD, "memory", 0, 0, RESTART, "memory|redis", \
		settings.store.backend, "where counters are kept") \
	X(store_max_keys, "store.max_keys", INTEGER, "1000000", 1, 1000000000, RESTART, "", \
		settings.store.max_keys, \
		"counters at once, a bound on memory; then the one with the least to lose goes") \
	X(store_state_file, "store.state_file", PATH, "", 0, 0, RESTART, "", \
		settings.store.state_file, \
		"counters survive a restart here; \"\" for none, else for instance " \
		"\"/var/lib/spoa-ratelimit/state\"") \
	X(store_state_interval, "store.state_interval", DURATION, "1m", 0, OPTION_DAY, RELOAD, "", \
		settings.store.state_interval, \
		"how often it is written while running; \"0s\": only at the end") \
	X(redis_mode, "redis.mode", WORD, "single", 0, 0, RESTART, "single|sentinel|cluster", \
		settings.redis.mode, "what `servers` are") \
	X(redis_servers, "redis.servers", SERVERS, "127.0.0.1:6379", 1, SERVERS_MAX, RESTART, "", \
		settings.redis.server, \
		"\"host:port\", \"[v6]:port\" or an absolute path; one, or the sentinels, or some " \
		"cluster nodes") \
	X(redis_master, "redis.master", TEXT, "mymaster", 1, 0, RESTART, "", \
		settings.redis.master, "the name that the sentinels know") \
	X(redis_username, "redis.username", TEXT, "", 0, 0, RESTART, "", settings.redis.username, \
		"user of Redis 6 and newer; \"\": the default user") \
	X(redis_password, "redis.password", SECRET, "${REDIS_PASSWORD:-}", 0, 0, RESTART, "", \
		settings.redis.password, "better from the environment than in this file") \
	X(redis_db, "redis.db", INTEGER, "0", 0, 65535, RESTART, "", settings.redis.db, \
		"number of the database") \
	X(redis_tls, "redis.tls", BOOLEAN, "false", 0, 0, RESTART, "", settings.redis.tls, \
		"TLS to servers and sentinels; certificates are verified, and the name in them") \
	X(redis_tls_ca, "redis.tls_ca", PATH, "", 0, 0, RESTART, "", settings.redis.tls_ca, \
		"who may have signed their certificates: a file, or a folder with hashed names; " \
		"\"\": the system's; read again at a reload, as the next two") \
	X(redis_tls_cert, "redis.tls_cert", PATH, "", 0, 0, RESTART, "", settings.redis.tls_cert, \
		"the agent's own certificate, with its chain, where they ask for one") \
	X(redis_tls_key, "redis.tls_key", PATH, "", 0, 0, RESTART, "", settings.redis.tls_key, \
		"its key, without a passphrase") \
	X(redis_tls_name, "redis.tls_name", TEXT, "", 0, 0, RESTART, "", settings.redis.tls_name, \
		"the name that each certificate must have, also asked for (SNI); \"\": the host as " \
		"configured, or as sentinels name it") \
	X(redis_prefix, "redis.prefix", TEXT, "rl:", 0, 0, RESTART, "", settings.redis.prefix, \
		"what the names of all keys begin with") \
	X(redis_timeout, "redis.timeout", DURATION, "20ms", 1000, OPTION_MINUTE, RELOAD, "", \
		settings.redis.timeout, \
		"how long a request waits for Redis; then on_failure decides") \
	X(redis_hash_secret, "redis.hash_secret", SECRET, "", 0, 0, RESTART, "", \
		settings.redis.hash_secret, \
		"key of the hash of what is counted, the same for all agents; \"\": from prefix") \
	X(redis_on_failure, "redis.on_failure", WORD, "local", 0, 0, RELOAD, "local|open|closed", \
		settings.redis.on_failure, \
		"what is done while Redis is away: enforce limit / instances from memory, let pass, " \
		"or deny; a rule may set its own") \
	X(redis_instances, "redis.instances", INTEGER, "1", 1, 10000, RELOAD, "", \
		settings.redis.instances, \
		"agents that share it: on_failure \"local\" enforces limit / instances") \
	X(redis_tiers_age, "redis.tiers_age", DURATION, "1m", 100000, OPTION_DAY, RELOAD, "", \
		settings.redis.tiers_age, \
		"how long a tier that was read from the hash PREFIXtiers is believed, at most; " \
		"changes there are seen before") \
	X(redis_tiers_cache, "redis.tiers_cache", INTEGER, "65536", 64, 100000000, RESTART, "", \
		settings.redis.tiers_cache, \
		"keys and users whose tier, or that they have none, is remembered: 104 bytes each") \
	X(log_target, "log.target", TARGET, "stderr", 0, 0, RELOAD, "", settings.log.target, \
		"stderr, syslog, journal, or an absolute path (SIGUSR1 opens it again)") \
	X(log_format, "log.format", WORD, "text", 0, 0, RELOAD, "text|json", settings.log.format, \
		"one line for each event") \
	X(log_level, "log.level", WORD, "info", 0, 0, RELOAD, "debug|info|warning|error", \
		settings.log.level, \
		"the least important that is written, beside the lines `audit`") \
	X(admin_listen, "admin.listen", LISTEN, "127.0.0.1:9601", 1, ADMIN_LISTEN_MAX, RESTART, \
		"", settings.admin.listen, \
		"where the admin interface is served over HTTP: as agent.listen; what other machines " \
		"can reach needs a token") \
	X(admin_token, "admin.token", SECRET, "${RATELIMIT_ADMIN_TOKEN:-}", 0, 0, RELOAD, "", \
		settings.admin.token, \
		"who shows it (Authorization: Bearer TOKEN) may change things; \"\": only who may " \
		"connect to the UNIX socket; better from the environment than in this file") \
	X(admin_socket_mode, "admin.socket_mode", MODE, "0660", 0, 0777, RESTART, "", \
		settings.admin.socket_mode, \
		"permissions of its UNIX sockets, in octal, as a string: without a token, who may " \
		"connect may change things") \
	X(admin_socket_owner, "admin.socket_owner", TEXT, "", 0, 0, RESTART, "", \
		settings.admin.socket_owner, \
		"user that owns them, a name or number; \"\": as the process") \
	X(admin_socket_group, "admin.socket_group", TEXT, "", 0, 0, RESTART, "", \
		settings.admin.socket_group, \
		"group that owns them, a name or number; \"\": as the process") \
	X(identity_ipv4_prefix, "identity.ipv4_prefix", INTEGER, "32", 1, 32, RELOAD, "", \
		ipv4_prefix, "how much of an IPv4 address is one client") \
	X(identity_ipv6_prefix, "identity.ipv6_prefix", INTEGER, "64", 1, 128, RELOAD, "", \
		ipv6_prefix, "how much of an IPv6 address is one client") \
	X(identity_secret, "identity.secret", FIELDS, "key", 0, FIELDS_MAX, RELOAD, "", secret, \
		"fields that are only ever stored, logged and shown hashed (key always is)") \
	X(identity_tiers_file, "identity.tiers_file", PATH, "", 0, 0, RELOAD, "", tiers_file, \
		"lines \"KEY-OR-USER TIER\" as HAProxy's maps have them; a key may stand there as " \
		"sha256:HEX of its value; \"\" for none") \
	X(identity_default_tier, "identity.default_tier", TEXT, "anonymous", 1, 0, RELOAD, "", \
		default_tier, "the tier of who is neither given one nor in the tiers file")

enum option {
#define X(id, name, kind, text, min, max, change, words, member, help) OPTION_ID_##id,
	OPTIONS(X)
#undef X
		OPTION_COUNT
};

struct option_row {
	const char *name;
	enum option_kind kind;
	const char *text; /* the default */
	int64_t min, max;
	bool reload;
	const char *words;
	size_t offset, size; /* in struct values */
	const char *help;
};

extern const struct option_row option_table[OPTION_COUNT];

/* What an OPTION_SECRET is, which lines do not show. */
const char *option_secret(const struct snapshot *, const struct option_row *);

static inline bool option_is_list(const struct option_row *o)
{
	return o->kind >= OPTION_LISTEN;
}

/* X(name, default, help): settings of a rule. Those with NULL for help are reserved. */
#define RULE_SETTINGS(X) \
	X(name, "", "unique; shown in variables, logs and metrics") \
	X(match, "", \
		"fields and what they must look like: a pattern or a list of patterns; all fields " \
		"must match; without it: every request") \
	X(per, "[]", \
		"fields whose values each get a counter of their own; \"a|b\" takes the first that " \
		"is there; [] is one counter for all") \
	X(algorithm, "token-bucket", "token-bucket, sliding-window or fixed-window") \
	X(rate, "", \
		"\"N/WINDOW\", \"N/WINDOW burst B\", \"unlimited\"; a list: all of them hold; a group: " \
		"by tier, `default` for those not listed") \
	X(mode, "enforce", "enforce, shadow (count and report, never deny) or off") \
	X(action, "deny", "deny, or tag: pass, and set the variable tag") \
	X(tag, "the rule's name", "what to set") \
	X(count_denied, "false", "true: this rule also counts requests that were denied") \
	X(warn_at, "1.0", "share of the limit, 0 to 1, above which the variable warn is true") \
	X(cost, "cost", "field that holds what a request costs") \
	X(penalty, "", \
		"{ after = \"10/1m\"; ban = \"10m\"; factor = 2; max = \"1d\"; }: who was denied by " \
		"this rule so often in so long a time, from the first denial on, is banned by it for " \
		"ban, each next time factor times as long, at most max") \
	X(on_failure, "redis.on_failure", \
		"while Redis is away: local (limit / redis.instances from memory), open or closed") \
	X(lease, "0", \
		"with Redis: share of the limit, up to 0.5, that an agent takes ahead for keys in " \
		"much use, so that Redis is not asked for each request; agents x lease may be left " \
		"unused; 0: none")

/* Names at the top of a file. */
#define TOP_SETTINGS(X) \
	X(enabled) \
	X(agent) \
	X(store) \
	X(redis) \
	X(log) \
	X(admin) \
	X(identity) \
	X(allow) \
	X(block) \
	X(rules)

#endif
