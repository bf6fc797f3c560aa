"""The whole road on this machine, as `make demo` runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from containers import YATAI_COMMAND, serving, status

from kfp_bento.runtime.deployments.targets.yatai.portable_subset import manifest_problems
from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local.engines import usable_engine

pytestmark = pytest.mark.timeout(1200)


def run_demo(directory: Path, **variables: str) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    cleared = ("PYTHONDONTWRITEBYTECODE", "KFP_BENTO_BASE_IMAGE", "MLFLOW_TRACKING_URI")
    inherited = {k: v for k, v in os.environ.items() if k not in cleared}
    done = subprocess.run(
        [sys.executable, "-m", "kfp_bento.runtime.cli", "demo", "--json", "--to", "build/demo"],
        cwd=directory,
        env=inherited | {"KFP_BENTO_BASE_IMAGE": "host"} | variables,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary == json.loads((directory / "build/demo/summary.json").read_text())
    return summary


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Where the demo runs; what it makes for the image is there for other roads, too."""
    place = tmp_path_factory.mktemp("demo")
    shared_cache.mkdir(exist_ok=True)
    (place / "build").mkdir()
    (place / "build/cache").symlink_to(shared_cache)
    return place


@pytest.fixture(scope="module")
def summary(place: Path) -> dict[str, Any]:
    return run_demo(place, KFP_BENTO_LOCAL_RUNTIME="process")


def can_run_containers() -> bool:
    """Whether an engine is usable here, so that what is served can be kept from the network."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with usable_engine(Path(place) / "storage"):
                return True
        except LocalRunError:
            return False


@pytest.fixture(scope="module")
def elsewhere(summary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a second demo, in another directory, with another zone, mask and seed.

    Where containers run, the model is kept from the network: that is seen by nobody outside.
    """
    old = os.umask(0o077)
    try:
        return run_demo(
            tmp_path_factory.mktemp("another") / "A longer Name with spaces",
            **{"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7", "LC_ALL": "C"},
            # Somebody who works with a server of their own; the demo has nothing to do with it.
            **{"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_RUN_ID": "0" * 32},
            **({"KFP_BENTO_LOCAL_NETWORK": "none"} if can_run_containers() else {}),
        )
    finally:
        os.umask(old)


