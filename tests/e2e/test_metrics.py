#!/usr/bin/env python3
"""What a worker tells of itself over HTTP, read by promtool and by a Prometheus where they are installed."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from e2e import PROGRAM, Skip, main, test, tokenmill, write_rows

# no proxy: it is this machine that is asked
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(port, path="/metrics"):
    """(status, body)"""
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def samples(text):
    """name -> [(labels, value)]; each series once, each name with one TYPE before it."""
    found, types = {}, {}
    for line in text.splitlines():
        if line.startswith("#"):
            _, word, name, rest = line.split(" ", 3)
            if word == "TYPE":
                assert name not in types, f"{name} has two types"
                types[name] = rest
            continue
        m = re.fullmatch(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (\S+)", line)
        assert m, f"not a sample: {line}"
        name, labels, value = m.group(1), dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m.group(2))), float(m.group(3))
        assert types.get(name) or types.get(re.sub("_(bucket|sum|count)$", "", name)) == "histogram", f"{name} has no type"
        assert labels not in [k for k, _ in found.get(name, [])], f"twice: {line}"
        found.setdefault(name, []).append((labels, value))
    return found


def one(found, name, **labels):
    values = [v for k, v in found[name] if all(k.get(a) == b for a, b in labels.items())]
    assert len(values) == 1, f"{name} {labels}: {values}"
    return values[0]


class Worker:
    def __init__(self, *args, env=None):
        self.log_name = "worker.log"
        open(self.log_name, "w").close()
        self.process = subprocess.Popen([PROGRAM, "run", "--metrics", "127.0.0.1:0", *map(str, args)], stdin=subprocess.DEVNULL,
                                        stderr=open(self.log_name, "ab"), env={**os.environ, **(env or {})})
        deadline = time.monotonic() + 60
        while not (m := re.search(r"metrics: port (\d+)", self.log())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.01)
        self.port = int(m.group(1))

    def log(self):
        return open(self.log_name, encoding="utf-8", errors="replace").read()

    def end(self, number=signal.SIGTERM, expect=143):
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == expect, self.log()

    def until(self, path, status, seconds=30):
        deadline = time.monotonic() + seconds
        while (got := ask(self.port, path))[0] != status:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"{path} says {got}"
            time.sleep(0.02)
        return got[1]


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


class Prometheus:
    """A real one that scrapes targets each second."""

    def __init__(self, ports, rules=None):
        if not shutil.which("prometheus"):
            raise Skip("Prometheus is not installed")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                  "scrape_configs": [{"job_name": "tokenmill", "static_configs": [{"targets": [f"127.0.0.1:{p}" for p in ports]}]}],
                  "rule_files": [os.path.abspath(rules)] if rules else []}
        with open("prometheus.yml", "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.process = subprocess.Popen(["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus-data",
                                         f"--web.listen-address=127.0.0.1:{self.port}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=open("prometheus.log", "wb"))

    def query(self, expression):
        """The values of the answer."""
        status, body = ask(self.port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert status == 200, body
        return [float(r["value"][1]) for r in json.loads(body)["data"]["result"]]

    def until(self, expression, condition, seconds=40):
        deadline, got = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            try:
                got = self.query(expression)
                if condition(got):
                    return got
            except (OSError, urllib.error.URLError):
                pass
            assert self.process.poll() is None, open("prometheus.log", encoding="utf-8", errors="replace").read()[-2000:]
            time.sleep(0.2)
        raise AssertionError(f"{expression} is {got}")

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=30)


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
