/* isas.h: which instruction sets a test of kernels can run here. The backend's own list is the truth; a set that is missing is told as
 * a skip by whoever loops over all of them. */
#ifndef TOKENMILL_TESTS_ISAS_H
#define TOKENMILL_TESTS_ISAS_H

#include <string.h>

#include "engine/backend.h"

static inline int isa_runs(const char *isa)
{
	for (const char *const *known = backend_cpu_isas(); *known; known++)
		if (strcmp(*known, isa) == 0)
			return 1;
	return 0;
}

#endif
