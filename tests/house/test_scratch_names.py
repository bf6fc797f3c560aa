"""What killed processes left is cleared away by how its name begins: nobody else's begins so."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWEEPERS = {"scratch_inside", "scratch_directory"}
MAKERS = {"TemporaryDirectory", "mkdtemp", "mkstemp", "NamedTemporaryFile"}


def beginnings(source: str) -> list[tuple[str, bool]]:
    """The beginnings of names in a module, and whether all that begin so are cleared away."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        texts = [
            value.value
            for value in (*node.args, *(keyword.value for keyword in node.keywords))
            if isinstance(value, ast.Constant) and isinstance(value.value, str)
        ]
        if name in SWEEPERS | MAKERS:
            found += [(text, name in SWEEPERS) for text in texts if text.startswith("kfp-bento")]
    return found


def test_no_scratch_directory_is_cleared_away_with_those_of_another_kind() -> None:
    found = {
        one
        for path in ROOT.joinpath("runtime").rglob("*.py")
        for one in beginnings(path.read_text())
    }
    assert len(found) > 8
    swept = {text for text, sweeps in found if sweeps}
    assert not {
        (beginning, text)
        for beginning in swept
        for text, _ in found
        if text != beginning and text.startswith(beginning)
    }


def test_the_rule_sees() -> None:
    source = 'scratch_inside(folder, "kfp-bento-")\ntempfile.mkdtemp(prefix="kfp-bento-x-")\n'
    assert beginnings(source) == [("kfp-bento-", True), ("kfp-bento-x-", False)]
