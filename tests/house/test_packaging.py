"""What an installed kfp-bento holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_declared() -> None:
    found = {
        ".".join(["kfp_bento", *path.parent.relative_to(ROOT).parts])
        for top in ("components", "pipelines", "runtime")
        for path in (ROOT / top).rglob("__init__.py")
    }
    # A namespace: it holds __main__ alone, for python -m.
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {"kfp_bento", *found}


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("--")]
        pinned = [i for i, line in enumerate(lines) if "==" in line]
        assert pinned
        assert all("--hash=sha256:" in lines[i + 1] for i in pinned)


def test_components_run_in_the_image_of_this_version() -> None:
    version = PROJECT["project"]["version"]
    for path in (ROOT / "components").glob("*/component.py"):
        assert f"/runtime-python:{version}" in path.read_text(), path.parent.name


def test_what_is_no_module_is_packaged_too() -> None:
    declared = PROJECT["tool"]["setuptools"]["package-data"]
    patterns = {
        (*package.split(".")[1:], *pattern.split("/"))
        for package, named in declared.items()
        for pattern in named
        if package != "*"
    }
    kept = {
        path
        for path in (ROOT / "runtime").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert kept
    assert kept <= {path for pattern in patterns for path in ROOT.glob("/".join(pattern))}
