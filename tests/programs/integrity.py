#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A database as another process finds it: integrity.py FILE"""
import sqlite3
import sys

base = sqlite3.connect(sys.argv[1])
assert base.execute("pragma integrity_check").fetchone()[0] == "ok"
rows = base.execute("select count(*) from t group by round").fetchall()
assert rows and all(count == 2000 for (count,) in rows), rows
