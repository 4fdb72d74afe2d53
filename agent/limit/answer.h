/* What HAProxy is told: one table names every variable, and from it come the encoder, the setting
 * `agent.variables`, the documentation, and the test that haproxy/ uses nothing else. */
#ifndef LIMIT_ANSWER_H
#define LIMIT_ANSWER_H

/* X(name, type, by default, meaning); the type is that of put_TYPE (server/answer.c). In the
 * order in which they go into an ACK: when one would exceed the frame size, variables are dropped
 * from the end, so the decision comes first. */
#define ANSWER_VARS(X) \
	X(deny, bool, true, "true: this request must be refused") \
	X(reason, name, true, \
		"ok, limited, oversize, blocked, banned, bypassed, disabled, degraded") \
	X(retry_after, int, true, \
		"seconds until the same request would pass; 0: not denied, or waiting does not help") \
	X(limit, int, true, "the most that the reported limit can give at once") \
	X(remaining, int, true, "what is left of it") \
	X(reset, int, true, "seconds until it is full again, or its window ends") \
	X(rule, name, true, "name of the rule that the reported limit belongs to") \
	X(tier, name, true, "the client's tier") \
	X(scope, str, true, "the fields that it counts by, joined by +; global for none") \
	X(warn, bool, true, "more than warn_at of some limit is used") \
	X(shadow, name, true, "a rule in shadow mode that would have denied") \
	X(tag, str, true, "the tag of a rule that was exceeded with action = \"tag\"") \
	X(reset_at, int, false, "reset as Unix time") \
	X(algorithm, str, false, "token-bucket, sliding-window, fixed-window") \
	X(policy, str, false, "ready value of the field RateLimit-Policy (IETF draft 11)") \
	X(ratelimit, str, false, "ready value of the field RateLimit (IETF draft 11)")

enum answer_var {
#define X(name, type, by_default, meaning) ANSWER_##name,
	ANSWER_VARS(X)
#undef X
		ANSWER_COUNT
};

#endif
