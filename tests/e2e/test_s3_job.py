#!/usr/bin/env python3
"""Whole jobs on S3: the bytes of a job in a directory, whatever the store does on the way, with one worker and with several at a time."""
import os
import signal
import subprocess
import time

from e2e import PROGRAM, ROUNDS, SEED, TINY, main, read_bytes, run_args, test, tokenmill, write_rows
from s3_servers import flaky_proxy, start_moto, start_versitygw

BUCKET = "job-bucket"


def rows(n=400, tokens=24):
    return write_rows("rows.jsonl", [{"custom_id": f"row-{i}", "messages": [{"role": "user", "content": f"Tell me about {i % 7} and {i}."}],
                                      "max_tokens": 4 + i % tokens} for i in range(n)])


def environment(server, index=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return {**clean, **server.env, **({"JOB_COMPLETION_INDEX": str(index)} if index is not None else {})}


def merged(server, prefix):
    """Both result files, read by the test's own client."""
    found = []
    for name in ("results.jsonl", "errors.jsonl"):
        status, _, body = server.request("GET", f"/{BUCKET}/{prefix}/merged/{name}")
        assert status == 200, f"{prefix}/merged/{name}: {status}"
        found.append(body)
    return found


def expected(path, options=()):
    tokenmill(*run_args("local", path), *options)
    return [read_bytes("local/results.jsonl"), read_bytes("local/errors.jsonl")]


def same(server, prefix, want):
    got = merged(server, prefix)
    assert got == want, f"{prefix}: {[len(b) for b in got]} bytes, not the {[len(b) for b in want]} of a directory's job"


def workers(server, prefix, path, n, options=()):
    """n at a time, each its own machine as far as they know of each other."""
    return [subprocess.Popen([PROGRAM, *map(str, run_args(f"s3://{BUCKET}/{prefix}", path)), *options], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=open(f"{prefix}-{i}.log", "wb"), env=environment(server, i)) for i in range(n)]


def ended(processes, prefix, allowed=(0,)):
    for i, process in enumerate(processes):
        status = process.wait(300)
        assert status in allowed, f"worker {i} ended with {status}:\n{read_bytes(f'{prefix}-{i}.log').decode()[-3000:]}"


def whole_job(server):
    server.create_bucket(BUCKET)
    path = rows()
    want = expected(path)
    tokenmill(*run_args(f"s3://{BUCKET}/plain", path), env=environment(server))
    same(server, "plain", want)
    tokenmill(*run_args(f"s3://{BUCKET}/plain", path), env=environment(server))  # nothing left to do
    same(server, "plain", want)
    ended(workers(server, "three", path, 3), "three")
    same(server, "three", want)
    for i in range(ROUNDS):
        with flaky_proxy(server, SEED + i, 0.1, serial=True) as proxy:
            ended(workers(proxy, f"flaky{i}", path, 3), f"flaky{i}")
            same(server, f"flaky{i}", want)
            assert sum(n for fault, n in proxy.counts.items() if fault) > 3, f"hardly any fault: {proxy.counts}"


@test
def s3_job_moto():
    with start_moto() as server:
        whole_job(server)


@test
def s3_job_versitygw():
    with start_versitygw("objects") as server:
        whole_job(server)


@test
def s3_job_drained():
    """SIGTERM in the middle, again and again, with a store that fails on the way; then the job is finished."""
    with start_moto() as server:
        server.create_bucket(BUCKET)
        path = rows(300, 120)
        engine = ("--engine", "fake:tokens=4-120,rate=3000,batch=16")  # some seconds, on any machine
        want = expected(path, engine)
        drained = 0
        with flaky_proxy(server, SEED, 0.05, serial=True) as proxy:
            for i in range(20):
                process = workers(proxy, "job", path, 1, engine)[0]
                time.sleep(0.4 + 0.2 * i)
                process.send_signal(signal.SIGTERM)
                ended([process], "job", allowed=(0, 143, -signal.SIGTERM))
                drained += process.returncode == 143
                if process.returncode == 0:
                    break
            else:
                ended(workers(proxy, "job", path, 1, engine), "job")
            assert drained > 0, "never stopped in the middle"
            same(server, "job", want)


@test
def s3_job_refused():
    """Where exclusive creation is not exclusive nothing is planned."""
    with start_moto() as server, flaky_proxy(server, SEED, 0, strip=["If-None-Match"]) as proxy:
        server.create_bucket(BUCKET)
        log = tokenmill(*run_args(f"s3://{BUCKET}/job", rows(10)), env=environment(proxy), expect=74)
        assert "ignores If-None-Match" in log, log
        assert server.keys(BUCKET) == [], server.keys(BUCKET)


if __name__ == "__main__":
    main()
