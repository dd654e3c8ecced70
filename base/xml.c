/* xml.c: one pass over the bytes, the path of open elements as the only state. Grammar: Extensible Markup Language 1.0, fifth
 * edition. */
#include "base/xml.h"

#include <string.h>

#include "base/buf.h"

enum { DEPTH_MAX = 16, NAME_MAX_BYTES = 200 };

struct reader {
	const char *start, *p, *end;
	struct buf path;
	struct buf text; /* of the innermost element, since its tag */
	int depth;
	int is_leaf; /* the innermost element holds no element so far */
	int n_roots;
	xml_leaf_fn fn;
	void *arg;
	struct err *err;
};

static int fail(struct reader *r, const char *what)
{
	return err_set(r->err, ERR_STORAGE, "XML is malformed at byte %zu: %s", (size_t)(r->p - r->start), what);
}

static int is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_:-.", c)) || (c & 0x80);
}

static void skip_space(struct reader *r)
{
	while (r->p < r->end && is_space(*r->p))
		r->p++;
}

static int at(const struct reader *r, const char *s)
{
	size_t n = strlen(s);

	return (size_t)(r->end - r->p) >= n && memcmp(r->p, s, n) == 0;
}

/* Go behind the next occurrence of s. */
static int skip_past(struct reader *r, const char *s)
{
	const char *found = memmem(r->p, (size_t)(r->end - r->p), s, strlen(s));

	if (!found)
		return fail(r, "the end is missing");
	r->p = found + strlen(s);
	return 0;
}

static int read_name(struct reader *r, const char **name, size_t *n)
{
	*name = r->p;
	while (r->p < r->end && is_name(*r->p))
		r->p++;
	*n = (size_t)(r->p - *name);
	if (*n == 0 || *n > NAME_MAX_BYTES || strchr("0123456789-.", **name))
		return fail(r, "a name is expected");
	return 0;
}

static void add_utf8(struct buf *out, unsigned c)
{
	if (c < 0x80) {
		buf_addc(out, (char)c);
	} else if (c < 0x800) {
		buf_addc(out, (char)(0xC0 | c >> 6));
		buf_addc(out, (char)(0x80 | (c & 63)));
	} else if (c < 0x10000) {
		buf_addc(out, (char)(0xE0 | c >> 12));
		buf_addc(out, (char)(0x80 | (c >> 6 & 63)));
		buf_addc(out, (char)(0x80 | (c & 63)));
	} else {
		buf_addc(out, (char)(0xF0 | c >> 18));
		buf_addc(out, (char)(0x80 | (c >> 12 & 63)));
		buf_addc(out, (char)(0x80 | (c >> 6 & 63)));
		buf_addc(out, (char)(0x80 | (c & 63)));
	}
}

static int digit(char c, unsigned base)
{
	int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;

	return d < (int)base ? d : -1;
}

