"""The played controllers of Yatai do what the real ones were seen to do, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from image_builder import BENTO, BUILDER_POD, GENERATIONS, JOB, POD, ImageBuilder
from kube_api import Refused
from live_cluster import LiveCluster
from looking import looking
from played_controller import condition_of, running
from pod_behaviour import becomes_ready, completes
from yatai_operator import LAST_APPLIED, YataiOperator

DEPLOYMENT = ("apps/v1", "Deployment")
SERVICE = ("v1", "Service")
SCALER = ("autoscaling/v2", "HorizontalPodAutoscaler")
SERVING = YataiOperator.kind
REQUEST = ImageBuilder.kind
FIRST, SECOND = "registry.example.com/wine:1", "registry.example.com/wine:2"
BY_JOB = [name for name, made in GENERATIONS.items() if made.by_job]
each_builder = pytest.mark.parametrize("version", GENERATIONS)


class Yatai:
    """The objects of Yatai in one namespace, as a user writes and a test sees them."""

    def __init__(self, cluster: LiveCluster, namespace: str) -> None:
        self.cluster, self.api, self.namespace = cluster, cluster.api, namespace

    def put(self, place: tuple[str, str], name: str, spec: dict[str, Any], **metadata: Any) -> None:
        metadata |= {"name": name, "namespace": self.namespace}
        head = {"apiVersion": place[0], "kind": place[1], "metadata": metadata}
        self.api.apply({**head, "spec": spec}, force=True)

    def bento(self, image: str = FIRST, runners: int = 0, **metadata: Any) -> None:
        names = [{"name": f"model-{index}"} for index in range(runners)]
        self.put(BENTO, "wine--1", {"tag": "wine:1", "image": image, "runners": names}, **metadata)

    def serving(self, name: str = "wine", **spec: Any) -> None:
        self.put(SERVING, name, {"bento": "wine--1", **spec})

    def request(self, name: str = "wine--1", *, marks: Any = None, **spec: Any) -> None:
        said = {"bentoTag": name.replace("--", ":"), "downloadUrl": "https://store.example.com/w"}
        self.put(REQUEST, name, {**said, **spec}, annotations=marks or {})

    def live(self, place: tuple[str, str], name: str) -> dict[str, Any]:
        return self.api.get(*place, self.namespace, name) or {}

    def all(self, place: tuple[str, str]) -> list[dict[str, Any]]:
        return self.api.list(*place, self.namespace)

    def deployment(self, name: str = "wine") -> dict[str, Any]:
        return self.live(DEPLOYMENT, name)

    def image(self) -> str:
        made = self.deployment()
        return str(made["spec"]["template"]["spec"]["containers"][0]["image"]) if made else ""

    def says(self, kind: str, name: str = "wine") -> tuple[str, str]:
        place = REQUEST if "--" in name else SERVING
        found = condition_of(self.live(place, name), kind)
        return found.get("status", ""), found.get("message", "")

    def told(self, kind: str, status: str, message: str = "", name: str = "wine") -> None:
        """Waits for a condition."""

        def look() -> bool:
            found = self.says(kind, name)
            return found[0] == status and message in found[1]

        self.until(f"{kind}={status} {message}", look)

    def built(self, kind: str, status: str, message: str = "") -> None:
        self.told(kind, status, message, "wine--1")

    def until(self, what: str, look: Callable[[], Any], seconds: float = 30) -> None:
        try:
            self.cluster.until(what, look, seconds)
        except TimeoutError as late:
            told = [self.live(SERVING, "wine").get("status")]
            told.append(self.live(REQUEST, "wine--1").get("status"))
            raise AssertionError(f"{late}: {told}") from late

    def builders(self, behaviour: Any) -> None:
        self.cluster.pods.behave(self.namespace, behaviour, labels=BUILDER_POD)


@pytest.fixture
def its(yatai: str, cluster: LiveCluster, namespace: str) -> Yatai:
    return Yatai(cluster, namespace)


@pytest.fixture
def operator(its: Yatai) -> Iterator[YataiOperator]:
    with running(YataiOperator(its.api, its.namespace)) as played:
        yield played


def settle() -> None:
    """Time enough for what must not happen."""
    time.sleep(1.5)


def uids(objects: list[dict[str, Any]]) -> set[str]:
    return {one["metadata"]["uid"] for one in objects}


# -- yatai-deployment ------------------------------------------------------------------------


def test_it_makes_the_objects_of_the_api_server_and_of_each_runner(
    its: Yatai, operator: YataiOperator
) -> None:
    its.bento(runners=2)
    own = {"name": "model-0", "autoscaling": {"minReplicas": 2, "maxReplicas": 3}}
    extra = {"annotations": {"note": "x"}}
    its.serving(
        runners=[own],
        autoscaling={"minReplicas": 2, "maxReplicas": 4},
        envs=[{"name": "A", "value": "1"}],
        extraPodMetadata=extra,
    )
    its.told("Available", "True")
    names = sorted(one["metadata"]["name"] for one in its.all(DEPLOYMENT))
    assert names == ["wine", "wine-runner-0", "wine-runner-1"]

    def containers(name: str) -> list[str]:
        return [
            one["name"] for one in its.deployment(name)["spec"]["template"]["spec"]["containers"]
        ]

    assert containers("wine") == ["main", "metrics-transformer", "proxy"]
    assert containers("wine-runner-0") == ["main", "metrics-transformer"]
    assert its.live(("v1", "ConfigMap"), "wine-envoy-config")
    bounds = {one["metadata"]["name"]: one["spec"] for one in its.all(SCALER)}
    shown = {name: (spec["minReplicas"], spec["maxReplicas"]) for name, spec in bounds.items()}
    # A runner without settings inherits neither the autoscaling nor the variables.
    assert shown == {"wine": (2, 4), "wine-runner-0": (2, 3), "wine-runner-1": (1, 1)}
    inherited = its.deployment("wine-runner-1")["spec"]["template"]
    assert "env" not in inherited["spec"]["containers"][0]
    assert inherited["metadata"]["annotations"]["note"] == "x"


def test_its_objects_say_which_bento_they_are_of_and_what_it_has_applied(
    its: Yatai, operator: YataiOperator
) -> None:
    its.bento()
    its.serving()
    its.told("Available", "True")
    service, deployment = its.live(SERVICE, "wine"), its.deployment()
    for live in (service, deployment, its.live(SCALER, "wine"), deployment["spec"]["template"]):
        marks = live["metadata"]["annotations"]
        assert (marks["yatai.ai/bento-repository"], marks["yatai.ai/bento-version"]) == (
            "wine",
            "1",
        )
    assert LAST_APPLIED in deployment["metadata"]["annotations"]
    assert "yatai.ai/bento-deployment-target-type" not in service["spec"]["selector"]
    assert [one["port"] for one in service["spec"]["ports"]] == [3000, 3001]


def test_it_writes_whole_objects_and_nothing_where_nothing_differs(
    its: Yatai, operator: YataiOperator
) -> None:
    its.bento()
    its.serving()
    its.told("Available", "True")
    changed = {"spec": {"paused": True, "replicas": 3}}
    its.api.merge(*DEPLOYMENT, its.namespace, "wine", changed)
    operator.restart()
    settle()
    assert its.deployment()["spec"]["paused"], "an unchanged spec leaves it paused"
    its.bento(SECOND)
    its.until("another image", lambda: its.image() == SECOND)
    assert "paused" not in its.deployment()["spec"]
    assert its.deployment()["spec"]["replicas"] == 1


def test_what_is_deleted_comes_back(its: Yatai, operator: YataiOperator) -> None:
    its.bento()
    its.serving()
    its.told("Available", "True")
    for place in (DEPLOYMENT, SERVICE, SCALER):
        before = its.live(place, "wine")["metadata"]["uid"]
        its.api.delete(*place, its.namespace, "wine")

        def is_back(place: Any = place, before: str = before) -> bool:
            return its.live(place, "wine").get("metadata", {}).get("uid") not in (None, before)

        its.until(f"another {place[1]}", is_back, 5)


def test_without_a_bento_it_says_what_it_says(its: Yatai, operator: YataiOperator) -> None:
    its.serving()
    its.told("BentoFound", "False", "not found")
    its.told("BentoRequestFound", "True", "Bento not found")
    assert its.says("Available")[0] == "Unknown"


def test_its_word_on_the_request_goes_to_and_fro(its: Yatai, operator: YataiOperator) -> None:
    its.serving()
    its.request()
    its.told("BentoRequestFound", "True")
    seen: list[str] = []

    def look() -> bool:
        seen.append(its.says("BentoRequestFound")[0])
        return False

    with looking(look):
        for number in range(3):
            its.request(marks={"note": str(number)})
            settle()
    assert {"Unknown", "True"} >= set(seen)
    assert its.says("BentoRequestFound")[0] == "True"


def test_a_request_that_failed_is_its_failure_too(its: Yatai, operator: YataiOperator) -> None:
    its.serving()
    with running(ImageBuilder(its.api, its.namespace, failure="401")):
        its.request()
        its.told("Available", "False", "is not available: ensure image exists")
        its.told("BentoFound", "False", "is not available")


def test_an_empty_suffix_blocks_everybody(its: Yatai, operator: YataiOperator) -> None:
    operator.suffix = ""
    its.bento()
    its.serving()
    its.until("its pods", lambda: its.deployment())
    its.serving("beer")
    settle()
    assert its.says("Available")[0] == "Unknown"
    assert "status" not in its.live(SERVING, "beer")
    operator.suffix = "example.com"
    its.told("Available", "True", name="beer")
    (left,) = its.all(("networking.k8s.io/v1", "Ingress"))
    assert left["metadata"]["name"].startswith("default-domain-")


def test_an_error_stays_until_something_wakes_it(its: Yatai, operator: YataiOperator) -> None:
    operator.failure = "secrets are forbidden"
    its.bento()
    its.serving()
    its.told("Available", "False", "Failed to reconcile BentoDeployment: secrets are forbidden")
    operator.failure = ""
    note = {"metadata": {"annotations": {"note": "x"}}}
    its.api.merge(*SERVING, its.namespace, "wine", note)
    settle()
    assert its.says("Available")[0] == "False", "its own annotations wake nobody"
    its.api.merge(*BENTO, its.namespace, "wine--1", note)
    its.told("Available", "True")


def test_most_of_its_events_get_lost(its: Yatai, operator: YataiOperator) -> None:
    operator.failure = "no"
    its.bento()
    its.serving()
    for number in range(4):
        its.bento(annotations={"note": str(number)})
        settle()
    assert len(its.cluster.events(its.namespace, "wine")) <= 2


def test_another_image_of_one_tag_rolls_out_twice(its: Yatai, operator: YataiOperator) -> None:
    its.bento()
    its.serving(extraPodMetadata={"annotations": {"kfp-bento/pod-revision": "old"}})
    its.told("Available", "True")
    its.bento(SECOND)
    its.until("the new image", lambda: its.image() == SECOND)
    template = its.deployment()["spec"]["template"]["metadata"]
    assert template["annotations"]["kfp-bento/pod-revision"] == "old"


def test_a_deletion_does_not_stop_it(its: Yatai, operator: YataiOperator) -> None:
    its.bento()
    its.serving()
    its.told("Available", "True")
    keep = {"metadata": {"finalizers": ["example.com/keep"]}}
    its.api.merge(*SERVING, its.namespace, "wine", keep)
    its.api.delete(*SERVING, its.namespace, "wine")
    its.api.delete(*DEPLOYMENT, its.namespace, "wine")
    its.until("it is made again", lambda: its.deployment(), 10)
    its.api.merge(*SERVING, its.namespace, "wine", {"metadata": {"finalizers": None}})


# -- yatai-image-builder ---------------------------------------------------------------------


@each_builder
def test_a_build_takes_its_time_and_ends_in_a_bento_of_its_own(its: Yatai, version: str) -> None:
    its.builders(completes(2.0))
    with running(ImageBuilder(its.api, its.namespace, version=version)):
        runners = [{"name": "model-a", "runnableType": "Sklearn"}]
        its.request(image=FIRST, runners=runners, dockerConfigJsonSecretName="regcred")
        its.built("ImageBuilding", "True")
        assert not its.live(BENTO, "wine--1")
        its.built("BentoAvailable", "True", "Bento is generated")
    bento = its.live(BENTO, "wine--1")
    secret = [{"name": "regcred"}]
    said = {"tag": "wine:1", "image": FIRST, "runners": runners, "imagePullSecrets": secret}
    assert bento["spec"] == said
    (owner,) = bento["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"]) == ("BentoRequest", True)
    entries = [(one["manager"], one["operation"]) for one in bento["metadata"]["managedFields"]]
    assert entries == [("yatai-image-builder", "Update")]


@each_builder
def test_an_image_that_is_there_is_not_built(its: Yatai, version: str) -> None:
    with running(ImageBuilder(its.api, its.namespace, version=version, exists=True)):
        its.request()
        its.built("BentoAvailable", "True")
    image = its.live(BENTO, "wine--1")["spec"]["image"]
    assert image == "registry.example.com/yatai-bentos:yatai.wine.1"
    assert (its.all(JOB), its.all(POD)) == ([], [])


@pytest.mark.parametrize(("version", "after"), [("1.2.28", "False"), ("3.0.42", "Unknown")])
def test_a_job_that_failed_makes_no_bento_and_once_deleted_is_made_again(
    its: Yatai, version: str, after: str
) -> None:
    its.builders(completes(0.2, exit_code=42))
    with running(ImageBuilder(its.api, its.namespace, version=version)):
        its.request()
        its.built("ImageBuilding", "False", "is failed.")
        its.built("BentoAvailable", after)
        (job,) = its.all(JOB)
        assert job["spec"]["backoffLimit"] == 6
        assert job["metadata"]["labels"]["yatai.ai/bento-request"] == "wine--1"
        assert not its.live(BENTO, "wine--1")
        its.builders(completes(0.2))
        its.api.delete(*JOB, its.namespace, job["metadata"]["name"])
        its.built("BentoAvailable", "True")


def test_another_exit_code_is_tried_again_by_the_job(its: Yatai) -> None:
    its.builders(completes(0.1, exit_code=1))
    with running(ImageBuilder(its.api, its.namespace)):
        its.request()
        its.until(
            "a pod failed", lambda: [one for one in its.all(JOB) if one["status"].get("failed")]
        )
        assert its.says("BentoAvailable", "wine--1")[0] == "Unknown"


def test_the_oldest_builds_by_a_pod_that_nobody_starts_again(its: Yatai) -> None:
    its.builders(completes(0.2, exit_code=1))
    with running(ImageBuilder(its.api, its.namespace, version="1.1.3")):
        its.request()
        its.built("BentoAvailable", "False", "image builder pod")
        (pod,) = its.all(POD)
        assert "yatai.ai/bento-request" not in pod["metadata"]["labels"]
        assert its.all(JOB) == []
        its.builders(completes(0.2))
        its.api.delete(*POD, its.namespace, pod["metadata"]["name"])
        its.built("BentoAvailable", "True")


@pytest.mark.parametrize(
    ("version", "image"), [("1.1.3", SECOND), ("1.2.28", SECOND), ("3.0.42", FIRST)]
)
def test_another_image_of_an_available_request(its: Yatai, version: str, image: str) -> None:
    """One builds it, one writes it unbuilt, one never looks."""
    with running(ImageBuilder(its.api, its.namespace, version=version)):
        its.request(image=FIRST)
        its.built("BentoAvailable", "True")
        before = uids(its.all(POD))
        its.request(image=SECOND)
        settle()
        its.built("BentoAvailable", "True")
        its.until("its word", lambda: its.live(BENTO, "wine--1")["spec"]["image"] == image)
        after = uids(its.all(POD))
    assert (before == after) == (version != "1.2.28")


@pytest.mark.parametrize(("version", "back"), [("1.2.28", True), ("3.0.42", False)])
def test_a_bento_that_is_deleted(its: Yatai, version: str, back: bool) -> None:
    with running(ImageBuilder(its.api, its.namespace, version=version, exists=True)):
        its.request()
        its.built("BentoAvailable", "True")
        its.api.delete(*BENTO, its.namespace, "wine--1")
        settle()
        assert bool(its.live(BENTO, "wine--1")) == back


def test_it_passes_through_unknown_at_each_event_of_the_bento(its: Yatai) -> None:
    seen: list[str] = []
    with running(ImageBuilder(its.api, its.namespace, exists=True)):
        its.request()
        its.built("BentoAvailable", "True")
        its.api.merge(
            *BENTO, its.namespace, "wine--1", {"metadata": {"annotations": {"note": "x"}}}
        )
        ending = time.monotonic() + 2
        while time.monotonic() < ending:
            status = its.says("BentoAvailable", "wine--1")[0]
            seen += [status] if [status] != seen[-1:] else []
    assert seen[-2:] == ["Unknown", "True"], seen


def test_it_writes_over_a_bento_that_somebody_else_has_written(its: Yatai) -> None:
    its.bento(SECOND, labels={"kfp-bento/release": "wine"})
    with running(ImageBuilder(its.api, its.namespace, exists=True)):
        its.request(image=FIRST)
        its.built("BentoAvailable", "True")
        bento = its.live(BENTO, "wine--1")
        assert bento["spec"]["image"] == FIRST
        assert bento["metadata"]["labels"] == {"kfp-bento/release": "wine"}
        with pytest.raises(Refused, match="yatai-image-builder"):
            spec = {"tag": "wine:1", "image": SECOND}
            its.api.apply(
                {
                    **{"apiVersion": BENTO[0], "kind": BENTO[1], "spec": spec},
                    "metadata": {"name": "wine--1", "namespace": its.namespace},
                }
            )
        its.bento(SECOND)
        its.until("it is back", lambda: its.live(BENTO, "wine--1")["spec"]["image"] == FIRST)


def test_errors_are_tried_again_after_longer_and_longer_pauses(its: Yatai) -> None:
    begun, failed = time.monotonic(), []
    with running(ImageBuilder(its.api, its.namespace, failure="registry says 500")) as builder:
        its.request()
        its.built("BentoAvailable", "False", "exists: registry says 500")

        def is_tried_for_long() -> bool:
            if its.says("BentoAvailable", "wine--1")[0] == "False":
                failed.append(time.monotonic() - begun)
            return builder._tries.get("wine--1", 0) >= 10

        its.until("the fifth failure", is_tried_for_long)
        builder.failure = ""
        its.built("ImageExistsChecked", "False", "Image not exists")
    assert failed[-1] > 3, "the pauses double"


def test_after_a_build_the_registry_is_asked_again_and_its_word_goes_to_and_fro(
    its: Yatai,
) -> None:
    """Nobody has pushed, so it says no, and then the Job that is done says yes."""
    with running(ImageBuilder(its.api, its.namespace)) as builder:
        its.request()
        its.built("BentoAvailable", "True")
        settle()
        since = condition_of(its.live(REQUEST, "wine--1"), "ImageExists")["lastTransitionTime"]
        builder.restart()
        its.until(
            "another yes",
            lambda: (
                condition_of(its.live(REQUEST, "wine--1"), "ImageExists")["lastTransitionTime"]
                != since
            ),
        )
        its.built("ImageExists", "True")
        its.built("ImageExistsChecked", "False")


@pytest.mark.parametrize("version", BY_JOB)
def test_a_mark_on_the_request_makes_a_running_build_begin_anew(its: Yatai, version: str) -> None:
    its.builders(becomes_ready())  # it goes on for ever
    with running(ImageBuilder(its.api, its.namespace, version=version)) as builder:
        its.request(marks={"note": "a"})
        its.built("ImageBuilding", "True")
        (before,) = its.all(JOB)
        its.request(marks={"note": "b"})
        builder.restart()  # as an event of the Job would be
        its.until(
            "another Job",
            lambda: [
                one for one in its.all(JOB) if one["metadata"]["uid"] != before["metadata"]["uid"]
            ],
        )


def test_the_oldest_does_not_mind_marks(its: Yatai) -> None:
    its.builders(becomes_ready())
    with running(ImageBuilder(its.api, its.namespace, version="1.1.3")) as builder:
        its.request(marks={"note": "a"})
        its.built("ImageBuilding", "True")
        (before,) = its.all(POD)
        its.request(marks={"note": "b"})
        builder.restart()
        settle()
        assert uids(its.all(POD)) == uids([before])


def test_a_request_in_deletion_is_built_again_and_again(its: Yatai) -> None:
    its.builders(becomes_ready())
    with running(ImageBuilder(its.api, its.namespace)):
        its.request()
        its.built("ImageBuilding", "True")
        (before,) = its.all(JOB)
        path = its.api.path(*REQUEST, its.namespace, "wine--1")
        keep = {"metadata": {"finalizers": ["example.com/keep"]}}
        its.api.merge(*REQUEST, its.namespace, "wine--1", keep)
        its.api.request("DELETE", path, propagationPolicy="Foreground")
        its.until(
            "another Job",
            lambda: [
                one for one in its.all(JOB) if one["metadata"]["uid"] != before["metadata"]["uid"]
            ],
        )
        its.api.merge(*REQUEST, its.namespace, "wine--1", {"metadata": {"finalizers": None}})


def test_a_registry_that_hangs_keeps_all_others_waiting(its: Yatai) -> None:
    with running(ImageBuilder(its.api, its.namespace, hangs="slow")) as builder:
        its.request("slow--1", image="slow.example.com/x:1")
        its.told("BentoAvailable", "Unknown", "Checking image exists", "slow--1")
        its.request()
        settle()
        assert "status" not in its.live(REQUEST, "wine--1")
        builder.hangs = ""
        its.built("BentoAvailable", "True")


@pytest.mark.parametrize(
    ("version", "kind", "said"),
    [
        ("1.1.3", "BentoAvailable", "image build timeout"),
        ("1.2.28", "ImageBuilding", "is running"),
        ("3.0.42", "ImageBuilding", "is failed."),
    ],
)
def test_a_build_out_of_time(its: Yatai, version: str, kind: str, said: str) -> None:
    """One says so, one never wakes for it, and one has its Job ended, which alone says why."""
    its.builders(becomes_ready())
    with running(ImageBuilder(its.api, its.namespace, version=version)):
        its.request(imageBuildTimeout=3 * 10**9)
        its.built("ImageBuilding", "True")
        time.sleep(5)
        its.until(said, lambda: said in its.says(kind, "wine--1")[1])
        reasons = [condition_of(job, "Failed").get("reason") for job in its.all(JOB)]
    assert reasons == {"1.1.3": [], "1.2.28": [None], "3.0.42": ["DeadlineExceeded"]}[version]


def test_arguments_of_the_build_arrive_in_quotes(
    cluster: LiveCluster, namespace: str, yatai: str
) -> None:
    """No build argument reaches the Dockerfile, which looks for one without quotes."""
    builder = ImageBuilder(cluster.api, namespace)
    live = {
        "metadata": {"name": "wine--1"},
        "spec": {"bentoTag": "wine:1", "buildArgs": ["INDEX=x"]},
    }
    (container,) = builder._template(live, FIRST, {})["spec"]["containers"]
    assert "--build-arg='INDEX=x'" in container["args"]


def test_a_whole_set_of_definitions_takes_their_words(
    yatai_generation: str, cluster: LiveCluster, namespace: str
) -> None:
    its = Yatai(cluster, namespace)
    with (
        running(YataiOperator(its.api, namespace)) as operator,
        running(ImageBuilder(its.api, namespace)) as builder,
    ):
        its.request(image=FIRST)
        its.serving()
        its.told("Available", "True")
    assert (operator.troubles, builder.troubles) == ([], [])
    assert its.image() == FIRST
