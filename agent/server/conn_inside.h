/* A connection from inside: conn.c is what it does, conns.c who there are, handover.c how one goes
 * elsewhere. Only for these. */
#ifndef SERVER_CONN_INSIDE_H
#define SERVER_CONN_INSIDE_H

#include "server/conn.h"

enum { PEER_MAX = 128 };

enum conn_state {
	CONN_OPEN,
	CONN_FINISHING, /* nothing more is asked; what the store has is answered, then `goodbye` */
	CONN_FLUSHING,  /* nothing more is answered; `out` has to go, the DISCONNECT with it */
	CONN_LINGERING  /* our side is shut; what still comes is thrown away, so that no RST for
			 * unread input overtakes the DISCONNECT */
};

struct conn {
	struct conns *all;
	struct conn *next, **link; /* the list of `all` */
	ev_io reader, writer;      /* the writer runs only while the peer does not take `out` */
	int fd;
	enum conn_state state;
	struct session session;
	struct session_settings settings;
	size_t room;        /* what `out` must have before a frame is handled */
	struct buffer *in;  /* a frame's beginning, or frames that wait for `out`; NULL: nothing */
	struct buffer *out; /* what the peer did not take yet; NULL: nothing */
	usec_t deadline;    /* steady; for what HAProxy owes us; 0: nothing */
	usec_t write_deadline; /* steady; 0: nothing waits to be sent */
	usec_t answered_at;    /* steady; the last bytes that were sent */
	size_t lingered;       /* bytes thrown away */
	uint64_t sent;         /* bytes, in all; and as it was at the last look at what was read: */
	uint64_t sent_seen, read_seen;
	int waiting_seen;    /* bytes to be read from it, which does not take answers */
	unsigned deaf_looks; /* so often it asked meanwhile, and read no answer */
	/* Checks whose answer comes later (check_pool.h). */
	struct check *asked;                  /* the store has them */
	struct check *decided, **decided_end; /* to be written, in the order they were decided */
	unsigned checks_n;                    /* both */
	bool paused; /* too many of them: nothing is read until there are fewer */
	bool is_dirty;
	uint8_t goodbye[SESSION_OUT_MAX]; /* the DISCONNECT that waits for them */
	uint16_t goodbye_n;
	struct conn *next_dirty;
	/* Handing over (handover.c). */
	struct conns *leaving; /* to whom, as soon as no check waits; NULL: it stays */
	size_t recent;         /* bytes received, halved now and then: how busy it is */
	char peer[PEER_MAX];
};

/* Makes it one of `all`, or of none. Its descriptor is not watched meanwhile. */
void conn_attach(struct conn *, struct conns *all);
void conn_detach(struct conn *);

/* All of this loop is large enough for its frames. false: out of memory. */
bool conns_fit(struct conns *, const struct session_settings *);

/* Sends and reads on, beginning with what waits, or ends. May free it. */
void conn_go_on(struct conn *, struct now);

/* Nobody waits for the store any more. */
void conn_abandon_checks(struct conn *);

/* AGENT-DISCONNECT with `status`, and what goes before it. May free it. */
void conn_disconnect(struct conn *, enum spop_status status, struct now);

void conn_end(struct conn *, const char *why);

/* What calls conn.c: a connection's descriptor; the store, and the loop before it sleeps. */
void conn_watch(struct conn *);
void conns_watch(struct conns *);

/* Hands it over to c->leaving. false: it stays here. */
bool conn_hand_over(struct conn *);

#endif
