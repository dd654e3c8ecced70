/* The directory as a store: what appears, what is told of what is there already, listings. Faulty file systems are tests of their own. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "queue/store.h"
#include "tests/check.h"

static struct store *open_new(const char *place)
{
	struct err err = {0};
	struct store *s = store_open(place, &err);

	CHECK_OK(s ? store_prepare(s, &err) : -1, err);
	return s;
}

static int get_is(struct store *s, const char *name, const char *expected)
{
	struct err err = {0};
	struct buf b = {0};
	int rc = store_get(s, name, 1000, &b, &err), is;

	is = rc == (expected ? 1 : 0) && (!expected || strcmp(buf_str(&b), expected) == 0);
	buf_release(&b);
	return is;
}

TEST(objects)
{
	struct store *s = open_new("objects/deep");
	struct err err = {0};
	struct buf b = {0};
	struct store_file f;

	CHECK_OK(store_put(s, "a/b/one", "first", 5, &err), err);
	CHECK(get_is(s, "a/b/one", "first"));
	CHECK_OK(store_put(s, "a/b/one", "", 0, &err), err);
	CHECK(get_is(s, "a/b/one", ""));
	CHECK(get_is(s, "a/b/two", NULL));
	CHECK(get_is(s, "a/b/one/below", NULL));
	CHECK_INT(store_exists(s, "a/b/one", &err), 1);
	CHECK_INT(store_exists(s, "a/b/two", &err), 0);
	CHECK_OK(store_put(s, "long", "0123456789", 10, &err), err);
	CHECK_INT(store_get(s, "long", 9, &b, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK(strstr(err.msg, "objects/deep/long"));
	err_clear(&err);
	CHECK_INT(store_fetch(s, "long", &f, &err), 1);
	CHECK(strcmp(f.path, "objects/deep/long") == 0 && !f.is_copy);
	store_file_release(&f);
	CHECK(file_exists("objects/deep/long"));
	CHECK_INT(store_fetch(s, "longer", &f, &err), 0);
	CHECK_OK(file_write_atomic("objects/local", "moved", 5, &err), err);
	CHECK_OK(store_put_file(s, "in/here", "objects/local", &err), err);
	CHECK(get_is(s, "in/here", "moved") && !file_exists("objects/local"));
	CHECK_OK(store_remove(s, "in/here", &err), err);
	CHECK_OK(store_remove(s, "in/here", &err), err);
	CHECK_OK(store_remove_tree(s, "a", &err), err);
	CHECK_OK(store_remove_tree(s, "a", &err), err);
	CHECK(!file_exists("objects/deep/a"));
	buf_release(&b);
	store_close(s);
}

TEST(exclusive)
{
	struct store *s = open_new("exclusive");
	struct err err = {0};

	CHECK_INT(store_create(s, "x", "mine", 4, &err), 1);
	CHECK_INT(store_create(s, "x", "other", 5, &err), 0);
	CHECK_INT(store_create(s, "x", "min", 3, &err), 0);
	/* A lost reply: the second try finds what the first one made. */
	CHECK_INT(store_create(s, "x", "mine", 4, &err), 1);
	CHECK(get_is(s, "x", "mine"));
	store_close(s);
}

/* Processes that create the same names at once: each name has one winner. */
TEST(race)
{
	enum { WRITERS = 4, NAMES = 100 };
	struct store *s = open_new("race");
	int winners = 0;

	for (int w = 0; w < WRITERS; w++)
		if (fork() == 0) {
			int won = 0;

			for (int i = 0; i < NAMES; i++) {
				struct err err = {0};
				char name[32], data[32];

				snprintf(name, sizeof(name), "claims/%d", i);
				won += store_create(s, name, data, (size_t)snprintf(data, sizeof(data), "writer %d", w), &err) == 1;
			}
			_exit(won);
		}
	for (int w = 0; w < WRITERS; w++) {
		int status;

		wait(&status);
		winners += WEXITSTATUS(status);
	}
	CHECK_INT(winners, NAMES);
	store_close(s);
}

TEST(listings)
{
	static const char *const all[] = {"00001/claim-0001", "00001/seg-0001-000001.db", "00002/claim-0001", "file"};
	struct store *s = open_new("listings");
	struct err err = {0};
	char **names;
	size_t n;

	for (size_t i = 0; i < 4; i++) {
		char name[64];

		snprintf(name, sizeof(name), "shards/%s", all[3 - i]);
		CHECK_OK(store_put(s, name, "x", 1, &err), err);
	}
	CHECK_OK(store_list(s, "shards", &names, &n, &err), err);
	CHECK_INT(n, 3);
	CHECK(n == 3 && strcmp(names[0], "00001") == 0 && strcmp(names[1], "00002") == 0 && strcmp(names[2], "file") == 0);
	store_names_free(names, n);
	CHECK_OK(store_list_tree(s, "shards", &names, &n, &err), err);
	CHECK_INT(n, 4);
	for (size_t i = 0; i < n && n == 4; i++)
		CHECK(strcmp(names[i], all[i]) == 0);
	store_names_free(names, n);
	CHECK_OK(store_list(s, "nowhere", &names, &n, &err), err);
	CHECK_INT(n, 0);
	CHECK_OK(store_list_tree(s, "nowhere", &names, &n, &err), err);
	CHECK_INT(n, 0);
	store_close(s);
}

TEST(failures)
{
	struct store *s = open_new("failures");
	struct err err = {0};

	CHECK_OK(file_write_atomic("failures/file", "x", 1, &err), err);
	CHECK_INT(store_put(s, "file/below", "x", 1, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK(strstr(err.msg, "failures/file/below"));
	err_clear(&err);
	CHECK_INT(store_create(s, "file/below", "x", 1, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	store_close(s);
	err_clear(&err);
	CHECK(!store_open("", &err));
	CHECK_INT(err.code, ERR_USAGE);
}

int main(void)
{
	RUN(objects);
	RUN(exclusive);
	RUN(race);
	RUN(listings);
	RUN(failures);
	return TEST_RESULT();
}
