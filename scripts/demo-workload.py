#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A program that knows nothing of icp-bpf: threads that keep updating a dictionary of about 60 MB.

Each value carries its key, how often it was updated, and a check sum. On SIGTERM every value is verified, and the
updates that are in the dictionary are compared with those that the threads made: a lost or a damaged one would show.
"""
import random
import signal
import sys
import threading
import time
import zlib

THREADS = 4
ENTRIES = 50_000  # of each thread
PADDING = 200

stop = threading.Event()
table = {}
made = [0] * THREADS


def pack(key, version):
    body = b"%d:%d:" % (key, version) + bytes([(key + version) % 251]) * PADDING
    return body + b":%08x" % zlib.crc32(body)


def unpack(key, value):
    """The version in a value, or None when it is damaged."""
    body, _, check = value.rpartition(b":")
    version = int(body.split(b":")[1])
    return version if b"%08x" % zlib.crc32(body) == check and pack(key, version) == value else None


def update(number, first):
    # Half of the updates hit a twentieth of the keys: a hot region, and a long tail.
    rng = random.Random(number)
    while not stop.is_set():
        for _ in range(30):
            span = ENTRIES // 20 if rng.random() < 0.5 else ENTRIES
            key = first + rng.randrange(span)
            version = unpack(key, table[key])
            if version is None:
                print(f"damaged: entry {key}", flush=True)
                sys.exit(1)
            table[key] = pack(key, version + 1)
            made[number] += 1
        time.sleep(0.01)


def main():
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for key in range(THREADS * ENTRIES):
        table[key] = pack(key, 0)
    threads = [threading.Thread(target=update, args=(n, n * ENTRIES)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    stop.wait()
    for thread in threads:
        thread.join()
    found = [unpack(key, value) for key, value in table.items()]
    good = None not in found and sum(found) == sum(made) and min(made) > 0
    check = 0
    for value in table.values():
        check = zlib.crc32(value, check)
    print(f"{len(table)} entries, {sum(made)} updates by {THREADS} threads, checksum {check:08x}: "
          f"{'all correct' if good else 'WRONG'}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
