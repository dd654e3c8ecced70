/* metrics_http.c: the server. */
#include "runner/metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"

enum { MAX_CONNECTIONS = 32, IDLE_S = 15, CONNECTION_BYTES = 16384 };

struct metrics_http {
	struct metrics *metrics;
	struct MHD_Daemon *daemon;
	int port;
};

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status, const char *type, struct buf *text)
{
	size_t n = text->len;
	char *data = buf_detach(text); /* the server frees it */
	struct MHD_Response *r = MHD_create_response_from_buffer(n, data ? data : xstrdup(""), MHD_RESPMEM_MUST_FREE);
	enum MHD_Result done = MHD_NO;

	if (!r) {
		free(data);
		return MHD_NO;
	}
	if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
	    (status != MHD_HTTP_METHOD_NOT_ALLOWED || MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES))
		done = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return done;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                                  const char *upload, size_t *n_upload, void **state)
{
	static const char plain[] = "text/plain; charset=utf-8";
	struct metrics *m = ((struct metrics_http *)arg)->metrics;
	struct buf text = {0};
	int alive, ready;

	if (!*state) { /* the head only; the answer is given when all has come */
		*state = m;
		return MHD_YES;
	}
	if (*n_upload) { /* of no use; there must be no answer before its end */
		*n_upload = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		buf_adds(&text, "only GET and HEAD\n");
		return reply(c, MHD_HTTP_METHOD_NOT_ALLOWED, plain, &text);
	}
	if (strcmp(url, "/metrics") == 0) {
		metrics_write(m, &text);
		return reply(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &text);
	}
	if (strcmp(url, "/healthz") == 0 || strcmp(url, "/readyz") == 0) {
		alive = metrics_health(m, &ready, &text);
		return reply(c, (url[1] == 'h' ? alive : ready) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, plain, &text);
	}
	buf_adds(&text, "there is /metrics, /healthz and /readyz\n");
	return reply(c, MHD_HTTP_NOT_FOUND, plain, &text);
}

/* "ADDRESS:PORT" into its parts; address malloc'd, NULL for none. */
static int split(const char *where, char **address, const char **port, struct err *err)
{
	const char *colon = strrchr(where, ':'), *p = colon ? colon + 1 : where;
	size_t n = colon ? (size_t)(colon - where) : 0;
	char *end;
	long number = strtol(p, &end, 10);

	if (*p < '0' || *p > '9' || *end || number > 65535)
		return err_set(err, ERR_USAGE, "--metrics must be PORT or ADDRESS:PORT, it is '%s'", where);
	if (n >= 2 && where[0] == '[' && where[n - 1] == ']')
		*address = xmemdup(where + 1, n - 2);
	else if (memchr(where, ':', n))
		return err_set(err, ERR_USAGE, "--metrics: put brackets around the address: '[%.*s]:%s'", (int)n, where, p);
	else
		*address = n ? xmemdup(where, n) : NULL;
	*port = p;
	return 0;
}

static struct MHD_Daemon *listen_on(struct metrics_http *h, const struct sockaddr *address, int family, int is_wildcard)
{
	unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD;

	if (family == AF_INET6)
		flags |= is_wildcard ? MHD_USE_DUAL_STACK : MHD_USE_IPv6;
	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, address, MHD_OPTION_CONNECTION_LIMIT,
	                        (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
	                        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
}

struct metrics_http *metrics_http_start(struct metrics *m, const char *where, struct err *err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
	struct metrics_http *h = xcalloc(1, sizeof(*h));
	const union MHD_DaemonInfo *info;
	char *address = NULL;
	const char *port = NULL;
	sigset_t all, before;
	int rc, saved = 0;

	h->metrics = m;
	if (split(where, &address, &port, err) < 0)
		goto fail;
	rc = getaddrinfo(address, port, &hints, &found);
	if (rc != 0) {
		err_set(err, ERR_USAGE, "--metrics %s: %s", where, gai_strerror(rc));
		goto fail;
	}
	/* Signals are the loop's: a sleeping one is woken by them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* Without an address the system names the wildcard of each family: IPv6's takes both. */
	for (int want_v6 = address == NULL; want_v6 >= 0 && !h->daemon; want_v6--)
		for (struct addrinfo *a = found; a && !h->daemon; a = a->ai_next) {
			if (want_v6 && a->ai_family != AF_INET6)
				continue;
			errno = 0;
			h->daemon = listen_on(h, a->ai_addr, a->ai_family, address == NULL);
			saved = errno;
		}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!h->daemon) {
		errno = saved;
		err_sys(err, ERR_OTHER, "--metrics: cannot listen on %s", where);
		goto fail;
	}
	info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
	h->port = info ? (int)info->port : 0;
	free(address);
	freeaddrinfo(found);
	return h;
fail:
	free(address);
	if (found)
		freeaddrinfo(found);
	free(h);
	return NULL;
}

int metrics_http_port(const struct metrics_http *h)
{
	return h->port;
}

void metrics_http_stop(struct metrics_http *h)
{
	if (!h)
		return;
	MHD_stop_daemon(h->daemon);
	free(h);
}
