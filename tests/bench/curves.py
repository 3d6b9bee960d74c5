# SPDX-License-Identifier: GPL-2.0
"""Studies of what things cost as sizes grow: malloc, lookup, resident, breakeven, mgs."""

import os
import re
import signal
import statistics
import subprocess
import tempfile
import time

from checkpoints import MIB, Load, checkpoint, versions
from restarts import die_with_us, make_versions, restart, warm
from study import Study, available_mib, scratch

SHARES = (0.1, 1, 10, 100)  # per cent
median = statistics.median


def icp(args, *words):
    return subprocess.run([os.path.join(args.build, "icp-bpf"), *words], check=True, stdout=subprocess.DEVNULL)


def times(runs, name):
    return median(r[name] for r in runs) * 1e3


def malloc_saves(args, study, mib, repeat):
    """Full checkpoints and increments of @mib MiB."""
    warm(min(4 * mib, available_mib() - 1024))
    with Load(args, mib) as load, scratch(2 * mib + 1024) as folder:
        repo = os.path.join(folder, "r")
        copy = median(float(load.ask("memcpy")) for _ in range(repeat))
        plain = median(float(load.ask("write " + os.path.join(folder, "plain"))) for _ in range(repeat))
        study.row(what="limit", mib=mib, memcpy_ms=copy, write_ms=plain)
        runs = []
        for i in range(repeat):
            with tempfile.TemporaryDirectory(dir=folder) as one:
                runs.append(checkpoint(args, load, os.path.join(one, "r")))
        study.row(what="full", mib=mib, total_ms=times(runs, "total_seconds"), pause_ms=times(runs, "pause_seconds"),
                  mib_written=runs[-1]["bytes_written"] / MIB)
        checkpoint(args, load, repo, "--keep-tracking")
        for pattern, word in (("random", "dirty"), ("sequential", "together")):
            for share in SHARES:
                pages = max(1, int(mib * MIB / 4096 * share / 100))
                runs = []
                for _ in range(repeat):
                    load.ask(f"{word} {pages}")
                    runs.append(checkpoint(args, load, repo))
                    if share >= 10:
                        icp(args, "prune", "--dir", repo, "--keep-last", "1")
                study.row(what="increment", mib=mib, pattern=pattern, share=share, total_ms=times(runs, "total_seconds"),
                          pause_ms=times(runs, "pause_seconds"), mib_written=runs[-1]["bytes_written"] / MIB,
                          found_by=runs[-1]["found_by"])
        icp(args, "checkpoint", "--pid", str(load.pid), "--stop-tracking")


def malloc_restarts(args, study, mib, repeat):
    for chain in (1, 10):
        with scratch(2 * mib + 1024) as folder:
            make_versions(args, folder, mib, *(("--every", "200ms", "--count", str(chain)) if chain > 1 else ()))
            for lookup in ("direct", "rbtree"):
                runs = []
                for _ in range(repeat):
                    warm(min(mib + 512, available_mib() - 1024))
                    runs.append(restart(args, folder, "--lookup", lookup))
                study.row(what="restart", mib=mib, chain=chain, lookup=lookup, total_ms=median(runs))


def pick(study, y, **where):
    return [(r["mib"], r[y]) for r in study.rows if all(r.get(k) == v for k, v in where.items())]


