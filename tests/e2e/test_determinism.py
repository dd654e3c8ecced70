#!/usr/bin/env python3
"""The promise: a row's bytes depend on the row, the model and the seed alone, not on batch mates, threads, chunks, cache or order."""
import json
import random

from e2e import ROUNDS, SEED, lines_by_id, main, mixed_rows, models, read_bytes, run, same_outcome, test, write_rows

VARIANTS = [["--threads", 1], ["--threads", 3], ["--max-batch", 1], ["--max-batch", 3], ["--chunk", 16], ["--chunk", 33], ["--no-prefix-cache"],
            ["--threads", 1, "--max-batch", 2, "--chunk", 24, "--no-prefix-cache"]]


def n_rows_of(name):
    return 60 if name == "tiny" else 12


def compare_variants(math):
    for name, model in models():
        path = write_rows(f"{name}.jsonl", mixed_rows(n_rows_of(name), SEED, max_tokens=24 if name == "tiny" else 12))
        run(f"{name}-plain", path, model=model, options=math)
        assert read_bytes(f"{name}-plain/errors.jsonl") == b""
        for i, variant in enumerate(VARIANTS if name == "tiny" else VARIANTS[2:3] + VARIANTS[4:5] + VARIANTS[7:]):
            run(f"{name}-{i}", path, model=model, options=math + variant)
            same_outcome(f"{name}-plain", f"{name}-{i}", f"{name} {math} {variant}")


@test
def options_do_not_change_bytes():
    compare_variants([])


@test
def options_do_not_change_bytes_f32():
    compare_variants(["--math", "f32", "--kv-type", "f32"])


@test
def order_and_neighbours_do_not_change_a_row():
    for name, model in models():
        rows = mixed_rows(n_rows_of(name), SEED + 1, max_tokens=24 if name == "tiny" else 12)
        run(f"{name}-plain", write_rows(f"{name}.jsonl", rows), model=model)
        want = lines_by_id(f"{name}-plain/results.jsonl")
        for k in range(ROUNDS):
            r = random.Random(SEED * 1000 + k)
            some = r.sample(rows, len(rows) if k % 2 == 0 else r.randrange(1, len(rows)))
            options = ["--threads", r.choice([1, 2, 4]), "--max-batch", r.randrange(1, 20), "--chunk", r.choice([16, 31, 64, 200, 512])]
            if r.random() < 0.5:
                options.append("--no-prefix-cache")
            out = f"{name}-{k}"
            run(out, write_rows(out + ".jsonl", some), model=model, options=options)
            for custom_id, line in lines_by_id(f"{out}/results.jsonl").items():
                assert line == want[custom_id], f"{name} round {k} {options}: {custom_id} differs:\n{want[custom_id][:700]!r}\n{line[:700]!r}"
        run(f"{name}-again", f"{name}.jsonl", model=model)
        same_outcome(f"{name}-plain", f"{name}-again", f"{name}: the same command twice")


@test
def seed_changes_drawn_rows_only():
    rows = [{"custom_id": f"g{i}", "prompt": "the river", "max_tokens": 12, "temperature": 0, "ignore_eos": True} for i in range(3)]
    rows += [{"custom_id": f"d{i}", "prompt": "the river", "max_tokens": 12, "temperature": 1.0, "ignore_eos": True} for i in range(8)]
    rows += [{"custom_id": f"s{i}", "prompt": "the river", "max_tokens": 12, "temperature": 1.0, "ignore_eos": True, "seed": 5} for i in range(2)]
    path = write_rows("rows.jsonl", rows)
    run("a", path, options=["--seed", 1])
    run("b", path, options=["--seed", 2])

    def texts(out):
        return {i: json.loads(line)["response"]["body"]["choices"][0]["text"] for i, line in lines_by_id(f"{out}/results.jsonl").items()}
    a, b = texts("a"), texts("b")
    assert len({a[f"g{i}"] for i in range(3)}) == 1 and all(a[f"g{i}"] == b[f"g{i}"] for i in range(3))
    assert len({a[f"d{i}"] for i in range(8)}) > 4, "rows of one prompt must draw apart"
    assert sum(a[f"d{i}"] != b[f"d{i}"] for i in range(8)) > 4, "another seed must draw other tokens"
    assert a["s0"] == a["s1"] == b["s0"] == b["s1"], "a row's own seed decides"


if __name__ == "__main__":
    main()
