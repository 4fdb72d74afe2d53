#include "server/answer.h"

#include "spop/value.h"

#include <assert.h>
#include <math.h>

/* What the variables are taken from. */
struct source {
	const struct policy *policy;
	const struct plan *plan;
	const struct decision *d;
	struct now now;
};

struct text {
	char bytes[8192]; /* PLAN_MAX limits with the longest labels, quoted, in `policy` fit */
	size_t n;
};

enum { TAG_BYTES_MAX = 255 };

static void say(struct text *t, const char *p, size_t n)
{
	if (n > sizeof t->bytes - t->n)
		n = sizeof t->bytes - t->n;
	memcpy(t->bytes + t->n, p, n);
	t->n += n;
}

static void say_number(struct text *t, int64_t v)
{
	char digits[20], *p = digits + sizeof digits;
	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	say(t, p, (size_t)(digits + sizeof digits - p));
}

/* RFC 9651 section 3.3.3 */
static void say_quoted(struct text *t, const char *z)
{
	say(t, "\"", 1);
	for (; *z; z++) {
		if (*z == '"' || *z == '\\')
			say(t, "\\", 1);
		say(t, z, 1);
	}
	say(t, "\"", 1);
}

/* Seconds from empty to full: capacity / rate, rounded up; of a window its own length. */
static int64_t seconds_to_fill(const struct quota *q, struct now now)
{
	/* Of a quotient of doubles that ought to be whole; more than a millisecond is no noise. */
	const double noise = 1e-9, noise_max = 1e-3;
	const double longest = 999999999999999; /* RFC 9651: what an Integer can hold */
	usec_t start, end, length = q->window.length;

	if (q->window.kind == WINDOW_MONTH) {
		window_bounds(&q->window, now.utc, &start, &end);
		length = end - start;
	}
	double seconds = (double)q->capacity * (double)length / (double)q->units /
			 (double)USEC_PER_SEC;
	if (seconds > longest)
		return (int64_t)longest;
	return seconds < 1 ? 1 : (int64_t)ceil(seconds - fmin(seconds * noise, noise_max));
}

/* RateLimit-Policy, draft-ietf-httpapi-ratelimit-headers-11: all limits that apply. */
static struct str policy_text(const struct source *s, struct text *t)
{
	for (unsigned i = 0; i < s->plan->n; i++) {
		const struct limit *l = s->plan->take[i].limit;
		if (l->rule->mode == MODE_SHADOW || l->quota.capacity == 0)
			continue;
		if (t->n)
			say(t, ", ", 2);
		say_quoted(t, l->label);
		say(t, ";q=", 3);
		say_number(t, l->quota.capacity);
		say(t, ";w=", 3);
		say_number(t, seconds_to_fill(&l->quota, s->now));
	}
	return (struct str){ t->bytes, t->n };
}

/* RateLimit of the same draft: the reported limit. */
static struct str ratelimit_text(const struct source *s, struct text *t)
{
	say_quoted(t, s->d->reported->limit->label);
	say(t, ";r=", 3);
	say_number(t, s->d->remaining);
	say(t, ";t=", 3);
	say_number(t, s->d->reset);
	return (struct str){ t->bytes, t->n };
}

static struct str algorithm_text(enum algorithm a)
{
	switch (a) {
	case ALGORITHM_TOKEN_BUCKET:
		return STR("token-bucket");
	case ALGORITHM_SLIDING_WINDOW:
		return STR("sliding-window");
	case ALGORITHM_FIXED_WINDOW:
		return STR("fixed-window");
	}
	return STR("");
}

/* A short text in memory that may be read beyond its end, up to NAME_BLOCK: it is copied whole. */
struct name {
	const char *p;
	size_t n;
};

enum { NAME_BLOCK = 16 };

static struct name reason_text(enum reason reason)
{
	static const struct {
		char text[NAME_BLOCK];
		size_t n;
	} list[] = {
#define X(name, text) [REASON_##name] = { text, sizeof text - 1 },
		REASONS(X)
#undef X
	};
	return (struct name){ list[reason].text, list[reason].n };
}

static struct name rule_name(const struct rule *r)
{
	return (struct name){ r->name, r->name_length };
}

/* One function for each variable of the table. What ends in a header was cleaned where it came in:
 * names by the configuration, a tier by policy_plan(). */

static bool value_of_deny(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->deny;
}

static bool value_of_warn(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->warn;
}

static int64_t value_of_retry_after(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->retry_after;
}

static int64_t value_of_limit(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->limit;
}

static int64_t value_of_remaining(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->remaining;
}

static int64_t value_of_reset(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->reset;
}

static int64_t value_of_reset_at(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->reset_at;
}

