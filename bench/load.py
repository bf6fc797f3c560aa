"""Load on one HTTP server over loopback: so many connections, each with one request at a time."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True)
class Request:
    """A request that is sent over and over.

    Attributes:
        path: Its path.
        body: What it holds, JSON.
    """

    path: str
    body: bytes

    def on_the_wire(self, port: int) -> bytes:
        """Give the bytes of the request."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


@dataclass(frozen=True)
class Load:
    """What came of it.

    Attributes:
        per_second: Answers in a second.
        p50: Median time of an answer, in milliseconds.
        p99: The time that 99 of 100 answers stay below, in milliseconds.
        answers: How many there were.
        failed: Answers with another status than 200.
    """

    per_second: float
    p50: float
    p99: float
    answers: int
    failed: int


def load(port: int, request: Request, seconds: float, connections: int) -> Load:
    """Ask a server for some seconds from several connections at once."""
    return asyncio.run(_load(port, request.on_the_wire(port), seconds, connections))


def answer(port: int, request: Request) -> tuple[float, int, bytes]:
    """Ask once: the seconds until the whole answer is there, its status, its body."""
    return asyncio.run(_answer(port, request.on_the_wire(port)))


async def _load(port: int, wire: bytes, seconds: float, connections: int) -> Load:
    times: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def connection() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start := time.perf_counter()) < end:
            writer.write(wire)
            status, _ = await _read(reader)
            times.append(time.perf_counter() - start)
            failed += status != 200
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    taken = time.perf_counter() - start
    cuts = statistics.quantiles(times, n=100)
    p50, p99 = (round(cut * 1e3, 2) for cut in (cuts[49], cuts[98]))
    return Load(round(len(times) / taken, 1), p50, p99, len(times), failed)


async def _answer(port: int, wire: bytes) -> tuple[float, int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_ANSWER_BYTES)
    start = time.perf_counter()
    writer.write(wire)
    status, body = await _read(reader)
    taken = time.perf_counter() - start
    writer.close()
    return taken, status, body


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    _, found, rest = head.partition(b"content-length:")
    if found:
        return status, await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, body
