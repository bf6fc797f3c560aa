"""A service without network is reached through a socket, and through nothing else."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfp_bento.runtime.local.relay import INSIDE, SOCKET, relay


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def echoing() -> Iterator[int]:
    """The port of a service that sends back what it gets, until the other side is done."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        def echo(connection: socket.socket) -> None:
            with connection:
                while piece := connection.recv(1 << 16):
                    connection.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def inside(shared: Path, echoing: int) -> Iterator[Path]:
    """What runs beside the service."""
    argv = [sys.executable, "-I", "-c", INSIDE, str(shared / SOCKET), str(echoing)]
    with subprocess.Popen(argv) as process:
        while not (shared / SOCKET).exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield shared
        process.kill()


def told(port: int, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        threading.Thread(target=send, args=(connection, content)).start()
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def send(connection: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody is there
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)


def test_what_is_sent_arrives_and_comes_back_whole(inside: Path) -> None:
    large = bytes(range(256)) * 20_000
    with relay(inside) as port:
        assert told(port, large) == large
        assert [told(port, b"%d" % number) for number in range(5)] == [
            b"%d" % number for number in range(5)
        ]
        with socket.create_connection(("127.0.0.1", port)):  # one that waits holds up nobody
            assert told(port, b"x") == b"x"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_connection_ends_where_nobody_serves(shared: Path) -> None:
    with relay(shared) as port:
        assert told(port, b"") == b""


def test_a_link_in_place_of_the_socket_leads_nowhere(shared: Path, tmp_path: Path) -> None:
    """Code inside could otherwise reach any socket of this machine, such as an engine's."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        other.settimeout(0.3)
        (shared / SOCKET).symlink_to(tmp_path / "other")
        with relay(shared) as port:
            assert told(port, b"") == b""
        with pytest.raises(TimeoutError):
            other.accept()
