# SPDX-License-Identifier: GPL-2.0
"""What checkpoints cost: full, increment, fractions. Each returns one line of ratios from one run."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

MIB = 1 << 20


class Load:
    """tests/targets/memload.c"""

    def __init__(self, args, mib, *attached):
        self.child = subprocess.Popen([os.path.join(args.build, "tests/targets/memload"), str(mib), *map(str, attached)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.child.pid
        self.mib = mib
        self.child.stdout.readline()

    def ask(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def checkpoint(args, load, folder, *more):
    return versions(args, load.pid, folder, *more)[-1]


def versions(args, pid, folder, *more):
    """What icp-bpf says of each version; its errors are for the user."""
    out = subprocess.run([os.path.join(args.build, "icp-bpf"), "checkpoint", "--no-restart", "--pid", str(pid), "--dir", folder, "--json",
                          *more], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def repository():
    return tempfile.TemporaryDirectory(dir="/dev/shm", prefix="icp-bench-")


def bench_full(args):
    """1 GiB to tmpfs, with a writer of 50,000 random pages a second, against memcpy and a plain write of the same bytes."""
    copies, writes, totals, pauses, stale = [], [], [], [], []
    with Load(args, 1024) as load, repository() as folder:
        for i in range(max(3, args.pairs)):
            repo = os.path.join(folder, str(i))
            copies.append(float(load.ask("memcpy")))
            writes.append(float(load.ask("write " + os.path.join(folder, "plain"))))
            load.ask("rate 50000")
            result = checkpoint(args, load, repo)
            load.ask("rate 0")
            totals.append(result["total_seconds"] * 1e3)
            pauses.append(result["pause_seconds"] * 1e3)
            stale.append(result["stale_pages"] / result["pages"])
            shutil.rmtree(repo)
            print(f"  memcpy {copies[-1]:.0f} ms, write {writes[-1]:.0f} ms, checkpoint {totals[-1]:.0f} ms, pause "
                  f"{pauses[-1]:.2f} ms, stale {stale[-1]:.1%}, {result['found_by']}", flush=True)
    return (f"full checkpoint of 1 GiB under 50,000 writes/s: {statistics.median(t / c for t, c in zip(totals, copies)):.1f}x "
            f"memcpy, {statistics.median(t / w for t, w in zip(totals, writes)):.2f}x a plain write of it; pause median "
            f"{statistics.median(pauses):.2f} ms; stale copies {statistics.median(stale):.1%}")


def bench_increment(args):
    """The pause of an increment of 1000 dirty pages at 1 and at 8 GiB, found by a session's events."""
    pause, total = {}, {}
    for mib in (1024, 8192):
        with Load(args, mib) as load, repository() as folder:
            repo = os.path.join(folder, "r")
            checkpoint(args, load, repo, "--keep-tracking")
            runs = []
            for _ in range(max(5, args.pairs)):
                load.ask("dirty 1000")
                runs.append(checkpoint(args, load, repo))
            subprocess.run([os.path.join(args.build, "icp-bpf"), "checkpoint", "--pid", str(load.pid), "--stop-tracking"],
                           check=True)
            pause[mib] = statistics.median(r["pause_seconds"] * 1e3 for r in runs)
            total[mib] = statistics.median(r["total_seconds"] * 1e3 for r in runs)
            print(f"  {mib} MiB: pause {pause[mib]:.2f} ms ({', '.join(r['found_by'] for r in runs)}), total {total[mib]:.1f} ms, "
                  f"parts {runs[-1]['pause']}", flush=True)
    return (f"1000 dirty pages: pause {pause[1024]:.2f} ms at 1 GiB, {pause[8192]:.2f} ms at 8 GiB (ratio "
            f"{pause[8192] / pause[1024]:.2f}); total {total[1024]:.0f} and {total[8192]:.0f} ms")


