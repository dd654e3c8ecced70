/* kube_stream.c: lists page by page, watches, logs.
 *
 *     list (resourceVersion) --> watch from there --> ... connection ends: watch from the last version seen (objects and
 * bookmarks) ^                        |
 *            '---- 410 Gone ----------'
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "jobs/kube_private.h"

/* A page of pods of some 20 kB stays below what http.h takes. */
#define PAGE_ITEMS "500"

enum { LINE_MAX_BYTES = 16 << 20, MAX_RESTARTS = 5, MAX_FAILED_WATCHES = 12, WATCH_STALL_S = 120 };

/* ---- list ---- */

struct pages {
	yyjson_doc **docs;
	size_t n, cap;
};

static void pages_release(struct pages *p)
{
	for (size_t i = 0; i < p->n; i++)
		yyjson_doc_free(p->docs[i]);
	free(p->docs);
	*p = (struct pages){0};
}

/* 1: there is another page (*next), 0: it was the last, -1. */
static int read_page(struct kube *k, const struct kube_ref *ref, const struct kube_selection *sel, struct buf *next,
                     struct pages *pages, struct err *err)
{
	struct buf query = {0};
	struct http_reply reply = {0};
	struct kube_call call = {.method = "GET", .verb = "list", .ref = ref};
	yyjson_doc *doc = NULL;
	const char *more;
	int rc;

	if (sel && sel->labels)
		kube_add_query(&query, "labelSelector", sel->labels);
	if (sel && sel->fields)
		kube_add_query(&query, "fieldSelector", sel->fields);
	kube_add_query(&query, "limit", PAGE_ITEMS);
	if (next->len)
		kube_add_query(&query, "continue", next->data);
	call.query = query.data;
	rc = kube_call(k, &call, &reply, err);
	if (rc == 0 && !(doc = json_parse(buf_str(&reply.body), reply.body.len, ERR_OTHER, err))) {
		kube_set_why(k, KUBE_OTHER);
		rc = err_context(err, "list of %s", ref->resource);
	}
	if (rc == 0) {
		MEM_GROW(pages->docs, pages->cap, pages->n + 1);
		pages->docs[pages->n++] = doc;
		more = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "metadata"), "continue"));
		buf_reset(next);
		buf_adds(next, more ? more : "");
		rc = next->len > 0;
	}
	buf_release(&query);
	http_reply_release(&reply);
	return rc;
}

int kube_list(struct kube *k, const struct kube_ref *ref, const struct kube_selection *sel, kube_item_fn fn, void *arg,
              struct buf *resource_version, struct err *err)
{
	struct pages pages = {0};
	struct buf next = {0};
	int rc = 1, n_restarts = 0;

	while (rc == 1) {
		rc = read_page(k, ref, sel, &next, &pages, err);
		/* Pages of a list stay for some minutes only. */
		if (rc < 0 && kube_why(k) == KUBE_EXPIRED && pages.n && n_restarts++ < MAX_RESTARTS) {
			err_clear(err);
			pages_release(&pages);
			buf_reset(&next);
			rc = 1;
		}
	}
	for (size_t p = 0; p < pages.n && rc == 0; p++) {
		yyjson_val *root = yyjson_doc_get_root(pages.docs[p]), *item;
		size_t i, max;

		if (p == 0 && resource_version) {
			const char *v = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(root, "metadata"), "resourceVersion"));

			buf_reset(resource_version);
			buf_adds(resource_version, v ? v : "");
		}
		yyjson_arr_foreach (yyjson_obj_get(root, "items"), i, max, item)
			if ((rc = fn(arg, item)) != 0)
				break;
	}
	pages_release(&pages);
	buf_release(&next);
	return rc;
}

/* ---- watch ---- */

struct watch {
	struct kube *k;
	kube_event_fn fn;
	void *arg;
	struct buf line;
	struct buf version;
	struct err *err;
	int result;         /* what fn said */
	int is_expired;     /* an error came: 410 mostly; whatever it is, a new list helps or tells */
	struct buf trouble; /* what it said */
	int is_broken;      /* what came is no event; err says it */
	int n_events;
};