def processes_of(directory: Path) -> list[str]:
    """Commands of the processes that work in a directory or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(directory) in f"{(process / 'cwd').readlink()} {command}":
                found.append(command)
    return found


def test_what_is_served_is_what_the_registry_predicts(summary: dict[str, Any]) -> None:
    prediction = summary["prediction"]
    assert len(prediction["served"]) == 5
    assert prediction["served"] == prediction["expected"]
    assert [check["passed"] for check in summary["checks"]] == [True, True]
    smoke = summary["checks"][0]
    assert (smoke["name"], smoke["model_digests"]) == (
        "smoke_test",
        [summary["models"][0]["digest"]],
    )


def test_every_step_of_the_road_ran(summary: dict[str, Any]) -> None:
    assert {*summary["seconds"]} - {"total"} == {
        *("tracking-server", "train-wine-model", "resolve-models", "pull-model", "scan-model"),
        *("build-bento", "build-image", "deploy-bento", "check-release", "promote-model"),
        "settle-run",
    }


def test_the_scan_finds_nothing_in_a_plain_model(summary: dict[str, Any]) -> None:
    report = summary["scan"]
    assert (report["passed"], report["evidence"]) == (True, [])
    assert report["model_digests"] == summary["checks"][0]["model_digests"]


def test_the_alias_moved_to_the_version_that_was_trained(summary: dict[str, Any]) -> None:
    assert summary["promoted"]["alias"] == "champion"
    assert summary["models"][0]["uri"] == "models:/wine/1"
    (promoted,) = summary["promoted"]["models"]
    assert promoted["version"] == "1"
    assert promoted["history_tag"] == "kfp-bento.promoted.champion.1"


def test_the_summary_tells_every_stop(summary: dict[str, Any]) -> None:
    assert summary["models"][0]["digest"].startswith("sha256:")
    assert summary["bento"]["tag"].startswith("wine:")
    assert summary["image"]["reference"].endswith(summary["image"]["digest"])
    kinds = [layer["kind"] for layer in summary["image"]["layers"]]
    assert list(dict.fromkeys(kinds)) == ["base", "dependencies", "model", "source"]
    assert 20 < kinds.count("dependencies") < 60
    assert summary["release"]["target"] == "bento-deployment"
    assert summary["release"]["url"].startswith("http://127.0.0.1:")
    assert summary["seconds"]["total"] > summary["seconds"]["build-image"] > 0


def test_nothing_is_left_running(summary: dict[str, Any], place: Path) -> None:
    assert processes_of(place) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(summary["release"]["url"], timeout=5)


@pytest.mark.slow
def test_nothing_is_left_running_elsewhere(elsewhere: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(elsewhere["release"]["url"], timeout=5)


def test_a_process_would_be_seen(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as process:
        assert len(processes_of(tmp_path)) == 1
        process.kill()


@pytest.mark.slow
def test_an_interrupt_ends_everything_and_a_second_one_does_no_harm(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "kfp_bento.runtime.cli", "demo", "--to", tmp_path / "demo"],
        env=os.environ | {"KFP_BENTO_BASE_IMAGE": "host"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = []
    assert demo.stderr is not None
    for line in demo.stderr:  # a line for each step that ended; then the next one is under way
        told.append(line)
        if line.startswith("  ok     train-wine-model"):
            demo.send_signal(signal.SIGINT)
            time.sleep(0.3)
            demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=300) == 2, told
    assert told[-2:] == ["Error: Stopped before the end.\n", "Hint:  Nothing is left running.\n"]
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "demo" / "summary.json").exists()
    assert not (tmp_path / "demo" / "image").exists()


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(summary: dict[str, Any], elsewhere: dict[str, Any]) -> None:
    for run in (summary, elsewhere):
        assert run["prediction"]["served"] == run["prediction"]["expected"]
    assert elsewhere["bento"]["tag"] == summary["bento"]["tag"]
    digests = [
        [layer["digest"] for layer in run["image"]["layers"]] for run in (summary, elsewhere)
    ]
    assert digests[0] == digests[1]
    assert elsewhere["image"]["digest"] == summary["image"]["digest"]
    assert elsewhere["models"][0]["run_id"] != summary["models"][0]["run_id"]


def test_the_manifests_are_those_of_the_image(summary: dict[str, Any], place: Path) -> None:
    files = sorted((place / "build/demo/manifests").glob("*.yaml"))
    manifests = [yaml.safe_load(file.read_text()) for file in files]
    assert [manifest["kind"] for manifest in manifests] == ["Bento", "BentoDeployment"]
    assert manifest_problems(manifests) == []
    assert manifests[0]["spec"]["image"] == summary["image"]["reference"]


@pytest.mark.slow
def test_the_image_is_what_serves_where_podman_is_usable(
    elsewhere: dict[str, Any], podman: list[str]
) -> None:
    assert elsewhere["release"]["runtime"] == "podman", elsewhere["release"]["runtime_note"]


def test_what_a_run_needs_itself_is_for_nobody_else_to_read(
    summary: dict[str, Any], place: Path
) -> None:
    demo = place / "build/demo"
    private = [demo / "mlflow", demo / "service", demo / "run" / "steps", demo / "run" / "tmp"]
    private += [demo / "run" / "pipeline.log", demo / "run" / "request.json"]
    assert [path.name for path in private if path.stat().st_mode & 0o077] == []


def test_no_path_of_this_machine_is_in_what_is_handed_on(
    summary: dict[str, Any], place: Path
) -> None:
    demo = place / "build/demo"
    for file in (demo / "summary.json", demo / "report.html", *(demo / "manifests").iterdir()):
        assert str(place) not in file.read_text(), file.name


@pytest.mark.slow  # a smaller image does so among the tests of images
@pytest.mark.parametrize(
    "start", [[], ["--entrypoint", json.dumps(YATAI_COMMAND)]], ids=["entrypoint", "yatai"]
)
def test_the_image_serves_with_a_read_only_root(
    start: list[str], summary: dict[str, Any], place: Path, podman: list[str]
) -> None:
    request = summary["checks"][0]["evidence"][0]["request"]
    (tag,) = summary["image"]["tags"]
    with serving(podman, *start, f"oci:{place}/build/demo/image:{tag}") as url:
        assert status(f"{url}/livez") == 200
        body = urllib.request.Request(
            f"{url}/predict",
            data=json.dumps(request).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(body, timeout=30) as answer:
            assert json.loads(answer.read()) == summary["prediction"]["expected"]