def bench_fractions(args):
    """Increments of 0.1, 1, 10 and 50 % of 1 GiB: time, and bytes written against bytes dirty."""
    lines = []
    with Load(args, 1024) as load, repository() as folder:
        repo = os.path.join(folder, "r")
        copy = float(load.ask("memcpy"))
        full = checkpoint(args, load, repo, "--keep-tracking")
        for share in (0.1, 1, 10, 50):
            pages = int(1024 * MIB / 4096 * share / 100)
            load.ask(f"dirty {pages}")
            r = checkpoint(args, load, repo)
            excess = (r["bytes_written"] - 16384) / (r["pages"] * 4096)
            lines.append(f"{share:g} %: {r['total_seconds'] / full['total_seconds']:.3f} of the full one's time, "
                         f"{r['total_seconds'] * 1e3 / copy:.2f}x memcpy of 1 GiB, size {excess:.3f}x dirty bytes + 16 KiB")
            print("  " + lines[-1], flush=True)
        subprocess.run([os.path.join(args.build, "icp-bpf"), "checkpoint", "--pid", str(load.pid), "--stop-tracking"], check=True)
    return "increments of 1 GiB: " + "; ".join(lines)


def bench_chain(args):
    """Open and read through versions 1, 10, 100 and 1000 of a chain: export to a core file, which takes every page."""
    binary = os.path.join(args.build, "icp-bpf")
    times = {}
    with Load(args, 256) as load, repository() as folder:
        repo, core = os.path.join(folder, "r"), os.path.join(folder, "core")
        load.ask("rate 5000")
        subprocess.run([binary, "checkpoint", "--no-restart", "--pid", str(load.pid), "--dir", repo, "--every", "20ms", "--count", "1000"],
                       check=True, stdout=subprocess.DEVNULL)
        for version in (1, 10, 100, 1000):
            runs = []
            for _ in range(5):
                start = time.monotonic()
                subprocess.run([binary, "export", "--dir", repo, "--version", str(version), "--core", core, "--force"],
                               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                runs.append(time.monotonic() - start)
                os.unlink(core)
            times[version] = statistics.median(runs)
            print(f"  version {version}: {times[version] * 1e3:.0f} ms", flush=True)
    return ("export of 256 MiB from version N against version 1: " +
            ", ".join(f"N={v} {times[v] / times[1]:.2f}x" for v in (10, 100, 1000)))


def bench_segments(args):
    """Increments of 1 % of 256 MiB in jobs of 1, 4, 16 processes: a segment that all attach, against private memory of one of them."""
    runs = {}
    for n in (1, 4, 16):
        for kind in ("private", "segment"):
            with Load(args, 256, n, *(["private"] if kind == "private" else [])) as load, repository() as folder:
                repo = os.path.join(folder, "r")
                checkpoint(args, load, repo, "--keep-tracking")
                time.sleep(3)  # the attaches are long ago: their times are whole seconds
                done = []
                for _ in range(max(7, args.pairs)):
                    load.ask("dirty 655")
                    done.append(checkpoint(args, load, repo))
                subprocess.run([os.path.join(args.build, "icp-bpf"), "checkpoint", "--pid", str(load.pid), "--stop-tracking"], check=True)
            run = runs[kind, n] = {key: statistics.median(r[key] for r in done) for key in ("total_seconds", "pause_seconds", "bytes_written")}
            print(f"  {kind}, {n}: total {run['total_seconds'] * 1e3:.1f} ms, pause {run['pause_seconds'] * 1e3:.2f} ms, "
                  f"{run['bytes_written'] / MIB:.2f} MiB ({', '.join(sorted({r['found_by'] for r in done}))}), parts {done[-1]['pause']}", flush=True)

    def ratio(n, key):
        return runs["segment", n][key] / runs["private", n][key]

    return ("increments of 1 % of 256 MiB, a segment against private memory in a job of as many processes: " +
            "; ".join(f"{n} attached: time {ratio(n, 'total_seconds'):.2f}x, pause {ratio(n, 'pause_seconds'):.2f}x, "
                      f"bytes {ratio(n, 'bytes_written'):.2f}x" for n in (1, 4, 16)))


BENCHES = {"segments": bench_segments, "full": bench_full, "increment": bench_increment, "fractions": bench_fractions,
           "chain": bench_chain}
