#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Four keep-alive connections to a web server: http_load.py PORT DIR

Each asks for DIR/data until DIR/go is there, without ever connecting again, and checks what it gets.
DIR/served tells that a hundred were answered since it was removed; DIR/answers how many there were.
"""
import http.client
import os
import sys
import threading

port, folder = int(sys.argv[1]), sys.argv[2]
want = open(folder + "/data", "rb").read()
answers = [0] * 4
wrong = []


def ask(me):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    here = connection.sock
    since = 0
    while since < 10 or not os.path.exists(folder + "/go"):
        connection.request("GET", f"/data?{me}.{answers[me]}")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read() == want
        assert connection.sock is here, "it was closed"
        answers[me] += 1
        since += 1
        if since == 100:
            open(folder + f"/served.{me}", "w").close()
            since = 10


def run(me):
    try:
        ask(me)
    except BaseException as error:
        wrong.append(f"connection {me}, answer {answers[me]}: {error!r}")


threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with open(folder + "/answers", "w") as file:
    file.write(str(sum(answers)))
sys.exit("; ".join(wrong) or 0)
