/* kube_error.c: what an API server says when it refuses, in one line. It sends a Status object
 * (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/); what stands before it (a proxy, a load
 * balancer) sends anything. */
#include <ctype.h>
#include <string.h>

#include "base/json.h"
#include "jobs/kube_private.h"

enum { TEXT_SHOWN = 160 };

static const struct {
	const char *reason; /* NULL: any of that status */
	int status;
	enum kube_why why;
} kinds[] = {
    {NULL, 400, KUBE_INVALID},           {NULL, 401, KUBE_UNAUTHORIZED}, {NULL, 403, KUBE_FORBIDDEN}, {NULL, 404, KUBE_NOT_FOUND},
    {"AlreadyExists", 409, KUBE_EXISTS}, {NULL, 409, KUBE_CONFLICT},     {NULL, 410, KUBE_EXPIRED},   {NULL, 422, KUBE_INVALID},
};

enum kube_why kube_why_of(int status, const char *reason)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (kinds[i].status == status && (!kinds[i].reason || (reason && strcmp(reason, kinds[i].reason) == 0)))
			return kinds[i].why;
	return KUBE_OTHER;
}

static const char *text_of(yyjson_val *v, const char *key)
{
	const char *s = yyjson_get_str(yyjson_obj_get(v, key));

	return s ? s : "";
}

void kube_status_line(struct buf *out, yyjson_val *status)
{
	yyjson_val *causes = yyjson_obj_get(yyjson_obj_get(status, "details"), "causes"), *c;
	const char *message = text_of(status, "message"), *reason = text_of(status, "reason");
	long long code = yyjson_get_int(yyjson_obj_get(status, "code"));
	size_t i, max;

	buf_adds(out, *message ? message : "no reason is given");
	/* Most messages hold their causes already. */
	yyjson_arr_foreach (causes, i, max, c) {
		const char *m = text_of(c, "message"), *field = text_of(c, "field");

		if (*m && !strstr(message, m))
			buf_addf(out, "; %s%s%s", field, *field ? ": " : "", m);
	}
	if (*reason || code)
		buf_addf(out, " (%lld%s%s)", code, *reason ? " " : "", reason);
}

/* "jobs" -> "job": only for messages */
static void add_singular(struct buf *out, const char *resource)
{
	size_t n = strlen(resource);

	buf_add(out, resource, n > 1 && resource[n - 1] == 's' ? n - 1 : n);
}

void kube_describe(struct buf *out, const struct kube_call *call, const char *space)
{
	const struct kube_ref *r = call->ref;

	buf_addf(out, "%s ", call->verb);
	if (r->sub)
		buf_addf(out, "the %s of ", r->sub);
	if (r->name) {
		add_singular(out, r->resource);
		buf_addf(out, " '%s'", r->name);
	} else {
		buf_adds(out, r->resource);
	}
	if (*space)
		buf_addf(out, " in namespace '%s'", space);
}

enum kube_why kube_explain(const struct kube_call *call, const char *space, const struct http_reply *reply, struct err *err)
{
	struct err ignored = {0};
	yyjson_doc *doc = json_parse(buf_str(&reply->body), reply->body.len, ERR_OTHER, &ignored);
	yyjson_val *root = yyjson_doc_get_root(doc);
	struct buf what = {0}, line = {0};
	const char *reason = NULL;
	enum kube_why why;

	kube_describe(&what, call, space);
	if (yyjson_equals_str(yyjson_obj_get(root, "kind"), "Status")) {
		reason = yyjson_get_str(yyjson_obj_get(root, "reason"));
		kube_status_line(&line, root);
	} else {
		size_t n = reply->body.len < TEXT_SHOWN ? reply->body.len : TEXT_SHOWN;

		buf_addf(&line, "HTTP status %d", reply->status);
		if (n)
			buf_adds(&line, ": ");
		for (size_t i = 0; i < n; i++)
			buf_addc(&line, isprint((unsigned char)reply->body.data[i]) ? reply->body.data[i] : ' ');
	}
	why = kube_why_of(reply->status, reason);
	err_set(err, ERR_OTHER, "cannot %s: %s", buf_str(&what), buf_str(&line));
	buf_release(&what);
	buf_release(&line);
	yyjson_doc_free(doc);
	return why;
}
