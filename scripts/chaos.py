#!/usr/bin/env python3
"""The chaos test of the job protocol. Eight workers on one job; at random moments they are killed, stopped while a twin with the same index is
started, drained, and left without disk; torn files are dropped where they work. When all faults are injected, what is left is let finish, and:

    every exit status is one of the documented ones        `tokenmill verify` passes
    results.jsonl and errors.jsonl have the bytes of an undisturbed run of one worker
    every row has one record                               the ledger balances

Workers with an even index say that they are on host "a", the others on "b" (TOKENMILL_HOST), so neither knows whether the other's processes
live; where the place has two mounts, each host uses its own. What is started again, and twins, may be on the other host. When a job ends before all faults are injected, another one is begun.

The seed settles the dataset and the order of faults, not what meets what: that is up to the machine. Standard library only.
"""
import argparse
import collections
import gzip
import heapq
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests/rigs")]
from job_check import check, check_ledger, check_poison, check_rows, expected_ids, first_difference  # noqa: E402
from places import KINDS, open_place  # noqa: E402
from shared_fs import Unavailable  # noqa: E402

PROGRAM = os.environ.get("TOKENMILL", os.path.join(ROOT, "build/release/tokenmill"))
TINY = os.path.join(ROOT, "tests/engine/goldens/tiny-chat")
SMOLLM2 = os.path.join(ROOT, "build/models/SmolLM2-135M-Instruct.Q4_1.gguf")
HUMANEVAL = os.path.join(ROOT, "build/data/HumanEval.jsonl.gz")
POISON = "zwieback"
FAKE_TOKENS = (1, 12)

KINDS_OF_FAULTS = {"kill": 6, "twin": 4, "stop": 2, "drain": 2, "kill all": 1, "outage": 2, "torn files": 3}


# ---- the dataset ----

def fake_rows(n, r):
    systems = [" ".join(r.choices("you answer shortly kindly in verse as a pirate with numbers only".split(), k=60)) for _ in range(12)]
    for i in range(n):
        user = " ".join(r.choices("river stone light code list green paper model seven quickly".split(), k=r.randrange(3, 20)))
        yield {"custom_id": f"row-{i}", "method": "POST", "url": "/v1/chat/completions",
               "body": {"model": "any", "messages": [{"role": "system", "content": r.choice(systems)}, {"role": "user", "content": f"{user} {i}"}],
                        "max_tokens": r.randrange(1, 16), "user": f"tenant-{r.randrange(3)}", "metadata": {"project": r.choice(["red", "blue"])}}}


def real_rows(n, r):
    """HumanEval's prompts, cut short."""
    if not os.path.exists(HUMANEVAL):
        raise Unavailable("HumanEval is missing: scripts/fetch.sh humaneval")
    with gzip.open(HUMANEVAL, "rt", encoding="utf-8") as f:
        prompts = [json.loads(line)["prompt"] for line in f]
    for i in range(n):
        yield {"custom_id": f"row-{i}", "method": "POST", "url": "/v1/chat/completions",
               "body": {"model": "any", "messages": [{"role": "user", "content": "Complete this Python function:\n" + prompts[i % len(prompts)][:240]}],
                        "max_tokens": r.randrange(4, 24), "temperature": r.choice([0, 1.0]), "user": f"tenant-{r.randrange(3)}"}}


def write_dataset(path, engine, n, n_poison, r):
    """Returns the ids of poisoned rows. A few rows are at fault."""
    bad = ["{this is no JSON", {"custom_id": "bad-number", "prompt": "x", "max_tokens": "many"}, {"custom_id": "bad-empty", "messages": []},
           {"custom_id": "bad-nothing"}]
    at = dict(zip(sorted(r.sample(range(n), min(n, len(bad)))), bad))
    poisoned = []
    candidates = set(r.sample([i for i in range(n) if i not in at], n_poison))
    with open(path, "w", encoding="utf-8") as f:
        for i, row in enumerate((real_rows if engine == "smollm2" else fake_rows)(n, r)):
            if i in at:
                row = at[i]
            elif i in candidates:
                row["body"]["messages"][-1]["content"] += f" {POISON}"
                poisoned.append(row["custom_id"])
            f.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    return poisoned


