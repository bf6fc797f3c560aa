"""An MLflow tracking server on this machine, for as long as a run needs it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .processes import free_port, interrupt, running, wait_until_answers

START_SECONDS = 90.0


@dataclass(frozen=True)
class TrackingServer:
    """A server that was started; it may take some seconds until it answers.

    Attributes:
        address: The tracking URI.
        process: The server's process.
        log: What it said.
    """

    address: str
    process: subprocess.Popen[bytes]
    log: Path

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
        )

    def finish(self) -> None:
        """Ask the server to end, without waiting until it did."""
        interrupt(self.process)


@contextlib.contextmanager
def tracking_server(directory: Path) -> Iterator[TrackingServer]:
    """Start a real MLflow server on SQLite, artifacts proxied, on a free loopback port.

    Args:
        directory: Holds the database, the artifacts and the log; made when missing, and used
            again by the next server started on it.

    Yields:
        The server, which is stopped at the end of the block.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = directory / "server.log"
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--workers", "1"]
    argv += ["--backend-store-uri", f"sqlite:///{directory.resolve() / 'mlflow.db'}"]
    argv += ["--artifacts-destination", str(directory.resolve() / "artifacts")]
    with running(argv, log, environment=_environment(directory), directory=directory) as process:
        yield TrackingServer(f"http://127.0.0.1:{port}", process, log)


def _environment(directory: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    return {
        **inherited,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Without job execution the server has no dozen idle workers beside it.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "TMPDIR": str(directory.resolve()),
    }
