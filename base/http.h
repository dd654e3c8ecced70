/* http.h: one HTTP exchange at a time, over libcurl; the connection is kept for the next one.
 *
 * http_exchange tells apart whether a whole reply came (of whatever status), whether the connection failed in a way that may
 * pass, or whether trying again is useless. It follows no redirect and tries nothing again: who knows what the request means
 * does (s3.h, jobs/kube.h).
 *
 * Connecting may take 5 s, and 20 s may pass without a byte in either direction; a transfer that goes on may take as long as it
 * likes. Proxies come from the environment as libcurl reads it (http_proxy, https_proxy, no_proxy), certificates from the
 * system or from the file that AWS_CA_BUNDLE names. A request with a struct http_peer says all that itself.
 *
 * No two threads share a struct http. SIGPIPE is never raised.
 */
#ifndef TOKENMILL_BASE_HTTP_H
#define TOKENMILL_BASE_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct http;

struct http *http_new(void);
void http_free(struct http *h);

struct http_field {
	const char *name;
	const char *value;
};

/* What is sent: bytes in memory, or of a file (read with pread). */
struct http_source {
	const void *data; /* NULL: of the file */
	int fd;
	int64_t start; /* position of the first byte in the file */
	int64_t n_bytes;
};

/* Whom to trust and who we are, for a server that is not one of the public ones. Members that are NULL are not given. Borrowed. */
struct http_peer {
	const char *ca_file; /* PEM; instead of the system's certificates */
	const char *ca;      /* the same in memory; goes before the file */
	size_t n_ca;
	const char *cert_file, *key_file; /* PEM: the client's certificate */
	const char *cert, *key;           /* the same in memory; both or none */
	size_t n_cert, n_key;
	const char *server_name; /* in the server's certificate, where it is not the URL's host */
	const char *proxy;       /* http://, https://, socks5://; instead of the environment's */
	int insecure;            /* any certificate will do */
};

enum { HTTP_NO_STALL = -1 };

struct http_reply {
	int status;        /* 0: none came */
	struct buf fields; /* header lines as they came, see http_reply_field */
	struct buf body;   /* what no sink took */
	char reason[300];  /* why there is no whole reply; "" when there is */
};

/* Takes bytes of the body; status and fields of the reply are there. 0 to go on, anything else to stop. */
typedef int (*http_sink_fn)(void *arg, const struct http_reply *reply, const void *p, size_t n);

struct http_request {
	const char *method;
	const char *url;
	const struct http_field *fields; /* beside Host and Content-Length, which are added */
	size_t n_fields;
	const struct http_source *body; /* NULL: none */
	const struct http_peer *peer; /* NULL: as the header of this file says */
	int stall_s;                  /* seconds without a byte until the transfer is given up; 0: 20; HTTP_NO_STALL: never (TCP keep-alive tells) */
	http_sink_fn sink;            /* for the body of a 2xx reply; NULL: it goes to reply->body, as every other does */
	void *arg;
};

enum http_outcome {
	HTTP_REPLIED = 1, /* a whole reply, of any status */
	HTTP_LOST = 2,    /* no connection, or it broke or stalled, or the reply was cut short: may pass */
	HTTP_STOPPED = 3, /* the sink, or a file to be sent that has become shorter */
	HTTP_FAILED = 4,  /* will not pass: a bad URL or certificate, a reply that is too large */
};

/* reply is emptied first; the caller releases it. */
enum http_outcome http_exchange(struct http *h, const struct http_request *request, struct http_reply *reply);
void http_reply_release(struct http_reply *reply);

/* The value of the (last) header field of that name, case ignored: 1 and value, cut to cap - 1 bytes; 0: there is none. */
int http_reply_field(const struct http_reply *reply, const char *name, char *value, size_t cap);

#endif
