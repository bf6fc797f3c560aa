"""The committed YAML is current, loadable, and inside the subset that is right locally too."""

import filecmp
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035 - as people write them

import pytest
import yaml
from kfp import components, dsl

from kfp_bento.components import deploy_bento
from kfp_bento.pipelines import serve_model, serve_with, train_to_serve
from kfp_bento.runtime.local import compile_components, compile_pipelines

ROOT = Path(__file__).parents[2]
COMPILED_FOLDER = ROOT / "pipelines" / "compiled"
COMPILED = sorted(COMPILED_FOLDER.glob("*.yaml"))
ACTING = (
    *("resolve-models", "deploy-bento", "check-release", "promote-model", "settle-run"),
    *("detect-drift", "move-release", "confirm-release", "roll-back", "shift-requests"),
    *("await-approval", "promote-model-2"),
    *("export-bento", "import-bento", "plan-batch", "predict-shard", "collect-batch"),
)

pytestmark = pytest.mark.skipif(
    "KFP_BENTO_IMAGE" in os.environ, reason="KFP_BENTO_IMAGE changes what is compiled"
)


def dags(specification: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield specification["root"]["dag"]
    for component in specification["components"].values():
        if "dag" in component:
            yield component["dag"]


def tasks(path: Path) -> dict[str, Any]:
    specification = next(yaml.safe_load_all(path.read_text()))
    return {name: task for dag in dags(specification) for name, task in dag["tasks"].items()}


def condition(task: dict[str, Any]) -> str:
    return str(task.get("triggerPolicy", {}).get("condition", ""))


def opposite(given: str, dag: dict[str, Any]) -> bool:
    """Tell whether a condition asks a number of the run alone, and its opposite stands beside it.

    The local runner silently skips others: what a step gave under a name of its own, a text with a
    quote in it.
    """
    beside = {condition(task) for task in dag["tasks"].values()}
    plain = given[2:-1] if given.startswith("!(") else given
    asked = re.fullmatch(
        r"int\(inputs\.parameter_values\['pipelinechannel--([a-z_]+)'\]\) == \d+", plain
    )
    numbers = {k for k, one in serve_model.component_spec.inputs.items() if one.type == "Integer"}
    return bool(asked) and asked[1] in numbers and beside == {plain, f"!({plain})"}


def single(given: str) -> bool:
    """Tell whether a condition asks for the one yes or no that a step returns.

    By the name of that output alone the local runner finds what a lone condition asks.
    """
    asked = r"inputs\.parameter_values\['pipelinechannel--[a-z-]+-Output'\] == true"
    return bool(re.fullmatch(asked, given))


def channel(name: str) -> str:
    """A pipeline's parameter as the steps see it that an exit handler follows."""
    return f"pipelinechannel--{name}"


def test_the_pipelines_are_compiled(tmp_path: Path) -> None:
    fresh = compile_pipelines((), tmp_path)
    assert [path.name for path in COMPILED] == sorted(path.name for path in fresh)
    for path in fresh:
        assert filecmp.cmp(path, ROOT / "pipelines" / "compiled" / path.name, shallow=False), (
            f"{path.name} is out of date: make compile"
        )


def test_the_components_are_compiled(tmp_path: Path) -> None:
    for path in compile_components(tmp_path):
        committed = ROOT / "components" / path.parent.name / path.name
        assert filecmp.cmp(path, committed, shallow=False), f"{committed}: make compile"


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_a_compiled_pipeline_can_be_loaded(path: Path) -> None:
    assert components.load_component_from_file(str(path)).component_spec.inputs


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_compiled_yaml_is_ascii(path: Path) -> None:
    assert path.read_bytes().isascii()


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_steps_that_act_outside_the_pipeline_are_never_cached(path: Path) -> None:
    found = tasks(path)
    for name in found.keys() & set(ACTING):
        assert not found[name].get("cachingOptions", {}).get("enableCache", False), name


def test_what_was_done_for_the_same_versions_before_is_cached() -> None:
    """Keyed by what the first step says, which is never cached; addresses are looked at anew."""
    found = tasks(ROOT / "pipelines/compiled/serve_model.yaml")
    cached = {
        name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")
    }
    assert cached >= {"pull-model", "scan-model", "build-bento", "build-image"}
    for step, inputs in (
        ("pull-model", ("model_uris", "identities")),
        ("build-bento", ("looked_at",)),
    ):
        for one in inputs:
            given = found[step]["inputs"]["parameters"][one]["taskOutputParameter"]
            assert given["producerTask"] == "resolve-models"


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_only_what_is_made_of_digests_may_be_cached(path: Path) -> None:
    cached = {
        k for k, one in tasks(path).items() if one.get("cachingOptions", {}).get("enableCache")
    }
    # The importer takes the artifact that is known by its address, with its seal.
    # What is pulled is known by what resolve-models says of it.
    assert cached <= {"pull-model", "scan-model", "build-bento", "build-image", "importer"}


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_nothing_is_used_that_the_local_runner_gets_wrong(path: Path) -> None:
    specification = next(yaml.safe_load_all(path.read_text()))
    for dag in dags(specification):
        for name, task in dag["tasks"].items():
            asked = condition(task)
            assert not asked or opposite(asked, dag) or single(asked), name
            loop = task.get("parameterIterator", {"items": {"inputParameter": ""}})
            assert "inputParameter" in loop["items"], f"{name} loops over constants"
            inner = specification["components"][task["componentRef"]["name"]]
            if "dag" in inner:
                assert task["inputs"].get("parameters"), f"{name} is given no parameter"
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    optional = {key: p for key, p in parameters.items() if p.get("isOptional")}
    assert all("defaultValue" in parameter for parameter in optional.values())


def test_a_condition_without_its_opposite_is_seen() -> None:
    asked = "int(inputs.parameter_values['pipelinechannel--approval_seconds']) == 0"
    policy = {"triggerPolicy": {"condition": asked}}
    other = {"triggerPolicy": {"condition": f"!({asked})"}}
    assert opposite(asked, {"tasks": {"a": policy, "b": other}})
    assert not opposite(asked, {"tasks": {"a": policy}})
    text = "inputs.parameter_values['pipelinechannel--deploy_name'] == ''"
    pair = {name: {"triggerPolicy": {"condition": name}} for name in (text, f"!({text})")}
    assert not opposite(text, {"tasks": pair})


def test_the_alias_moves_unasked_or_after_an_approval_that_is_required() -> None:
    specification = next(yaml.safe_load_all((COMPILED_FOLDER / "serve_model.yaml").read_text()))
    ways = [dag["tasks"] for dag in dags(specification)]
    unasked, asked = (way for way in ways if "promote-model" in " ".join(way))
    assert set(unasked) == {"promote-model"}
    assert "approval" not in unasked["promote-model"]["inputs"]["artifacts"]
    given = asked["promote-model-2"]["inputs"]["artifacts"]["approval"]["taskOutputArtifact"]
    assert given == {"outputArtifactKey": "report", "producerTask": "await-approval"}
    assert serve_model.component_spec.inputs["approval_seconds"].default == 0


NEEDED = {
    # What each step may see of Secrets, and nothing beyond.
    "resolve-models": {"mlflow_secret"},
    "pull-model": {"mlflow_secret", "record_secret"},
    "build-bento": {"index_secret", "record_secret", "storage_secret"},
    "build-image": {"image_secret", "index_secret", "record_secret", "signing_secret"},
    "package-model": {
        *("image_secret", "index_secret", "mlflow_secret", "record_secret", "signing_secret"),
        "storage_secret",
    },
    "check-release": {"record_secret", "service_token_secret", "storage_secret"},
    "check-and-promote": {
        *("mlflow_secret", "record_secret", "service_token_secret", "storage_secret"),
    },
    "shift-requests": {"record_secret", "service_token_secret"},
    "settle-run": {"mlflow_secret", "record_secret"},
    "detect-drift": {"mlflow_secret", "record_secret", "storage_secret"},
    "train-sklearn": {"mlflow_secret", "storage_secret"},
    "roll-back": {"mlflow_secret", "record_secret"},
    "importer": set(),
    "promote-model": {"mlflow_secret", "record_secret"},
    "promote-model-2": {"mlflow_secret", "record_secret"},
    "await-approval": {"mlflow_secret", "record_secret"},
    "train-wine-model": {"mlflow_secret"},
    **{
        name: {"storage_secret", "record_secret"}
        for name in ("export-bento", "import-bento", "plan-batch", "predict-shard", "collect-batch")
    },
}


NEEDED_HERE = {
    # It presigns the archive for the builder.
    ("serve_with_yatai_builder", "deploy-bento"): {"record_secret", "storage_secret"},
    ("serve_service", "settle-run"): {"record_secret"},
}


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_a_secret_is_given_to_the_steps_that_need_it_only(path: Path) -> None:
    specification, platform = yaml.safe_load_all(path.read_text())
    found = tasks(path)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, task in found.items():
        component = specification["components"][task["componentRef"]["name"]]
        if "executorLabel" not in component:
            continue
        kinds = executors.get(component["executorLabel"], {})
        assert not set(kinds) - {"secretAsEnv", "secretAsVolume", "configMapAsVolume"}, name
        secrets = [*kinds.get("secretAsEnv", ()), *kinds.get("secretAsVolume", ())]
        given = (one["secretNameParameter"]["componentInputParameter"] for one in secrets)
        asked = {parameter.removeprefix("pipelinechannel--") for parameter in given}  # in a loop
        here = NEEDED_HERE.get((path.stem, name))
        assert asked == (here or NEEDED.get(name, {"record_secret"})), name
        assert all(one["optional"] for one in secrets)


def test_a_service_at_an_address_is_looked_up_anew_in_every_run() -> None:
    found = tasks(ROOT / "pipelines/compiled/serve_service.yaml")
    assert not found["build-bento"].get("cachingOptions", {}).get("enableCache", False)
    assert "models" not in found["build-bento"]["inputs"].get("artifacts", {})
    assert "promote-model" not in found


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_weights_go_to_steps_that_need_them_alone(path: Path) -> None:
    """Kubeflow moves each artifact whole through object storage, up once and down for each step."""
    heavy = {("pull-model", "models"), ("build-bento", "bento"), ("import-bento", "bento")}
    needing = {"scan-model", "build-bento", "build-image", "export-bento"}
    needing |= {"plan-batch", "predict-shard"}
    specification = next(yaml.safe_load_all(path.read_text()))
    components = specification["components"]

    def taking(dag: dict[str, Any], given: set[str]) -> Iterator[str]:
        """Steps of a DAG that are given something heavy, by it or by one another."""
        for name, task in dag["tasks"].items():
            handed = set()
            for key, one in task.get("inputs", {}).get("artifacts", {}).items():
                made = one.get("taskOutputArtifact", {})
                step = re.sub(r"-\d+$", "", made.get("producerTask", ""))
                if (step, made.get("outputArtifactKey")) in heavy:
                    handed.add(key)
                if one.get("componentInputArtifact") in given:
                    handed.add(key)
            component = components[task["componentRef"]["name"]]
            if "dag" in component:
                yield from taking(component["dag"], handed)
            elif handed:
                yield re.sub(r"-\d+$", "", name)

    taken = {*taking(specification["root"]["dag"], set())}
    assert taken <= needing, taken - needing
    steps = {name for dag in dags(specification) for name in dag["tasks"]}
    assert bool(taken) == bool(steps & {name for name, _ in heavy})


def test_the_target_is_a_parameter_of_the_run() -> None:
    given = tasks(ROOT / "pipelines/compiled/serve_model.yaml")["deploy-bento"]["inputs"]
    assert given["parameters"]["target"]["componentInputParameter"] == channel("deploy_target")
    assert serve_model.component_spec.inputs["deploy_target"].default == "bento-deployment"


def test_a_component_of_ones_own_can_deploy() -> None:
    @dsl.component(base_image="python", install_kfp_package=False)
    def deploy_elsewhere(
        target: str,
        image: str,
        image_location: str,
        bento: dsl.Input[dsl.Model],
        mode: str,
        name: str,
        namespace: str,
        resources: dict,
        autoscaling: dict,
        envs: list,
        image_pull_secrets: list,
        options: dict,
        wait_seconds: int,
        roll_back_on_failure: bool,
        run: str,
        fail_at_once: bool,
        release: dsl.Output[dsl.Artifact],
    ):
        release.metadata["target"] = target

    pipeline = serve_with(deploy_elsewhere, name="serve-elsewhere")
    assert pipeline.component_spec.inputs.keys() == serve_model.component_spec.inputs.keys()
    documented = inspect.getdoc(serve_with).partition("Args:")[2].partition("name: Name")[0]
    for name in deploy_elsewhere.component_spec.inputs:
        assert name in documented, name
    assert set(deploy_elsewhere.component_spec.inputs) <= set(deploy_bento.component_spec.inputs)


def test_how_long_a_release_may_take_is_a_parameter() -> None:
    inputs = serve_model.component_spec.inputs
    assert inputs["deploy_wait_seconds"].default == 600
    assert inputs["deploy_roll_back_on_failure"].default is True
    given = tasks(ROOT / "pipelines/compiled/serve_model.yaml")["deploy-bento"]["inputs"]
    for name in ("wait_seconds", "roll_back_on_failure", "options"):
        found = given["parameters"][name]["componentInputParameter"]
        assert found == channel(f"deploy_{name}")


def test_training_is_joined_to_serving() -> None:
    @dsl.component(base_image="python", install_kfp_package=False)
    def train(rows: int, tracking_uri: str = "") -> str:
        return f"models:/m/{rows}"

    pipeline = train_to_serve(train, name="mine")
    inputs = pipeline.component_spec.inputs
    assert set(inputs) == {"rows", *serve_model.component_spec.inputs} - {"model_uris"}
    assert not inputs["rows"].optional


def test_training_that_registers_several_models_is_joined_to_serving() -> None:
    @dsl.component(base_image="python", install_kfp_package=False)
    def train(tracking_uri: str = "") -> list:
        return ["models:/fraud/1", "models:/risk/1"]

    specification = train_to_serve(train, name="mine").pipeline_spec
    served = specification.root.dag.tasks["exit-handler-1"].inputs.parameters
    trained = served[channel("train-Output")].task_output_parameter
    assert trained.producer_task == "train"
    inner = specification.components["comp-exit-handler-1"].dag
    pulled = inner.tasks["resolve-models"].inputs.parameters["model_uris"]
    assert pulled.component_input_parameter == channel("train-Output")


def test_a_training_component_may_say_what_its_lists_hold() -> None:
    @dsl.component(base_image="python", install_kfp_package=False)
    def train(
        columns: List[str] = ["a"],  # noqa: UP006 - as people write them
        weights: Dict[str, float] = {},  # noqa: UP006
        extra: Optional[List[str]] = None,  # noqa: UP006, UP045
    ) -> List[str]:  # noqa: UP006
        return ["models:/fraud/1"]

    inputs = train_to_serve(train, name="mine").component_spec.inputs
    kinds = [inputs[key].type for key in ("columns", "weights", "extra")]
    assert kinds == ["List", "Dict", "List"]
    assert inputs["columns"].default == ["a"]


def test_a_training_component_without_a_model_uri_is_refused() -> None:
    @dsl.component(base_image="python", install_kfp_package=False)
    def train() -> float:
        return 0.5

    with pytest.raises(TypeError, match="must return one text"):
        train_to_serve(train)
