#!/usr/bin/env python3
"""Compare our chat templates with Jinja2 under the settings of transformers' apply_chat_template.

Needs PyPI Jinja2 (3.1.6 or newer), not transformers: the environment is made again here, after
transformers/utils/chat_template_utils.py. Templates: those of the shared tokenizers, tests/text/templates/*.jinja, and any
.jinja, .json (a tokenizer_config.json) or .gguf file or directory given. Each is rendered with generated conversations; then random
expressions. Equal means the same output, or both refuse. Prints "ok NAME (n)" or "FAIL NAME: ..." per template; status 1 if any
differs.

--write-cases remakes tests/text/template_cases.jsonl, which the C tests read, from the templates of tests/text/templates.
"""

import argparse
import copy
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import warnings
from datetime import datetime, timezone

try:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    print("skip diff-template: no Jinja2 in this Python")
    sys.exit(0)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOW = 1753747200  # 2025-07-29 00:00 UTC


class GenerationTag(Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(lineno)

    @jinja2.pass_eval_context
    def _support(self, context, caller):
        return caller()


def make_environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format):
        return datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None).strftime(format)

    class TemplateDict:
        def __call__(self, *args, **kwargs):
            return dict(*args, **kwargs)

        def fromkeys(self, *args, **kwargs):
            return dict.fromkeys(*args, **kwargs)

    class TemplateNamespace(jinja2.utils.Namespace):
        def __init__(*args, **kwargs):
            self, args = args[0], args[1:]
            attrs = dict(*args, **kwargs)
            for name in attrs:
                TemplateNamespace._check(name)
            jinja2.utils.Namespace.__init__(self, attrs)

        def __setitem__(self, name, value):
            TemplateNamespace._check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError("underscore")

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols], cache_size=0
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    env.globals["dict"] = TemplateDict()
    env.globals["namespace"] = TemplateNamespace
    return env


warnings.simplefilter("ignore")  # Python's compiler about generated expressions
ENV = make_environment()
COMPILED = {}


def theirs(template, variables):
    """(output, None), (None, error), or None where the comparison means nothing."""
    try:
        if template not in COMPILED:
            if len(COMPILED) > 500:
                COMPILED.clear()
            COMPILED[template] = ENV.from_string(template)
        out = COMPILED[template].render(**copy.deepcopy(variables))  # `x | indent` changes a list x, sandbox or not
        out.encode()
        return out, None
    except (RecursionError, MemoryError, UnicodeEncodeError):
        return None
    except Exception as e:  # noqa: BLE001: whatever a template does wrong
        return None, f"{type(e).__name__}: {e}"


class Ours:
    def __init__(self, tool):
        self.process = subprocess.Popen([tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, variables):
        line = json.dumps({"template": template, "vars": variables, "now": NOW}) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"FAIL tool ended (status {self.process.wait()}) on: {line[:4000]}")
        answer = json.loads(answer)
        return answer.get("out"), answer.get("error")


# What one of the two can do and the other refuses on purpose; and the slice of a literal that has none, which Jinja folds to nothing.
UNSUPPORTED = re.compile(r"not supported|cannot be sliced|128 bits|nested too deeply|nested more than|calls nested|more than \d+ steps|more than \d+ MiB")
ADDRESS = re.compile(r"0x[0-9a-f]{8}|<(bound|built-in) method|<function|<generator object|_iterator object|object>|"
                     r"<class |reverseiterator|<jinja2|<__main__|_reversed object|callable_iterator|"
                     # the same, taken apart into characters and printed as a list
                     r"a\\*', \\*'t\\*', \\*' \\*', \\*'0\\*', \\*'x")


