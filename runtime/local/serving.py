"""One bento served for whoever sits here, until they have seen enough."""

from __future__ import annotations

import contextlib
import errno
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.bentos import describe_bento
from kfp_bento.runtime.errors import InvalidInput, LocalRunError
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.local.bento_process import BentoProcess, Listening, bento_process
from kfp_bento.runtime.programs import cleaned, code_variables
from kfp_bento.runtime.proof import locked_environment

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

_PAUSE = 0.1
_PIECE = 64 << 10


@contextlib.contextmanager
def serve_bento(
    bento: Bento, how: Listening, *, tell: Callable[[str], None] = lambda sentence: None
) -> Iterator[BentoProcess]:
    """Serve a bento in its own locked environment for the length of a block.

    It has the network, no credentials of ours, and no process of it is left afterwards.

    Args:
        bento: The bento.
        how: How it listens.
        tell: Called with what is done now.

    Raises:
        InvalidInput: The port is taken, the address is none of this machine, or the bento has no
            lock with hashes.
        LocalRunError: Its dependencies cannot be installed, or it does not start.
    """
    require_free(how)
    _require_lock(bento)
    with contextlib.ExitStack() as stack:
        tell("installing what the lock says")
        environment = stack.enter_context(locked_environment(bento, error=LocalRunError))
        scratch = scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-serve-")
        directory = stack.enter_context(scratch)
        tell("starting the service")
        seeing = replace(how, variables=code_variables())
        started = stack.enter_context(bento_process(bento, environment, seeing, directory))
        started.wait()
        yield started


def follow(started: BentoProcess, write: Callable[[str], None]) -> int:
    """Pass on what a bento's process says, from its start until it ends, and give its exit code.

    Args:
        started: The process.
        write: Takes text without control characters, in pieces that end where lines do.
    """
    with started.log.open("rb") as log:
        log.seek(started.since)
        rest = b""
        while True:
            ended = started.process.poll()
            while piece := log.read(_PIECE):
                whole, newline, rest = (rest + piece).rpartition(b"\n")
                if newline or len(rest) > _PIECE:
                    write(cleaned((whole or rest).decode("utf-8", "replace")))
                    rest = rest if newline else b""
            if ended is not None:
                return ended
            time.sleep(_PAUSE)


def require_free(how: Listening) -> None:
    """Make sure that a port can be had.

    Raises:
        InvalidInput: It cannot.
    """
    family = socket.AF_INET6 if ":" in how.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((how.host, how.port))
        except OSError as failure:
            raise _unavailable(how, failure) from failure


def _unavailable(how: Listening, failure: OSError) -> InvalidInput:
    if failure.errno == errno.EADDRINUSE:
        return InvalidInput(
            f"Port {how.port} of {how.host} is taken by another program.",
            hint=f"Choose another with --port {how.port + 1 if how.port < 65535 else 3000}, or "
            f"see who has it: ss -ltnp 'sport = :{how.port}'",
        )
    if failure.errno == errno.EACCES:
        return InvalidInput(
            f"Port {how.port} is for root only.", hint="Choose one from 1024: --port 3000"
        )
    return InvalidInput(
        f"{how.host} is no address of this machine: {failure.strerror}.",
        hint="--host 127.0.0.1 serves this machine alone, --host 0.0.0.0 whoever reaches it.",
    )


def _require_lock(bento: Bento) -> None:
    lock = describe_bento(bento).lock
    if lock is None or (lock.packages and not lock.hashed):
        raise InvalidInput(
            f"The bento {bento.tag} has no lock with hashes, so that nobody knows what it runs in.",
            hint="Take it in, which locks it: kfp-bento bento import "
            f"{bento.directory} --to ./locked",
        )
