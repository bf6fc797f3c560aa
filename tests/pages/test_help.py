"""The example at the end of each help page is run as written, in the order of the road."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reading import Command, Page
from tables import LATER, NEEDS_CLUSTER
from test_walks import marked, walk
from typer.main import get_command
from world import World

from kfp_bento.runtime.cli.application import app

ROAD = (
    *("model", "bento build", "bento export", "bento import", "bento predict", "bento", "requests"),
    *("check", "image", "deploy options", "deploy", "release make", "check", "promote", "approve"),
    *("release list", "release status", "release wait", "release confirm", "release monitoring"),
    *("roll-back", "release roll-back", "release delete"),
)


def _epilogs(command: Any) -> Iterator[str]:
    for one in getattr(command, "commands", {}).values():
        yield from _epilogs(one)
    if not hasattr(command, "commands"):
        yield command.epilog.partition(": ")[2]


def _place(example: str) -> int:
    words = example.partition(" ")[2]
    return next((n for n, one in enumerate(ROAD) if words.startswith(f"{one} ")), len(ROAD))


EXAMPLES = sorted(_epilogs(get_command(app)), key=_place)


def pages() -> list[Page]:
    """What needs no cluster, and what does."""
    found = {"help": Page("help"), "help of clusters": Page("help of clusters")}
    for number, example in enumerate(EXAMPLES, 1):
        name = "help of clusters" if NEEDS_CLUSTER.search(example) else "help"
        found[name].commands.append(Command(number, example))
    return [*found.values()]


@pytest.mark.cluster
@pytest.mark.parametrize("page", [marked(page) for page in pages() if page.name not in LATER])
def test_the_example_of_each_help_page_can_be_run(page: Page, world: World, tmp_path: Path) -> None:
    assert not walk(page, world, tmp_path)
