/* kube.c: one request: its address, who we are, trying again. */
#include "jobs/kube.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/kube_plugin.h"
#include "jobs/kube_private.h"

enum {
	TOKEN_MAX_BYTES = 1 << 20,
	EXPIRY_MARGIN_S = 10,
	FIRST_PATIENCE_S = 5,
	RETRY_AFTER_MAX_S = 60,
	MAX_WARNINGS = 64,
	MAX_FIELDS = 24
};

struct kube {
	struct kube_config config;
	struct http *http;
	enum kube_why why;
	double patience_s;
	int was_reached;
	uint64_t chance; /* state of the back-off's random numbers */

	struct kube_credential credential; /* of the plugin */
	int has_credential;
	struct buf file_token;
	struct stat token_stat; /* of the token file when it was read */
	int has_file_token;

	uint64_t warned[MAX_WARNINGS];
	size_t n_warned;
};

struct kube *kube_open(struct kube_config *config, struct err *err)
{
	struct kube *k = xcalloc(1, sizeof(*k));

	k->config = *config;
	*config = (struct kube_config){0};
	k->patience_s = 30;
	k->chance = (uint64_t)clock_unix_ms();
	if (k->config.user && !k->config.password) {
		err_set(err, ERR_USAGE, "%s: a username without a password", k->config.source);
		kube_close(k);
		return NULL;
	}
	k->http = http_new();
	return k;
}

void kube_close(struct kube *k)
{
	if (!k)
		return;
	http_free(k->http);
	kube_config_release(&k->config);
	kube_credential_release(&k->credential);
	buf_release(&k->file_token);
	free(k);
}

const char *kube_namespace(const struct kube *k)
{
	return k->config.namespace_name;
}

const char *kube_source(const struct kube *k)
{
	return k->config.source;
}

void kube_set_patience(struct kube *k, double seconds)
{
	k->patience_s = seconds;
}

enum kube_why kube_why(const struct kube *k)
{
	return k->why;
}

void kube_set_why(struct kube *k, enum kube_why why)
{
	k->why = why;
}

/* ---- who we are ---- */

/* A mounted token is replaced by another file under the same name; the kubelet does so before it expires. */
static int read_token_file(struct kube *k, struct err *err)
{
	struct stat st;
	const char *path = k->config.token_file;

	if (stat(path, &st) < 0)
		return err_sys(err, ERR_USAGE, "%s: token file %s", k->config.source, path);
	if (k->has_file_token && st.st_ino == k->token_stat.st_ino && st.st_size == k->token_stat.st_size &&
	    st.st_mtim.tv_sec == k->token_stat.st_mtim.tv_sec && st.st_mtim.tv_nsec == k->token_stat.st_mtim.tv_nsec)
		return 0;
	buf_reset(&k->file_token);
	if (file_read(path, TOKEN_MAX_BYTES, &k->file_token, ERR_USAGE, err) < 0)
		return err_context(err, "%s: token file", k->config.source);
	while (k->file_token.len && strchr(" \t\r\n", k->file_token.data[k->file_token.len - 1]))
		buf_truncate(&k->file_token, k->file_token.len - 1);
	if (!k->file_token.len || strpbrk(k->file_token.data, "\r\n"))
		return err_set(err, ERR_USAGE, "%s: token file %s does not hold one line", k->config.source, path);
	k->token_stat = st;
	k->has_file_token = 1;
	return 0;
}

static int renew_credential(struct kube *k, struct err *err)
{
	const struct kube_credential *c = &k->credential;

	if (k->has_credential && (!c->expires_unix_s || c->expires_unix_s - EXPIRY_MARGIN_S > clock_unix_ms() / 1000))
		return 0;
	kube_credential_release(&k->credential);
	k->has_credential = 0;
	if (kube_plugin_run(k->config.plugin, &k->credential, err) < 0)
		return err_context(err, "%s", k->config.source);
	k->has_credential = 1;
	return 0;
}

/* After 401: 1 when there is something to be read or asked again. */
static int forget_credentials(struct kube *k)
{
	int had = k->has_credential || k->has_file_token;

	k->has_credential = 0;
	k->has_file_token = 0;
	return had;
}

