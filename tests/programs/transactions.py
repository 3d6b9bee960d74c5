#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""SQLite transactions, one after the other: transactions.py wal|delete DIR

DIR/half is made in the middle of each; DIR/go ends it, after the one under way. A pause in the middle waits for nothing.
"""
import os
import sqlite3
import sys
import time

mode, folder = sys.argv[1:]
ROWS = 2000
base = sqlite3.connect(folder + "/db", isolation_level=None)
assert base.execute(f"pragma journal_mode={mode}").fetchone()[0] == mode
base.execute("pragma cache_size=20")  # pages are written before the commit
base.execute("create table t(round integer, n integer, text text)")
rounds = 0
while not os.path.exists(folder + "/go"):
    base.execute("begin immediate")
    for n in range(ROWS):
        base.execute("insert into t values(?, ?, ?)", (rounds, n, "x" * (n % 700)))
        if n == ROWS // 2:
            open(folder + "/half", "w").close()
            time.sleep(0.3)
    base.execute("commit")
    rounds += 1
    base.execute("delete from t where round < ?", (rounds - 3,))
    bad = base.execute("select round, count(*) from t group by round having count(*) != ?", (ROWS,))
    assert not bad.fetchall(), "half a transaction"
assert base.execute("pragma integrity_check").fetchone()[0] == "ok"
base.close()
