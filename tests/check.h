/* check.h: checks that print both values and the expression. A test binary runs in a fresh empty directory, prints one line
 * per named test ("ok NAME", "FAIL NAME", "skip NAME: reason") and ends with status 1 if any failed. */
#ifndef TOKENMILL_TESTS_CHECK_H
#define TOKENMILL_TESTS_CHECK_H

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failed_now, check_n_failed;

#define CHECK(cond)                                                                                    \
	do {                                                                                               \
		if (!(cond)) {                                                                                 \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #cond);                                          \
			check_failed_now = 1;                                                                      \
		}                                                                                              \
	} while (0)
#define CHECK_INT(a, b)                                                                                \
	do {                                                                                               \
		long long check_a_ = (long long)(a), check_b_ = (long long)(b);                                \
		if (check_a_ != check_b_) {                                                                    \
			printf("%s:%d: %s is %lld, %s is %lld\n", __FILE__, __LINE__, #a, check_a_, #b, check_b_); \
			check_failed_now = 1;                                                                      \
		}                                                                                              \
	} while (0)
#define CHECK_STR(a, b)                                                                                \
	do {                                                                                               \
		const char *check_a_ = (a), *check_b_ = (b);                                                   \
		if (!check_a_ || !check_b_ || strcmp(check_a_, check_b_) != 0) {                               \
			printf("%s:%d: %s is \"%s\", %s is \"%s\"\n", __FILE__, __LINE__, #a, check_a_ ? check_a_ : "(null)", #b, \
			       check_b_ ? check_b_ : "(null)");                                                    \
			check_failed_now = 1;                                                                      \
		}                                                                                              \
	} while (0)
#define CHECK_NEAR(a, b, tolerance)                                                                    \
	do {                                                                                               \
		double check_a_ = (a), check_b_ = (b);                                                         \
		if (!(fabs(check_a_ - check_b_) <= (tolerance))) {                                             \
			printf("%s:%d: %s is %.9g, %s is %.9g\n", __FILE__, __LINE__, #a, check_a_, #b, check_b_); \
			check_failed_now = 1;                                                                      \
		}                                                                                              \
	} while (0)

/* TEST(name) { ... } and then RUN(name) in main. */
/* For calls that return -1 and fill a struct err. */
#define CHECK_OK(expr, err)                                                                            \
	do {                                                                                               \
		if ((expr) < 0)                                                                                \
			printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #expr, (err).msg), check_failed_now = 1;     \
	} while (0)
/* part stands in text */
#define CHECK_HAS(text, part)                                                                          \
	do {                                                                                               \
		if (!strstr((text), (part)))                                                                   \
			printf("%s:%d: \"%s\" is not in \"%s\"\n", __FILE__, __LINE__, (part), (text)), check_failed_now = 1; \
	} while (0)
#define TEST(name) static void test_##name(void)
#define RUN(name)                                                                                      \
	do {                                                                                               \
		check_failed_now = 0;                                                                          \
		test_##name();                                                                                 \
		printf("%s %s\n", check_failed_now ? "FAIL" : "ok", #name);                                    \
		check_n_failed += check_failed_now;                                                            \
		fflush(stdout);                                                                                \
	} while (0)
#define SKIP(name, reason) printf("skip %s: %s\n", #name, reason)
#define TEST_RESULT() (check_n_failed ? 1 : 0)

#endif
