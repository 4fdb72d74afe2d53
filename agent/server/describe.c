#include "server/describe.h"

#include "limit/path.h"

static size_t put(char *out, size_t at, size_t size, struct str s)
{
	size_t n = s.n < size - at ? s.n : size - at;
	if (n)
		memcpy(out + at, s.p, n);
	return at + n;
}

static bool is_secret(const struct policy *p, unsigned slot)
{
	return p->secret >> slot & 1;
}

static struct str visible(const struct policy *p, const struct view *v, unsigned slot)
{
	if (is_secret(p, slot) || !view_has(v, slot))
		return (struct str){ 0 };
	return v->text[slot];
}

/* A path that no rule looks at is still as it came. */
static struct str visible_path(const struct policy *p, const struct view *v)
{
	struct str path = visible(p, v, FIELD_PATH);
	size_t room = (size_t)(v->scratch_end - v->scratch);

	if (p->layout.text_wanted >> FIELD_PATH & 1 || path.n >= room)
		return path;
	return path.n ? path_normalise(path, v->scratch) : path;
}

static size_t put_ip(const struct policy *p, const struct view *v, char text[ADDR_TEXT_MAX])
{
	return view_has(v, FIELD_IP) && !is_secret(p, FIELD_IP) ? addr_format(&v->ip, text) : 0;
}

size_t describe_client(const struct policy *p, const struct take *take, const struct view *v,
	char *out, size_t size)
{
	return take ? take_describe(p, take, v, out, size) : view_describe_address(p, v, out, size);
}

size_t describe_endpoint(const struct policy *p, const struct view *v, char *out, size_t size)
{
	struct str method = visible(p, v, FIELD_METHOD), path = visible_path(p, v);

	if (!method.n && !path.n)
		return 0;
	size_t n = put(out, put(out, put(out, 0, size, method), size, STR(":")), size, path);
	for (char *z; (z = memchr(out, '\0', n));)
		*z = '?';
	return n;
}

/* What both lines have. `take` may be NULL. */
static void put_rest(const struct policy *p, const struct plan *plan, const struct rule *rule,
	const struct take *take, const struct view *v, struct event *e)
{
	e->utc = plan->now.utc;
	if (!is_secret(p, FIELD_TIER))
		(void)put(e->tier, 0, sizeof e->tier - 1,
			(struct str){ plan->tier, plan->tier_length });
	if (rule)
		(void)put(e->rule, 0, sizeof e->rule - 1, str_of(rule->name));
	if (take)
		(void)take_describe(p, take, v, e->client, sizeof e->client - 1);
	else
		(void)view_describe(p, v, e->client, sizeof e->client - 1);
	(void)put_ip(p, v, e->ip);
	(void)describe_endpoint(p, v, e->endpoint, sizeof e->endpoint - 1);
}

void describe_event(const struct policy *p, const struct plan *plan, const struct decision *d,
	const struct view *v, struct event *e)
{
	const struct take *t = decision_known_by(d);

	*e = (struct event){
		.reason = d->reason, .limit = d->limit, .retry_after = d->retry_after
	};
	put_rest(p, plan, t ? t->limit->rule : NULL, t, v, e);
}

void describe_shadow(const struct policy *p, const struct plan *plan, const struct decision *d,
	const struct view *v, struct event *e)
{
	const struct take *t = decision_shadow(plan, d);

	*e = (struct event){ .shadow = true, .reason = REASON_DEGRADED };
	if (t) {
		e->reason = t->verdict.oversize ? REASON_OVERSIZE : REASON_LIMITED;
		e->limit = t->limit->quota.capacity;
		e->retry_after = (t->verdict.retry_after + USEC_PER_SEC - 1) / USEC_PER_SEC;
	}
	put_rest(p, plan, d->shadow, t, v, e);
}
