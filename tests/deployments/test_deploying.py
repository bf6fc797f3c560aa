"""Which mode a deployment takes, what it leaves behind, and the target on this machine."""

from __future__ import annotations

import json
import re
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from stub_api_server import ApiServer

from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.deployments import TARGETS, Deployed, Waiting, deploy
from kfp_bento.runtime.deployments.kube.client import cluster_configured
from kfp_bento.runtime.errors import DeploymentError, InvalidInput

TARGET = "KFP_BENTO_LOCAL_TARGET"


def deploy_bento(
    image: str,
    bento: Bento,
    directory: Path,
    *,
    mode: str = "auto",
    location: str = "",
    **options: Any,
) -> Deployed:
    release = TARGETS["bento-deployment"].render(image, bento, options)
    return deploy(release, directory, mode=mode, image_location=location, waiting=Waiting(0))


class LocalTarget:
    """A stand-in for the server of a local run: notes requests, answers as told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answer: tuple[int, Any] = (
            200,
            {"url": "http://127.0.0.1:3999/", "runtime": "process"},
        )


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (TARGET, "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTarget]:
    local = LocalTarget()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            local.requests.append((self.path, body))
            status, answer = local.answer
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    with tempfile.TemporaryDirectory() as place:  # a socket's path is short
        server = socketserver.ThreadingUnixStreamServer(f"{place}/target", Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        monkeypatch.setenv(TARGET, f"unix:{place}/target")
        yield local
        server.shutdown()
        server.server_close()
        thread.join()


def test_without_a_cluster_a_release_is_only_rendered_and_says_so(
    image: str, bento: Bento, tmp_path: Path
) -> None:
    deployed = deploy_bento(image, bento, tmp_path / "out", namespace="serving")
    assert deployed.to_dict() == {
        "target": "bento-deployment",
        "mode": "rendered",
        "name": "wine",
        "namespace": "serving",
        "revision": deployed.release.revision,
        "url": "",
        "image": image,
        "bento_tag": "wine:0123456789e12345",
        "failure": "",
        "context": "",
    }
    assert re.fullmatch("[0-9a-f]{16}", deployed.release.revision)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_with_a_cluster_a_release_is_applied_and_has_its_address_there(
    image: str, bento: Bento, tmp_path: Path, api: ApiServer
) -> None:
    deployed = deploy_bento(image, bento, tmp_path / "out", name="red", namespace="serving")
    assert (deployed.mode, deployed.url) == ("applied", "http://red.serving.svc:3000")
    assert set(api.objects) == {"bentodeployments/red", "bentoes/wine--0123456789e12345"}
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_rendering_never_touches_the_configured_cluster(
    image: str, bento: Bento, tmp_path: Path, api: ApiServer
) -> None:
    assert deploy_bento(image, bento, tmp_path, mode="render").mode == "rendered"
    assert api.patches == []


def test_a_local_run_comes_before_a_configured_cluster(
    image: str, bento: Bento, tmp_path: Path, api: ApiServer, target: LocalTarget
) -> None:
    deployed = deploy_bento(image, bento, tmp_path, location="oci:build/image")
    assert (deployed.mode, deployed.url) == ("local", "http://127.0.0.1:3999")
    assert api.patches == []
    ((path, request),) = target.requests
    assert path == "/releases"
    assert [manifest["kind"] for manifest in request.pop("manifests")] == [
        "Bento",
        "BentoDeployment",
    ]
    assert request == {
        "image": image,
        "image_location": f"oci:{Path.cwd() / 'build' / 'image'}",
        "bento_directory": str(Path.cwd() / "wine-bento"),
    }


def test_an_image_in_a_directory_is_not_sent_to_a_cluster(
    image: str, bento: Bento, tmp_path: Path, api: ApiServer
) -> None:
    location = "oci:build/image"
    assert deploy_bento(image, bento, tmp_path, location=location).mode == "rendered"
    with pytest.raises(DeploymentError, match="No cluster can pull the image"):
        deploy_bento(image, bento, tmp_path, location=location, mode="apply")
    assert api.patches == []


def test_a_target_that_cannot_start_the_image_says_why(
    image: str, bento: Bento, tmp_path: Path, target: LocalTarget
) -> None:
    target.answer = (500, {"error": "port taken", "hint": "Free it."})
    with pytest.raises(DeploymentError, match="port taken") as failed:
        deploy_bento(image, bento, tmp_path)
    assert failed.value.hint == "Free it."


@pytest.mark.parametrize(
    "answer",
    [{}, {"url": ""}, {"url": 3}, {"url": "http://192.0.2.7:80"}, {"url": "file:///x"}, [], b"<h>"],
)
def test_an_answer_without_a_url_is_no_release(
    image: str, bento: Bento, tmp_path: Path, target: LocalTarget, answer: Any
) -> None:
    target.answer = (200, answer)
    with pytest.raises(DeploymentError, match="gave no URL"):
        deploy_bento(image, bento, tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        *("http://192.0.2.7:80", "https://127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1"),
        *("http://127.0.0.1:1", "unix:relative/target", "unix:"),
    ],
)
def test_a_local_target_is_on_this_machine_or_refused(
    image: str, bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv(TARGET, address)
    with pytest.raises(InvalidInput, match=TARGET):
        deploy_bento(image, bento, tmp_path)


def test_a_local_target_that_is_gone_is_an_error(
    image: str, bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TARGET, f"unix:{tmp_path}/gone")
    with pytest.raises(DeploymentError, match="does not answer"):
        deploy_bento(image, bento, tmp_path)


@pytest.mark.parametrize("mode", ["local", "deploy"])
def test_a_mode_that_cannot_work_is_refused_before_anything_is_written(
    image: str, bento: Bento, tmp_path: Path, mode: str
) -> None:
    with pytest.raises(InvalidInput, match="mode: "):
        deploy_bento(image, bento, tmp_path / "out", mode=mode)
    assert not (tmp_path / "out").exists()


def test_apply_without_a_cluster_is_an_error(image: str, bento: Bento, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="No cluster is configured"):
        deploy_bento(image, bento, tmp_path, mode="apply")


def test_a_kubeconfig_that_is_not_there_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert not cluster_configured()


def test_a_wait_of_less_than_nothing_is_refused(image: str, bento: Bento, tmp_path: Path) -> None:
    release = TARGETS["bento-deployment"].render(image, bento)
    with pytest.raises(InvalidInput, match="wait_seconds: -1 is negative"):
        deploy(release, tmp_path / "out", waiting=Waiting(-1))
    assert not (tmp_path / "out").exists()


def test_the_record_of_a_release_is_plain_json(image: str, bento: Bento, tmp_path: Path) -> None:
    record = deploy_bento(image, bento, tmp_path).to_dict()
    assert json.loads(json.dumps(record)) == record


def test_one_deployment_tries_everything_once_and_then_applies_it(
    image: str, bento: Bento, tmp_path: Path, api: ApiServer
) -> None:
    deployed = deploy_bento(image, bento, tmp_path, mode="apply")
    assert [patch["query"].get("dryRun") for patch in api.patches] == [
        "All",
        "All",
        None,
        None,
        None,
    ]
    # The last is no apply: it says that the release is on trial.
    assert [patch["body"]["metadata"].get("name") for patch in api.patches][-1] is None
    assert deployed.diff is not None
    assert [one.change for one in deployed.diff.objects] == ["created", "created"]


def test_a_directory_that_cannot_be_written_is_an_error(
    image: str, bento: Bento, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentError, match="cannot be written"):
        deploy_bento(image, bento, tmp_path / "file")
