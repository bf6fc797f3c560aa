"""What was made before, from the same inputs, is neither made nor sent again."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import write_base, write_bento
from servers import docker_registry_binary, oci_registry_in

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import InvalidInput, RegistryError
from kfp_bento.runtime.images import ImageOptions, build_image, plan_image
from kfp_bento.runtime.images.assembly import recipes as recipes_module
from kfp_bento.runtime.images.assembly.recipes import model_recipes
from kfp_bento.runtime.images.cache.records import RegistryRecords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.bentos import Bento

REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|PATCH|DELETE) (/v2/\S*) HTTP/1\.1" (\d+)')


class Registry:
    """A real registry of one's own, with what it was asked for."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address = address
        self.directory = directory

    def image(self, name: str) -> str:
        return f"{self.address}/{name}"

    def requests(self) -> list[tuple[str, str, str]]:
        log = next(self.directory.glob("*.log")).read_text()
        return REQUEST.findall(log)

    def asked_since(self, before: int) -> Counter[str]:
        return Counter(method for method, _, _ in self.requests()[before:])

    def remove_blob(self, repository: str, digest: str) -> None:
        value = digest.removeprefix("sha256:")
        stored = self.directory.rglob(f"sha256/{value}")
        for path in [*stored, *self.directory.rglob(f"sha256/{value[:2]}/{value}")]:
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    directory = tmp_path / "registry"
    with oci_registry_in(directory, binary) as address:
        yield Registry(address, directory)


@pytest.fixture
def pushed_base(registry: Registry, base: str, bento: Bento) -> str:
    """The base in the same registry, so that its layers can be mounted."""
    from kfp_bento.runtime.images.oci.image import parse_platform
    from kfp_bento.runtime.images.oci.reference import parse_reference
    from kfp_bento.runtime.images.places.layout import LayoutSource
    from kfp_bento.runtime.images.registry.repository import Repository

    target = registry.image("library/base:3.11")
    source = LayoutSource(Path(base.removeprefix("oci:")))
    sink = Repository(parse_reference(target))
    index = source.find()
    for item in read(source, index)["manifests"]:
        if item["platform"]["architecture"] != str(parse_platform()).partition("/")[2]:
            continue
        manifest = descriptor(item)
        content = read(source, manifest)
        for blob in (content["config"], *content["layers"]):
            sink.put_blob(descriptor(blob), source)
        raw = b"".join(source.open_blob(manifest))
        sink.put_manifest(manifest, raw)
        sink.tag(manifest, raw, "3.11")
    return target


def descriptor(item: dict[str, Any]) -> Any:
    from kfp_bento.runtime.images.oci.image import descriptor_from

    return descriptor_from(item)