static int on_error_event(struct watch *w, yyjson_val *status)
{
	buf_reset(&w->trouble);
	kube_status_line(&w->trouble, status);
	w->is_expired = 1;
	return 1;
}

static int on_event(struct watch *w, yyjson_val *event)
{
	const char *type = yyjson_get_str(yyjson_obj_get(event, "type"));
	yyjson_val *object = yyjson_obj_get(event, "object");
	const char *version = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(object, "metadata"), "resourceVersion"));
	enum kube_event e;

	if (!type || !object) {
		w->is_broken = 1;
		return err_set(w->err, ERR_OTHER, "the watch brought something that is no event");
	}
	if (strcmp(type, "ERROR") == 0)
		return on_error_event(w, object);
	if (version) {
		buf_reset(&w->version);
		buf_adds(&w->version, version);
	}
	w->n_events++;
	if (strcmp(type, "BOOKMARK") == 0)
		return 0;
	e = strcmp(type, "ADDED") == 0 ? KUBE_ADDED : strcmp(type, "DELETED") == 0 ? KUBE_DELETED : KUBE_MODIFIED;
	return w->result = w->fn(w->arg, e, object);
}

static int on_watch_bytes(void *arg, const struct http_reply *reply, const void *p, size_t n)
{
	struct watch *w = arg;
	const char *s = p, *end = s + n;

	(void)reply;
	while (s < end) {
		const char *nl = memchr(s, '\n', (size_t)(end - s));
		yyjson_doc *doc;
		int rc;

		buf_add(&w->line, s, (size_t)((nl ? nl : end) - s));
		if (w->line.len > LINE_MAX_BYTES) {
			w->is_broken = 1;
			return err_set(w->err, ERR_OTHER, "the watch brought an event of more than %d bytes", (int)LINE_MAX_BYTES);
		}
		if (!nl)
			return 0;
		s = nl + 1;
		if (!w->line.len)
			continue;
		doc = json_parse(w->line.data, w->line.len, ERR_OTHER, w->err);
		buf_reset(&w->line);
		if (!doc) {
			w->is_broken = 1;
			return err_context(w->err, "an event of the watch");
		}
		rc = on_event(w, yyjson_doc_get_root(doc));
		yyjson_doc_free(doc);
		if (rc)
			return rc;
	}
	return 0;
}

/* One connection, up to seconds long. 0: it ended; 1: fn stopped it; 2: list again; -1. */
static int watch_once(struct watch *w, const struct kube_ref *ref, const struct kube_selection *sel, int seconds,
                      struct err *err)
{
	struct buf query = {0};
	struct http_reply reply = {0};
	struct err lost = {0};
	struct kube_call call = {
	    .method = "GET", .verb = "watch", .ref = ref, .sink = on_watch_bytes, .arg = w, .stall_s = seconds + WATCH_STALL_S};
	char number[24];
	int rc;

	if (sel && sel->labels)
		kube_add_query(&query, "labelSelector", sel->labels);
	if (sel && sel->fields)
		kube_add_query(&query, "fieldSelector", sel->fields);
	kube_add_query(&query, "watch", "true");
	kube_add_query(&query, "allowWatchBookmarks", "true");
	snprintf(number, sizeof(number), "%d", seconds);
	kube_add_query(&query, "timeoutSeconds", number);
	kube_add_query(&query, "resourceVersion", buf_str(&w->version));
	call.query = query.data;
	buf_reset(&w->line);
	w->err = err;
	rc = kube_call(w->k, &call, &reply, &lost);
	if (w->is_broken)
		rc = -1;
	else if (w->result)
		rc = 1;
	else if (w->is_expired || (rc < 0 && kube_why(w->k) == KUBE_EXPIRED))
		rc = 2;
	else if (rc < 0 && kube_why(w->k) == KUBE_UNREACHABLE && reply.status == 200)
		rc = 0; /* broke off midway: go on from the last version */
	else if (rc < 0)
		rc = err_set(err, lost.code, "%s", lost.msg);
	w->is_expired = 0;
	buf_release(&query);
	http_reply_release(&reply);
	return rc;
}

