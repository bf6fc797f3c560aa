"""Releases under KServe's own controller and webhooks, not a played one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import ToolsMissing
from kserve_operator import SERVICE, KServe, built_kserve, kserve_running
from kube_api import Refused
from live_cluster import LiveCluster
from pod_behaviour import Behaviour, becomes_ready, crash_loop, image_pull_backoff, never_ready
from releases import roll_out
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND, THIRD

from kfp_bento.runtime.deployments import (
    Release,
    Rollout,
    Waiting,
    delete_release,
    release_status,
    roll_back,
    target_of,
)
from kfp_bento.runtime.deployments.targets.kserve.render import KSERVE_DEFAULTS
from kfp_bento.runtime.deployments.targets.kserve.rules import canary_name
from kfp_bento.runtime.errors import DeploymentError, InvalidInput

DEPLOYMENT = ("apps/v1", "Deployment")
TARGET = "inference-service"
VERSIONS = {FIRST: "v1", SECOND: "v2", THIRD: "v3"}
older = pytest.mark.parametrize("real_kserve", ["older"], indirect=True)
OWNED = (
    DEPLOYMENT,
    ("apps/v1", "ReplicaSet"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "Ingress"),
    SERVICE,
)


@pytest.fixture(scope="module")
def real_kserve(cluster: LiveCluster, request: pytest.FixtureRequest) -> Iterator[KServe]:
    """KServe at work, the newer one unless asked; skips, saying why, where it cannot be had."""
    try:
        built = built_kserve(getattr(request, "param", "newer"))
    except ToolsMissing as missing:
        pytest.skip(f"no KServe: {missing}")
    with kserve_running(cluster, built) as kserve:
        yield kserve


DOWNLOADER = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ClusterStorageContainer",
    "metadata": {"name": "default"},
    "spec": {
        "container": {"name": "storage-initializer", "image": "kserve/storage-initializer:latest"},
        "supportedUriFormats": [{"prefix": "s3://"}],
        "workloadType": "initContainer",
    },
}
RUNTIME = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "spec": {
        "protocolVersions": ["v2"],
        "supportedModelFormats": [{"name": "mlflow", "version": "1", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "image": "registry.example.com/mlserver:1"}],
    },
}


class Served:
    """The release `wine` of one namespace."""

    def __init__(self, cluster: LiveCluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.place = {"target": TARGET, "namespace": namespace}

    def made(self, image: str = FIRST, **options: Any) -> Release:
        bento = make_bento("wine", VERSIONS[image])
        options = {"namespace": self.namespace, **options}
        return target_of(TARGET).render(image, bento, options)

    def out(self, image: str = FIRST, *, seconds: float = 60.0, **options: Any) -> Rollout:
        back = options.pop("roll_back_on_failure", False)
        made = self.made(image, **options)
        return roll_out(made, seconds=seconds, roll_back_on_failure=back)

    def stored(self, uri: str, *, seconds: float = 60.0, **more: Any) -> Rollout:
        """The same name, for a model that KServe's runtimes load themselves."""
        options = {"name": "wine", "namespace": self.namespace, "protocol": "v2", **more}
        options |= {"storage_uri": uri, "model_format": "mlflow"}
        return roll_out(target_of(TARGET).render("", None, options), seconds=seconds)

    def live(self) -> dict[str, Any]:
        found = self.cluster.api.get(*SERVICE, self.namespace, "wine")
        assert found is not None
        return found

    def deployment(self, component: str = "predictor") -> dict[str, Any]:
        found = self.cluster.api.get(*DEPLOYMENT, self.namespace, f"wine-{component}")
        assert found is not None
        return found

    def image(self) -> str:
        return str(self.deployment()["spec"]["template"]["spec"]["containers"][0]["image"])

    def behave(self, behaviour: Behaviour, **options: Any) -> None:
        self.cluster.pods.behave(self.namespace, behaviour, **options)

    def everything(self) -> list[str]:
        return sorted(
            f"{kind}/{live['metadata']['name']}"
            for api_version, kind in OWNED
            for live in self.cluster.api.list(api_version, kind, self.namespace)
            if live["metadata"]["name"] != "kube-root-ca.crt"
        )


