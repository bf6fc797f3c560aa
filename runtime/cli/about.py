"""kfp-bento --version and --completion: what the command says of itself, and to shells."""

from __future__ import annotations

import os
from enum import Enum
from importlib.metadata import version
from typing import Optional

import typer
from typer import completion

COMMAND = "kfp-bento"

# By its value a shell's function asks the command what may come next.
_VARIABLE = "_KFP_BENTO_COMPLETE"


class Shell(str, Enum):  # noqa: UP042 - typer shows the values
    """A shell that can complete the command."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def print_version(asked: bool) -> None:
    """Print the distribution's name and version."""
    if asked:
        typer.echo(f"{COMMAND} {version(COMMAND)}")
        raise typer.Exit


def print_completion(shell: Optional[Shell]) -> None:  # noqa: UP045 - typer evaluates it
    """Print the script by which a shell completes the command."""
    if shell is not None:
        # As typer's own --show-completion does, which asks the machine for the shell instead.
        script = completion.get_completion_script(  # type: ignore[attr-defined]
            prog_name=COMMAND, complete_var=_VARIABLE, shell=shell.value
        )
        typer.echo(script.strip())
        raise typer.Exit


def offer_completion() -> None:
    """Make the command answer a shell that asks what may come next."""
    if _VARIABLE in os.environ:
        completion.completion_init()  # type: ignore[attr-defined]
