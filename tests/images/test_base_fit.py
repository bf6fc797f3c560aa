"""A base that could not start what is put onto it is refused; what it has is found where it is."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from elf_files import program
from handmade import MINOR, read_json, read_manifest, write_bento
from moving import base_of_layers, make_base
from registries import registry
from small_wheels import make_wheel

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image, pack_image, rebase_image
from kfp_bento.runtime.images.assembly.context import RegistryRecords
from kfp_bento.runtime.images.oci.image import parse_platform
from kfp_bento.runtime.images.python.installer import MACHINES

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

GLIBC_LOADER = "/lib64/ld-linux-x86-64.so.2"
MUSL_LOADER = "/lib/ld-musl-x86_64.so.1"
PYTHON = f"usr/bin/python{MINOR}"
SHELL = {"usr/bin/env": b"", "usr/bin/bash": b""}
OTHER = "3.8"


def layer(files: dict[str, bytes | str]) -> bytes:
    """A layer of executable files, and of links where a text is given."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return plain.getvalue()


def base_of(folder: Path, *layers: dict[str, Any], **config: Any) -> str:
    return base_of_layers(folder, [layer(files) for files in layers], **config)


GOOD = {**SHELL, PYTHON: program(GLIBC_LOADER), GLIBC_LOADER[1:]: b""}


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([SHELL], f"no python{MINOR} on its path"),
        ([{**SHELL, f"usr/bin/python{OTHER}": b""}], f"there is /usr/bin/python{OTHER}"),
        ([{**SHELL, PYTHON: program(MUSL_LOADER), MUSL_LOADER[1:]: b""}], "is built for musl"),
        ([{**SHELL, PYTHON: program(GLIBC_LOADER)}], f"loader {GLIBC_LOADER}, which is not there"),
        ([{**GOOD, "usr/bin/bash": "nowhere"}], "no bash on its path"),
        ([{PYTHON: b"", "bin/bash": b""}], "no /usr/bin/env"),
        ([GOOD, {f"usr/bin/.wh.python{MINOR}": b""}], f"no python{MINOR} on its path"),
        ([{**SHELL, PYTHON: f"python{MINOR}"}], f"no python{MINOR} on its path"),
    ],
    ids=["no-python", "other", "musl", "no-loader", "no-bash", "no-env", "removed", "circle"],
)
def test_a_base_that_cannot_start_a_bento_is_refused_with_what_would(
    bento: Bento, tmp_path: Path, layers: list[dict[str, Any]], reason: str
) -> None:
    base = base_of(tmp_path / "base", *layers)
    with pytest.raises(ImageError) as caught:
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert reason in caught.value.message
    assert f"python:{MINOR}-slim" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "environment", "place"),
    [
        (GOOD, [f"PYTHON_VERSION={MINOR}.2"], f"/{PYTHON}"),
        (GOOD, [f"PYTHON_VERSION={OTHER}.2"], f"/{PYTHON}"),
        (
            {**SHELL, f"opt/conda/bin/python{MINOR}": b""},
            ["PATH=/opt/conda/bin:/usr/bin:/bin"],
            f"/opt/conda/bin/python{MINOR}",
        ),
        (
            {
                **SHELL,
                f"usr/local/bin/python{MINOR}": f"../../../opt/python/bin/python{MINOR}",
                f"opt/python/bin/python{MINOR}": program(GLIBC_LOADER),
                "lib64": "usr/lib64",
                f"usr{GLIBC_LOADER}": "../lib/ld-linux-x86-64.so.2",
                "usr/lib/ld-linux-x86-64.so.2": b"",
            },
            [],
            f"/usr/local/bin/python{MINOR}",
        ),
    ],
    ids=["variable-set-by-hand", "another-by-hand", "conda", "links"],
)
def test_the_interpreter_is_the_one_that_the_base_has(
    bento: Bento, tmp_path: Path, files: dict[str, Any], environment: list[str], place: str
) -> None:
    base = base_of(tmp_path / "base", files, environment=environment)
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert interpreter_of(tmp_path / "out", image) == place


