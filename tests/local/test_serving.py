"""kfp-bento bento serve: one bento in its own environment, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import COMMAND, assert_refused, kfp_bento, kfp_bento_here
from servers import free_port
from small_releases import ENTRYPOINT, write_small_bento

from kfp_bento.runtime.bentos import export_bento, load_bento
from kfp_bento.runtime.local.descendants import descendants
from kfp_bento.runtime.models import ModelVersion

SECRET = "s3cr3t-T0ken"
SPEAKING = ENTRYPOINT.replace("exec python", "echo 'it says \033[31mhello'; exec python").replace(
    "import http.server", "import beside, http.server"
)
ENVS = "envs: [{name: GREETING, value: hello}, {name: PATH, value: nowhere}]\n"


@pytest.fixture(scope="module", autouse=True)
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep environments and scratch of these tests apart from those of others."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KFP_BENTO_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
    yield
    patch.undo()


@contextlib.contextmanager
def served(*arguments: object, **variables: str) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """Gives what the command printed once the bento answered, and the command."""
    process = subprocess.Popen(
        [*COMMAND, "bento", "serve", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )
    try:
        yield json.loads(document_from(process)), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def document_from(process: subprocess.Popen[str]) -> str:
    """Gives the lines of the document; the command goes on after them."""
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip() == "}":
            return "".join(lines)
    raise AssertionError(process.communicate()[1])


def is_there(process: int) -> bool:
    """Says whether a process runs; one that nobody has asked for its end is none any more."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/livez", timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def test_a_bento_is_served_until_ctrl_c_and_nothing_is_left(tmp_path: Path) -> None:
    marker = tmp_path / "shared" / "marker"
    marker.parent.mkdir()
    bento = write_small_bento(tmp_path / "bento", marker, entrypoint=SPEAKING)
    (bento / "beside.py").write_text("")
    with (bento / "bento.yaml").open("a") as file:
        file.write(ENVS)
    digest = load_bento(bento).digest
    port = free_port()
    given = {"AWS_SECRET_ACCESS_KEY": SECRET, "PASSED_ON": "yes"}
    passing = {"KFP_BENTO_CODE_VARIABLES": "PASSED_ON"}
    with served(bento, "--port", port, **given, **passing) as (said, process):
        assert said["url"] == f"http://127.0.0.1:{port}"
        assert said["tag"] == "wine:v1"
        assert answers(said["url"])
        taken = kfp_bento_here("bento", "serve", bento, "--port", port)
        assert_refused(taken, f"Port {port} of 127.0.0.1 is taken")
        assert f"--port {port + 1}" in taken.stderr
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0
    seen = json.loads(marker.read_text())
    assert (seen["GREETING"], seen["PASSED_ON"]) == ("hello", "yes")
    assert seen["PATH"] != "nowhere"
    assert SECRET not in marker.read_text()
    assert "it says hello" in told
    assert told.endswith("Stopped: nothing of it is left running.\n")
    assert load_bento(bento).digest == digest
    assert not is_there(said["pid"])
    assert not answers(said["url"])
    assert list(Path(os.environ["TMPDIR"]).glob("kfp-bento-serve-*")) == []


def test_a_process_that_left_the_group_and_heeds_no_signal_is_not_left(tmp_path: Path) -> None:
    stubborn = "setsid sh -c 'trap \"\" INT TERM; sleep 600; true' &\nexec python"
    bento = write_small_bento(
        tmp_path / "bento",
        tmp_path / "marker",
        entrypoint=ENTRYPOINT.replace("exec python", stubborn),
    )
    with served(bento, "--port", free_port()) as (said, process):
        below = descendants(said["pid"])
        assert any(os.getsid(one.number) != said["pid"] for one in below)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert below
    assert [one for one in below if is_there(one.number)] == []


def test_an_archive_is_served_from_where_it_is(tmp_path: Path) -> None:
    marker = tmp_path / "shared" / "marker"
    marker.parent.mkdir()
    bento = write_small_bento(tmp_path / "bento", marker)
    archive = f"file://{tmp_path}/wine.tar.gz"
    export_bento(load_bento(bento), archive)
    with served(archive, "--port", free_port(), "--host", "0.0.0.0") as (said, _):
        assert answers(said["url"])
    assert list(Path(os.environ["TMPDIR"]).glob("kfp-bento-*")) == []


def test_a_service_that_ends_by_itself_is_a_failure(tmp_path: Path) -> None:
    bento = write_small_bento(
        tmp_path / "bento", tmp_path / "marker", entrypoint="#!/bin/sh\necho no model; exit 3\n"
    )
    done = kfp_bento("bento", "serve", bento, "--port", free_port())
    assert_refused(done, "ended with exit code 3 before it answered")
    assert "no model" in done.stderr


def test_a_bento_without_hashes_is_told_how_it_gets_them(tmp_path: Path) -> None:
    bento = write_small_bento(tmp_path / "bento", tmp_path / "marker", lock="numpy\n")
    (bento / "env/python/requirements.txt").write_text("numpy==1.26.4\n")
    done = kfp_bento_here("bento", "serve", bento, "--port", free_port())
    assert_refused(done, "has no lock with hashes")
    assert f"kfp-bento bento import {bento} --to" in done.stderr


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    bento = write_small_bento(tmp_path / "bento", tmp_path / "marker")
    done = kfp_bento_here("bento", "serve", bento, "--host", "192.0.2.1")
    assert_refused(done, "192.0.2.1 is no address of this machine")
    assert "--host 127.0.0.1" in done.stderr


@pytest.mark.slow
def test_a_real_bento_answers_with_the_workers_that_were_asked_for(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    directory = tmp_path / "bento"
    done = kfp_bento("bento", "build", wine_model.directory, "--to", directory, "--no-verify")
    assert done.returncode == 0, done.stderr
    with served(directory, "--port", free_port(), "--workers", "2") as (said, process):
        assert answers(said["url"])
        below = [one.number for one in descendants(said["pid"])]
        commands = [Path(f"/proc/{number}/cmdline").read_text() for number in below]
        assert sum("_bentoml_impl.worker.service" in command for command in commands) == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    assert [number for number in (said["pid"], *below) if is_there(number)] == []
