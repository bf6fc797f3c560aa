"""The controllers that tests play do what the real ones are known to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from api_proxy import ApiProxy, serve_proxy
from crd_sets import available
from gateway import GatewayController
from kserve_controller import SERVICE, KServeController
from kube_api import KubeApi
from live_cluster import LiveCluster
from played_controller import condition_of, merge_patch, running
from pod_behaviour import crash_loop, never_ready
from workload_releases import FIRST, SECOND

DEPLOYMENT = ("apps/v1", "Deployment")
ROUTE = GatewayController.kind


def container(image: str) -> dict[str, Any]:
    return {"name": "kserve-container", "image": image, "ports": [{"containerPort": 3000}]}


def predictor(image: str, **more: Any) -> dict[str, Any]:
    return {"minReplicas": 1, "containers": [container(image)], **more}


class Inference:
    """One InferenceService and what a test sees of it."""

    def __init__(self, cluster: LiveCluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def apply(self, mode: str = "Standard", **spec: Any) -> None:
        annotations = {"serving.kserve.io/deploymentMode": mode, "example.com/note": "whole"}
        metadata = {"name": "wine", "namespace": self.namespace, "annotations": annotations}
        self.cluster.api.apply(
            {"apiVersion": SERVICE[0], "kind": SERVICE[1], "metadata": metadata, "spec": spec}
        )

    @property
    def live(self) -> dict[str, Any]:
        return self.cluster.api.get(*SERVICE, self.namespace, "wine") or {}

    @property
    def status(self) -> dict[str, Any]:
        return self.live.get("status") or {}

    def deployment(self, name: str) -> dict[str, Any]:
        return self.cluster.api.get(*DEPLOYMENT, self.namespace, name) or {}

    def names(self) -> list[str]:
        return sorted(
            one["metadata"]["name"] for one in self.cluster.api.list(*DEPLOYMENT, self.namespace)
        )

    def says(self, kind: str, status: str = "True") -> None:
        self.until(f"{kind}={status}", lambda: condition_of(self.live, kind).get("status"), status)

    def until(self, what: str, look: Callable[[], Any], wanted: Any) -> None:
        try:
            self.cluster.until(what, lambda: look() == wanted, 40)
        except TimeoutError as late:
            raise AssertionError(f"{what}: {look()!r}, not {wanted!r}; {self.status}") from late

    def part(self) -> dict[str, Any]:
        return dict((self.status.get("components") or {}).get("predictor") or {})

    def shares(self) -> dict[str, int]:
        return {one["revisionName"][-1]: one["percent"] for one in self.part().get("traffic", [])}


@pytest.fixture
def isvc(cluster: LiveCluster, kserve: str, namespace: str) -> Inference:
    return Inference(cluster, namespace)


@pytest.fixture
def own(cluster: LiveCluster, namespace: str) -> Inference:
    """The same by our own definitions, to which the controllers' words must fit too."""
    cluster.crds.ensure("kserve", "minimal")
    return Inference(cluster, namespace)


# -- KServe in Standard mode -----------------------------------------------------------------


@pytest.mark.parametrize("definitions", ["isvc", "own"])
def test_kserve_makes_each_component_and_tells_of_it(
    request: pytest.FixtureRequest, definitions: str
) -> None:
    isvc: Inference = request.getfixturevalue(definitions)
    marks = {"labels": {"team": "red"}, "annotations": {"example.com/part": "own"}}
    side = {"containers": [container(SECOND)]}
    with running(KServeController(isvc.cluster.api, isvc.namespace)) as kserve:
        isvc.apply(
            predictor=predictor(FIRST, name="blue", maxReplicas=3, scaleMetric="cpu", **marks),
            transformer=side,
            explainer=side,
        )
        isvc.says("Ready")
    assert kserve.troubles == []
    assert isvc.names() == ["wine-blue-predictor", "wine-explainer", "wine-transformer"]
    template = isvc.deployment("wine-blue-predictor")["spec"]["template"]
    annotations, labels = template["metadata"]["annotations"], template["metadata"]["labels"]
    assert (annotations["example.com/note"], annotations["example.com/part"]) == ("whole", "own")
    assert (labels["team"], labels["component"]) == ("red", "predictor")
    assert labels["serving.kserve.io/inferenceservice"] == "wine"
    assert template["spec"]["containers"][0]["name"] == "kserve-container"
    for kind in ("PredictorReady", "TransformerReady", "ExplainerReady", "IngressReady"):
        isvc.says(kind)
    assert isvc.status["deploymentMode"] == "Standard"
    assert isvc.status["modelStatus"]["transitionStatus"] == "UpToDate"
    assert isvc.status["url"] == f"http://wine-{isvc.namespace}.example.com"
    address = f"http://wine-transformer.{isvc.namespace}.svc.cluster.local"
    assert isvc.status["address"] == {"url": address}
    scaler = isvc.cluster.api.get(
        "autoscaling/v2", "HorizontalPodAutoscaler", isvc.namespace, "wine-blue-predictor"
    )
    assert scaler is not None
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 3)
    assert isvc.cluster.api.get("v1", "Service", isvc.namespace, "wine-transformer")


