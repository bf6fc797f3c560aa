"""The deploying component against a real API server, with no more rights than they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import dsl
from live_cluster import LiveCluster
from played_targets import controllers_of, definitions_of
from pod_behaviour import crash_loop, image_pull_backoff

import kfp_bento.components as shipped
from kfp_bento.runtime.deployments import TARGETS, ReleaseFacts, confirm_release
from kfp_bento.runtime.deployments.targets.permissions import needed_permissions, role_rules
from kfp_bento.runtime.errors import DeploymentError

DEPLOYMENT = ("apps/v1", "Deployment")
OPERATIONS = ("diff", "apply", "wait", "prune", "roll_back")
FIRST, SECOND = "a1", "b2"


class Step:
    """What one run of a component left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metrics: dict[str, float] = {}
        self.values: Any = None

    def output(self, name: str) -> Any:
        if name == "metrics":
            return SimpleNamespace(path=str(self.directory / name), metadata=self.metrics)
        return SimpleNamespace(path=str(self.directory / name), metadata={})

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.text("release")))

    def call(self, component: Any, **given: Any) -> Any:
        artifacts = {
            name: self.output(name)
            for name, spec in component.component_spec.outputs.items()
            if "@" in spec.type
        }
        self.values = component.python_func(**artifacts, **given)
        return self.values


class Release:
    """One target in one namespace, deployed and rolled back by components alone."""

    def __init__(self, target: str, namespace: str, folder: Path) -> None:
        self.target, self.namespace, self.folder = target, namespace, folder
        self.count = 0

    def step(self) -> Step:
        self.count += 1
        directory = self.folder / f"step-{self.count}"
        directory.mkdir()
        return Step(directory)

    def image(self, which: str) -> str:
        if self.target == "bento-request":
            return f"registry.example.com/team/wine:{which}{which}"
        return f"registry.example.com/team/wine@sha256:{which * 32}"

    def bento(self, which: str) -> Any:
        directory = self.folder / f"bento-{which}"
        directory.mkdir(exist_ok=True)
        (directory / "bento.yaml").write_text(
            f"name: wine\nversion: {which}\nservice: service:Wine\n"
            "bentoml_version: 1.4.39\nmodels: []\n"
        )
        return SimpleNamespace(path=str(directory), metadata={})

    def parameters(self, which: str) -> dict[str, Any]:
        given = {
            "target": self.target,
            "image": self.image(which),
            "bento": self.bento(which),
            "namespace": self.namespace,
            "task_config": dsl.TaskConfig(),
            "mode": "apply",
            "wait_seconds": 60,
        }
        if self.target == "bento-request":
            url = f"https://store.example.com/wine-{which}.tar.gz"
            given["options"] = {"archive_url": url}
        return given

    def deploy(self, step: Step, which: str, **more: Any) -> Any:
        given = step.call(shipped.deploy_bento, **{**self.parameters(which), **more})
        if more.get("wait_seconds") != 0:
            confirm_release(ReleaseFacts.load(step.directory / "release"))
        return given

    def roll_back(self, step: Step, **more: Any) -> Any:
        given = {"name": "wine", "target": self.target, "namespace": self.namespace}
        return step.call(shipped.roll_back, **given, wait_seconds=60, **more)


