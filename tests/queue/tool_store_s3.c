/* tool_store_s3: a store by hand, for tests, with any names and texts, and what S3 has beside. Usage: tool_store_s3 PLACE
 *
 * A line is an operation and its arguments, separated by tabs; each gets one line of JSON on stdout: the result, or
 * {"error":...}.
 *
 *     prepare | create NAME TEXT | put NAME TEXT | put-file NAME PATH | get NAME MAX_BYTES | exists NAME | fetch NAME
 *     list DIR | list-tree DIR | remove NAME | remove-tree DIR
 *     presign METHOD KEY (of an s3:// place's bucket) | stream KEY START
 *
 * get: the text or null. fetch: {"n_bytes":..,"sha256":..} of the local file or null. stream: the same of the bytes from START
 * on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/s3.h"
#include "queue/store.h"

enum { ARGS_MAX = 4 };

static void say_digest(int rc, int64_t n_bytes, const char *hex)
{
	if (rc == 1)
		printf("{\"n_bytes\":%" PRId64 ",\"sha256\":\"%s\"}\n", n_bytes, hex);
	else if (rc == 0)
		puts("null");
}

static int list(struct store *s, int is_tree, const char *dir, struct err *err)
{
	struct buf out = {0};
	char **names;
	size_t n;

	if ((is_tree ? store_list_tree : store_list)(s, dir, &names, &n, err) < 0)
		return -1;
	buf_addc(&out, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_addc(&out, ',');
		json_write_string(&out, names[i], strlen(names[i]));
	}
	printf("%s]\n", buf_str(&out));
	buf_release(&out);
	store_names_free(names, n);
	return 0;
}

static int get(struct store *s, const char *name, size_t max_bytes, struct err *err)
{
	struct buf text = {0}, out = {0};
	int rc = store_get(s, name, max_bytes, &text, err);

	if (rc == 1)
		json_write_string(&out, buf_str(&text), text.len);
	else
		buf_adds(&out, "null");
	if (rc >= 0)
		puts(out.data);
	buf_release(&text);
	buf_release(&out);
	return rc;
}

static int fetch(struct store *s, const char *name, struct err *err)
{
	struct store_file f;
	struct file_map m = {0};
	char hex[SHA256_HEX_BYTES] = "";
	int rc = store_fetch(s, name, &f, err);

	if (rc == 1) {
		if (file_map_open(&m, f.path, ERR_STORAGE, err) < 0)
			return -1;
		sha256_hex(m.data ? (const void *)m.data : "", m.n_bytes, hex);
	}
	say_digest(rc, (int64_t)m.n_bytes, hex);
	file_map_close(&m);
	if (rc == 1)
		store_file_release(&f);
	return rc;
}

struct digest {
	struct sha256 *hash;
	int64_t n_bytes;
};

static int on_bytes(void *arg, const void *p, size_t n)
{
	struct digest *d = arg;

	sha256_add(d->hash, p, n);
	d->n_bytes += (int64_t)n;
	return 0;
}

static int s3_operation(const char *place, char **a, struct err *err)
{
	struct digest d = {0};
	struct buf url = {0};
	char hex[SHA256_HEX_BYTES], *bucket = NULL, *key = NULL;
	struct s3 *s = s3_open(err);
	int rc = -1;

	if (!s || s3_url_parse(place, &bucket, &key, err) < 0)
		goto out;
	if (strcmp(a[0], "presign") == 0) {
		s3_presign(s, a[1], bucket, a[2], 600, &url);
		printf("\"%s\"\n", url.data);
		rc = 0;
	} else {
		d.hash = sha256_new();
		rc = s3_get_stream(s, bucket, a[1], atoll(a[2]), on_bytes, &d, err);
		sha256_finish(d.hash, hex);
		say_digest(rc, d.n_bytes, hex);
	}
out:
	buf_release(&url);
	free(bucket);
	free(key);
	s3_close(s);
	return rc;
}

/* The number, when it is one. */
static int say(int rc)
{
	if (rc >= 0)
		printf("%d\n", rc);
	return rc;
}

static int run(struct store *s, char **a, int n, struct err *err)
{
	const char *op = a[0];

	if (strcmp(op, "prepare") == 0 && n == 1)
		return say(store_prepare(s, err));
	if (strcmp(op, "create") == 0 && n == 3)
		return say(store_create(s, a[1], a[2], strlen(a[2]), err));
	if (strcmp(op, "put") == 0 && n == 3)
		return say(store_put(s, a[1], a[2], strlen(a[2]), err));
	if (strcmp(op, "put-file") == 0 && n == 3)
		return say(store_put_file(s, a[1], a[2], err));
	if (strcmp(op, "get") == 0 && n == 3)
		return get(s, a[1], (size_t)atoll(a[2]), err);
	if (strcmp(op, "exists") == 0 && n == 2)
		return say(store_exists(s, a[1], err));
	if (strcmp(op, "fetch") == 0 && n == 2)
		return fetch(s, a[1], err);
	if (strcmp(op, "list") == 0 && n == 2)
		return list(s, 0, a[1], err);
	if (strcmp(op, "list-tree") == 0 && n == 2)
		return list(s, 1, a[1], err);
	if (strcmp(op, "remove") == 0 && n == 2)
		return say(store_remove(s, a[1], err));
	if (strcmp(op, "remove-tree") == 0 && n == 2)
		return say(store_remove_tree(s, a[1], err));
	if ((strcmp(op, "presign") == 0 || strcmp(op, "stream") == 0) && n == 3)
		return s3_operation(store_place(s), a, err);
	return err_set(err, ERR_USAGE, "%s: no such operation with %d arguments", op, n - 1);
}

static void say_error(const struct err *err)
{
	struct buf out = {0};

	json_write_string(&out, err->msg, strlen(err->msg));
	printf("{\"error\":%s,\"code\":\"%s\"}\n", out.data, err_code_name(err->code));
	fflush(stdout);
	buf_release(&out);
}

int main(int argc, char **argv)
{
	struct err err = {0};
	struct store *s;
	char *line = NULL;
	size_t cap = 0;

	if (argc != 2) {
		fputs("usage: tool_store_s3 PLACE\n", stderr);
		return 1;
	}
	s = store_open(argv[1], &err);
	if (!s) {
		say_error(&err);
		return 1;
	}
	while (getline(&line, &cap, stdin) > 0) {
		char *args[ARGS_MAX] = {0}, *p = line;
		int n = 0;

		line[strcspn(line, "\n")] = '\0';
		while (p && n < ARGS_MAX)
			args[n++] = strsep(&p, "\t");
		err_clear(&err);
		if (run(s, args, n, &err) < 0)
			say_error(&err);
		fflush(stdout);
	}
	free(line);
	store_close(s);
	return 0;
}
