"""The deploying component as KFP runs it: its executor, its local runner, its compiler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kfp import compiler, components, dsl
from kfp.dsl.executor import Executor
from local_pipelines import placed_workload
from sample_bentos import IMAGE
from sample_targets import AFFINITY, ARCHIVE, TOLERATION

from kfp_bento.components import deploy_bento, roll_back
from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.deployments import TARGETS, load_given_release
from kfp_bento.runtime.deployments.kube.manifests import write_manifests
from kfp_bento.runtime.errors import DeploymentError, InvalidInput
from kfp_bento.runtime.local import run_pipeline
from kfp_bento.runtime.local.runs import Run

ROOT = Path(__file__).parents[2]
PIPELINES = "tests.components.local_pipelines"
# What the backend makes of a task's settings, in numbers as protobuf has them.
TASK = {
    "resources": {"limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}},
    "tolerations": [TOLERATION],
    "nodeSelector": {"pool": "gpu"},
    "affinity": AFFINITY,
    "env": [{"name": "KUBECONFIG", "value": "/etc/cluster/config"}],
}
NEEDED: dict[str, dict[str, Any]] = {
    "bento-deployment": {"image": IMAGE},
    "bento-request": {"options": {"archive_url": ARCHIVE}},
    "inference-service": {"image": IMAGE},
    "workload": {"image": IMAGE},
}
every_target = pytest.mark.parametrize("target", NEEDED)


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KFP_BENTO_LOCAL_TARGET", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    directory = tmp_path / "bento"
    directory.mkdir()
    (directory / "bento.yaml").write_text(
        "name: wine\nversion: v1\nservice: service:Wine\nbentoml_version: 1.4.39\nmodels: []\n"
    )
    return directory


class Executed:
    """What a component left after KFP's own executor has run it."""

    def __init__(self, component: Any, directory: Path, bento: Path | None, given: Any) -> None:
        self.directory = directory

        def artifact(name: str, kind: str, uri: Path) -> dict[str, Any]:
            kinds = {"schemaTitle": kind.partition("@")[0], "schemaVersion": "0.0.1"}
            entry = {"name": name, "type": kinds, "uri": str(uri), "metadata": {}}
            return {"artifacts": [entry]}

        specification = component.component_spec
        outputs = specification.outputs
        values = {key for key, spec in outputs.items() if "@" not in spec.type}
        document = {
            "inputs": {
                "parameterValues": given,
                "artifacts": {"bento": artifact("bento", "system.Model", bento)} if bento else {},
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": str(directory / f"value-{name}")} for name in values
                },
                "artifacts": {
                    name: artifact(name, outputs[name].type, directory / name)
                    for name in set(outputs) - values
                },
                "outputFile": str(directory / "executor_output.json"),
            },
        }
        Executor(document, component).execute()
        answer = json.loads((directory / "executor_output.json").read_text())
        self.values: dict[str, Any] = answer["parameterValues"]
        self.metrics = answer["artifacts"]["metrics"]["artifacts"][0]["metadata"]
        self.artifacts = answer["artifacts"]

    def manifest(self, kind: str) -> dict[str, Any]:
        (path,) = (self.directory / "manifests").glob(f"{kind.lower()}-*.yaml")
        return dict(yaml.safe_load(path.read_text()))


def execute(target: str, directory: Path, bento: Path | None, **more: Any) -> Executed:
    needed = {"mode": "render", "target": target, **NEEDED[target]}
    more["options"] = {**needed.get("options", {}), **more.get("options", {})}
    return Executed(deploy_bento, directory / "outputs", bento, {**needed, **more})


def placement(target: str, executed: Executed) -> dict[str, Any]:
    """Where the served pods go, and what they may use."""
    if target == "workload":
        pod = executed.manifest("Deployment")["spec"]["template"]["spec"]
    elif target == "inference-service":
        pod = executed.manifest("InferenceService")["spec"]["predictor"]
    else:
        spec = executed.manifest("BentoDeployment")["spec"]
        limits = {**spec["resources"]["limits"]}
        limits["nvidia.com/gpu"] = limits.pop("gpu", None)
        pod = {**spec["extraPodSpec"], "containers": [{"resources": {"limits": limits}}]}
    found = {key: pod.get(key) for key in ("nodeSelector", "tolerations", "affinity")}
    return {**found, "limits": pod["containers"][0]["resources"]["limits"]}


