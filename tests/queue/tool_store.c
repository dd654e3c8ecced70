/* tool_store: a store by hand, for tests. Usage: tool_store PLACE
 *
 * On stdin one operation a line, on stdout one answer a line: what the function of the same name returned, then a space and
 * what it found.
 *
 *     prepare                      create NAME TEXT             put NAME TEXT              put_file NAME PATH
 *     get NAME -> 1 TEXT           exists NAME                  fetch NAME -> 1 TEXT       list DIR -> 0 NAME NAME...
 *     list_tree DIR -> 0 NAME...   remove NAME                  remove_tree DIR
 *
 * Names and texts have no spaces; "." stands for the store's root. A failure is "-1 CODE MESSAGE". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "queue/store.h"

#define MOST_BYTES ((size_t)64 << 20)

static int get(struct store *s, const char *name, struct buf *found, struct err *err)
{
	return store_get(s, name, MOST_BYTES, found, err);
}

static int fetch(struct store *s, const char *name, struct buf *found, struct err *err)
{
	struct store_file f;
	int rc = store_fetch(s, name, &f, err);

	/* Reading what was fetched is the caller's to repeat. */
	for (int tries = 5; rc == 1 && file_read(f.path, MOST_BYTES, found, ERR_STORAGE, err) < 0; buf_reset(found))
		if (--tries == 0)
			rc = -1;
		else
			err_clear(err);
	store_file_release(&f);
	return rc;
}

static int list(struct store *s, int is_tree, const char *dir, struct buf *found, struct err *err)
{
	char **names;
	size_t n;
	int rc = is_tree ? store_list_tree(s, dir, &names, &n, err) : store_list(s, dir, &names, &n, err);

	if (rc < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		buf_addf(found, "%s%s", i ? " " : "", names[i]);
	store_names_free(names, n);
	return 0;
}

static int is(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static int operate(struct store *s, const char *what, const char *name, const char *text, struct buf *found, struct err *err)
{
	if (is(what, "prepare"))
		return store_prepare(s, err);
	if (is(what, "create"))
		return store_create(s, name, text, strlen(text), err);
	if (is(what, "put"))
		return store_put(s, name, text, strlen(text), err);
	if (is(what, "put_file"))
		return store_put_file(s, name, text, err);
	if (is(what, "get"))
		return get(s, name, found, err);
	if (is(what, "exists"))
		return store_exists(s, name, err);
	if (is(what, "fetch"))
		return fetch(s, name, found, err);
	if (is(what, "list") || is(what, "list_tree"))
		return list(s, is(what, "list_tree"), name, found, err);
	if (is(what, "remove"))
		return store_remove(s, name, err);
	if (is(what, "remove_tree"))
		return store_remove_tree(s, name, err);
	return err_set(err, ERR_USAGE, "tool_store knows no '%s'", what);
}

int main(int argc, char **argv)
{
	struct err err = {0};
	struct store *s;
	struct buf found = {0};
	char *line = NULL;
	size_t cap = 0;

	if (argc != 2) {
		fputs("usage: tool_store PLACE <OPERATIONS\n", stderr);
		return 1;
	}
	s = store_open(argv[1], &err);
	if (!s) {
		fprintf(stderr, "tool_store: %s\n", err.msg);
		return err_exit_code(err.code);
	}
	while (getline(&line, &cap, stdin) > 0) {
		char *rest = NULL, *what = strtok_r(line, " \n", &rest), *name = strtok_r(NULL, " \n", &rest),
		     *text = strtok_r(NULL, " \n", &rest);
		int rc;

		buf_reset(&found);
		err_clear(&err);
		rc = operate(s, what ? what : "", !name || is(name, ".") ? "" : name, text ? text : "", &found, &err);
		if (rc < 0)
			printf("-1 %s %s\n", err_code_name(err.code), err.msg);
		else
			printf("%d %s\n", rc, buf_str(&found));
		fflush(stdout);
	}
	free(line);
	buf_release(&found);
	store_close(s);
	return 0;
}
