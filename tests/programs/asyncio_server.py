#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""An asyncio server with a process for each connection: asyncio_server.py server|client PORT DIR

The client asks until DIR/go is there, over one connection; each of the two checks what it gets.
"""
import asyncio
import os
import signal
import socket
import sys

role, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
WORKER = 'while read -r line; do echo "<$line>"; done; exit 3'


async def serve(reader, writer):
    pipe = asyncio.subprocess.PIPE
    worker = await asyncio.create_subprocess_exec("sh", "-c", WORKER, stdin=pipe, stdout=pipe)
    while line := await reader.readline():
        worker.stdin.write(line)
        writer.write(await worker.stdout.readline())
        await writer.drain()
    worker.stdin.close()
    assert await worker.wait() == 3
    writer.close()
    open(folder + "/reaped", "w").close()


async def server():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    listening = await asyncio.start_server(serve, "127.0.0.1", port)
    open(folder + "/ready", "w").close()
    while not stop.is_set() or not os.path.exists(folder + "/reaped"):
        await asyncio.sleep(0.01)
    listening.close()


def client():
    connection = socket.create_connection(("127.0.0.1", port))
    replies = connection.makefile("rb")
    number = 0
    while number < 10 or not os.path.exists(folder + "/go"):
        number += 1
        connection.sendall(b"%d\n" % number)
        assert replies.readline() == b"<%d>\n" % number
        open(folder + "/served", "w").close()


if role == "server":
    asyncio.run(server())
else:
    client()
