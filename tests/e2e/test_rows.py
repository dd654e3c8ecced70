#!/usr/bin/env python3
"""Rows at fault: each is named with its line, becomes an error record, and its neighbours run. --strict and --max-bad-rows refuse the file."""
import json
import os

from e2e import lines_by_id, main, read_bytes, read_records, run, test, write_rows

GOOD = {"custom_id": "good", "prompt": "the river", "max_tokens": 4, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def chat(**more):
    return {**CHAT, **more}


def batch(body, url="/v1/chat/completions", **more):
    return {"method": "POST", "url": url, "body": body, **more}


# a row as JSON or as raw text, and a word that its message or parameter must hold
FAULTS = [
    ('{"custom_id": "x", "prompt": "a"', "JSON"),
    ("not json at all", "JSON"),
    ("[1, 2]", "object"),
    ('"text"', "object"),
    ("null", "object"),
    ("{}", ""),
    ('{"prompt": "a", "prompt": "b"} trailing', "JSON"),
    ('{"prompt": "\\ud800"}', ""),
    (b'{"prompt": "\xff\xfe"}', ""),
    ("[" * 100000, ""),
    ('{"prompt": "a", "metadata": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}", ""),
    ({"custom_id": [5], "prompt": "a"}, "custom_id"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [1000000]}, "prompt"),
    ({"prompt": [1.5]}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": "a", "messages": CHAT["messages"]}, ""),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [5]}, "messages"),
    ({"messages": [{"content": "a"}]}, "role"),
    ({"messages": [{"role": "king", "content": "a"}]}, "role"),
    ({"messages": [{"role": "user"}]}, "content"),
    ({"messages": [{"role": "user", "content": 7}]}, "content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "image_url"),
    (chat(temperature="hot"), "temperature"),
    (chat(temperature=-1), "temperature"),
    (chat(temperature=1e300), "temperature"),
    (chat(top_p=0), "top_p"),
    (chat(top_p=1.5), "top_p"),
    (chat(min_p=-0.1), "min_p"),
    (chat(top_k=-5), "top_k"),
    (chat(top_k=1.5), "top_k"),
    (chat(n=0), "n"),
    (chat(n=100000), "n"),
    (chat(max_tokens=-1), "max_tokens"),
    (chat(max_tokens=True), "max_tokens"),
    (chat(presence_penalty=3), "presence_penalty"),
    (chat(repetition_penalty=0), "repetition_penalty"),
    (chat(logit_bias={"abc": 1}), "logit_bias"),
    (chat(logit_bias=[1]), "logit_bias"),
    (chat(logit_bias={"99999999": 1}), "logit_bias"),
    (chat(stop=5), "stop"),
    (chat(stop=["a", 5]), "stop"),
    (chat(seed="x"), "seed"),
    (chat(logprobs="yes"), "logprobs"),
    (chat(top_logprobs=50, logprobs=True), "top_logprobs"),
    (chat(ignore_eos=1), "ignore_eos"),
    (chat(tempreature=1), "tempreature"),
    (batch({"prompt": "a"}, custom_id="nourl", url="/v1/images"), "url"),
    ({"custom_id": "m", "method": "GET", "url": "/v1/completions", "body": {"prompt": "a"}}, "method"),
    ({"custom_id": "nobody", "method": "POST", "url": "/v1/completions"}, "body"),
    (batch([], custom_id="listbody"), "body"),
    (batch({"prompt": "a"}, custom_id="wrongbody"), "prompt"),
    ({"prompt": "word " * 20000}, "4096"),
    ({"prompt": "a", "max_tokens": 1000000}, ""),
]


def write_mixed(path, faults=FAULTS):
    """A good row before and after each bad one; returns the line numbers of the bad ones."""
    lines, bad = [], []
    for i, (fault, _) in enumerate(faults):
        lines.append(json.dumps({**GOOD, "custom_id": f"good{i}"}).encode())
        bad.append(len(lines) + 1)
        lines.append(fault if isinstance(fault, bytes) else fault.encode() if isinstance(fault, str) else json.dumps(fault).encode())
    lines.append(json.dumps({**GOOD, "custom_id": "last"}).encode())
    with open(path, "wb") as f:
        f.write(b"\n".join(lines) + b"\n")
    return path, bad


@test
def every_fault_becomes_an_error_record():
    path, bad = write_mixed("rows.jsonl")
    run("out", path)
    good, errors = read_records("out/results.jsonl"), read_records("out/errors.jsonl")
    assert [r["custom_id"] for r in good] == [f"good{i}" for i in range(len(FAULTS))] + ["last"], "good rows must run, in order"
    assert len({json.dumps(r["response"]["body"]["choices"]) for r in good}) == 1, "the same request must give the same answer"
    assert len(errors) == len(FAULTS), f"{len(errors)} error records for {len(FAULTS)} faults"
    for record, (fault, word), line in zip(errors, FAULTS, bad):
        error = record["response"]["body"]["error"]
        shown = f"{str(fault)[:100]} -> {error}"
        assert 400 <= record["response"]["status_code"] < 500, shown
        assert set(error) == {"message", "type", "param", "code"} and error["message"], shown
        assert word in error["message"] or word == error["param"], f"'{word}' must be named: {shown}"
        if isinstance(fault, dict) and isinstance(fault.get("custom_id"), str):
            assert record["custom_id"] == fault["custom_id"], shown
    with open("out/usage.json", encoding="utf-8") as f:
        usage = f.read()
    assert str(len(FAULTS)) in usage and str(len(good)) in usage, usage


@test
def faults_are_told_with_their_line():
    faults = FAULTS[:10]
    path, bad = write_mixed("rows.jsonl", faults)
    log = run("out", path)
    for line in bad:
        assert f"rows.jsonl:{line}" in log or f"line {line}" in log, f"line {line} is not named: {log}"


@test
def duplicate_ids_are_faults():
    rows = [{**GOOD, "custom_id": c} for c in "abacb"]
    log = run("out", write_rows("rows.jsonl", rows))
    assert [r["custom_id"] for r in read_records("out/results.jsonl")] == ["a", "b", "c"]
    errors = read_records("out/errors.jsonl")
    assert len(errors) == 2 and all("custom_id" in json.dumps(e["response"]["body"]["error"]) for e in errors), errors
    assert "3" in log and "5" in log, log


@test
def strict_runs_nothing():
    path, _ = write_mixed("rows.jsonl", FAULTS[:3])
    log = run("out", path, options=["--strict"], expect=64)
    assert "2" in log, log
    assert not os.path.exists("out/results.jsonl") and not os.path.exists("out/job.json")
    run("out", write_rows("good.jsonl", [GOOD]), options=["--strict"])
    assert lines_by_id("out/results.jsonl").keys() == {"good"}
    run("lenient", path)
    run("lenient", path, options=["--strict"], expect=64)  # the plan that is there does not hold what is asked for now
    run("lenient", path, options=["--max-bad-rows", 2], expect=64)
    run("lenient", path, options=["--max-bad-rows", 3])


@test
def max_bad_rows_is_a_limit():
    path, _ = write_mixed("rows.jsonl", FAULTS[:3])
    run("over", path, options=["--max-bad-rows", 2], expect=64)
    assert not os.path.exists("over/results.jsonl")
    run("at", path, options=["--max-bad-rows", 3])
    assert len(read_records("at/errors.jsonl")) == 3


@test
def accepted_parameters_change_nothing():
    """Those that cannot matter offline, and null for "not given"."""
    rows = [{**CHAT, "custom_id": "a"}, {**CHAT, "custom_id": "b", "user": "u", "stream": False, "store": True, "metadata": {"k": "v"}, "service_tier": "auto",
                                         "stop": None, "seed": None}]
    run("out", write_rows("rows.jsonl", rows), options=["--seed", 1])
    a, b = read_records("out/results.jsonl")
    assert read_bytes("out/errors.jsonl") == b""
    assert a["response"]["body"]["usage"] == b["response"]["body"]["usage"]


@test
def nothing_to_do():
    open("empty.jsonl", "w", encoding="utf-8").close()
    run("out", "empty.jsonl", expect=None)
    run("out-blank", write_rows("blank.jsonl", ["", "   ", ""]), expect=None)
    path, _ = write_mixed("bad.jsonl", [(f, w) for f, w in FAULTS[:1]])
    with open("only-bad.jsonl", "w", encoding="utf-8") as f:
        f.write("not json\n")
    run("only-bad", "only-bad.jsonl")
    assert len(read_records("only-bad/errors.jsonl")) == 1 and read_bytes("only-bad/results.jsonl") == b""


if __name__ == "__main__":
    main()
