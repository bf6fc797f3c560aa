"""What the command prints: JSON for machines, tables and progress for people."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError, plain_text

if TYPE_CHECKING:  # the whole local run hangs on it, which most commands have no use for
    from kfp_bento.runtime.local import Step

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text for people.")
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

# What goes to a file or another program is not folded to the width of a terminal.
err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
out = Console(highlight=False)

_UNFOLDED = 10_000  # columns, where there is no terminal


def foreign(text: object) -> str:
    """Give text of models, servers and clusters for a console: without controls, not as markup."""
    return escape(plain_text(str(text)))


def print_json(data: Any) -> None:
    """Print one JSON document, keys sorted, on standard output."""
    typer.echo(json.dumps(data, indent=2, sort_keys=True))


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a two-column table of facts, empty ones left out."""
    table = Table(
        title=foreign(title), title_justify="left", show_header=False, box=None, padding=(0, 2)
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in ("", None, (), []):
            table.add_row(name, foreign(value))
    _print(table)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of plain texts; the last column alone is folded."""
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="bold")
    for heading in headings:
        last = heading is headings[-1]
        table.add_column(heading, no_wrap=not last, overflow="fold" if last else "ellipsis")
    for row in rows:
        table.add_row(*map(foreign, row))
    _print(table)


def _print(table: Table) -> None:
    if out.is_terminal:
        out.print(table)
        return
    console = Console(highlight=False, width=_UNFOLDED)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def print_error(error: KfpBentoError, *, as_json: bool) -> None:
    """Print what went wrong and what to do next on standard error."""
    if as_json:
        told = {"error": error.message, "hint": error.hint, "page": error.page}
        typer.echo(json.dumps(told), err=True)
        return
    whole = not err.is_terminal
    err.print(f"[bold red]Error:[/] {foreign(error.message)}", soft_wrap=whole)
    if error.hint:
        err.print(f"[bold]Hint:[/]  {foreign(error.hint)}", soft_wrap=whole)
    if error.page:
        err.print(f"[bold]More:[/]  {error.page}", soft_wrap=whole)


def require_confirmable(*, yes: bool) -> None:
    """Make sure that a deletion was confirmed, or that there is somebody to ask.

    Raises:
        InvalidInput: Neither.
    """
    if not yes and not sys.stdin.isatty():
        raise InvalidInput(
            "Deleting is confirmed on a terminal, and this is none.",
            hint="--yes deletes without asking.",
        )


def confirm(question: str) -> None:
    """Ask on the terminal whether something is to be deleted.

    Raises:
        KfpBentoError: It is not.
    """
    if not typer.confirm(question, err=True):
        raise KfpBentoError("Not confirmed: nothing was deleted.")


@contextlib.contextmanager
def working(text: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show a spinner with elapsed time while a block works.

    Yields:
        A function that changes the text, given to whatever reports its progress.
    """
    if quiet or not err.is_terminal:
        yield lambda text: None
        return
    with _progress() as progress:
        task = progress.add_task(foreign(text))
        yield lambda text: progress.update(task, description=foreign(text))


@contextlib.contextmanager
def waiting(text: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show what a block waits for: a spinner on a terminal, elsewhere a line for each change.

    Yields:
        A function that takes what is waited for now.
    """
    if quiet:
        yield lambda text: None
        return
    if not err.is_terminal:
        yield lambda text: err.print(f"waiting: {foreign(text)}", soft_wrap=True)
        return
    with _progress() as progress:
        task = progress.add_task(foreign(text))
        yield lambda text: progress.update(task, description=f"waiting: {foreign(text)}")


@contextlib.contextmanager
def transfer(text: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of the bytes moved while a block works.

    Yields:
        A function that takes the bytes done and the bytes in all.
    """
    if quiet or not err.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, TransferSpeedColumn(), console=err, transient=True) as progress:
        task = progress.add_task(foreign(text), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextlib.contextmanager
def rows_done(text: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of the rows done while a block works.

    Yields:
        A function that takes the rows done and the rows in all.
    """
    if quiet or not err.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as progress:
        task = progress.add_task(foreign(text), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextlib.contextmanager
def steps(*, quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Show the steps of a run: one line for each that ended, a spinner for the one that runs."""
    if quiet:
        yield lambda step: None
        return
    if not err.is_terminal:
        yield _print_step
        return
    with _progress() as progress:
        task = progress.add_task("starting")

        def show(step: Step) -> None:
            if step.succeeded is None:
                progress.reset(task, description=step.name)
            else:
                _print_step(step, progress.console)

        yield show


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True)


def _print_step(step: Step, console: Console = err) -> None:
    if step.succeeded is None or step.seconds is None:
        return
    mark = "[green]ok[/]    " if step.succeeded else "[red]failed[/]"
    console.print(f"  {mark} {step.name:<20} {step.seconds:5.1f} s")


def stopwatch() -> Callable[[], float]:
    """Give a function that tells the seconds since this call."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