def test_a_canary_of_kserve_comes_and_goes(isvc: Inference) -> None:
    stable = predictor(FIRST, minReplicas=4)
    canary = {"trafficPercent": 25, "predictor": {"name": "v2", "containers": [container(SECOND)]}}
    isvc.cluster.pods.behave(isvc.namespace, never_ready(), image="b2b2")
    with running(KServeController(isvc.cluster.api, isvc.namespace)):
        isvc.apply(predictor=stable, canary=[canary])
        isvc.says("Ready")
        isvc.says("CanaryPredictorReady", "False")
        assert condition_of(isvc.live, "CanaryPredictorReady")["severity"] == "Info"
        assert isvc.names() == ["wine-predictor", "wine-v2-predictor"]
        isvc.apply(predictor=stable)
        isvc.until("the canary's Deployment is gone", isvc.names, ["wine-predictor"])
        isvc.until("and its condition", lambda: condition_of(isvc.live, "CanaryPredictorReady"), {})


def test_kserve_counts_with_its_deployment_unless_told_otherwise(isvc: Inference) -> None:
    with running(KServeController(isvc.cluster.api, isvc.namespace)) as kserve:
        isvc.apply(predictor=predictor(FIRST))
        isvc.says("Ready")
        isvc.apply(predictor=predictor(FIRST, timeout=30))
        isvc.apply(predictor=predictor(FIRST, timeout=60))
        assert isvc.live["metadata"]["generation"] == 3
        isvc.until("the child's", lambda: isvc.status["observedGeneration"], 1)
        kserve.own_generation = True
        isvc.until("its own", lambda: isvc.status["observedGeneration"], 3)


def test_a_model_that_does_not_load_is_told(isvc: Inference) -> None:
    isvc.cluster.pods.behave(isvc.namespace, crash_loop())
    with running(KServeController(isvc.cluster.api, isvc.namespace)) as kserve:
        isvc.apply(predictor=predictor(FIRST))

        def model() -> Any:
            told = isvc.status.get("modelStatus") or {}
            return told.get("transitionStatus"), (told.get("lastFailureInfo") or {}).get("exitCode")

        isvc.until("the crash is told", model, ("BlockedByFailedLoad", 1))
        isvc.says("Ready", "False")
        kserve.failing_load = "no such bucket"
        isvc.until(
            "the message",
            lambda: isvc.status["modelStatus"]["lastFailureInfo"]["message"],
            "no such bucket",
        )


def test_kserve_asleep_says_nothing_and_another_mode_is_told(isvc: Inference) -> None:
    with running(KServeController(isvc.cluster.api, isvc.namespace, asleep=True)) as kserve:
        isvc.apply(predictor=predictor(FIRST))
        time.sleep(1.0)
        assert (isvc.status, isvc.names()) == ({}, [])
        kserve.mode, kserve.asleep = "Serverless", False
        isvc.says("Ready")
    assert isvc.status["deploymentMode"] == "Serverless"
    assert isvc.names() == ["wine-predictor-00001-deployment"]


# -- Knative ---------------------------------------------------------------------------------


@pytest.mark.parametrize("definitions", ["isvc", "own"])
def test_knative_makes_revisions_and_splits_requests(
    request: pytest.FixtureRequest, definitions: str
) -> None:
    isvc: Inference = request.getfixturevalue(definitions)

    def replicas() -> list[int]:
        found = [isvc.deployment(name) for name in isvc.names()]
        return [one["spec"]["replicas"] for one in found]

    with running(KServeController(isvc.cluster.api, isvc.namespace)) as kserve:
        isvc.apply("Knative", predictor=predictor(FIRST))
        isvc.says("Ready")
        assert isvc.names() == ["wine-predictor-00001-deployment"]
        first = isvc.deployment("wine-predictor-00001-deployment")
        revision = {"serving.knative.dev/revision": "wine-predictor-00001"}
        assert revision.items() <= first["metadata"]["labels"].items()
        assert revision.items() <= first["spec"]["template"]["metadata"]["labels"].items()
        assert isvc.part()["latestRolledoutRevision"] == "wine-predictor-00001"

        isvc.apply("Knative", predictor=predictor(SECOND, canaryTrafficPercent=25))
        isvc.until("the split", isvc.shares, {"2": 25, "1": 75})
        isvc.says("Ready")
        part = isvc.part()
        assert part["latestCreatedRevision"] == part["latestReadyRevision"]
        assert part["latestRolledoutRevision"] == "wine-predictor-00001"
        assert replicas() == [1, 1]

        isvc.apply("Knative", predictor=predictor(SECOND))
        isvc.until("all to the second", isvc.shares, {"2": 100})
        isvc.until("the first is scaled to 0", replicas, [0, 1])
        assert isvc.part()["previousRolledoutRevision"] == "wine-predictor-00001"
    assert kserve.troubles == []


