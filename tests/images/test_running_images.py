"""The image really runs: under podman and runc, with a read-only root, as an ordinary user."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import YATAI_COMMAND, run, serving, status
from handmade import real_lock, write_base, write_bento
from kfp_bento_command import kfp_bento_here

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.images import Image, ImageOptions, build_image
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