static int read_reference(struct reader *r)
{
	static const struct {
		const char *text;
		char c;
	} named[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
	unsigned c = 0, base = 10;
	int n_digits = 0;

	for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++)
		if (at(r, named[i].text)) {
			buf_addc(&r->text, named[i].c);
			r->p += strlen(named[i].text);
			return 0;
		}
	if (!at(r, "&#"))
		return fail(r, "an unknown entity");
	r->p += 2;
	if (r->p < r->end && *r->p == 'x') {
		base = 16;
		r->p++;
	}
	for (; r->p < r->end && *r->p != ';'; r->p++, n_digits++) {
		int d = digit(*r->p, base);

		if (d < 0 || n_digits >= 8)
			return fail(r, "a character reference that is none");
		c = c * base + (unsigned)d;
	}
	if (r->p == r->end || n_digits == 0 || c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
		return fail(r, "a character reference that is none");
	r->p++;
	add_utf8(&r->text, c);
	return 0;
}

static int read_attributes(struct reader *r)
{
	const char *name;
	size_t n;

	for (;;) {
		const char *before = r->p;
		char quote[2] = "";

		skip_space(r);
		if (r->p == r->end || *r->p == '>' || *r->p == '/')
			return 0;
		if (r->p == before)
			return fail(r, "white space is expected");
		if (read_name(r, &name, &n) < 0)
			return -1;
		skip_space(r);
		if (r->p == r->end || *r->p != '=')
			return fail(r, "'=' is expected");
		r->p++;
		skip_space(r);
		if (r->p == r->end || (*r->p != '"' && *r->p != '\''))
			return fail(r, "a quoted value is expected");
		quote[0] = *r->p++;
		if (skip_past(r, quote) < 0)
			return -1;
	}
}

static int text_is_space(const struct buf *text)
{
	for (size_t i = 0; i < text->len; i++)
		if (!is_space(text->data[i]))
			return 0;
	return 1;
}

static int close_element(struct reader *r)
{
	size_t i = r->path.len;

	if (r->is_leaf) {
		if (r->fn(r->arg, r->path.data, buf_str(&r->text), r->text.len, r->err) != 0)
			return -1;
	} else if (!text_is_space(&r->text)) {
		return fail(r, "text beside elements");
	}
	while (i > 0 && r->path.data[i - 1] != '/')
		i--;
	buf_truncate(&r->path, i > 0 ? i - 1 : 0);
	buf_reset(&r->text);
	r->depth--;
	r->is_leaf = 0;
	return 0;
}

static int read_open_tag(struct reader *r)
{
	const char *name;
	size_t n;

	r->p++;
	if (read_name(r, &name, &n) < 0 || read_attributes(r) < 0)
		return -1;
	if (!text_is_space(&r->text))
		return fail(r, "text beside elements");
	if (r->depth == 0 && r->n_roots++ > 0)
		return fail(r, "a second root element");
	if (r->depth == DEPTH_MAX)
		return fail(r, "elements are nested too deep");
	if (r->depth++ > 0)
		buf_addc(&r->path, '/');
	buf_add(&r->path, name, n);
	buf_reset(&r->text);
	r->is_leaf = 1;
	if (at(r, "/>")) {
		r->p += 2;
		return close_element(r);
	}
	if (!at(r, ">"))
		return fail(r, "'>' is expected");
	r->p++;
	return 0;
}

static int read_close_tag(struct reader *r)
{
	const char *name, *slash = r->path.len ? strrchr(r->path.data, '/') : NULL;
	const char *open = slash ? slash + 1 : buf_str(&r->path);
	size_t n;

	r->p += 2;
	if (read_name(r, &name, &n) < 0)
		return -1;
	if (r->depth == 0 || strlen(open) != n || memcmp(open, name, n) != 0)
		return fail(r, "an end tag that closes nothing");
	skip_space(r);
	if (!at(r, ">"))
		return fail(r, "'>' is expected");
	r->p++;
	return close_element(r);
}

static int read_markup(struct reader *r)
{
	const char *from;

	if (at(r, "<!--")) {
		r->p += 4;
		return skip_past(r, "-->");
	}
	if (at(r, "<![CDATA[") && r->depth > 0) {
		r->p += 9;
		from = r->p;
		if (skip_past(r, "]]>") < 0)
			return -1;
		buf_add(&r->text, from, (size_t)(r->p - 3 - from));
		return 0;
	}
	if (at(r, "<!"))
		return fail(r, "a declaration");
	if (at(r, "<?"))
		return fail(r, "a processing instruction");
	return at(r, "</") ? read_close_tag(r) : read_open_tag(r);
}

static int read_document(struct reader *r)
{
	if (memchr(r->p, '\0', (size_t)(r->end - r->p)))
		return fail(r, "a NUL");
	if (at(r, "\xEF\xBB\xBF"))
		r->p += 3;
	skip_space(r); /* S3 sends some before a reply that takes long */
	if (at(r, "<?xml") && skip_past(r, "?>") < 0)
		return -1;
	while (r->p < r->end) {
		if (*r->p == '<') {
			if (read_markup(r) < 0)
				return -1;
		} else if (r->depth == 0 && !is_space(*r->p)) {
			return fail(r, "text outside the root element");
		} else if (*r->p == '&') {
			if (read_reference(r) < 0)
				return -1;
		} else {
			buf_addc(&r->text, *r->p++);
		}
	}
	if (r->depth > 0 || r->n_roots == 0)
		return fail(r, "the end is missing");
	return 0;
}

int xml_each_leaf(const char *xml, size_t n, xml_leaf_fn fn, void *arg, struct err *err)
{
	struct reader r = {.start = xml, .p = xml, .end = xml + n, .fn = fn, .arg = arg, .err = err};
	int rc = n ? read_document(&r) : fail(&r, "empty");

	buf_release(&r.path);
	buf_release(&r.text);
	return rc;
}