def read(source: Any, blob: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(b"".join(source.open_blob(blob)))
    return parsed


def test_an_unchanged_build_from_an_empty_pod_sends_nothing_and_asks_little(
    registry: Registry, bento: Bento, pushed_base: str
) -> None:
    first = build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    before = len(registry.requests())
    second = build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    asked = registry.asked_since(before)
    assert (second.digest, second.layers) == (
        first.digest,
        tuple(
            layer if layer.kind == "base" else layer.with_origin("reused") for layer in first.layers
        ),
    )
    assert second.reused and not first.reused
    assert not asked.keys() - {"GET", "HEAD"}
    assert sum(asked.values()) <= 10


def test_base_layers_are_mounted_from_a_neighbour_repository(
    registry: Registry, bento: Bento, pushed_base: str
) -> None:
    image = build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    assert [layer.placement for layer in image.layers if layer.kind == "base"] == ["mounted"]


def test_a_new_bento_in_an_empty_pod_takes_the_dependencies_from_the_registry(
    registry: Registry, bento: Bento, pushed_base: str
) -> None:
    build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    (bento.directory / "src/service.py").write_text("# another service\n")
    changed = load_bento(bento.directory)
    image = build_image(changed, registry.image("team/tiny:v2"), ImageOptions(base=pushed_base))
    assert {layer.kind: (layer.origin, layer.placement) for layer in image.layers} == {
        "base": ("base", "present"),
        "dependencies": ("reused", "present"),
        "model": ("reused", "present"),
        "source": ("built", "sent"),
    }


def test_repositories_share_layers_through_a_cache_repository(
    registry: Registry, bento: Bento, pushed_base: str, tmp_path: Path
) -> None:
    shared = registry.image("team/layers")
    one = build_image(
        bento, registry.image("team/one"), ImageOptions(base=pushed_base, cache_repository=shared)
    )
    two = build_image(
        bento, registry.image("team/two"), ImageOptions(base=pushed_base, cache_repository=shared)
    )
    assert two.digest == one.digest
    placed = {layer.kind: (layer.origin, layer.placement) for layer in two.layers}
    assert placed["dependencies"] == placed["model"] == ("reused", "mounted")


def test_a_record_that_was_refused_once_is_written_all_the_same(
    registry: Registry,
    bento: Bento,
    pushed_base: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = [RegistryError("two uploads of one blob met", codes=("BLOB_UPLOAD_UNKNOWN",))]
    write = RegistryRecords.keep_layer

    def refuse_once(*given: Any) -> None:
        if refusals:
            raise refusals.pop()
        write(*given)

    monkeypatch.setattr(RegistryRecords, "keep_layer", refuse_once)
    shared = registry.image("team/once")
    build_image(
        bento,
        registry.image("team/once-one"),
        ImageOptions(base=pushed_base, cache_repository=shared),
    )
    assert not refusals
    two = build_image(
        bento,
        registry.image("team/once-two"),
        ImageOptions(base=pushed_base, cache_repository=shared),
    )
    placed = {layer.kind: layer.origin for layer in two.layers}
    assert placed["dependencies"] == placed["model"] == "reused"


def test_a_cache_repository_of_another_registry_is_refused(
    registry: Registry, bento: Bento, base: str
) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be shared through elsewhere\.example/layers"):
        build_image(
            bento,
            registry.image("team/one"),
            ImageOptions(base=base, cache_repository="elsewhere.example/layers"),
        )


def test_a_cache_repository_from_the_environment_is_passed_over_for_another_registry(
    registry: Registry, bento: Bento, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_CACHE_REPOSITORY", "elsewhere.example/layers")
    assert build_image(bento, registry.image("team/one"), ImageOptions(base=base)).digest


def test_a_model_that_changed_in_place_is_noticed_though_its_size_is_the_same(
    registry: Registry, bento: Bento, pushed_base: str, tmp_path: Path
) -> None:
    options = ImageOptions(base=pushed_base, cache=tmp_path / "cache")
    first = build_image(bento, registry.image("team/tiny"), options)
    (bento.directory / "models/factor/0123456789abcdef/factor.txt").write_text("3\n")
    second = build_image(bento, registry.image("team/tiny"), options)
    assert second.digest != first.digest
    kinds = [(layer.kind, layer.origin) for layer in second.layers]
    assert ("model", "built") in kinds and ("dependencies", "reused") in kinds
    third = build_image(bento, registry.image("team/tiny"), options)
    assert third.digest == second.digest


def test_a_layer_that_the_registry_lost_is_made_again(
    registry: Registry, bento: Bento, pushed_base: str
) -> None:
    first = build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    registry.remove_blob("team/tiny", first.layers[1].digest)
    (bento.directory / "src/service.py").write_text("# another service\n")
    image = build_image(
        load_bento(bento.directory), registry.image("team/tiny:v2"), ImageOptions(base=pushed_base)
    )
    dependencies = next(layer for layer in image.layers if layer.kind == "dependencies")
    assert (dependencies.origin, dependencies.placement) == ("built", "sent")
    assert dependencies.digest == first.layers[1].digest


def test_a_plan_says_what_a_build_then_does_and_changes_nothing(
    registry: Registry, bento: Bento, pushed_base: str
) -> None:
    target = registry.image("team/tiny")
    before = len(registry.requests())
    plan = plan_image(bento, target, ImageOptions(base=pushed_base))
    assert not registry.asked_since(before).keys() - {"GET", "HEAD"}
    assert [(layer.kind, layer.action) for layer in plan.layers] == [
        ("base", "mount"),
        ("dependencies", "build"),
        ("dependencies", "build"),
        ("model", "build"),
        ("source", "build"),
    ]
    assert plan.destination == f"{target}:v1" and plan.unchanged == ""
    assert all(layer.size for layer in plan.layers)
    image = build_image(bento, target, ImageOptions(base=pushed_base))
    model, planned = image.layers[3], plan.layers[3]
    assert (planned.size, planned.exact) == (model.size, True)
    after = plan_image(bento, target, ImageOptions(base=pushed_base))
    assert after.unchanged == image.digest and after.bytes_to_send == 0
    assert {layer.action for layer in after.layers} == {"present"}


def test_what_a_plan_calls_exact_is_what_is_made(bento: Bento, base: str, tmp_path: Path) -> None:
    options = ImageOptions(base=base, compression="none")
    plan = plan_image(bento, f"oci:{tmp_path}/out", options)
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    assert [layer.exact for layer in plan.layers] == [True, False, True, True, True]
    assert [one.size for one in plan.layers if one.exact] == [
        made.size for made, one in zip(image.layers, plan.layers, strict=True) if one.exact
    ]


def test_a_plan_knows_what_the_local_cache_holds(bento: Bento, base: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_image(bento, f"oci:{tmp_path}/one", ImageOptions(base=base, cache=cache))
    plan = plan_image(bento, f"oci:{tmp_path}/two", ImageOptions(base=base, cache=cache))
    assert {layer.kind: layer.action for layer in plan.layers}["dependencies"] == "upload"
    assert not (tmp_path / "two").exists()
    json.dumps(plan.to_dict())


def test_large_files_of_a_model_lie_in_layers_side_by_side(
    bento: Bento, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes_module, "LARGE_FILE", 1000)
    model = bento.directory / "models/factor/0123456789abcdef"
    for number in range(6):
        file = model / f"shards/{number}.bin"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes([number]) * (1000 + number))
    names = [
        {entry.path.rpartition("/")[2] for entry in listing(recipe) if entry.kind == "file"}
        for recipe in model_recipes(bento.directory, 0)
    ]
    assert names[0] == {"factor.txt", "model.yaml"}
    assert sorted(map(len, names[1:])) == [1, 1, 2, 2]
    assert set.union(*names[1:]) == {f"{number}.bin" for number in range(6)}
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    assert len([layer for layer in image.layers if layer.kind == "model"]) == 5


def listing(recipe: recipes_module.Recipe) -> list[Any]:
    with recipe.prepare(Path()) as entries:
        return list(entries())


def test_one_large_file_stays_in_one_layer(bento: Bento, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes_module, "LARGE_FILE", 1)
    (bento.directory / "models/factor/0123456789abcdef/model.yaml").unlink()
    assert len(list(model_recipes(bento.directory, 0))) == 1


def test_two_models_get_a_layer_each(tmp_path: Path) -> None:
    bento = write_bento(tmp_path / "bento")
    other = bento.directory / "models/other/v2"
    shutil.copytree(bento.directory / "models/factor/0123456789abcdef", other)
    assert [recipe.title for recipe in model_recipes(bento.directory, 0)] == [
        "model factor:0123456789abcdef",
        "model other:v2",
    ]


def test_a_model_is_read_once_when_it_is_new(
    registry: Registry, bento: Bento, pushed_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp_bento.runtime.images.oci import tar

    opened: list[bytes] = []
    original = tar.file_chunks

    def counted(entry: Any) -> Any:
        opened.append(entry.file)
        return original(entry)

    monkeypatch.setattr(tar, "file_chunks", counted)
    build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    assert len([file for file in opened if file.endswith(b"factor.txt")]) == 1


def test_the_same_layers_go_to_another_base_without_being_made_again(
    registry: Registry, bento: Bento, pushed_base: str, tmp_path: Path
) -> None:
    build_image(bento, registry.image("team/tiny"), ImageOptions(base=pushed_base))
    other = write_base(tmp_path / "other", python="3.11.99")
    image = build_image(replace(bento), registry.image("team/tiny:other"), ImageOptions(base=other))
    made = {layer.kind: layer.origin for layer in image.layers}
    assert (made["dependencies"], made["model"]) == ("reused", "reused")
