"""What is reused is ours: sealed, or seen, or marked as a registry's word."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import open_layer
from registries import no_login
from servers import docker_registry_binary, oci_registry_in

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.bentos.bento import write_record
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import ImageOptions, build_image, plan_image, write_attestations
from kfp_bento.runtime.images.attestations.attachments import read_attachments
from kfp_bento.runtime.images.cache.local import LayerCache, open_cache
from kfp_bento.runtime.images.cache.records import RegistryRecords
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of
from kfp_bento.runtime.images.oci.image import OCI_MANIFEST, Document, Layer
from kfp_bento.runtime.images.oci.layers import codec_named, write_layer
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.oci.tar import content_entry, directory_entry
from kfp_bento.runtime.images.places.registry import ImageRepository
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images import Image

__all__ = ["no_login"]

KEY = "a secret that only the pods of one team have"
EVIL = "app/.venv/lib/evil.pth"
SBOM = "application/vnd.cyclonedx+json"
STATEMENT = "application/vnd.in-toto+json"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    with oci_registry_in(tmp_path_factory.mktemp("registry"), binary) as host:
        yield host


@pytest.fixture
def image_name(address: str, request: pytest.FixtureRequest) -> str:
    return f"{address}/{abs(hash(request.node.name))}/tiny"


@pytest.fixture
def another_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "another home"))


def evil_layer(folder: Path) -> tuple[Layer, BlobDirectory]:
    """What an attacker puts in place of the dependencies."""
    blobs = BlobDirectory(folder)
    entries = [
        *(directory_entry(path) for path in ("app", "app/.venv", "app/.venv/lib")),
        content_entry(EVIL, b"import os; os.system('owned')\n"),
    ]
    kind = {"kind": "dependencies", "title": "dependencies (1 wheel)"}
    return write_layer(entries, blobs, codec_named("zstd"), **kind, epoch=315532800), blobs


def planted_in(cache: Path, evil: Layer, blobs: BlobDirectory) -> None:
    """Writes over every layer's record, as whoever can write to the directory."""
    BlobDirectory(cache).put_blob(evil.descriptor, blobs)
    for file in (cache / "records").glob("layer-*.json"):
        record = json.loads(file.read_bytes())
        if record.get("facts", record).get("kind") != "dependencies":
            continue
        facts = {**evil.record()}
        file.write_text(json.dumps({**record, "facts": facts} if "facts" in record else facts))


def dependencies(image: Image) -> Layer:
    return next(layer for layer in image.layers if layer.kind == "dependencies")


def names_in(layout: Path, image: Image) -> list[str]:
    return open_layer(layout, dependencies(image)).getnames()


# --- a directory


def test_a_layer_planted_in_the_cache_gets_into_no_image(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    planted_in(cache, *evil_layer(tmp_path / "evil"))
    second = build_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    assert EVIL not in names_in(tmp_path / "two", second)
    assert second.digest == first.digest


def test_a_sealed_record_counts_under_its_own_name_only(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    cache.keep_facts("layer-a", {"some": "facts"})
    records = tmp_path / "cache/records"
    shutil.copy(records / "layer-a.json", records / "layer-b.json")
    assert cache.find_facts("layer-a") == {"some": "facts"}
    assert cache.find_facts("layer-b") is None
    assert cache.passed_over == {"layer-b"}


@pytest.mark.usefixtures("another_pod")
def test_a_cache_of_another_machine_counts_where_a_key_is_shared(
    bento: Bento, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    options = ImageOptions(base=base, cache=tmp_path / "cache")
    monkeypatch.delenv("XDG_STATE_HOME")
    for number, shared in enumerate(["", "", KEY, KEY]):
        monkeypatch.setenv("HOME", str(tmp_path / f"home{number}"))
        monkeypatch.setenv("KFP_BENTO_RECORD_KEY", shared)
        image = build_image(bento, f"oci:{tmp_path}/out{number}", options, progress=told.append)
        expected = "reused" if number == 3 else "built"
        assert (number, dependencies(image).origin) == (number, expected)
    assert any("carry no seal of this user" in text for text in told)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_a_new_cache_is_for_nobody_else_and_a_layout_follows_the_umask(
    bento: Bento, base: str, tmp_path: Path, mask: int
) -> None:
    usual = os.umask(mask)
    try:
        build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=tmp_path / "cache"))
    finally:
        os.umask(usual)
    made = {
        folder: {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / folder).rglob("*")}
        for folder in ("one", "cache/blobs")
    }
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert made["one"] | made["cache/blobs"] <= {0o777 & ~mask, 0o666 & ~mask, 0o644 & ~mask}
    again = build_image(
        bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=tmp_path / "cache")
    )
    assert dependencies(again).origin == "reused"


