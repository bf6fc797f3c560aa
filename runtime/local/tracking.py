"""An MLflow tracking server on this machine, for as long as a run needs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .processes import free_port, running, wait_until_answers


@contextlib.contextmanager
def tracking_server(directory: Path) -> Iterator[str]:
    """Run a real MLflow server on SQLite, artifacts proxied, on a free loopback port.

    Args:
        directory: Holds the database, the artifacts and the log; made when missing, and used
            again by the next server started on it.

    Yields:
        The tracking URI.
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{free_port()}"
    log = directory / "server.log"
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    argv += ["--port", address.rpartition(":")[2]]
    argv += ["--backend-store-uri", f"sqlite:///{directory.resolve() / 'mlflow.db'}"]
    argv += ["--artifacts-destination", str(directory.resolve() / "artifacts")]
    variables = _environment() | {"TMPDIR": str(directory.resolve())}
    with running(argv, log, environment=variables, directory=directory) as process:
        wait_until_answers(f"{address}/health", process, log, seconds=90, what="The MLflow server")
        yield address


def _environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    # Without job execution the server is one process less a dozen idle workers.
    return {
        **inherited,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
