# SPDX-License-Identifier: GPL-2.0
"""Study overhead: what programs lose while they are traced, and while a checkpoint is cut every ten seconds."""

import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from restarts import die_with_us
from study import ROOT, Study

MODES = ("untraced", "traced", "checkpoints")
SECONDS = 11  # one run: longer than the interval of the checkpoints


def quiet(words, **more):
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=die_with_us, **more)


def stop(child):
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Observed:
    """icp-bpf at work on @pid and its descendants, from its first output on."""

    def __init__(self, args, mode, pid):
        self.child, self.folder = None, None
        binary = os.path.join(args.build, "icp-bpf")
        if mode == "traced":
            words = [binary, "trace", "--tree", "--pid", str(pid)]
        elif mode == "checkpoints":
            self.folder = tempfile.TemporaryDirectory(dir="/dev/shm", prefix="icp-bench-")
            words = [binary, "checkpoint", "--no-restart", "--pid", str(pid), "--dir", os.path.join(self.folder.name, "r"), "--every", "10s"]
        else:
            return
        self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us)
        if not self.child.stdout.readline():
            raise SystemExit("bench: icp-bpf did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child:
            self.child.send_signal(2)
            self.child.communicate()
        if self.folder:
            self.folder.cleanup()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Redis:
    name = "redis SET"
    unit = "requests a second"

    def __init__(self, args):
        self.folder = tempfile.TemporaryDirectory()
        self.sock = os.path.join(self.folder.name, "sock")
        self.server = quiet(["redis-server", "--port", "0", "--unixsocket", self.sock, "--save", "", "--dir", self.folder.name])
        while not os.path.exists(self.sock):
            time.sleep(0.02)
        self.pid = self.server.pid
        self.requests = 400000
        self.requests = int(self.rate() * SECONDS)

    def rate(self):
        out = subprocess.run(["redis-benchmark", "-s", self.sock, "-t", "set", "-r", "100000", "-n", str(self.requests), "--csv"],
                             check=True, capture_output=True, text=True).stdout
        return float(out.splitlines()[-1].split(",")[1].strip('"'))

    def close(self):
        stop(self.server)
        self.folder.cleanup()


class Postgres:
    name = "pgbench"
    unit = "transactions a second"

    def __init__(self, args):
        self.dir = tempfile.mkdtemp()
        self.port = free_port()
        self.script("up")
        with open(os.path.join(self.dir, "data/postmaster.pid")) as file:
            self.pid = int(file.readline())

    def script(self, verb):
        subprocess.run(["bash", os.path.join(ROOT, "tests/programs/postgres.sh"), self.dir, str(self.port), verb], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def rate(self):
        out = subprocess.run(["/usr/lib/postgresql/15/bin/pgbench", "-n", "-c", "2", "-T", str(SECONDS), "-h", self.dir, "-p", str(self.port),
                              "-U", "postgres", "postgres"], check=True, capture_output=True, text=True, cwd=self.dir).stdout
        return float(next(line for line in out.splitlines() if line.startswith("tps")).split()[2])

    def close(self):
        self.script("down")
        shutil.rmtree(self.dir)


class Writes:
    name = "write loop"
    unit = "first writes a second"

    def __init__(self, args):
        self.child = subprocess.Popen([os.path.join(args.build, "tests/targets/faultloop"), "64"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us)
        self.child.stdout.readline()
        self.pid = self.child.pid

    def rate(self):
        self.child.stdin.write(f"{SECONDS}\n")
        self.child.stdin.flush()
        return float(self.child.stdout.readline())

    def close(self):
        stop(self.child)


class Build:
    """The compiler's processes come and go: each is a new one to follow. A shell that waits for us is the tree."""

    name = "compile"
    unit = "object files a second"

    def __init__(self, args):
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm", prefix="icp-bench-")
        for part in ("user", "bpf", "vmlinux", "scripts", "docs", "tests"):
            shutil.copytree(os.path.join(ROOT, part), os.path.join(self.folder.name, part))
        shutil.copy(os.path.join(ROOT, "Makefile"), self.folder.name)
        sources = [f"build/user/{part}/{name[:-2]}.o" for part in ("base", "proc", "image") for name in
                   sorted(os.listdir(os.path.join(ROOT, "user", part))) if name.endswith(".c")]
        self.objects = len(sources)
        subprocess.run(["make", "-s", "-C", self.folder.name, sources[0], "build/user/image/manifest.o"], check=True, stdout=subprocess.DEVNULL)
        line = f"while read n; do rm -rf build/user/*/*.o; make -s -j2 {' '.join(sources)} >&2 && echo done || echo failed; done"
        env = {**os.environ, "CCACHE_DISABLE": "1"}
        self.child = subprocess.Popen(["sh", "-c", line], cwd=self.folder.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True, preexec_fn=die_with_us, env=env)
        self.pid = self.child.pid

    def rate(self):
        start, n = time.monotonic(), 0
        while time.monotonic() - start < SECONDS:
            self.child.stdin.write("go\n")
            self.child.stdin.flush()
            if self.child.stdout.readline().strip() != "done":
                raise SystemExit("bench: the compilation failed")
            n += 1
        return self.objects * n / (time.monotonic() - start)

    def close(self):
        stop(self.child)
        self.folder.cleanup()


def study_overhead(args):
    """redis, pgbench, a write loop, a compilation: untraced, traced, with a checkpoint every 10 s."""
    study = Study(args, "overhead", "What a program loses")
    table = []
    for kind in (Redis, Postgres, Writes, Build):
        work = kind(args)
        rates = {mode: [] for mode in MODES}
        try:
            for i in range(max(5, args.pairs)):
                for mode in MODES[i % 3:] + MODES[:i % 3]:
                    with Observed(args, mode, work.pid):
                        rates[mode].append(work.rate())
                    study.row(program=work.name, mode=mode, run=i, rate=rates[mode][-1], unit=work.unit)
        finally:
            work.close()

        def ratio(mode, rates=rates):
            each = [a / b for a, b in zip(rates[mode], rates["untraced"])]
            return f"{statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})"

        table.append([work.name, f"{statistics.median(rates['untraced']):.0f} {work.unit}", ratio("traced"), ratio("checkpoints")])
    study.table(["program", "untraced", "traced / untraced", "with a checkpoint every 10 s / untraced"], table)
    study.say(f"Runs of {SECONDS} s in turn, medians of the ratios of a turn.")
    return study.end()


STUDIES = {"overhead": study_overhead}