static void add_basic(struct buf *out, const char *user, const char *password)
{
	struct buf plain = {0};
	char *coded;

	buf_addf(&plain, "%s:%s", user, password);
	coded = xmalloc(plain.len / 3 * 4 + 5);
	EVP_EncodeBlock((unsigned char *)coded, (const unsigned char *)plain.data, (int)plain.len);
	buf_addf(out, "Basic %s", coded);
	free(coded);
	buf_release(&plain);
}

/* The value of "Authorization", empty for none, and the peer. */
static int identify(struct kube *k, struct buf *authorization, struct http_peer *peer, struct err *err)
{
	const struct kube_config *c = &k->config;

	*peer = (struct http_peer){.ca_file = c->ca_file,
	                           .ca = c->ca.data,
	                           .n_ca = c->ca.n,
	                           .cert_file = c->cert.data ? NULL : c->cert_file,
	                           .key_file = c->key_file,
	                           .server_name = c->server_name,
	                           .proxy = c->proxy,
	                           .insecure = c->insecure};
	if (c->cert.data && c->key.data) {
		peer->cert = c->cert.data, peer->n_cert = c->cert.n;
		peer->key = c->key.data, peer->n_key = c->key.n;
	}
	buf_reset(authorization);
	if (c->token_file) {
		if (read_token_file(k, err) < 0)
			return -1;
		buf_addf(authorization, "Bearer %s", k->file_token.data);
	} else if (c->token) {
		buf_addf(authorization, "Bearer %s", c->token);
	} else if (c->user) {
		add_basic(authorization, c->user, c->password);
	} else if (c->plugin) {
		if (renew_credential(k, err) < 0)
			return -1;
		if (k->credential.token)
			buf_addf(authorization, "Bearer %s", k->credential.token);
		if (k->credential.cert.data) {
			peer->cert = k->credential.cert.data, peer->n_cert = k->credential.cert.n;
			peer->key = k->credential.key.data, peer->n_key = k->credential.key.n;
		}
	}
	return 0;
}

/* ---- the address ---- */

static void add_escaped(struct buf *out, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c))
			buf_addc(out, (char)c);
		else
			buf_addf(out, "%%%02X", c);
	}
}

void kube_add_query(struct buf *query, const char *name, const char *value)
{
	buf_addf(query, "%s%s=", query->len ? "&" : "", name);
	add_escaped(query, value);
}

static const char *space_of(const struct kube *k, const struct kube_ref *r)
{
	return r->space ? r->space : k->config.namespace_name;
}

static void add_url(struct buf *out, const struct kube *k, const struct kube_call *call)
{
	const struct kube_ref *r = call->ref;

	buf_addf(out, "%s%s/%s", k->config.server, strchr(r->api, '/') ? "/apis" : "/api", r->api);
	if (*space_of(k, r)) {
		buf_adds(out, "/namespaces/");
		add_escaped(out, space_of(k, r));
	}
	buf_addf(out, "/%s", r->resource);
	if (r->name) {
		buf_addc(out, '/');
		add_escaped(out, r->name);
	}
	if (r->sub)
		buf_addf(out, "/%s", r->sub);
	if (call->query && *call->query)
		buf_addf(out, "?%s", call->query);
}

/* ---- one exchange ---- */

/* Header fields "Warning: 299 - "text"" (RFC 7234, 5.5). */
static void tell_warnings(struct kube *k, const struct http_reply *reply)
{
	for (const char *p = buf_str(&reply->fields); *p; p += strspn(p, "\r\n")) {
		size_t n = strcspn(p, "\r\n");
		const char *q = n > 8 && strncasecmp(p, "warning:", 8) == 0 ? memchr(p, '"', n) : NULL,
		           *end = q ? memrchr(p, '"', n) : NULL;
		int known = 0;

		p += n;
		if (!q || end <= q + 1)
			continue;
		for (size_t i = 0; i < k->n_warned; i++)
			known |= k->warned[i] == hash64(q, (size_t)(end - q), 0);
		if (known || k->n_warned == MAX_WARNINGS)
			continue;
		k->warned[k->n_warned++] = hash64(q, (size_t)(end - q), 0);
		log_warn("the cluster says: %.*s", (int)(end - q - 1), q + 1);
	}
}

