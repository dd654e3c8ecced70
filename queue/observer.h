/* observer.h: is somebody alive whose process cannot be asked? He writes a number now and then (a heartbeat), the observer looks now and then. What
 * counts is that the number changed between two looks, and for how long it has not, by the observer's own clock: clocks of two hosts are
 * never compared. One thread. */
#ifndef TOKENMILL_QUEUE_OBSERVER_H
#define TOKENMILL_QUEUE_OBSERVER_H

#include <stddef.h>
#include <stdint.h>

#include "queue/store.h"

struct observer { /* zero-initialise */
	struct observed {
		char *name;
		int64_t beat;
		int has_moved, has_ended;
		double changed_s; /* when the beat was first seen as it is */
		double looked_s;  /* the last look */
	} *list;
	size_t n, cap;
};
void observer_release(struct observer *o);

struct signs {
	int has_ended; /* told its end */
	int has_moved; /* changed since the first look */
	double still_s;
};

/* Note that name's beat is `beat` now. */
struct signs observer_note(struct observer *o, const char *name, int64_t beat, double now_s);
/* Look at an attempt's file (attempt.h), at most once for one now_s. A file that is not there is beat 0, as is one that nobody ever could read;
 * one that cannot be read this time has not changed. */
struct signs observer_look(struct observer *o, struct store *s, int worker, const char *attempt, double now_s);

#endif
