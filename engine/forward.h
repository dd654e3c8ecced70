/* forward.h: the one layer loop. Walks a model's layers over a backend's ops, for every family: what differs between families
 * is in model_config and in which tensors of a layer are there.
 *
 * forward_run computes a step up to the final hidden states of the rows that want logits; forward_logits then gives the logits of
 * some of them at a time, so that a large vocabulary does not need a buffer of batch times vocabulary.
 */
#ifndef TOKENMILL_ENGINE_FORWARD_H
#define TOKENMILL_ENGINE_FORWARD_H

#include "engine/backend.h"

enum { FORWARD_LOGIT_ROWS = 64 }; /* most rows of one forward_logits call */

struct forward;

/* Workspace floats that a step of max_tokens rows needs, of which at most max_logits want logits. */
size_t forward_workspace_bytes(const struct model_config *c, int32_t max_tokens, int32_t max_logits);

/* What the backend's loaded_bytes will be once the model is loaded; matrix_bytes: what a matrix takes there. */
size_t forward_weight_bytes(const struct model *m, size_t (*matrix_bytes)(const struct tensor *t));

/* Load the model's weights into the backend and take the workspace. The model's tensors are not needed afterwards (config is
 * copied). The forward does not own the backend. */
struct forward *forward_new(struct backend *b, const struct model *m, int32_t max_tokens, int32_t max_logits, struct err *err);
void forward_free(struct forward *f);

/* -1 and *err on a device fault; the batch's keys and values are then undefined. */
int forward_run(struct forward *f, const struct batch *batch, struct err *err);
/* Logits of batch->logit_rows[first .. first + n): [n, n_vocab], n <= FORWARD_LOGIT_ROWS, the caller's to overwrite until the next call. */
float *forward_logits(struct forward *f, int32_t first, int32_t n, struct err *err);

#endif
