/* The desk from inside: only for desk.c, desk_told.c and desk_reset.c. */
#ifndef SERVER_DESK_INSIDE_H
#define SERVER_DESK_INSIDE_H

#include "server/desk.h"

struct desk {
	struct desk_args args;
	struct changes *changes;
	bool bans_changed; /* since they were kept */
	bool behind;       /* what is served does not have all changes yet */
};

/* All that there is goes to the notes of the store, and soon to the state file. */
void desk_keep(struct desk *);
/* Tells the other agents; `value` NULL: it is no more. */
void desk_share(struct desk *, const char *name, json_t *value);
/* Serves by the changes as they are now. `name`: refused where that one is without effect; NULL: in
 * any case. */
bool desk_serve(struct desk *, const char *name, char *err, size_t err_size);
void desk_audit(const char *what, const char *name, json_t *value, struct act);

/* What is no ban is left out. false: it is one of which nobody need know any more. */
bool desk_load_ban(struct desk *, const char *id, json_t *value);

/* "reset:…": it is told to the other agents, and has no part in what is served. */
bool desk_is_reset(const char *name);
/* What another agent has told. */
void desk_hear_reset(struct desk *, json_t *value);

#endif
