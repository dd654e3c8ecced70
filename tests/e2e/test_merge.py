#!/usr/bin/env python3
"""Results of unfinished and closed jobs, what verify tells, and the way out of a damaged segment; on the fake engine."""
import glob
import json
import os
import signal
import subprocess
import time

from e2e import PROGRAM, main, read_records, same_outcome, test, tokenmill, write_rows

ROWS = [{"custom_id": f"r{i}", "prompt": f"Row {i} of a job", "max_tokens": 40 + i % 7, "seed": 3} for i in range(600)]


def fake(out, engine, *options):
    return ["run", "--engine", engine, "-o", out, "--publish-seconds", "0.05", *options, "rows.jsonl"]


def stopped(out):
    """A job of which about a third is done."""
    write_rows("rows.jsonl", ROWS)
    p = subprocess.Popen([PROGRAM, *fake(out, "fake:tokens=30-60,rate=20000,batch=20")], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not glob.glob(f"{out}/shards/*/seg-*.db"):
        assert p.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=60) == 143


@test
def partial_then_closed_then_run():
    stopped("out")
    tokenmill(*fake("plain", "fake:tokens=30-60"))
    assert "before merging" in tokenmill("merge", "out", expect=1)
    tokenmill("merge", "--partial", "out")
    some = read_records("out/results.jsonl") + read_records("out/errors.jsonl")
    whole = {r["custom_id"]: r for r in read_records("plain/results.jsonl")}
    assert 0 < len(some) < 600, len(some)
    assert all(whole[r["custom_id"]] == r for r in some)
    manifest = json.load(open("out/merged/manifest.json"))
    assert manifest["complete"] is False and manifest["left_out"] == 600 - len(some), manifest
    assert "unfinished" in tokenmill("verify", "out")
    tokenmill("merge", "--close", "budget_exhausted", "out")
    errors = read_records("out/errors.jsonl")
    assert sorted(r["custom_id"] for r in errors + read_records("out/results.jsonl")) == sorted(r["custom_id"] for r in ROWS)
    assert len(errors) == 600 - len(some)
    assert all(e["response"] is None and e["error"]["code"] == "budget_exhausted" and e["error"]["message"] and e["id"].startswith("batch_req_")
               for e in errors)
    tokenmill("verify", "out")
    assert "exclude" in tokenmill("merge", "--partial", "--repair", "out", expect=1)
    tokenmill("merge", "--close", "because", "out", expect=1)
    # A raised cap: it goes on, and the whole merge replaces that of the closed job.
    tokenmill(*fake("out", "fake:tokens=30-60"))
    tokenmill("verify", "out")
    same_outcome("plain", "out", "after a partial merge and a close")
    tokenmill("merge", "--partial", "out")
    same_outcome("plain", "out", "a whole merge stays")


@test
def verify_names_every_row():
    write_rows("rows.jsonl", ROWS[:300])
    tokenmill(*fake("out", "fake:tokens=30-60"))
    with open("out/merged/results.jsonl", encoding="utf-8") as f:
        lines = f.readlines()
    altered = lines[:]
    altered[10] = altered[10].replace('"finish_reason"', '"finish_rea5on"')
    altered[40] = altered[41]                # 40 missing, 41 twice
    altered[100], altered[101] = altered[101], altered[100]
    del altered[200]
    altered.append('{"custom_id":"nobody"}\n')
    os.remove("out/merged/results.jsonl")
    with open("out/merged/results.jsonl", "w", encoding="utf-8") as f:
        f.writelines(altered)
    said = tokenmill("verify", "out", expect=74)
    for what in ['row 10 (key "r10", ', 'row 40 (key "r40", ', 'row 41 (key "r41") stands there a second time', 'row 101 (key "r101") stands there out of its place',
                 'row 200 (key "r200", ', "belongs to no row", "verify: 6 problems"]:
        assert what in said, said
    # Many: twenty are named, then counted.
    with open("out/merged/results.jsonl", "w", encoding="utf-8") as f:
        f.writelines(lines[:100] + lines[150:])
    said = tokenmill("verify", "out", expect=74)
    assert 'row 119 (key "r119"' in said and 'row 120 (key "r120"' not in said and "and 30 more" in said, said


@test
def damaged_segment():
    """Named by verify and merge; run makes its rows again."""
    write_rows("rows.jsonl", ROWS[:300])
    tokenmill(*fake("plain", "fake:tokens=30-60"))
    tokenmill(*fake("out", "fake:tokens=30-60"))
    (segment, *_) = glob.glob("out/shards/00000/seg-*.db")
    with open(segment, "r+b") as f:
        f.truncate(os.path.getsize(segment) // 2)
    said = tokenmill("verify", "out", expect=74)
    assert segment.split("/shards/")[1] in said and "merge --repair" in said, said
    said = tokenmill("merge", "out", expect=74)
    assert segment.split("/shards/")[1] in said and "merge --repair" in said, said
    assert "1 shards are unfinished again" in tokenmill("merge", "--repair", "out")
    said = tokenmill(*fake("out", "fake:tokens=30-60"))
    assert segment.split("/shards/")[1] in said and "its rows run again" in said, said
    assert not os.path.exists(segment)
    tokenmill("verify", "out")
    same_outcome("plain", "out", "after a repair")


if __name__ == "__main__":
    main()
