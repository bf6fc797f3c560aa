"""How steps of the shipped pipelines run on a cluster: their image, their names, their retries."""

import ast
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl
from kfp_bento_command import kfp_bento

from kfp_bento import components
from kfp_bento.pipelines import signatures, tasks, train_to_serve
from kfp_bento.runtime.cluster_settings import MOUNTED
from kfp_bento.runtime.local.pipelines import (
    IMAGES,
    SHIPPED,
    load_pipeline,
    values_here,
    without_retries,
)

ROOT = Path(__file__).parents[2]
TRAINING = {"retrain_on_drift", "train_to_serve"}
RUNTIME_IMAGE, TRAINING_IMAGE = IMAGES
NO_RETRY = {
    "require-passed",
    # One more version each time.
    *("train-wine-model", "train-sklearn", "train-lightgbm", "train-xgboost"),
    # They fail where a check said no.
    *("promote-model", "confirm-release"),
    "roll-back",  # without the image to leave it would go one release further
    "scan-model",  # no network
}


@cache
def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / f"pipelines/compiled/{name}.yaml").read_text()))


def specification(name: str) -> dict[str, Any]:
    return documents(name)[0]


def all_tasks(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Give all tasks of a pipeline with the names of their components."""
    inner = (one["dag"] for one in found["components"].values() if "dag" in one)
    return [
        (task["componentRef"]["name"].removeprefix("comp-").removesuffix("-2"), task)
        for dag in (found["root"]["dag"], *inner)
        for task in dag["tasks"].values()
    ]


def containers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = found["deploymentSpec"]["executors"]
    return {key: one["container"] for key, one in executors.items() if "container" in one}


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_pipeline_names_an_image_that_nobody_has(name: str) -> None:
    for executor, one in containers(specification(name)).items():
        image = TRAINING_IMAGE if "-train-" in executor else RUNTIME_IMAGE
        assert one["image"] == "{{$.inputs.parameters['pipelinechannel--" + image + "']}}"


@pytest.mark.parametrize("name", SHIPPED)
def test_kubeflow_refuses_a_run_that_names_no_image(name: str) -> None:
    # validatePipelineJobInputs of the API server: neither optional nor with a default value.
    parameters = specification(name)["root"]["inputDefinitions"]["parameters"]
    assert (TRAINING_IMAGE in parameters) == (name in TRAINING)
    for parameter in (parameters[image] for image in IMAGES if image in parameters):
        assert not parameter.get("isOptional")
        assert "defaultValue" not in parameter


@pytest.mark.parametrize("name", SHIPPED)
def test_the_image_of_the_run_reaches_every_step(name: str) -> None:
    found = specification(name)
    for component, task in all_tasks(found):
        inner = found["components"][task["componentRef"]["name"]]
        if inner.get("executorLabel") in containers(found) or "dag" in inner:
            image = TRAINING_IMAGE if component.startswith("train-") else RUNTIME_IMAGE
            channel = f"pipelinechannel--{image}"
            given = task["inputs"]["parameters"][channel]["componentInputParameter"]
            assert given in (channel, image), component


def test_an_image_that_is_named_where_a_pipeline_is_compiled_is_the_default(tmp_path: Path) -> None:
    image, other = (f"registry.example.org/ml/{name}-python:1" for name in ("runtime", "training"))
    options = ("--image", image, "--training-image", other, "--to", tmp_path)
    done = kfp_bento("compile", "train_to_serve", *options)
    assert done.returncode == 0, done.stderr
    found = next(yaml.safe_load_all((tmp_path / "train_to_serve.yaml").read_text()))
    parameters = found["root"]["inputDefinitions"]["parameters"]
    assert [parameters[name]["defaultValue"] for name in IMAGES] == [image, other]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_step_has_the_settings_of_its_cluster_where_there_are_any(name: str) -> None:
    executors = documents(name)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in containers(specification(name)):
        (mounted,) = executors[executor]["configMapAsVolume"]
        assert (mounted["mountPath"], mounted["optional"]) == (str(MOUNTED), True), executor


def test_a_trainer_of_ones_own_keeps_its_image_and_its_name() -> None:
    @dsl.component(base_image="registry.example.org/ml/train-python:1", install_kfp_package=False)
    def train_mine(tracking_uri: str = "") -> str:
        """Train."""
        return "models:/m/1"

    found = train_to_serve(train_mine, name="mine").pipeline_spec
    label = found.components["comp-train-mine"].executor_label
    (container,) = [
        value["container"]
        for key, value in found.deployment_spec["executors"].items()
        if key == label
    ]
    assert container["image"] == "registry.example.org/ml/train-python:1"
    assert '"""Train."""' in container["command"][-1]
    assert found.root.dag.tasks["exit-handler-1"]
    assert RUNTIME_IMAGE in found.root.input_definitions.parameters
    assert TRAINING_IMAGE not in found.root.input_definitions.parameters


def test_runtime_and_pipelines_call_the_images_alike() -> None:
    assert {signatures.RUNTIME_IMAGE, signatures.TRAINING_IMAGE} == set(IMAGES)
    for name in SHIPPED:
        images = set(IMAGES) if name in TRAINING else {RUNTIME_IMAGE}
        assert set(values_here(load_pipeline(name))) == images


@pytest.mark.parametrize("name", SHIPPED)
def test_every_step_has_a_name_in_words(name: str) -> None:
    for component, task in all_tasks(specification(name)):
        shown = task["taskInfo"]["name"]
        # KFP gives no way to name the fork of an If and its Else.
        assert component.startswith("condition-branches") or (
            shown[0].isupper() and " " in shown and "_" not in shown
        ), component


def test_every_component_has_a_name_in_words() -> None:
    named = {name.replace("_", "-") for name in components.__all__}
    unused = {"check-contract", "check-metrics", "describe-data", "load-test", "predict-batch"}
    assert set(tasks.DISPLAY_NAMES) == named - unused


@pytest.mark.parametrize("name", SHIPPED)
def test_steps_that_end_alike_however_often_they_run_are_tried_again(name: str) -> None:
    for component, task in all_tasks(specification(name)):
        policy = task.get("retryPolicy")
        retried = component in tasks.RETRIES
        assert bool(policy) is retried, component
        if policy:
            assert policy["maxRetryCount"] in (1, 2)
            assert 0 < float(policy["backoffDuration"].removesuffix("s")) <= 30


def test_each_step_is_tried_again_or_there_is_a_reason_why_not() -> None:
    assert set(tasks.RETRIES) | NO_RETRY == set(tasks.DISPLAY_NAMES)
    assert not set(tasks.RETRIES) & NO_RETRY


@pytest.mark.parametrize("name", SHIPPED)
def test_a_finished_workflow_leaves_the_cluster(name: str) -> None:
    found = documents(name)[1]["platforms"]["kubernetes"]["pipelineConfig"]
    assert found == {"resourceTtlOnSuccess": 86_400, "resourceTtlOnFailure": 604_800}


def test_a_mistake_is_told_at_once_where_the_pipeline_runs_here() -> None:
    @dsl.component(base_image="python", install_kfp_package=False)
    def look(number: int) -> int:
        return number

    @dsl.pipeline
    def looking(number: int) -> None:
        look(number=number).set_retry(2)
        with dsl.If(look(number=number).set_retry(2).output > 0):
            look(number=number).set_retry(2)

    spec = without_retries(looking).pipeline_spec
    dags = [spec.root.dag, *(one.dag for one in spec.components.values())]
    found = [task for dag in dags for task in dag.tasks.values()]
    assert len(found) == 4
    assert not any(task.HasField("retry_policy") for task in found)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_nobody_reads_is_not_sent(name: str) -> None:
    for label, container in containers(specification(name)).items():
        function = ast.parse(container["command"][-1]).body[-1]
        assert isinstance(function, ast.FunctionDef), label
        assert ast.get_docstring(function) is None, label
    for label, one in specification(name)["components"].items():
        inputs = [*one.get("inputDefinitions", {}).values()]
        assert not [key for kind in inputs for key in kind if "description" in kind[key]], label


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_step_gives_is_told(name: str) -> None:
    for label, one in specification(name)["components"].items():
        outputs = [*one.get("outputDefinitions", {}).values()] if "executorLabel" in one else []
        assert not [
            key for kind in outputs for key in kind if not kind[key].get("description")
        ] or (label == "comp-importer"), label


def test_a_component_by_itself_keeps_what_it_says() -> None:
    specification = components.pull_model.component_spec
    assert all(one.description for one in specification.inputs.values())
    source = specification.implementation.container.command[-1]
    assert inspect.getdoc(components.pull_model.python_func) in inspect.cleandoc(source).replace(
        "\n    ", "\n"
    )
