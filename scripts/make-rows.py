#!/usr/bin/env python3
"""Synthetic rows for tests of size and speed: make-rows.py N [--bytes 1000] [--seed 1] [--max-tokens T] [--groups G] > rows.jsonl

N chat rows in the batch format of about --bytes bytes each, of English-like words; --groups system prompts are shared by many rows. The same
arguments give the same bytes. Standard library only; some 200,000 rows a second."""
import argparse
import json
import random
import sys

WORDS = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she
there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two
may first then do any like my now over such our man me even most made after also did many off before must well back through years much where your way
down should because long each just state those people too mister how little good world make very year still see own work men day get here between life
being under three never know same last another while us great might come since against go came right used take house use during without again place
around however home small found thought went say part once general high upon school every don't does got united left number course war until always
away something fact water though less public put think almost hand enough took head yet far system better set told nothing night end why called didn't
eyes find going look asked later knew point next program city business give group toward young days let room word things want face second""".split()
STEP = 997  # a prime: texts begin anywhere in the corpus


def main():
    p = argparse.ArgumentParser()
    p.add_argument("n", type=int)
    p.add_argument("--bytes", type=int, default=1000, help="of a row, about")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--max-tokens", type=int, default=0, help="of every row (default: left open)")
    p.add_argument("--groups", type=int, default=10, help="system prompts")
    a = p.parse_args()
    r = random.Random(a.seed)
    # Slices of one long text: drawing each word of each row would take minutes for a million rows.
    corpus = " ".join(r.choice(WORDS) + r.choice(["", "", "", "", "", "", "", ",", ".", f" {r.randrange(1000)}"]) for _ in range(200000))
    systems = [json.dumps(f"You are helper {g}. " + corpus[g * STEP:g * STEP + max(10, a.bytes // 5)]) for g in range(max(1, a.groups))]
    tail = f'],"max_tokens":{a.max_tokens}}}}}\n' if a.max_tokens else "]}}\n"
    frame = len('{"custom_id":"row-0000000","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"system","content":},'
                '{"role":"user","content":""}') + len(tail)
    out = []
    for i in range(a.n):
        system = systems[r.randrange(len(systems))]
        want = max(8, a.bytes - frame - len(system) - 20)
        want = want * 3 // 4 + r.randrange(want // 2 + 1)
        at = r.randrange(len(corpus) - want)
        out.append(f'{{"custom_id":"row-{i:07}","method":"POST","url":"/v1/chat/completions","body":{{"messages":[{{"role":"system","content":{system}}},'
                   f'{{"role":"user","content":"Question {i}: {corpus[at:at + want]}"}}{tail}')
        if len(out) == 1000:
            sys.stdout.write("".join(out))
            out = []
    sys.stdout.write("".join(out))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(1)
