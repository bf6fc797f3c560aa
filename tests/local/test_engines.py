"""Container engines: the first that works is taken, and nothing of it stays mounted."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_releases import write_small_bento
from small_wheels import bentoml_line

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import ImageError, LocalRunError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.oci.reference import parse_layout
from kfp_bento.runtime.local.engines import RUNTIME_VARIABLE, Engine, usable_engine
from kfp_bento.runtime.local.layouts import read_layout


def mounts_below(folder: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def test_an_engine_that_is_not_wanted_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, "process")
    with pytest.raises(LocalRunError, match="process"), usable_engine(tmp_path / "storage"):
        pass
    assert not (tmp_path / "storage").exists()


def test_where_nothing_is_installed_each_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = "podman is not installed; docker is not installed"
    with pytest.raises(LocalRunError, match=told), usable_engine(tmp_path / "storage"):
        pass


def test_nothing_stays_mounted(tmp_path: Path, podman: list[str]) -> None:
    storage = tmp_path / "storage"
    with usable_engine(storage) as engine:
        assert engine.name == "podman"
    assert mounts_below(storage) == []


def test_storage_that_was_moved_is_made_anew(tmp_path: Path, podman: list[str]) -> None:
    with usable_engine(tmp_path / "before") as engine:
        engine.call("images")
    (tmp_path / "before").rename(tmp_path / "after")
    with usable_engine(tmp_path / "after") as engine:
        assert engine.call("images", "--quiet") == ""
    assert mounts_below(tmp_path) == []


def test_an_engine_that_fails_leaves_nothing_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, podman: list[str]
) -> None:
    monkeypatch.setattr(
        "kfp_bento.runtime.local.engines.PODMAN_WITHOUT_SYSTEMD", ("--runtime", "no-such-runtime")
    )
    with contextlib.suppress(LocalRunError), usable_engine(tmp_path / "storage"):
        pass
    assert mounts_below(tmp_path) == []


WAITS = "#!/bin/sh\nexec python3 -c 'import time; time.sleep(600)'\n"
REACH = """
import socket, sys
for address in sys.argv[2:]:
    try:
        with socket.create_connection((address, int(sys.argv[1])), timeout=3) as connection:
            connection.sendall(b"secret")
            print("reached", address)
    except OSError as error:
        print("not", address)
"""


def test_what_is_kept_from_the_network_reaches_nothing_of_this_machine(
    shared_cache: Path, podman: list[str], tmp_path: Path
) -> None:
    bento = write_small_bento(tmp_path / "bento", tmp_path / "said", entrypoint=WAITS)
    (bento / "env/python/requirements.txt").write_text(bentoml_line(bento))
    built = build_image(
        load_bento(bento), f"oci:{tmp_path}/image", ImageOptions(base="host", cache=shared_cache)
    )
    with (
        usable_engine(tmp_path / "storage") as engine,
        socket.create_server(("0.0.0.0", 0)) as listener,
    ):
        listener.settimeout(0.2)
        (tag,) = built.tags
        image = engine.load(read_layout(parse_layout(f"oci:{tmp_path}/image:{tag}")))
        asked = ("-c", REACH, str(listener.getsockname()[1]), "127.0.0.1", own_address())
        outside = subprocess.run([sys.executable, *asked], capture_output=True, text=True)
        name = f"reach-{os.getpid()}"
        argv = engine.run_arguments(image, name, {"PORT": "3000"}, network="none")
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            try:
                while (inside := engine.ask(name, "python3", *asked)) is None:
                    time.sleep(0.1)
            finally:
                engine.remove(name)
    assert {line.split()[0] for line in outside.stdout.splitlines()} == {"reached"}
    assert {line.split()[0] for line in inside.splitlines()} == {"not"}


def own_address() -> str:
    """An address of this machine on a network, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


ENGINE = """#!/bin/sh
echo "$*" >> {told}.argv
env > {told}.$1
[ "$1" = image ] && echo '{{"kfp-bento.bento": "wine:v1"}}'
exit 0
"""
SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "mlflow-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "KFP_BENTO_LOCAL_TARGET": "unix:/somewhere",
    "HTTPS_PROXY": "http://user:proxy-secret@proxy:1",
    "REGISTRY_AUTH_FILE": "/home/us/auth.json",
}


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Engine, Path]:
    """An engine that notes what it is given, and where."""
    program = tmp_path / "engine"
    program.write_text(ENGINE.format(told=tmp_path / "told"))
    program.chmod(0o755)
    return Engine("podman", (str(program),), tmp_path), tmp_path / "told"


def test_an_engine_gets_logins_and_proxies_to_pull_with_and_nothing_else(
    recording: tuple[Engine, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, told = recording
    for name, value in {**SECRETS, "DOCKER_HOST": "unix:///run/docker.sock"}.items():
        monkeypatch.setenv(name, value)
    engine.pull("registry.example.com/wine@sha256:" + "a1" * 32, "wine:v1")
    engine.call("run")
    pulling = told.with_name("told.pull").read_text()
    running = told.with_name("told.run").read_text()
    assert "auth.json" in pulling
    assert "proxy-secret" in pulling
    assert "DOCKER_HOST=" in running
    for text in (running, pulling):
        assert "mlflow-secret" not in text
        assert "aws-secret" not in text
        assert "unix:/somewhere" not in text
    assert "auth.json" not in running
    assert "proxy-secret" not in running


def test_an_image_in_a_registry_that_was_made_of_another_bento_is_refused(
    recording: tuple[Engine, Path],
) -> None:
    engine, _ = recording
    with pytest.raises(ImageError, match="was not made of the bento fraud:v2"):
        engine.pull("registry.example.com/wine@sha256:" + "a1" * 32, "fraud:v2")


def test_a_call_can_be_cancelled(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(LocalRunError, match="was stopped"):
        Engine("podman", ("sleep",), tmp_path, stopped).call("60")
