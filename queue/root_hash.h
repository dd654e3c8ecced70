/* root_hash.h: one hash over all records of a job in input order: SHA-256 over, for each row,
 *
 *     32   SHA-256 of the row as asked for (plan.db)
 *      1   1: an error record
 *     32   SHA-256 of the record
 *
 * The records' own hashes are a third of what putting results in order costs, so another thread makes them, a batch behind. One
 * thread calls.
 */
#ifndef TOKENMILL_QUEUE_ROOT_HASH_H
#define TOKENMILL_QUEUE_ROOT_HASH_H

#include <stddef.h>

#include "base/errors.h"
#include "base/hash.h"

struct root_hash;
struct root_hash *root_hash_new(struct err *err); /* NULL and *err when there is no thread to be had */
void root_hash_free(struct root_hash *h);         /* NULL is fine */
/* What is passed is copied. */
void root_hash_add(struct root_hash *h, const unsigned char row[32], int is_error, const char *line, size_t n);
/* Frees h. */
void root_hash_finish(struct root_hash *h, char hex[SHA256_HEX_BYTES]);

#endif
