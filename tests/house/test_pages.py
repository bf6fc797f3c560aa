"""Pages of docs/: found from the first, begun with what one gets, linked to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def links(page: Path) -> set[str]:
    return {one for one in LINK.findall(FENCE.sub("", page.read_text())) if "://" not in one}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_a_page_links_to_what_is_there(page: Path) -> None:
    assert {one for one in links(page) if not (page.parent / one).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_what_one_gets_and_is_found_from_the_first(page: Path) -> None:
    if page.name == "README.md":
        return
    assert page.read_text().split("\n\n")[1].startswith("What you get: ")
    assert page.name in links(ROOT / "docs/README.md")


def test_the_first_page_takes_a_screen_and_a_half_and_starts_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert "make demo" in text
    assert "make test" in text