def test_an_environment_for_steps_needs_no_bash(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", {PYTHON: b""})
    (tmp_path / "lock.txt").write_text("# nothing\n")
    image = pack_image(
        *(tmp_path / "lock.txt", f"oci:{tmp_path}/out", ImageOptions(base=base)),
        **{"name": "tools", "version": "1", "python": MINOR},
    )
    assert image.digest


def test_an_image_is_not_put_onto_a_base_that_cannot_start_it(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=base, tag="v1"))
    bare = make_base(tmp_path / "bare", programs=False)
    with pytest.raises(ImageError, match=f"no python{MINOR} on its path"):
        rebase_image(f"oci:{tmp_path}/image:v1", bare, destination=f"oci:{tmp_path}/other:v1")


def test_what_a_base_runs_is_read_once_for_a_registry(
    bento: Bento, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(tmp_path / "registry") as address:
        build_image(bento, f"{address}/a/tiny", ImageOptions(base=base))
        said: list[str] = []
        build_image(bento, f"{address}/a/tiny:2", ImageOptions(base=base), progress=said.append)
        assert "reading what the base holds" not in said
        # A record that says nothing sensible is as good as none.
        monkeypatch.setattr(RegistryRecords, "find_facts", lambda own, key: {"programs": 1})
        build_image(bento, f"{address}/a/tiny:3", ImageOptions(base=base), progress=said.append)
        assert "reading what the base holds" in said


def with_glibc(release: str) -> dict[str, Any]:
    libc = f"\0GNU C Library (Debian GLIBC {release}-9) stable release version {release}.\n"
    return {**GOOD, "usr/lib/x86_64-linux-gnu/libc.so.6": libc.encode()}


def bento_for_glibc(folder: Path, release: str) -> Bento:
    tag = (
        f"py3-none-manylinux_{release.replace('.', '_')}_{MACHINES[parse_platform().architecture]}"
    )
    line = make_wheel(folder / "src/wheels", "fresh", tag=tag)
    hashed = line.partition(" ")[2]
    return write_bento(folder, f"./wheels/fresh-1.0-{tag}.whl {hashed}\n")


def test_wheels_may_need_the_c_library_that_the_base_has(tmp_path: Path) -> None:
    bento = bento_for_glibc(tmp_path / "bento", "2.34")
    new = base_of(tmp_path / "new", with_glibc("2.36"))
    old = base_of(tmp_path / "old", with_glibc("2.31"))
    with pytest.raises(ImageError, match=r"fresh 1\.0 needs glibc 2\.34, and the base has 2\.31"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=old))
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=new, tag="v1"))
    with pytest.raises(ImageError, match=r"has glibc 2\.31, and what is in .* may need 2\.34"):
        rebase_image(f"oci:{tmp_path}/out:v1", old, destination=f"oci:{tmp_path}/other:v1")


def test_a_base_older_than_most_wheels_gets_no_newer_ones(tmp_path: Path) -> None:
    bento = bento_for_glibc(tmp_path / "bento", "2.28")
    base = base_of(tmp_path / "base", with_glibc("2.27"))
    with pytest.raises(ImageError, match=r"fresh 1\.0 needs glibc 2\.28, and the base has 2\.27"):
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))


def test_most_bases_get_the_same_wheels(bento: Bento, tmp_path: Path) -> None:
    layers = set()
    for release in ("2.28", "2.39"):
        base = base_of(tmp_path / release, with_glibc(release))
        image = build_image(bento, f"oci:{tmp_path}/out{release}", ImageOptions(base=base))
        layers.add(tuple(layer.digest for layer in image.layers[1:]))
    assert len(layers) == 1


def interpreter_of(layout: Path, image: Any) -> str:
    config = read_json(layout, read_manifest(layout)["config"]["digest"])
    found: str = config["config"]["Labels"]["kfp-bento.interpreter"]
    return found
