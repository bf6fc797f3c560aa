"""Names, addresses, labels and messages of live objects: anybody may have written them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from releases import apply_manifests
from sample_bentos import IMAGE, make_bento
from stub_api_server import ApiServer, refusal, serve_api, write_kubeconfig

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import TARGETS, Release, Waiting
from kfp_bento.runtime.deployments.kube import cluster
from kfp_bento.runtime.deployments.kube.cluster import connect
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.release.evidence import gather_evidence
from kfp_bento.runtime.deployments.release.verdict import ReadinessJudge
from kfp_bento.runtime.deployments.release.wait import not_answering
from kfp_bento.runtime.deployments.targets.readiness import Snapshot
from kfp_bento.runtime.deployments.targets.targets import read_live
from kfp_bento.runtime.errors import DeploymentError

KINDS = {
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "v1": {
        "services": "Service",
        "pods": "Pod",
        "configmaps": "ConfigMap",
        "events": "Event",
        "secrets": "Secret",
    },
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "resources.yatai.ai/v1alpha1": {"bentoes": "Bento", "bentorequests": "BentoRequest"},
    "serving.yatai.ai/v2alpha1": {"bentodeployments": "BentoDeployment"},
}
OURS = [{"manager": "kfp-bento", "operation": "Apply"}]
ESCAPES = "no\x1b]0;owned\x07 \x1b[2Jmessage\r\x9b31m\u202e"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with serve_api(ApiServer(kinds=KINDS)) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield server


def stand(api: ApiServer, manifests: Any) -> None:
    plurals = {kind: plural for kinds in KINDS.values() for plural, kind in kinds.items()}
    for number, manifest in enumerate(manifests):
        metadata = {**manifest["metadata"], "uid": f"uid-{number}", "managedFields": OURS}
        key = f"{plurals[manifest['kind']]}/{metadata['name']}"
        api.objects[key] = {**manifest, "metadata": metadata}


def made(target: str = "workload", name: str = "wine", **options: Any) -> Release:
    return TARGETS[target].render(IMAGE, make_bento(), {"name": name, **options})


def release(target: str = "workload", name: str = "wine", **options: Any) -> tuple[Any, ...]:
    return made(target, name, **options).recorded


# -- names -----------------------------------------------------------------------------------


def test_a_name_in_a_field_is_never_a_way_to_another_object(api: ApiServer) -> None:
    manifests = release("bento-deployment")
    stand(api, manifests)
    serving = api.objects["bentodeployments/wine"]
    way = "../../../../../../api/v1/namespaces/default/secrets/login"
    serving["spec"] = {**serving["spec"], "bento": way}
    api.objects["secrets/login"] = {"metadata": {"name": "login"}, "data": {"password": "x"}}
    with pytest.raises(DeploymentError, match="is the name of no object"):
        deployments.release_status("wine", target="bento-deployment")
    assert not [path for path in api.asked if "secrets" in path or ".." in path]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?b=c", "a%2fb", "a#b", "", "a b", "a\n"])
def test_a_path_is_made_of_names_only(api: ApiServer, name: str) -> None:
    with connect() as connection, pytest.raises(DeploymentError, match="the name of no object"):
        connection.get(ObjectRef("apps/v1", "Deployment", "default", name))
    assert not [path for path in api.asked if path.startswith("/apis/apps/v1/")]


# -- labels ----------------------------------------------------------------------------------


def test_a_label_does_not_hand_over_an_object_of_another_name(api: ApiServer) -> None:
    wine, beer = release(), release(name="beer")
    stand(api, (*wine, *beer))
    for key in ("deployments/beer", "services/beer"):
        api.objects[key]["metadata"]["labels"] |= wine[0]["metadata"]["labels"]
    done = deployments.delete_release("wine", target="workload")
    assert sorted(api.deleted) == ["deployments/wine", "services/wine"]
    assert {ref.name for ref in done.kept} == {"beer"}


def test_a_bento_that_another_release_needs_stays(api: ApiServer) -> None:
    stand(api, (*release("bento-deployment"), *release("bento-deployment", name="beer")))
    done = deployments.delete_release("beer", target="bento-deployment")
    assert api.deleted == ["bentodeployments/beer"]
    assert [ref.kind for ref in done.kept] == ["Bento"]


def test_who_may_not_list_policies_has_never_applied_one(api: ApiServer) -> None:
    stand(api, release())
    api.forbidden.add("networkpolicies")
    done = deployments.delete_release("wine", target="workload")
    assert len(done.removed) == 2


# -- addresses -------------------------------------------------------------------------------


def address_of(**status: Any) -> str:
    return made("inference-service", namespace="serving").url({"status": status})


@pytest.mark.parametrize(
    "url",
    [
        "http://wine.serving.svc.cluster.local",
        "http://wine-predictor.serving.svc.cluster.local:8080",
        "https://wine.serving.svc",
        "http://wine-r0123456789ab-predictor.serving.svc",
    ],
)
def test_an_address_of_the_release_s_own_services_is_taken(url: str) -> None:
    assert address_of(address={"url": f"{url}/v1/models/wine:predict"}) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:10250",
        "http://evil.example.com",
        "http://wine.other.svc.cluster.local",
        "http://beer.serving.svc.cluster.local",
        "http://wine.serving.svc@evil.example.com",
        "http://user:password@wine.serving.svc",
        "http://wine.serving.svcs.example.com",
        "http://wine.serving.example.com",
        "file://wine.serving.svc/etc/passwd",
        "http://[::1]:80",
        "http://[",
        "http://wine.serving.svc:99999",
        "gopher://wine.serving.svc",
        "\x00",
    ],
)
def test_an_address_of_somebody_else_in_a_status_is_never_given(url: str) -> None:
    usual = "http://wine-predictor.serving.svc"
    assert address_of(address={"url": url}) == address_of(url=url) == usual


def test_a_predictor_s_name_does_not_lead_elsewhere() -> None:
    _, live = made("inference-service", namespace="serving").manifests
    live["spec"]["predictor"]["name"] = "x@evil.example.com/"
    assert TARGETS["inference-service"].address([live], live) == "http://wine-predictor.serving.svc"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does as told with each connection; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def says(text: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(text)

    return answer


def test_a_service_that_is_ready_is_ready() -> None:
    with answering(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as url:
        assert not_answering(url) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", "answers 302"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "keeps this pod out"),
        (b"HTTP/1.1 200" + b"x" * 100_000, "no HTTP"),
        (b"\x1b[2J\r\n", "no HTTP"),
        (b"", "closed the connection"),
    ],
)
def test_another_answer_is_told_and_not_followed(text: bytes, told: str) -> None:
    with answering(says(text)) as url:
        assert told in not_answering(url)


def test_a_service_that_never_ends_its_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kfp_bento.runtime.deployments.release import wait

    monkeypatch.setattr(wait, "_REQUEST_SECONDS", 0.3)
    stopped = threading.Event()

    def trickle(connection: socket.socket) -> None:
        while not stopped.wait(0.05):
            connection.sendall(b"x")

    with answering(trickle) as url:
        begun = time.monotonic()
        told = not_answering(url)
        took = time.monotonic() - begun
        stopped.set()
    assert "does not answer" in told
    assert took < 3


# -- messages --------------------------------------------------------------------------------


def is_harmless(text: str) -> bool:
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


def test_what_a_condition_says_is_shown_without_control_characters() -> None:
    manifests = release("inference-service")
    service = next(one for one in manifests if one["kind"] == "InferenceService")
    condition = {"type": "Ready", "status": "False", "reason": "Stopped", "message": ESCAPES}
    service["status"] = {"conditions": [condition]}
    judge = ReadinessJudge(made("inference-service").watched, Waiting())
    verdicts = [judge.look(Snapshot(service, holder=manifests[0]), now) for now in (0.0, 60.0)]
    assert verdicts[1] is not None
    assert is_harmless(verdicts[1].message)
    assert is_harmless(judge.give_up().message)
    assert is_harmless(judge.progress)
    assert "owned" not in verdicts[1].message


def test_events_and_logs_are_shown_without_control_characters(api: ApiServer) -> None:
    manifests = release()
    stand(api, manifests)
    api.objects["events/e"] = {
        "metadata": {"name": "e", "namespace": "default"},
        "type": "Warning",
        "reason": ESCAPES,
        "message": ESCAPES * 1000,
        "lastTimestamp": None,
    }
    with connect() as connection:
        primary = connection.get(made().primary)
        lines = gather_evidence(connection, made().watched, Snapshot(primary))
    assert lines
    assert all(is_harmless(line) and len(line) <= 2000 for line in lines)


def test_a_webhook_s_words_are_shown_without_control_characters(api: ApiServer) -> None:
    api.refusals["deployments", True] = refusal(403, "Forbidden", ESCAPES * 1000)
    with pytest.raises(DeploymentError) as refused:
        apply_manifests(release())
    assert is_harmless(refused.value.message)
    assert len(refused.value.message) < 5000


# -- shapes and sizes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "field"),
    [
        ({"kind": "InferenceService", "spec": {"predictor": {}}, "status": "x"}, "status"),
        ({"kind": "BentoDeployment", "spec": {"bento": ["x"]}}, "spec.bento"),
        ({"kind": "BentoDeployment", "spec": {}}, "spec.bento is missing"),
        ({"kind": "HTTPRoute", "status": {"parents": [None]}}, "status.parents[0]"),
        (
            {"kind": "BentoRequest", "spec": {}, "status": {"conditions": [{"status": "True"}]}},
            "type is missing",
        ),
    ],
)
def test_a_field_of_another_type_is_named(live: dict[str, Any], field: str) -> None:
    with pytest.raises(DeploymentError) as refused:
        read_live({"metadata": {"name": "wine"}, **live})
    assert field in refused.value.message


def test_an_answer_larger_than_any_of_an_api_server_is_not_read(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(api, release())
    monkeypatch.setattr(cluster, "LARGEST_ANSWER", 200)
    with connect() as connection, pytest.raises(DeploymentError, match="more than 200 bytes"):
        connection.get(ObjectRef("apps/v1", "Deployment", "default", "wine"))