class Compare:
    def __init__(self, ours):
        self.ours = ours
        self.failures = 0
        self.total = 0
        self.rendered = 0
        self.unsupported = {}

    def one(self, template, variables):
        """None when equal, else what differs."""
        expected = theirs(template, variables)
        if expected is None:
            return None
        out, error = self.ours.render(template, variables)
        self.total += 1
        if expected[0] is not None and error is None:
            self.rendered += 1
            if expected[0] == out or ADDRESS.search(expected[0]):
                return None
            at = next((i for i, (a, b) in enumerate(zip(expected[0], out)) if a != b), min(len(expected[0]), len(out)))
            return (f"differs at {at}: expected ...{expected[0][max(0, at - 40):at + 60]!r}, "
                    f"got ...{out[max(0, at - 40):at + 60]!r}")
        if expected[0] is None and error is not None:
            return None
        if "unhashable type" in (expected[1] or ""):
            return None  # a dict literal is refused when compiled, reached or not
        if error is not None and UNSUPPORTED.search(error):
            self.unsupported[error] = self.unsupported.get(error, 0) + 1
            return None
        return f"expected {expected[1] or repr(expected[0][:200])}, got {error or repr(out[:200])}"

    def many(self, name, cases, show):
        n = 0
        seen = []
        for template, variables in cases:
            difference = self.one(template, variables)
            n += 1
            if difference:
                seen.append((difference, template, variables))
        if not seen:
            print(f"ok {name} ({n})", flush=True)
            return
        self.failures += 1
        difference, template, variables = min(seen, key=lambda x: len(json.dumps(x[2])) + len(x[1]))
        print(f"FAIL {name}: {len(seen)} of {n}: {difference}", flush=True)
        if show:
            print("  template:", template[:2000])
            print("  vars:", json.dumps(variables, ensure_ascii=False)[:2000])


# ---- conversations ----

TEXTS = ["Hello", "", " leading and trailing \n", "multi\nline\n\ntext", "日本語 ünïcödé 😀", "<|im_end|> {{ x }} {% y %}", "a < b & 'c' \"d\"",
         "<think>\nhidden\n</think>\n\nshown", "x" * 300, "tab\there", "\\n \\ /", "1", "null", "[TOOL_CALLS] [{}]", "e\u0301 \u200b\u2028z",
         "<tool_response>\n5\n</tool_response>", "no</think>yes", "\x7f\x01"]
SCHEMAS = [
    {"type": "object", "properties": {"city": {"type": "string", "description": "The \"city\" & more"},
                                      "unit": {"type": "string", "enum": ["C", "F"]}}, "required": ["city"]},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"n": {"type": ["integer", "null"], "minimum": 0, "maximum": 18446744073709551615, "default": 1.5},
                                      "list": {"type": "array", "items": {"type": "object", "properties": {"é": {"type": "number"}}}},
                                      "any": {"anyOf": [{"type": "string"}, {"type": "boolean"}]}}},
    {"type": "object", "properties": {"a": {"type": "boolean", "nullable": True, "default": None, "description": "d\nd"}},
     "required": [], "$defs": {"x": {"type": "string"}}},
]


def random_tools(rng):
    tools = []
    for i in range(rng.choice([1, 1, 2, 3])):
        function = {"name": rng.choice(["get_weather", "f", "search-web", "añadir"]) + (str(i) if i else ""),
                    "description": rng.choice(["Get the weather.", "", "Multi\nline \"quoted\""]), "parameters": rng.choice(SCHEMAS)}
        if rng.random() < 0.2:
            function["return"] = {"type": "string", "description": "what"}
        if rng.random() < 0.15:
            del function["parameters"]
        if rng.random() < 0.1:
            function["strict"] = True
        tools.append(function if rng.random() < 0.1 else {"type": "function", "function": function})
    return tools


def random_value(rng, depth=0):
    k = rng.randrange(9 if depth < 2 else 7)
    return [lambda: rng.choice(TEXTS), lambda: rng.randrange(-5, 1000), lambda: rng.choice([0.5, 1e20, -2.0, 1e-7, 3.14159]),
            lambda: True, lambda: None, lambda: "Paris", lambda: False,
            lambda: [random_value(rng, depth + 1) for _ in range(rng.randrange(3))],
            lambda: {rng.choice(["a", "b", "ç", "x y"]): random_value(rng, depth + 1) for _ in range(rng.randrange(3))}][k]()


