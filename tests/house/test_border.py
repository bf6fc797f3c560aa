"""The border: documents are parsed, and foreign programs started, in the modules that own it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = {"runtime/files/documents.py"}
PROGRAMS = {"runtime/programs/clean_room.py", "runtime/programs/confined_start.py"}
TRAVELLERS = {
    # They run where kfp-bento is not installed, and read what kfp-bento wrote for them.
    "runtime/bentos/pyfunc_body.py",
    "runtime/bentos/pyfunc_json.py",
    "runtime/bentos/pyfunc_kserve.py",
    "runtime/bentos/pyfunc_redaction.py",
    "runtime/bentos/pyfunc_request_log.py",
    "runtime/bentos/pyfunc_tensor_data.py",
    "runtime/proof/predict_with_mlflow.py",
}
PARSERS = {
    "json": {"load", "loads", "JSONDecoder"},
    "yaml": {"load", "load_all", "safe_load", "safe_load_all", "full_load", "unsafe_load"},
    "tomllib": {"load", "loads"},
    "pickle": {"load", "loads"},
    "marshal": {"load", "loads"},
}
STARTERS = {"subprocess", "pty", "multiprocessing"}
OS_STARTERS = ("exec", "spawn", "posix_spawn", "system", "popen", "fork")


def sources() -> list[Path]:
    return sorted(ROOT.joinpath("runtime").rglob("*.py"))


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """The nodes below `if TYPE_CHECKING:`."""
    guards = (
        guard
        for guard in tree.body
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
    )
    return {node for guard in guards for node in ast.walk(guard)}


def uses(path: Path) -> set[str]:
    """What a module parses or starts by itself, as `module.name`."""
    tree = ast.parse(path.read_text())
    aliases: dict[str, str] = {}
    found: set[str] = set()
    nodes = [*ast.walk(tree)]
    skipped = for_types_only(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            aliases |= {name.asname or name.name: name.name for name in node.names}
            if node not in skipped:
                found |= {name.name for name in node.names if name.name in STARTERS}
        elif isinstance(node, ast.ImportFrom) and node not in skipped:
            found |= {node.module for _ in "." if node.module in STARTERS}
            for name in node.names:
                if name.name in PARSERS.get(node.module or "", ()):
                    found.add(f"{node.module}.{name.name}")
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id, "")
            if node.attr in PARSERS.get(module, ()):
                found.add(f"{module}.{node.attr}")
            if module == "os" and node.attr.startswith(OS_STARTERS):
                found.add(f"os.{node.attr}")
    return found


def beyond_its_office(path: Path) -> set[str]:
    """What a module parses or starts that is another's to parse or start."""
    found = uses(path)
    if identifier(path) in PROGRAMS:
        found = {name for name in found if name not in STARTERS and not name.startswith("os.")}
    if identifier(path) in DOCUMENTS | TRAVELLERS:
        found = {
            name for name in found if name.partition(".")[0] not in ("json", "yaml", "tomllib")
        }
    return found


def test_nobody_else_parses_documents_or_starts_programs() -> None:
    found = {(identifier(path), name) for path in sources() for name in beyond_its_office(path)}
    assert found == set()


@pytest.mark.parametrize("name", sorted(DOCUMENTS | PROGRAMS | TRAVELLERS))
def test_the_owners_are_there(name: str) -> None:
    assert uses(ROOT / name)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import json\njson.loads(text)", {"json.loads"}),
        ("import json as j\nj.load(file)", {"json.load"}),
        ("from yaml import safe_load", {"yaml.safe_load"}),
        ("import yaml\nyaml.load(text, Loader=L)", {"yaml.load"}),
        ("import subprocess", {"subprocess"}),
        ("def f():\n    from subprocess import run", {"subprocess"}),
        ("if TYPE_CHECKING:\n    import subprocess", set()),
        ("import os\nos.system('x')", {"os.system"}),
        ("import os\nos.execv('x', [])", {"os.execv"}),
        ("import json\njson.dumps({})", set()),
    ],
)
def test_the_rule_sees(source: str, found: set[str], tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    assert uses(tmp_path / "module.py") == found
