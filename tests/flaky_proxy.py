"""A TCP proxy that breaks off, or falls silent, after a number of bytes of answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from urllib.parse import urlsplit

_ALL = 1 << 40


class FlakyProxy:
    """Stands in front of one server.

    Args:
        upstream: The server's URI.
        after: Bytes of answers that go through.
        then: "cut" (every connection is closed, new ones are refused), "cut once" (that one
            connection is closed) or "stall" (nothing more is sent, connections stay open).
    """

    def __init__(self, upstream: str, *, after: int, then: str) -> None:
        parsed = urlsplit(upstream)
        self._upstream = (parsed.hostname or "", parsed.port or 80)
        self._left, self._then = after, then
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.reached = threading.Event()

    def __enter__(self) -> FlakyProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close(self._listener, *self._sockets)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._sockets += [client, server]
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data[: max(self._left, 0)])
                self._left -= len(data)
                if self._left < 0 and self._break(server, client):
                    return
        self._close(client)

    def _break(self, *pair: socket.socket) -> bool:
        self.reached.set()
        if self._then == "stall":
            threading.Event().wait(60)
        elif self._then == "cut once":
            self._left = _ALL
            self._close(*pair)
        else:
            self._close(self._listener, *self._sockets)
        return True

    @staticmethod
    def _close(*sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class CuttingProxy(FlakyProxy):
    """Cuts connections at several places of the answers, one after the other; then no more.

    Args:
        upstream: The server's URI.
        pieces: Bytes of answers that go through until the next connection is cut.
    """

    def __init__(self, upstream: str, pieces: Iterable[int]) -> None:
        self._pieces = iter(pieces)
        self.cuts = 0
        super().__init__(upstream, after=next(self._pieces, _ALL), then="cut")

    def _break(self, *pair: socket.socket) -> bool:
        self.reached.set()
        self.cuts += 1
        self._left = next(self._pieces, _ALL)
        self._close(*pair)
        return True
