/* What Redis answers, from any bytes: the first says what the call was, the rest is the reply.
 * Refused, and nothing has changed; or it makes verdicts that keep within their limits. */
#include "store/redis_call.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { LIMITS = 6 };

static const struct quota quotas[LIMITS] = {
	{ ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 60 * USEC_PER_SEC }, 10, 20 },
	{ ALGORITHM_SLIDING_WINDOW, { WINDOW_LENGTH, USEC_PER_SEC }, 1000000000, 1000000000 },
	{ ALGORITHM_FIXED_WINDOW, { WINDOW_MONTH, 30 * USEC_PER_DAY }, 3, 3 },
	{ ALGORITHM_SLIDING_WINDOW, { WINDOW_WEEK, 7 * USEC_PER_DAY }, 5, 5 },
	{ ALGORITHM_TOKEN_BUCKET, { WINDOW_LENGTH, 366 * USEC_PER_DAY }, 1, 1000000000 },
	{ ALGORITHM_FIXED_WINDOW, { WINDOW_FROM_FIRST, 60 * USEC_PER_SEC }, 3, 3 },
};

static struct rule rule[LIMITS];
static struct limit limit[LIMITS];
static struct redis_call call;
static struct redis_args args;
static struct plan plan[4], before[4];

/* One plan or four, of as many limits as three bits say. */
static void make_call(uint8_t how)
{
	unsigned plans = how & 1 ? 4 : 1, takes = how >> 1 & 7;

	redis_call_clear(&call);
	for (unsigned p = 0; p < plans; p++) {
		memset(&plan[p], 0, sizeof plan[p]);
		for (unsigned i = 0; i < takes % (LIMITS + 1); i++) {
			rule[i].count_denied = how >> 4 & 1;
			rule[i].mode = how >> 5 & i & 1 ? MODE_SHADOW : MODE_ENFORCE;
			limit[i] = (struct limit){ .rule = &rule[i], .quota = quotas[i] };
			plan[p].take[plan[p].n++] = (struct take){
				.limit = &limit[i], .key = { p / 2, i }, .cost = (how >> 6) + 1
			};
		}
		if (!redis_call_add(&call, &plan[p]))
			abort();
	}
	redis_call_args(&call, &args, "rl:", "", NULL);
	memcpy(before, plan, sizeof before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	make_call(*data++);
	n--;
	bool good = redis_call_read(&call, data, n);
	if (!good) {
		if (memcmp(before, plan, sizeof before) != 0)
			abort();
		return 0;
	}
	if (n != 8 + REDIS_VALUE_BYTES * (size_t)call.key_n)
		abort();
	for (unsigned p = 0; p < call.plan_n; p++) {
		for (unsigned i = 0; i < plan[p].n; i++) {
			const struct take *t = &plan[p].take[i];
			const struct verdict *v = &t->verdict;
			double capacity = (double)t->limit->quota.capacity;
			if (!(v->left >= 0 && v->left <= capacity) || v->retry_after < 0)
				abort();
			if (v->charged && limit_keep_for(t->limit, &v->state, plan[p].now) < 0)
				abort();
		}
		(void)decide(&plan[p], plan[p].now);
	}
	return 0;
}