def test_a_revision_that_fails_gets_no_requests(isvc: Inference) -> None:
    with running(KServeController(isvc.cluster.api, isvc.namespace)):
        isvc.apply("Knative", predictor=predictor(FIRST))
        isvc.says("Ready")
        isvc.cluster.pods.behave(isvc.namespace, crash_loop(), image="b2b2")
        isvc.apply("Knative", predictor=predictor(SECOND))
        isvc.says("Ready", "False")
        assert condition_of(isvc.live, "PredictorReady")["reason"] == "RevisionFailed"
        assert isvc.part()["latestReadyRevision"] == "wine-predictor-00001"
        assert isvc.part()["latestCreatedRevision"] == "wine-predictor-00002"
        assert isvc.shares() == {"1": 100}


def test_an_idle_revision_is_scaled_to_zero_where_it_may_be(isvc: Inference) -> None:
    with running(KServeController(isvc.cluster.api, isvc.namespace, idle=True)):
        isvc.apply("Knative", predictor=predictor(FIRST, minReplicas=0))
        isvc.says("Ready")
        name = "wine-predictor-00001-deployment"
        isvc.until("no pods", lambda: isvc.deployment(name)["spec"]["replicas"], 0)
        isvc.says("Ready")


# -- the Gateway API -------------------------------------------------------------------------


@pytest.mark.parametrize("definitions", available("gateway-api"))
def test_a_route_is_taken_and_its_missing_backends_told(
    cluster: LiveCluster, namespace: str, definitions: str
) -> None:
    cluster.crds.ensure("gateway-api", definitions)
    place = {"name": "wine", "namespace": namespace}

    def route(*services: str) -> None:
        rule = {"backendRefs": [{"name": name, "port": 3000} for name in services]}
        spec = {"parentRefs": [{"name": "public", "namespace": "infra"}], "rules": [rule]}
        cluster.api.apply(
            {"apiVersion": ROUTE[0], "kind": ROUTE[1], "metadata": place, "spec": spec}
        )

    def told() -> dict[str, tuple[str, str, int]]:
        live = cluster.api.get(*ROUTE, namespace, "wine") or {}
        return {
            one["type"]: (one["status"], one["reason"], one["observedGeneration"])
            for parent in (live.get("status") or {}).get("parents") or []
            for one in parent["conditions"]
        }

    port = {"port": 3000}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": place, "spec": {"ports": [port]}}
    accepted = ("True", "Accepted")
    with running(GatewayController(cluster.api, namespace, asleep=True)) as gateway:
        route("wine")
        assert told() == {}
        gateway.asleep = False
        missing = {"Accepted": (*accepted, 1), "ResolvedRefs": ("False", "BackendNotFound", 1)}
        cluster.until("no backend", lambda: told() == missing, 20)
        cluster.api.apply(service)
        found = {"Accepted": (*accepted, 1), "ResolvedRefs": ("True", "ResolvedRefs", 1)}
        cluster.until("the backend", lambda: told() == found, 20)
        route("wine", "beer")
        again = {"Accepted": (*accepted, 2), "ResolvedRefs": ("False", "BackendNotFound", 2)}
        cluster.until("the new generation", lambda: told() == again, 20)
        gateway.refusal = "NotAllowedByListeners"
        cluster.until("it is refused", lambda: told()["Accepted"][0] == "False", 20)
    assert gateway.troubles == []


# -- what all share --------------------------------------------------------------------------


def test_a_merge_patch_takes_away_what_is_gone() -> None:
    before = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1]}
    assert merge_patch(before, {"b": {"c": 1}, "e": [2]}) == {"a": None, "b": {"d": None}, "e": [2]}
    assert merge_patch(before, before) == {}


def test_the_proxy_notes_what_an_apply_creates(cluster: LiveCluster, namespace: str) -> None:
    def config(name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}

    created = ("", "configmaps", "create")
    with serve_proxy(ApiProxy(cluster.kubeconfig)) as proxy:
        api = KubeApi(cluster.kubeconfig)
        api.url = proxy.url
        cluster.api.apply(config("wine"))
        api.apply(config("wine"))
        assert created not in proxy.permissions()
        api.apply(config("beer"), dry_run=True)
        assert created in proxy.permissions()
        proxy.created.clear()
        api.apply(config("beer"))
        assert created in proxy.permissions()
