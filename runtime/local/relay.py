"""Reaching a service that has no network: connections go through a socket in a shared directory.

Outside, a listener of ours on the loopback address hands each connection to the socket; inside,
`INSIDE` hands it on to the service. What runs inside can write to that directory, so the socket
is opened by itself: a link in its place would lead us to any other socket of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

SOCKET = "service"
MOST_CONNECTIONS = 128
_PIECE = 1 << 16

INSIDE = """
import asyncio, os, sys

path, port = sys.argv[1], int(sys.argv[2])

async def pump(reader, writer):
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()

async def connect(reader, writer):
    try:
        there = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
    there[1].close()
    writer.close()

async def main():
    server = await asyncio.start_unix_server(connect, path)
    os.chmod(path, 0o666)
    async with server:
        await server.serve_forever()

asyncio.run(main())
"""
"""Program for any Python that has asyncio: takes the socket's path and the service's port."""


@contextlib.contextmanager
def relay(shared: Path) -> Iterator[int]:
    """Listen on the loopback address for a service behind a socket, for the length of a block.

    Args:
        shared: The directory that holds, or will hold, the socket.

    Yields:
        The port.
    """
    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    work = asyncio.run_coroutine_threadsafe
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    server = work(_serve(listener, shared), loop).result()
    try:
        yield port
    finally:
        work(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(listener: socket.socket, shared: Path) -> asyncio.Server:
    free = asyncio.BoundedSemaphore(MOST_CONNECTIONS)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            if free.locked():
                return
            async with free:
                with _opened(shared / SOCKET) as path:
                    inner_reader, inner_writer = await asyncio.open_unix_connection(path)
                with contextlib.closing(inner_writer):
                    await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    return await asyncio.start_server(handle, sock=listener)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[str]:
    """Give a name for the socket itself, whatever comes to stand at its path meanwhile.

    Raises:
        OSError: There is none, or something else.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no socket")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
