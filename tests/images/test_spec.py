"""The key of an image and its bytes follow from one value, and from all of it."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from typing import Any

import pytest

from kfp_bento.runtime.bentos import BentoModel
from kfp_bento.runtime.images.assembly.recipes import Recipe
from kfp_bento.runtime.images.assembly.spec import ImageSpec
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.debian import DebianPackage
from kfp_bento.runtime.images.oci.blobs import BytesSource
from kfp_bento.runtime.images.oci.config import STEP, ImageConfig, image_manifest
from kfp_bento.runtime.images.oci.image import OCI_LAYER, Layer, Platform
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.python.selection import Wheel


def layer(kind: str, digit: str) -> Layer:
    return Layer(kind, f"sha256:{digit * 64}", f"sha256:{digit * 64}", 1, OCI_LAYER, "built", kind)


BASE = BaseImage(
    title="base",
    digest="sha256:" + "a" * 64,
    config={"config": {"Env": ["A=1"]}},
    layers=(layer("base", "b"),),
    blobs=BytesSource(b""),
    interpreter="/usr/bin/python3.11",
    python="3.11.1",
)
RECIPE = Recipe(
    kind="source",
    title="source",
    inputs={"entries": []},
    codec=codec_named("none"),
    epoch=0,
    size=0,
    prepare=lambda scratch: contextlib.nullcontext(list),
)
CONFIG = ImageConfig(Platform("linux", "amd64"), BASE.interpreter, epoch=0)
SPEC = ImageSpec("tiny", "v1", "localhost/tiny", "base", BASE, CONFIG, (RECIPE,), "zstd")

CONFIG_CHANGES: dict[str, Any] = {
    "platform": Platform("linux", "arm64"),
    "interpreter": "/usr/local/bin/python3.11",
    "epoch": 1,
    "profile": STEP,
    "environment": {"GREETING": "hello"},
    "labels": {"kfp-bento.bento": "tiny:v1"},
    "annotations": {"org.opencontainers.image.title": "tiny"},
}
CHANGES: dict[str, Any] = {
    "name": "other",
    "version": "v2",
    "repository": "localhost/other",
    "asked": "oci:base",
    "base": replace(BASE, digest="sha256:" + "c" * 64),
    "config": replace(CONFIG, epoch=1),
    "recipes": (replace(RECIPE, inputs={"entries": [1]}),),
    "compression": "gzip",
    "digest": "sha256:" + "d" * 64,
    "models": (BentoModel("factor:1", "sha256:" + "e" * 64),),
    "wheels": (Wheel("greeter", "1.0", "greeter-1.0-py3-none-any.whl", "f" * 64, 1),),
    "debs": (DebianPackage("libgomp1", "12", "amd64", "0" * 64, 1, "libgomp1.deb", "bookworm"),),
}


def test_the_same_spec_has_the_same_key() -> None:
    same = ImageSpec(**{item.name: getattr(SPEC, item.name) for item in fields(SPEC)})
    assert same.key == SPEC.key


@pytest.mark.parametrize("name", [item.name for item in fields(ImageSpec)])
def test_the_key_follows_from_every_part_of_the_spec(name: str) -> None:
    assert replace(SPEC, **{name: CHANGES[name]}).key != SPEC.key


@pytest.mark.parametrize("name", [item.name for item in fields(ImageConfig)])
def test_key_and_bytes_follow_from_every_part_of_the_configuration(name: str) -> None:
    changed = replace(SPEC, config=replace(CONFIG, **{name: CONFIG_CHANGES[name]}))
    layers = (*BASE.layers, layer("source", "1"))
    assert changed.key != SPEC.key
    assert changed.compose(layers).manifest != SPEC.compose(layers).manifest


@pytest.mark.parametrize(
    "change",
    [{"digest": ""}, {"config": {"config": {"Env": ["A=2"]}}}, {"layers": (layer("base", "2"),)}],
    ids=["digest", "config", "layers"],
)
def test_key_and_bytes_follow_from_the_base(change: dict[str, Any]) -> None:
    changed = replace(SPEC, base=replace(BASE, **change))
    assert changed.key != SPEC.key
    composed = [x.compose((*x.base.layers, layer("source", "1"))) for x in (changed, SPEC)]
    assert composed[0].manifest != composed[1].manifest


def test_a_base_under_another_name_is_the_same_base() -> None:
    assert replace(SPEC, base=replace(BASE, title="docker.io/base")).key == SPEC.key


def test_where_a_model_came_from_is_part_of_the_key_and_who_read_it_is_not() -> None:
    model = CHANGES["models"][0]
    read, moved = replace(model, claimed=True), replace(model, provenance={"uri": "models:/a/1"})
    keys = [replace(SPEC, models=(item,)).key for item in (model, read, moved)]
    assert keys[0] == keys[1] != keys[2]


def test_a_composed_manifest_is_that_of_its_configuration() -> None:
    layers = (*BASE.layers, layer("source", "1"))
    composed = SPEC.compose(layers)
    named = {"org.opencontainers.image.base.digest": BASE.digest}
    assert image_manifest(composed.config, layers, named) == (composed.manifest, composed.content)


def test_another_mirror_of_a_package_gives_the_same_key() -> None:
    (deb,) = CHANGES["debs"]
    keys = {
        replace(SPEC, debs=(replace(deb, uri=f"http://{host}.example/x.deb"),)).key
        for host in ("one", "two")
    }
    assert len(keys) == 1
    assert keys != {replace(SPEC, debs=(replace(deb, codename="trixie"),)).key}
