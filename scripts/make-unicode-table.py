#!/usr/bin/env python3
"""Write engine/text/unicode_table.c: what the tokenizers package takes every code point for.

Its answers come from several libraries with Unicode tables of different age (Oniguruma, Rust's standard library, the regex,
unicode_categories and unicode-normalization-alignments crates), so they are asked for, code point by code point, not taken from
the Unicode database. unicodedata2 only says which characters could matter to normalisation.

    pip install tokenizers==0.23.3 unicodedata2 && scripts/make-unicode-table.py > engine/text/unicode_table.c
"""
import sys

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn Cs".split()
CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALL = "".join(map(chr, CODES))
CN = CATEGORIES.index("Cn")


def removed_by(pre):
    hit = bytearray(b"\1") * len(ALL)
    for _, (a, b) in pre.pre_tokenize_str(ALL):
        hit[a:b] = bytes(b - a)
    return hit


def matched_by(regex):
    return removed_by(pre_tokenizers.Split(Regex(regex), "removed"))


category = [CN] * len(ALL)
for i, name in enumerate(CATEGORIES):
    if name != "Cs":
        for j, hit in enumerate(matched_by(r"\p{%s}" % name)):
            if hit:
                category[j] = i
space = matched_by(r"\s")
assert space == removed_by(pre_tokenizers.WhitespaceSplit())
word = matched_by(r"[\w]")  # outside of a class it also takes superscripts and fractions below U+0100
punctuation = removed_by(pre_tokenizers.Punctuation("removed"))
digits = pre_tokenizers.Digits(individual_digits=False)
white = pre_tokenizers.Whitespace()
numeric = [len(digits.pre_tokenize_str("a" + c)) == 2 for c in ALL]
rust_word = [len(p := white.pre_tokenize_str("a" + c)) == 1 and p[0][1][1] == 2 for c in ALL]

forms = {f: getattr(normalizers, f)() for f in ("NFC", "NFD", "NFKC", "NFKD")}
nfd = forms["NFD"].normalize_str


def reordered(c):
    """Is its combining class other than 0, for the package? Classes run from 1 (U+0334) to 240 (U+0345)."""
    return nfd("a" + c + "\u0334") != "a" + c + "\u0334" or nfd("a\u0345" + c) != "a\u0345" + c


# A code point is inert when the Unicode database of today decomposes or reorders it and the package does not.
inert = []
seconds = set()
marks = set()
for c, ch in zip(CODES, ALL):
    differs = any(n.normalize_str(ch) != unicodedata2.normalize(f, ch) for f, n in forms.items())
    if unicodedata2.normalize("NFD", ch) == ch and unicodedata2.combining(ch):
        if reordered(ch):
            marks.add(c)
        else:
            differs = True
    if differs:
        inert.append(c)
for c, ch in zip(CODES, ALL):
    parts = unicodedata2.decomposition(ch).split()
    if len(parts) == 2 and not parts[0].startswith("<") and c not in inert:
        seconds.add(int(parts[1], 16))
seconds.update(range(0x1161, 0x1176), range(0x11A8, 0x11C3))
nfc = forms["NFC"].normalize_str
safe = [c not in marks and c not in seconds and nfc(ch) == ch for c, ch in zip(CODES, ALL)]

entries = []
last = None
surrogate = CATEGORIES.index("Cs") | 1 << 9
for i, c in enumerate(CODES):
    bits = category[i] | bool(space[i]) << 5 | bool(word[i]) << 6 | numeric[i] << 7 | bool(punctuation[i]) << 8
    bits |= safe[i] << 9 | rust_word[i] << 10
    if c == 0xE000:
        entries.append(0xD800 << 11 | surrogate)
        last = surrogate
    if bits != last:
        entries.append(c << 11 | bits)
        last = bits

runs = []
for c in inert:
    if runs and runs[-1][1] == c - 1:
        runs[-1][1] = c
    else:
        runs.append([c, c])


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        print("\t" + " ".join(items[i : i + per_line]))


print("/* Made by scripts/make-unicode-table.py from the tokenizers package %s; meaning in unicode.h. */" % tokenizers.__version__)
print('#include "engine/text/unicode.h"\n')
print("const uint32_t unicode_runs[] = {")
rows(["0x%08x," % e for e in entries], 10)
print("};\nconst size_t unicode_n_runs = sizeof(unicode_runs) / sizeof(unicode_runs[0]);\n")
print("const uint32_t unicode_inert[][2] = {")
rows(["{0x%x, 0x%x}," % (a, b) for a, b in runs], 6)
print("};\nconst size_t unicode_n_inert = sizeof(unicode_inert) / sizeof(unicode_inert[0]);")
print("%d runs, %d inert" % (len(entries), len(runs)), file=sys.stderr)
