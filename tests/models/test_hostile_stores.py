"""What a tracking server or an artifact store could answer, and what then happens."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities import FileInfo
from pulled_model import pull_model

from kfp_bento.runtime.errors import KfpBentoError, ModelError
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.models import download as download_module

if TYPE_CHECKING:
    from collections.abc import Iterator

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
MLMODEL = "flavors: {python_function: {loader_module: some.module, python_version: 3.11.7}}\n"
MOST = 512 << 20


class Store:
    """A tracking server and store of a model `a` that says what it is told to say."""

    def __init__(self) -> None:
        self.uri = ""
        self.model: dict[str, Any] = {"name": "a", "aliases": [{"alias": "prod", "version": "1"}]}
        self.version: dict[str, Any] = {
            "name": "a",
            "version": "1",
            "status": "READY",
            "source": "mlflow-artifacts:/a",
        }
        self.files: list[dict[str, Any]] = [
            {"path": "MLmodel", "is_dir": False, "file_size": len(MLMODEL)}
        ]
        self.flood = ""
        self.sent = 0

    def answer(self, path: str) -> Any:
        if path == f"{API}/registered-models/get":
            return {"registered_model": self.model}
        if path == f"{API}/model-versions/get":
            return {"model_version": self.version}
        if path == f"{API}/model-versions/get-download-uri":
            return {"artifact_uri": self.version["source"]}
        if path == FILES:
            return {"files": self.files}
        return MLMODEL if path == f"{FILES}/a/MLmodel" else None


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if made.flood and path.endswith(made.flood):
                self.pour()
                return
            found = made.answer(path)
            body = found if isinstance(found, str) else json.dumps(found)
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def pour(self) -> None:
            """Sends and sends, as one body, until nobody listens."""
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while made.sent < MOST:
                    made.sent += self.connection.send(bytes(1 << 20))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made.uri = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


def test_the_store_of_these_tests_can_be_pulled_from(store: Store, tmp_path: Path) -> None:
    model = pull_model("models:/a@prod", tmp_path / "model", tracking_uri=store.uri)

    assert (model.name, model.version, model.aliases) == ("a", "1", {"prod": "1"})


def test_a_file_that_becomes_larger_than_announced_is_stopped_on_the_way(
    store: Store, tmp_path: Path
) -> None:
    store.files.append({"path": "weights.bin", "is_dir": False, "file_size": 1000})
    store.flood = "weights.bin"

    with pytest.raises(ModelError, match=r"weights.bin is larger than the 1000 bytes"):
        pull_model("models:/a/1", tmp_path / "model", tracking_uri=store.uri)
    wait_until_nothing_is_sent(store)
    assert store.sent < MOST
    assert list(tmp_path.iterdir()) == []


def wait_until_nothing_is_sent(store: Store) -> None:
    deadline, before = time.monotonic() + 20, -1
    while store.sent not in (before, MOST) and time.monotonic() < deadline:
        before = store.sent
        time.sleep(0.2)


def test_only_the_file_that_is_too_large_is_taken_from_its_writer(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large, (tmp_path / "other").open("wb") as other:
        download_module._cut_off(tmp_path / "large")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(large.fileno(), b"more")
        assert os.write(other.fileno(), b"more") == 4


def test_a_file_that_boto3_writes_beside_its_name_is_watched_too(tmp_path: Path) -> None:
    sizes = {"w.bin": 10, "w.bin.index": 100}
    for name in ("w.bin.5dE2fA13", "w.bin.index"):
        (tmp_path / name).write_bytes(bytes(50))

    with pytest.raises(ModelError, match=r"w.bin is larger than the 10 bytes"):
        download_module._stop_oversized(tmp_path, sizes, {"w.bin", "w.bin.index"})
    download_module._stop_oversized(tmp_path, sizes, {"w.bin.index"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "mlflow-artifacts:/a\x1b[2J"}, "source has control characters"),
        ({"source": "s3://a\nPulled: models:/credit@prod"}, "source has control characters"),
        ({"run_id": "\u202eb"}, "run has control characters"),
        ({"source": "s3://" + "m" * 5_000}, "source has more than 4096 characters"),
        ({"status": "FAILED_REGISTRATION", "status_message": "a\x1b[31m\nb"}, r"\(a b\)"),
        ({"tags": [{"key": f"k{n}", "value": "v"} for n in range(10_001)]}, "10001 tags"),
    ],
)
def test_what_a_version_may_not_be_is_named_and_cannot_steer_a_terminal(
    change: dict[str, Any], said: str, store: Store, tmp_path: Path
) -> None:
    store.version |= change
    with pytest.raises(ModelError, match=said) as caught:
        pull_model("models:/a/1", tmp_path / "model", tracking_uri=store.uri)

    assert caught.value.hint
    assert not {"\x1b", "\u202e", "\x9b"} & set(str(caught.value))
    assert "Pulled: models" not in str(caught.value).splitlines()[-1]


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ([{"alias": "prod", "version": "1; rm -rf /"}], "which is no version"),
        ([{"alias": "prod\x1b]0;x\x07", "version": "1"}], "An alias has control characters"),
        ([{"alias": f"a{n}", "version": "1"} for n in range(10_001)], "10001 aliases"),
    ],
)
def test_what_an_alias_may_not_be_is_named(
    aliases: Any, said: str, store: Store, tmp_path: Path
) -> None:
    store.model["aliases"] = aliases
    with pytest.raises(ModelError, match=said):
        pull_model("models:/a@prod", tmp_path / "model", tracking_uri=store.uri)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "a\u202eb"}, "control characters"),
        ({"file_size": -1}, "the size -1"),
        ({"file_size": 10**30}, "is full"),
    ],
)
def test_what_a_listing_may_not_hold_is_named(
    entry: dict[str, Any], said: str, store: Store, tmp_path: Path
) -> None:
    store.files.append({"path": "b", "is_dir": False, "file_size": 1, **entry})
    with pytest.raises(KfpBentoError, match=said) as caught:
        pull_model("models:/a/1", tmp_path / "model", tracking_uri=store.uri)

    assert not {"\x1b", "\u202e"} & set(str(caught.value))


@pytest.mark.parametrize("path", ["a\nb", "a\x1b[2Jb", "a\rb", "a\x9bb", "a\u2066b", "a\tb"])
def test_a_listing_has_no_names_that_steer_a_terminal(path: str) -> None:
    class Repository:
        def list_artifacts(self, folder: str | None) -> Any:
            return [FileInfo(path, False, 1)]

    with pytest.raises(ModelError, match="a name with control characters") as caught:
        download_module.list_files(Repository())
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert path not in str(caught.value)


def test_a_listing_without_end_comes_to_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_MOST_FILES", 50)
    store.files = [{"path": f"d{n}", "is_dir": True} for n in range(10)]

    with pytest.raises(ModelError, match="more than 50 files"):
        pull_model("models:/a/1", tmp_path / "model", tracking_uri=store.uri)


def test_files_have_the_modes_of_the_umask_whatever_the_store_has(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "MLmodel").write_text(MLMODEL)
    (source / "MLmodel").chmod(0o666)
    before = os.umask(0o077)
    try:
        pull_model(source.as_uri(), tmp_path / "copied")
        pull_model("models:/wine/1", tmp_path / "pulled")
        files = download_module.download_files(_local(source), {"MLmodel": None}, _made(tmp_path))
    finally:
        os.umask(before)

    assert [file.path for file in files] == ["MLmodel"]
    for top in ("copied", "pulled", "downloaded"):
        for path in (tmp_path / top, *(tmp_path / top).rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


def _local(source: Path) -> Any:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    return LocalArtifactRepository(source.as_uri())


def _made(tmp_path: Path) -> Path:
    (tmp_path / "downloaded").mkdir()
    return tmp_path / "downloaded"
