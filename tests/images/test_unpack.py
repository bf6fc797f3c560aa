"""A bento comes out of its image as it went in, and nothing lands anywhere else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handmade import read_manifest
from moving import base_of_layers, set_image

from kfp_bento.runtime.bentos import is_whole, load_bento
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image, unpack_bento

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

INSIDE = "home/bentoml/bento"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".kfp-bento.json", "__pycache__"} & {*path.parts}
    }


@pytest.mark.parametrize("registry", [False, True])
def test_it_is_the_bento_that_the_image_was_made_of(
    bento: Bento, base: str, oci_registry: str, tmp_path: Path, registry: bool
) -> None:
    where = f"{oci_registry}/unpacked/factor:v1" if registry else f"oci:{tmp_path}/image:v1"
    image = build_image(bento, where, ImageOptions(base=base))
    unpack_bento(image.reference if registry else where, tmp_path / "out")
    assert files(tmp_path / "out") == files(bento.directory)
    found = load_bento(tmp_path / "out")
    assert (found.tag, found.models) == (bento.tag, bento.models)
    assert is_whole(found)
    (tmp_path / "out/env/docker/entrypoint.sh").chmod(0o644)
    assert not is_whole(found)


def spoilt(folder: Path, *members: tarfile.TarInfo) -> str:
    """An image whose layer of source holds these members."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    base = base_of_layers(folder, [plain.getvalue()])
    manifest = read_manifest(folder)
    manifest["layers"][0]["annotations"] = {"kfp-bento.kind": "source"}
    set_image(folder, manifest)
    return base


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    made.size = 1 if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    "members",
    [
        [member(f"{INSIDE}/../../../out")],
        [member(f"{INSIDE}/here", tarfile.SYMTYPE, ".."), member(f"{INSIDE}/here/out")],
        [member(f"{INSIDE}/there", tarfile.SYMTYPE, "/etc")],
        [member(f"{INSIDE}/link", tarfile.LNKTYPE, "../secret")],
        [member(f"{INSIDE}/pipe", tarfile.FIFOTYPE)],
    ],
    ids=["above", "through a link", "absolute link", "hard link", "pipe"],
)
def test_nothing_is_written_or_read_elsewhere(
    members: list[tarfile.TarInfo], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of others")
    image = spoilt(tmp_path / "image", *members)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ImageError, match="cannot be unpacked"):
        unpack_bento(image, tmp_path / "bento")
    assert {path.name for path in tmp_path.iterdir()} - before <= {"bento"}
    assert not (tmp_path / "bento/link").exists()


def test_an_image_of_others_holds_none(base: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no bento of ours"):
        unpack_bento(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_weight_is_seen(bento: Bento, base: str, tmp_path: Path) -> None:
    image = build_image(bento, f"oci:{tmp_path}/image:v1", ImageOptions(base=base))
    digest = next(layer.digest for layer in image.layers if layer.kind == "model")
    blob = tmp_path / "image/blobs/sha256" / digest.removeprefix("sha256:")
    files = (bento.directory / "models").rglob("*")
    weights = max((path.read_bytes() for path in files if path.is_file()), key=len)
    content = blob.read_bytes()
    assert weights and weights in content
    blob.write_bytes(content.replace(weights, b"?" + weights[1:]))
    with pytest.raises(ImageError, match=digest):
        unpack_bento(f"oci:{tmp_path}/image:v1", tmp_path / "out")


def test_a_damaged_layer_is_seen(bento: Bento, base: str, tmp_path: Path) -> None:
    image = build_image(bento, f"oci:{tmp_path}/image:v1", ImageOptions(base=base))
    digest = image.layers[-1].digest.removeprefix("sha256:")
    blob = tmp_path / "image/blobs/sha256" / digest
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(ImageError, match="source of tiny cannot be decompressed"):
        unpack_bento(f"oci:{tmp_path}/image:v1", tmp_path / "out")
