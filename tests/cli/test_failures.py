"""Every mistake ends in a clear sentence, exit code 2, and nothing half-made."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_bento_command import COMMAND, assert_refused, kfp_bento, kfp_bento_here
from sample_bentos import write_bento
from servers import docker_registry_binary, free_port, oci_registry_in

from kfp_bento.runtime.models import ModelVersion


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("models:/nobody/1", "nobody"),
        ("models:/wine@nowhere", "nowhere"),
        ("models:/wine/999", "999"),
        ("models:/wine/Production", "stage"),
        ("models:/", "models:/"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "0123456789abcdef0123456789abcdef"),
    ],
)
def test_a_model_that_is_not_there(
    uri: str, told: str, mlflow_server: str, wine_model: ModelVersion, tmp_path: Path
) -> None:
    done = kfp_bento_here(
        "model", "pull", uri, "--to", tmp_path / "m", "--tracking-uri", mlflow_server
    )
    assert_refused(done, told)
    assert names(tmp_path) == []


def test_a_tracking_server_that_is_down(tmp_path: Path) -> None:
    began = time.monotonic()
    address = f"http://127.0.0.1:{free_port()}"
    done = kfp_bento(
        "model", "pull", "models:/m/1", "--to", tmp_path / "m", "--tracking-uri", address
    )
    assert_refused(done, address)
    assert time.monotonic() - began < 30
    assert names(tmp_path) == []


def test_a_model_without_python_function(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors:\n  sklearn: {pickled_model: model.pkl}\n")
    assert_refused(
        kfp_bento_here("bento", "build", model, "--to", tmp_path / "b"), "python_function"
    )
    assert names(tmp_path) == ["model"]


def test_a_model_with_an_index_of_its_own_is_told_how_to_allow_it(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors:\n  python_function: {loader_module: x}\n")
    address = f"http://robot:hunter2@127.0.0.1:{free_port()}/simple"
    (model / "requirements.txt").write_text(f"--extra-index-url {address}\nsix\n")
    build = ("bento", "build", model, "--to", tmp_path / "b")
    option = ("--allow-source", address.replace("robot:hunter2@", ""))
    for more, told in (((), " ".join(option)), (("--allow-source", "x.invalid"), "allowed source")):
        done = kfp_bento(*build, *more)
        warning, *refusal = done.stderr.splitlines(keepends=True)
        assert "hold an account or a token for a package index" in warning
        assert "hunter2" not in done.stdout + done.stderr
        done.stderr = "".join(refusal)
        assert_refused(done, told)
    assert names(tmp_path) == ["model"]


def test_a_model_of_an_old_python_is_told_a_way_out_that_leads_out(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors:\n  python_function: {loader_module: x}\n")
    (model / "conda.yaml").write_text("dependencies: [python=3.8.5, openjdk=11, pip]\n")
    build = ("bento", "build", model, "--to", tmp_path / "b")
    assert_refused(kfp_bento_here(*build), "--python-version 3.11")
    done = kfp_bento_here(*build, "--python-version", "3.11")
    assert_refused(done, "openjdk=11")  # the next thing
    assert "--requirement 'openjdk==…'" in " ".join(done.stderr.split())
    assert names(tmp_path) == ["model"]


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(
        kfp_bento_here("bento", "build", tmp_path / "empty", "--to", tmp_path / "b"), "MLmodel"
    )
    assert names(tmp_path) == ["empty"]


def test_a_directory_that_is_no_bento(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = kfp_bento_here("image", "build", tmp_path / "empty", "--to", f"oci:{tmp_path / 'i'}")
    assert_refused(done, "bento.yaml")
    assert names(tmp_path) == ["empty"]


@pytest.fixture(scope="session")
def wine_bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bento that becomes an image in seconds: the base is all that there is much of."""
    directory = write_bento(tmp_path_factory.mktemp("cli") / "bento")
    with (directory / "bento.yaml").open("a") as facts:
        facts.write(
            f"docker: {{python_version: '{sys.version_info.major}.{sys.version_info.minor}'}}\n"
        )
    wheel = directory / "src/wheels/bentoml-1.4.39-py3-none-any.whl"
    for file in (wheel, directory / "env/docker/entrypoint.sh"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    lock = directory / "env/python/requirements.txt"
    lock.parent.mkdir()
    lock.write_text(f"./wheels/{wheel.name} --hash=sha256:{write_wheel(wheel)}\n")
    return directory


def write_wheel(file: Path) -> str:
    """A wheel with nothing in it but its name; gives its SHA-256."""
    info = "bentoml-1.4.39.dist-info"
    texts = {
        "METADATA": "Metadata-Version: 2.1\nName: bentoml\nVersion: 1.4.39\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "".join(f"{info}/{name},,\n" for name in ("METADATA", "WHEEL", "RECORD")),
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in texts.items():
            archive.writestr(f"{info}/{name}", text)
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def layer_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="session")
def read_only_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    directory = tmp_path_factory.mktemp("read-only")
    with oci_registry_in(directory, binary, read_only=True) as address:
        yield address


def test_a_registry_that_refuses_the_push(
    wine_bento: Path, read_only_registry: str, layer_cache: Path
) -> None:
    done = kfp_bento_here(
        *("image", "build", wine_bento, "--to", f"{read_only_registry}/ml/wine"),
        *("--base", "host", "--cache", layer_cache),
    )
    assert_refused(done, read_only_registry)


def test_a_registry_that_is_down(wine_bento: Path, layer_cache: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = kfp_bento(
        *("image", "build", wine_bento, "--to", f"{address}/ml/wine"),
        *("--base", "host", "--cache", layer_cache),
    )
    assert_refused(done, address)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes of disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount, to make a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full(wine_bento: Path, layer_cache: Path, small_disk: Path) -> None:
    done = kfp_bento(
        *("image", "build", wine_bento, "--to", f"oci:{small_disk / 'image'}"),
        *("--base", "host", "--cache", layer_cache),
    )
    assert_refused(done, "The disk is full")
    assert names(small_disk) == []


def test_an_interrupt(wine_bento: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "image", "build", wine_bento, "--to", f"oci:{tmp_path / 'i'}", "--base", "host"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not names(tmp_path):  # it has begun to write
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 2
    assert told.startswith("Error: Stopped")
    assert "Traceback" not in told
    assert names(tmp_path) == []


def test_an_image_without_a_digest(wine_bento: Path, tmp_path: Path) -> None:
    done = kfp_bento_here(
        "deploy", "render", "ml/wine:1", "--bento", wine_bento, "--to", tmp_path / "manifests"
    )
    assert_refused(done, "digest")
    assert names(tmp_path) == []


def test_options_that_are_not_json(wine_bento: Path, tmp_path: Path) -> None:
    reference = f"ml/wine@sha256:{'0' * 64}"
    done = kfp_bento_here(
        "deploy", "render", reference, "--bento", wine_bento, "--resources", "{cpu: 1"
    )
    assert_refused(done, "--resources")


def test_a_machine_gets_its_error_as_json(tmp_path: Path) -> None:
    done = kfp_bento("model", "pull", tmp_path / "none", "--to", tmp_path / "m", "--json")
    assert done.returncode == 2
    told = json.loads(done.stderr)
    assert set(told) == {"error", "hint", "page"}
    assert told["page"] == ""
    assert done.stdout == ""


def test_a_machine_is_told_the_page_that_says_more(tmp_path: Path) -> None:
    done = kfp_bento_here("bento", "show", tmp_path / "none", "--json")
    assert json.loads(done.stderr)["page"] == "docs/storage.md"


def test_a_step_of_a_local_run_that_fails(
    mlflow_server: str, wine_model: ModelVersion, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        f"model_uris: ['models:/wine@elsewhere']\ntracking_uri: {mlflow_server}\n"
        f"promote_alias: prod\nimage_destination: 'oci:{tmp_path / 'image'}'\n"
    )
    done = kfp_bento_here(
        *("run", "serve_model", "--to", tmp_path / "run", "--param-file", values),
        *("-p", 'model_uris=["models:/wine@nowhere"]'),
    )
    assert done.returncode == 2
    assert "Step resolve-models failed" in done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == ["run", "values.yaml"]


def test_a_parameter_that_is_missing() -> None:
    assert_refused(kfp_bento_here("run", "serve_model"), "needs a value for model_uris")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "demo",
        "run",
        "compile",
        "model pull",
        "bento build",
        "image build",
        "deploy render",
        "deploy diff",
        "deploy apply",
        "deploy options",
        "release list",
        "release status",
        "release wait",
        "release roll-back",
        "release delete",
        "rbac",
    ],
)
def test_help_is_there(command: str) -> None:
    done = kfp_bento_here(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert command in ("", "--json") or "--json" in done.stdout