def random_content(rng):
    r = rng.random()
    if r < 0.05:
        return None
    if r < 0.2:
        parts = [{"type": "text", "text": rng.choice(TEXTS)} for _ in range(rng.randrange(3))]
        if rng.random() < 0.2:
            parts.append({"type": rng.choice(["image", "audio", "video"])})
        return parts
    return rng.choice(TEXTS)


def random_messages(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": rng.choice(["system", "system", "system", "developer"]), "content": random_content(rng)})
    for _ in range(rng.randrange(4)):
        messages.append({"role": "user", "content": random_content(rng)})
        answer = {"role": "assistant", "content": random_content(rng)}
        if rng.random() < 0.3:
            thoughts = rng.choice(TEXTS)
            answer.update({"reasoning_content": thoughts, "thinking": thoughts})
        if rng.random() < 0.35:
            calls = []
            for i in range(rng.choice([1, 1, 2])):
                arguments = {rng.choice(["city", "n", "é"]): random_value(rng) for _ in range(rng.randrange(3))}
                if rng.random() < 0.4:
                    arguments = json.dumps(arguments)
                call = {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}
                if rng.random() < 0.8:
                    call["id"] = rng.choice(["abcdefghi", "call_1", "000000001"])
                calls.append(call if rng.random() < 0.9 else call["function"])
            answer["tool_calls"] = calls
            if rng.random() < 0.6:
                answer.pop("content")
            messages.append(answer)
            for call in calls:
                tool = {"role": "tool", "content": random_content(rng)}
                if rng.random() < 0.5:
                    tool["tool_call_id"] = call.get("id", "abcdefghi")
                    tool["name"] = "get_weather"
                messages.append(tool)
            if rng.random() < 0.7:
                messages.append({"role": "assistant", "content": random_content(rng)})
        else:
            messages.append(answer)
    if rng.random() < 0.7:
        messages.append({"role": "user", "content": random_content(rng)})
    if rng.random() < 0.05:
        messages.insert(rng.randrange(len(messages) + 1), {"role": rng.choice(["assistant", "tool", "weird", "system"]), "content": "x"})
    # transformers drops what is null before the template sees it; a template still may be given it by others.
    if rng.random() < 0.8:
        messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
    return messages


def random_variables(rng, tokens):
    variables = {"messages": random_messages(rng), "tools": random_tools(rng) if rng.random() < 0.4 else None, "documents": None,
                 "add_generation_prompt": rng.random() < 0.6, **tokens}
    for name, values in (("enable_thinking", [True, False]), ("reasoning_effort", ["low", "high"]), ("thinking", [True, False]),
                         ("xml_tools", [["a"]]), ("date_string", ["26 Jul 2024"]), ("builtin_tools", [["python"]]),
                         ("model_identity", ["You are."]), ("tools_in_user_message", [True, False]), ("continue_final_message", [True])):
        if rng.random() < 0.25:
            variables[name] = rng.choice(values)
    if rng.random() < 0.1:
        variables["documents"] = [{"title": "T", "text": "body"}, {"title": "Ü", "text": "two\nlines"}]
    return variables


# ---- random expressions ----

NAMES = ["s", "t", "u", "n", "m", "f", "l", "d", "e", "b", "z", "ld", "nothing"]
VARIABLES = {"s": "Hello World", "t": "  ünï 日本 ß\n", "u": "a,b,,c", "n": 7, "m": -3, "f": 2.5, "l": [3, 1, 2], "d": {"a": 1, "b": "x", "C": None},
             "e": [], "b": True, "z": None,
             "ld": [{"k": "b", "v": 2, "w": {"x": 1}}, {"k": "A", "v": 1}, {"k": "c", "v": 2, "w": None}]}
FILTERS = ["abs", "capitalize", "center(12)", "count", "d('q')", "default('q', true)", "dictsort", "dictsort(by='value')", "e", "escape",
           "filesizeformat", "first", "float", "float(1)", "forceescape", "groupby('k')", "groupby('v')", "indent", "indent(2, true)",
           "indent(width='>', blank=true)", "int", "int(5)", "int(base=16)", "items|list", "join", "join('-')", "join(', ', attribute='k')", "last",
           "length", "list", "lower", "map('upper')|list", "map(attribute='k')|list", "map(attribute='w.x', default=0)|list", "max", "min",
           "max(attribute='v')", "reject('odd')|list", "rejectattr('w')|list", "rejectattr('k', 'eq', 'c')|list", "replace('l', 'LL')",
           "replace('', '.')", "replace('l', '1', 1)", "reverse", "reverse|list", "round", "round(1)", "round(-1)", "round(1, 'ceil')",
           "round(method='floor')", "safe", "select|list", "select('string')|list", "select('gt', 1)|list", "selectattr('v', 'eq', 2)|list",
           "selectattr('w')|list", "slice(2)|list", "slice(2, 'f')|list", "sort", "sort(reverse=true)", "sort(attribute='v,k')",
           "sort(case_sensitive=true)", "string", "striptags", "sum", "sum(attribute='v')", "sum(start=10)", "title", "tojson", "tojson(indent=2)",
           "tojson(separators=(',', ':'))", "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "trim", "trim('Hd')", "truncate(8)",
           "truncate(5, true)", "truncate(9, false, '!')", "truncate(9, leeway=0)", "unique|list", "unique(attribute='v')|list", "upper",
           "urlencode", "wordcount", "wordwrap(5)", "wordwrap(8, false)", "xmlattr", "batch(2)|list", "batch(2, 0)|list", "attr('upper')", "attr('k')",
           "format(1)", "format(a=2)", "map('int')|list", "map('default', 'x')|list", "map('first')|list"]
TESTS = ["boolean", "callable", "defined", "divisibleby(2)", "divisibleby 3", "eq(7)", "== 7", "ne 7", "lt 5", "lessthan(5)", "le(7)", "gt 2",
         "greaterthan 2", "ge(7)", "even", "odd", "false", "true", "float", "in [1, 7, 's']", "in 'Hello World'", "integer", "iterable", "lower",
         "mapping", "none", "number", "sameas(none)", "sameas true", "sequence", "string", "undefined", "upper", "escaped", "filter", "test"]
METHODS = ["split()", "split(',')", "split('l', 1)", "rsplit(',', 1)", "rsplit(None, 1)", "strip()", "lstrip('H')", "rstrip()", "startswith('H')",
           "endswith(('d', 'x'))", "upper()", "lower()", "title()", "capitalize()", "swapcase()", "replace('l', '')", "replace('o', '0', 1)", "find('o')",
           "rfind('o')", "find('o', 5)", "index('o')", "count('l')", "join(['a', 'b'])", "join(l)", "splitlines()", "splitlines(true)", "isdigit()",
           "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "removeprefix('He')", "removesuffix('ld')", "zfill(12)",
           "ljust(14, '.')", "rjust(14)", "center(15, '*')", "partition(' ')", "rpartition('o')", "format(1, 2)", "items()", "keys()", "values()",
           "items()|list", "keys()|list", "values()|list", "get('a')", "get('zz', 3)", "get('zz')", "copy()", "index(1)", "count(1)", "append(1)", "pop()", "update({})",
           "k", "a", "b", "C", "zz", "real", "is_integer()", "expandtabs()", "startswith('l', 2)", "isascii()", "isdecimal()", "format(x=1)"]
LITERALS = ["0", "1", "-1", "2", "10", "0x1f", "1_000", "3.0", "0.1", "1e3", "'a'", "'é😀'", "\"q'q\"", "'it\\'s'", "'\\n\\t'", "''", "'%s-%s'", "'%d'", "'%05.1f|%-4s|'",
            "'{}'", "'{:>5}'", "'{0!r}:{1}'", "'{x:,}'", "true", "false", "none", "[]", "{}", "()", "(1,)", "(1, 'a')", "[1, 2.0, 'x', none]",
            "{'a': 1, 2: [3]}", "range(5)", "range(1, 10, 3)", "range(3, 0, -1)", "'<b>&'|safe", "namespace(a=1)", "dict(a=1)", "'x' 'y'",
            "100000000000000000000", "1e16", "1e-5", "'12'", "' 3.7 '", "'0x1F'"]
SUBSCRIPTS = ["[0]", "[-1]", "[9]", "['a']", "['k']", "[1:]", "[:2]", "[:-1]", "[::-1]", "[::2]", "[1:3]", "[-2:]", "[none:1]", "[:n]", "[true]", "['upper']",
              ".0", "[5:1:-2]", "[n]", "[s]", "[0].k", "[1]['w']['x']"]


def random_expression(rng, depth=0):
    def sub():
        return random_expression(rng, depth + 1)

    r = rng.random()
    if depth > 3 or r < 0.16:
        return rng.choice(NAMES) if rng.random() < 0.6 else rng.choice(LITERALS)
    if r < 0.36:
        return f"{sub()} | {rng.choice(FILTERS)}"
    if r < 0.44:
        return f"({sub()}).{rng.choice(METHODS)}"
    if r < 0.52:
        return f"({sub()}){rng.choice(SUBSCRIPTS)}"
    if r < 0.64:
        return f"({sub()} {rng.choice(['+', '-', '*', '/', '//', '%', '~', '+', '~'])} {sub()})"
    if r < 0.66:
        return f"({sub()} ** {rng.choice(['2', '3', '0', '-1', '0.5', 's', 'b'])})"  # Python would try any power
    if r < 0.76:
        return f"({sub()} {rng.choice(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in', '== 1 ==', '< 5 <='])} {sub()})"
    if r < 0.82:
        return f"({sub()} {rng.choice(['and', 'or'])} {sub()})"
    if r < 0.86:
        return f"({sub()} is {rng.choice(['', 'not '])}{rng.choice(TESTS)})"
    if r < 0.89:
        return f"({rng.choice(['not', '-', '+'])} {sub()})"
    if r < 0.93:
        return f"({sub()} if {sub()} else {sub()})" if rng.random() < 0.8 else f"({sub()} if {sub()})"
    if r < 0.96:
        return f"[{sub()}, {sub()}]"
    return f"{{{rng.choice(LITERALS)}: {sub()}, 'k': {sub()}}}"


def random_statements(rng, depth=0):
    """A template of statements: scopes, loops, macros, white space control."""
    out = []
    names = ["x", "y", "loop_", "s", "n"]

    def ws(rng):
        return rng.choice(["", "", "", " ", "\n", "\n  ", "  \n", "text ", "\t\n"])

    def tag(body):
        return "{%" + rng.choice(["", "", "", "-", "+"]) + f" {body} " + rng.choice(["", "", "", "-", "+"]) + "%}"

    def body():
        return random_statements(rng, depth + 1)

    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(names)
        kind = rng.randrange(14 if depth < 3 else 5)
        out.append(ws(rng))
        if kind == 0:
            out.append(tag(f"set {name} = {random_expression(rng, 2)}"))
        elif kind in (1, 2):
            out.append("{{" + rng.choice(["", "-", "+"]) + f" {rng.choice([name, name, random_expression(rng, 2)])} " + rng.choice(["", "-"]) + "}}")
        elif kind == 3:
            out.append("{#" + rng.choice(["", "-", "+"]) + " note " + rng.choice(["", "-", "+"]) + "#}")
        elif kind == 4:
            out.append(tag(f"set ns.v = ns.v ~ {name}"))
        elif kind in (5, 6):
            out.append(tag(f"if {rng.choice([name, random_expression(rng, 2)])}") + body())
            if rng.random() < 0.3:
                out.append(tag(f"elif {name} is defined") + body())
            if rng.random() < 0.4:
                out.append(tag("else") + body())
            out.append(tag("endif"))
        elif kind in (7, 8):
            loop = rng.choice(["", "", f" if {name}", " recursive"])
            out.append(tag(f"for {rng.choice([name, 'x', 'x, y'])} in {rng.choice(['range(3)', 'l', 'd.items()', 'ld', 's', 'e', 'x', '[(1, 2), (3, 4)]'])}{loop}"))
            if rng.random() < 0.5:
                out.append("{{ " + rng.choice(["loop.index", "loop.last", "loop.length", "loop.previtem", "loop.nextitem", "loop.revindex0", "loop.depth",
                                                "loop.cycle('a', 'b')", "loop.changed(x)", "loop"]) + " }}")
            out.append(body())
            if rng.random() < 0.2:
                out.append(tag(f"if {name} == 1") + tag(rng.choice(["break", "continue"])) + tag("endif"))
            if rng.random() < 0.3:
                out.append(tag("else") + body())
            out.append(tag("endfor"))
        elif kind == 9:
            out.append(tag(f"set {name}{rng.choice(['', ' | upper', ' | trim | length'])}") + body() + tag("endset"))
        elif kind == 10:
            macro = rng.choice(["ma", "mb"])
            out.append(tag(f"macro {macro}({rng.choice(['', 'x', 'x, y=5', 'x=n, y=x'])})") + body())
            out.append("{{ " + rng.choice(["varargs", "kwargs", "caller()" if rng.random() < 0.5 else "x", "x"]) + " }}" + tag("endmacro"))
            out.append("{{ " + macro + rng.choice(["()", "(1)", "(1, 2)", "(x=3)", "(1, y=4)", "(1, 2, 3)", "(q=1)"]) + " }}")
        elif kind == 11:
            out.append(tag(f"with {name} = {random_expression(rng, 2)}") + body() + tag("endwith"))
        elif kind == 12:
            out.append(tag("filter " + rng.choice(["upper", "trim", "replace('e', 'E')", "indent(2)"])) + body() + tag("endfilter"))
        else:
            out.append(tag(rng.choice(["generation", "raw"])))
            raw = "raw" in out[-1]
            out.append((ws(rng) + "{{ x }}" if raw else body()) + tag("endraw" if raw else "endgeneration"))
    out.append(ws(rng))
    return "".join(out)


# ---- formats, wrapping, letters ----

SPECS = ["%5d", "%-5d|", "%05d", "%+d", "% d", "%x", "%#x", "%o", "%e", "%.3e", "%g", "%G", "%.0f", "%5.1f", "%05.1f", "%s", "%r", "%.2s", "%10s", "%c",
         "%%", "%i", "%(a)s", "%*d", "%#.3g", "%+.2e"]
FIELDS = ["{}", "{0}", "{:5}", "{:<5}|", "{:>5}", "{:^7}", "{:*^7}", "{:05}", "{:+}", "{: }", "{:,}", "{:_}", "{:x}", "{:#x}", "{:b}", "{:#b}", "{:o}",
          "{:e}", "{:.2f}", "{:10.3f}", "{:g}", "{:.3}", "{:.1%}", "{!r}", "{!s:>6}", "{:c}", "{:s}", "{:d}", "{:=+8}", "{:08.2f}", "{:,.2f}", "{:n}",
          "{{}}", "{0[0]}", "{0.a}", "{a}", "{:{w}}", "{} {}", "{1}", "{:x^+10.2f}", "{:#.3g}", "{:012,}", "{:-}", "{:.0f}", "{:#X}"]
NUMBERS = [0, 1, -7, 12345678901234567890, 0.0, -0.0, 1.5, -2.25, 1e300, 1e-300, 123456.789, "abc", "é", True, None, [1], {"a": 1}]
WORDS = ["a", "well-known", "--", "em--dash", "x-y-z", "foo-", "-bar", "semi;colon", "longlonglonglongword", "it's", "3-4", "ab-cd-ef", "日本語", "é-è",
         "(par-en)", "e.g.", "--option", "", "\t", "a--b"]
LETTERS = ["ǆungla Ǆ ǅ", "straße ﬁ", "ΑΣ ΣΑΣ. Σ", "İstanbul ı", "ⅷ Ⅷ ⓐ", "ª º ²³¹", "\u200b\u00ad\u0301x", "K Å", "ŉ ǰ", "\x1c\x1d\x85\u2028a", "ᾳ ᾼ",
           "Ångström-fuß", "a\tb\tc", "ÿ Ÿ ß ẞ", "ꭰ Ꭰ", "o'neill o’neill", "日本 語", "😀 é"]
CASES = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "isupper()", "islower()", "istitle()", "isalpha()", "isalnum()", "isdigit()",
         "isdecimal()", "isspace()", "isprintable()", "split()", "splitlines()", "strip()", "expandtabs(4)", "isascii()"]


