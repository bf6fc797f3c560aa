"""Faults are provoked, not imagined: broken connections, full disks, killed processes."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from flaky_proxy import FlakyProxy
from pulled_model import pull_model
from servers import free_port

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import ModelVersion, load_models, tracking, tree_digest
from kfp_bento.runtime.models import partial as partial_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 8 << 20
MLMODEL = "flavors: {python_function: {loader_module: some.module, python_version: 3.11.7}}\n"


@pytest.fixture(scope="module")
def large_uri(wine_model: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with one file of eight megabytes."""
    import mlflow

    directory = tmp_path_factory.mktemp("large")
    (directory / "MLmodel").write_text(MLMODEL)
    (directory / "weights.bin").write_bytes(os.urandom(SIZE))
    (directory / "requirements.txt").write_text("numpy\n")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(directory), "model")
    return f"runs:/{run.info.run_id}/model"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@contextlib.contextmanager
def stub_server(answers: dict[str, Any], status: int = 200) -> Iterator[str]:
    """Answers paths from a table (as JSON) and everything else with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            body = json.dumps(answers[path]).encode() if path in answers else b"denied"
            self.send_response(200 if path in answers else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_down_is_named_at_once(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()

    with pytest.raises(ModelError, match=f"{uri} does not answer") as caught:
        pull_model("models:/wine/1", tmp_path / "model", tracking_uri=uri)
    assert time.monotonic() - started < 3
    assert "running" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_accepts_but_never_answers_is_asked_once_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_PROBE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ModelError, match="does not answer"):
            pull_model("models:/wine/1", tmp_path / "model", tracking_uri=uri)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize(("open_path", "status"), [("/", 401), ("/version", 403)])
def test_a_refused_login_is_called_that(open_path: str, status: int, tmp_path: Path) -> None:
    with (
        stub_server({open_path: "3.0"}, status=status) as uri,
        pytest.raises(ModelError, match="refused access") as caught,
    ):
        pull_model("models:/wine/1", tmp_path / "model", tracking_uri=uri)

    assert "MLFLOW_TRACKING_TOKEN" in caught.value.hint


def test_a_server_that_is_still_starting_is_called_that(tmp_path: Path) -> None:
    with (
        stub_server({}, status=503) as uri,
        pytest.raises(ModelError, match="is not ready: HTTP 503"),
    ):
        pull_model("models:/wine/1", tmp_path / "model", tracking_uri=uri)


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "a/../../evil", "%2e%2e/evil"])
def test_a_listing_that_leaves_the_directory_is_refused(path: str, tmp_path: Path) -> None:
    entry = {"path": path, "is_dir": False, "file_size": 1}
    listing = {"/api/2.0/mlflow-artifacts/artifacts": {"files": [entry]}}

    with (
        stub_server(listing, status=404) as uri,
        pytest.raises(ModelError, match="leaves the model's directory"),
    ):
        pull_model("mlflow-artifacts:/0/x", tmp_path / "model", tracking_uri=uri)
    assert list(tmp_path.iterdir()) == []


def test_a_listing_that_contains_itself_comes_to_an_end(tmp_path: Path) -> None:
    entry = {"path": "deeper", "is_dir": True}
    listing = {"/api/2.0/mlflow-artifacts/artifacts": {"files": [entry]}}

    with (
        stub_server(listing, status=404) as uri,
        pytest.raises(ModelError, match="nests deeper than"),
    ):
        pull_model("mlflow-artifacts:/0/x", tmp_path / "model", tracking_uri=uri)


def test_a_connection_that_breaks_for_good_leaves_nothing(
    large_uri: str, mlflow_server: str, tmp_path: Path, impatient: None
) -> None:
    with (
        FlakyProxy(mlflow_server, after=SIZE // 2, then="cut") as proxy,
        pytest.raises(ModelError, match=r"artifacts that http\S+ serves as \S+ cannot be reached"),
    ):
        pull_model(large_uri, tmp_path / "model", tracking_uri=proxy.uri)

    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_once_is_taken_up_again(
    large_uri: str, mlflow_server: str, tmp_path: Path, impatient: None
) -> None:
    with FlakyProxy(mlflow_server, after=SIZE // 2, then="cut once") as proxy:
        model = pull_model(large_uri, tmp_path / "model", tracking_uri=proxy.uri)

    assert model.size > SIZE
    assert model.digest == tree_digest(tmp_path / "model")


def test_a_file_with_another_size_than_announced_is_refused(
    large_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    real = MlflowArtifactsRepository._download_file

    def shortened(self: Any, remote_file_path: str, local_path: str) -> None:
        real(self, remote_file_path, local_path)
        if remote_file_path == "weights.bin":
            os.truncate(local_path, 1000)

    monkeypatch.setattr(MlflowArtifactsRepository, "_download_file", shortened)
    with pytest.raises(ModelError, match=f"1000 bytes; the store announced {SIZE}"):
        pull_model(large_uri, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def pulling_in_a_process(uri: str, directory: Path, server: str) -> Iterator[subprocess.Popen[str]]:
    """A pull through a proxy that falls silent in the middle of the large file."""
    code = (
        "import sys; from pathlib import Path; from kfp_bento.runtime.models import pull_models; "
        "pull_models([sys.argv[1]], Path(sys.argv[2]), tracking_uri=sys.argv[3])"
    )
    with FlakyProxy(server, after=SIZE // 2, then="stall") as proxy:
        process = subprocess.Popen(
            [sys.executable, "-c", code, uri, str(directory), proxy.uri],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert proxy.reached.wait(60)
            yield process
        finally:
            process.kill()
            process.communicate()


def test_ctrl_c_cleans_up_and_ends_at_once(
    large_uri: str, mlflow_server: str, tmp_path: Path
) -> None:
    with pulling_in_a_process(large_uri, tmp_path / "model", mlflow_server) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)  # the proxy is silent for longer

    assert said.rstrip().endswith("KeyboardInterrupt")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_pull_never_looks_complete_and_the_next_one_cleans_up(
    large_uri: str, mlflow_server: str, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    with pulling_in_a_process(large_uri, directory, mlflow_server) as process:
        process.kill()
        process.wait()
    [left] = tmp_path.iterdir()
    assert left.name == f"model.partial-{process.pid}"
    with pytest.raises(ModelError, match="did not finish"):
        load_models(left)
    assert pull_model(large_uri, directory).digest == tree_digest(directory)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_pull_that_is_still_running_is_not_swept_away(
    large_uri: str, mlflow_server: str, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    with pulling_in_a_process(large_uri, directory, mlflow_server) as process:
        pull_model(large_uri, directory)
        assert (tmp_path / f"model.partial-{process.pid}" / "model" / "MLmodel").exists()


def test_any_exception_in_the_middle_leaves_nothing(large_uri: str, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(large_uri, tmp_path / "model", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for half of the large model."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    options = ["-t", "tmpfs", "-o", f"size={SIZE // 2}", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options], capture_output=True).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_too_small_is_noticed_before_the_download(
    large_uri: str, small_disk: Path
) -> None:
    said = r"is full: what is pulled needs 8\.4 MB, 4\.\d MB are free"
    with pytest.raises(ModelError, match=said) as caught:
        pull_model(large_uri, small_disk / "model")

    assert "another disk" in caught.value.hint
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    large_uri: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_module, "_require_space", lambda *_: None)

    with pytest.raises(ModelError, match=r"is full: what is pulled needs 8\.4 MB"):
        pull_model(large_uri, small_disk / "model")
    assert list(small_disk.iterdir()) == []


def test_a_mount_point_is_refused_as_destination(
    wine_model: ModelVersion, small_disk: Path
) -> None:
    with pytest.raises(InvalidInput, match="is a mount point"):
        pull_model("models:/wine/1", small_disk)


def test_a_parent_that_is_a_file_is_named(wine_model: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ModelError, match="cannot be read or written"):
        pull_model("models:/wine/1", tmp_path / "file" / "model")


def test_without_any_server_configured_none_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidInput, match="No MLflow tracking server is configured"):
        pull_model("models:/wine/1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_database_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no tracking database"):
        pull_model("models:/wine/1", tmp_path / "m", tracking_uri=f"sqlite:///{tmp_path}/my.db")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_as_before_after_a_pull(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    before = dict(os.environ)
    pull_model("models:/wine/1", tmp_path / "model")

    assert dict(os.environ) == before