# ---- workers ----

class Worker:
    """A process with its index and host; it lives in a slot, except for twins, which nobody starts again."""

    def __init__(self, process, index, host, slot, log):
        self.process, self.index, self.host, self.slot, self.log = process, index, host, slot, log
        self.is_stopped = self.was_killed = self.was_drained = False

    def signal(self, number):
        self.process.send_signal(number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.is_stopped = number == signal.SIGSTOP
        if number == signal.SIGKILL:
            self.was_killed = True
        if number == signal.SIGTERM:
            self.was_drained = True


class Chaos:
    def __init__(self, args, place, directory):
        self.args, self.place, self.directory = args, place, directory
        self.r = random.Random(args.seed)
        self.input = os.path.join(directory, "input.jsonl")
        self.workers = []
        self.due = []  # heap of (time, number, function)
        self.n_due = self.n_started = self.n_faults = 0
        self.counts, self.exits = collections.Counter(), collections.Counter()
        self.is_out = False
        self.job = None

    # -- starting

    def engine_options(self, is_disturbed):
        if self.args.engine != "fake":
            return ["--model", SMOLLM2 if self.args.engine == "smollm2" else TINY, "--memory", "400M", "--threads", 1 if is_disturbed else os.cpu_count()]
        fake = f"fake:tokens={FAKE_TOKENS[0]}-{FAKE_TOKENS[1]},fail=0.01"
        if is_disturbed and self.n_faults < self.args.faults:
            # So slow that the job lasts about as long as faults come; half of the workers' time is lost to them. 4.2 tokens are the mean answer.
            rate = 2 * 4.2 * self.args.rows / (self.args.workers * self.args.interval * self.args.faults)
            fake += f",rate={rate:.0f},batch=64"
        return ["--engine", fake + (f",crash={POISON}" if is_disturbed and self.args.poison else "")]

    def command(self, index, host):
        return [PROGRAM, "run", "--job", self.place.name(self.job, host), *self.engine_options(True), "--worker", index, "--takeover-after",
                self.args.takeover_after, "--publish-seconds", self.args.publish_seconds, "--quiet", self.input]

    def environment(self, host):
        return {**os.environ, **self.place.environment, "TOKENMILL_HOST": "ab"[host]}

    def start(self, index, slot, host=None):
        host = index % 2 if host is None else host
        self.n_started += 1
        log = os.path.join(self.directory, "logs", f"{self.job}-{self.n_started:04d}-worker-{index}")
        with open(log, "wb") as f:
            process = subprocess.Popen([str(a) for a in self.command(index, host)], env=self.environment(host), stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                       cwd=self.directory)
        self.workers.append(Worker(process, index, host, slot, log))

    def start_later(self, seconds, slot):
        index = slot if self.r.random() < 0.75 else self.r.randrange(self.args.workers + 4)
        host = self.r.randrange(2) if self.r.random() < 0.4 else index % 2
        self.later(seconds, lambda: self.start(index, slot, host))

    def later(self, seconds, function):
        self.n_due += 1
        heapq.heappush(self.due, (time.monotonic() + seconds, self.n_due, function))

    # -- faults

    def running(self):
        return [w for w in self.workers if not w.is_stopped and w.process.poll() is None]

    def go_on(self, worker):
        if worker.process.poll() is None:
            worker.signal(signal.SIGCONT)

    def inject(self):
        """One fault; False when it cannot be had at this moment."""
        r, running = self.r, self.running()
        kinds = [k for k in KINDS_OF_FAULTS if k != "outage" or self.place.has_outages]
        kind = r.choices(kinds, [KINDS_OF_FAULTS[k] for k in kinds])[0]
        if kind not in ("torn files", "outage") and not running:
            return False
        if kind == "kill":
            r.choice(running).signal(signal.SIGKILL)
        elif kind == "kill all":
            for worker in [w for w in self.workers if w.process.poll() is None]:
                worker.signal(signal.SIGKILL)
        elif kind == "drain":
            r.choice(running).signal(signal.SIGTERM)
        elif kind == "twin":
            worker = r.choice(running)
            worker.signal(signal.SIGSTOP)
            self.start(worker.index, None, worker.host if r.random() < 0.3 else 1 - worker.host)
            self.later(r.uniform(0.3, 2.5 * self.args.takeover_after), lambda: self.go_on(worker))
        elif kind == "stop":
            worker = r.choice(running)
            worker.signal(signal.SIGSTOP)
            self.later(r.uniform(0.5, 2.5) * self.args.takeover_after, lambda: self.go_on(worker))
        elif kind == "outage":
            if self.is_out:
                return False
            self.set_outage(True)
            self.later(r.uniform(0.3, 2.5), lambda: self.set_outage(False))
        elif kind == "torn files" and not self.tear():
            return False
        self.counts[self.place.outage if kind == "outage" else kind] += 1
        return True

    def set_outage(self, on):
        if on != self.is_out:
            self.place.set_outage(on)
            self.is_out = on

    def tear(self):
        """What writers leave that die halfway: the beginning of a file, or garbage, under a temporary name."""
        files = [f for f in self.place.list(self.job) if ".tmp-" not in f]
        n = 0
        for name in self.r.sample(files, min(len(files), 3)):
            data = self.place.read(self.job, name) or b""
            data = self.r.choice([data[: self.r.randrange(len(data) + 1)], self.r.randbytes(self.r.randrange(2000)), b""])
            n += self.place.write(self.job, f"{name}.tmp-{self.r.randrange(100000)}-{self.r.randrange(1 << 40):x}-{self.r.randrange(9)}", data)
        return n > 0

    # -- the course of a job

    def is_merged(self):
        return self.place.read(self.job, "merged/manifest.json") is not None

    def look_at_exit(self, worker):
        status = worker.process.returncode
        self.exits[status] += 1
        allowed = {0, 75}
        if worker.was_killed:
            allowed.add(-signal.SIGKILL)
        if worker.was_drained:
            allowed |= {143, -signal.SIGTERM}  # the latter before it has set up to drain
        if self.place.may_fail:
            allowed.add(74)
        if self.args.poison:
            allowed |= {-signal.SIGSEGV, 70}
        with open(worker.log, encoding="utf-8", errors="replace") as f:
            log = f.read()
        check(status in allowed and "Sanitizer" not in log,
              f"worker {worker.index} ended with {status}, allowed here: {sorted(allowed)} ({worker.log}):\n{log[-1500:]}")

    def reap(self):
        """Ended workers; their slots are filled again after a moment, as a Job does."""
        for worker in [w for w in self.workers if w.process.poll() is not None]:
            self.workers.remove(worker)
            self.look_at_exit(worker)
            if worker.slot is not None and self.n_faults < self.args.faults:
                self.start_later(self.r.uniform(0, 0.6) + (worker.process.returncode == 0), worker.slot)

    def run_due(self):
        while self.due and self.due[0][0] <= time.monotonic():
            heapq.heappop(self.due)[2]()

    def disturb(self):
        """Until all faults are injected or the job is merged."""
        next_fault = time.monotonic() + self.args.interval
        deadline = time.monotonic() + self.args.timeout
        for slot in range(self.args.workers):
            self.start(slot, slot)
        while self.n_faults < self.args.faults and not self.is_merged():
            check(time.monotonic() < deadline, f"the job makes no end: {self.args.timeout} s, {self.n_faults} faults")
            self.reap()
            self.run_due()
            if time.monotonic() >= next_fault:
                self.n_faults += self.inject()
                next_fault = time.monotonic() + self.args.interval * self.r.uniform(0.5, 1.5)
            time.sleep(0.02)

    def finish(self):
        """Nothing more happens to them: those who run come to an end, and one after the other ends what they left."""
        self.due.clear()
        self.place.faults(False)
        self.set_outage(False)
        for worker in self.workers:
            self.go_on(worker)
        for slot in range(self.args.workers):
            if not any(w.slot == slot for w in self.workers):
                self.start(slot, slot)
        deadline = time.monotonic() + self.args.timeout
        while self.workers:
            check(time.monotonic() < deadline, f"workers {[w.index for w in self.workers]} make no end")
            for worker in [w for w in self.workers if w.process.poll() is not None]:
                self.workers.remove(worker)
                self.look_at_exit(worker)
            time.sleep(0.02)
        while not self.is_merged():
            check(time.monotonic() < deadline, "the job is never merged")
            self.start(0, None, self.r.randrange(2))
            worker = self.workers.pop()
            try:
                worker.process.wait(timeout=self.args.timeout)
            except subprocess.TimeoutExpired:
                self.workers.append(worker)
                check(False, f"the last worker makes no end ({worker.log})")
            self.look_at_exit(worker)
            if not self.is_merged():  # what the dead of the other host hold is free after a while
                time.sleep(min(1, self.args.takeover_after))

    def kill_all(self):
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()

    # -- before and after

    def tokenmill(self, *args, host=0):
        r = subprocess.run([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, env=self.environment(host), cwd=self.directory,
                           timeout=self.args.timeout)
        check(r.returncode == 0, f"tokenmill {args[0]}: exit status {r.returncode}: {r.stderr.decode('utf-8', 'replace')[-1500:]}")

    def undisturbed(self):
        self.tokenmill("run", "-o", "plain", *self.engine_options(False), "--quiet", self.input)
        plain = {}
        for name in ("results.jsonl", "errors.jsonl", "usage.json"):
            with open(os.path.join(self.directory, "plain", name), "rb") as f:
                plain[name] = f.read()
        return plain

    def check_job(self, plain, poisoned):
        time.sleep(self.place.stale_s)  # what the other host did may be unseen until now
        self.tokenmill("verify", self.place.name(self.job, 1), host=1)
        merged = {name: self.place.read(self.job, f"merged/{name}") for name in plain}
        check(None not in merged.values(), f"merged files are missing: {[k for k, v in merged.items() if v is None]}")
        ids = expected_ids(self.input)
        check_rows(self.input, merged["results.jsonl"], merged["errors.jsonl"])
        if poisoned:
            check_poison(ids, set(poisoned), plain, merged)
        else:
            for name in ("results.jsonl", "errors.jsonl"):
                check(merged[name] == plain[name], f"{name} differs from the undisturbed run: {first_difference(merged[name], plain[name])}")
            usage = [{k: v for k, v in json.loads(u["usage.json"])["tokens"].items() if k not in ("cached", "recomputed")} for u in (plain, merged)]
            check(usage[0] == usage[1], f"usage.json counts other tokens than the undisturbed run: {usage}")
        ledger = os.path.join(self.directory, "ledger.db")
        data = self.place.read(self.job, "merged/ledger.db")
        check(data is not None, "merged/ledger.db is missing")
        with open(ledger, "wb") as f:
            f.write(data)
        return check_ledger(ledger, json.loads(merged["usage.json"]), len(ids))


def say(what):
    print(what, flush=True)


def shown(counts):
    return ", ".join(f"{k}: {v}" for k, v in sorted(counts.items(), key=lambda kv: str(kv[0]))) or "none"


def run(args, directory, place):
    chaos = Chaos(args, place, directory)
    os.mkdir(os.path.join(directory, "logs"))
    began = time.monotonic()
    poisoned = write_dataset(chaos.input, args.engine, args.rows, args.poison, chaos.r)
    plain = chaos.undisturbed()
    plain_s = time.monotonic() - began
    say(f"undisturbed: {args.rows} rows in {plain_s:.1f} s")
    if args.engine != "fake":
        # Eight processes share the machine with each other: a job that is disturbed takes longer than one that is not.
        args.interval = min(args.interval, max(0.1, 2 * plain_s / args.faults))
    try:
        for n in range(1, 100):
            chaos.job, began, before = f"job-{n}", time.monotonic(), chaos.n_faults
            place.faults(True)
            chaos.disturb()
            disturbed_s = time.monotonic() - began
            chaos.finish()
            say(f"{chaos.job}: {chaos.n_faults - before} faults in {disturbed_s:.1f} s, merged after {time.monotonic() - began:.1f} s")
            ledger = chaos.check_job(plain, poisoned)
            say(f"{chaos.job}: verified, bytes equal, ledger balances; {shown(ledger)}")
            if chaos.n_faults >= args.faults:
                break
        check(chaos.n_faults >= args.faults, f"only {chaos.n_faults} of {args.faults} faults could be injected")
    finally:
        chaos.kill_all()
        say(f"faults: {shown(chaos.counts)}")
        if place.counts():
            say(f"of the storage: {shown(place.counts())}")
        say(f"exit statuses of {chaos.n_started} workers: {shown(chaos.exits)}")


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rows", type=int, default=20000)
    p.add_argument("--faults", type=int, default=30)
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--place", choices=KINDS, default="local")
    p.add_argument("--engine", choices=("fake", "smollm2", "tiny"), default="fake")
    p.add_argument("--poison", type=int, default=0, metavar="N", help="rows that crash the (fake) engine")
    p.add_argument("--interval", type=float, default=None, help="seconds between two faults (default: 0.4, more for many rows)")
    p.add_argument("--takeover-after", type=float, default=2, help="seconds without a sign of life after which another host's worker counts as gone")
    p.add_argument("--publish-seconds", type=float, default=0.2)
    p.add_argument("--storage-fault-rate", type=float, default=0.01, help="share of operations (nfs) or requests (s3) that fail by themselves")
    p.add_argument("--timeout", type=float, default=None, help="seconds after which a job that does not end is a failure (default: 300, more for many rows)")
    p.add_argument("--directory", help="where to work (default: a temporary directory; it is kept on failure)")
    args = p.parse_args()
    if args.poison and args.engine != "fake":
        p.error("--poison needs the fake engine")
    if args.interval is None:
        args.interval = max(0.4, args.rows / 6000 / args.faults)
    if args.timeout is None:
        args.timeout = 300 + args.rows / 500
    return args


def main():
    args = parse_args()
    directory = args.directory or tempfile.mkdtemp(prefix="tokenmill-chaos-")
    os.makedirs(directory, exist_ok=True)
    began, place = time.monotonic(), None
    say(f"chaos: seed {args.seed}, {args.rows} rows, {args.faults} faults, {args.workers} workers, place {args.place}, engine {args.engine}, "
        f"{args.poison} poisoned rows")
    try:
        if args.engine == "smollm2" and not os.path.exists(SMOLLM2):
            raise Unavailable("SmolLM2 is missing: scripts/fetch.sh smollm2")
        place = open_place(os.path.join(directory, "place"), args)
        run(args, directory, place)
    except Unavailable as e:
        say(f"skip: {e}")
        status = 2
    except (AssertionError, OSError, subprocess.TimeoutExpired, ValueError) as e:
        say(f"FAIL after {time.monotonic() - began:.1f} s, seed {args.seed}: {e}")
        status = 1
    else:
        say(f"OK in {time.monotonic() - began:.1f} s")
        status = 0
    if status == 1:
        keep(place, directory)
    if place:
        place.close()
    if status != 1 and not args.directory:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(status)


def keep(place, directory):
    """What a mount shows is gone with it: a copy stays."""
    if place and place.behind and os.path.ismount(place.behind):
        shutil.copytree(place.behind, os.path.join(directory, "kept"), symlinks=True, dirs_exist_ok=True)
    say(f"kept: {directory}")


if __name__ == "__main__":
    main()
