"""Who listens on a port: whoever answers there first may be a neighbour's program.

Only the standard library is used: the interpreter in a container runs this file as well.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
_LISTENING = "0A"
_LOOPBACK = format(int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder), "08X")


def listens(port: int, processes: Iterable[int]) -> bool | None:
    """Tell whether it is these processes that 127.0.0.1:PORT leads to.

    Args:
        port: A TCP port.
        processes: Their ids.

    Returns:
        None where nobody listens, and True where the system does not say who does.
    """
    if not (PROC / "net" / "tcp").exists():
        return True
    found = _listeners(port)
    return found <= _sockets(processes) if found else None


def session(leader: int) -> list[int]:
    """Give the processes of a session, which a program that we started leads."""
    found = []
    for process in processes():
        with contextlib.suppress(OSError):
            if os.getsid(process) == leader:
                found.append(process)
    return found


def processes() -> list[int]:
    """Give all processes that can be seen from here."""
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _listeners(port: int) -> set[str]:
    exact, wide = set(), set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if fields[3] != _LISTENING or int(number, 16) != port:
                    continue
                if address == _LOOPBACK:
                    exact.add(fields[9])
                elif not address.strip("0"):
                    wide.add(fields[9])
    return exact or wide  # the kernel prefers who names the address


def _sockets(processes: Iterable[int]) -> set[str]:
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in (PROC / str(process) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    kind, _, inode = str(descriptor.readlink()).partition(":")
                    if kind == "socket":
                        found.add(inode.strip("[]"))
    return found


if __name__ == "__main__":
    print({None: "nobody", True: "ours", False: "other"}[listens(int(sys.argv[1]), processes())])
