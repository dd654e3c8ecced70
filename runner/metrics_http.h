/* metrics_http.h: answers GET /metrics, /healthz and /readyz on a thread of its own (libmicrohttpd).
 *
 *     /metrics   200, Prometheus' text format
 *     /healthz   200 while the process does what it should; 503 when the engine has not stepped for too long: a liveness probe may end it
 *     /readyz    200 once the model is loaded; 503 before, and while the engine hangs
 *
 * There is no TLS and no authentication: it is for the inside of a cluster. Nothing that a client sends is kept or shown; slow and many
 * clients are cut off. */
#ifndef TOKENMILL_RUNNER_METRICS_HTTP_H
#define TOKENMILL_RUNNER_METRICS_HTTP_H

#include "base/errors.h"
#include "runner/metrics.h"

struct metrics_http;

/* where: "PORT" (all addresses), "ADDRESS:PORT", "[ADDRESS]:PORT"; port 0: any that is free. m must live until metrics_http_stop. NULL and
 * *err: ERR_USAGE when where is none, ERR_OTHER when it cannot be listened on. */
struct metrics_http *metrics_http_start(struct metrics *m, const char *where, struct err *err);
int metrics_http_port(const struct metrics_http *h);
void metrics_http_stop(struct metrics_http *h); /* waits for answers that are being given; NULL is fine */

#endif
