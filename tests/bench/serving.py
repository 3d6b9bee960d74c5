# SPDX-License-Identifier: GPL-2.0
"""What `icp-bpf serve` costs those that it follows, and what it needs itself."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PROCESSES = 10


def die_with_us():
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_ns(pid):
    """What the threads of @pid have used."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


class Worker:
    """A target that works for so many seconds when told, and says how much it did."""

    def __init__(self, args, name, *words):
        self.child = subprocess.Popen([os.path.join(args.build, "tests/targets", name), *words], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True, preexec_fn=die_with_us)
        self.child.stdout.readline()
        self.pid = self.child.pid

    def begin(self, seconds):
        self.before = run_ns(self.pid)
        self.child.stdin.write(f"{seconds}\n")
        self.child.stdin.flush()

    def end(self):
        """Done, and the processor time for one of it in ns."""
        done = float(self.child.stdout.readline())
        return done, run_ns(self.pid) - self.before

    def stop(self):
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()


class Serve:
    def __init__(self, args, pids, *words):
        command = [os.path.join(args.build, "icp-bpf"), "serve", "--listen", "127.0.0.1:0", *words]
        for pid in pids:
            command += ["--pid", str(pid)]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                      preexec_fn=die_with_us)
        line = self.child.stderr.readline()
        match = re.search(r"serving (http://[^,]*),", line)
        if not match:
            sys.exit(f"bench: serve did not start: {line}")
        self.url = match[1]
        self.wait(1)

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def wait(self, samples):
        while self.get("/api/status")["index"] < samples:
            time.sleep(0.05)

    def stop(self):
        self.child.terminate()
        self.child.wait(20)
        self.child.stderr.close()


def pairs(args, workers, seconds):
    """Work with and without; the ratios of steps, of processor time for a step, and what serve said of itself."""
    rates, costs, used, rss, untold = [], [], [], [], 0
    for i in range(args.pairs):
        done, cost = {}, {}
        for on in (False, True) if i % 2 == 0 else (True, False):
            serve = Serve(args, [w.pid for w in workers]) if on else None
            before = serve.get("/api/status") if serve else None
            for w in workers:
                w.begin(seconds)
            start = time.monotonic()
            results = [w.end() for w in workers]
            done[on] = sum(r[0] for r in results)
            cost[on] = sum(r[1] for r in results) / done[on]
            if serve:
                after = serve.get("/api/status")
                used.append((after["cpu_s"] - before["cpu_s"]) / (time.monotonic() - start))
                rss.append(after["rss_bytes"])
                untold = max(untold, after["sampling"]["untold"])
                serve.stop()
        rates.append(done[True] / done[False])
        costs.append(cost[True] / cost[False])
        print(f"  pair {i + 1}: ratio {rates[-1]:.3f}, of processor time for one {costs[-1]:.3f}; serve "
              f"{used[-1]:.1%} of a CPU, {rss[-1] / 2**20:.1f} MiB", flush=True)
    return (f"on/off: median {statistics.median(rates):.3f} of {len(rates)} pairs ({min(rates):.3f} to {max(rates):.3f}); "
            f"processor time for one {statistics.median(costs):.3f}; serve {statistics.median(used):.1%} of a CPU, "
            f"{max(rss) / 2**20:.1f} MiB"), untold


def bench_serve(args):
    """Ten busy processes; then a storm of write faults; then thousands of samples."""
    # each dirties 1024 pages in every interval: about what redis under full load does with its share of two processors
    workers = [Worker(args, "busyloop", "4") for _ in range(PROCESSES)]
    try:
        busy, _ = pairs(args, workers, args.seconds)
    finally:
        for w in workers:
            w.stop()
    storm = Worker(args, "faultloop", "64")
    try:
        # faultloop answers with a rate; the ratio is the same
        loop, untold = pairs(args, [storm], args.seconds)
    finally:
        storm.stop()
    return f"{PROCESSES} busy processes {busy}; storm of write faults {loop}, {untold} faults untold; {flat(args)}"


def flat(args):
    """Memory after a quarter of the samples, and at the end: an hour's worth of them, in a tenth of the time."""
    samples = int(os.environ.get("SERVE_SAMPLES", 3600))
    workers = [Worker(args, "memload", "16") for _ in range(PROCESSES)]
    serve = Serve(args, [w.pid for w in workers], "--interval", "100ms")
    try:
        for w in workers:
            w.child.stdin.write("rate 2000\n")
            w.child.stdin.flush()
        sizes = []
        for at in (samples // 4, samples):
            serve.wait(at)
            serve.get("/api/processes")
            sizes.append(serve.get("/api/status")["rss_bytes"] / 2**20)
    finally:
        serve.stop()
        for w in workers:
            w.stop()
    return f"memory after {samples // 4} and {samples} samples {sizes[0]:.1f} and {sizes[1]:.1f} MiB"


def bench_forecast(args):
    """A steady writer: size and pause as forecast just before each increment, against what they were."""
    worker = Worker(args, "memload", "256")
    serve = Serve(args, [worker.pid], "--interval", "200ms")
    sizes, said, was = [], [], []
    try:
        with tempfile.TemporaryDirectory() as folder:
            worker.child.stdin.write("rate 4000\n")
            worker.child.stdin.flush()
            cut = [os.path.join(args.build, "icp-bpf"), "checkpoint", "--pid", str(worker.pid), "--dir", folder,
                   "--no-restart", "--json"]
            for i in range(4 + 4 * args.pairs):
                time.sleep(1)
                job = serve.get("/api/forecast")["jobs"][0]
                is_ = json.loads(subprocess.run(cut, check=True, capture_output=True, text=True).stdout)
                if i >= 4:  # it has something to go by
                    sizes.append(job["next"]["bytes"] / is_["bytes_written"])
                    said.append(job["next"]["pause_s"])
                    was.append(is_["pause_seconds"])
    finally:
        serve.stop()
        worker.stop()
    return (f"{len(sizes)} increments, forecast/outcome: size {min(sizes):.3f} to {max(sizes):.3f}, median {statistics.median(sizes):.3f}; "
            f"pause {statistics.median(said) / statistics.median(was):.2f} of the medians ({statistics.median(was) * 1e3:.2f} ms, "
            f"{min(was) * 1e3:.2f} to {max(was) * 1e3:.2f})")


BENCHES = {"serve": bench_serve, "forecast": bench_forecast}
