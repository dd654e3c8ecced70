#!/usr/bin/env python3
"""The shared file systems that other tests run on do what they are there for: an NFS without locks, and GlusterFS seen by two clients."""
import errno
import fcntl
import os
import subprocess
import sys
import time

from e2e import ROOT, SEED, Skip, main, read_bytes, test

sys.path.insert(0, os.path.join(ROOT, "tests/rigs"))
from shared_fs import Gluster, NfsSim, Unavailable  # noqa: E402

CACHE_SECONDS = 1


def opened(kind, *args, **options):
    try:
        return kind(os.path.abspath("shared"), *args, **options)
    except Unavailable as e:
        raise Skip(str(e))


def write(path, data=b"text", flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL):
    fd = os.open(path, flags, 0o666)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def refused(number, function, *args):
    try:
        function(*args)
    except OSError as e:
        assert e.errno == number, f"{errno.errorcode[e.errno]}, expected {errno.errorcode[number]}"
        return
    raise AssertionError(f"it succeeded, expected {errno.errorcode[number]}")


@test
def nfs_is_stale_for_a_while():
    share = opened(NfsSim, SEED, CACHE_SECONDS)
    try:
        a, b = share.mounts
        late = 0
        for i in range(20):  # how long each absence is believed is drawn
            assert not os.path.exists(f"{b}/f{i}") and f"f{i}" not in os.listdir(b)
            write(f"{a}/f{i}")
            assert os.path.exists(f"{a}/f{i}") and f"f{i}" in os.listdir(a), "a host sees what it does itself"
            late += not os.path.exists(f"{b}/f{i}")
        assert late > 10, f"{late} of 20 files were seen late"
        assert len(os.listdir(b)) < 20
        time.sleep(CACHE_SECONDS + 0.1)
        assert len(os.listdir(b)) == 20 and read_bytes(f"{b}/f0") == b"text"
        refused(errno.EEXIST, os.link, f"{b}/f1", f"{b}/f0")
        # close-to-open: opening asks for the attributes, another file under the name is found
        write(f"{a}/f0", b"longer text", os.O_WRONLY)
        assert read_bytes(f"{b}/f0") == b"longer text"
        write(f"{a}/new", b"another file")
        os.rename(f"{a}/new", f"{a}/f0")
        assert read_bytes(f"{b}/f0") == b"another file"
        # a file that the other host removed is stale, one's own can still be read
        with open(f"{a}/f1", "rb", buffering=0) as f, open(f"{b}/f1", "rb", buffering=0) as g:
            os.unlink(f"{a}/f1")
            assert f.read() == b"text"
            refused(errno.ESTALE, g.read)
    finally:
        share.close()


@test
def nfs_has_no_locks():
    share = opened(NfsSim, SEED, CACHE_SECONDS)
    try:
        write(f"{share.mounts[0]}/lock")
        with open(f"{share.mounts[0]}/lock", "r+b") as f, open(f"{share.mounts[0]}/lock", "r+b") as g:
            for lock in (fcntl.flock, fcntl.lockf):
                lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = subprocess.run([sys.executable, "-c", "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)",
                                    f"{share.mounts[0]}/lock"])
            assert child.returncode == 0
    finally:
        share.close()


@test
def nfs_keeps_bytes_until_they_are_synced():
    share = opened(NfsSim, SEED, CACHE_SECONDS)
    try:
        a = share.mounts[0]
        fd = os.open(f"{a}/f", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"x" * 100000)
        assert os.fstat(fd).st_size == 100000 and os.path.getsize(f"{share.backing}/f") == 0
        os.fsync(fd)
        assert os.path.getsize(f"{share.backing}/f") == 100000
        os.write(fd, b"y" * 100)
        assert os.pread(fd, 200000, 0) == b"x" * 100000 + b"y" * 100
        os.close(fd)
        fd = os.open(f"{a}/torn", os.O_WRONLY | os.O_CREAT)
        share.full(True)
        os.write(fd, b"z" * 1000)
        refused(errno.ENOSPC, os.close, fd)
        share.full(False)
        assert os.path.getsize(f"{share.backing}/torn") == 500
    finally:
        share.close()


@test
def nfs_faults():
    """Each kind comes, is counted, and what was done in spite of it is there."""
    share = opened(NfsSim, SEED, CACHE_SECONDS, fault_rate=0.3, read_fault_rate=0.0)
    try:
        a = share.mounts[0]
        write(f"{a}/f")
        share.faults(True)
        lost = answers = 0
        for i in range(300):
            try:
                os.link(f"{a}/f", f"{a}/l{i}")
            except OSError as e:
                answers += 1
                assert e.errno in (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EEXIST), e
                lost += os.path.exists(f"{share.backing}/l{i}")
        share.faults(False)
        counts = share.counts()
        kinds = {kind for operation, kind in counts if operation == "link"}
        assert kinds == {"eio", "estale", "enospc", "lost", "lost-retry"}, counts
        assert lost == counts["link", "lost"] + counts["link", "lost-retry"]
        assert answers >= sum(counts.values()) - counts["link", "estale"] > 30  # the kernel tries once more where a path is stale
        write(f"{a}/g")
        assert share.counts() == counts, "a fault while they were off"
    finally:
        share.close()


RACE = """
import os, sys, time
mount, me, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
time.sleep(max(0, start - time.time()))
won = 0
for i in range(200):
    mine = f"{mount}/{i}-{me}"
    open(mine, "wb").close()  # one for each: GlusterFS allows a file 100 names
    try:
        os.link(mine, f"{mount}/claim-{i}")
        won += 1
    except FileExistsError:
        pass
    os.unlink(mine)
print(won)
"""


@test
def gluster_links_exclusively():
    share = opened(Gluster)
    try:
        start = str(time.time() + 0.5)
        racers = [subprocess.Popen([sys.executable, "-c", RACE, share.mounts[i % 2], str(i), start], stdout=subprocess.PIPE) for i in range(4)]
        won = [int(r.communicate()[0]) for r in racers]
        assert sum(won) == 200 and sorted(won)[-2] > 0, won
    finally:
        share.close()


if __name__ == "__main__":
    main()
