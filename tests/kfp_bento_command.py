"""The command as people run it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest import mock

from typer.testing import CliRunner

from kfp_bento.runtime.cli.application import app

COMMAND = [sys.executable, "-m", "kfp_bento.runtime.cli"]


def kfp_bento(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment | {"COLUMNS": "200"} | variables,
    )


def kfp_bento_here(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has everything imported: for what looks at answers alone."""
    words = [str(argument) for argument in arguments]
    cleared = {name: None for name in os.environ if name.startswith("MLFLOW_TRACKING")}
    runner = CliRunner(env=cleared | {"COLUMNS": "200"} | variables)
    with mock.patch.object(sys, "argv", ["kfp-bento", *words]):
        done = runner.invoke(app, words, catch_exceptions=False)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def assert_refused(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("waiting: ")]
    assert lines[0].startswith("Error: "), done.stderr
    assert told in done.stderr
    # Indented it is the log of a pod, which is evidence.
    lines += done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("Traceback")]
