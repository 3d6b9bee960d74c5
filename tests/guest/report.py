# SPDX-License-Identifier: GPL-2.0
"""Tables that are generated into docs/results.md, between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(TOP, "docs/results.md")


def markdown(head, rows):
    """A table, as wide as it needs to be."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def keep(name, text, path=RESULTS):
    """Replace what is between the markers; True if it was something else."""
    with open(path) as file:
        before = file.read()
    pattern = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.S)
    if not pattern.search(before):
        raise SystemExit(f"{path}: no markers for {name}")
    after = pattern.sub(lambda m: m[1] + text.rstrip("\n") + "\n" + m[2], before)
    if after != before:
        with open(path, "w") as file:
            file.write(after)
    return after != before
