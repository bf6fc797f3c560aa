"""Who may import whom: the table of the design, enforced."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROAD = [
    *("models", "scan", "bentos", "proof", "batch"),
    *("images", "packaging", "deployments", "checks", "promotion"),
    "training",  # before the road in time; it describes and measures as the checks do
]
SHARED = {"concurrency", "errors", "http", "pools", "proxies", "validation"}
# The rooms inside a stop, from the lowest; those on one step know nothing of each other.
INNER = {
    "images": [
        {"oci"},
        {"registry"},
        {"places"},
        {"python", "debian", "cache"},
        {"base"},
        {"attestations"},
        {"signatures"},
        {"assembly"},
    ],
    "deployments": [{"kube"}, {"options"}, {"targets"}, {"release"}],
}
OUTSIDE_RUNTIME = {"kfp_bento.components", "kfp_bento.pipelines"}


@cache
def imports(path: Path, *, only_module_level: bool = False) -> set[str]:
    """Absolute names of everything a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if only_module_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*parts: str) -> list[Path]:
    return sorted(ROOT.joinpath(*parts).rglob("*.py"))


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rooms(names: set[str]) -> set[str]:
    """The rooms of runtime that are named."""
    prefix = "kfp_bento.runtime."
    return {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}


def test_runtime_leaves_kfp_to_local_and_runs() -> None:
    rooms_of_kfp = [ROOT / "runtime" / room for room in ("local", "runs")]
    found = {
        (identifier(path), name)
        for path in files("runtime")
        for name in imports(path)
        if name.split(".")[0] in ("kfp", "kfp_server_api")
        and not any(path.is_relative_to(room) for room in rooms_of_kfp)
    }
    assert found == set()


def test_runs_know_models_and_local_and_no_other_room() -> None:
    for path in files("runtime", "runs"):
        allowed = {*SHARED, "files", "local", "models", "runs"}
        assert rooms(imports(path)) <= allowed, identifier(path)


def test_an_installation_knows_images_and_no_other_stop() -> None:
    for path in files("runtime", "installation"):
        allowed = {*SHARED, "files", "images", "installation", "programs"}
        assert rooms(imports(path)) <= allowed, identifier(path)


@pytest.mark.parametrize("stop", ROAD)
def test_a_stop_imports_only_earlier_stops(stop: str) -> None:
    below = {"files", "programs", "requirements", "storage"}
    allowed = {*ROAD[: ROAD.index(stop) + 1], *SHARED, *below}
    for path in files("runtime", stop):
        assert rooms(imports(path)) <= allowed, identifier(path)


def test_storage_knows_nothing_of_models_and_bentos() -> None:
    for path in files("runtime", "storage"):
        assert rooms(imports(path)) <= {*SHARED, "files", "storage"}, identifier(path)


def against_the_order(stop: str) -> set[str]:
    """Imports that go up or aside among the rooms of a stop, as `module imports name`."""
    steps = {room: number for number, rooms in enumerate(INNER[stop]) for room in rooms}
    found = set()
    for path in files("runtime", stop):
        own = path.relative_to(ROOT / "runtime" / stop).parts
        if own == ("__init__.py",):
            continue
        for name in imports(path):
            prefix = f"kfp_bento.runtime.{stop}."
            room = name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else own[0]
            here, there = (steps.get(one, len(steps)) for one in (own[0], room))
            if there > here or (there == here and room != own[0] and here < len(steps)):
                found.add(f"{'/'.join(own)} imports {name.removeprefix(prefix)}")
    return found


@pytest.mark.parametrize("stop", INNER)
def test_a_room_inside_a_stop_imports_only_lower_ones(stop: str) -> None:
    assert against_the_order(stop) == set()


def test_debian_packages_are_behind_one_door() -> None:
    inside = "kfp_bento.runtime.images.debian"
    for path in files("runtime"):
        if not path.is_relative_to(ROOT / "runtime" / "images" / "debian"):
            modules = {name.rpartition(".")[0] for name in imports(path)}
            assert not any(module.startswith(f"{inside}.") for module in modules), identifier(path)


@pytest.mark.parametrize("room", [*ROAD, "reports"])
def test_only_cli_and_local_import_components_and_pipelines(room: str) -> None:
    for path in files("runtime", room):
        names = {".".join(name.split(".")[:2]) for name in imports(path)}
        assert not names & OUTSIDE_RUNTIME, identifier(path)


def test_nothing_imports_the_command() -> None:
    cli = ROOT / "runtime" / "cli"
    others = [path for path in files("runtime") if not path.is_relative_to(cli)]
    assert [identifier(path) for path in others if "cli" in rooms(imports(path))] == []


@pytest.mark.parametrize("path", files("components"), ids=identifier)
def test_components_need_only_kfp_and_the_standard_library_at_module_level(path: Path) -> None:
    if path.name == "__init__.py":
        return
    for name in imports(path, only_module_level=True):
        assert name.split(".")[0] in {*sys.stdlib_module_names, "kfp"}, name


@pytest.mark.parametrize("path", files("components"), ids=identifier)
def test_components_know_no_other_component_and_no_pipeline(path: Path) -> None:
    inside = {name for name in imports(path) if name.startswith("kfp_bento.")}
    if path == ROOT / "components" / "__init__.py":
        return
    own = ".".join(["kfp_bento", *path.relative_to(ROOT).with_suffix("").parts[:-1]])
    assert all(name.startswith(("kfp_bento.runtime", own)) for name in inside)


@pytest.mark.parametrize("path", files("pipelines"), ids=identifier)
def test_pipelines_are_composition_only(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        known = {"kfp", "kfp_bento", *sys.stdlib_module_names}
        assert top in known
        assert not name.startswith("kfp_bento.runtime")
