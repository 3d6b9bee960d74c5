# SPDX-License-Identifier: GPL-2.0
"""Study others: the same process saved by gdb's gcore, by icp-bpf, and its bytes by memcpy() and write()."""

import os
import statistics
import subprocess
import time

from checkpoints import MIB, Load, checkpoint
from curves import icp
from study import Study, scratch

median = statistics.median


def gcore(load, folder):
    """Seconds, MiB; the process stands still from beginning to end."""
    path = os.path.join(folder, "core")
    start = time.monotonic()
    subprocess.run(["gcore", "-o", path, str(load.pid)], check=True, capture_output=True)
    seconds = time.monotonic() - start
    size = os.path.getsize(f"{path}.{load.pid}") / MIB
    os.unlink(f"{path}.{load.pid}")
    return seconds, size


def study_others(args):
    """One process of 1 GiB, one storage: the limits, gcore, icp-bpf."""
    study = Study(args, "others", "Beside others")
    with Load(args, 1024) as load, scratch(6000) as folder:
        for _ in range(max(3, args.pairs)):
            study.row(what="memcpy", total_ms=float(load.ask("memcpy")), stopped_ms=0, mib=1024)
            study.row(what="write()", total_ms=float(load.ask("write " + os.path.join(folder, "plain"))), stopped_ms=0, mib=1024)
            seconds, size = gcore(load, folder)
            study.row(what="gcore", total_ms=seconds * 1e3, stopped_ms=seconds * 1e3, mib=size)
            repo = os.path.join(folder, "r")
            for what, more in (("icp-bpf, full", ["--keep-tracking"]), ("icp-bpf, 1 % changed", []), ("icp-bpf, 10 % changed", [])):
                if more == []:
                    load.ask(f"dirty {2621 if '1 %' in what else 26214}")
                start = time.monotonic()
                r = checkpoint(args, load, repo, *more)
                study.row(what=what, total_ms=(time.monotonic() - start) * 1e3, stopped_ms=r["pause_seconds"] * 1e3, mib=r["bytes_written"] / MIB)
            icp(args, "checkpoint", "--pid", str(load.pid), "--stop-tracking")
            subprocess.run(["rm", "-r", repo], check=True)
    names = list(dict.fromkeys(r["what"] for r in study.rows))

    def of(name, key):
        return median(r[key] for r in study.rows if r["what"] == name)

    study.table(["", "ms, all of it", "against memcpy", "stopped, ms", "MiB written"],
                [[n, f"{of(n, 'total_ms'):.0f}", f"{of(n, 'total_ms') / of('memcpy', 'total_ms'):.1f}x", f"{of(n, 'stopped_ms'):.1f}",
                  f"{of(n, 'mib'):.1f}"] for n in names])
    study.say("Medians, with the start of the command. gcore writes a core file that can be looked at, not restarted; it compresses nothing and checks nothing.")
    return study.end()


STUDIES = {"others": study_others}
