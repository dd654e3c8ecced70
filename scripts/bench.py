#!/usr/bin/env python3
"""Speed of `tokenmill run` beside llama.cpp's llama-server: same GGUF file, same prompts, same number of generated tokens, same machine,
in turns. What counts is the ratio: machines are shared, and an absolute time drifts by a factor of two within minutes.

    scripts/bench.py [--workloads A,B,C,D] [--rows N] [--rounds 3] [--model FILE] [--threads N] [--engines tokenmill,llama] [--json FILE]
    scripts/bench.py --tune A          every llama-server setting of the table below, once

The time of tokenmill is that of the whole process, model loading and merging included. The time of llama-server starts when it is ready. Left to
itself it computes a shared prompt again in every slot; so here it computes the shared prompt once, saves the slot's state, restores that into every
slot, and each slot then gets its rows one after another ("shared" below; the time for it is counted). `scripts/bench.sh` builds both first.
"""
import argparse
import concurrent.futures
import datetime
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import humaneval
import workloads

ROOT = humaneval.ROOT
SERVER = os.path.join(ROOT, "build/peers/llama/bin/llama-server")
PROGRAM = os.environ.get("TOKENMILL", os.path.join(ROOT, "build/release/tokenmill"))
MODEL = os.path.join(ROOT, "build/models/SmolLM2-135M-Instruct.Q4_1.gguf")