def floats(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from floats(one)
    elif isinstance(value, float):
        yield value


# -- the task's own settings -----------------------------------------------------------------


@every_target
def test_what_is_set_on_the_task_reaches_the_served_pods(
    target: str, bento: Path, tmp_path: Path
) -> None:
    found = placement(target, execute(target, tmp_path, bento, task_config=TASK))
    assert found["nodeSelector"] == {"pool": "gpu"}
    assert found["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert [one["key"] for one in found["tolerations"]] == ["gpu"]
    assert set(found["affinity"]) == {"podAntiAffinity"}
    assert list(floats(found)) == []


@every_target
def test_variables_of_the_task_stay_with_the_task(target: str, bento: Path, tmp_path: Path) -> None:
    execute(target, tmp_path, bento, task_config=TASK)
    for path in (tmp_path / "outputs" / "manifests").iterdir():
        assert "KUBECONFIG" not in path.read_text()


@every_target
def test_what_a_parameter_says_comes_before_the_task(
    target: str, bento: Path, tmp_path: Path
) -> None:
    resources = {"limits": {"cpu": 3.0, "memory": "3Gi"}}
    executed = execute(target, tmp_path, bento, task_config=TASK, resources=resources)
    limits = placement(target, executed)["limits"]
    assert (limits["cpu"], limits["memory"]) == ("3", "3Gi")


@every_target
def test_a_task_without_settings_renders_as_if_there_were_no_task(
    target: str, bento: Path, tmp_path: Path
) -> None:
    texts = []
    for name, given in (("none", None), ("empty", {"resources": {}})):
        execute(target, tmp_path / name, bento, task_config=given)
        folder = tmp_path / name / "outputs" / "manifests"
        texts.append({path.name: path.read_text() for path in folder.iterdir()})
    assert texts[0] == texts[1]


def test_the_compiled_task_hands_its_settings_on_and_keeps_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "placed.yaml"
    compiler.Compiler().compile(placed_workload, str(path))
    specification, platform = yaml.safe_load_all(path.read_text())
    handed_on = specification["components"]["comp-deploy-bento"]["taskConfigPassthroughs"]
    assert {"field": "RESOURCES"} in handed_on
    assert {"field": "KUBERNETES_VOLUMES", "applyToTask": True} in handed_on
    executors = specification["deploymentSpec"]["executors"]
    container = executors["exec-deploy-bento"]["container"]
    assert container["resources"]["resourceCpuLimit"] == "2"
    kinds = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {"secretAsVolume", "tolerations", "nodeSelector"} <= set(kinds["exec-deploy-bento"])


def test_kfps_loader_of_yaml_forgets_what_is_handed_on(tmp_path: Path) -> None:
    loaded = components.load_component_from_file(
        str(ROOT / "components/deploy_bento/component.yaml")
    )

    @dsl.pipeline
    def from_yaml():
        bento = dsl.importer(artifact_uri="/bento", artifact_class=dsl.Model)
        loaded(target="workload", image=IMAGE, bento=bento.output)

    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(from_yaml, str(path))
    assert "taskConfigPassthroughs" not in path.read_text()


def test_the_component_serves_every_target() -> None:
    assert set(NEEDED) == set(TARGETS)


def test_a_target_that_there_is_not_is_refused_with_those_that_there_are(
    bento: Path, tmp_path: Path
) -> None:
    elsewhere = {"mode": "render", "target": "lambda", "image": IMAGE}
    with pytest.raises(InvalidInput, match="lambda") as refused:
        Executed(deploy_bento, tmp_path / "outputs", bento, elsewhere)
    assert "workload" in str(refused.value)


@every_target
def test_an_option_of_another_target_is_refused_by_its_name(
    target: str, bento: Path, tmp_path: Path
) -> None:
    other = "archive_url" if target != "bento-request" else "storage_uri"
    with pytest.raises(InvalidInput, match=other):
        execute(target, tmp_path, bento, options={other: "s3://store/wine.tar"})


def test_the_release_is_an_artifact_that_later_steps_can_take(bento: Path, tmp_path: Path) -> None:
    executed = execute("workload", tmp_path, bento)
    (entry,) = executed.artifacts["release"]["artifacts"]
    assert entry["metadata"]["target"] == "workload"
    given = SimpleNamespace(path=str(tmp_path / "outputs/release"), metadata=entry["metadata"])
    assert load_given_release(given).target == "workload"
    (tmp_path / "outputs/release").write_text((tmp_path / "outputs/diff").read_text())
    with pytest.raises(DeploymentError, match="There is no release"):
        load_given_release(given)


# -- outputs ---------------------------------------------------------------------------------


@every_target
def test_everything_is_left_that_the_component_promises(
    target: str, bento: Path, tmp_path: Path
) -> None:
    executed = execute(target, tmp_path, bento)
    release = json.loads((tmp_path / "outputs/release").read_text())
    assert (release["target"], release["mode"]) == (target, "rendered")
    assert executed.values["name"] == release["name"] == "wine"
    assert executed.values["url"] == ""
    assert (tmp_path / "outputs/summary").read_text().startswith("# Release wine\n")
    assert "Nothing was compared" in (tmp_path / "outputs/diff").read_text()
    assert executed.metrics["failed"] == 0.0


def test_a_request_hands_the_destination_on(bento: Path, tmp_path: Path) -> None:
    image = "registry.example.com/team/wine:v1"
    executed = execute(
        "bento-request",
        tmp_path,
        bento,
        image=image,
        options={"registry_secret": "regcred", "build_timeout": "1h"},
    )
    assert executed.values["image"] == image
    spec = executed.manifest("BentoRequest")["spec"]
    assert (spec["image"], spec["dockerConfigJsonSecretName"]) == (image, "regcred")


def test_a_stored_model_needs_neither_image_nor_bento(tmp_path: Path) -> None:
    executed = execute(
        "inference-service",
        tmp_path,
        None,
        image="",
        name="iris",
        options={
            "storage_uri": "s3://models/iris",
            "model_format": "mlflow",
            "deployment_mode": "RawDeployment",
        },
    )
    service = executed.manifest("InferenceService")
    assert service["spec"]["predictor"]["model"]["storageUri"] == "s3://models/iris"
    assert "RawDeployment" in service["metadata"]["annotations"].values()


@every_target
def test_an_option_that_is_no_parameter_is_given_in_options(
    target: str, bento: Path, tmp_path: Path
) -> None:
    executed = execute(target, tmp_path, bento, options={"labels": {"team": "wine"}})
    primary = TARGETS[target].primary_kind.name
    assert executed.manifest(primary)["metadata"]["labels"]["team"] == "wine"


@every_target
@pytest.mark.parametrize("option", ["namespace", "color"])
def test_an_option_that_is_a_parameter_or_nothing_is_refused(
    target: str, option: str, bento: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=option):
        execute(target, tmp_path, bento, options={option: "x"})


def test_a_roll_back_without_a_cluster_says_so(tmp_path: Path) -> None:
    given = {"name": "wine", "target": "workload"}
    with pytest.raises(DeploymentError, match="No cluster is configured"):
        Executed(roll_back, tmp_path, None, given)


# -- the local runner ------------------------------------------------------------------------


def local_run(pipeline: str, directory: Path, **arguments: Any) -> Run:
    return run_pipeline(f"{PIPELINES}:{pipeline}", arguments, directory)


def test_kfp_makes_floats_of_integers_inside_objects(tmp_path: Path) -> None:
    run = local_run("telling", tmp_path, settings={"replicas": 1})
    answer = json.loads((run.directory / "tell" / "executor_output.json").read_text())
    assert answer["parameterValues"]["Output"] == "{'replicas': 1.0}"


def test_kfps_floats_render_the_same_manifests(bento: Path, tmp_path: Path) -> None:
    autoscaling = {"minReplicas": 2, "maxReplicas": 3}
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    options = {"startup_seconds": 120, "topology_spread": [spread], "envs": {"THREADS": 2}}
    run = local_run(
        "workload",
        tmp_path / "run",
        bento_directory=str(bento),
        image=IMAGE,
        autoscaling=autoscaling,
        options=options,
    )
    rendered = TARGETS["workload"].render(
        IMAGE, load_bento(bento), {"autoscaling": autoscaling, **options}
    )
    expected = write_manifests(rendered.manifests, tmp_path / "expected")
    made = run.output("deploy-bento", "manifests")
    assert {path.name for path in expected} == {path.name for path in made.iterdir()}
    for path in expected:
        assert (made / path.name).read_text() == path.read_text()


def test_a_request_runs_locally_as_far_as_it_can(bento: Path, tmp_path: Path) -> None:
    run = local_run("request", tmp_path / "run", bento_directory=str(bento), archive_url=ARCHIVE)
    assert run.record("deploy-bento", "release")["mode"] == "rendered"


def test_an_artifact_that_is_left_out_is_none_locally(tmp_path: Path) -> None:
    run = local_run("stored_model", tmp_path, storage_uri="s3://models/iris")
    assert run.record("deploy-bento", "release")["name"] == "iris"
