"""Every component is an interface: typed, documented, one call into runtime."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import yaml

import kfp_bento.components as shipped
from kfp_bento.runtime.deployments import TARGETS, option_docs

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
    filled_in = {key for key, spec in specification.inputs.items() if spec.type == "TaskConfig"}
    for key in [*(specification.inputs or {}), *(specification.outputs or {})]:
        assert (f"| `{key}` |" in text) is (key not in filled_in), key


@pytest.mark.parametrize("name", NAMES)
def test_every_input_and_output_is_described_where_kubeflow_keeps_it(name: str) -> None:
    path = ROOT / "components" / name / "component.yaml"
    specification = next(yaml.safe_load_all(path.read_text()))
    (component,) = specification["components"].values()
    text = (ROOT / "components" / name / "README.md").read_text()
    for side in ("inputDefinitions", "outputDefinitions"):
        for kind in component.get(side, {}).values():
            for key, one in kind.items():
                assert len(one.get("description", "")) > 4, key
                told = " ".join(one["description"].split()).replace("|", "\\|")
                assert key == "task_config" or told in text, key


def test_an_output_that_is_called_as_an_input_says_its_own() -> None:
    for component in (shipped.deploy_bento, shipped.move_release):
        specification = component.component_spec
        for key in specification.inputs.keys() & specification.outputs.keys():
            said = specification.outputs[key].description
            assert said
            assert said != specification.inputs[key].description


def test_what_is_set_on_a_deploying_task_is_meant_for_the_served_pods() -> None:
    specification = shipped.deploy_bento.component_spec
    assert specification.inputs["task_config"].optional
    handed_on = {
        one.field.name: one.apply_to_task for one in specification.task_config_passthroughs
    }
    assert handed_on == {
        "RESOURCES": False,
        "KUBERNETES_TOLERATIONS": False,
        "KUBERNETES_NODE_SELECTOR": False,
        "KUBERNETES_AFFINITY": False,
        "ENV": True,
        "KUBERNETES_VOLUMES": True,
    }


def test_the_readme_lists_the_options_of_each_target() -> None:
    text = (ROOT / "components/deploy_bento/README.md").read_text()
    inputs = shipped.deploy_bento.component_spec.inputs
    for name, target in TARGETS.items():
        section = text.partition(f"## What `options` takes for {name}\n")[2].partition("\n## ")[0]
        listed = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
        known = {one.name for one in option_docs(target.options_type)}
        assert listed == known - set(inputs), name