@pytest.fixture
def release(
    real_kserve: KServe, cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> Iterator[Served]:
    yield Served(cluster, namespace)


def test_a_release_serves_and_says_so(release: Served) -> None:
    release.behave(becomes_ready(after=2))
    done = release.out()
    assert done.verdict.ready, done.verdict
    assert release.live()["status"]["deploymentMode"] == "Standard"
    status = release_status("wine", **release.place)
    assert (status.ready, status.image, status.last_good) == (True, FIRST, done.revision)


def test_the_same_release_again_is_no_change_in_spite_of_what_kserve_fills_in(
    release: Served,
) -> None:
    release.out(resources={})
    before = release.live()
    filled = before["spec"]["predictor"]["containers"][0]["resources"]
    assert filled == {kind: dict(values) for kind, values in KSERVE_DEFAULTS.items()}
    assert not release.out(resources={}).changed
    assert release.live()["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_change_serves_the_new_image_and_going_back_the_last_good_one(release: Served) -> None:
    release.out()
    second = release.out(SECOND)
    assert second.verdict.ready, second.verdict
    assert release.image() == SECOND
    assert release_status("wine", **release.place).last_good == second.revision
    release.behave(image_pull_backoff(), image="c3c3")
    assert not release.out(THIRD).verdict.ready
    back = roll_back("wine", **release.place, waiting=Waiting(60))
    assert back.verdict.ready, back.verdict
    assert release.image() == SECOND


@pytest.mark.parametrize(
    ("behaviour", "reasons"),
    [
        (crash_loop(), {"CrashLoopBackOff"}),
        (image_pull_backoff(), {"ErrImagePull", "ImagePullBackOff"}),
    ],
    ids=["crash", "image"],
)
def test_a_release_that_cannot_start_is_told_while_kserve_still_waits(
    release: Served, behaviour: Behaviour, reasons: set[str]
) -> None:
    release.behave(behaviour)
    failed = release.out()
    assert failed.verdict.reason in reasons, failed.verdict
    assert failed.verdict.evidence
    # KServe does not say that loading failed, so nobody may wait for it to.
    assert release.live()["status"]["modelStatus"]["transitionStatus"] == "InProgress"


def test_a_failed_release_goes_back_by_itself(release: Served) -> None:
    good = release.out()
    release.behave(crash_loop(), image="b2b2")
    failed = release.out(SECOND, roll_back_on_failure=True)
    assert failed.verdict.reason == "CrashLoopBackOff", failed.verdict
    assert failed.rolled_back_to == good.revision
    assert failed.restored is not None and failed.restored.ready, failed.restored
    assert release.image() == FIRST


def test_kserve_calls_a_service_ready_before_its_new_pods_are(release: Served) -> None:
    release.out()
    release.behave(never_ready(), image="b2b2")
    failed = release.out(SECOND, seconds=8)
    told = {one["type"]: one["status"] for one in release.live()["status"]["conditions"]}
    assert (told["Ready"], told["PredictorReady"]) == ("True", "True")
    assert failed.verdict.reason == "DeadlineExceeded", failed.verdict


def test_a_quota_is_named(cluster: LiveCluster, release: Served) -> None:
    quota = {"metadata": {"name": "none", "namespace": release.namespace}}
    quota |= {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "0"}}}
    cluster.api.apply(quota)
    cluster.until(
        "the quota",
        lambda: (
            (cluster.api.get("v1", "ResourceQuota", release.namespace, "none") or {})
            .get("status", {})
            .get("hard")
        ),
    )
    assert release.out().verdict.reason == "Quota"


def test_a_transformer_is_waited_for_too(release: Served) -> None:
    release.behave(crash_loop(), image="c3c3")
    failed = release.out(transformer={"image": THIRD, "port": 8080})
    assert failed.verdict.reason == "CrashLoopBackOff", failed.verdict
    assert "wine-transformer" in failed.verdict.message


def test_the_names_that_modes_had_before_are_taken_and_are_no_change(release: Served) -> None:
    assert release.out(deployment_mode="RawDeployment").verdict.ready
    assert not release.out(deployment_mode="RawDeployment").changed
    assert release.live()["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == (
        "Standard"
    )
    assert release.out(SECOND).verdict.ready


def test_a_mode_that_the_cluster_cannot_do_is_said_in_the_evidence(release: Served) -> None:
    failed = release.out(deployment_mode="Knative", seconds=6)
    assert not failed.verdict.ready
    assert any("ServerlessModeRejected" in line for line in failed.verdict.evidence)


def test_another_mode_is_refused_before_anything_is_applied(release: Served) -> None:
    release.out()
    before = release.live()
    with pytest.raises(DeploymentError, match="deploymentMode cannot be changed"):
        release.out(SECOND, deployment_mode="Knative")
    assert release.live()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_kserve_takes_a_canary_with_a_model_only(cluster: LiveCluster, release: Served) -> None:
    """So spec.canary is of no use to an image of ours, and we refuse it."""
    release.out()
    live = dict(release.made(SECOND).manifests[-1])
    beside = {key: live["spec"]["predictor"][key] for key in ("containers", "annotations")}
    canary = {"trafficPercent": 25, "predictor": {"name": "v2", **beside}}
    live["spec"]["canary"] = [canary]
    with pytest.raises(Refused, match="canary requires a stable predictor with a model"):
        cluster.api.apply(live, force=True, dry_run=True)
    with pytest.raises(InvalidInput, match="canaries of stored models only"):
        release.made(SECOND, canary_percent=25)


def test_deleting_leaves_nothing(cluster: LiveCluster, release: Served) -> None:
    release.out(transformer={"image": THIRD, "port": 8080})
    gone = delete_release("wine", **release.place)
    assert sorted(ref.kind for ref in gone.removed) == ["ConfigMap", "InferenceService"]
    # The rest is the garbage collector's.
    cluster.until("an empty namespace", lambda: not release.everything())
    assert delete_release("wine", **release.place).removed == ()