static struct name value_of_reason(const struct source *s, struct text *t)
{
	(void)t;
	return reason_text(s->d->reason);
}

static struct name value_of_rule(const struct source *s, struct text *t)
{
	(void)t;
	return rule_name(s->d->reported->limit->rule);
}

static struct name value_of_tier(const struct source *s, struct text *t)
{
	(void)t;
	return (struct name){ s->plan->tier, s->plan->tier_length };
}

static struct name value_of_shadow(const struct source *s, struct text *t)
{
	(void)t;
	return s->d->shadow ? rule_name(s->d->shadow) : (struct name){ 0 };
}

static struct str value_of_algorithm(const struct source *s, struct text *t)
{
	(void)t;
	return algorithm_text(s->d->reported->limit->quota.algorithm);
}

static struct str value_of_tag(const struct source *s, struct text *t)
{
	(void)t;
	struct str tag = s->d->tag ? str_of(s->d->tag->tag) : STR("");
	return (struct str){ tag.p, tag.n < TAG_BYTES_MAX ? tag.n : TAG_BYTES_MAX };
}

static struct str value_of_scope(const struct source *s, struct text *t)
{
	t->n = take_scope(s->policy, s->d->reported, t->bytes, sizeof t->bytes);
	return (struct str){ t->bytes, t->n };
}

static struct str value_of_policy(const struct source *s, struct text *t)
{
	t->n = 0;
	return policy_text(s, t);
}

static struct str value_of_ratelimit(const struct source *s, struct text *t)
{
	t->n = 0;
	return ratelimit_text(s, t);
}

/* Which there is something to say of. Without a reported limit only the decision itself, and what
 * a rule in the shadows or a warning adds. */
static uint32_t there_are(const struct decision *d)
{
	if (d->reported)
		return ~0u;
	return 1u << ANSWER_deny | 1u << ANSWER_reason | 1u << ANSWER_tier |
	       (uint32_t)d->warn << ANSWER_warn | (uint32_t)(d->shadow != NULL) << ANSWER_shadow |
	       (uint32_t)(d->tag != NULL) << ANSWER_tag;
}

void answer_put_ack(struct wire_writer *w)
{
	action_set_bool(w, SCOPE_TXN, STR("ack"), true);
}

#define put_bool(p, name, v) action_put_bool(p, SCOPE_TXN, name, v)
#define put_int(p, name, v)  action_put_int(p, SCOPE_TXN, name, v)
#define put_str(p, name, v)  action_put_str(p, SCOPE_TXN, name, v)

/* A call of memcpy() for a few bytes takes longer than sixteen of them. */
static inline uint8_t *put_name(uint8_t *p, struct str name, struct name v)
{
	static_assert(RULE_NAME_MAX < 240 && TIER_NAME_MAX < 240, "a varint of one byte");

	p = action_put_head(p, SCOPE_TXN, name, VALUE_STRING);
	*p++ = (uint8_t)v.n;
	if (v.n > NAME_BLOCK)
		memcpy(p, v.p, v.n);
	else if (v.n)
		memcpy(p, v.p, NAME_BLOCK);
	return p + v.n;
}

/* Straight through the table, without looking at the end: `p` has room for all of it. ends[i] is
 * where the i-th that was put ends; returns how many were. */
static unsigned put_vars(
	uint8_t *p, uint32_t vars, const struct source *s, uint8_t *ends[ANSWER_COUNT])
{
	struct text t;
	unsigned n = 0;

#define X(name, type, by_default, meaning) \
	if (vars & 1u << ANSWER_##name) { \
		p = put_##type(p, STR(#name), value_of_##name(s, &t)); \
		ends[n++] = p; \
	}
	ANSWER_VARS(X)
#undef X
	return n;
}

unsigned answer_put(struct wire_writer *w, uint32_t wanted, const struct policy *policy,
	const struct plan *plan, const struct decision *d, struct now now)
{
	const struct source s = { policy, plan, d, now };
	const size_t room = wire_room(w);
	uint32_t vars = wanted & there_are(d);
	uint8_t *ends[ANSWER_COUNT];
	unsigned dropped = 0;

	if (room >= ANSWER_BYTES_MAX) {
		unsigned n = put_vars(w->p, vars, &s, ends);
		if (n)
			w->p = ends[n - 1];
		else
			answer_put_ack(w);
		return 0;
	}
	uint8_t bytes[ANSWER_BYTES_MAX];
	unsigned n = put_vars(bytes, vars, &s, ends);
	while (n && (size_t)(ends[n - 1] - bytes) > room) {
		n--;
		dropped++;
	}
	if (n)
		wire_put_bytes(w, bytes, (size_t)(ends[n - 1] - bytes));
	else
		answer_put_ack(w);
	return dropped;
}
