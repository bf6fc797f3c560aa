"""The command as people run it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import Any
from unittest import mock

from typer.main import get_command
from typer.testing import CliRunner

from kfp_bento.runtime.cli.application import app

NAME = "kfp-bento"
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
    code: Any = 0
    with runner.isolation() as (stdout, stderr, _), mock.patch.object(sys, "argv", [NAME, *words]):
        try:
            command_tree()(words, prog_name=NAME)
        except SystemExit as end:
            code = end.code
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        told = [stream.getvalue().decode() for stream in (stdout, stderr)]
    return subprocess.CompletedProcess(words, code, *told)


@cache
def command_tree() -> Any:
    """The whole tree of commands, which takes a quarter of a second to make."""
    return get_command(app)


def assert_refused(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("waiting: ")]
    assert lines[0].startswith("Error: "), done.stderr
    assert told in done.stderr
    # Indented it is the log of a pod, which is evidence.
    lines += done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("Traceback")]