@pytest.fixture
def as_a_step(cluster: LiveCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process the ServiceAccount of a step, with the rights for one target."""

    def become(target: str) -> None:
        needed = needed_permissions(OPERATIONS, [target])
        path = cluster.user(namespace, role_rules(needed), name="pipeline-runner")
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.delenv("KFP_BENTO_LOCAL_TARGET", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(path))

    return become


@pytest.fixture(params=list(TARGETS))
def release(
    request: pytest.FixtureRequest,
    cluster: LiveCluster,
    namespace: str,
    as_a_step: Any,
    tmp_path: Path,
) -> Iterator[Release]:
    if definitions := definitions_of(request.param):
        request.getfixturevalue(definitions)
    with controllers_of(request.param, cluster.api, namespace):
        as_a_step(request.param)
        yield Release(request.param, namespace, tmp_path)


@pytest.fixture
def workload(namespace: str, as_a_step: Any, tmp_path: Path) -> Release:
    as_a_step("workload")
    return Release("workload", namespace, tmp_path)


def pod_template(cluster: LiveCluster, release: Release) -> dict[str, Any]:
    name = "wine-predictor" if release.target == "inference-service" else "wine"
    live = cluster.api.get(*DEPLOYMENT, release.namespace, name)
    assert live is not None
    return dict(live["spec"]["template"]["spec"])


def served(cluster: LiveCluster, release: Release) -> str:
    return str(pod_template(cluster, release)["containers"][0]["image"])


def test_a_bento_is_deployed_replaced_and_rolled_back(
    cluster: LiveCluster, release: Release
) -> None:
    first = release.step()
    release.deploy(first, FIRST)
    assert first.values[1] == "wine"
    assert first.text("summary").startswith("# Release wine serves\n")
    assert first.record()["mode"] == "applied"
    assert first.record()["url"] == first.values[0] != ""
    assert "| created |" in first.text("diff")
    assert first.metrics["seconds_to_serve"] > 0
    assert first.metrics["objects_created"] == len(list((first.directory / "manifests").iterdir()))

    second = release.step()
    release.deploy(second, SECOND)
    assert served(cluster, release) == release.image(SECOND)
    assert "```diff\n" in second.text("diff")
    assert second.metrics["failed"] == second.metrics["rolled_back"] == 0.0

    # A step that is retried goes no further back.
    for changed in (True, False):
        back = release.step()
        # What the cluster built is known to the pipeline by its digest.
        built = release.target == "bento-request"
        leaving = second.values[2] if built else release.image(SECOND)
        image, revision = release.roll_back(back, leaving_image=leaving)
        assert image == release.image(FIRST)
        assert revision == first.record()["revision"]
        assert back.text("summary").startswith(f"# Release wine is back at revision {revision}\n")
        assert served(cluster, release) == release.image(FIRST)
        assert ("nothing was changed" in back.text("summary")) is not changed
        assert ("```diff\n" in back.text("diff")) is changed


@pytest.mark.parametrize("release", ["bento-request"], indirect=True)
def test_what_the_cluster_built_is_named_by_its_digest(release: Release) -> None:
    step = release.step()
    release.deploy(step, FIRST)
    image = step.values[2]
    assert image.startswith("registry.example.com/team/wine@sha256:")
    assert step.record()["image"] == image


def test_the_same_bento_again_changes_nothing(cluster: LiveCluster, release: Release) -> None:
    release.deploy(release.step(), FIRST)
    again = release.step()
    release.deploy(again, FIRST)
    assert "Nothing changes." in again.text("diff")
    objects = {key: value for key, value in again.metrics.items() if key.startswith("objects_")}
    assert {key for key, value in objects.items() if value} == {
        "objects_rendered",
        "objects_unchanged",
    }


def test_a_failed_release_is_told_rolled_back_and_an_error(
    cluster: LiveCluster, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    release.deploy(release.step(), FIRST)
    cluster.pods.behave(release.namespace, crash_loop(), image=SECOND * 2)
    failed = release.step()
    with pytest.raises(DeploymentError, match="CrashLoopBackOff") as raised:
        release.deploy(failed, SECOND)
    assert "ModuleNotFoundError: sklearn" in raised.value.message
    assert "which serves" in raised.value.hint
    for told in (failed.text("summary"), capsys.readouterr().out):
        assert "# Release wine: FAILED (CrashLoopBackOff)" in told
        assert "ModuleNotFoundError: sklearn" in told
        assert "**Rolled back**" in told
    assert (failed.metrics["failed"], failed.metrics["rolled_back"]) == (1.0, 1.0)
    assert failed.record()["mode"] == "applied"
    assert served(cluster, release) == release.image(FIRST)


def test_a_failed_release_stays_where_that_is_wanted(
    cluster: LiveCluster, workload: Release
) -> None:
    workload.deploy(workload.step(), FIRST)
    cluster.pods.behave(workload.namespace, image_pull_backoff(), image=SECOND * 2)
    failed = workload.step()
    with pytest.raises(DeploymentError, match="manifest unknown"):
        workload.deploy(failed, SECOND, roll_back_on_failure=False)
    assert failed.metrics["rolled_back"] == 0.0
    assert served(cluster, workload) == workload.image(SECOND)
    image, _ = workload.roll_back(workload.step())
    assert image == workload.image(FIRST)


def test_what_is_tolerated_is_waited_out(
    cluster: LiveCluster, workload: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.pods.behave(workload.namespace, image_pull_backoff(), image=FIRST * 2)
    with pytest.raises(DeploymentError, match="DeadlineExceeded"):
        reasons = ["ErrImagePull", "ImagePullBackOff"]
        workload.deploy(workload.step(), FIRST, wait_seconds=4, tolerated=reasons)
    assert "Deployment wine has 0 of 1 replicas available" in capsys.readouterr().out


def test_a_step_need_not_wait(cluster: LiveCluster, workload: Release) -> None:
    cluster.pods.behave(workload.namespace, crash_loop(), image=FIRST * 2)
    step = workload.step()
    workload.deploy(step, FIRST, wait_seconds=0)
    assert "not waited for" in step.text("summary")
    assert step.text("summary").startswith("# Release wine\n")
    assert "seconds_to_serve" not in step.metrics


def test_a_roll_back_to_what_does_not_serve_either_is_an_error(
    cluster: LiveCluster, workload: Release
) -> None:
    workload.deploy(workload.step(), FIRST)
    workload.deploy(workload.step(), SECOND)
    cluster.pods.behave(workload.namespace, crash_loop(), image=FIRST * 2)
    back = workload.step()
    with pytest.raises(DeploymentError, match="CrashLoopBackOff"):
        workload.roll_back(back)
    assert "FAILED (CrashLoopBackOff)" in back.text("summary")
    assert back.metrics["failed"] == 1.0


def test_without_a_good_release_a_roll_back_leaves_everything(
    cluster: LiveCluster, workload: Release
) -> None:
    workload.deploy(workload.step(), FIRST, wait_seconds=0)
    with pytest.raises(DeploymentError, match="no good release on record"):
        workload.roll_back(workload.step())
    assert served(cluster, workload) == workload.image(FIRST)


def test_settings_of_the_task_are_taken_by_the_api_server(
    cluster: LiveCluster, workload: Release
) -> None:
    task = dsl.TaskConfig(
        resources={"limits": {"cpu": "1", "memory": "1Gi"}},
        node_selector={"kubernetes.io/hostname": "node-b"},
        tolerations=[
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5.0}
        ],
    )
    labels = {"metadata": {"labels": {"kubernetes.io/hostname": "node-b"}}}
    cluster.api.merge("v1", "Node", None, "node-b", labels)
    workload.deploy(workload.step(), FIRST, task_config=task)
    pod = pod_template(cluster, workload)
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert pod["tolerations"][0]["tolerationSeconds"] == 5
    (running_pod,) = cluster.pods_of(workload.namespace)
    assert running_pod["spec"]["nodeName"] == "node-b"


def test_how_long_the_scheduler_may_find_no_node_is_a_parameter(
    cluster: LiveCluster, workload: Release
) -> None:
    task = dsl.TaskConfig(node_selector={"pool": "gpu"})
    with pytest.raises(DeploymentError, match="Unschedulable"):
        workload.deploy(workload.step(), FIRST, task_config=task, unschedulable_seconds=1)


def test_a_step_without_rights_says_which_one_it_lacks(
    cluster: LiveCluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster.user(namespace, role_rules(needed_permissions(["wait"], ["workload"])))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(DeploymentError, match=r"deployments|services") as refused:
        Release("workload", namespace, tmp_path).deploy(Step(tmp_path), FIRST)
    assert "rbac" in refused.value.hint