def test_a_change_that_changes_no_pods_is_ready_at_once(release: Served) -> None:
    release.out(autoscaling={"minReplicas": 1, "maxReplicas": 2})
    changed = release.out(autoscaling={"minReplicas": 1, "maxReplicas": 3}, seconds=8)
    assert changed.verdict.ready, changed.verdict


def test_as_many_pods_as_asked_for_serve_before_it_is_ready(release: Served) -> None:
    done = release.out(autoscaling={"minReplicas": 2, "maxReplicas": 3})
    assert done.verdict.ready, done.verdict
    assert release.deployment()["status"]["availableReplicas"] == 2


def test_a_transformer_that_is_gone_from_the_release_is_removed(
    cluster: LiveCluster, release: Served
) -> None:
    """KServe leaves everything of it, and does not make it anew."""
    release.out(transformer={"image": THIRD, "port": 8080})
    done = release.out()
    removed = {f"{ref.kind}/{ref.name}" for ref in done.removed}
    assert removed == {
        f"{kind}/wine-transformer" for kind in ("Deployment", "HorizontalPodAutoscaler", "Service")
    }
    assert done.verdict.ready, done.verdict
    left = [entry for entry in release.everything() if "transformer" in entry]
    assert {entry.partition("/")[0] for entry in left} <= {"Ingress"}, left
    assert release_status("wine", **release.place).ready


@pytest.fixture
def runtime(cluster: LiveCluster, release: Served) -> None:
    """What KServe needs to serve a stored model: a runtime and something that downloads."""
    cluster.api.apply(DOWNLOADER)
    place = {"name": "mlserver", "namespace": release.namespace}
    cluster.api.apply({**RUNTIME, "metadata": place})


def test_a_stored_model_is_served_with_a_canary_beside_it(
    cluster: LiveCluster, release: Served, runtime: None
) -> None:
    old, new = "s3://models/wine/1", "s3://models/wine/2"
    first = release.stored(old)
    assert first.verdict.ready, first.verdict
    release.behave(becomes_ready(after=2))
    canary = release.stored(new, canary_percent=25, stable_storage_uri=old)
    assert canary.verdict.ready, canary.verdict
    name = canary_name(new)

    def predictors() -> set[str]:
        return {entry for entry in release.everything() if entry.startswith("Deployment/")}

    beside = f"Deployment/wine-{name}-predictor"
    assert predictors() == {beside, "Deployment/wine-predictor"}
    promoted = release.stored(new, predictor_name=name)
    assert promoted.verdict.ready, promoted.verdict
    cluster.until("the old predictor is gone", lambda: predictors() == {beside})


def test_a_format_that_no_runtime_serves_is_told(cluster: LiveCluster, release: Served) -> None:
    failed = release.stored("s3://models/wine/1", seconds=20)
    assert failed.verdict.reason == "NoSupportingRuntime", failed.verdict


def test_without_kserve_nothing_is_watched(
    cluster: LiveCluster, release: Served, real_kserve: KServe
) -> None:
    with real_kserve.away():
        done = roll_out(release.made(), seconds=30.0, unwatched=2.0)
        assert done.verdict.reason == "NotWatched", done.verdict
    cluster.until("ready after all", lambda: release_status("wine", **release.place).ready)


def test_a_deletion_without_kserve_waits_for_its_finalizer(
    cluster: LiveCluster, release: Served, real_kserve: KServe
) -> None:
    release.out()
    with (
        real_kserve.away(),
        pytest.raises(DeploymentError, match=r"inferenceservice\.finalizers"),
    ):
        delete_release("wine", **release.place, seconds=2)
    cluster.until("an empty namespace", lambda: not release.everything())


# -- the generation before, whose modes have other names ---------------------------------------


@older
def test_the_older_kserve_serves_changes_and_deletes(cluster: LiveCluster, release: Served) -> None:
    options = {"deployment_mode": "RawDeployment"}
    assert release.out(**options).verdict.ready
    assert not release.out(**options).changed
    second = release.out(SECOND, **options)
    assert second.verdict.ready, second.verdict
    assert release.image() == SECOND
    release.behave(crash_loop(), image="c3c3")
    failed = release.out(THIRD, roll_back_on_failure=True, **options)
    assert failed.verdict.reason == "CrashLoopBackOff", failed.verdict
    assert failed.rolled_back_to == second.revision
    delete_release("wine", **release.place)
    cluster.until("an empty namespace", lambda: not release.everything())


@older
def test_the_older_kserve_does_not_know_the_newer_names_of_modes(release: Served) -> None:
    """It falls back to its default, which needs Knative here, and writes no status at all."""
    failed = release.out(seconds=6)
    assert not failed.verdict.ready
    assert any("ServerlessModeRejected" in line for line in failed.verdict.evidence)
    assert "status" not in release.live()


@older
def test_the_older_kserve_refuses_another_name_of_the_same_mode(release: Served) -> None:
    assert release.out(deployment_mode="RawDeployment").verdict.ready
    with pytest.raises(DeploymentError, match="cannot be changed from 'RawDeployment'"):
        release.out(SECOND, deployment_mode="Standard")
