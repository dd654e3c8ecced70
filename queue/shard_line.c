/* shard_line.c: a line of a shard's input, written with fixed members and found again by them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "queue/job_private.h"

static const char input_mark[] = ",\"input\":";

void shard_line_write(struct buf *out, int64_t row, const struct plan_row *p)
{
	size_t start;

	buf_addf(out, "{\"row\":%" PRId64 ",\"key\":", row);
	json_write_string(out, p->key, p->n_key);
	buf_addf(out, ",\"n_prompt_tokens\":%" PRId64 ",\"max_output_tokens\":%" PRId64 "%s", p->n_prompt_tokens, p->max_output_tokens,
	         input_mark);
	start = out->len;
	buf_add(out, p->input, p->n_input);
	/* In valid JSON a raw line break can only stand between tokens. */
	for (char *s; (s = memchr(out->data + start, '\n', out->len - start)) != NULL;)
		*s = ' ';
	for (char *s; (s = memchr(out->data + start, '\r', out->len - start)) != NULL;)
		*s = ' ';
	buf_adds(out, "}\n");
}

int shard_line_parse_row(const char *line, size_t n, int64_t *row, struct err *err)
{
	static const char start[] = "{\"row\":";
	size_t i = sizeof(start) - 1;
	int64_t v = 0;

	if (n <= i || memcmp(line, start, i) != 0)
		return err_set(err, ERR_STORAGE, "not a row of a shard: \"row\" expected first");
	for (; i < n && line[i] >= '0' && line[i] <= '9'; i++) {
		if (v > INT64_MAX / 10 - 1)
			return err_set(err, ERR_STORAGE, "not a row of a shard: \"row\" is too large");
		v = v * 10 + (line[i] - '0');
	}
	if (i == sizeof(start) - 1 || i == n || line[i] != ',')
		return err_set(err, ERR_STORAGE, "not a row of a shard: \"row\" is not a number");
	*row = v;
	return 0;
}

static int get_count(yyjson_val *root, const char *name, int64_t *out, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	if (!yyjson_is_int(v))
		return err_set(err, ERR_STORAGE, "not a row of a shard: \"%s\" is %s, expected an integer", name, json_type_name(v));
	*out = yyjson_get_sint(v);
	return 0;
}

int shard_line_parse(struct shard_line *l, const char *line, size_t n, struct err *err)
{
	/* The mark cannot occur earlier: inside a JSON string its quotes would be escaped. */
	const char *mark = memmem(line, n, input_mark, sizeof(input_mark) - 1);
	struct buf head = {0};
	yyjson_doc *doc = NULL;
	yyjson_val *root, *key;
	int rc = -1;

	if (!mark || line[n - 1] != '}')
		return err_set(err, ERR_STORAGE, "not a row of a shard: no \"input\" at its end");
	buf_add(&head, line, (size_t)(mark - line));
	buf_addc(&head, '}');
	doc = json_parse(head.data, head.len, ERR_STORAGE, err);
	if (!doc)
		goto out;
	root = yyjson_doc_get_root(doc);
	key = yyjson_obj_get(root, "key");
	if (!yyjson_is_str(key)) {
		err_set(err, ERR_STORAGE, "not a row of a shard: \"key\" is %s, expected a string", json_type_name(key));
		goto out;
	}
	if (get_count(root, "row", &l->row, err) < 0 || get_count(root, "n_prompt_tokens", &l->n_prompt_tokens, err) < 0 ||
	    get_count(root, "max_output_tokens", &l->max_output_tokens, err) < 0)
		goto out;
	buf_reset(&l->key);
	buf_add(&l->key, yyjson_get_str(key), yyjson_get_len(key));
	l->input = mark + sizeof(input_mark) - 1;
	l->n_input = (size_t)(line + n - 1 - l->input);
	rc = 0;
out:
	yyjson_doc_free(doc);
	buf_release(&head);
	return rc;
}
