/* html.c: the frame and the looks of a page. */
#include "jobs/html.h"

#include <utf8proc.h>

/* Colours: eight hues that stay apart for the colour-blind in this order, darker on white, lighter on black; the last is for
 * the rest. */
static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--card:#f6f7f9;--line:#d9dde3;--text:#1b1f24;--dim:#59636e;"
    "--s0:#2f6fde;--s1:#e08600;--s2:#14936b;--s3:#c2478a;--s4:#7c5ccf;--s5:#9a5f2c;--s6:#3fa0c8;--s7:#8b929c}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1d2127;--line:#363c45;--text:#e7eaee;--dim:#a0a9b4;"
    "--s0:#6ea0ff;--s1:#f5ae45;--s2:#4cc79b;--s3:#ec86bb;--s4:#ad96f2;--s5:#cf9a68;--s6:#7fcdec;--s7:#939ba6}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto "
    "Sans',sans-serif}"
    "main{max-width:80rem;margin:0 auto;padding:1.5rem 1.25rem 3rem}"
    "h1{font-size:1.6rem;line-height:1.2;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.25rem 0 .75rem}"
    "p{margin:.25rem 0}.dim{color:var(--dim)}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;margin:1.25rem 0 0;padding:0}"
    ".tiles div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.65rem .85rem}"
    ".tiles dt{color:var(--dim);font-size:.85rem}.tiles dd{margin:0;font-size:1.35rem;font-weight:600;overflow-wrap:anywhere}"
    ".tiles dd small{display:block;font-size:.8rem;font-weight:400;color:var(--dim)}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:1rem}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.85rem 1rem;min-width:0}"
    "figcaption{font-weight:600}figcaption span{display:block;font-weight:400;font-size:.85rem;color:var(--dim)}"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem .9rem;margin:.35rem 0 0;padding:0;font-size:.85rem}"
    ".legend li{display:flex;align-items:center;gap:.35rem;min-width:0;overflow-wrap:anywhere}"
    ".legend svg{width:.75rem;height:.75rem;flex:none}"
    "figure>svg{display:block;width:100%;height:auto;margin-top:.4rem}"
    "svg text{fill:var(--dim);font-size:11px;font-family:inherit}svg .grid{stroke:var(--line);stroke-width:1}svg "
    ".axis{stroke:var(--dim);stroke-width:1}"
    "svg .bar{stroke:var(--card);stroke-width:.75}svg .bar:hover{opacity:.75}"
    ".s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}.s4{fill:var(--s4)}.s5{fill:var(--s5)}.s6{"
    "fill:var(--s6)}"
    ".s7{fill:var(--s7)}"
    "details{margin-top:.5rem;font-size:.85rem}summary{cursor:pointer;color:var(--dim)}"
    ".scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{padding:.35rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}"
    "th.t,td.t{text-align:left;max-width:24rem;overflow:hidden;text-overflow:ellipsis}thead "
    "th{background:var(--card);font-weight:600}"
    "tbody tr:last-child td,tbody tr:last-child th,tfoot td,tfoot th{border-bottom:0}tfoot td,tfoot "
    "th{font-weight:600;border-top:2px solid var(--line)}"
    "tbody th{font-weight:400}tbody tr:hover{background:var(--card)}"
    ".note{border-left:3px solid var(--s1);padding:.1rem .75rem;margin:.75rem 0}"
    "@media(max-width:36rem){main{padding:1rem .75rem 2rem}svg "
    "text{font-size:15px}.tiles{grid-template-columns:repeat(2,1fr);gap:.5rem}"
    ".tiles dd{font-size:1.1rem}}"
    "@media print{figure,.tiles div{break-inside:avoid}details{display:none}}";

void html_add_text(struct buf *out, const char *text)
{
	utf8proc_int32_t c;
	utf8proc_ssize_t n;

	for (; *text && (n = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &c)) > 0; text += n) {
		utf8proc_category_t k = utf8proc_category(c);
		int is_turning =
		    (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0x200E || c == 0x200F || c == 0x061C;

		if (c == '&')
			buf_adds(out, "&amp;");
		else if (c == '<')
			buf_adds(out, "&lt;");
		else if (c == '>')
			buf_adds(out, "&gt;");
		else if (c == '"')
			buf_adds(out, "&quot;");
		else if (c == '\'')
			buf_adds(out, "&#39;");
		else if (c == '\n' || c == '\t')
			buf_addc(out, (char)c);
		else if (k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CN || is_turning)
			buf_adds(out, "\xEF\xBF\xBD");
		else
			buf_add(out, text, (size_t)n);
	}
}

void html_begin(struct buf *out, const char *title)
{
	buf_adds(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	              "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
	              "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
	html_add_text(out, title);
	buf_addf(out, "</title>\n<style>%s</style>\n</head>\n<body>\n<main>\n", style);
}

void html_end(struct buf *out)
{
	buf_adds(out, "</main>\n</body>\n</html>\n");
}
