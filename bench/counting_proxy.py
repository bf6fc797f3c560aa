"""A reverse proxy that counts requests, and the bytes of their bodies.

It stands between a builder and a registry, in a process of its own, and changes nothing: bytes are
passed on as they come, and a meter reads along. A streamed upload has no length that a registry
could write into its log, so only this is exact.

Run as ``python -m bench.counting_proxy LISTEN_PORT UPSTREAM_PORT`` it prints ``ready``, serves
until its standard input ends, and then prints what it counted as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field

_BUFFER = 1 << 20
_LONGEST_HEAD = 1 << 16


@dataclass(frozen=True)
class Count:
    """What went through a proxy.

    Attributes:
        methods: Requests by HTTP method.
        bytes_sent: Bytes of all request bodies, without heads and without chunk framing.
    """

    methods: dict[str, int] = field(default_factory=dict)
    bytes_sent: int = 0

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(self.methods.values())


class RequestMeter:
    """Reads the requests of one HTTP/1.1 connection as they pass by (RFC 9112, sections 6 and 7).

    Attributes:
        methods: Requests by method so far.
        bytes_sent: Bytes of bodies so far.
    """

    def __init__(self) -> None:
        self.methods: Counter[str] = Counter()
        self.bytes_sent = 0
        self._text = b""  # the part of a head or of a chunk's first line that has come
        self._body = 0  # bytes of the body, or of the chunk, that are still to come
        self._state = "head"

    def feed(self, data: memoryview) -> None:
        """Take the next bytes, wherever they were cut.

        Raises:
            ValueError: This is not HTTP/1.1.
        """
        while data:
            if self._body:
                passing = min(self._body, len(data))
                self._body -= passing
                self.bytes_sent += passing
                data = data[passing:]
            else:
                data = self._line(data)

    def _line(self, data: memoryview) -> memoryview:
        """Take bytes up to the end of what is awaited: a whole head, or one line."""
        end = b"\r\n\r\n" if self._state == "head" else b"\r\n"
        had = len(self._text)
        text = self._text + bytes(data[:4096])
        place = text.find(end)
        if place < 0:
            if len(text) > _LONGEST_HEAD:
                raise ValueError("A request has no end; this is not HTTP/1.1.")
            self._text = text
            return data[len(text) - had :]
        self._text = b""
        getattr(self, f"_after_{self._state}")(text[:place])
        return data[place + len(end) - had :]

    def _after_head(self, head: bytes) -> None:
        self.methods[head.split(b" ", 1)[0].decode("ascii")] += 1
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields[name.strip().lower()] = value.strip().lower()
        if fields.get(b"transfer-encoding", b"").endswith(b"chunked"):
            self._state = "size"
        else:
            self._body = int(fields.get(b"content-length", b"0"))

    def _after_size(self, line: bytes) -> None:
        self._body = int(line.split(b";")[0], 16)
        self._state = "chunk" if self._body else "trailer"

    def _after_chunk(self, line: bytes) -> None:
        self._state = "size"

    def _after_trailer(self, line: bytes) -> None:
        if not line:
            self._state = "head"


class CountingProxy:
    """Serves on a loopback port and hands everything to another one.

    Args:
        upstream: The port of the real server.
        port: Where to listen; 0 for any free port.
    """

    def __init__(self, upstream: int, port: int = 0) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._meters: list[RequestMeter] = []

    def __enter__(self) -> CountingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self) -> Count:
        """Give what has gone through so far."""
        methods: Counter[str] = Counter()
        for meter in list(self._meters):
            methods.update(meter.methods)
        return Count(dict(sorted(methods.items())), sum(m.bytes_sent for m in self._meters))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        meter = RequestMeter()
        self._meters.append(meter)
        with client, socket.create_connection(("127.0.0.1", self._upstream)) as server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            answers.start()
            _pass_on(client, server, meter)
            answers.join()


def _pass_on(
    source: socket.socket, target: socket.socket, meter: RequestMeter | None = None
) -> None:
    """Hands bytes on until the source has no more, or one of the two has gone."""
    view = memoryview(bytearray(_BUFFER))
    with contextlib.suppress(OSError):
        while count := source.recv_into(view):
            # Counted first: whoever has the answer can rely on the count.
            if meter is not None:
                meter.feed(view[:count])
            target.sendall(view[:count])
        target.shutdown(socket.SHUT_WR)


def main() -> None:
    """Count until standard input ends."""
    port, upstream = map(int, sys.argv[1:])
    with CountingProxy(upstream, port) as proxy:
        print("ready", flush=True)
        sys.stdin.read()
        count = proxy.count()
    print(json.dumps(asdict(count)))


if __name__ == "__main__":
    main()
