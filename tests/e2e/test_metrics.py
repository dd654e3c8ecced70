#!/usr/bin/env python3
"""What a worker tells of itself over HTTP, read by promtool and by a Prometheus where they are installed."""
import re
import shutil
import socket
import subprocess
import time

from e2e import Skip, main, test, tokenmill, write_rows
from scrape import Prometheus, Worker, ask, one, samples


def rows(n, tokens=40, first=""):
    return write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": (first if i == 0 else "") + f"question {i} " + "word " * (i % 7), "max_tokens": tokens}
                                   for i in range(n)])


SLOW = "fake:rate=4000,batch=8"


@test
def a_run_is_counted():
    w = Worker("--engine", SLOW, "--publish-seconds", "0.1", "--served-model-name", 'a "b" \\c', "-o", "out", rows(2000))
    w.until("/readyz", 200)
    time.sleep(1)
    before, after = samples(ask(w.port)[1]), None
    time.sleep(1)
    after = samples(ask(w.port)[1])
    for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "tokenmill_busy_seconds_total", "tokenmill_publishes_total"):
        assert 0 < one(before, name) < one(after, name), name
    done = one(after, "tokenmill_rows_total", state="ok")
    assert done == sum(v for _, v in after["vllm:request_success_total"]) == one(after, "vllm:e2e_request_latency_seconds_count") > 50
    assert one(after, "vllm:request_generation_tokens_sum") > done and one(after, "vllm:num_requests_running") > 0
    assert one(after, "tokenmill_job_rows", state="planned") == 2000 and one(after, "tokenmill_job_rows", state="done") == done
    assert one(after, "tokenmill_heartbeat_age_seconds") < 60 and one(after, "tokenmill_step_age_seconds") < 5
    assert one(after, "tokenmill_info")  == 1 and after["tokenmill_info"][0][0]["model_name"] == 'a \\"b\\" \\\\c'
    assert all(k["model_name"] for values in after.values() for k, _ in values)
    assert ask(w.port, "/healthz")[0] == 200 and ask(w.port, "/x")[0] == 404
    w.end()


@test
def promtool_finds_nothing_wrong():
    if not shutil.which("promtool"):
        raise Skip("promtool is not installed")
    w = Worker("--engine", SLOW, "-o", "out", rows(2000))
    w.until("/readyz", 200)
    text = ask(w.port)[1]
    w.end()
    r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    # vLLM's names have a colon, which it finds worth a word
    other = [line for line in (r.stdout + r.stderr).splitlines() if not re.fullmatch(r"vllm:\S+ metric names should not contain ':'", line)]
    assert not other, other
    assert r.returncode in (0, 3), r


@test
def loading_is_not_ready():
    w = Worker("--engine", "fake:load=2,rate=4000", "-o", "out", rows(2000))
    status, text = ask(w.port, "/readyz")
    assert status == 503 and text == "starting\n", (status, text)
    assert ask(w.port, "/healthz")[0] == 200
    samples(ask(w.port)[1])
    assert w.until("/readyz", 200) == "working\n"
    w.end()


@test
def an_engine_that_hangs_is_told():
    w = Worker("--engine", "fake:hang=STOP", "--stall-seconds", 1, "-o", "out", rows(50, first="STOP "))
    text = w.until("/healthz", 503)
    assert "no step of the engine for" in text
    assert ask(w.port, "/readyz")[0] == 503
    assert one(samples(ask(w.port)[1]), "tokenmill_step_age_seconds") > 1
    w.process.kill()
    w.process.wait()


@test
def a_port_in_use_is_an_error():
    path = rows(3)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        log = tokenmill("run", "--engine", "fake", "--metrics", f"127.0.0.1:{s.getsockname()[1]}", "-o", "out", path, expect=1)
    assert "cannot listen on 127.0.0.1:" in log and "in use" in log, log
    assert "ADDRESS:PORT" in tokenmill("run", "--engine", "fake", "--metrics", "here", "-o", "out", path, expect=1)


@test
def a_budget_is_told():
    with open("prices.yaml", "w", encoding="utf-8") as f:
        f.write('currency: USD\nmodels: [{model: "*", input: 1, output: 1000}]\n')
    w = Worker("--engine", SLOW, "--budget-usd", 500, "--prices", "prices.yaml", "--takeover-after", 2, "-o", "out", rows(2000))
    w.until("/readyz", 200)
    time.sleep(1.5) # a heartbeat
    found = samples(ask(w.port)[1])
    assert one(found, "tokenmill_budget_usd") == 500 and 0 < one(found, "tokenmill_spent_usd") < 500, found["tokenmill_spent_usd"]
    w.end()


@test
def a_prometheus_scrapes_it():
    w = Worker("--engine", SLOW, "-o", "out", rows(4000))
    p = Prometheus([w.port])
    try:
        p.until("up", lambda v: v == [1.0])
        p.until("sum(rate(vllm:generation_tokens_total[5s]))", lambda v: v and v[0] > 100)
        p.until("histogram_quantile(0.5, sum by (le) (rate(vllm:e2e_request_latency_seconds_bucket[5s])))", lambda v: v and 0 < v[0] < 100)
        p.until('tokenmill_rows_total{state="ok"}', lambda v: v and v[0] > 0)
        assert p.query("scrape_samples_scraped")[0] > 100
    finally:
        p.end()
        w.end()


if __name__ == "__main__":
    main()
