/* engine_ops.h: what an engine fills in to be one. engine.h's functions are calls through this table.
 *
 * An engine is a struct that begins with a struct engine: its ops set ops and plan when they open, and find themselves again by
 * a cast. The contracts are engine.h's, under the same names. Engines: engine.c (a model on a backend), engine_fake.c (answers
 * from a hash, for tests of whole jobs); tests bring further ones.
 */
#ifndef TOKENMILL_ENGINE_ENGINE_OPS_H
#define TOKENMILL_ENGINE_ENGINE_OPS_H

#include "engine/engine.h"

struct engine_ops {
	int (*submit)(struct engine *e, const struct engine_request *r, struct err *err);
	long (*step)(struct engine *e, engine_result_fn fn, void *arg, struct err *err);
	size_t (*n_waiting)(const struct engine *e);
	size_t (*n_running)(const struct engine *e);
	void (*each_running)(struct engine *e, engine_result_fn fn, void *arg);
	void (*get_stats)(const struct engine *e, struct engine_stats *s);
	void (*close)(struct engine *e); /* e is never NULL */
};

struct engine {
	const struct engine_ops *ops; /* static */
	struct engine_plan plan;
};

#endif