def study_malloc(args):
    """malloc-and-write: full checkpoints, increments and restarts by size."""
    study = Study(args, "malloc", "malloc-and-write")
    for mib in args.sizes or (16, 64, 256, 1024, 4096):
        repeat = 5 if mib <= 256 else 3
        malloc_saves(args, study, mib, repeat)
        malloc_restarts(args, study, mib, repeat)
    curves = [("memcpy", pick(study, "memcpy_ms", what="limit")), ("write", pick(study, "write_ms", what="limit")),
              ("full", pick(study, "total_ms", what="full"))]
    curves += [(f"{share:g} %", pick(study, "total_ms", what="increment", share=share, pattern="random")) for share in SHARES]
    study.plot("", "Checkpoints: total time, random pages", "MiB", "ms", curves)
    study.plot("-pause", "Checkpoints: how long the process stands still", "MiB", "ms",
               [("full", pick(study, "pause_ms", what="full"))] +
               [(f"{share:g} % {p}", pick(study, "pause_ms", what="increment", share=share, pattern=p))
                for share in SHARES for p in ("random", "sequential")])
    study.plot("-restart", "Restarts", "MiB", "ms", [("memcpy", pick(study, "memcpy_ms", what="limit"))] + [
        (f"{'full version' if chain == 1 else 'end of a chain of 10'}, {lookup}", pick(study, "total_ms", what="restart", chain=chain, lookup=lookup))
        for chain in (1, 10) for lookup in ("direct", "rbtree")])

    def of(mib, y, **where):
        return next((v for m, v in pick(study, y, **where) if m == mib), float("nan"))

    rows = []
    for mib, copy in pick(study, "memcpy_ms", what="limit"):
        rows.append([mib, f"{copy:.1f}", f"{of(mib, 'write_ms', what='limit'):.1f}"] +
                    [f"{of(mib, 'total_ms', what='full'):.0f} ({of(mib, 'pause_ms', what='full'):.1f})"] +
                    [f"{of(mib, 'total_ms', what='increment', share=s, pattern='random'):.0f} "
                     f"({of(mib, 'pause_ms', what='increment', share=s, pattern='random'):.1f})" for s in SHARES] +
                    [f"{of(mib, 'total_ms', what='restart', chain=c, lookup=lk):.0f}" for c in (1, 10) for lk in ("direct", "rbtree")])
    study.table(["MiB", "memcpy", "write", "full (pause)", *(f"{s:g} % (pause)" for s in SHARES), "restart", "by rbtree",
                 "restart, chain of 10", "by rbtree"], rows)
    study.say("Medians, milliseconds; repository in memory; increments of random pages.")
    return study.end()


def study_lookup(args):
    """A page's place in the images, directly and through a red-black tree, by entries."""
    study = Study(args, "lookup", "Lookups")
    for entries in (10**4, 10**5, 10**6, 10**7):
        done = subprocess.run([os.path.join(args.build, "tests/unit/image/test_bench")], capture_output=True, text=True,
                              env={**os.environ, "BENCH": "1", "BENCH_ENTRIES": str(entries)})
        found = re.search(r"direct (\d+) ns, red-black tree (\d+) ns .*built in (\d+) ms; ([\d.]+) bytes", done.stdout + done.stderr)
        study.row(entries=entries, direct_ns=int(found[1]), rbtree_ns=int(found[2]), tree_build_ms=int(found[3]), bytes=float(found[4]))
    study.plot("", "One lookup, random addresses", "entries", "ns",
               [(name, [(r["entries"], r[key]) for r in study.rows]) for name, key in (("direct", "direct_ns"), ("red-black tree", "rbtree_ns"))])
    study.table(["entries", "direct, ns", "red-black tree, ns", "ratio", "building the tree, ms"],
                [[f"{r['entries']:,}", r["direct_ns"], r["rbtree_ns"], f"{r['rbtree_ns'] / max(r['direct_ns'], 1):.0f}x", r["tree_build_ms"]]
                 for r in study.rows])
    return study.end()


def take(args, load, repo, pages, repeat, *more):
    runs = []
    for _ in range(repeat):
        load.ask(f"dirty {pages}")
        runs.append(checkpoint(args, load, repo, *more))
    return runs


def study_resident(args):
    """The pause of 1000 dirty pages by resident size."""
    study = Study(args, "resident", "The pause and the resident size")
    for gib in (1, 2, 4, 8, 12):
        if available_mib() < gib * 1500 + 1024:
            study.say(f"{gib} GiB: not enough memory here.")
            continue
        # the first version is written to storage that is not memory: it is as large as the process
        with Load(args, gib * 1024) as load, tempfile.TemporaryDirectory(dir=args.disk, prefix="icp-bench-") as folder:
            repo = os.path.join(folder, "r")
            checkpoint(args, load, repo, "--keep-tracking")
            runs = take(args, load, repo, 1000, 7)
            both = take(args, load, repo, 1000, 5, "--paranoid")
            icp(args, "checkpoint", "--pid", str(load.pid), "--stop-tracking")
        dirty = median(r["pause"]["dirty_seconds"] for r in runs) * 1e3
        study.row(gib=gib, pause_ms=times(runs, "pause_seconds"), events_ms=dirty,
                  scan_ms=median(r["pause"]["dirty_seconds"] for r in both) * 1e3 - dirty, total_ms=times(runs, "total_seconds"))
    study.plot("", "1000 dirty pages", "GiB resident", "ms",
               [("pause, by events", [(r["gib"], r["pause_ms"]) for r in study.rows]),
                ("of it: finding the pages", [(r["gib"], r["events_ms"]) for r in study.rows]),
                ("a scan in its place", [(r["gib"], r["scan_ms"]) for r in study.rows])])
    study.table(["GiB", "pause, ms", "finding the pages by events, ms", "by a scan, ms"],
                [[r["gib"], f"{r['pause_ms']:.2f}", f"{r['events_ms']:.2f}", f"{r['scan_ms']:.2f}"] for r in study.rows])
    return study.end()


