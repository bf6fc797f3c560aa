"""OCI layouts made to do harm: refused with the reason, and left alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from by_chance import MUTATIONS, garbled, mutated, outcome
from handmade import (
    write,
    write_base,
)
from spoilt_base import Base

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import Descriptor
from kfp_bento.runtime.images.places.layout import LayoutSource

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "no JSON object"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (5 << 20), "larger than"),
        (b'{"manifests": 7}', "lists no manifests"),
        (b'{"manifests": [7]}', "where a descriptor must be"),
        (b'{"manifests": []}', "no image"),
        (b'{"manifests": [{"digest": "sha256:../../x", "size": 1}]}', "no SHA-256 digest"),
        (b'{"manifests": [], "manifests": []}', "a key twice"),
    ],
)
def test_an_index_json_that_is_none_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    write_base(tmp_path / "base")
    (tmp_path / "base/index.json").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        LayoutSource(tmp_path / "base").find()


def test_annotations_of_wrong_types_are_no_name(tmp_path: Path) -> None:
    base = tmp_path / "base"
    entries = [{"annotations": annotations} for annotations in (None, 7, ["x"], "x", {})]
    write(base / "index.json", json.dumps({"manifests": [*entries, None]}))
    with pytest.raises(ImageError, match="no image tagged 'v1'"):
        LayoutSource(base).find("v1")


def test_a_pipe_in_place_of_an_index_keeps_nobody_waiting(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    (tmp_path / "base/index.json").unlink()
    os.mkfifo(tmp_path / "base/index.json")
    with pytest.raises(ImageError, match="no regular file"):
        LayoutSource(tmp_path / "base").find()


@pytest.mark.parametrize("what", ["passwd", "zero", "pipe", "bytes", "longer"])
def test_a_blob_that_is_something_else_is_refused_and_nothing_is_left(
    tmp_path: Path, bento: Bento, what: str
) -> None:
    base = Base()
    name = base.write(tmp_path / "base")
    blob = tmp_path / "base/blobs/sha256" / hashlib.sha256(base.layer).hexdigest()
    blob.unlink()
    if what == "pipe":
        os.mkfifo(blob)
    elif what in {"bytes", "longer"}:
        blob.write_bytes(base.layer[:-1] + (b"?" if what == "bytes" else b"??"))
    else:
        blob.symlink_to({"passwd": "/etc/passwd", "zero": "/dev/zero"}[what])
    refused = r"bytes that are not|is no file|cannot be decompressed"
    with pytest.raises(ImageError, match=refused) as caught:
        build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=name))
    assert "root:" not in str(caught.value)
    assert not [x for x in tmp_path.iterdir() if x.name.startswith("out")]


def test_a_blob_replaced_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    content = bytes(3 << 20)
    blobs = BlobDirectory(tmp_path)
    blob = blobs.put_bytes(content, "x")
    chunks = blobs.open_blob(blob)
    next(chunks)
    with blobs.path(blob.digest).open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"evil")
    with pytest.raises(ImageError, match="bytes that are not"):
        list(chunks)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "../x", "sha256:", "sha512:00"])
def test_a_digest_is_never_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ImageError, match="no SHA-256 digest"):
        list(BlobDirectory(tmp_path).open_blob(Descriptor("x", digest, 1)))


def test_a_symlink_among_our_blobs_is_not_linked_into_an_image(tmp_path: Path) -> None:
    ours, other = BlobDirectory(tmp_path / "ours"), BlobDirectory(tmp_path / "other")
    blob = ours.put_bytes(b"content", "x")
    outside = write(tmp_path / "outside", b"content")
    ours.path(blob.digest).unlink()
    ours.path(blob.digest).symlink_to(outside)
    other.put_blob(blob, ours)
    assert not other.path(blob.digest).is_symlink()


def test_a_destination_with_a_strange_index_is_left_alone(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    for number, index in enumerate([b"[]", b'{"annotations": 7}', b'{"annotations": ["kfp"]}']):
        write(tmp_path / f"out{number}/index.json", index)
        with pytest.raises(ImageError, match="did not write"):
            build_image(bento, f"oci:{tmp_path}/out{number}", ImageOptions(base=base))
        assert (tmp_path / f"out{number}/index.json").read_bytes() == index


def test_a_layout_index_changed_by_chance_is_taken_or_refused(tmp_path: Path) -> None:
    chance = random.Random(1)
    write_base(tmp_path / "base")
    index = tmp_path / "base/index.json"
    good = index.read_bytes()
    outcomes = []
    for number in range(MUTATIONS):
        document = mutated(json.loads(good), chance)
        changed = garbled(good, chance) if number % 2 else json.dumps(document).encode()
        index.write_bytes(changed)
        tag = "v1" if number % 3 else ""
        outcomes.append(outcome(partial(LayoutSource(tmp_path / "base").find, tag)))
    assert {"refused", "taken"} == set(outcomes)
