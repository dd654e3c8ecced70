/* hash.c: thin covers over libcrypto and xxhash. */
#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/errors.h"

static EVP_MD *the_sha256;

static void fetch_sha256(void)
{
	the_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!the_sha256)
		BUG("libcrypto has no SHA-256");
}

/* Looked up once: EVP_sha256() is looked up anew, under locks, in each EVP_DigestInit_ex (crypto(7), "Performance"), which takes as long as hashing
 * a kilobyte. */
static const EVP_MD *get_sha256(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, fetch_sha256);
	return the_sha256;
}

struct sha256 *sha256_new(void)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();

	if (!c || EVP_DigestInit_ex(c, get_sha256(), NULL) != 1)
		BUG("libcrypto has no SHA-256");
	return (struct sha256 *)c;
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
	EVP_DigestUpdate((EVP_MD_CTX *)h, p, n);
}

void sha256_finish(struct sha256 *h, char hex[SHA256_HEX_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char d[32];

	EVP_DigestFinal_ex((EVP_MD_CTX *)h, d, NULL);
	EVP_MD_CTX_free((EVP_MD_CTX *)h);
	for (int i = 0; i < 32; i++) {
		hex[2 * i] = digits[d[i] >> 4];
		hex[2 * i + 1] = digits[d[i] & 15];
	}
	hex[64] = '\0';
}

void sha256_hex(const void *p, size_t n, char hex[SHA256_HEX_BYTES])
{
	struct sha256 *h = sha256_new();

	sha256_add(h, p, n);
	sha256_finish(h, hex);
}

void sha256_bytes(const void *p, size_t n, unsigned char out[32])
{
	if (EVP_Digest(p, n, out, NULL, get_sha256(), NULL) != 1)
		BUG("libcrypto has no SHA-256");
}

void hmac_sha256(const void *key, size_t n_key, const void *p, size_t n, unsigned char mac[32])
{
	unsigned n_mac = 0;

	if (!HMAC(EVP_sha256(), key, (int)n_key, p, n, mac, &n_mac) || n_mac != 32)
		BUG("libcrypto has no HMAC with SHA-256");
}

uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(p, n, seed);
}
