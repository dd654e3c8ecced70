#!/usr/bin/env python3
"""What plan says of a dataset, held against counts made here, and that a job which plan left behind runs as if run had planned it."""
import glob
import json
import os
import random
import re
import subprocess

from e2e import PROGRAM, SEED, TINY, Skip, main, mixed_rows, run, same_outcome, test, tokenmill, write_rows

BLOCK = 16
MEMORY = ["--memory", "1500M"]


def plan(*inputs, model=TINY, options=(), expect=0):
    """The answer as JSON, and what was said on stderr."""
    r = subprocess.run([PROGRAM, "plan", "--model", model, *MEMORY, "--format", "json", *options, *inputs], stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=300)
    log = r.stderr.decode()
    assert r.returncode == expect, f"exit status {r.returncode}, expected {expect}\n{log}"
    return (json.loads(r.stdout) if expect == 0 else None), log


def id_rows(r, n, vocab=200):
    """Prompts of token ids in a tree of shared beginnings, whose lengths are no multiples of a block."""
    stems = [[]]
    for _ in range(12):
        stems.append(r.choice(stems)[:] + [r.randrange(vocab) for _ in range(r.randrange(1, 50))])
    rows = []
    for i in range(n):
        prompt = r.choice(stems) + [r.randrange(vocab) for _ in range(r.choice([0, 1, 5, 16, 31, 32, 33, 70]))]
        rows.append({"custom_id": f"r{i}", "prompt": prompt or [1], "max_tokens": r.randrange(0, 40)})
    return rows


def tokens_to_compute(prompts):
    """Every whole block of 16 tokens once for all prompts that reach it by the same way; a prompt's last token, and the block that it is in,
    is always computed."""
    seen, n = set(), 0
    for p in prompts:
        shareable = (len(p) - 1) // BLOCK
        path = ()
        n += len(p) - shareable * BLOCK
        for b in range(shareable):
            path = hash((path, tuple(p[b * BLOCK:(b + 1) * BLOCK])))
            if path not in seen:
                seen.add(path)
                n += BLOCK
    return n


@test
def tokens_against_a_trie():
    r = random.Random(SEED)
    for n in (1, 2, 40, 700):
        rows = id_rows(r, n)
        prompts = [row["prompt"] for row in rows]
        answer, _ = plan(write_rows("rows.jsonl", rows))
        assert answer["rows"] == n and answer["bad_rows"] == 0
        assert answer["prompt_tokens"] == sum(map(len, prompts))
        expected = tokens_to_compute(prompts)
        assert answer["unique_prefill_tokens"] == expected, (n, answer, expected)
        assert abs(answer["best_cache_hit_share"] - (1 - expected / answer["prompt_tokens"])) < 1e-6
        assert answer["max_output_tokens"] == sum(row["max_tokens"] for row in rows)
        # Nothing is known of this model's answers: half of the limit, no less than one token.
        assert abs(answer["expected_output_tokens"] - sum(max(1, m / 2) if m else 0 for m in (row["max_tokens"] for row in rows))) <= 1


@test
def the_best_share_is_reached():
    """What plan calls the best possible is what a run with enough memory has."""
    rows = id_rows(random.Random(SEED + 1), 60)
    for row in rows:
        row["max_tokens"] = 3
    answer, _ = plan(write_rows("rows.jsonl", rows))
    run("out", "rows.jsonl")
    with open("out/usage.json") as f:
        tokens = json.load(f)["tokens"]
    assert tokens["prompt"] == answer["prompt_tokens"]
    assert tokens["prompt"] - tokens["cached"] == answer["unique_prefill_tokens"], (tokens, answer)


@test
def tokens_of_text():
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Skip("no tokenizers package")
    tokenizer = Tokenizer.from_file(os.path.join(TINY, "tokenizer.json"))
    rows = [row for row in mixed_rows(200, SEED) if isinstance(row.get("prompt", row.get("body", {}).get("prompt")), str)]
    prompts = [tokenizer.encode(row["prompt"] if "prompt" in row else row["body"]["prompt"]).ids for row in rows]
    assert len(rows) > 20
    answer, _ = plan(write_rows("rows.jsonl", rows))
    assert answer["prompt_tokens"] == sum(map(len, prompts)), (answer, sum(map(len, prompts)))
    assert answer["unique_prefill_tokens"] == tokens_to_compute(prompts)