static enum http_outcome exchange(struct kube *k, const struct kube_call *call, const char *url, const char *authorization,
                                  const struct http_peer *peer, struct http_reply *reply)
{
	struct http_field fields[MAX_FIELDS];
	struct http_source body = {.data = call->body, .n_bytes = (int64_t)call->n_body};
	size_t n = 0;
	struct http_request q = {.method = call->method,
	                         .url = url,
	                         .fields = fields,
	                         .body = call->body ? &body : NULL,
	                         .peer = peer,
	                         .stall_s = call->stall_s,
	                         .sink = call->sink,
	                         .arg = call->arg};

	fields[n++] = (struct http_field){"Accept", "application/json"};
	if (*authorization)
		fields[n++] = (struct http_field){"Authorization", authorization};
	if (call->content_type)
		fields[n++] = (struct http_field){"Content-Type", call->content_type};
	if (k->config.act_as)
		fields[n++] = (struct http_field){"Impersonate-User", k->config.act_as};
	for (size_t i = 0; i < k->config.n_act_as_groups && n < MAX_FIELDS; i++)
		fields[n++] = (struct http_field){"Impersonate-Group", k->config.act_as_groups[i]};
	q.n_fields = n;
	return http_exchange(k->http, &q, reply);
}

void kube_pause(struct kube *k, int n_tries)
{
	double s = 0.2 * (double)(1 << (n_tries < 6 ? n_tries : 6));
	struct timespec t;

	k->chance = k->chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	if (s > 8)
		s = 8;
	s *= 1 - 0.5 * (double)(k->chance >> 40) / (double)(1 << 24);
	t = (struct timespec){(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
	nanosleep(&t, NULL);
}

/* Seconds that the server wants us to wait, -1 when it does not say. */
static double retry_after(const struct http_reply *reply)
{
	char text[40], *end;
	double s;

	if (!http_reply_field(reply, "Retry-After", text, sizeof(text)))
		return -1;
	s = strtod(text, &end);
	return *end || end == text || !(s >= 0) ? -1 : s > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : s;
}

static void wait_before(struct kube *k, int n_tries, const struct http_reply *reply)
{
	double s = reply->status ? retry_after(reply) : -1;
	struct timespec t = {(time_t)s, 0};

	if (s > 0)
		nanosleep(&t, NULL);
	else
		kube_pause(k, n_tries);
}

static int may_pass(int status)
{
	return status == 429 || status == 500 || (status >= 502 && status <= 504);
}

/* A watch or a log that began to be received is not begun again here: the caller knows where to go on. */
struct counted_sink {
	http_sink_fn sink;
	void *arg;
	int was_used;
};

static int on_counted(void *arg, const struct http_reply *reply, const void *p, size_t n)
{
	struct counted_sink *c = arg;

	c->was_used = 1;
	return c->sink(c->arg, reply, p, n);
}

static void tell_unreached(struct kube *k, const struct kube_call *call, const struct http_reply *reply, struct err *err)
{
	struct buf what = {0};

	kube_describe(&what, call, space_of(k, call->ref));
	err_set(err, ERR_OTHER, "cannot %s: %s (%s) does not answer: %s", what.data, k->config.server, k->config.source,
	        reply->reason);
	buf_release(&what);
}

int kube_call(struct kube *k, const struct kube_call *call, struct http_reply *reply, struct err *err)
{
	double start = clock_seconds(),
	       patience = k->was_reached || k->patience_s < FIRST_PATIENCE_S ? k->patience_s : FIRST_PATIENCE_S;
	struct counted_sink counted = {.sink = call->sink, .arg = call->arg};
	struct kube_call counted_call = *call;
	struct buf url = {0}, authorization = {0};
	struct http_peer peer;
	int rc = 1, was_lost = 0, was_refused = 0;

	if (call->sink) {
		counted_call.sink = on_counted;
		counted_call.arg = &counted;
	}
	k->why = KUBE_FINE;
	add_url(&url, k, call);
	for (int n_tries = 0; rc == 1; n_tries++) {
		enum http_outcome outcome;
		int in_time = clock_seconds() - start < patience;

		if (identify(k, &authorization, &peer, err) < 0) {
			k->why = KUBE_UNAUTHORIZED;
			rc = -1;
			break;
		}
		outcome = exchange(k, &counted_call, url.data, buf_str(&authorization), &peer, reply);
		if (reply->status) {
			k->was_reached = 1;
			tell_warnings(k, reply);
		}
		if (outcome == HTTP_STOPPED && counted.was_used) {
			break;
		} else if (outcome == HTTP_LOST && in_time && !counted.was_used) {
			was_lost = 1;
			if (n_tries == 2)
				log_info("%s does not answer (%s), trying again", k->config.server, reply->reason);
			wait_before(k, n_tries, reply);
		} else if (outcome != HTTP_REPLIED) {
			k->why = KUBE_UNREACHABLE;
			tell_unreached(k, call, reply, err);
			rc = -1;
		} else if (reply->status >= 200 && reply->status < 300) {
			rc = 0;
		} else if (reply->status == 404 && was_lost && strcmp(call->method, "DELETE") == 0) {
			rc = 0;
		} else if (reply->status == 401 && !was_refused && forget_credentials(k)) {
			was_refused = 1;
		} else if (may_pass(reply->status) && in_time) {
			was_lost |= reply->status != 429;
			wait_before(k, n_tries, reply);
		} else {
			k->why = kube_explain(call, space_of(k, call->ref), reply, err);
			if (k->why == KUBE_UNAUTHORIZED)
				err_context(err, "%s does not accept the credentials of %s", k->config.server, k->config.source);
			rc = -1;
		}
	}
	buf_release(&url);
	buf_release(&authorization);
	return rc;
}

/* ---- one object ---- */

static int call_object(struct kube *k, const struct kube_call *call, yyjson_doc **out, struct err *err)
{
	struct http_reply reply = {0};
	int rc = kube_call(k, call, &reply, err);

	if (out)
		*out = NULL;
	if (rc == 0 && out) {
		*out = json_parse(buf_str(&reply.body), reply.body.len, ERR_OTHER, err);
		if (!*out) {
			k->why = KUBE_OTHER;
			rc = err_context(err, "what %s answered", k->config.server);
		}
	}
	http_reply_release(&reply);
	return rc;
}

int kube_get(struct kube *k, const struct kube_ref *ref, yyjson_doc **out, struct err *err)
{
	struct kube_call call = {.method = "GET", .verb = "get", .ref = ref};

	return call_object(k, &call, out, err);
}

int kube_create(struct kube *k, const struct kube_ref *ref, const char *json, size_t n, enum kube_dry dry, yyjson_doc **out,
                struct err *err)
{
	struct kube_ref collection = *ref;
	struct kube_call call = {.method = "POST",
	                         .verb = "create",
	                         .ref = &collection,
	                         .query = dry ? "fieldManager=tokenmill&fieldValidation=Strict&dryRun=All"
	                                      : "fieldManager=tokenmill&fieldValidation=Strict",
	                         .content_type = "application/json",
	                         .body = json,
	                         .n_body = n};

	if (!ref->sub)
		collection.name = NULL;
	return call_object(k, &call, out, err);
}

int kube_patch(struct kube *k, const struct kube_ref *ref, enum kube_patch_kind kind, const char *json, size_t n,
               enum kube_dry dry, yyjson_doc **out, struct err *err)
{
	struct kube_call call = {.method = "PATCH",
	                         .verb = kind == KUBE_PATCH_APPLY ? "apply" : "patch",
	                         .ref = ref,
	                         .query = dry ? "fieldManager=tokenmill&fieldValidation=Strict&dryRun=All"
	                                      : "fieldManager=tokenmill&fieldValidation=Strict",
	                         .content_type =
	                             kind == KUBE_PATCH_APPLY ? "application/apply-patch+yaml" : "application/merge-patch+json",
	                         .body = json,
	                         .n_body = n};

	return call_object(k, &call, out, err);
}

int kube_delete(struct kube *k, const struct kube_ref *ref, const char *propagation, const char *uid, struct err *err)
{
	struct buf body = {0};
	struct kube_call call = {.method = "DELETE", .verb = "delete", .ref = ref, .content_type = "application/json"};
	int rc;

	buf_addf(&body, "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"propagationPolicy\":\"%s\"", propagation);
	if (uid) {
		buf_adds(&body, ",\"preconditions\":{\"uid\":");
		json_write_string(&body, uid, strlen(uid));
		buf_addc(&body, '}');
	}
	buf_addc(&body, '}');
	call.body = body.data;
	call.n_body = body.len;
	rc = call_object(k, &call, NULL, err);
	buf_release(&body);
	return rc;
}
