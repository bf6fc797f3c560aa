"""What the command says of itself, to whoever begins, and to shells."""

from __future__ import annotations

import os
from enum import Enum
from importlib.metadata import version
from typing import Optional

import typer
from typer import completion

from kfp_bento.runtime.cli.output import out

COMMAND = "kfp-bento"

BEGINNING = (
    ("the whole road on this machine, in a minute", "kfp-bento demo"),
    ("what loading your model would run", "kfp-bento model scan MODEL_URI"),
    ("your model on this machine", "kfp-bento run serve_model --param ..."),
    ("a cluster made ready: image, pipelines, Role", "kfp-bento install --registry ..."),
    ("a run on that cluster", "kfp-bento submit serve_model --param ..."),
    ("how a release stands there", "kfp-bento release status NAME"),
    ("all commands, and each one's options", "kfp-bento --help"),
)
"""What to begin with, in the order in which people come to it."""

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


def print_beginning() -> None:
    """Say where to begin, to whoever gives no command."""
    out.print(
        f"[bold]{COMMAND}[/] {version(COMMAND)}: from an MLflow model to a promoted service.\n"
    )
    width = max(len(command) for _, command in BEGINNING)
    for does, command in BEGINNING:
        out.print(f"  [bold]{command:<{width}}[/]  {does}", soft_wrap=True)
    out.print("\ndocs/first-hour.md goes through it; docs/operating.md has each verdict.")


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
