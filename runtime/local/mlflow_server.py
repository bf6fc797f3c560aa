"""An MLflow tracking server on this machine, for as long as a run needs it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.local.mlflow_app import TOKEN_VARIABLE
from kfp_bento.runtime.local.private import private_directory
from kfp_bento.runtime.local.processes import wait_until_answers
from kfp_bento.runtime.programs import clean_environment, interrupt_group, start_program

if TYPE_CHECKING:
    import subprocess

HOST = "127.0.0.1"
START_SECONDS = 90.0


@dataclass(frozen=True)
class TrackingServer:
    """A server that was started; it may take some seconds until it answers.

    Attributes:
        address: The tracking URI.
        token: What it wants to be told by whoever asks it for anything.
        process: The server's process.
        log: What it said.
    """

    address: str
    token: str = field(repr=False)
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables that let MLflow's client in, and its token go nowhere else."""
        direct = {
            name: ",".join(filter(None, (os.environ.get(name), HOST)))
            for name in ("NO_PROXY", "no_proxy")
        }
        return {"MLFLOW_TRACKING_TOKEN": self.token, **direct}

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            LocalRunError: If it does not; with the end of its log.
        """
        wait_until_answers(
            f"{self.address}/health",
            self.process,
            self.log,
            seconds=START_SECONDS,
            what="The MLflow server",
            headers={"Authorization": f"Bearer {self.token}"},
        )

    def finish(self) -> None:
        """Ask the server to end, without waiting until it did."""
        interrupt_group(self.process)


@contextlib.contextmanager
def tracking_server(directory: Path) -> Iterator[TrackingServer]:
    """Start a real MLflow server on SQLite, artifacts proxied, on a free loopback port.

    Args:
        directory: Holds the database, the artifacts and the log, and is ours alone; made when
            missing, and used again by the next server started on it.

    Yields:
        The server, which is stopped at the end of the block.

    Raises:
        LocalRunError: The directory is, or could be written by, somebody else's.
    """
    place = private_directory(directory).resolve()
    log = place / "server.log"
    token = secrets.token_urlsafe(32)
    with socket.create_server((HOST, 0), backlog=128) as listener:
        # -P: nothing is imported from the directory that it works in.
        argv = [sys.executable, "-P", "-m", "kfp_bento.runtime.local.mlflow_app"]
        argv += [f"sqlite:///{place / 'mlflow.db'}", str(place / "artifacts")]
        argv += [str(listener.fileno())]
        with start_program(
            argv,
            environment=_environment(place, token),
            directory=place,
            log=log,
            inherited=(listener.fileno(),),
        ) as process:
            address = f"http://{HOST}:{listener.getsockname()[1]}"
            listener.close()  # the server has it now
            yield TrackingServer(address, token, process, log)


def _environment(place: Path, token: str) -> dict[str, str]:
    return clean_environment(
        ("PYTHONPATH", "PYTHONHOME"),
        **{TOKEN_VARIABLE: token},
        MLFLOW_DISABLE_TELEMETRY="true",
        # Without job execution the server has no dozen idle workers beside it.
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        TMPDIR=str(place),
    )
