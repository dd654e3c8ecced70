/* hash.h: SHA-256 for identity and integrity (libcrypto), XXH3 for tables and chains (xxhash). */
#ifndef TOKENMILL_BASE_HASH_H
#define TOKENMILL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_HEX_BYTES 65 /* 64 hex digits and a NUL */

struct sha256; /* streaming state */
struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_finish(struct sha256 *h, char hex[SHA256_HEX_BYTES]); /* frees h */

void sha256_hex(const void *p, size_t n, char hex[SHA256_HEX_BYTES]);
void sha256_bytes(const void *p, size_t n, unsigned char out[32]);
void hmac_sha256(const void *key, size_t n_key, const void *p, size_t n, unsigned char mac[32]); /* RFC 2104 */

uint64_t hash64(const void *p, size_t n, uint64_t seed); /* XXH3_64bits_withSeed; stable, may be stored */

#endif
