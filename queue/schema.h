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

#define JOB_FORMAT 2 /* "format" in job.json, manifest.json and the user_version of both kinds of database */

#define PLAN_APPLICATION_ID 0x746d706c    /* "tmpl" */
#define SEGMENT_APPLICATION_ID 0x746d7367 /* "tmsg" */
#define LEDGER_APPLICATION_ID 0x746d6c67  /* "tmlg" */

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
 *   tags                number in tag: what it is charged to
 *   error               a row at fault: its finished error record, one line; otherwise NULL
 *   same_as             an earlier row with the same request, whose record stands for this one too (with this row's key); then shard is NULL.
 *                       Otherwise NULL
 * tag         distinct sets of tags
 *   tags                number
 *   json                JSON object of strings: the row's "user" and the members of its "metadata"; {} for none
 * shard       the shards
 *   shard               number, the name of its directory
 *   n_rows              rows in it
 *   n_input_bytes       size of input.jsonl.zst
 *   cost                what running it is expected to take, in the planner's unit (seconds of one worker)
 */
#define PLAN_SCHEMA                                                                                                    \
	"CREATE TABLE meta(plan_id TEXT NOT NULL);"                                                                        \
	"CREATE TABLE source(source INTEGER PRIMARY KEY, source_name TEXT NOT NULL UNIQUE);"                               \
	"CREATE TABLE row(row INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, hash BLOB NOT NULL, source INTEGER NOT NULL," \
	" line INTEGER NOT NULL, shard INTEGER, n_prompt_tokens INTEGER NOT NULL, max_output_tokens INTEGER NOT NULL,"     \
	" tags INTEGER NOT NULL, error TEXT, same_as INTEGER);"                                                            \
	"CREATE INDEX row_same_as ON row(same_as) WHERE same_as IS NOT NULL;"                                              \
	"CREATE TABLE tag(tags INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE);"                                                                                                 \
	"CREATE TABLE shard(shard INTEGER PRIMARY KEY, n_rows INTEGER NOT NULL, n_input_bytes INTEGER NOT NULL,"        \
	" cost REAL NOT NULL);"

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
 *   finished_ms         Unix time in ms by the worker's clock
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
	" wait_s REAL NOT NULL, prefill_s REAL NOT NULL, decode_s REAL NOT NULL, finished_ms INTEGER NOT NULL);"               \
	"CREATE INDEX result_done ON result(is_error);"                                                                        \
	"CREATE TABLE partial(row INTEGER PRIMARY KEY, state BLOB NOT NULL);"

/* merged/ledger.db: what the job used, for reports. Made by the merge; for a job that is not merged yet, from what is published so far.
 *
 * job         one row
 *   plan_id             as in job.json
 *   name                the job's directory or prefix, last part
 *   model               the model's name
 *   fingerprint         of the job (model, setup, inputs)
 *   tags                JSON object of strings that hold for all rows (--tag, environment)
 *   is_complete         1: every row has a record
 *   n_rows              rows of the input
 * tag         distinct sets of tags of rows
 *   tags                number
 *   json                JSON object of strings: the row's "user" and the members of its "metadata"; {} for none
 * charge      one for each row that has a record; not for rows that were never run and only got an error record when the job was closed
 *   row                 number in plan.db
 *   shard               NULL: the record did not come out of a shard (a row at fault, or folded)
 *   epoch               that committed it: of a shard that was taken over, the last (compact.c); 0 where nothing ran
 *   status              0 ok, 1 failed while it ran, 2 at fault by the plan, 3 folded: the answer of another row, nothing was computed
 *   tags                number in tag
 *   finished_ms         Unix time in ms by the worker's clock; NULL where nothing ran
 *   prompt_tokens, cached_tokens, output_tokens, reasoning_tokens   billed; cached is part of prompt, reasoning of output
 *   recomputed_tokens   computed again after a preemption or a resume: not billed
 *   wait_s, prefill_s, decode_s     seconds
 * shard_total  sums over charge by shard; n_failed counts status 1
 * claim       who held what: one for each claim file of a shard
 *   shard, epoch        of the claim
 *   attempt             the claim's attempt: an id in attempt, if that attempt ever wrote its file
 * attempt     one for each attempt: the columns of attempt.h, its rows and tokens at least those of its charges
 *
 * Waste is sum(attempt tokens) - sum(charge tokens): what killed or fenced attempts had finished and is not in any record, as far as their last
 * heartbeat tells.
 */
#define LEDGER_SCHEMA                                                                                                      \
	"CREATE TABLE job(plan_id TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, fingerprint TEXT NOT NULL,"          \
	" tags TEXT NOT NULL, is_complete INTEGER NOT NULL, n_rows INTEGER NOT NULL);"                                         \
	"CREATE TABLE tag(tags INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE);"                                               \
	"CREATE TABLE charge(row INTEGER PRIMARY KEY, shard INTEGER, epoch INTEGER NOT NULL, status INTEGER NOT NULL,"         \
	" tags INTEGER NOT NULL, finished_ms INTEGER, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,"         \
	" output_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, recomputed_tokens INTEGER NOT NULL,"              \
	" wait_s REAL NOT NULL, prefill_s REAL NOT NULL, decode_s REAL NOT NULL);"                                             \
	"CREATE TABLE shard_total(shard INTEGER PRIMARY KEY, n_rows INTEGER NOT NULL, n_failed INTEGER NOT NULL,"              \
	" prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"                     \
	" reasoning_tokens INTEGER NOT NULL, recomputed_tokens INTEGER NOT NULL);"                                             \
	"CREATE TABLE claim(shard INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt TEXT NOT NULL,"                            \
	" PRIMARY KEY(shard, epoch)) WITHOUT ROWID;"                                                                           \
	"CREATE TABLE attempt(id TEXT PRIMARY KEY, worker INTEGER NOT NULL, host TEXT NOT NULL, node_type TEXT NOT NULL,"      \
	" started_unix_ms INTEGER NOT NULL, updated_unix_ms INTEGER NOT NULL, wall_s REAL NOT NULL, load_s REAL NOT NULL,"     \
	" busy_s REAL NOT NULL, publish_s REAL NOT NULL, rows INTEGER NOT NULL, rows_failed INTEGER NOT NULL,"                 \
	" prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"                     \
	" reasoning_tokens INTEGER NOT NULL, recomputed_tokens INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,"                 \
	" state INTEGER NOT NULL, end_code TEXT NOT NULL);"

#endif