# llama-server's settings for a workload, best first: slots, shared prompts restored into the slots?, further options. (--tune WORKLOAD
# measures them all.)
SETTINGS = {
    "A": [(64, True, []), (64, True, ["-fa", "off"]), (32, True, []), (64, False, []), (64, True, ["-kvu"])],
    "B": [(64, False, []), (128, False, []), (64, False, ["-fa", "off"]), (32, False, []), (64, False, ["-kvu"])],
    "C": [(16, False, []), (4, False, []), (16, False, ["-fa", "off"]), (16, False, ["-ub", "2048"])],
    "D": [(64, True, []), (32, True, []), (64, True, ["-fa", "off"])],
}
SLOT_TOKENS = {"A": 1088, "B": 256, "C": 1024, "D": 512}


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return next((int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:")), 0)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


running = []  # server processes


def stop(*_):
    """Not before the requests under way, which would go on for minutes: without the server they end at once."""
    for process in running:
        process.kill()
    sys.exit(143)


class LlamaServer:
    """A running llama-server; `with` ends it."""

    def __init__(self, args, setting, slot_tokens):
        self.slots, self.shares, options, wait_policy = setting
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        self.states = tempfile.TemporaryDirectory(prefix="slots-", dir=os.path.join(ROOT, "build"))
        command = [SERVER, "-m", args.model, "--host", "127.0.0.1", "--port", str(self.port), "-t", str(args.threads), "-np", str(self.slots),
                   "-c", str(self.slots * slot_tokens), "--slot-save-path", self.states.name, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
                                        env={**os.environ, "OMP_WAIT_POLICY": wait_policy})
        running.append(self.process)

    def __enter__(self):
        try:
            deadline = time.monotonic() + 120
            while True:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.log.seek(0)
                    raise RuntimeError("llama-server did not start: " + self.log.read().decode("utf-8", "replace")[-2000:])
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                    connection.request("GET", "/health")
                    if connection.getresponse().status == 200:
                        return self
                except OSError:
                    pass
                time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        running.remove(self.process)
        self.log.close()
        self.states.cleanup()

    def ask(self, body, path="/v1/chat/completions"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = json.load(response)
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"llama-server: {data}")
        return data

    def answer_sharing(self, rows):
        """Rows whose custom_id begins with the same two parts share a prompt (all of A, a header's rows of D). It is computed once and
        restored into the group's slots; each slot answers its rows in order. D's come in pairs: the second phrasing finds the first."""
        unit = 2 if rows[0]["custom_id"].startswith("D/") else 1
        groups = {}
        for row in rows:
            groups.setdefault(tuple(row["custom_id"].split("/")[:2]), []).append(row)
        n = max(1, self.slots // len(groups))
        queues = []
        for g, members in enumerate(groups.values()):
            self.ask({**members[0]["body"], "max_tokens": 1, "id_slot": g * n})
            self.ask({"filename": f"group{g}"}, f"/slots/{g * n}?action=save")
            for k in range(n):
                if k > 0:
                    self.ask({"filename": f"group{g}"}, f"/slots/{g * n + k}?action=restore")
                queues.append((g * n + k, [row for i, row in enumerate(members) if i // unit % n == k]))
        with concurrent.futures.ThreadPoolExecutor(len(queues)) as pool:
            answers = pool.map(lambda queue: [self.ask({**row["body"], "id_slot": queue[0]}) for row in queue[1]], queues)
            return [a for answer in answers for a in answer]

    def answer(self, rows):
        if self.shares:
            return self.answer_sharing(rows)
        with concurrent.futures.ThreadPoolExecutor(self.slots) as pool:
            return list(pool.map(self.ask, [row["body"] for row in rows]))


def run_llama(args, name, rows, setting):
    with LlamaServer(args, setting, SLOT_TOKENS[name]) as server:
        start = time.monotonic()
        answers = server.answer(rows)
        wall = time.monotonic() - start
        memory = peak_bytes(server.process.pid)
    usage = [a["usage"] for a in answers]
    return {"wall_s": wall, "output_tokens": sum(u["completion_tokens"] for u in usage), "prompt_tokens": sum(u["prompt_tokens"] for u in usage),
            "cached_tokens": sum(u.get("prompt_tokens_details", {}).get("cached_tokens", 0) for u in usage), "peak_bytes": memory}


def run_tokenmill(args, name, rows, _setting):
    directory = tempfile.mkdtemp(prefix="bench-", dir=os.path.join(ROOT, "build"))
    try:
        path = os.path.join(directory, "rows.jsonl")
        humaneval.write_rows(rows, path)
        out = os.path.join(directory, "out")
        command = [PROGRAM, "run", "--model", args.model, "--threads", str(args.threads), "--quiet", *args.option, "-o", out, path]
        start = time.monotonic()
        with open(os.path.join(directory, "log"), "w+b") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - start
            log.seek(0)
            if status != 0:
                raise RuntimeError("tokenmill: " + log.read().decode("utf-8", "replace")[-2000:])
        totals = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
        with open(os.path.join(out, "results.jsonl"), encoding="utf-8") as f:
            for line in f:
                u = json.loads(line)["response"]["body"]["usage"]
                totals["prompt_tokens"] += u["prompt_tokens"]
                totals["completion_tokens"] += u["completion_tokens"]
        with open(os.path.join(out, "usage.json"), encoding="utf-8") as f:
            totals["cached_tokens"] = json.load(f)["tokens"]["cached"]
    finally:
        shutil.rmtree(directory)
    return {"wall_s": wall, "output_tokens": totals["completion_tokens"], "prompt_tokens": totals["prompt_tokens"],
            "cached_tokens": totals["cached_tokens"], "peak_bytes": usage.ru_maxrss * 1024}


ENGINES = {"tokenmill": run_tokenmill, "llama": run_llama}


def describe(name, engine, r):
    print(f"{name} {engine:14} {r['output_tokens'] / r['wall_s']:8.1f} output tok/s {(r['output_tokens'] + r['prompt_tokens']) / r['wall_s']:8.1f} in all "
          f"{r['wall_s']:7.1f} s  {r['output_tokens']} output, {r['prompt_tokens']} prompt ({r['cached_tokens']} cached)  "
          f"peak {r['peak_bytes'] / 1e6:.0f} MB", flush=True)


def print_header(args):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip() or "unknown"
    print(f"{datetime.date.today()}, {cpu}, {args.threads} threads, commit {commit}, {os.path.basename(args.model)}", flush=True)


def best_waiting(args, name, rows):
    """llama-server's first setting with both ways of waiting: the faster one as a setting, and its result."""
    tried = []
    for policy in ("active", "passive"):
        setting = (*SETTINGS[name][0], policy)
        r = run_llama(args, name, rows, setting)
        describe(name, f"llama, {policy}", r)
        tried.append((r["wall_s"], setting, r))
    return min(tried, key=lambda t: t[0])[1:]


def compare(args):
    table = []
    for name in args.workloads.split(","):
        rows = workloads.rows_of(name, args.rows)
        runs = {engine: [] for engine in args.engines.split(",")}
        setting = None
        for _ in range(args.rounds):
            for engine, results in runs.items():
                if engine == "llama" and setting is None:
                    setting, r = best_waiting(args, name, rows)
                else:
                    r = ENGINES[engine](args, name, rows, setting)
                    describe(name, engine, r)
                results.append(r)
        n_output = {r["output_tokens"] for results in runs.values() for r in results}
        if len(n_output) != 1:
            print(f"{name}: the engines did not generate the same number of tokens: {sorted(n_output)}")
        table.append((name, len(rows), {e: {"output_tok_s": statistics.median(r["output_tokens"] / r["wall_s"] for r in results),
                                            "peak_bytes": max(r["peak_bytes"] for r in results), "runs": results} for e, results in runs.items()}))
    print(f"\nMedians of {args.rounds} rounds, output tok/s (peak memory)")
    for name, n_rows, medians in table:
        cells = "  ".join(f"{e} {m['output_tok_s']:7.1f} ({m['peak_bytes'] / 1e6:.0f} MB)" for e, m in medians.items())
        ratio = f"  ratio {medians['tokenmill']['output_tok_s'] / medians['llama']['output_tok_s']:.2f}" if {"tokenmill", "llama"} <= set(medians) else ""
        print(f"{name} ({n_rows} rows)  {cells}{ratio}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({name: medians for name, _, medians in table}, f, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="A,B,C,D")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--engines", default="tokenmill,llama")
    parser.add_argument("--option", action="append", default=[], help="a further option of tokenmill run, as in --option=--math=f32")
    parser.add_argument("--json")
    parser.add_argument("--tune", metavar="WORKLOAD")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    print_header(args)
    if args.tune:
        rows = workloads.rows_of(args.tune, args.rows)
        for setting in SETTINGS[args.tune]:
            for policy in ("active", "passive"):
                describe(args.tune, f"-np {setting[0]}{' shared' if setting[1] else ''} {' '.join(setting[2])} {policy}",
                         run_llama(args, args.tune, rows, (*setting, policy)))
    else:
        compare(args)


if __name__ == "__main__":
    main()
