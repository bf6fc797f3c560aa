"""What is printed as a command of ours is one: in help pages, documents and hints."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import command_tree, kfp_bento_here

ROOT = Path(__file__).parents[2]
NAME = "kfp-bento"
# A command ends where the line does, or the shell would start another, or prose goes on.
_END = re.compile(r"[|#`\n]|; (?=[a-z])|\.\s|\.$|,\s|:\s|\s\(|\)")
_FENCE = re.compile(r"^```(?:\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


@cache
def commands() -> dict[str, Any]:
    """All commands by their path, such as `bento build`."""

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield " ".join(path), command
            return
        for name, inner in command.commands.items():
            yield from below(inner, (*path, name))

    return dict(below(command_tree(), ()))


def printed(text: str) -> list[str]:
    """Gives what follows `kfp-bento ` wherever it stands in a text, up to the command's end."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = []
    for piece in re.split(r"(?<![\w/.'\"-])kfp-bento (?=[a-z-])", joined)[1:]:
        found.append(_END.split(piece, maxsplit=1)[0].strip())
    return found


def problem(command: str) -> str:
    """Says what is wrong with a command, or ""."""
    plain = command.replace("[", "").replace("]", "")
    try:
        words = shlex.split(plain)
    except ValueError:  # prose goes on after it, with an apostrophe
        words = plain.split()
    known = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in commands()), "")
    if words[0].startswith("--"):
        return "" if words[0] in ("--version", "--completion", "--help") else words[0]
    if not known:
        groups = {path.split()[0] for path in commands()}
        return "" if words[0] in groups and len(words) == 1 else f"no command {words[:2]}"
    options = {
        name for one in commands()[known].params for name in (*one.opts, *one.secondary_opts)
    }
    given = [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*.*", word)]
    unknown = [word for word in given if word not in {*options, "--help", "-h"}]
    return f"{known} has no {', '.join(unknown)}" if unknown else ""


def test_every_help_page_can_be_shown() -> None:
    """As people see it: what is in brackets might be taken for markup."""
    for path in ("", *commands(), *sorted({path.split()[0] for path in commands()})):
        shown = kfp_bento_here(*path.split(), "--help")
        assert shown.returncode == 0, path
        assert "Usage" in shown.stdout


@pytest.mark.parametrize("path", sorted(commands()))
def test_a_help_page_has_an_example_that_is_a_command(path: str) -> None:
    epilog = commands()[path].epilog or ""
    assert epilog.startswith(f"Example: {NAME} {path}")
    example = epilog.partition(f"{NAME} ")[2]
    assert problem(example) == ""
    needed = [one.opts[0] for one in commands()[path].params if one.required]
    assert [option for option in needed if option[0] == "-" and option not in example] == []


def documents() -> list[Path]:
    folders = [path for name in ("docs", "examples") for path in (ROOT / name).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *folders, *(ROOT / "components").rglob("*.md")])


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_document_are_there(path: Path) -> None:
    text = path.read_text()
    pieces = [*_FENCE.findall(text), *_INLINE.findall(_FENCE.sub("", text))]
    found = [command for piece in pieces for command in printed(piece)]
    assert {command: problem(command) for command in found if problem(command)} == {}


def texts(path: Path) -> list[str]:
    """Gives the texts of a module, with what is filled in as `X`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "X" for one in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "runtime").rglob("*.py")) if NAME in path.read_text()],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_commands_that_a_hint_names_are_there(path: Path) -> None:
    # Elsewhere the name begins a sentence: "kfp-bento generates services".
    first = {known.split()[0] for known in commands()}
    found = [one for text in texts(path) for one in printed(text) if one.split()[0] in first]
    assert {command: problem(command) for command in found if problem(command)} == {}


def test_what_is_no_command_is_seen() -> None:
    assert printed("Run `kfp-bento bento biuld x`, then go on.") == ["bento biuld x"]
    assert problem("bento biuld x")
    assert problem("bento build x --nowhere y")
    assert problem("bento build x --to y") == ""
