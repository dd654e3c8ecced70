"""What the end-to-end tests share: the program, models, datasets, and tests that print "ok NAME", "FAIL NAME" or "skip NAME: reason".

TOKENMILL names the program (build/release/tokenmill), TEST_ROUNDS how often the random tests repeat (2), TEST_SEED what they draw from.
Standard library only.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("TOKENMILL", os.path.join(ROOT, "build/release/tokenmill"))
TINY = os.path.join(ROOT, "tests/engine/goldens/tiny-chat")
SMOLLM2 = os.path.join(ROOT, "build/models/SmolLM2-135M-Instruct.Q4_1.gguf")
ROUNDS = int(os.environ.get("TEST_ROUNDS", "2"))
SEED = int(os.environ.get("TEST_SEED", "1"))

tests = []


class Skip(Exception):
    pass


def test(function):
    tests.append(function)
    return function


def main():
    """Each test in a fresh empty directory. A name on the command line runs that test alone."""
    failed = False
    for function in tests:
        name = function.__name__
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        directory = tempfile.mkdtemp(prefix="tokenmill-e2e-")
        os.environ["TOKENMILL_CACHE"] = f"{directory}-cache"
        os.chdir(directory)
        try:
            function()
            print(f"ok {name}", flush=True)
        except Skip as e:
            print(f"skip {name}: {e}", flush=True)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"FAIL {name}", flush=True)
            failed = True
        os.chdir(ROOT)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(f"{directory}-cache", ignore_errors=True)
    sys.exit(1 if failed else 0)


def models():
    """The tiny random model always, the real one if it was fetched."""
    return [("tiny", TINY)] + ([("smollm2", SMOLLM2)] if os.path.exists(SMOLLM2) else [])


def tokenmill(*args, expect=0, stdin=None, **popen):
    """Run the program; its exit status must be `expect` (None: any, but no crash). Returns stderr as text."""
    r = subprocess.run([PROGRAM, *map(str, args)], stdin=stdin or subprocess.DEVNULL, capture_output=True, timeout=900, **popen)
    log = r.stderr.decode("utf-8", "replace")
    shown = f"tokenmill {' '.join(map(str, args))}: exit status {r.returncode}\n{log[-3000:]}"
    assert r.returncode >= 0 or expect is not None and r.returncode == expect, f"killed by a signal: {shown}"
    assert "Sanitizer" not in log and "runtime error:" not in log, shown
    if expect is not None:
        assert r.returncode == expect, f"expected {expect}: {shown}"
    return log


def run_args(out, *inputs, model=TINY, options=()):
    return ["run", "--model", model, "-o", out, "--memory", "1500M", *options, *inputs]


def run(out, *inputs, model=TINY, options=(), expect=0, **popen):
    return tokenmill(*run_args(out, *inputs, model=model, options=options), expect=expect, **popen)


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n")
    return path


def read_records(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def lines_by_id(*paths):
    """custom_id -> the record's bytes, over several files; every id once."""
    found = {}
    for path in paths:
        for line in read_bytes(path).splitlines():
            custom_id = json.loads(line)["custom_id"]
            assert custom_id not in found, f"{path}: {custom_id} is there twice"
            found[custom_id] = line
    return found


def outcome(out):
    """Both result files as bytes."""
    return read_bytes(f"{out}/results.jsonl"), read_bytes(f"{out}/errors.jsonl")


def same_outcome(a, b, what):
    for name in ("results.jsonl", "errors.jsonl"):
        x, y = read_bytes(f"{a}/{name}"), read_bytes(f"{b}/{name}")
        if x != y:
            for i, (p, q) in enumerate(zip(x.splitlines(), y.splitlines())):
                assert p == q, f"{what}: {name} line {i + 1} differs:\n{p[:700]!r}\n{q[:700]!r}"
            raise AssertionError(f"{what}: {name} has {len(x)} and {len(y)} bytes")


WORDS = "the a river stone light code number list of to and return when every old new north green paper seven quickly model".split()
UNUSUAL = ["naïve café", "数字と文字", "emoji 🙂🚀", "tabs\tand\nlines", "\"quotes\" \\ back", "    spaces   ", "<|im_start|> in text", "x" * 40]


def text(r, n_words):
    words = [r.choice(WORDS) for _ in range(n_words)]
    if r.random() < 0.3:
        words.insert(r.randrange(len(words) + 1), r.choice(UNUSUAL))
    return " ".join(words)


def mixed_rows(n, seed, max_tokens=24, long_words=60):
    """Rows of every form that share prefixes in groups: chat and completion, batch and plain form, greedy and drawn, several samples,
    log-probabilities (which show a difference that the text would hide), stop strings, token ids, penalties."""
    r = random.Random(seed)
    systems = [text(r, long_words) for _ in range(3)]
    rows = []
    for i in range(n):
        p = {"max_tokens": r.randrange(1, max_tokens + 1)}
        if r.random() < 0.5:
            p["temperature"] = 0
        else:
            p.update({"temperature": 1.0, **r.choice([{}, {"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05}, {"seed": r.randrange(1000)}])})
        if r.random() < 0.3:
            p["n"] = 2
        if r.random() < 0.2:
            p.update(r.choice([{"presence_penalty": 1.0}, {"frequency_penalty": 0.5}, {"repetition_penalty": 1.2}, {"ignore_eos": True}, {"stop": [" the", "\n"]},
                               {"min_tokens": 1}]))
        kind = r.randrange(4)
        if kind == 0:
            if r.random() < 0.3:
                p["logprobs"] = r.randrange(4)
            row = {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": {"prompt": text(r, r.randrange(1, long_words)), **p}}
        elif kind == 1:
            row = {"custom_id": f"r{i}", "prompt": [r.randrange(256) for _ in range(r.randrange(1, long_words))] if r.random() < 0.5 else text(r, 5), **p}
        else:
            messages = [{"role": "system", "content": r.choice(systems)}, {"role": "user", "content": text(r, r.randrange(1, 30))}]
            if r.random() < 0.3:
                messages += [{"role": "assistant", "content": text(r, 8)}, {"role": "user", "content": text(r, 4)}]
            if r.random() < 0.3:
                p.update({"logprobs": True, "top_logprobs": r.randrange(4)})
            row = {"custom_id": f"r{i}", "messages": messages, **p}
            if kind == 3:
                row = {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "any", "messages": messages, **p}}
        rows.append(row)
    return rows
