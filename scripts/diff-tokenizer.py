#!/usr/bin/env python3
"""Differential test of the tokenizer against the PyPI package tokenizers: same ids, same decoded text, for generated strings.

    scripts/diff-tokenizer.py [--count N] [--seed N] [--shared DIR] [--tool PATH] [TOKENIZER.json | MODEL.gguf ...]

Without files: the tokenizers of --shared (default ../shared/data/tokenizers). For a GGUF file an equivalent tokenizer is built from its
vocabulary. N strings in all (default 120000), shared out over the tokenizers. Prints `ok NAME (n strings)` or `FAIL NAME: first
differing input`; ends with status 1 after a FAIL. Needs tokenizers, and gguf for GGUF files.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

PROSE = [
    "The quick brown fox doesn't jump over the lazy dog's back; they'll've been I'M HE'S WE'RE can'T, \u2019s 'ſ 'Ll.",
    "Größe, Straße, Überraschung – »Zitat« und „noch eins“. 3.141.592,65 € am 24.11.2026",
    "Привет, мир! Съешь ещё этих мягких французских булок, да выпей чаю. Ёлка № 5",
    "今天天气很好，我们去公园吧。１２３４５ ＡＢＣ（全角）。東京タワーは高い。カタカナとひらがな。ㄅㄆㄇ",
    "안녕하세요 세계! 한국어 텍스트를 토큰화합니다. 각",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣٤٥ هَٰذَا نَصٌّ مُشَكَّل",
    "שלום עולם! בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "नमस्ते दुनिया! क्षत्रिय ज्ञान १२३ हिन्दी में लिखा गया है।",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง ๑๒๓ กำ ก็",
    "Xin chào thế giới! Tiếng Việt có dấu: ắ ằ ẳ ẵ ặ — Tie\u0302\u0301ng Vie\u0323\u0302t",
    "👨‍👩‍👧‍👦 👩🏽‍🚀 🏳️‍🌈 🇩🇪🇯🇵 ❤️ ☺️ 1️⃣ 🤷🏿‍♂️ ✈️ 😀😃😄",
    "Ελληνικά: Ὦ ξεῖν᾽, ἀγγέλλειν Λακεδαιμονίοις ὅτι τῇδε κείμεθα ΣΑΣ",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α∧¬β, ∑₀ⁿ xⁿ/n! ≈ eˣ, ½ + ¼ = ¾, Ⅷ ⅷ ㊷ ㍿ ﷺ ﬁ ﬀ ß ẞ İ ı ſ Å Å K",
    "தமிழ் తెలుగు ಕನ್ನಡ മലയാളം বাংলা ગુજરાતી ਪੰਜਾਬੀ සිංහල ខ្មែរ မြန်မာ ལྷ་ས ᠮᠣᠩᠭᠣᠯ ქართული հայերեն አማርኛ ᏣᎳᎩ",
]
CODE = [
    "int main(void)\n{\n\tfor (size_t i = 0; i < n; i++)\n\t\tprintf(\"%zu\\n\", a[i]);\n}\n\n\n",
    "def f(x, *args, **kw):\n    return {k: v for k, v in kw.items() if k != '__class__'}  # noqa: E501\n\n\n    pass\n",
    "<div class=\"a b\"><table><tr><td>&nbsp;</td></tr></table></div>\r\n<!-- </br> -->\r\n",
    "SELECT * FROM t WHERE a>=10 AND b<>'x''y' -- comment\n;\t\t{\"k\": [1,2.50e-3,null,true]}",
    "https://example.org/a/b?c=d&e=%20f#g user@example.com C:\\Users\\x\\..\\y.txt $HOME/.config/*.{a,b}",
    "#include <stdio.h>\n#define X(a,b) ((a)<<(b))|0xFFu\n/* ==== */ //----//~~~~\n@decorator\nlet x = () => `a${b}`;",
]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\r", "\u00a0", "\u3000", "\u2028", "\u0085", "\x0b", "\x0c", "\u200b"]
MARKS = "\u0300\u0301\u0302\u0303\u0308\u030a\u0323\u0327\u0328\u0334\u0345\u05b0\u05bc\u064b\u0651\u093c\u094d\u0e38\u0f71\u0f72\u1dc0\u20d0\u302a\u3099\ufe20\U0001d165\U0001d16e\U00011938"
WORDS = "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Re 'vE 'M 'LL 'lL 'D '\u017f ' '' a A aB Ab ABc abC I i 1 12 123 1234 12345 x1 1x _ - -- / // . ... !? <".split()


def real_text():
    """The Python library: code, and the prose of its help topics."""
    texts = []
    for module in ("argparse", "textwrap", "pydoc_data.topics", "json.decoder", "html.entities", "calendar", "difflib"):
        try:
            mod = __import__(module, fromlist=["x"])
            with open(mod.__file__, encoding="utf-8") as f:
                texts.append(f.read())
        except (ImportError, OSError):
            pass
    return "\n".join(texts)


class Generator:
    def __init__(self, seed, vocab, added):
        self.r = random.Random(seed)
        self.vocab = vocab
        self.added = added
        self.real = real_text()
        self.kinds = [self.codes, self.planes, self.marks, self.soup, self.broken, self.slice, self.slice, self.runs, self.specials,
                      self.specials, self.mixed, self.mixed, self.words, self.tokens, self.tokens, self.spaces, self.hangul, self.cased]

    def one(self):
        return self.r.choice(self.kinds)()

    def string(self):
        text = self.one()
        while self.r.random() < 0.25:
            text += self.one()
        return text

    def chars(self, codes):
        return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000).encode()

    def codes(self):
        r = self.r
        top = r.choice([0x80, 0x250, 0x600, 0x3000, 0x10000, 0x110000])
        return self.chars(r.randrange(top) for _ in range(r.randrange(1, 40)))

    def planes(self):
        r = self.r
        base = r.choice([0x0, 0x600, 0x900, 0x1000, 0x1AB0, 0x1D00, 0x2000, 0x2E00, 0xA700, 0xFB00, 0x10000, 0x10D00, 0x10E00, 0x11000,
                         0x11300, 0x11F00, 0x16A00, 0x1B000, 0x1D100, 0x1D400, 0x1E000, 0x1E800, 0x1F000, 0x20000, 0x2F800, 0xE0000])
        return self.chars(base + r.randrange(0x300) for _ in range(r.randrange(1, 30)))

    def marks(self):
        r = self.r
        out = ""
        for _ in range(r.randrange(1, 8)):
            out += r.choice("aeiouAEOUsn가각ᄀꦀ漢 \nकआ1'.\u1100\u0b47\u0dd9")
            out += "".join(r.choice(MARKS + "\u1161\u11a8\u0b57\u0dca") for _ in range(r.choice([0, 1, 1, 2, 3, 8])))
        return out.encode()

    def soup(self):
        r = self.r
        return bytes(r.choice([r.randrange(256), r.randrange(0x80, 0xC0), r.randrange(0xC0, 0x100)]) for _ in range(r.randrange(1, 40)))

    def broken(self):
        r = self.r
        text = bytearray(r.choice(PROSE).encode())
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(text))
            if r.random() < 0.5:
                del text[at]
            else:
                text[at] = r.randrange(256)
        return bytes(text[: r.randrange(1, len(text))])

    def slice(self):
        r = self.r
        n = min(len(self.real), int(2 ** r.uniform(2, 10)))
        at = r.randrange(max(1, len(self.real) - n))
        return self.real[at : at + n].encode()

    def runs(self):
        r = self.r
        out = ""
        for _ in range(r.randrange(1, 5)):
            c = r.choice([" ", "\n", "\t", "\r\n", "0", "7", "=", "-", "a", "A", "ab", "!", "'", "/", "#", ".", "\u00e9", "漢", "😀", "_", "* "])
            out += c * int(2 ** r.uniform(0, 8))
        return out.encode()

    def specials(self):
        r = self.r
        out = ""
        for _ in range(r.randrange(1, 6)):
            out += r.choice(["", " ", "  ", "\n", "a", "x ", r.choice(PROSE)[:10]])
            token = r.choice(self.added) if self.added else "<s>"
            if r.random() < 0.2 and token:
                token = token[: r.randrange(len(token))] + token[r.randrange(len(token)) :]
            out += token
        return out.encode()

    def mixed(self):
        r = self.r
        out = ""
        for _ in range(r.randrange(1, 6)):
            s = r.choice(r.choice([PROSE, CODE]))
            a = r.randrange(len(s))
            out += s[a : a + r.randrange(1, 40)]
            out += r.choice(["", "", " ", "\n", "'s", "\t"])
        return out.encode()

    def words(self):
        r = self.r
        return "".join(r.choice(["", "", " "]) + r.choice(WORDS) for _ in range(r.randrange(1, 30))).encode()

    def tokens(self):
        r = self.r
        return b"".join(r.choice(self.vocab) for _ in range(r.randrange(1, 12)))

    def spaces(self):
        r = self.r
        return "".join(r.choice(SPACES) if r.random() < 0.7 else r.choice("ab1.é漢'") for _ in range(r.randrange(1, 30))).encode()

    def hangul(self):
        r = self.r
        return self.chars(r.choice([r.randrange(0x1100, 0x1200), r.randrange(0xAC00, 0xD7A4), r.randrange(0x1160, 0x11C8)])
                          for _ in range(r.randrange(1, 20)))

    def cased(self):
        r = self.r
        return "".join(r.choice("aAbBzZǅʰªº\u0301\u0903漢'sS1 .\u2160ßΣς\U00010400\U00010428\U00010d50\n") for _ in range(r.randrange(1, 25))).encode()


BYTE_CHARS = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
CHAR_BYTE = {chr(b): b for b in BYTE_CHARS}
CHAR_BYTE.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in BYTE_CHARS)})


def token_bytes(token):
    try:
        return bytes(CHAR_BYTE[c] for c in token)
    except KeyError:
        return token.replace("\u2581", " ").encode()


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
# What the model's own tokenizer.json says, for the names of tokenizer.ggml.pre that are tested here.
PRE = {
    "smollm": (None, [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split(Regex(GPT2), "isolated")], False),
    "gpt-2": (None, [pre_tokenizers.Split(Regex(GPT2), "isolated")], False),
    "qwen2": (normalizers.NFC(), [pre_tokenizers.Split(Regex(QWEN2), "isolated")], False),
    "llama-bpe": (None, [pre_tokenizers.Split(Regex(LLAMA3), "isolated")], True),
}


def tokenizer_from_gguf(path):
    import gguf

    reader = gguf.GGUFReader(path)

    def value(key, otherwise=None):
        field = reader.get_field("tokenizer.ggml." + key)
        return otherwise if field is None else field.contents()

    tokens = value("tokens")
    types = value("token_type", [1] * len(tokens))
    vocab = {t: i for i, t in enumerate(tokens)}
    kind = value("model")
    if kind == "gpt2":
        normalizer, steps, ignore = PRE[value("pre")]
        tok = Tokenizer(models.BPE(vocab, [tuple(m.split(" ", 1)) for m in value("merges")], ignore_merges=ignore))
        if normalizer:
            tok.normalizer = normalizer
        tok.pre_tokenizer = pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tok.decoder = decoders.ByteLevel()
    else:
        scores = value("scores")
        merges = []
        for t, i in vocab.items():
            merges += [(-scores[i], i, t[:k], t[k:]) for k in range(1, len(t)) if t[:k] in vocab and t[k:] in vocab]
        merges.sort(key=lambda m: m[:2])
        unk = tokens[value("unknown_token_id", 0)]
        tok = Tokenizer(models.BPE(vocab, [m[2:] for m in merges], unk_token=unk, fuse_unk=True, byte_fallback=True))
        space = value("add_space_prefix", True)
        tok.normalizer = normalizers.Sequence(([normalizers.Prepend("\u2581")] if space else []) + [normalizers.Replace(" ", "\u2581")])
        tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
                                        + ([decoders.Strip(" ", 1, 0)] if space else []))
    for i, (t, k) in enumerate(zip(tokens, types)):
        if k in (2, 3, 4) and t:
            tok.add_tokens([AddedToken(t, normalized=False, special=k != 4)])
    if value("add_bos_token", kind == "llama" or value("pre") == "llama-bpe"):
        bos = value("bos_token_id")
        tok.post_processor = processors.TemplateProcessing(single=[tokens[bos], "$A"], special_tokens=[(tokens[bos], bos)])
    return tok


def run_tool(tool, path, options, texts):
    data = b"".join(struct.pack("=I", len(t)) + t for t in texts)
    done = subprocess.run([tool, path] + options, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, at, results = done.stdout, 0, []
    try:
        for _ in texts:
            (n,) = struct.unpack_from("=I", out, at)
            ids = list(struct.unpack_from("=%di" % n, out, at + 4))
            at += 4 + 4 * n
            decoded = []
            for _ in range(2):
                (n,) = struct.unpack_from("=I", out, at)
                decoded.append(out[at + 4 : at + 4 + n].decode())
                at += 4 + n
            results.append((ids, decoded[0], decoded[1]))
    except struct.error:
        pass
    return results, done.stderr.decode(errors="replace").strip()


def check(tool, path, tok, texts, options):
    """None, or what differs first."""
    results, message = run_tool(tool, path, options, texts)
    for start in range(0, len(texts), 1000):
        part = texts[start : start + 1000]
        encoded = [e.ids for e in tok.encode_batch([t.decode("utf-8", "replace") for t in part], add_special_tokens="special" in options)]
        plain = tok.decode_batch(encoded, skip_special_tokens=False)
        skipped = tok.decode_batch(encoded, skip_special_tokens=True)
        for i, expected in enumerate(zip(encoded, plain, skipped)):
            if start + i >= len(results):
                return "%r: no answer: %s" % (part[i][:200], message)
            if results[start + i] != expected:
                what = ["ids", "decoded text", "decoded text without special tokens"]
                k = next(k for k in range(3) if results[start + i][k] != expected[k])
                got, want = results[start + i][k], expected[k]
                same = next((j for j, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
                lo = max(0, same - 3)
                return "%r: %s from %d on: %r, expected %r %s" % (part[i][:400], what[k], lo, got[lo : lo + 12], want[lo : lo + 12],
                                                                  " ".join(options))
    return None


def unpack(shared, directory):
    names = sorted(n for n in os.listdir(shared) if n.endswith(".tar.zst")) if os.path.isdir(shared) else []
    for name in names:
        subprocess.run(["tar", "--zstd", "-xf", os.path.join(shared, name), "-C", directory], check=True)
        yield os.path.join(directory, name[: -len(".tar.zst")], "tokenizer.json")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    parser.add_argument("--count", type=int, default=120000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shared", default=os.path.join(ROOT, "..", "shared", "data", "tokenizers"))
    parser.add_argument("--tool", default=os.path.join(ROOT, "build", "release", "tests", "tool_tokenize"))
    parser.add_argument("--only-files", action="store_true", help="not the shared tokenizers")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        paths = ([] if args.only_files else list(unpack(args.shared, directory))) + args.files
        if not paths:
            print("skip diff-tokenizer: no tokenizers at hand")
            return 0
        for path in paths:
            name = os.path.basename(os.path.dirname(path)) if path.endswith("tokenizer.json") else os.path.basename(path)
            start = time.time()
            tok = tokenizer_from_gguf(path) if path.endswith(".gguf") else Tokenizer.from_file(path)
            added = [t.content for _, t in sorted(tok.get_added_tokens_decoder().items())]
            make = Generator("%s %s" % (args.seed, name), [token_bytes(t) for t in sorted(tok.get_vocab())], added)
            n = -(-args.count // len(paths))
            texts = [b"", b" ", b"\n", b"\x80", b"a" * 5000, b" " * 5000, b"\n" * 3000, b"=" * 3000, "漢".encode() * 2000, b"1" * 3000]
            texts += [t.encode() for t in PROSE + CODE] + [(" " + t + " x").encode() for t in added[:1000]]
            texts = texts[:n] + [make.string() for _ in range(n - len(texts))]
            fault = check(args.tool, path, tok, texts, [])
            fault = fault or check(args.tool, path, tok, texts[::10], ["special"])
            tok.encode_special_tokens = True
            fault = fault or check(args.tool, path, tok, texts[1::10], ["no-parse"])
            if fault:
                failed = True
                print("FAIL %s: %s" % (name, fault), flush=True)
            else:
                print("ok %s (%d strings, %.0f s)" % (name, len(texts), time.time() - start), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
