#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A client of redis: redis_load.py load|verify|shutdown SOCKET|PORT FILE

load: sets one key after the other and notes each in FILE once it was acknowledged, until the connection ends.
verify: all keys of FILE are there. shutdown: what it says; the server must close the connection.
"""
import socket
import sys

what, where, notes = sys.argv[1:]
server = socket.socket() if where.isdigit() else socket.socket(socket.AF_UNIX)
server.connect(("127.0.0.1", int(where)) if where.isdigit() else where)
replies = server.makefile("rb")
prefix = "tcp" if where.isdigit() else "unix"


def ask(text):
    server.sendall(text.encode() + b"\r\n")
    return replies.readline()


if what == "load":
    with open(notes, "w", buffering=1) as acknowledged:
        number = 0
        try:
            while ask(f"SET {prefix}:{number} {number * 7}") == b"+OK\r\n":
                acknowledged.write(f"{number}\n")
                number += 1
        except OSError:
            pass
elif what == "verify":
    with open(notes) as acknowledged:
        numbers = [int(line) for line in acknowledged.read().split("\n")[:-1]]
    assert numbers, "nothing was acknowledged"
    for number in numbers:
        length = ask(f"GET {prefix}:{number}")
        assert length.startswith(b"$") and length != b"$-1\r\n", f"{prefix}:{number} is lost: {length}"
        assert replies.readline() == b"%d\r\n" % (number * 7), f"{prefix}:{number} is wrong"
else:
    assert ask("SHUTDOWN") == b"", "it didn't shut down"
