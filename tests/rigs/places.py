"""Where a job under test may live, as its workers on two "hosts" name it, and as the test looks at it past all caches and faults.

    open_place(directory, options)    by options.place (one of KINDS), .seed, .rows, .storage_fault_rate. shared_fs.Unavailable(reason) where it
                                      cannot be had
"""
import errno
import os
import random
import sys

from shared_fs import ROOT, Gluster, NfsSim, Plain, Tmpfs, Unavailable

sys.path.append(os.path.join(ROOT, "tests/e2e"))
import s3_servers  # noqa: E402
from e2e import Skip  # noqa: E402

CACHE_SECONDS = 3  # of NFS's attributes, as acregmin has it
KINDS = ("local", "nfs", "gluster", "s3-moto", "s3-versitygw")


class DirectoryPlace:
    """On a share of shared_fs. `behind` is the directory without anything between: what is read and damaged there is what is stored."""

    outage = "full disk"

    def __init__(self, share, behind, stale_s=0):
        self.share, self.behind, self.stale_s = share, behind, stale_s
        self.has_outages = self.may_fail = getattr(share, "can_fill", False)
        self.environment = {}

    def name(self, job, host):
        return os.path.join(self.share.mounts[host], job)

    def read(self, job, name):
        """Bytes, None where it is not there."""
        for last in (False, False, True):
            try:
                with open(os.path.join(self.behind, job, name), "rb") as f:
                    return f.read()
            except FileNotFoundError:
                return None
            except OSError as e:
                if e.errno != errno.ESTALE or last:  # it was replaced meanwhile (GlusterFS)
                    raise

    def list(self, job):
        """Names of all files below the job."""
        top = os.path.join(self.behind, job)
        return sorted(os.path.relpath(os.path.join(d, f), top) for d, _, files in os.walk(top) for f in files)

    def write(self, job, name, data):
        """Not through the job's protocol: as a writer leaves it that died halfway. False where there is no room."""
        try:
            with open(os.path.join(self.behind, job, name), "wb") as f:
                f.write(data)
            return True
        except OSError:
            return False

    def faults(self, on):
        """What fails by itself now and then."""
        if hasattr(self.share, "faults"):
            self.share.faults(on)

    def counts(self):
        return {f"{operation} {kind}": n for (operation, kind), n in self.share.counts().items()} if hasattr(self.share, "counts") else {}

    def set_outage(self, on):
        self.share.full(on)

    def close(self):
        self.share.close()


class S3Place:
    """A bucket behind a proxy that spoils some requests; the test itself asks the server."""

    outage = "storage away"
    has_outages = may_fail = True
    behind = None
    stale_s = 0

    def __init__(self, server, seed, rate):
        self.server, self.random, self.rate = server, random.Random(seed), rate
        self.is_faulty = self.is_away = False
        server.create_bucket("chaos")
        self.proxy = s3_servers.flaky_proxy(server, seed, 0, chooser=self._choose, serial=True)
        self.environment = self.proxy.env

    def _choose(self, method, path):
        if self.is_away:
            return "slow_down"
        return self.random.choice(s3_servers.FAULTS) if self.is_faulty and self.random.random() < self.rate else None

    def name(self, job, host):
        return f"s3://chaos/{job}"

    def read(self, job, name):
        status, _, body = self.server.request("GET", f"/chaos/{job}/{name}")
        assert status in (200, 404), f"GET {job}/{name}: {status}"
        return body if status == 200 else None

    def list(self, job):
        return [key[len(job) + 1:] for key in self.server.keys("chaos", f"{job}/")]

    def write(self, job, name, data):
        return False  # a store of whole objects has no torn ones

    def faults(self, on):
        self.is_faulty = on

    def counts(self):
        return {k: v for k, v in self.proxy.counts.items() if k}

    def set_outage(self, on):
        self.is_away = on

    def close(self):
        self.proxy.stop()
        self.server.stop()


def open_local(directory, n_rows):
    """A disk of its own where that is permitted, so that it can be full."""
    try:
        return DirectoryPlace(Tmpfs(directory, (256 << 20) + n_rows * 8192), directory)
    except Unavailable:
        return DirectoryPlace(Plain(directory), directory)


def open_place(directory, options):
    kind, seed, rate = options.place, options.seed, options.storage_fault_rate
    if kind == "local":
        return open_local(directory, options.rows)
    if kind == "nfs":
        share = NfsSim(directory, seed, CACHE_SECONDS, fault_rate=rate, read_fault_rate=rate / 10)  # a read comes in many operations
        return DirectoryPlace(share, share.backing, stale_s=CACHE_SECONDS + 0.1)
    if kind == "gluster":
        share = Gluster(directory)
        return DirectoryPlace(share, share.mounts[0], stale_s=1.1)  # its caches last a second
    try:
        return S3Place(s3_servers.start_moto() if kind == "s3-moto" else s3_servers.start_versitygw(directory), seed, rate)
    except Skip as e:
        raise Unavailable(str(e)) from e
