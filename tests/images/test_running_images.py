"""The image really runs: under podman and runc, with a read-only root, as an ordinary user."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from containers import YATAI_COMMAND, run, serving, status
from handmade import real_lock, write_bento

from kfp_bento.runtime.images import ImageOptions, build_image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> str:
    """The image of a small service with the real BentoML, on the host base."""
    folder = tmp_path_factory.mktemp("image")
    bento = write_bento(folder / "bento", real_lock(folder))
    build_image(bento, f"oci:{folder}/out", ImageOptions(base="host", cache=shared_cache))
    return f"oci:{folder}/out:v1"


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