def random_format(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return f"{{{{ '{rng.choice(SPECS)}' % {rng.choice(['v', '(v,)', '(v, 2)'])} }}}}", {"v": rng.choice(NUMBERS)}
    if kind == 1:
        return f"{{{{ '{rng.choice(FIELDS)}'.format(v, 3, a=1, w=7) }}}}", {"v": rng.choice(NUMBERS)}
    if kind == 2:
        text = "".join(rng.choice(WORDS) + rng.choice([" ", "  ", "\n", " ", "-"]) for _ in range(rng.randrange(1, 9)))
        flags = [rng.choice(["true", "false"]) for _ in range(2)]
        return f"{{{{ s | wordwrap({rng.randrange(1, 16)}, {flags[0]}, none, {flags[1]}) }}}}", {"s": text}
    if kind == 3:
        return ("{{ v }} {{ v | round(2) }} {{ v | round(-1) }} {{ v | tojson }} {{ v | int(-1) }} {{ (v / 3) | round }} {{ v // 7 }} {{ v % 3.3 }}",
                {"v": rng.choice([rng.uniform(-10, 10), rng.uniform(-1e6, 1e6), 10 ** rng.uniform(-20, 25), rng.randrange(-10**6, 10**6) / 8])})
    return f"{{{{ [s.{rng.choice(CASES)}, s | title, s | wordcount, s[::-1], s] }}}}", {"s": rng.choice(LETTERS)}


# ---- where templates come from ----


def templates_of_config(name, config):
    template = config.get("chat_template")
    tokens = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            tokens[key] = value
    if isinstance(template, str):
        yield name, template, tokens
    elif isinstance(template, list):
        for item in template:
            yield f"{name}:{item['name']}", item["template"], tokens


def gguf_template(path):
    """tokenizer.chat_template of a GGUF file."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    with open(path, "rb") as f:
        def u(fmt):
            return struct.unpack("<" + fmt, f.read(struct.calcsize(fmt)))[0]

        def text():
            return f.read(u("Q")).decode(errors="replace")

        def skip(kind):
            if kind == 8:
                f.seek(u("Q"), 1)
            elif kind == 9:
                inner, n = u("I"), u("Q")
                if inner == 8:
                    for _ in range(n):
                        f.seek(u("Q"), 1)
                else:
                    f.seek(sizes[inner] * n, 1)
            else:
                f.seek(sizes[kind], 1)

        if f.read(4) != b"GGUF":
            return None
        u("I"), u("Q")
        for _ in range(u("Q")):
            key, kind = text(), u("I")
            if key == "tokenizer.chat_template" and kind == 8:
                return text()
            skip(kind)
    return None


def find_templates(paths):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for path in paths:
        name = os.path.basename(path)
        if os.path.isdir(path):
            yield from find_templates(sorted(os.path.join(path, n) for n in os.listdir(path)
                                             if n.endswith((".jinja", ".gguf")) or n == "tokenizer_config.json"))
        elif path.endswith(".jinja"):
            with open(path, encoding="utf-8", newline="") as f:
                yield name, f.read(), tokens
        elif path.endswith(".json"):
            with open(path, encoding="utf-8") as f:
                yield from templates_of_config(name, json.load(f))
        elif path.endswith(".gguf"):
            template = gguf_template(path)
            if template:
                yield name, template, tokens
        elif path.endswith(".tar.zst"):
            with tempfile.TemporaryDirectory() as tmp:
                if subprocess.run(["tar", "--zstd", "-xf", path, "-C", tmp, "--wildcards", "*/tokenizer_config.json"]).returncode:
                    print(f"skip {name}: cannot be unpacked")
                    continue
                for folder in os.listdir(tmp):
                    with open(os.path.join(tmp, folder, "tokenizer_config.json"), encoding="utf-8") as f:
                        yield from templates_of_config(folder, json.load(f))


def write_cases(path):
    rng = random.Random(1)
    with open(path, "w", encoding="utf-8") as f:
        def add(template, variables):
            result = theirs(template, variables)
            if result is None or (result[0] is not None and ADDRESS.search(result[0])) or re.search(r"\)\[[^\]]*:", template):
                return  # no answer, no fixed answer, or perhaps a folded slice of a literal
            case = {"template": template}
            if variables is not VARIABLES:
                case["vars"] = variables
            case.update({"out": result[0]} if result[0] is not None else {"error": result[1]})
            f.write(json.dumps(case, ensure_ascii=False) + "\n")

        f.write(json.dumps({"vars": VARIABLES}, ensure_ascii=False) + "\n")  # of the cases that have none of their own
        for _, template, tokens in find_templates([os.path.join(ROOT, "tests/text/templates")]):
            add(template, {**VARIABLES, "messages": random_messages(rng), **tokens})
            add(template, {**VARIABLES, **random_variables(rng, tokens)})
        for name in FILTERS:
            for value in ("s", "t", "n", "f", "l", "ld", "d", "nothing"):
                add("{{ " + value + " | " + name + " }}", VARIABLES)
        for name in METHODS:
            for value in ("s", "t", "u", "l", "d", "f"):
                add("{{ " + value + "." + name + " }}", VARIABLES)
        for name in TESTS:
            for value in ("s", "n", "f", "l", "d", "z", "b", "nothing"):
                add("{{ " + value + " is " + name + " }}", VARIABLES)
        for name in SUBSCRIPTS:
            for value in ("s", "t", "l", "d", "ld"):
                add("{{ " + value + name + " }}", VARIABLES)
        for _ in range(250):
            add("{{ " + random_expression(rng) + " }}", VARIABLES)
        for _ in range(400):
            add(*random_format(rng))
        for _ in range(250):
            add("{% set ns = namespace(v='') %}" + random_statements(rng) + "{{ ns.v }}", VARIABLES)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("paths", nargs="*", help=".jinja, tokenizer_config.json, .gguf files or directories of them")
    p.add_argument("--tool", default=os.path.join(ROOT, "build/release/tests/tool_template"), help="our driver")
    p.add_argument("--count", type=int, default=100, help="conversations per template; random expressions are 20 times as many")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--show", action="store_true", help="print the smallest failing input")
    p.add_argument("--write-cases", action="store_true", help="remake tests/text/template_cases.jsonl and stop")
    args = p.parse_args()

    if args.write_cases:
        write_cases(os.path.join(ROOT, "tests/text/template_cases.jsonl"))
        return 0
    if not os.path.exists(args.tool):
        print(f"skip diff-template: {args.tool} is not built")
        return 0
    print(f"# seed {args.seed}, Jinja2 {jinja2.__version__}")
    compare = Compare(Ours(args.tool))
    rng = random.Random(args.seed)
    shared = os.path.join(ROOT, "..", "shared", "data", "tokenizers")
    paths = [os.path.join(ROOT, "tests/text/templates")]
    if os.path.isdir(shared):
        paths += sorted(os.path.join(shared, n) for n in os.listdir(shared) if n.endswith(".tar.zst"))
    else:
        print("skip shared tokenizers: not here")
    for name, template, tokens in find_templates(paths + args.paths):
        own = name.endswith(".jinja") and os.path.exists(os.path.join(ROOT, "tests/text/templates", name))
        more = VARIABLES if own else {}
        compare.many(name, ((template, {**more, **random_variables(rng, tokens)}) for _ in range(args.count)), args.show)
    compare.many("expressions", (("{{ " + random_expression(rng) + " }}", VARIABLES) for _ in range(args.count * 20)), args.show)
    compare.many("statements", (("{% set ns = namespace(v='') %}" + random_statements(rng) + "{{ ns.v }}", VARIABLES)
                                for _ in range(args.count * 10)), args.show)
    compare.many("formats", (random_format(rng) for _ in range(args.count * 20)), args.show)
    for error, n in sorted(compare.unsupported.items(), key=lambda x: -x[1])[:10]:
        print(f"# refused here, not by Jinja2, {n} times: {error}")
    print(f"# {compare.total} compared ({compare.rendered} texts, the rest refused by both), {compare.failures} of the groups differ")
    return 1 if compare.failures else 0


if __name__ == "__main__":
    sys.exit(main())