@pytest.mark.parametrize("part", ["", "records", "blobs", "blobs/sha256"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, part: str, mode: int) -> None:
    cache = tmp_path / "cache"
    open_cache(cache).keep_facts("a", 1)
    (cache / "blobs/sha256").mkdir(parents=True)
    cache.chmod(0o755)
    (cache / part).chmod(mode)
    with pytest.raises(InvalidInput, match="can be written by other users") as caught:
        open_cache(cache)
    # The ways out work.
    assert f"chmod -R go-w {cache}" in caught.value.hint
    (cache / part).chmod(mode & ~0o022)
    assert open_cache(cache).find_facts("a") == 1
    assert open_cache(cache / "new").private


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("part", ["", "records"])
def test_a_cache_of_another_user_is_refused(tmp_path: Path, part: str) -> None:
    cache = tmp_path / "cache"
    open_cache(cache).keep_facts("a", 1)
    os.chown(cache / part, 54321, 54321)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        open_cache(cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_symlink_that_another_user_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to("elsewhere")
    assert open_cache(tmp_path / "cache").private
    os.lchown(tmp_path / "cache", 54321, 54321)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        open_cache(tmp_path / "cache")


def test_where_a_key_is_shared_several_users_may_share_a_cache_and_nothing_is_linked(
    bento: Bento, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    first = build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    second = build_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    assert dependencies(second).origin == "reused" and second.digest == first.digest
    name = dependencies(first).digest.removeprefix("sha256:")
    assert (cache / "blobs/sha256" / name).stat().st_nlink == 1
    planted_in(cache, *evil_layer(tmp_path / "evil"))
    third = build_image(bento, f"oci:{tmp_path}/three", ImageOptions(base=base, cache=cache))
    assert EVIL not in names_in(tmp_path / "three", third)


def test_in_a_folder_that_anybody_may_change_nothing_is_linked(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch").chmod(0o777)
    assert not open_cache(tmp_path / "scratch/cache").private
    (tmp_path / "scratch").chmod(0o1777)
    assert open_cache(tmp_path / "scratch/cache").private


def test_a_blob_that_somebody_else_may_write_is_not_reused(
    bento: Bento, base: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    shutil.rmtree(tmp_path / "one")
    blob = cache / "blobs/sha256" / dependencies(first).digest.removeprefix("sha256:")
    blob.chmod(0o666)
    second = build_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    assert dependencies(second).origin == "built"


def test_a_short_key_is_refused(
    bento: Bento, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "short")
    with pytest.raises(InvalidInput, match="fewer than 32 characters"):
        build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base))


def test_without_a_home_nothing_counts_and_that_is_said(
    bento: Bento, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    told: list[str] = []
    for number in range(2):
        image = build_image(
            bento,
            f"oci:{tmp_path}/{number}",
            ImageOptions(base=base, cache=tmp_path / "cache"),
            progress=told.append,
        )
        assert dependencies(image).origin == "built"
    assert any("no key to seal it with" in text for text in told)


# --- a layout


def retold(layout: Path, evil: Layer, blobs: BlobDirectory) -> None:
    """Puts another layer into a layout, under a manifest that is right in itself."""
    held = BlobDirectory(layout)
    held.put_blob(evil.descriptor, blobs)
    index = json.loads((layout / "index.json").read_bytes())

    def read(digest: str) -> Any:
        return json.loads(held.path(digest).read_bytes())

    manifest = read(index["manifests"][0]["digest"])
    config = read(manifest["config"]["digest"])
    config["rootfs"]["diff_ids"][1] = evil.diff_id
    written = held.put_bytes(canonical_json(config), manifest["config"]["mediaType"])
    manifest["config"] = written.to_dict()
    manifest["layers"][1] |= {"digest": evil.digest, "size": evil.size}
    made = held.put_bytes(canonical_json(manifest), OCI_MANIFEST)
    index["manifests"][0] |= {"digest": made.digest, "size": made.size}
    (layout / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("cached", [False, True])
def test_an_image_planted_in_a_layout_is_not_already_there(
    bento: Bento, base: str, tmp_path: Path, cached: bool
) -> None:
    options = ImageOptions(base=base, cache=tmp_path / "cache" if cached else None)
    first = build_image(bento, f"oci:{tmp_path}/out", options)
    retold(tmp_path / "out", *evil_layer(tmp_path / "evil"))
    again = build_image(bento, f"oci:{tmp_path}/out", options)
    assert EVIL not in names_in(tmp_path / "out", again)
    assert (again.digest, again.reused) == (first.digest, False)


@pytest.mark.parametrize(
    ("kind", "cached"), [("dependencies", False), ("model", True), ("source", True)]
)
def test_a_layout_with_a_damaged_blob_is_not_already_there(
    bento: Bento, base: str, tmp_path: Path, kind: str, cached: bool
) -> None:
    options = ImageOptions(base=base, cache=tmp_path / "cache" if cached else None)
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    layer = next(layer for layer in image.layers if layer.kind == kind)
    blob = BlobDirectory(tmp_path / "out").path(layer.digest)
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(bytes(len(content)))
    build_image(bento, f"oci:{tmp_path}/out", options)
    assert blob.read_bytes() == content


def test_an_unchanged_layout_is_known_by_the_cache(bento: Bento, base: str, tmp_path: Path) -> None:
    options = ImageOptions(base=base, cache=tmp_path / "cache")
    first = build_image(bento, f"oci:{tmp_path}/out", options)
    again = build_image(bento, f"oci:{tmp_path}/out", options)
    assert again.reused and again.digest == first.digest
    assert plan_image(bento, f"oci:{tmp_path}/out", options).unchanged == first.digest


# --- a registry


def records(name: str) -> RegistryRecords:
    return RegistryRecords(Repository(parse_reference(name)))


def plant_layer(name: str, bento: Bento, base: str, evil: Layer, blobs: BlobDirectory) -> None:
    """Writes over the records of the dependencies, as whoever can push."""
    plan = plan_image(replace(bento, version="v0"), f"{name}:never", ImageOptions(base=base))
    keys = [layer.key for layer in plan.layers if layer.kind == "dependencies"]
    there = {key: records(name).find_layer(key) or evil for key in keys}
    records(name).keep_layer(keys[0], evil, blobs)
    records(name).keep_together({**there, keys[0]: evil})


def test_what_is_reused_on_a_registrys_word_is_marked_everywhere(
    bento: Bento, base: str, tmp_path: Path, image_name: str
) -> None:
    build_image(bento, image_name, ImageOptions(base=base))
    (bento.directory / "src/service.py").write_text("# another service\n")
    changed = load_bento(bento.directory)
    told: list[str] = []
    plan = plan_image(changed, f"{image_name}:v2", ImageOptions(base=base))
    image = build_image(changed, f"{image_name}:v2", ImageOptions(base=base), progress=told.append)
    marked = {layer.kind: layer.unverified for layer in image.layers}
    assert marked == {"base": False, "dependencies": True, "model": False, "source": False}
    assert image.to_dict()["layers"][1]["unverified"] is True
    assert {layer.kind: layer.unverified for layer in plan.layers} == marked
    for notes in (plan.notes, told):
        assert any("reused on the registry's word" in note for note in notes)
    write_attestations(image, tmp_path / "sbom.json", tmp_path / "provenance.jsonl")
    (attached,) = read_attachments(image.reference, SBOM)
    for text in (attached, (tmp_path / "sbom.json").read_bytes()):
        wheels = [x for x in json.loads(text)["components"] if x["type"] == "library"]
        marks = [{"name": "kfp-bento:reused", "value": "on the word of the registry"}]
        assert [wheel["properties"] for wheel in wheels] == [marks, marks]
    statement = json.loads((tmp_path / "provenance.jsonl").read_text().splitlines()[0])
    internal = statement["predicate"]["buildDefinition"]["internalParameters"]
    installed = [layer.digest for layer in image.layers if layer.kind == "dependencies"]
    assert internal["reusedOnTheWordOfTheRegistry"] == installed


def test_what_this_machine_made_itself_needs_no_mark(
    bento: Bento, base: str, tmp_path: Path, image_name: str
) -> None:
    options = ImageOptions(base=base, cache=tmp_path / "cache")
    build_image(bento, image_name, options)
    again = build_image(bento, image_name, options)
    assert again.reused and not any(layer.unverified for layer in again.layers)
    other = build_image(replace(bento, version="v2"), f"{image_name}:v2", options)
    assert dependencies(other).origin == "reused" and not dependencies(other).unverified


def test_a_record_that_contradicts_our_own_is_passed_over(
    bento: Bento, base: str, tmp_path: Path, image_name: str
) -> None:
    options = ImageOptions(base=base, cache=tmp_path / "cache")
    first = build_image(bento, image_name, options)
    evil, blobs = evil_layer(tmp_path / "evil")
    plant_layer(image_name, bento, base, evil, blobs)
    told: list[str] = []
    other = build_image(
        replace(bento, version="v2"), f"{image_name}:v2", options, progress=told.append
    )
    assert dependencies(other).digest == dependencies(first).digest
    assert any("is not what was made here" in text for text in told)


@pytest.mark.parametrize("sealed", [False, True])
def test_with_a_key_only_sealed_records_count(
    bento: Bento,
    base: str,
    tmp_path: Path,
    image_name: str,
    monkeypatch: pytest.MonkeyPatch,
    sealed: bool,
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    first = build_image(bento, image_name, ImageOptions(base=base))
    if not sealed:
        monkeypatch.delenv("KFP_BENTO_RECORD_KEY")
        plant_layer(image_name, bento, base, *evil_layer(tmp_path / "evil"))
        monkeypatch.setenv("KFP_BENTO_RECORD_KEY", KEY)
    other = build_image(replace(bento, version="v2"), f"{image_name}:v2", ImageOptions(base=base))
    assert dependencies(other).digest == dependencies(first).digest
    assert dependencies(other).origin == ("reused" if sealed else "built")
    assert not dependencies(other).unverified


def plant_image(name: str, bento: Bento, base: str, tmp_path: Path, what: str) -> None:
    """Moves the tag by which a whole image is recognised to another one."""
    keys: list[str] = []
    keep = ImageRepository.remember
    with pytest.MonkeyPatch.context() as patch:

        def noted(own: ImageRepository, key: str, *given: Any) -> None:
            keys.append(key)
            keep(own, key, *given)

        patch.setattr(ImageRepository, "remember", noted)
        build_image(bento, f"{name}:planted", ImageOptions(base=base))
    repository = Repository(parse_reference(name))
    manifest = json.loads(repository.fetch_manifest("planted")[1])
    from kfp_bento.runtime.images.oci.image import descriptor_from

    config = json.loads(b"".join(repository.open_blob(descriptor_from(manifest["config"]))))
    blobs = BlobDirectory(tmp_path / "planted")
    if what == "entrypoint":
        config["config"]["Entrypoint"] = ["/bin/sh", "-c", "owned"]
    else:
        evil, made = evil_layer(tmp_path / "evil")
        at = {"dependencies": 1, "source": 4}[what]
        config["rootfs"]["diff_ids"][at] = evil.diff_id
        manifest["layers"][at] |= {"digest": evil.digest, "size": evil.size}
        repository.put_blob(evil.descriptor, made)
    content = canonical_json(config)
    written = blobs.put_bytes(content, manifest["config"]["mediaType"])
    repository.put_blob(written, blobs)
    manifest["config"] = written.to_dict()
    text = canonical_json(manifest)
    keep(ImageRepository(parse_reference(name)), keys[-1], descriptor_of(text, OCI_MANIFEST), text)


@pytest.mark.parametrize(
    ("what", "key"),
    [("entrypoint", ""), ("source", ""), ("dependencies", ""), ("dependencies", KEY)],
)
def test_a_planted_image_is_not_already_there(
    bento: Bento,
    base: str,
    tmp_path: Path,
    image_name: str,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    key: str,
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", key)
    genuine = build_image(bento, f"oci:{tmp_path}/genuine", ImageOptions(base=base))
    plant_image(image_name, bento, base, tmp_path, what)
    image = build_image(bento, f"{image_name}:v9", ImageOptions(base=base))
    if what == "dependencies" and not key:
        # That cannot be told without a key: it is marked, and that the papers are ours is sure.
        assert dependencies(image).unverified
        assert [type(item) for item in image.documents] == [Document, Document]
    else:
        assert image.digest == genuine.digest


def test_planted_wheels_do_not_choose_what_is_installed(
    bento: Bento, base: str, image_name: str
) -> None:
    from kfp_bento.runtime.images.assembly import context

    keys: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        find = RegistryRecords.find_facts

        def noted(own: RegistryRecords, key: str) -> Any:
            keys.append(key)
            return find(own, key)

        patch.setattr(context.RegistryRecords, "find_facts", noted)
        first = build_image(bento, image_name, ImageOptions(base=base))
    found = {key: records(image_name).find_facts(key) for key in keys}
    (chosen,) = (key for key, facts in found.items() if isinstance(facts, list))
    right = found[chosen]
    for planted in (
        [],
        [{**right[0], "source": "https://evil.example/greeter-1.0-py3-none-any.whl"}],
        [*right, *right],
    ):
        records(image_name).keep_facts(chosen, planted)
        image = build_image(
            replace(bento, version="v2"), f"{image_name}:v2", ImageOptions(base=base)
        )
        assert dependencies(image).digest == dependencies(first).digest


# --- models


def test_a_model_that_is_not_what_its_bento_said_gets_no_tag(
    bento: Bento, base: str, tmp_path: Path, image_name: str
) -> None:
    write_record(bento)
    (bento.directory / "models/factor/0123456789abcdef/factor.txt").write_text("3\n")
    bento = load_bento(bento.directory, deferred=True)
    for target in (f"oci:{tmp_path}/out", image_name):
        with pytest.raises(ImageError, match="factor:0123456789abcdef"):
            build_image(bento, target, ImageOptions(base=base))
    assert not (tmp_path / "out").exists()
    assert Repository(parse_reference(image_name)).head_manifest("v1") is None


def test_a_cache_made_before_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "cache/records").mkdir(parents=True)
    (tmp_path / "cache").chmod(0o755)
    (tmp_path / "cache/records/layer-a.json").write_text('{"kind": "dependencies"}')
    cache = open_cache(tmp_path / "cache")
    assert cache == LayerCache(tmp_path / "cache")
    assert cache.find_layer("a") is None


def test_what_is_known_of_a_wheel_goes_along_with_the_record_of_its_layer(
    bento: Bento, base: str, tmp_path: Path, image_name: str
) -> None:
    image = build_image(bento, image_name, ImageOptions(base=base))
    known = replace(dependencies(image), facts={"0" * 64: {"brings": ["libx.so.1"]}})
    assert Layer.from_dict(known.record()).facts == known.facts
    assert "facts" not in known.to_dict()
    there = records(image_name)
    there.keep_layer("a", known, there.repository)
    there.keep_together({"b": known})
    again = records(image_name)
    assert again.find_layers(["a", "never"])["a"].facts == known.facts
    assert again.find_layers(["b"])["b"].facts == known.facts
    cache = open_cache(tmp_path / "cache")
    cache.keep_layer("a", known, there.repository)
    found = cache.find_layer("a")
    assert found is not None and found.facts == known.facts
