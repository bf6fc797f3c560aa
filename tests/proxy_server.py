"""A proxy as networks have them: CONNECT and plain requests, names that only it can resolve."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProxyServer:
    """A proxy on this machine, as a context.

    Args:
        names: Where hosts (`host:port`) really are, as `address:port`; others are refused.
        refuses: A status and its words, to be answered instead.

    Attributes:
        asked: The hosts that it was asked for.
        accounts: What the requests said in `Proxy-Authorization`.
    """

    def __init__(self, names: Mapping[str, str] | None = None, refuses: str = "") -> None:
        self._names, self._refuses = dict(names or {}), refuses
        self.asked: list[str] = []
        self.accounts: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> ProxyServer:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            lines = _head(client).split(b"\r\n")
            method, target, _ = lines[0].decode().split(" ")
            tunnel = method == "CONNECT"
            url = urlsplit(f"//{target}" if tunnel else target)
            asked = url.netloc if url.port else f"{url.netloc}:80"
            self.asked.append(asked)
            said = (line.decode("latin-1").partition(": ") for line in lines)
            self.accounts += [
                value for name, _, value in said if name.lower() == "proxy-authorization"
            ]
            if self._refuses or asked not in self._names:
                status = self._refuses or "502 Bad Gateway"
                client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            address, _, port = self._names[asked].rpartition(":")
            with socket.create_connection((address, int(port))) as server:
                if tunnel:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = f"{url.path or '/'}{url.query and '?'}{url.query}"
                    lines[0] = f"{method} {path} HTTP/1.1\r\nConnection: close".encode()
                    server.sendall(b"\r\n".join(lines))
                Thread(target=_copy, args=(client, server), daemon=True).start()
                if not tunnel:  # one request for each connection, and the client is told so
                    answered = server.recv(65536).split(b"\r\n", 1)
                    client.sendall(b"\r\nConnection: close\r\n".join(answered))
                _copy(server, client)


def _head(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(65536)
        if not piece:
            raise ValueError("no request")
        head += piece
    return head


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
