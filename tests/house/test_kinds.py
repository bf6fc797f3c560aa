"""Nobody asks a sink, a source or a reference which kind it is: they answer for themselves."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "runtime"
INTERFACES = {"BlobSource", "ImageSource", "BlobSink", "ImageSink", "_Place"}


def classes() -> dict[str, Path]:
    """Where each kind of sink, source or reference is defined."""
    defined = {
        node.name: (path, {base.id for base in node.bases if isinstance(base, ast.Name)})
        for path in sorted(ROOT.joinpath("images").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    found = {"Repository": defined["Repository"][0]}
    while more := {
        name: path
        for name, (path, bases) in defined.items()
        if name not in found and (bases | {name}) & (found.keys() | INTERFACES)
    }:
        found |= more
    return found


def test_the_kinds_are_found() -> None:
    assert {
        *(
            "Repository",
            "ImageRepository",
            "LayoutSink",
            "LayoutSource",
            "ArchiveSink",
            "KeptBlobs",
        ),
        *("ArchiveSource", "BlobDirectory", "Reference", "LayoutReference", "ArchiveReference"),
    } <= classes().keys()


def test_kinds_are_told_apart_only_where_they_are_defined() -> None:
    kinds = classes()
    asking = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in sorted(ROOT.rglob("*.py"))
        if "kfp_bento.runtime.images" in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        for name in {item.id for item in ast.walk(node.args[1]) if isinstance(item, ast.Name)}
        if name in kinds and kinds[name] != path
    ]
    assert asking == []
