#!/usr/bin/env python3
"""A store on shared file systems seen by several hosts: creation has one winner, and what was stored is there, whatever the storage answers."""
import os
import random
import subprocess
import sys
import threading
import time

from e2e import ROOT, SEED, Skip, main, test

sys.path.insert(0, os.path.join(ROOT, "tests/rigs"))
from shared_fs import Gluster, NfsSim, Plain, Unavailable  # noqa: E402

TOOL = os.path.join(os.path.dirname(os.environ.get("TOKENMILL", os.path.join(ROOT, "build/release/tokenmill"))), "tests/tool_store")
CACHE_SECONDS = 1


class Store:
    """tool_store on a place: an operation in, its answer out."""

    def __init__(self, place):
        self.process = subprocess.Popen([TOOL, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *operation):
        """The code and the text; a failure of the store is an exception."""
        self.process.stdin.write(" ".join(operation) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"{operation}: tool_store ended with {self.process.wait()}"
        code, _, text = answer.rstrip("\n").partition(" ")
        assert code != "-1", f"{operation}: {text}"
        return int(code), text

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


def opened(kind, *args, **options):
    try:
        return kind(os.path.abspath("shared"), *args, **options)
    except Unavailable as e:
        raise Skip(str(e))


def in_threads(jobs):
    """Each job in a thread of its own; the first failure of any is raised."""
    failures = []

    def guarded(job):
        try:
            job()
        except BaseException as e:
            failures.append(e)
    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def race(share, n):
    """Four processes over two hosts create the same names with text of their own."""
    stores = [Store(f"{share.mounts[k % 2]}/job") for k in range(4)]
    won = [set() for _ in stores]
    barrier = threading.Barrier(len(stores))

    def racer(k):
        stores[k]("prepare")
        for i in range(n):
            barrier.wait(timeout=120)
            if stores[k]("create", f"claims/c-{i}", f"mine-{k}")[0] == 1:
                won[k].add(i)
    try:
        in_threads([lambda k=k: racer(k) for k in range(len(stores))])
    finally:
        if hasattr(share, "faults"):
            share.faults(False)
    time.sleep(CACHE_SECONDS + 0.1)
    for i in range(n):
        winners = [k for k in range(len(stores)) if i in won[k]]
        assert len(winners) == 1, f"name {i} of {n} has the winners {winners}"
        for store in stores[:2]:
            assert store("get", f"claims/c-{i}") == (1, f"mine-{winners[0]}")
    assert sum(len(w) > 0 for w in won) > 1, f"the race had one runner: {[len(w) for w in won]}"
    for store in stores:
        store.close()


def check_host(store, mine, others, r, n):
    """Random operations on names that only this host changes, each answer held against what it must be; the other host's are only read."""
    held = {}
    for i in range(n):
        name = f"{mine}/{r.randrange(3)}/f{r.randrange(6)}"
        text = f"{mine}-{i}-" + "x" * r.choice([0, 10, 10000])
        kind = r.randrange(8)
        if kind < 2:
            store("put", name, text)
            held[name] = text
        elif kind == 2:
            code, _ = store("create", name, text)
            assert code == (name not in held), f"create {name} says {code}, it is {'' if name in held else 'not '}there"
            held.setdefault(name, text)
        elif kind == 3:
            store("remove", name)
            held.pop(name, None)
        elif kind == 4 or kind == 5:
            expected = (1, held[name]) if name in held else (0, "")
            assert store(r.choice(["get", "fetch"]), name) == expected, f"step {i}: {name} is not as it was written"
        elif kind == 6:
            names = sorted(k[len(mine) + 1:] for k in held)
            listed = [name for name in store("list_tree", mine)[1].split() if ".tmp-" not in name]  # one whose removal failed stays
            assert listed == names, f"step {i}: {mine} holds {names}, {listed} were listed"
        else:
            code, found = store("get", name.replace(mine, others, 1))
            assert code == 0 or found.startswith(others + "-") and found.rstrip("x").endswith("-"), "a torn file of the other host"
    return held


def exercise(share, n):
    stores = [Store(f"{mount}/job") for mount in share.mounts]
    held = [None, None]

    def host(k):
        stores[k]("prepare")
        held[k] = check_host(stores[k], "ab"[k], "ba"[k], random.Random(SEED * 10 + k), n)
    try:
        in_threads([lambda k=k: host(k) for k in range(2)])
    finally:
        if hasattr(share, "faults"):
            share.faults(False)
    time.sleep(CACHE_SECONDS + 0.1)
    for k in range(2):
        for name, text in held[k].items():
            assert stores[1 - k]("get", name) == (1, text), f"{name} is not what the other host wrote"
    for store in stores:
        store.close()


@test
def local():
    share = opened(Plain)
    race(share, 200)
    exercise(share, 2000)


@test
def nfs_race():
    share = opened(NfsSim, SEED, CACHE_SECONDS, fault_rate=0.02, read_fault_rate=0.005)
    try:
        share.faults(True)
        race(share, 200)
        assert sum(share.counts().values()) > 50, share.counts()
    finally:
        share.close()


@test
def nfs_exercise():
    share = opened(NfsSim, SEED, CACHE_SECONDS, fault_rate=0.02, read_fault_rate=0.005)
    try:
        share.faults(True)
        exercise(share, 1000)
        assert sum(share.counts().values()) > 50, share.counts()
    finally:
        share.close()


@test
def gluster():
    share = opened(Gluster)
    try:
        race(share, 200)
        exercise(share, 500)
    finally:
        share.close()


if __name__ == "__main__":
    main()
