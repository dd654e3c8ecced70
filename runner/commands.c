/* commands.c: what several subcommands need. */
#include "runner/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "runner/spec.h"

char *command_model_name(const char *path)
{
	char *real = realpath(path, NULL);
	const char *p = real ? real : path, *slash;
	size_t n = strlen(p);
	char *name;

	while (n > 1 && p[n - 1] == '/')
		n--;
	slash = memrchr(p, '/', n);
	if (slash && slash + 1 < p + n) {
		n -= (size_t)(slash + 1 - p);
		p = slash + 1;
	}
	if (n > 5 && strncasecmp(p + n - 5, ".gguf", 5) == 0)
		n -= 5;
	name = xmemdup(p, n);
	free(real);
	return name;
}

static void add_bytes(struct buf *b, size_t n)
{
	if (n >= (size_t)1 << 30)
		buf_addf(b, "%.2f GiB", (double)n / (1 << 30));
	else
		buf_addf(b, "%.0f MiB", (double)n / (1 << 20));
}

void command_describe_plan(const struct engine_plan *p, enum kv_type kv, enum engine_math math, struct buf *first,
                           struct buf *second)
{
	if (p->isa)
		buf_addf(first, "%s %s, %d threads, %s arithmetic; ", p->backend, p->isa, p->n_threads, spec_math_name(math));
	else if (p->is_device)
		buf_addf(first, "%s, f32 arithmetic; ", p->backend);
	else
		buf_addf(first, "%s engine; ", p->backend);
	buf_addf(first, "up to %d sequences and %d tokens in a step, context %d tokens", p->max_batch, p->chunk_tokens, p->max_context);
	add_bytes(second, p->total_bytes);
	buf_adds(second, p->is_device ? " of the GPU's memory: weights " : " of memory: weights ");
	add_bytes(second, p->weight_bytes);
	buf_adds(second, ", workspace ");
	add_bytes(second, p->workspace_bytes);
	buf_adds(second, ", keys and values ");
	add_bytes(second, p->kv_bytes);
	buf_addf(second, " (%s, %lld positions)", spec_kv_name(kv), (long long)p->n_kv_blocks * KV_BLOCK_TOKENS);
}
