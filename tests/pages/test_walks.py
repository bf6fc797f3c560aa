"""Each page is a walk: its commands are run as written, in their order, in one folder."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from reading import ROOT, Command, Page, read
from shells import Shell, stays, unlike
from tables import (
    ASKS_NOBODY,
    CODES,
    LATER,
    MEASURES,
    NEEDS_CLUSTER,
    NEEDS_OPERATORS,
    PRESUMED,
    Presumed,
    excuse,
    filled,
)
from world import World, copy_checkout

PAGES = sorted(
    str(path.relative_to(ROOT))
    for place in ("README.md", "docs/*.md", "examples/*/README.md")
    for path in ROOT.glob(place)
    if any(not excuse(one.text) for one in read(str(path.relative_to(ROOT))).commands)
)

pytestmark = pytest.mark.timeout(1800)
QUICK = "docs/approval.md"
"""Run with the quick tests, so that what reads and runs pages is looked at as well."""


def texts_of(page: Page) -> str:
    """All that is run for a page, a command in each line."""
    texts = [*(one.text for one in page.commands), *PRESUMED.get(page.name, Presumed()).before]
    return "\n".join(one.replace("\\\n", " ") for one in texts if not excuse(one))


def needs_cluster(page: Page) -> bool:
    return bool(NEEDS_CLUSTER.search(texts_of(page)))


def marked(page: Page) -> object:
    marks = [] if page.name == QUICK else [pytest.mark.slow]
    if needs_cluster(page):
        marks = [pytest.mark.cluster]
    return pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", [marked(read(name)) for name in PAGES if name not in LATER])
def test_what_a_page_tells_to_do_can_be_done(page: Page, world: World, tmp_path: Path) -> None:
    assert not walk(page, world, tmp_path)


def walk(page: Page, world: World, folder: Path) -> list[str]:
    """Gives what went otherwise than the page says."""
    presumed = PRESUMED.get(page.name, Presumed())
    cluster, operators = needs_cluster(page), NEEDS_OPERATORS.search(texts_of(page))
    servers = not all(ASKS_NOBODY.match(one.text) for one in page.commands)
    world.begin(cluster=cluster, servers=servers)
    here = folder / "here"
    here.mkdir()
    arrange(page, presumed, world, here)
    shell = Shell(here, world.environment(folder, cluster=cluster, servers=servers))
    wrong = []
    with world.operators() if operators else nullcontext():
        try:
            for text in presumed.before:
                code, told = shell.run(filled(world, text))
                world.told.append(told)
                assert code == 0, f"before {page.name}: {text}\n{told}"
            for command in page.commands:
                if not excuse(command.text):
                    wrong += step(page, command, world, shell)
        finally:
            ended = shell.end()
    shown = {filled(world, one.text): one.shown for one in page.commands if stays(one.text)}
    for text, code, told in ended:
        missing = unlike(shown.get(text, ()), told)
        if code not in (0, 130) or missing:
            wrong.append(f"{text}\nended with {code} after Ctrl-C, not said: {missing}\n{told}")
    return wrong


def step(page: Page, command: Command, world: World, shell: Shell) -> list[str]:
    """Runs a command, and gives what went otherwise than the page says."""
    begun = time.monotonic()
    code, told = shell.run(filled(world, command.text))
    world.told.append(told)
    print(f"{time.monotonic() - begun:.1f} s, {code}: {command.text}\n{told}", flush=True)
    expected = next(
        (n for (at, text), n in CODES.items() if at == page.name and text in command.text), 0
    )
    if code == 1 and MEASURES.match(command.text):
        return []
    missing = [] if stays(command.text) else unlike(command.shown, told)
    if code == expected and not missing:
        return []
    also = f", not said: {missing}" if missing else ""
    return [f"{page.name}:{command.line}: {command.text}\nended with {code}{also}\n{told}"]


def arrange(page: Page, presumed: Presumed, world: World, here: Path) -> None:
    """Puts there what a page shows as files, and what it presumes."""
    if presumed.checkout:
        copy_checkout(ROOT, here)
    for name, content in (presumed.files | page.files).items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(content)
    for name, kept in presumed.kept.items():
        source = world.kept(kept)
        if source.is_dir():
            shutil.copytree(source, here / name)
            golden = source.with_name(f"{kept}.golden.json")
            if golden.exists():
                shutil.copy(golden, here / f"{name}.golden.json")
        else:
            shutil.copy(source, here / name)
