#!/usr/bin/env python3
"""What a worker leaves in $TOKENMILL_TERMINATION_LOG, however it ends."""
import glob
import json
import os
import signal
import sqlite3
import subprocess
import time

from e2e import PROGRAM, main, test, write_rows

LOG = "termination-log"
UID = "6f1c2b1e-9d0a-4c47-8c5e-1f5b3f0a7d11"


def rows(n, first=""):
    return write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": (first if i == 0 else "") + f"question {i}", "max_tokens": 20} for i in range(n)])


def ended(*args, expect, kill_after=None, number=signal.SIGTERM):
    open(LOG, "w").close()
    env = {**os.environ, "TOKENMILL_TERMINATION_LOG": LOG, "TOKENMILL_POD_UID": UID, "JOB_COMPLETION_INDEX": "5", "TOKENMILL_NODE_TYPE": "h100"}
    with open("stderr", "wb") as f:
        p = subprocess.Popen([PROGRAM, "run", *args], env=env, stdin=subprocess.DEVNULL, stderr=f)
    if kill_after:
        deadline = time.monotonic() + 60
        while not kill_after() and time.monotonic() < deadline:
            time.sleep(0.02)
        p.send_signal(number)
    status = p.wait(timeout=60)
    log = open("stderr", encoding="utf-8", errors="replace").read()
    assert status == expect, f"{status}, expected {expect}: {log}"
    text = open(LOG, encoding="utf-8").read()
    assert len(text.encode()) < 4096
    return json.loads(text), log


@test
def a_good_end():
    t, _ = ended("--engine", "fake", "-o", "out", rows(30), expect=0)
    assert (t["exit_code"], t["exit_name"], t["message"]) == (0, "none", ""), t
    assert t["rows"] == 30 and t["rows_failed"] == 0 and t["output_tokens"] > 0 and t["worker"] == 5 and t["seconds"] > 0, t
    assert t["attempt"].startswith(UID + "-") and len(t["attempt"]) > len(UID) + 8, t
    assert [os.path.basename(p) for p in glob.glob("out/events/*.json")] == [f"0005-{t['attempt']}.json"]
    with open("out/usage.json", encoding="utf-8") as f:
        assert t["output_tokens"] == json.load(f)["tokens"]["output"]
    ledger = sqlite3.connect("out/merged/ledger.db")
    assert ledger.execute("SELECT id, worker, node_type FROM attempt").fetchall() == [(t["attempt"], 5, "h100")]
    ledger.close()
    again, _ = ended("--engine", "fake", "-o", "out", "in.jsonl", expect=0)
    assert again["rows"] == 0 and again["attempt"] != t["attempt"]


@test
def errors_say_what_the_log_says():
    for args, code, name in ((["--no-such-option"], 1, "usage"), (["-o", "out"], 1, "usage"),
                             (["--engine", "fake", "-o", "out", "missing.jsonl"], 64, "input"), (["--model", "missing.gguf", "-o", "out", rows(2)], 66, "model")):
        t, log = ended(*args, expect=code)
        assert (t["exit_code"], t["exit_name"]) == (code, name), t
        assert t["message"] and t["message"] in log, (t, log)


@test
def a_drain():
    t, _ = ended("--engine", "fake:rate=2000,batch=8", "--publish-seconds", "0.1", "-o", "out", rows(2000), expect=143,
                 kill_after=lambda: glob.glob("out/shards/*/seg-*"))
    assert (t["exit_code"], t["exit_name"]) == (143, "drained") and 0 < t["rows"] < 2000, t


@test
def a_crash_under_restarts():
    """The worker could not say anything; the process that started it does."""
    t, _ = ended("--engine", "fake:crash-after=5", "--restarts", "1", "-o", "out", rows(500), expect=139)
    assert (t["exit_code"], t["exit_name"]) == (139, "crash"), t
    t, _ = ended("--engine", "fake", "--restarts", "1", "-o", "other", "in.jsonl", expect=0)
    assert t["exit_code"] == 0 and t["rows"] == 500, t


@test
def a_log_that_cannot_be_written():
    r = subprocess.run([PROGRAM, "run", "--engine", "fake", "-o", "out", rows(3)], capture_output=True, text=True,
                       env={**os.environ, "TOKENMILL_TERMINATION_LOG": "/nowhere/log"})
    assert r.returncode == 0 and "TOKENMILL_TERMINATION_LOG: cannot write /nowhere/log" in r.stderr, r


if __name__ == "__main__":
    main()
