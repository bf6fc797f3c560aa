"""What a page tells its reader to do: its commands in their order, and the files that it shows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What begins a line that is meant for a shell.
PROGRAMS = {
    *("kfp-bento", "make", "export", "curl", "kubectl", "pip", "python", "mkdir", "openssl"),
    *("bentoml", "mlflow", "uv", ".", ".venv/bin/python", "podman", "docker", "git", "cosign"),
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([\w-]+\.(py|yaml|json))`")
_KINDS = {"py": "python", "yaml": "yaml", "json": "json"}
_HEREDOC = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True)
class Command:
    """What somebody types, as written, and what the page says is answered."""

    line: int
    text: str
    shown: tuple[str, ...] = ()


@dataclass
class Page:
    """A page as a walk.

    Attributes:
        name: Its path below the root.
        commands: In their order.
        files: Content by name, of what the page shows as a file.
        others: First lines of blocks that are neither.
    """

    name: str
    commands: list[Command] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


@cache
def read(name: str) -> Page:
    """Reads a page of the documentation."""
    return parsed(name, (ROOT / name).read_text())


def parsed(name: str, text: str) -> Page:
    page = Page(name)
    for fence in _FENCE.finditer(text):
        kind, block = fence[1], fence[2]
        first = text[: fence.start()].count("\n") + 2
        before = text[: fence.start()].rstrip().rpartition("\n\n")[2]
        named = next((one for one in _NAMED.finditer(before) if _KINDS[one[2]] == kind), None)
        if named and kind:
            page.files[named[1]] = block
        elif kind == "python" and _is_program(block):
            page.commands.append(Command(first, f"python - <<'END'\n{block}END"))
        elif commands := list(_commands(block, first)) if kind in ("", "console") else []:
            page.commands += commands
        else:
            page.others.append(block.partition("\n")[0])
    return page


def _is_program(block: str) -> bool:
    """Whether it can be run as it stands: it imports what it uses."""
    try:
        return isinstance(ast.parse(block).body[0], ast.Import | ast.ImportFrom)
    except SyntaxError:
        return False


def _commands(block: str, first: int) -> Iterator[Command]:
    lines = block.splitlines()
    prompted = any(line.startswith("$ ") for line in lines)
    if not prompted and lines[0].partition(" ")[0] not in PROGRAMS:
        return
    number = 0
    while number < len(lines):
        begun, line = number, lines[number].removeprefix("$ ")
        if not line.strip():
            number += 1
            continue
        parts = [line]
        number += 1
        ends = _HEREDOC.search(line)
        while number < len(lines) and (
            (ends and parts[-1] != ends[1]) or (not ends and parts[-1].endswith("\\"))
        ):
            parts.append(lines[number])
            number += 1
        shown = []
        while prompted and number < len(lines) and not lines[number].startswith("$ "):
            shown.append(lines[number])
            number += 1
        yield Command(first + begun, "\n".join(parts), tuple(shown))
