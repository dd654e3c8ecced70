/* done.c: the mark that ends a shard. It names the segments that together hold a result for every row, and it is created exclusively; so
 * what the shard's committed records are is settled once and for all. A segment that a stopped twin publishes later, under its own lower
 * epoch, changes nothing: not the merged bytes, and not the sums either.
 *
 * They are all of the epoch that made the mark (compact.c).
 *
 *     {"rows":120,"epoch":2,"segments":["seg-0002-000001.db","seg-0002-000004.db"]} */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/job_private.h"

int done_create(struct store *s, const char *shard_dir, int64_t n_rows, int epoch, const struct segment_name *segments, size_t n_segments, struct err *err)
{
	char *path = path_format("%s/done", shard_dir);
	struct buf b = {0};
	int rc;

	buf_addf(&b, "{\"rows\":%" PRId64 ",\"epoch\":%d,\"segments\":[", n_rows, epoch);
	for (size_t i = 0; i < n_segments; i++)
		buf_addf(&b, "%s\"" SEGMENT_NAME_FORMAT "\"", i ? "," : "", segments[i].epoch, segments[i].sequence);
	buf_adds(&b, "]}\n");
	rc = store_create(s, path, b.data, b.len, err);
	buf_release(&b);
	free(path);
	return rc;
}

int done_parse(const char *text, size_t n, int64_t n_rows, struct segment_name **segments, size_t *n_segments, struct err *err)
{
	yyjson_doc *doc = json_parse(text, n, ERR_STORAGE, err);
	yyjson_val *root = yyjson_doc_get_root(doc), *list = yyjson_obj_get(root, "segments"), *v;
	size_t i, max, cap = 0;
	int rc = doc ? 0 : -1;

	*segments = NULL;
	*n_segments = 0;
	if (rc == 0 && (!yyjson_is_int(yyjson_obj_get(root, "rows")) || yyjson_get_sint(yyjson_obj_get(root, "rows")) != n_rows || !yyjson_is_arr(list)))
		rc = err_set(err, ERR_STORAGE, "not the mark of a shard of %" PRId64 " rows", n_rows);
	yyjson_arr_foreach(list, i, max, v)
	{
		struct segment_name name;

		if (rc < 0 || !yyjson_is_str(v) || !segment_name_parse(yyjson_get_str(v), &name)) {
			rc = err_set(err, ERR_STORAGE, "names a segment that is none");
			break;
		}
		MEM_GROW(*segments, cap, *n_segments + 1);
		(*segments)[(*n_segments)++] = name;
	}
	yyjson_doc_free(doc);
	if (rc < 0) {
		free(*segments);
		*segments = NULL;
		*n_segments = 0;
	}
	return rc;
}

int done_read(struct store *s, const char *shard_dir, int64_t n_rows, struct segment_name **segments, size_t *n_segments, struct err *err)
{
	char *path = path_format("%s/done", shard_dir);
	struct buf b = {0};
	int rc = store_get_known(s, path, (size_t)64 << 20, &b, err);

	*segments = NULL;
	*n_segments = 0;
	if (rc == 0)
		rc = err_set(err, ERR_STORAGE, "it is missing");
	else if (rc == 1)
		rc = done_parse(buf_str(&b), b.len, n_rows, segments, n_segments, err);
	if (rc < 0) {
		char *full = store_name(s, path);

		err_context(err, "%s", full);
		free(full);
	}
	buf_release(&b);
	free(path);
	return rc;
}
