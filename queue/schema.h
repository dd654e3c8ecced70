/* schema.h: the tables of the job's SQLite files, column by column. Both kinds of file are immutable once they have their name, are
 * written without a journal and read with immutable=1, so that no lock is ever taken; the sqlite3 shell reads them as they are:
 *
 *     sqlite3 'file:JOB/plan.db?immutable=1' 'SELECT key, source_name, line FROM row NATURAL JOIN source LIMIT 5'
 *
 * PRAGMA application_id says what a file is, PRAGMA user_version which layout it has.
 *
 * A shard's rows are in shards/NNNNN/input.jsonl.zst: one zstd frame with a checksum, one JSON object a line, in run order, members always
 * in this order and without white space between them:
 *
 *     {"row":12,"key":"task-7","n_prompt_tokens":531,"max_output_tokens":64,"input":{...}}
 *
 * input is the row's line as it was given (line breaks between its tokens replaced by spaces).
 */
#ifndef TOKENMILL_QUEUE_SCHEMA_H
#define TOKENMILL_QUEUE_SCHEMA_H

#define JOB_FORMAT 1 /* "format" in job.json, manifest.json and the user_version of both kinds of database */

#define PLAN_APPLICATION_ID 0x746d706c    /* "tmpl" */
#define SEGMENT_APPLICATION_ID 0x746d7367 /* "tmsg" */

/* plan.db
 *
 * meta        one row
 *   plan_id             random, the same as in job.json: the two belong together
 * source      where rows came from
 *   source              number
 *   source_name         file, or "file!member" for an archive
 * row         every row of the input, rows at fault included
 *   row                 0, 1, ... in input order
 *   key                 custom_id, unique in the job
 *   hash                SHA-256 (32 bytes) of the input line in canonical JSON; of its bytes where it is no JSON
 *   source              number in source
 *   line                1-based line in that source
 *   shard               shard that runs it; NULL for a row at fault
 *   n_prompt_tokens     planner's count
 *   max_output_tokens   the row's limit
 *   error               a row at fault: its finished error record, one line; otherwise NULL
 * shard       the shards
 *   shard               number, the name of its directory
 *   n_rows              rows in it
 *   n_input_bytes       size of input.jsonl.zst
 */
#define PLAN_SCHEMA                                                                                                    \
	"CREATE TABLE meta(plan_id TEXT NOT NULL);"                                                                        \
	"CREATE TABLE source(source INTEGER PRIMARY KEY, source_name TEXT NOT NULL UNIQUE);"                               \
	"CREATE TABLE row(row INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, hash BLOB NOT NULL, source INTEGER NOT NULL," \
	" line INTEGER NOT NULL, shard INTEGER, n_prompt_tokens INTEGER NOT NULL, max_output_tokens INTEGER NOT NULL,"     \
	" error TEXT);"                                                                                                    \
	"CREATE TABLE shard(shard INTEGER PRIMARY KEY, n_rows INTEGER NOT NULL, n_input_bytes INTEGER NOT NULL);"

/* shards/NNNNN/seg-EEEE-SSSSSS.db (epoch, sequence number within the epoch)
 *
 * result      rows that were finished since the last segment of this epoch
 *   row                 number in plan.db
 *   is_error            1: the line is an error record
 *   line                output line, without newline
 *   line_hash           XXH3 (64 bits, seed = row) of line: SQLite itself has no checksums
 *   prompt_tokens, cached_tokens, output_tokens, reasoning_tokens   usage
 *   recomputed_tokens   tokens computed again after a kill or a preemption
 *   wait_s, prefill_s, decode_s     seconds
 * partial     rows in flight that have some tokens
 *   row                 number in plan.db
 *   state               bytes of the engine's own; a later segment's replace an earlier one's
 *
 * result_done is small and holds all row numbers: what is done is found without reading the lines.
 */
#define SEGMENT_SCHEMA                                                                                                     \
	"CREATE TABLE result(row INTEGER PRIMARY KEY, is_error INTEGER NOT NULL, line TEXT NOT NULL, line_hash INTEGER NOT NULL," \
	" prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"                     \
	" reasoning_tokens INTEGER NOT NULL, recomputed_tokens INTEGER NOT NULL,"                                              \
	" wait_s REAL NOT NULL, prefill_s REAL NOT NULL, decode_s REAL NOT NULL);"                                             \
	"CREATE INDEX result_done ON result(is_error);"                                                                        \
	"CREATE TABLE partial(row INTEGER PRIMARY KEY, state BLOB NOT NULL);"

#endif
