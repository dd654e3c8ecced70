#!/usr/bin/env python3
"""The short forms of scripts/chaos.py: a job that is disturbed ends with the bytes of one that is not, wherever it lives."""
import os
import subprocess
import sys
import time

from e2e import PROGRAM, ROOT, SEED, Skip, main, mixed_rows, same_outcome, test, tokenmill, write_rows

sys.path.insert(0, os.path.join(ROOT, "tests/rigs"))
from shared_fs import NfsSim, Unavailable  # noqa: E402


def chaos(*options):
    r = subprocess.run([sys.executable, os.path.join(ROOT, "scripts/chaos.py"), "--seed", str(SEED), *map(str, options)], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "TOKENMILL": os.path.abspath(PROGRAM)}, timeout=900)
    text = r.stdout.decode("utf-8", "replace").strip()
    if r.returncode == 2 and "skip: " in text:
        raise Skip(text.rsplit("skip: ", 1)[1])
    print(text, flush=True)
    assert r.returncode == 0, f"chaos.py ended with {r.returncode}"


@test
def a_plan_that_another_host_made_just_now():
    """NFS: this host has looked for job.json and listed the directory before; what it believes of them is old."""
    try:
        share = NfsSim(os.path.abspath("shared"), SEED)
    except Unavailable as e:
        raise Skip(str(e))
    a, b = share.mounts
    rows = write_rows(os.path.abspath("rows.jsonl"), mixed_rows(20, SEED, max_tokens=4, long_words=5))
    engine = ["--engine", "fake:tokens=1-3"]
    environment = [{**os.environ, "TOKENMILL_HOST": host} for host in "ab"]
    try:
        for k in range(3):
            os.mkdir(f"{a}/job-{k}")
            while not os.path.isdir(f"{b}/job-{k}"):
                time.sleep(0.05)
            os.listdir(f"{b}/job-{k}")
            os.path.exists(f"{b}/job-{k}/job.json")
            os.path.exists(f"{b}/job-{k}/plan.db")
            tokenmill("plan", "--job", f"{a}/job-{k}", *engine, rows, env=environment[0])
            tokenmill("run", "--job", f"{b}/job-{k}", *engine, "--takeover-after", 2, rows, env=environment[1])
        share.faults(False)
        tokenmill("run", "-o", "plain", *engine, rows)
        same_outcome("plain", f"{share.backing}/job-0", "planned by another host")
    finally:
        share.close()


@test
def chaos_local():
    chaos("--place", "local", "--faults", 30, "--interval", 0.3)


@test
def chaos_poison():
    chaos("--place", "local", "--rows", 5000, "--faults", 10, "--interval", 0.3, "--poison", 2)


@test
def chaos_nfs():
    chaos("--place", "nfs", "--faults", 25, "--interval", 0.4)


@test
def chaos_gluster():
    chaos("--place", "gluster", "--faults", 20, "--interval", 0.3)


@test
def chaos_s3_moto():
    chaos("--place", "s3-moto", "--faults", 20, "--interval", 0.4)


@test
def chaos_s3_versitygw():
    chaos("--place", "s3-versitygw", "--faults", 20, "--interval", 0.4)


@test
def chaos_smollm2():
    chaos("--place", "local", "--engine", "smollm2", "--rows", 60, "--faults", 20)


if __name__ == "__main__":
    main()
