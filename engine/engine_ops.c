/* engine_ops.c: engine.h's functions, each a call to what the engine at hand filled in. */
#include "engine/engine_ops.h"

int engine_submit(struct engine *e, const struct engine_request *r, struct err *err)
{
	return e->ops->submit(e, r, err);
}

long engine_step(struct engine *e, engine_result_fn fn, void *arg, struct err *err)
{
	return e->ops->step(e, fn, arg, err);
}

size_t engine_n_waiting(const struct engine *e)
{
	return e->ops->n_waiting(e);
}

size_t engine_n_running(const struct engine *e)
{
	return e->ops->n_running(e);
}

void engine_each_running(struct engine *e, engine_result_fn fn, void *arg)
{
	e->ops->each_running(e, fn, arg);
}

void engine_get_stats(const struct engine *e, struct engine_stats *s)
{
	e->ops->get_stats(e, s);
}

const struct engine_plan *engine_plan(const struct engine *e)
{
	return &e->plan;
}

void engine_close(struct engine *e)
{
	if (e)
		e->ops->close(e);
}
