/* http.c: libcurl's easy interface, one handle for all requests so that connections are kept. */
#include "base/http.h"

#include <ctype.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/errors.h"
#include "base/mem.h"

enum {
	CONNECT_TIMEOUT_S = 5,
	STALL_TIMEOUT_S = 20,
	FIELDS_MAX_BYTES = 256 << 10,
	BODY_MAX_BYTES = 16 << 20, /* a page of 1000 names of 1024 bytes, each written as three, and as much again around them */
};

struct http {
	CURL *curl;
	/* of the exchange that runs */
	const struct http_request *request;
	struct http_reply *reply;
	int64_t n_sent;
	int stopped;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_start(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		BUG("libcurl cannot be initialised");
}

struct http *http_new(void)
{
	struct http *h = xcalloc(1, sizeof(*h));

	pthread_once(&curl_once, curl_start);
	h->curl = curl_easy_init();
	if (!h->curl)
		BUG("libcurl gives no handle");
	return h;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	curl_easy_cleanup(h->curl);
	free(h);
}

void http_reply_release(struct http_reply *reply)
{
	buf_release(&reply->fields);
	buf_release(&reply->body);
}

static int stop(struct http *h, const char *why)
{
	h->stopped = 1;
	if (h->reply->reason[0] == '\0')
		snprintf(h->reply->reason, sizeof(h->reply->reason), "%s", why);
	return 0;
}

static size_t on_field(char *p, size_t size, size_t n, void *arg)
{
	struct http *h = arg;
	struct http_reply *r = h->reply;

	n *= size;
	/* A new status line: what came before was an interim reply (100 Continue) or a proxy's. */
	if (n > 5 && memcmp(p, "HTTP/", 5) == 0) {
		long status = 0;

		curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
		r->status = (int)status;
		buf_reset(&r->fields);
	}
	if (r->fields.len + n > FIELDS_MAX_BYTES)
		return (size_t)stop(h, "the reply's header is too large");
	buf_add(&r->fields, p, n);
	return n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct http *h = arg;
	struct http_reply *r = h->reply;
	long status = 0;

	n *= size;
	curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	r->status = (int)status;
	if (h->request->sink && status >= 200 && status < 300) {
		if (h->request->sink(h->request->arg, r, p, n) != 0)
			return (size_t)stop(h, "stopped by the receiver");
		return n;
	}
	if (r->body.len + n > BODY_MAX_BYTES) {
		snprintf(r->reason, sizeof(r->reason), "the reply is larger than %d bytes", (int)BODY_MAX_BYTES);
		return 0;
	}
	buf_add(&r->body, p, n);
	return n;
}

static size_t on_send(char *p, size_t size, size_t n, void *arg)
{
	struct http *h = arg;
	const struct http_source *b = h->request->body;
	int64_t left = b->n_bytes - h->n_sent;
	ssize_t got;

	n *= size;
	if ((int64_t)n > left)
		n = (size_t)left;
	if (b->data) {
		memcpy(p, (const char *)b->data + h->n_sent, n);
	} else if (n > 0) {
		got = pread(b->fd, p, n, (off_t)(b->start + h->n_sent));
		if (got <= 0) {
			stop(h, "the file to be sent has become shorter or cannot be read");
			return CURL_READFUNC_ABORT;
		}
		n = (size_t)got;
	}
	h->n_sent += (int64_t)n;
	return n;
}

/* libcurl sends the body again when a kept connection turns out to be closed. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct http *h = arg;

	if (origin != SEEK_SET || offset < 0 || offset > h->request->body->n_bytes)
		return CURL_SEEKFUNC_FAIL;
	h->n_sent = offset;
	return CURL_SEEKFUNC_OK;
}

static enum http_outcome outcome(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return HTTP_REPLIED;
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_PARTIAL_FILE:
	case CURLE_UPLOAD_FAILED:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_FAIL_REWIND:
		return HTTP_LOST;
	default:
		return HTTP_FAILED;
	}
}

static void set_blob(CURL *curl, CURLoption option, const char *data, size_t n)
{
	struct curl_blob blob = {.data = (void *)data, .len = n, .flags = CURL_BLOB_COPY};

	curl_easy_setopt(curl, option, &blob);
}

/* The URL with the name that the certificate has, and the way to the host that the URL really names: libcurl takes name and address from one
 * place. "https://10.0.0.1:6443/x" and name "kubernetes" become "https://kubernetes:6443/x" and "kubernetes:6443:10.0.0.1:6443". The request's
 * Host is the real one's. 0, -1 where the URL cannot be read so. */
static int rename_host(const char *url, const char *name, struct buf *renamed, struct buf *way, struct buf *host)
{
	CURLU *u = curl_url();
	char *real = NULL, *port = NULL, *all = NULL;
	int rc = -1;

	if (u && curl_url_set(u, CURLUPART_URL, url, CURLU_PATH_AS_IS) == CURLUE_OK && curl_url_get(u, CURLUPART_HOST, &real, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK && curl_url_set(u, CURLUPART_HOST, name, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_URL, &all, 0) == CURLUE_OK) {
		buf_adds(renamed, all);
		buf_addf(way, "%s:%s:%s:%s", name, port, real, port);
		buf_addf(host, "Host: %s:%s", real, port);
		rc = 0;
	}
	curl_free(real);
	curl_free(port);
	curl_free(all);
	curl_url_cleanup(u);
	return rc;
}

static void set_peer(CURL *curl, const struct http_peer *p)
{
	if (p->ca)
		set_blob(curl, CURLOPT_CAINFO_BLOB, p->ca, p->n_ca);
	else if (p->ca_file)
		curl_easy_setopt(curl, CURLOPT_CAINFO, p->ca_file);
	if (p->ca || p->ca_file)
		curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	if (p->cert) {
		set_blob(curl, CURLOPT_SSLCERT_BLOB, p->cert, p->n_cert);
		set_blob(curl, CURLOPT_SSLKEY_BLOB, p->key, p->n_key);
	} else if (p->cert_file) {
		curl_easy_setopt(curl, CURLOPT_SSLCERT, p->cert_file);
		curl_easy_setopt(curl, CURLOPT_SSLKEY, p->key_file);
	}
	if (p->insecure) {
		curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (p->proxy) {
		curl_easy_setopt(curl, CURLOPT_PROXY, p->proxy);
		curl_easy_setopt(curl, CURLOPT_NOPROXY, "");
	}
}

static struct curl_slist *field_lines(const struct http_request *q)
{
	/* Without the wait for 100 Continue that libcurl has for large bodies: many servers never send it. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");
	struct buf line = {0};

	for (size_t i = 0; i < q->n_fields; i++) {
		buf_reset(&line);
		buf_addf(&line, "%s: %s", q->fields[i].name, q->fields[i].value);
		list = curl_slist_append(list, line.data);
	}
	buf_release(&line);
	return list;
}

enum http_outcome http_exchange(struct http *h, const struct http_request *request, struct http_reply *reply)
{
	char text[CURL_ERROR_SIZE] = "";
	const char *ca = getenv("AWS_CA_BUNDLE");
	struct curl_slist *lines = field_lines(request), *ways = NULL;
	struct buf renamed = {0}, way = {0}, host = {0};
	long status = 0;
	CURLcode code;

	reply->status = 0;
	reply->reason[0] = '\0';
	buf_reset(&reply->fields);
	buf_reset(&reply->body);
	h->request = request;
	h->reply = reply;
	h->n_sent = 0;
	h->stopped = 0;

	curl_easy_reset(h->curl); /* keeps the connections */
	curl_easy_setopt(h->curl, CURLOPT_ERRORBUFFER, text);
	curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(h->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
	if (request->stall_s != HTTP_NO_STALL) {
		curl_easy_setopt(h->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
		curl_easy_setopt(h->curl, CURLOPT_LOW_SPEED_TIME, request->stall_s ? (long)request->stall_s : (long)STALL_TIMEOUT_S);
	}
	curl_easy_setopt(h->curl, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(h->curl, CURLOPT_PATH_AS_IS, 1L); /* names are not to be "normalised" after they were signed */
	curl_easy_setopt(h->curl, CURLOPT_USERAGENT, "tokenmill");
	curl_easy_setopt(h->curl, CURLOPT_URL, request->url);
	curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, lines);
	curl_easy_setopt(h->curl, CURLOPT_HEADERFUNCTION, on_field);
	curl_easy_setopt(h->curl, CURLOPT_HEADERDATA, h);
	curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, h);
	if (request->peer)
		set_peer(h->curl, request->peer);
	if (request->peer && request->peer->server_name) {
		if (rename_host(request->url, request->peer->server_name, &renamed, &way, &host) == 0) {
			ways = curl_slist_append(NULL, way.data);
			lines = curl_slist_append(lines, host.data);
			curl_easy_setopt(h->curl, CURLOPT_URL, renamed.data);
			curl_easy_setopt(h->curl, CURLOPT_CONNECT_TO, ways);
			curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, lines);
		}
	}
	if (!request->peer && ca && *ca)
		curl_easy_setopt(h->curl, CURLOPT_CAINFO, ca);
	if (request->body) {
		curl_easy_setopt(h->curl, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(h->curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body->n_bytes);
		curl_easy_setopt(h->curl, CURLOPT_READFUNCTION, on_send);
		curl_easy_setopt(h->curl, CURLOPT_READDATA, h);
		curl_easy_setopt(h->curl, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(h->curl, CURLOPT_SEEKDATA, h);
	} else if (strcmp(request->method, "HEAD") == 0) {
		curl_easy_setopt(h->curl, CURLOPT_NOBODY, 1L);
	}
	curl_easy_setopt(h->curl, CURLOPT_CUSTOMREQUEST, request->method);

	code = curl_easy_perform(h->curl);
	curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
	reply->status = (int)status;
	curl_slist_free_all(lines);
	curl_slist_free_all(ways);
	buf_release(&renamed);
	buf_release(&way);
	buf_release(&host);
	if (code == CURLE_OK)
		return HTTP_REPLIED;
	if (reply->reason[0] == '\0')
		snprintf(reply->reason, sizeof(reply->reason), "%s", text[0] ? text : curl_easy_strerror(code));
	return h->stopped ? HTTP_STOPPED : outcome(code);
}

int http_reply_field(const struct http_reply *reply, const char *name, char *value, size_t cap)
{
	size_t n_name = strlen(name);
	const char *p = buf_str(&reply->fields);
	int found = 0;

	value[0] = '\0';
	while (*p) {
		size_t n = strcspn(p, "\r\n");
		const char *end = p + n;

		if (n > n_name && p[n_name] == ':' && strncasecmp(p, name, n_name) == 0) {
			const char *v = p + n_name + 1;

			while (v < end && (*v == ' ' || *v == '\t'))
				v++;
			while (end > v && isspace((unsigned char)end[-1]))
				end--;
			snprintf(value, cap, "%.*s", (int)(end - v), v);
			found = 1;
		}
		p += n;
		p += strspn(p, "\r\n");
	}
	return found;
}
