"""Each verdict that the code can give is on the page that says what to do about it."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfp_bento.runtime.deployments.release import pod_state
from kfp_bento.runtime.deployments.targets.kserve import watch as kserve

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "runtime/deployments"
TABLE = (ROOT / "docs/operating.md").read_text().partition("| verdict |")[2].partition("\n\n")[0]
TOLD = {word for row in TABLE.splitlines()[2:] for word in re.findall("`(.+?)`", row.split("|")[1])}
# A module hands on what the kubelet, KServe or a Gateway says, and so has no word for it.
HANDED_ON = {
    "pod_state.py": {*pod_state._IMAGE, *pod_state._START, pod_state._LOOP},
    # The reasons of `lastFailureInfo` in KServe's API, and of its conditions.
    "kserve/watch.py": {*kserve._FAILED_LOADS, "ModelLoadFailed", "NoSupportingRuntime", "Stopped"},
    # Of the Gateway API's conditions, those that a route's own mistake makes.
    "workload/watch.py": {"NotAllowedByListeners", "BackendNotFound"},
}
GOOD = {"Ready"}


def reasons(path: Path) -> Iterator[str]:
    """What a module says as the reason of a problem or a verdict; "" where it hands one on."""
    module = importlib.import_module(
        ".".join(("kfp_bento", *path.relative_to(ROOT).with_suffix("").parts))
    )
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        place = {"Problem": 0, "Verdict": 1}.get(node.func.id)
        if place is None:
            continue
        given = node.args[place]
        if isinstance(given, ast.Name):
            yield str(getattr(module, given.id, ""))
        elif isinstance(given, ast.Constant):
            yield str(given.value)
        elif "problem.reason" in ast.unparse(given):
            pass  # a problem's own, which stands where the problem is made
        elif isinstance(given, ast.Call) and isinstance(given.func, ast.Name):
            yield from returned_by(given.func.id, path)
        else:
            yield ""


def returned_by(name: str, path: Path) -> Iterator[str]:
    """The texts that a function of a module returns; "" where it returns something else."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and function.name == name:
            for node in ast.walk(function):
                if isinstance(node, ast.Return):
                    known = isinstance(node.value, ast.Constant)
                    yield str(node.value.value) if known else ""  # type: ignore[union-attr]
            return
    yield ""


def given(path: Path) -> set[str]:
    found = {*reasons(path)}
    if "" in found:
        name = path.relative_to(DEPLOYMENTS).as_posix()
        return found - {""} | next(more for end, more in HANDED_ON.items() if name.endswith(end))
    return found


MODULES = [
    path
    for path in sorted(DEPLOYMENTS.rglob("*.py"))
    if re.search(r"\b(Problem|Verdict)\(", path.read_text())
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_page_has_each_verdict_of_a_module(path: Path) -> None:
    assert given(path) - GOOD - TOLD == set()


def test_the_page_has_no_verdict_that_nothing_gives() -> None:
    assert TOLD - {reason for path in MODULES for reason in given(path)} == set()