static int on_listed(void *arg, yyjson_val *object)
{
	struct watch *w = arg;

	return w->result = w->fn(w->arg, KUBE_ADDED, object);
}

static int list_again(struct watch *w, const struct kube_ref *ref, const struct kube_selection *sel, struct err *err)
{
	w->result = w->fn(w->arg, KUBE_RESET, NULL);
	if (w->result)
		return 1;
	if (kube_list(w->k, ref, sel, on_listed, w, &w->version, err) < 0 && !w->result)
		return -1;
	if (!w->result)
		w->result = w->fn(w->arg, KUBE_SYNCED, NULL);
	return w->result != 0;
}

int kube_follow(struct kube *k, const struct kube_ref *ref, const struct kube_selection *sel, int period_s, kube_event_fn fn,
                void *arg, struct err *err)
{
	struct watch w = {.k = k, .fn = fn, .arg = arg};
	int rc = list_again(&w, ref, sel, err), n_empty = 0;

	while (rc == 0) {
		double start = clock_seconds();
		int n_before = w.n_events;

		rc = watch_once(&w, ref, sel, period_s, err);
		if (rc == 2) {
			if (w.n_events > n_before)
				n_empty = 0;
			if (n_empty > MAX_FAILED_WATCHES)
				rc = err_set(err, ERR_OTHER, "cannot watch %s: %s", ref->resource, buf_str(&w.trouble));
			kube_pause(k, n_empty++);
			if (rc == 2)
				rc = list_again(&w, ref, sel, err);
		} else if (rc == 0) {
			/* A server that hangs up at once would be asked without end. */
			if (clock_seconds() - start < 0.5 * period_s && w.n_events == n_before)
				kube_pause(k, n_empty++);
			else
				n_empty = 0;
			w.result = fn(arg, KUBE_IDLE, NULL);
			rc = w.result != 0;
		}
	}
	buf_release(&w.line);
	buf_release(&w.version);
	buf_release(&w.trouble);
	return rc < 0 ? -1 : w.result;
}

/* ---- log ---- */

struct log_reader {
	kube_bytes_fn fn;
	void *arg;
	int result;
};

static int on_log_bytes(void *arg, const struct http_reply *reply, const void *p, size_t n)
{
	struct log_reader *l = arg;

	(void)reply;
	return l->result = l->fn(l->arg, p, n);
}

int kube_log(struct kube *k, const char *space, const char *pod, const struct kube_log_options *o, kube_bytes_fn fn, void *arg,
             struct err *err)
{
	struct kube_ref ref = {"v1", "pods", space, pod, "log"};
	struct log_reader l = {.fn = fn, .arg = arg};
	struct kube_call call = {.method = "GET", .verb = "read", .ref = &ref, .sink = on_log_bytes, .arg = &l};
	struct http_reply reply = {0};
	struct buf query = {0};
	char number[24];
	int rc;

	if (o->container)
		kube_add_query(&query, "container", o->container);
	if (o->follow)
		kube_add_query(&query, "follow", "true");
	if (o->previous)
		kube_add_query(&query, "previous", "true");
	if (o->timestamps)
		kube_add_query(&query, "timestamps", "true");
	if (o->tail_lines >= 0) {
		snprintf(number, sizeof(number), "%lld", (long long)o->tail_lines);
		kube_add_query(&query, "tailLines", number);
	}
	if (o->since_s > 0) {
		snprintf(number, sizeof(number), "%lld", (long long)o->since_s);
		kube_add_query(&query, "sinceSeconds", number);
	}
	call.query = query.data;
	call.stall_s = o->follow ? HTTP_NO_STALL : 0;
	rc = kube_call(k, &call, &reply, err);
	buf_release(&query);
	http_reply_release(&reply);
	return rc == 1 ? l.result : rc;
}