@test
def bad_rows_by_line():
    rows, bad = [], []
    for i in range(120):
        if i % 4 == 2:
            rows.append(["{broken", '{"prompt": 5}', '{"prompt": "a", "max_tokens": -1}', '{"prompt": "x", "colour": 1}'][i // 4 % 4])
            bad.append(i + 1)
        else:
            rows.append({"prompt": f"row {i}", "max_tokens": 4})
    write_rows("rows.jsonl", rows)
    answer, log = plan("rows.jsonl")
    assert answer["rows"] == 120 and answer["bad_rows"] == 30
    assert [f["line"] for f in answer["faults"]] == bad[:20]
    assert all(f["source"] == "rows.jsonl" and f["message"] for f in answer["faults"])
    for f in answer["faults"]:
        assert f"rows.jsonl:{f['line']}: {f['message']}" in log, f
    assert "and 10 more rows at fault" in log
    for options in (["--strict"], ["--max-bad-rows", "29"]):
        _, log = plan("rows.jsonl", options=options, expect=64)
        assert "30 of 120 rows are at fault" in log
    plan("rows.jsonl", options=["--max-bad-rows", "30"])


@test
def nothing_is_left_behind():
    write_rows("rows.jsonl", mixed_rows(30, SEED))
    os.mkdir("tmp")
    before = sorted(os.listdir("."))
    for options, expect in (([], 0), (["--context", "20", "--strict"], 64), (["--context", "99999999"], 1)):
        subprocess_env = {**os.environ, "TMPDIR": os.path.abspath("tmp")}
        tokenmill("plan", "--model", TINY, *MEMORY, *options, "rows.jsonl", expect=expect, env=subprocess_env)
        assert os.listdir("tmp") == [] and sorted(os.listdir(".")) == before


@test
def planned_then_run():
    """plan --job and then run by the job's name alone, under options that change bytes, is what run does in one go."""
    write_rows("rows.jsonl", mixed_rows(40, SEED))
    with open("defaults.json", "w") as f:
        json.dump({"temperature": 0.8, "max_tokens": 9}, f)
    for i, options in enumerate(([], ["--seed", "3", "--math", "f32", "--kv-type", "f32", "--context", "300", "--defaults", "defaults.json",
                                      "--served-model-name", "somebody", "--date", "2026-02-03"])):
        answer, _ = plan("rows.jsonl", options=["--job", f"job{i}", *options])
        assert answer["job"] == f"job{i}"
        tokenmill("run", "--job", f"job{i}", *MEMORY)
        run(f"plain{i}", "rows.jsonl", options=options)
        same_outcome(f"plain{i}", f"job{i}", "planned by plan")
        # The same request again finds its job; another one does not.
        tokenmill("run", "--model", TINY, "--job", f"job{i}", *MEMORY, *options, "rows.jsonl")
        tokenmill("run", "--model", TINY, "--job", f"job{i}", *MEMORY, *options, "--seed", "77", "rows.jsonl", expect=65)
    _, log = plan("rows.jsonl", options=["--job", "job0"], expect=64)
    assert "planned already" in log


@test
def shards_as_asked_for():
    rows = [{"prompt": f"{i % 50} is the number of a group of rows that begin in the same way, and this is number {i}", "max_tokens": 8}
            for i in range(600)]
    write_rows("rows.jsonl", rows)
    for n in (1, 7, 20, 600):
        answer, _ = plan("rows.jsonl", options=["--shards", str(n), "--job", f"job{n}"])
        assert answer["shards"]["count"] == n, answer
        with open(f"job{n}/job.json") as f:
            job = json.load(f)
        assert len(job["shards"]) == n and sum(job["shards"]) == 600
        spread = answer["shards"]["rows"]
        assert (spread["min"], spread["max"]) == (min(job["shards"]), max(job["shards"]))
        assert abs(sum(job["shard_costs"]) / job["figures"]["cost"] - 1) < 1e-3
    assert plan("rows.jsonl", options=["--shards", "900"])[0]["shards"]["count"] == 600
    # The cost decides, not the count: half of the rows generate thirty times as much.
    for i, row in enumerate(rows):
        row["max_tokens"] = 300 if i % 50 < 25 else 10
    write_rows("rows.jsonl", rows)
    answer, _ = plan("rows.jsonl", options=["--shards", "6", "--job", "uneven"])
    cost = answer["shards"].get("cost") or answer["shards"]["seconds"]
    assert cost["max"] / cost["min"] < 1.5, answer
    for job in ("job7", "uneven"):
        run(f"plain-{job}", "rows.jsonl" if job == "uneven" else write_rows("first.jsonl", [{**row, "max_tokens": 8} for row in rows]))
        tokenmill("run", "--job", job, *MEMORY)
        same_outcome(f"plain-{job}", job, job)


@test
def speed_is_measured_and_used():
    rows = [{"prompt": "again and again", "max_tokens": 50, "ignore_eos": True} for _ in range(400)]
    write_rows("rows.jsonl", rows)
    answer, _ = plan("rows.jsonl")
    assert answer["speed"] is None and answer["hours"] is None
    out = subprocess.run([PROGRAM, "bench", "--model", TINY, *MEMORY, "--seconds", "1"], capture_output=True, check=True, text=True).stdout
    assert re.search(r"^decode +1 ", out, re.M) and re.search(r"^prefill ", out, re.M), out
    answer, _ = plan("rows.jsonl", options=["--shards", "40"])
    assert answer["speed"]["source"] == "bench"
    hours = answer["hours"]
    assert hours["1"] > hours["4"] > hours["16"] > 0
    # Forty shards on four workers: a quarter of the time, but for the tail.
    assert 0.25 <= hours["4"] / hours["1"] < 0.3, hours
    assert answer["expected_output_tokens"] == 400 * 50
    # Another arithmetic was never measured.
    assert plan("rows.jsonl", options=["--math", "f32"])[0]["speed"] is None
    with open(glob.glob(os.path.join(os.environ["TOKENMILL_CACHE"], "speed-*.json"))[0], "w") as f:
        f.write("{damaged")
    answer, log = plan("rows.jsonl")
    assert answer["speed"] is None and "is ignored" in log


@test
def memory_for_rows():
    write_rows("rows.jsonl", [{"prompt": [i] + [3] * 89, "max_tokens": 20} for i in range(10)])
    with open(os.path.join(TINY, "config.json")) as f:
        c = json.load(f)
    # Keys and values of every layer in 16 bits; 90 + 10 tokens are seven blocks.
    block = 2 * c["num_hidden_layers"] * c["num_key_value_heads"] * c.get("head_dim", c["hidden_size"] // c["num_attention_heads"]) * BLOCK * 2
    small, _ = plan("rows.jsonl", options=["--memory", "120M", "--max-batch", "4096"])
    large, _ = plan("rows.jsonl", options=["--memory", "121M", "--max-batch", "4096"])
    assert small["rows_in_memory"] > 0
    assert abs(large["rows_in_memory"] - small["rows_in_memory"] - 2**20 / (7 * block)) <= 1, (small, large, block)


@test
def prices():
    write_rows("rows.jsonl", [{"prompt": [7] * 1000, "max_tokens": 100} for _ in range(10)])
    with open("sheet.yaml", "w") as f:
        f.write("currency: EUR\nbatch_discount: 0.5\nmodels:\n  - {model: tiny-chat, input: 3, cached_input: 1, output: 10}\n"
                "nodes:\n  - {node: box, per_node_hour: 2}\n")
    answer, _ = plan("rows.jsonl", options=["--prices", "sheet.yaml"])
    unique = tokens_to_compute([[7] * 1000] * 10)
    assert answer["unique_prefill_tokens"] == unique == 1000 + 9 * 8
    price, tokens = answer["price"], lambda out: (unique * 3 + (10000 - unique) * 1 + out * 10) / 1e6 * 0.5
    assert price["currency"] == "EUR"
    assert abs(price["expected"] - tokens(500)) < 1e-12 and abs(price["most"] - tokens(1000)) < 1e-12
    _, log = plan("rows.jsonl", options=["--prices", "sheet.yaml", "--served-model-name", "unknown"], expect=64)
    assert "unknown" in log


def repeated_rows(n, seed):
    """Rows of every form, of which many are said again: under other names, with other tags, in another order of members, drawn and greedy."""
    r = random.Random(seed)
    rows = []
    for i, row in enumerate(mixed_rows(n, seed)):
        rows.append(row)
        for k in range(r.randrange(3)):
            again = json.loads(json.dumps(row))
            again["custom_id"] = f"r{i}-again \u2603 \"{k}\""
            body = again.get("body", again)
            body.update(r.choice([{}, {"user": "somebody"}, {"metadata": {"team": "red"}}, {"stream": False}, {"stop": None} if "stop" not in body else {}]))
            rows.append(dict(reversed(again.items())))
        if r.random() < 0.1:  # no names at all: both are named after their places
            rows += [{"prompt": "without a name", "temperature": 0, "max_tokens": 5}] * 2
    r.shuffle(rows)
    return rows


def is_drawn(row):
    body = row.get("body", row)
    return body.get("temperature", 1) != 0 and "seed" not in body


@test
def folded_rows_change_nothing():
    rows = repeated_rows(60, SEED)
    write_rows("rows.jsonl", rows + ["{broken"])
    run("plain", "rows.jsonl")
    run("folded", "rows.jsonl", options=["--fold-duplicates"])
    same_outcome("plain", "folded", "--fold-duplicates")
    # As many as there are rows that are no draws and equal an earlier one in all that matters.
    seen, again = set(), 0
    for row in rows:
        body = row.get("body", row)
        what = json.dumps([row.get("url", "messages" in body), {k: v for k, v in body.items() if v is not None and
                           k not in ("custom_id", "user", "metadata", "stream")}], sort_keys=True)
        if row.get("url") is None:
            what = what.replace("true,", "\"/v1/chat/completions\",", 1).replace("false,", "\"/v1/completions\",", 1)
        if is_drawn(row):
            continue
        again += what in seen
        seen.add(what)
    assert again > 20
    answer, _ = plan("rows.jsonl", options=["--fold-duplicates", "--job", "planned"])
    assert answer["folded_rows"] == again, (answer["folded_rows"], again)
    assert answer["rows"] == len(rows) + 1 and answer["shards"]["rows"]["max"] == len(rows) - again
    tokenmill("run", "--job", "planned", *MEMORY)
    same_outcome("plain", "planned", "planned and folded")
    for job in ("folded", "planned"):
        tokenmill("verify", job)
        tokenmill("merge", job)
    # Nothing is billed twice.
    usage = {job: json.load(open(f"{job}/usage.json")) for job in ("plain", "folded")}
    assert usage["folded"]["rows"] == usage["plain"]["rows"]
    assert usage["folded"]["tokens"]["output"] < usage["plain"]["tokens"]["output"]


@test
def a_folded_job_may_grow():
    """Rows are added before and after those that are there, so that some that ran are folded into new ones; other shards, too."""
    rows = repeated_rows(50, SEED + 1)
    named = [row for row in rows if "custom_id" in row]
    half = len(named) // 2
    write_rows("rows.jsonl", named[half:])
    run("grown", "rows.jsonl", options=["--fold-duplicates"])
    write_rows("rows.jsonl", named)
    run("grown", "rows.jsonl", options=["--shards", "3"])
    run("plain", "rows.jsonl")
    same_outcome("plain", "grown", "grown and folded")
    tokenmill("run", "--job", "grown", "--shards", "5", *MEMORY)
    same_outcome("plain", "grown", "cut anew and folded")
    tokenmill("verify", "grown")


if __name__ == "__main__":
    main()
