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

/* What is wrong with the state file now. */
struct keeper_trouble {
	usec_t since; /* steady */
	char why[512];
};
/* false: it was written the last time, or there is none. Where the disk has been at it for longer
 * than KEEPER_HANGS_AFTER, that is what is wrong. Any thread. */
#define KEEPER_HANGS_AFTER (30 * USEC_PER_SEC)
bool keeper_is_in_trouble(struct keeper *, usec_t steady, struct keeper_trouble *);

/* The thread writes the file for the last time and ends, until `deadline` (steady) at most. What is
 * lost is logged. */
enum keeper_end {
	KEEPER_KEPT,  /* or there is no state file */
	KEEPER_LOST,  /* it could not be written */
	KEEPER_HANGS, /* the thread is still at it: store and keeper are its own, until the process
		       * ends */
};
enum keeper_end keeper_finish(struct keeper *, usec_t deadline);
/* Ends the thread, if that is not done. NULL is fine. Not after KEEPER_HANGS. */
void keeper_free(struct keeper *);

#endif
