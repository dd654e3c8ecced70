/* observer.c: what was seen of each, in a list: a job has as many live claimants as workers. */
#include "queue/observer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/attempt.h"

void observer_release(struct observer *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->list[i].name);
	free(o->list);
	*o = (struct observer){0};
}

static struct observed *observer_find(struct observer *o, const char *name)
{
	for (size_t i = 0; i < o->n; i++)
		if (strcmp(o->list[i].name, name) == 0)
			return &o->list[i];
	return NULL;
}

static struct signs observed_signs(const struct observed *e, double now_s)
{
	return (struct signs){e->has_ended, e->has_moved, now_s - e->changed_s};
}

struct signs observer_note(struct observer *o, const char *name, int64_t beat, double now_s)
{
	struct observed *e = observer_find(o, name);

	if (!e) {
		MEM_GROW(o->list, o->cap, o->n + 1);
		e = &o->list[o->n++];
		*e = (struct observed){.name = xstrdup(name), .beat = beat, .changed_s = now_s};
	} else if (e->beat != beat) {
		e->beat = beat;
		e->has_moved = 1;
		e->changed_s = now_s;
	}
	e->looked_s = now_s;
	return observed_signs(e, now_s);
}

struct signs observer_look(struct observer *o, struct store *s, int worker, const char *attempt, double now_s)
{
	char *name = attempt_file_name(worker, attempt);
	struct observed *e = observer_find(o, name);
	struct err ignored = {0};
	struct attempt a;
	struct signs signs;

	if (e && (e->looked_s == now_s || e->has_ended)) {
		signs = observed_signs(e, now_s);
	} else {
		int rc = attempt_read(s, name, &a, &ignored);

		signs = observer_note(o, name, rc == 1 ? a.beat : e ? e->beat : 0, now_s);
		if (rc == 1 && a.state == ATTEMPT_ENDED)
			signs.has_ended = observer_find(o, name)->has_ended = 1;
	}
	free(name);
	return signs;
}
