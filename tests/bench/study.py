# SPDX-License-Identifier: GPL-2.0
"""A study: rows of figures from one run, kept as CSV, drawn by gnuplot, and its part of docs/results.md."""

import csv
import datetime
import os
import platform
import re
import shutil
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs", "results.md")
FOLDER = os.path.join(ROOT, "docs", "results")


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def machine():
    """What the figures depend on, one line."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"MemTotal:\s*(\d+)", file.read())[1]) >> 20
    return (f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, Linux {platform.release()}, {os.cpu_count()} CPUs "
            f"({model[1] if model else platform.machine()}), {memory} GiB, load {os.getloadavg()[0]:.1f}, "
            f"icp-bpf {output('git', 'describe', '--always', '--dirty')}, {output('gcc', '--version').splitlines()[0]}")


class Study:
    """Use: row() for each figure, plot() for each picture, table() or say() for the text, end()."""

    def __init__(self, args, name, title):
        self.name, self.title, self.save = name, title, not args.no_save
        self.rows, self.text, self.machine = [], [], machine()

    def row(self, **figures):
        self.rows.append(figures)
        print("  " + ", ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()), flush=True)

    def say(self, text):
        self.text.append(text)

    def table(self, head, rows):
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
        self.text.append("\n".join(lines))

    def plot(self, suffix, title, x, y, curves, log="xy", style="linespoints"):
        """@curves: (name, [(x, y)...]). Times in ms, sizes as the axis says."""
        file = f"{self.name}{suffix}.svg"
        if not self.save:
            return
        os.makedirs(FOLDER, exist_ok=True)
        script = [f"set terminal svg size 760,460 font 'sans,12' background 'white'; set output '{os.path.join(FOLDER, file)}'",
                  f"set title '{title}'; set xlabel '{x}'; set ylabel '{y}'; set key outside right; set grid"]
        if log:
            script.append(f"set logscale {log}")
        for i, (_, points) in enumerate(curves):
            script += [f"$data{i} << end", *(f"{a} {b}" for a, b in points), "end"]
        script.append("plot " + ", ".join(f"$data{i} using 1:2 with {style} lw 2 pt 7 ps 0.5 title '{name}'"
                                          for i, (name, _) in enumerate(curves)))
        subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)
        self.text.append(f"![{title}](results/{file})")

    def end(self):
        body = "\n\n".join([*self.text, f"`tests/bench/run {self.name}`, [figures](results/{self.name}.csv). {self.machine}."])
        if self.save:
            self.write_csv()
            replace_section(self.name, self.title, body)
        return body

    def write_csv(self):
        os.makedirs(FOLDER, exist_ok=True)
        names = list(dict.fromkeys(key for row in self.rows for key in row))
        with open(os.path.join(FOLDER, self.name + ".csv"), "w", newline="") as file:
            file.write(f"# {self.machine}\n")
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def replace_section(name, title, body):
    """Between its marks in docs/results.md; what people wrote around them stays."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    with open(PAGE) as file:
        text = file.read()
    part = f"{begin}\n\n{body}\n\n{end}"
    if begin in text:
        text = text[:text.index(begin)] + part + text[text.index(end) + len(end):]
    else:
        text = text.rstrip("\n") + f"\n\n## {title}\n\n{part}\n"
    with open(PAGE, "w") as file:
        file.write(text)


def scratch(need_mib):
    """A folder in memory, the same for all that is compared; None without the room."""
    free = shutil.disk_usage("/dev/shm").free >> 20
    return tempfile.TemporaryDirectory(dir="/dev/shm", prefix="icp-bench-") if free > need_mib else None


def available_mib():
    with open("/proc/meminfo") as file:
        return int(re.search(r"MemAvailable:\s*(\d+)", file.read())[1]) >> 10
