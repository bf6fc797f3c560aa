"""The image really runs: under podman and runc, with a read-only root, as an ordinary user."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import YATAI_COMMAND, run, serving, status
from handmade import real_lock, write_base, write_bento
from kfp_bento_command import assert_refused, kfp_bento_here

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.images import Image, ImageOptions, build_image, own_platform
from kfp_bento.runtime.local import try_image

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> tuple[Image, Bento]:
    """The image of a small service with the real BentoML, on the host base."""
    folder = tmp_path_factory.mktemp("image")
    bento = write_bento(folder / "bento", real_lock(folder))
    options = ImageOptions(base="host", cache=shared_cache)
    return build_image(bento, f"oci:{folder}/out", options), bento


@pytest.fixture(scope="module")
def image(built: tuple[Image, Bento]) -> str:
    return f"{built[0].location}:v1"


def ask(url: str) -> int:
    request = urllib.request.Request(
        f"{url}/multiply",
        data=json.dumps({"number": 21}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(answer.read())


def test_it_serves_from_its_entrypoint_with_a_read_only_root(podman: list[str], image: str) -> None:
    with serving(podman, image) as url:
        assert status(f"{url}/livez") == 200
        assert status(f"{url}/metrics") == 200
        assert ask(url) == 42


def test_it_serves_under_the_start_command_of_yatai(podman: list[str], image: str) -> None:
    with serving(podman, "--entrypoint", json.dumps(YATAI_COMMAND), image) as url:
        assert status(f"{url}/livez") == 200
        assert ask(url) == 42


def test_it_serves_as_a_user_that_nobody_knows(podman: list[str], image: str) -> None:
    with serving(podman, "--user", "1000680000:0", image) as url:
        assert ask(url) == 42


def test_it_starts_from_bytecode_and_only_from_its_own_files(podman: list[str], image: str) -> None:
    probe = (
        "import bentoml, sys; "
        "print(all(p.startswith(('/app/.venv/', '/usr/local/')) for p in sys.path if p), "
        "bentoml.__cached__.endswith('.pyc'), sys.prefix, sys.base_prefix)"
    )
    done = run(podman, "--rm", image, "python", "-c", probe)
    assert done.stdout.split() == ["True", "True", "/app/.venv", "/usr/local"], done.stderr


def test_without_an_engine_a_build_says_why_its_image_was_not_started(tmp_path: Path) -> None:
    bento, base = write_bento(tmp_path / "bento"), write_base(tmp_path / "base")
    command = ("image", "build", bento.directory, "--base", base, "--try")
    done = kfp_bento_here(
        *command, "--to", f"oci:{tmp_path}/out", KFP_BENTO_LOCAL_RUNTIME="process"
    )
    assert done.returncode == 0, done.stderr
    assert "not started: KFP_BENTO_LOCAL_RUNTIME is process" in " ".join(done.stdout.split())
    image = build_image(bento, f"docker-archive:{tmp_path}/image.tar", ImageOptions(base=base))
    assert "loaded first" in try_image(image, bento).why_not


ENGINE = """#!/bin/sh
case "$*" in *" pull "*) echo "it is denied" >&2; exit 125;; esac
"""


@pytest.mark.parametrize("to", ["oci", "registry"])
def test_an_image_that_the_engine_does_not_take_is_no_success(
    bento: Bento, base: str, tmp_path: Path, oci_registry: str, to: str
) -> None:
    podman = tmp_path / "bin/podman"
    podman.parent.mkdir()
    podman.write_text(ENGINE)
    podman.chmod(0o755)
    place = f"oci:{tmp_path}/out" if to == "oci" else f"{oci_registry}/denied/tiny"
    done = kfp_bento_here(
        *("image", "build", bento.directory, "--base", base, "--try", "--to", place),
        PATH=f"{podman.parent}:{os.environ['PATH']}",
        KFP_BENTO_LOCAL_RUNTIME="podman",
    )
    assert_refused(done, "podman does not take it")
    assert "it is denied" in done.stderr
    assert "without --try" in " ".join(done.stderr.split())


def test_an_image_for_another_processor_is_not_started(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    other = next(one for one in ("linux/amd64", "linux/arm64") if one != own_platform())
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base, platform=other))
    why = try_image(image, bento).why_not
    assert why == f"the image is for {other}, and this machine is {own_platform()}"


def test_a_plan_cannot_be_tried(bento: Bento, base: str, tmp_path: Path) -> None:
    command = ("image", "build", bento.directory, "--base", base, "--to", f"oci:{tmp_path}/out")
    assert_refused(kfp_bento_here(*command, "--dry-run", "--try"), "no image that --try could")


@pytest.mark.slow
def test_an_image_is_started_once_where_it_was_built(
    podman: list[str], built: tuple[Image, Bento], tmp_path: Path
) -> None:
    trial = try_image(*built)
    assert (trial.engine, trial.why_not) == ("podman", "")
    assert trial.seconds > 0
    bento, base = write_bento(tmp_path / "bento"), write_base(tmp_path / "base")
    empty = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    with pytest.raises(LocalRunError, match=r"was built as \S+, and does not start"):
        try_image(empty, bento)
