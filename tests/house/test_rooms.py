"""Rooms show a face; modules and functions stay small."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"
ROOMS = sorted(path.parent.name for path in RUNTIME.glob("*/__init__.py"))
CALLERS = [
    path
    for folder in ("runtime", "components", "pipelines", "bench")
    for path in sorted(ROOT.joinpath(folder).rglob("*.py"))
]
MODULES = sorted(RUNTIME.rglob("*.py"))
LONG_MODULES = {
    # It travels inside bentos: one file, and its bytes are part of their version.
    "runtime/bentos/pyfunc_guard.py",
}
LONG_FUNCTIONS = {
    # Typer reads the options of a command in its signature.
    "runtime/cli/bento.py:build",
    "runtime/cli/bento_batch.py:predict",
    "runtime/cli/bento_archives.py:import_command",
    "runtime/cli/check_data.py:metrics",
    "runtime/cli/check_data.py:drift",
    "runtime/cli/release.py:roll_back",
    "runtime/cli/release_make.py:make",
    "runtime/cli/deploy.py:apply",
    "runtime/cli/install.py:install",
    "runtime/cli/watch.py:watch",
}
OPERATORS_WORDS = {
    *("serving.kserve.io", "knative.dev", "InferenceService", "BlockedByFailedLoad"),
    *("yatai.ai", "BentoDeployment", "BentoRequest", "BentoAvailable", "ImageBuilding"),
}
MOST_LINES = 450
MOST_LINES_OF_A_FUNCTION = 60


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "runtime" and len(parts) > 2 else ""


@cache
def imports_of_rooms(path: Path) -> list[tuple[str, str, str]]:
    """Room, module below it ("" for its face) and name, of imports from other rooms."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kfp_bento.runtime"):
            room, *inner = [*(node.module or "").split(".")[2:], ""]
            if room in ROOMS and room != room_of(path):
                found += [(room, ".".join(filter(None, inner)), one.name) for one in node.names]
    return found


@cache
def used_as_attributes(path: Path) -> list[tuple[str, str]]:
    """Room and name where a room is imported whole: `deployments.deploy`."""
    whole = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.module == "kfp_bento.runtime"
        for alias in node.names
    }
    return [
        (whole[node.value.id], node.attr)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in whole
    ]


def test_a_room_is_imported_through_its_face() -> None:
    found = {
        (identifier(path), room, inner, name)
        for path in CALLERS
        for room, inner, name in imports_of_rooms(path)
        if inner
    }
    assert found == set()


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "cli"])
def test_a_face_shows_what_others_use_and_nothing_else(room: str) -> None:
    used = {
        name
        for path in CALLERS
        if room_of(path) != room
        for found, name in [
            *((one, name) for one, inner, name in imports_of_rooms(path) if not inner),
            *used_as_attributes(path),
        ]
        if found == room
    }
    face = parsed(RUNTIME / room / "__init__.py")
    shown = {
        name
        for node in face.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.literal_eval(node.value)
    }
    assert shown == used


def test_modules_are_short() -> None:
    lines = {identifier(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, count in lines.items() if count > MOST_LINES} <= LONG_MODULES


def test_functions_are_short() -> None:
    lines = {
        f"{identifier(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name for name, count in lines.items() if count > MOST_LINES_OF_A_FUNCTION}
    assert long <= LONG_FUNCTIONS


def words_of(path: Path) -> set[str]:
    """Which operators' kinds, groups and annotations stand in the texts of a module."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return {
        word
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in OPERATORS_WORDS
        if id(node) not in documentation and word in node.value
    }


def test_what_is_known_of_an_operator_lies_in_its_folder() -> None:
    others = [path for path in MODULES if "targets" not in path.relative_to(RUNTIME).parts[:-2]]
    assert {(identifier(path), word) for path in others for word in words_of(path)} == set()


def test_the_folders_of_the_targets_know_their_operators() -> None:
    folder = RUNTIME / "deployments/targets"
    found = {word for path in folder.glob("*/*.py") for word in words_of(path)}
    assert found == OPERATORS_WORDS


def test_the_rules_see(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("from kfp_bento.runtime import deployments as d\nd.deploy()\n")
    assert used_as_attributes(path) == [("deployments", "deploy")]
