# SPDX-License-Identifier: GPL-2.0
"""What restarts cost: restart, lookups, lazy, restartchain. Each returns one line of ratios from one run."""

import ctypes
import json
import mmap
import os
import re
import signal
import statistics
import subprocess
import time

from checkpoints import MIB, Load, repository


def die_with_us():
    """In the child: nothing outlives the benchmark."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def warm(mib):
    """A virtual machine may give free memory back to its host: get it back first, or that is what is measured."""
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    piece = bytes(2 * MIB)
    for at in range(0, mib * MIB, 2 * MIB):
        memory[at:at + 2 * MIB] = piece
    memory.close()


def make_versions(args, folder, mib, *more):
    """Versions of a process with @mib MiB that changes a page each millisecond; it is killed then."""
    words = [os.path.join(args.build, "tests/targets/reborn"), "memory", folder, str(mib)]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True, preexec_fn=die_with_us)
    try:
        while not os.path.exists(os.path.join(folder, "ready")):
            if child.poll() is not None:
                raise SystemExit("bench: the program to restart has ended")
            time.sleep(0.02)
        subprocess.run([os.path.join(args.build, "icp-bpf"), "checkpoint", "--pid", str(child.pid), "--dir",
                        os.path.join(folder, "r"), *more], check=True, stdout=subprocess.DEVNULL)
    finally:
        child.kill()
        child.wait()


def restart(args, folder, *more):
    """Milliseconds until the job ran."""
    words = [os.path.join(args.build, "icp-bpf"), "restart", "--json", "--dir", os.path.join(folder, "r"), *more]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    line = child.stdout.readline()
    if not line:
        raise SystemExit("bench: the restart failed")
    result = json.loads(line)
    for pid in result["pids"]:
        os.kill(pid, signal.SIGKILL)
    child.wait()
    return result["seconds"] * 1e3


def memcpy(args):
    with Load(args, 1024) as load:
        return float(load.ask("memcpy"))


def bench_restart(args):
    """1 GiB from tmpfs against memcpy, with both lookups."""
    copies, direct, tree = [], [], []
    with repository() as folder:
        make_versions(args, folder, 1024)
        for _ in range(max(3, args.pairs)):
            copies.append(memcpy(args))
            warm(2560)
            direct.append(restart(args, folder))
            warm(2560)
            tree.append(restart(args, folder, "--lookup", "rbtree"))
            print(f"  memcpy {copies[-1]:.0f} ms, restart {direct[-1]:.0f} ms, by rbtree {tree[-1]:.0f} ms", flush=True)
    return (f"restart of 1 GiB: {statistics.median(d / c for d, c in zip(direct, copies)):.1f}x memcpy (best "
            f"{min(d / c for d, c in zip(direct, copies)):.1f}x); by red-black tree "
            f"{statistics.median(t / d for t, d in zip(tree, direct)):.2f}x of that")


def bench_lookups(args):
    """The lookups alone."""
    out = subprocess.run([os.path.join(args.build, "tests/unit/image/test_bench")], env={**os.environ, "BENCH": "1"}, capture_output=True, text=True)
    out = out.stdout + out.stderr
    lines = re.findall(r".*lookups: direct.*|.*red-black tree.*", out)
    return "; ".join(line.strip() for line in lines) or "no figures"


def bench_lazy(args):
    """Until the first instruction, by size."""
    parts = []
    for mib in (64, 1024, 4096):
        with repository() as folder:
            make_versions(args, folder, mib)
            warm(512)
            runs = [restart(args, folder, "--lazy") for _ in range(max(5, args.pairs))]
        parts.append(f"{mib} MiB {statistics.median(runs):.1f} ms ({min(runs):.1f} to {max(runs):.1f})")
        print("  " + parts[-1], flush=True)
    return "restart --lazy, until the job runs: " + ", ".join(parts)


def bench_restartchain(args):
    """From versions 1 and 1000 of a chain."""
    times = {}
    with repository() as folder:
        make_versions(args, folder, 256, "--every", "20ms", "--count", "1000")
        for version in (1, 10, 100, 1000):
            runs = []
            for _ in range(max(3, args.pairs)):
                warm(768)
                runs.append(restart(args, folder, "--version", str(version)))
            times[version] = statistics.median(runs)
            print(f"  version {version}: {times[version]:.0f} ms", flush=True)
    return ("restart of 256 MiB from version N against version 1: " +
            ", ".join(f"N={v} {times[v] / times[1]:.2f}x" for v in (10, 100, 1000)))


BENCHES = {"restart": bench_restart, "lookups": bench_lookups, "lazy": bench_lazy, "restartchain": bench_restartchain}
