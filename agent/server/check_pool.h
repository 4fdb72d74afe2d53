/* Checks that wait for a store that answers later: a bounded number for each worker, made when they
 * are first needed, kept, and given out again. One thread. */
#ifndef SERVER_CHECK_POOL_H
#define SERVER_CHECK_POOL_H

#include "config/snapshot.h"
#include "limit/decision.h"
#include "store/store.h"

enum {
	CHECKS_MAX = 4096,        /* of one worker */
	CHECK_PAYLOAD_MAX = 2048, /* what is kept of a NOTIFY, for the log line of a denial */
	/* What is kept besides, of one worker: NOTIFYs that are longer, and have to be read again
	 * as a whole. */
	LONG_PAYLOADS_MAX = 4 << 20,
};

struct checker;
struct notify;

enum check_state { CHECK_LOOKS_UP, /* the client's tier */ CHECK_ASKED, CHECK_DECIDED };

struct check {
	struct plan plan; /* first: plan->done() finds its check by it */
	struct checker *checker;
	struct snapshot *snapshot;  /* a reference */
	void *owner;                /* who wants the answer; NULL: nobody any more */
	struct check *next, **link; /* the owner's list, or the pool's */
	enum check_state state;
	usec_t asked_at;          /* steady */
	struct decision decision; /* once it is decided */
	uint64_t stream_id, frame_id;
	uint32_t send_max;
	struct tier_ask ask;
	uint8_t *long_payload; /* owned; NULL: `payload` has it. By check_keep_payload() */
	uint32_t payload_n;
	bool truncated; /* the NOTIFY was, or what is kept of it */
	uint8_t payload[CHECK_PAYLOAD_MAX];
};

struct check_pool {
	struct check *idle;
	unsigned n;        /* how many there are, idle ones included */
	size_t long_bytes; /* of long payloads */
};

void check_pool_init(struct check_pool *);
/* All that were given out must have come back. */
void check_pool_fini(struct check_pool *);

/* With unset contents but for `next`. NULL: CHECKS_MAX are out, or no memory. */
struct check *check_get(struct check_pool *);
void check_put_back(struct check_pool *, struct check *);

/* Copies the NOTIFY's payload, unless that was done before. false: of KEEP_ALL, when too many long
 * ones are kept already. */
enum check_keep { KEEP_BEGINNING /* of a long one */, KEEP_ALL };
bool check_keep_payload(
	struct check_pool *, struct check *, const struct notify *, enum check_keep);

#endif
