"""Scratch folders are swept by the beginning of their names, so no beginning may be another's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2] / "runtime"
SWEEPING = {"scratch_inside", "scratch_file", "scratch_directory"}
MAKING = {"mkdtemp", "TemporaryDirectory", "mkstemp", "NamedTemporaryFile"}


def beginnings(of: set[str]) -> set[str]:
    """The literal prefixes that calls of these functions are given."""
    found = set()
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            if name in of:
                values = [*node.args, *(word.value for word in node.keywords)]
                texts = [value.value for value in values if isinstance(value, ast.Constant)]
                found |= {text for text in texts if re.match(r"\.?[a-z-]+-$", str(text))}
    return found


def test_what_is_swept_is_nobody_elses() -> None:
    swept = beginnings(SWEEPING)
    assert "kfp-bento-proof-" in swept
    made = beginnings(MAKING)
    assert "kfp-bento-" in made
    taken = {(one, other) for one in swept for other in swept | made if other != one}
    assert [pair for pair in taken if pair[1].startswith(pair[0])] == []
