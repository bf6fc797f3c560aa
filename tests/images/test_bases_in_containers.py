"""On every kind of base an image starts and answers, or is refused with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bases import (
    Root,
    bare,
    below_opt,
    debian,
    for_musl,
    like_red_hat,
    without_python,
    without_shell,
)
from containers import serving
from handmade import MINOR, SERVICE, real_lock, write, write_bento
from test_running_images import ask

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import Image, ImageOptions, build_image, copy_image

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

DOCUMENTED = Path(__file__).parents[2] / "docs/images.md"


@dataclass(frozen=True)
class Row:
    """A line of the table in docs/images.md.

    Attributes:
        base: What kind of base.
        outcome: What it says there.
        refused: A part of the error; empty where the image is built and started.
        packages: How many Debian packages are added.
    """

    base: str
    outcome: str
    refused: str = ""
    packages: int = 0


ROWS = {
    "bare": Row(
        "Debian 12 with `python3`",
        "starts; libgomp1 and libstdc++6 are added",
        packages=2,
    ),
    "debian": Row("the same with `libgomp1` and `libstdc++6`", "starts; nothing is added"),
    "opt": Row(
        "Debian 12 with Python below `/opt/conda` alone, as Miniconda's",
        "starts; both are added",
        packages=2,
    ),
    "red-hat": Row(
        "libraries in `/usr/lib64` and no dpkg, as UBI with `libgomp`", "starts; nothing is added"
    ),
    "red-hat-bare": Row(
        "the same without `libgomp`",
        "refused: lacks libgomp.so.1, which lightgbm needs",
        "libgomp.so.1, which lightgbm",
    ),
    "host": Row("`host`, copied into a layout", "starts; nothing is added"),
    "bullseye": Row(
        "Debian 11 with `python3`",
        "refused: no python3.11 on its path; there is /usr/bin/python3.9",
        "there is /usr/bin/python3.9",
    ),
    "trixie": Row(
        "Debian 13 with `python3`",
        "refused: no python3.11 on its path; there is /usr/bin/python3.13",
        "there is /usr/bin/python3.13",
    ),
    "no-python": Row(
        "Debian 12 without Python",
        "refused: no python3.11 on its path and no other Python",
        "and no other Python",
    ),
    "no-shell": Row(
        "Python without a shell, as distroless",
        "refused: no /usr/bin/env, no bash on its path",
        "no bash on its path",
    ),
    "musl": Row(
        "musl in place of glibc, as Alpine",
        "refused: Python is built for musl, and wheels of linux are for glibc",
        "is built for musl",
    ),
}


def test_the_documentation_shows_the_table() -> None:
    lines = DOCUMENTED.read_text().splitlines()
    assert [line for line in lines if line.startswith("| ") and "|" in line][-len(ROWS) :] == [
        f"| {row.base} | {row.outcome} |" for row in ROWS.values()
    ]


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Bento:
    """A service that imports LightGBM, which leaves libgomp to the system."""
    folder = tmp_path_factory.mktemp("bento")
    locked = real_lock(folder, f"lightgbm=={version('lightgbm')}")
    write_bento(folder / "bento", locked)
    write(folder / "bento/src/service.py", f"import lightgbm\n{SERVICE}")
    return load_bento(folder / "bento")


@pytest.fixture(scope="module")
def bookworm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if MINOR != "3.11":
        pytest.skip("Debian 12 has Python 3.11")
    packages = ("python3-minimal", "libpython3-stdlib", "libgomp1", "libstdc++6")
    return debian(tmp_path_factory.mktemp("bookworm"), "bookworm", *packages)


def base_of_kind(kind: str, bookworm: Path, folder: Path) -> str:
    if kind == "host":
        copy_image("host", f"oci:{folder}/host:v1")
        return f"oci:{folder}/host:v1"
    if kind in {"bullseye", "trixie"}:
        packages = ("python3-minimal", "libpython3-stdlib")
        return Root(debian(folder, kind, *packages)).write(folder / "base")
    root = Root(bookworm)
    changed = {
        "debian": lambda: root,
        "bare": lambda: bare(root),
        "opt": lambda: below_opt(root),
        "no-python": lambda: without_python(root),
        "no-shell": lambda: without_shell(root),
        "musl": lambda: for_musl(root),
        "red-hat": lambda: like_red_hat(root, folder, libraries=True),
        "red-hat-bare": lambda: like_red_hat(root, folder, libraries=False),
    }[kind]()
    return changed.write(folder / "base")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind, row in ROWS.items() if row.refused])
def test_a_base_that_cannot_start_the_service_is_refused_with_the_reason(
    kind: str, bento: Bento, bookworm: Path, tmp_path: Path
) -> None:
    base = base_of_kind(kind, bookworm, tmp_path)
    with pytest.raises(ImageError) as caught:
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert ROWS[kind].refused in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind, row in ROWS.items() if not row.refused])
def test_a_service_with_lightgbm_starts_and_answers(
    kind: str,
    bento: Bento,
    bookworm: Path,
    tmp_path: Path,
    shared_cache: Path,
    podman: list[str],
) -> None:
    base = base_of_kind(kind, bookworm, tmp_path)
    options = ImageOptions(base=base, cache=shared_cache)
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    assert added(image) == ROWS[kind].packages
    with serving(podman, f"oci:{tmp_path}/out:v1") as url:
        assert ask(url) == 42


def added(image: Image) -> int:
    titles = [layer.title for layer in image.layers if layer.kind == "system"]
    return int(titles[0].partition("(")[2].split()[0]) if titles else 0
