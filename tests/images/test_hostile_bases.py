"""Base images that lie: refused with the reason, or turned into something harmless."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import subprocess
import tarfile
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from by_chance import MUTATIONS, garbled, mutated, outcome
from handmade import (
    MINOR,
    read_manifest,
    starting_files,
    write,
)
from moving import base_of_layers, tar_of
from spoilt_base import OCI, Base

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images import ImageOptions, build_image, plan_image
from kfp_bento.runtime.images.base.base_image import open_base
from kfp_bento.runtime.images.cache.local import LayerBuilder, LayerCache
from kfp_bento.runtime.images.copy import copy_image
from kfp_bento.runtime.images.debian.rootfs import probe_base
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.config import ImageConfig, image_manifest
from kfp_bento.runtime.images.oci.image import Descriptor, Layer, parse_platform
from kfp_bento.runtime.images.oci.layers import codec_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.bentos import Bento


def opened(base: str, workspace: Path) -> Any:
    builder = LayerBuilder(
        BlobDirectory(workspace), codec_named("gzip"), 0, cache=None, tell=lambda sentence: None
    )
    return open_base(base, MINOR, parse_platform(), builder)


def test_the_base_that_is_spoilt_below_is_good(tmp_path: Path) -> None:
    assert opened(Base().write(tmp_path / "base"), tmp_path / "work").python == f"{MINOR}.1"


def spoil_layer(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.manifest["layers"][0].update(fields)


def spoil_inner(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.config["config"].update(fields)


def spoil_config(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.config.update(fields)


def spoil_manifest(**fields: Any) -> Callable[[Base], None]:
    return lambda base: base.manifest.update(fields)


def drop(*path: Any) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        place = getattr(base, path[0])
        for part in path[1:-1]:
            place = place[part]
        del place[path[-1]]

    return change


def many_layers(base: Base) -> None:
    base.manifest["layers"] *= 127
    base.config["rootfs"]["diff_ids"] *= 127


def spoil(name: str, value: Any) -> Callable[[Base], None]:
    return lambda base: setattr(base, name, value)


TWICE = b'{"schemaVersion": 2, "schemaVersion": 2, "layers": [], "config": {}}'

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil_layer(size=-1), "gives no size"),
        (spoil_layer(size=True), "gives no size"),
        (spoil_layer(size=1.5), "gives no size"),
        (spoil_layer(size="9"), "gives no size"),
        (spoil_layer(size=10**30), "gives no size"),
        (spoil_layer(size=None), "gives no size"),
        (spoil_layer(digest="sha256:" + "A" * 64), "no SHA-256 digest"),
        (spoil_layer(digest="sha512:" + "0" * 128), "no SHA-256 digest"),
        (spoil_layer(digest="md5:" + "0" * 32), "no SHA-256 digest"),
        (spoil_layer(digest="sha256:../../../etc/passwd"), "no SHA-256 digest"),
        (spoil_layer(digest="sha256:" + "0" * 64 + "\n"), "no SHA-256 digest"),
        (spoil_layer(digest=["sha256"]), "no SHA-256 digest"),
        (spoil_layer(mediaType=["x"]), "no media type"),
        (spoil_layer(mediaType=FOREIGN), "layer of type"),
        (spoil_layer(mediaType=f"{OCI}.layer.nondistributable.v1.tar"), "layer of type"),
        (spoil_layer(mediaType=f"{OCI}.config.v1+json"), "layer of type"),
        (spoil_manifest(layers={}), "neither an image manifest nor"),
        (spoil_manifest(layers=[None]), "where a descriptor must be"),
        (spoil_manifest(layers=[]), "0 layers but 1 diff ids"),
        (spoil_manifest(config=None), "where a descriptor must be"),
        (spoil_manifest(schemaVersion=1), "neither an image manifest nor"),
        (spoil_manifest(manifests=[]), "neither an image manifest nor"),
        (spoil_manifest(mediaType=f"{OCI}.index.v1+json"), "but says"),
        (drop("manifest", "layers"), "is no image"),
        (many_layers, "127 layers"),
        (spoil("manifest", []), "no JSON object"),
        (spoil("manifest", b"[" * 100_000), "nested too deeply"),
        (spoil("manifest", TWICE), "a key twice"),
        (spoil("manifest", b"\xff\xfe"), "cannot be read: "),
        (spoil("manifest", b'{"layers": NaN}'), "not JSON compliant"),
        (spoil("config", []), "no JSON object"),
        (spoil("config", b'{"a": "\\ud800"}'), "surrogates"),
        (spoil("config", b" " * (5 << 20)), "too large"),
        (drop("config", "rootfs"), "malformed: 'rootfs'"),
        (spoil_config(rootfs=None), "malformed"),
        (spoil_config(rootfs={"diff_ids": "sha256:"}), "no SHA-256 digest"),
        (spoil_config(rootfs={"diff_ids": [None]}), "no SHA-256 digest"),
        (spoil_config(rootfs={"diff_ids": ["sha256:0"]}), "no SHA-256 digest"),
        (spoil_config(config=[]), "'config' is no object"),
        (spoil_config(history={}), "history is no list"),
        (spoil_config(history=[None]), "no object"),
        (spoil_config(history=[{"created": "yesterday"}]), "malformed time"),
        (spoil_config(history=[{"empty_layer": "no"}]), "'empty_layer' has a wrong type"),
        (spoil_config(architecture="riscv64"), "only for linux/riscv64"),
        (drop("config", "os"), "only for unknown/"),
        (spoil_inner(Env={"A": "b"}), "'Env' has a wrong type"),
        (spoil_inner(Env=[None]), "'Env' holds something"),
        (spoil_inner(Env=["A=\0"]), "'Env' holds something"),
        (spoil_inner(Labels=["a"]), "'Labels' has a wrong type"),
        (spoil_inner(Labels={"a": 1}), "'Labels' holds something"),
        (spoil_inner(Volumes=["/x"]), "'Volumes' has a wrong type"),
        (spoil_inner(ExposedPorts="80"), "'ExposedPorts' has a wrong type"),
        (spoil_inner(Volumes={"/x": 1}), "'Volumes' holds more than names"),
        (spoil_config(author=[]), "'author' has a wrong type"),
        (spoil_config(**{"os.features": [1]}), "'os.features' holds something"),
        (spoil_inner(user="0"), "spells 'User' as 'user'"),
        (spoil_inner(ENTRYPOINT=["/evil"]), "spells 'Entrypoint' as"),
        (spoil_inner(**{"u\u017fer": "0"}), "spells 'User' as"),
        (spoil("index", {"schemaVersion": 2, "manifests": {}}), "neither an image manifest nor"),
        (spoil("index", {"schemaVersion": 2, "manifests": [None, 7, {}]}), "no image for linux"),
        (spoil("index", {"schemaVersion": 2, "manifests": [{"platform": "x"}]}), "no image for"),
        (spoil("entry", {"platform": {"os": ["linux"], "architecture": {}}}), "no image for"),
        (lambda base: base.entry.update(size=1), "bytes that are not"),
        (lambda base: base.entry.update(mediaType=f"{OCI}.index.v1+json"), "but says"),
        (lambda base: base.spoil_config_descriptor.update(size=3), "bytes that are not"),
        (lambda base: base.spoil_config_descriptor.update(size=10**13), "no size"),
        (
            lambda base: base.spoil_config_descriptor.update(digest="sha256:" + "0" * 64),
            "cannot be read: No such file",
        ),
    ],
)
def test_a_base_that_lies_is_refused(
    tmp_path: Path, change: Callable[[Base], None], reason: str
) -> None:
    base = Base()
    change(base)
    with pytest.raises(ImageError, match=reason):
        opened(base.write(tmp_path / "base"), tmp_path / "work")


def odd(base: Base) -> None:
    many_layers(base)
    spoil_inner(user="0", Odd={"x": 1})(base)
    base.manifest["layers"][0]["annotations"] = {"kfp-bento.kind": "\x1b"}


def test_an_odd_image_that_is_no_base_is_copied_byte_for_byte(tmp_path: Path) -> None:
    base = Base()
    odd(base)
    name = base.write(tmp_path / "base")
    with pytest.raises(ImageError, match="spells 'User'"):
        opened(name, tmp_path / "work")
    copied = copy_image(name, f"oci:{tmp_path}/copy:v1")
    assert copied.digest == base.index["manifests"][0]["digest"]
    assert not copied.converted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil_manifest(manifests=[]), "neither an image manifest nor"),
        (spoil_manifest(mediaType=f"{OCI}.index.v1+json"), "but says"),
        (spoil("manifest", TWICE), "a key twice"),
        (spoil_layer(digest="sha256:../../x"), "no SHA-256 digest"),
        (lambda base: base.entry.update(size=1), "bytes that are not"),
    ],
)
def test_what_could_be_read_in_two_ways_is_not_even_copied(
    tmp_path: Path, change: Callable[[Base], None], reason: str
) -> None:
    base = Base()
    change(base)
    name = base.write(tmp_path / "base")
    for everything in (False, True):
        with pytest.raises(ImageError, match=reason):
            copy_image(name, f"oci:{tmp_path}/copy:v1", all_platforms=everything)
        assert not (tmp_path / "copy").exists()


def test_an_image_has_no_more_layers_than_a_container_may(tmp_path: Path) -> None:
    found = opened(Base().write(tmp_path / "base"), tmp_path / "work")
    config = Descriptor("x", "sha256:" + "0" * 64, 1)
    assert image_manifest(config, found.layers * 127, {})
    with pytest.raises(ImageError, match="128 layers; containers have at most 127"):
        image_manifest(config, found.layers * 128, {})


def test_an_image_of_too_many_layers_is_refused_before_anything_is_made(
    bento: Bento, tmp_path: Path
) -> None:
    layers = [tar_of({}, *starting_files())]
    layers += [tar_of({f"etc/{number}": b""}) for number in range(123)]
    environment = [f"PYTHON_VERSION={MINOR}.1", "PATH=/usr/local/bin:/usr/bin:/bin"]
    fits = base_of_layers(tmp_path / "fits", layers[:-1], environment=environment)
    # Wheels, the environment, the model and the source are four more.
    assert len(build_image(bento, f"oci:{tmp_path}/whole", ImageOptions(base=fits)).layers) == 127
    said: list[str] = []
    options = ImageOptions(base=base_of_layers(tmp_path / "b", layers, environment=environment))
    for refused in (build_image, plan_image):
        with pytest.raises(ImageError, match="have 128 layers; containers have at most 127"):
            refused(bento, f"oci:{tmp_path}/out", options, progress=said.append)
    assert not [line for line in said if line.startswith(("packing", "installing"))]
    assert not (tmp_path / "out").exists()


def test_a_base_whose_tar_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    for name, reason in (("x" * (3 << 20), "absurd size"), ("d/" * 1000 + "x", "too long")):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        blobs = BlobDirectory(tmp_path)
        blob = blobs.put_bytes(plain.getvalue(), f"{OCI}.layer.v1.tar")
        layer = Layer("base", blob.digest, blob.digest, blob.size, blob.media_type, "base", "")
        with pytest.raises(ImageError, match=reason):
            probe_base([layer], blobs)


@pytest.mark.parametrize(
    "change", [{"digest": "../x"}, {"diff_id": "x"}, {"size": True}, {"title": 7}, {"more": ""}]
)
def test_a_record_of_a_layer_that_was_planted_is_as_good_as_none(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    found = opened(Base().write(tmp_path / "base"), tmp_path / "work")
    cache = LayerCache(tmp_path / "cache")
    cache.keep_layer("key", found.layers[0], found.blobs)
    facts = cache.find_facts("layer-key")
    assert cache.find_layer("key") == found.layers[0].with_origin("reused")
    cache.keep_facts("layer-key", {**facts, **change})
    assert cache.find_layer("key") is None


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[]", b"7", b'{"a": 1, "a": 2}'])
def test_a_record_that_is_damaged_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    cache = LayerCache(tmp_path)
    write(tmp_path / "records/layer-key.json", content)
    assert cache.find_layer("key") is None


def test_what_may_be_null_in_a_base_may_be_null(tmp_path: Path) -> None:
    base = Base()
    base.config["history"] = None
    base.config["config"] |= dict.fromkeys(("Labels", "Volumes", "Cmd", "OnBuild", "Healthcheck"))
    assert opened(base.write(tmp_path / "base"), tmp_path / "work").layers


def test_an_index_of_indexes_is_refused(tmp_path: Path) -> None:
    base = Base()
    inner = {"schemaVersion": 2, "manifests": []}
    base.manifest = inner
    base.entry["mediaType"] = f"{OCI}.index.v1+json"
    base.spoil_config_descriptor = {}
    inner["config"] = None  # kept from being added
    with pytest.raises(ImageError, match="index of indexes"):
        opened(base.write(tmp_path / "base"), tmp_path / "work")


def test_an_index_with_very_many_entries_is_read_or_refused_quickly(tmp_path: Path) -> None:
    base = Base()
    other = {"digest": "x", "platform": {"os": "plan9", "architecture": "386"}}
    base.index["manifests"] = [other] * 50_000
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"only for plan9/386\."):
        opened(base.write(tmp_path / "base"), tmp_path / "work")
    base.index["manifests"] = [other] * 100_000
    with pytest.raises(ImageError, match="too large"):
        opened(base.write(tmp_path / "base"), tmp_path / "work")
    assert time.monotonic() - started < 20


def test_an_index_in_a_registry_that_lies_about_a_size_is_refused(
    tmp_path: Path, oci_registry: str
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    base = Base()
    name = base.write(tmp_path / "base")
    copy_all = ["skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", name]
    subprocess.run([*copy_all, f"docker://{oci_registry}/liar:good"], check=True)
    base.index["manifests"][0]["size"] += 1
    request = urllib.request.Request(
        f"http://{oci_registry}/v2/liar/manifests/bad",
        data=json.dumps(base.index).encode(),
        headers={"Content-Type": f"{OCI}.index.v1+json"},
        method="PUT",
    )
    urllib.request.urlopen(request).close()
    assert opened(f"{oci_registry}/liar:good", tmp_path / "work").digest
    with pytest.raises(ImageError, match=r"with \d+ bytes, but it has \d+"):
        opened(f"{oci_registry}/liar:bad", tmp_path / "work")


def test_addresses_of_other_hosts_in_a_base_are_neither_asked_nor_taken_over(
    tmp_path: Path, bento: Bento
) -> None:
    base = Base()
    base.manifest["layers"][0]["urls"] = ["http://169.254.169.254/latest"]
    base.manifest["layers"][0]["data"] = base64.b64encode(b"other bytes").decode()
    build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base.write(tmp_path / "base")))
    for layer in read_manifest(tmp_path / "out")["layers"]:
        assert not {"urls", "data"} & layer.keys()


def composed(base: str, workspace: Path) -> None:
    """A base that is taken must give a configuration that is valid again."""
    found = opened(base, workspace)
    config = ImageConfig(parse_platform(), found.interpreter, epoch=0)
    parsed = parse_json(config.compose(found.config, "", found.layers).config_content)
    assert parsed["config"]["User"] == "1034:1034"
    assert len({name.casefold() for name in parsed["config"]}) == len(parsed["config"])


@pytest.mark.parametrize("part", ["config", "manifest", "index"])
@pytest.mark.parametrize("how", ["mutated", "garbled"])
def test_a_base_changed_by_chance_is_taken_or_refused(tmp_path: Path, part: str, how: str) -> None:
    chance = random.Random(f"{part} {how}")
    outcomes = []
    for _ in range(MUTATIONS):
        base = Base()
        base.write(tmp_path / "base")  # completes its documents
        document = getattr(base, part)
        changed = (
            mutated(document, chance)
            if how == "mutated"
            else garbled(json.dumps(document).encode(), chance)
        )
        if part == "config":
            del base.manifest["config"]
        if part in {"config", "manifest"}:
            del base.index["manifests"]
        setattr(base, part, changed)
        name = base.write(tmp_path / "base")
        outcomes.append(outcome(partial(composed, name, tmp_path / "work")))
        shutil.rmtree(tmp_path / "base")
    assert "refused" in outcomes
