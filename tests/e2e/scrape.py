"""What tests of metrics share: a worker that serves them, a reader of the text format, and a real Prometheus that scrapes."""
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

from e2e import PROGRAM, Skip

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


class Prometheus:
    """A real one that scrapes targets each second."""

    def __init__(self, ports, rules=None, labels=None):
        if not shutil.which("prometheus"):
            raise Skip("Prometheus is not installed")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                  "scrape_configs": [{"job_name": "tokenmill", "static_configs": [{"targets": [f"127.0.0.1:{p}" for p in ports], "labels": labels or {}}]}],
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
