"""Every component is an interface: typed, documented, one call into runtime."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import kfp_bento.components as shipped

ROOT = Path(__file__).parents[2]
NAMES = shipped.__all__
# Names that KFP itself gives to inputs when images or resources are parameters.
OVERWRITTEN = {
    "base_image",
    "cpu_limit",
    "cpu_request",
    "memory_limit",
    "memory_request",
    "accelerator_type",
    "accelerator_count",
    "Output",
}
EXAMPLE = "train_wine_model"  # stands for a user's own training code


def tree(name: str) -> ast.FunctionDef:
    module = ast.parse((ROOT / "components" / name / "component.py").read_text())
    return next(node for node in module.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("name", [name for name in NAMES if name != EXAMPLE])
def test_a_component_holds_no_logic(name: str) -> None:
    logic = (ast.If, ast.For, ast.While, ast.Try)
    assert not [node for node in ast.walk(tree(name)) if isinstance(node, logic)]


@pytest.mark.parametrize("name", [name for name in NAMES if name != EXAMPLE])
def test_a_component_is_short(name: str) -> None:
    assert len(tree(name).body) <= 9


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_documented(name: str) -> None:
    component = getattr(shipped, name)
    documentation = inspect.getdoc(component.python_func) or ""
    for parameter in inspect.signature(component.python_func).parameters:
        assert f"\n    {parameter}: " in documentation, parameter


@pytest.mark.parametrize("name", NAMES)
def test_no_input_has_a_name_that_kfp_overwrites(name: str) -> None:
    assert not OVERWRITTEN & set(getattr(shipped, name).component_spec.inputs or {})


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_installed_when_a_task_starts(name: str) -> None:
    container = getattr(shipped, name).component_spec.implementation.container
    *launcher, source = container.command
    assert f"def {name}(" in source
    assert not [part for part in launcher if "pip" in part]


@pytest.mark.parametrize("name", NAMES)
def test_a_component_folder_is_complete(name: str) -> None:
    folder = ROOT / "components" / name
    for expected in ("component.py", "component.yaml", "metadata.yaml", "README.md"):
        assert (folder / expected).is_file(), expected


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_lists_every_input_and_output(name: str) -> None:
    specification = getattr(shipped, name).component_spec
    text = (ROOT / "components" / name / "README.md").read_text()
    for key in [*(specification.inputs or {}), *(specification.outputs or {})]:
        assert f"| `{key}` |" in text, key
