/* partial.h: the state of a row that is not finished, as bytes that a later attempt can go on from.
 *
 *     offset  size
 *     0       4    "TMP1"
 *     4       4    number of samples
 *     then for each sample
 *     0       1    finish reason, 0 while it runs
 *     1       1    1: a stop string ended it
 *     2       2    numbers in a logprob entry (1 + n_logprobs), 0 without logprobs
 *     4       4    stop_id
 *     8       4    number of tokens
 *     12      4    bytes of text (0 while it runs: text follows from tokens)
 *     16      4 n  ids, then for each token and entry id and logprob (4 + 4), then the text
 *
 * Integers and floats are little-endian as on every machine we run on. What cannot be read is as if it were not there: the row
 * then starts from its prompt, which gives the same answer.
 */
#ifndef TOKENMILL_RUNNER_PARTIAL_H
#define TOKENMILL_RUNNER_PARTIAL_H

#include "base/buf.h"
#include "runner/output.h"

/* samples [n]; width: 1 + n_logprobs, or 0. */
void partial_write(struct buf *out, const struct sample_result *samples, int n, int width);
/* Fill samples [n], whose memory is then the caller's. 0, or -1 when the bytes do not fit (n, width, n_vocab): then samples are
 * empty. */
int partial_read(const void *data, size_t n_bytes, struct sample_result *samples, int n, int width, int32_t n_vocab);

void sample_result_release(struct sample_result *s);

#endif
