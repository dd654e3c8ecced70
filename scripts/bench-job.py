#!/usr/bin/env python3
"""Called by bench-job.sh. Rows of about 1 KB in and 1 KB out, local disk. Each step's wall and CPU seconds, peak memory; the load of the machine is told,
as other work on it makes wall times longer. Standard library only."""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "build/release/tokenmill")
MODEL = os.path.join(ROOT, "build/models/SmolLM2-135M-Instruct.Q4_1.gguf")
ENGINE = "fake:tokens=250"  # SmolLM2's tokens have about 4 bytes
BYTES_ENGINE = "fake:tokens=1000"  # without a model each byte is one


class Step:
    """One command: wall_s, cpu_s, peak_mb."""

    def __init__(self, args):
        print(f"  {' '.join(args)}", file=sys.stderr, flush=True)
        began = time.monotonic()
        with open("log", "wb") as log:
            process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=log, stdout=subprocess.PIPE)
        self.out = process.stdout.read().decode()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        self.wall_s = time.monotonic() - began
        if process.returncode != 0:
            sys.exit(f"{' '.join(args)}: exit status {process.returncode}\n{open('log', encoding='utf-8', errors='replace').read()}")
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.peak_mb = usage.ru_maxrss / 1024

    def cost(self):
        return f"{self.wall_s:.1f} s, {self.cpu_s:.1f} s of CPU, {self.peak_mb:.0f} MB"


def last_attempt(job):
    """What the attempt that ended last left in events/, and how long it worked."""
    events = [json.load(open(f, encoding="utf-8")) for f in glob.glob(f"{job}/events/*.json")]
    last = max(events, key=lambda e: e["updated_unix_ms"])
    return last, last["wall_s"] - last["load_s"]


def is_flat(part, whole):
    """Four times the rows. Below some 150 MB memory still grows into its limits."""
    return whole.peak_mb < max(part.peak_mb * 1.25, 150)


class Bench:
    def __init__(self, a):
        self.rows, self.table = a.rows, []
        self.model = a.model if a.model and os.path.exists(a.model) else None
        self.engine = ENGINE if self.model else BYTES_ENGINE
        self.args = ["--model", self.model] if self.model else []

    def add(self, what, figure, goal, met):
        self.table.append((what, figure, goal, "yes" if met else "NO"))
        print(f"{what}: {figure}", file=sys.stderr, flush=True)

    def generate(self, path, n):
        with open(path, "wb") as f:
            subprocess.run([sys.executable, os.path.join(ROOT, "scripts/make-rows.py"), str(n), "--bytes", "1000"], stdout=f, check=True)
        return os.path.getsize(path)

    def plan(self):
        size = self.generate("all.jsonl", self.rows)
        self.generate("part.jsonl", self.rows // 4)
        part, whole = (Step([PROGRAM, "plan", "--engine", self.engine, *self.args, "--job", job, f"{job}.jsonl"]) for job in ("part", "all"))
        tokens = "SmolLM2's tokenizer" if self.model == MODEL else os.path.basename(self.model) if self.model else "one token for each byte"
        goal_s = 60 * self.rows / 1e6
        flat = is_flat(part, whole)
        self.add(f"plan {self.rows} rows, {size / 1e9:.2f} GB, {tokens}", f"{whole.cost()} ({part.peak_mb:.0f} MB for a quarter)",
                 f"{goal_s:g} s, 300 MB, flat", whole.wall_s < goal_s and whole.peak_mb < 300 and flat)

    def run(self):
        _, whole = (Step([PROGRAM, "run", "--progress", "none", "-o", job]) for job in ("part", "all"))
        last, work_s = last_attempt("all")
        rate = last["rows"] / work_s
        self.add("run and publish, without plan and merge", f"{rate:.0f} rows/s, publish {100 * last['publish_s'] / work_s:.0f} %, {whole.peak_mb:.0f} MB",
                 "20,000 rows/s", rate > 20000)

    def commit(self):
        """At the speed of a real engine on a small machine: 100 rows a second."""
        self.generate("few.jsonl", 2000)
        engine = f"{self.engine},rate={25000 if self.model else 100000}"
        Step([PROGRAM, "run", "--progress", "none", "--engine", engine, *self.args, "-o", "few", "few.jsonl"])
        last, work_s = last_attempt("few")
        share = last["publish_s"] / work_s
        self.add("commit path at 100 rows/s", f"{100 * share:.2f} % of {work_s:.0f} s", "1 %", share < 0.01)

    def resume(self):
        tool = os.path.join(ROOT, "build/release/tests/tool_resume")
        subprocess.run([tool, "prepare", "large", "100000"], check=True)
        r = json.loads(Step([tool, "measure", "large"]).out)
        self.add(f"resume a shard with {r['rows_done']} finished rows", f"{r['wall_s']:.2f} s, {r['peak_bytes'] / 1e6:.0f} MB", "2 s", r["wall_s"] < 2)

    def results(self):
        for job in ("part", "all"):
            shutil.rmtree(f"{job}/merged")
        n_bytes = 0
        for verb in ("merge", "verify"):
            part = Step([PROGRAM, verb, "part"])
            whole = Step([PROGRAM, verb, "all"])
            n_bytes = sum(os.path.getsize(f"all/merged/{f}") for f in ("results.jsonl", "errors.jsonl"))
            rate, cpu_rate = n_bytes / whole.wall_s / 1e6, n_bytes / whole.cpu_s / 1e6
            self.add(f"{verb} {n_bytes / 1e9:.2f} GB", f"{rate:.0f} MB/s ({cpu_rate:.0f} per second of CPU), {whole.peak_mb:.0f} MB ({part.peak_mb:.0f} for a quarter)",
                     "300 MB/s, flat", rate > 300 and is_flat(part, whole))

    def print(self):
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[1]:.1f} at the end")
        widths = [max(len(row[i]) for row in self.table) for i in range(4)]
        for row in [("what", "figure", "goal", "met"), *self.table]:
            print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rows", type=int, default=1000000)
    p.add_argument("--model", default=MODEL, help="whose tokenizer is used (default: SmolLM2's if it was fetched)")
    p.add_argument("--dir", help="where to work (default: a new directory under TMPDIR)")
    p.add_argument("--keep", action="store_true")
    a = p.parse_args()
    a.model = os.path.abspath(a.model)
    directory = tempfile.mkdtemp(prefix="tokenmill-bench-", dir=a.dir)
    os.chdir(directory)
    b = Bench(a)
    try:
        for step in (b.plan, b.run, b.commit, b.resume, b.results):
            step()
        b.print()
    finally:
        os.chdir(ROOT)
        if a.keep:
            print(f"kept: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    sys.exit(any(row[3] == "NO" for row in b.table))


if __name__ == "__main__":
    main()