def study_breakeven(args):
    """Finding the changed pages by events and by a scan, by the share that changed."""
    study = Study(args, "breakeven", "Events against a scan")
    with Load(args, 2048) as load, scratch(7000) as folder:
        repo = os.path.join(folder, "r")
        checkpoint(args, load, repo, "--keep-tracking")
        for share in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30):
            pages = int(2048 * MIB / 4096 * share / 100)
            runs, both = take(args, load, repo, pages, 3), take(args, load, repo, pages, 3, "--paranoid")
            dirty = median(r["pause"]["dirty_seconds"] for r in runs) * 1e3
            study.row(share=share, pages=pages, events_ms=dirty, scan_ms=median(r["pause"]["dirty_seconds"] for r in both) * 1e3 - dirty,
                      found_by=runs[-1]["found_by"])
            icp(args, "prune", "--dir", repo, "--keep-last", "1")
        icp(args, "checkpoint", "--pid", str(load.pid), "--stop-tracking")
    study.plot("", "Finding the changed pages of 2 GiB in the pause", "% of the pages changed", "ms",
               [("events", [(r["share"], r["events_ms"]) for r in study.rows]), ("scan", [(r["share"], r["scan_ms"]) for r in study.rows])])
    study.table(["% changed", "pages", "events, ms", "scan, ms"],
                [[f"{r['share']:g}", f"{r['pages']:,}", f"{r['events_ms']:.2f}", f"{r['scan_ms']:.2f}"] for r in study.rows])
    return study.end()


def study_mgs(args):
    """Modified Gram-Schmidt on a System V segment, 1, 2 and 4 workers."""
    study = Study(args, "mgs", "MGS on a System V segment")
    for workers in (1, 2, 4):
        with scratch(4096) as folder:
            key = 0x1c950000 + os.getpid() % 65536
            child = subprocess.Popen([os.path.join(args.build, "tests/targets/mgs_target"), folder, str(key), "2048", str(workers)],
                                     stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_us)
            try:
                time.sleep(1)
                for r in versions(args, child.pid, os.path.join(folder, "r"), "--every", "500ms", "--count", "8"):
                    study.row(workers=workers, version=r["version"], type=r["type"], mib_written=r["bytes_written"] / MIB,
                              total_ms=r["total_seconds"] * 1e3, pause_ms=r["pause_seconds"] * 1e3)
            finally:
                os.killpg(child.pid, signal.SIGKILL)  # its workers, too
                child.wait()
                subprocess.run(["ipcrm", "-M", str(key)], stderr=subprocess.DEVNULL)
    for suffix, y, unit in (("", "mib_written", "MiB"), ("-time", "total_ms", "ms")):
        study.plot(suffix, "MGS: " + ("size of each version" if not suffix else "time of each version"), "version", unit,
                   [(f"{w} worker{'s' * (w > 1)}", [(r["version"], r[y]) for r in study.rows if r["workers"] == w]) for w in (1, 2, 4)], log="")
    study.table(["workers", "version", "type", "MiB", "total, ms", "pause, ms"],
                [[r["workers"], r["version"], r["type"], f"{r['mib_written']:.1f}", f"{r['total_ms']:.0f}", f"{r['pause_ms']:.1f}"]
                 for r in study.rows])
    return study.end()


STUDIES = {"malloc": study_malloc, "lookup": study_lookup, "resident": study_resident, "breakeven": study_breakeven, "mgs": study_mgs}
