/* A thread for what may take long: freeing buckets that are full again, and writing the state
 * file while the agent runs. */
#ifndef SERVER_KEEPER_H
#define SERVER_KEEPER_H

#include "store/memory.h"

struct keeper;

/* `state_file`: "" for none. `interval`: how often it is written; 0: only at the end. The store is
 * borrowed. NULL: no memory or no thread. */
struct keeper *keeper_start(struct memory_store *, const char *state_file, usec_t interval);

/* The settings of a reload. Control thread. */
void keeper_change_interval(struct keeper *, usec_t interval);

/* The state file is written as soon as the thread gets to it. Any thread. */
void keeper_save_soon(struct keeper *);

/* How many times it was written while this thread ran, or begun to be: the number of the last one
 * that was begun, and of the last one that was written whole. Any thread. */
void keeper_saves(struct keeper *, uint64_t *begun, uint64_t *kept);

/* Ends the thread (when it is done with a file it has begun), and writes the file for the last
 * time.
 */
void keeper_finish(struct keeper *);
/* Ends the thread, if that is not done. NULL is fine. */
void keeper_free(struct keeper *);

/* Writes the state file now, and logs why not. false: it could not. */
bool keeper_save(struct memory_store *, const char *state_file);

#endif
