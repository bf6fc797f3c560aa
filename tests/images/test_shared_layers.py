"""Images of different locks in one registry: a wheel that both have is there once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import serving, status
from elf_files import program, shared_object
from handmade import real_lock, write_bento
from servers import docker_registry_binary, oci_registry_in
from small_wheels import make_wheel
from test_base_fit import GLIBC_LOADER, PYTHON, SHELL, base_of
from test_libraries import BASE, MACHINE

from kfp_bento.runtime.images import Image, ImageOptions, Layer, build_image, plan_image
from kfp_bento.runtime.images.assembly import libraries
from kfp_bento.runtime.images.python import environment
from kfp_bento.runtime.images.python.groups import ALONE
from kfp_bento.runtime.images.python.installer import install_wheels
from kfp_bento.runtime.images.python.needs import read_needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images.python.selection import Wheel

SHARED = ("alpha", "beta", "gamma", "delta")


class Registry:
    """A real registry of one's own, whose storage can be looked at."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address = address
        self.directory = directory

    def times_stored(self, layer: Layer) -> int:
        value = layer.digest.removeprefix("sha256:")
        return len(list(self.directory.rglob(f"blobs/sha256/{value[:2]}/{value}/data")))

    def repositories_with(self, layer: Layer) -> set[str]:
        value = layer.digest.removeprefix("sha256:")
        links = self.directory.rglob(f"_layers/sha256/{value}/link")
        return {link.parents[3].name for link in links}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    directory = tmp_path_factory.mktemp("registry")
    with oci_registry_in(directory, binary) as address:
        yield Registry(address, directory)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where they are: a bento cannot name it, a builder can."""
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return tmp_path / "shelf"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of wheels that were unpacked."""
    names: list[str] = []

    def noted(wheels: Sequence[Wheel], **given: Any) -> None:
        names.extend(wheel.name for wheel in wheels)
        install_wheels(wheels, **given)

    monkeypatch.setattr(environment, "install_wheels", noted)
    return names


def wheels_of(shelf: Path, names: Sequence[str]) -> str:
    """Lines of a lock for wheels that have layers of their own."""
    blocks = range(ALONE // 32 + 1)
    return "".join(
        make_wheel(
            shelf,
            name,
            members={
                f"{name}.py": "there = True\n",
                f"{name}.bin": b"".join(
                    hashlib.sha256(f"{name}{n}".encode()).digest() for n in blocks
                ),
            },
        )
        + "\n"
        for name in names
    )


def two_bentos(folder: Path, shelf: Path) -> list[Bento]:
    """Bentos with different locks, which have four of their wheels in common."""
    return [
        write_bento(folder / name, wheels_of(shelf, (*SHARED, name))) for name in ("one", "two")
    ]


def by_title(image: Image) -> dict[str, Layer]:
    return {layer.title: layer for layer in image.layers if layer.kind == "dependencies"}


def test_a_new_lock_unpacks_and_sends_only_what_is_new(
    registry: Registry, base: str, tmp_path: Path, shelf: Path, installed: list[str]
) -> None:
    bentos = two_bentos(tmp_path, shelf)
    options = ImageOptions(base=base, cache_repository=f"{registry.address}/shared/layers")
    first = by_title(build_image(bentos[0], f"{registry.address}/shared/one", options))
    assert sorted(installed) == sorted([*SHARED, "one", "bentoml"])
    installed.clear()
    plan = plan_image(bentos[1], f"{registry.address}/shared/two", options)
    image = build_image(bentos[1], f"{registry.address}/shared/two", options)
    second = by_title(image)
    assert installed == ["two"]
    common = first.keys() & second.keys()
    assert {f"{name} 1.0" for name in SHARED} < common
    assert common == first.keys() - {"one 1.0"} == second.keys() - {"two 1.0"}
    for title, layer in second.items():
        new = title == "two 1.0"
        assert (layer.origin, layer.placement) == (
            ("built", "sent") if new else ("reused", "mounted")
        )
        assert registry.times_stored(layer) == 1
        assert registry.repositories_with(layer) >= (
            {"two", "layers"} if new else {"one", "two", "layers"}
        )
        assert new or layer.digest == first[title].digest
    planned = {layer.title: layer.action for layer in plan.layers if layer.kind == "dependencies"}
    assert planned == {title: "build" if title == "two 1.0" else "mount" for title in second}
    new_bytes = second["two 1.0"].size
    sent = sum(layer.size for layer in image.layers if layer.placement == "sent")
    assert sent - new_bytes < 20_000  # the source


def test_layers_that_nobody_recorded_are_the_same_blobs_all_the_same(
    registry: Registry, base: str, tmp_path: Path, shelf: Path
) -> None:
    layers = [
        by_title(build_image(bento, f"{registry.address}/apart/{name}", ImageOptions(base=base)))
        for name, bento in zip(("one", "two"), two_bentos(tmp_path, shelf), strict=True)
    ]
    for name in SHARED:
        one, two = (found[f"{name} 1.0"] for found in layers)
        assert one.digest == two.digest
        assert (two.origin, registry.times_stored(two)) == ("built", 1)


def test_wheels_in_known_layers_are_not_fetched_to_be_looked_into(
    registry: Registry, tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def noted(wheels: Sequence[Wheel], *given: Any) -> Any:
        looked.extend(wheel.name for wheel in wheels)
        return read_needs(wheels, *given)

    monkeypatch.setattr(libraries, "read_needs", noted)
    lines = [
        make_wheel(
            shelf,
            name,
            tag=f"py3-none-manylinux_2_28_{MACHINE}",
            members={f"{name}/lib.so": shared_object("libc.so.6")},
        )
        for name in ("one", "two")
    ]
    bare = {**SHELL, PYTHON: program(GLIBC_LOADER), GLIBC_LOADER[1:]: b""}
    bases = [base_of(tmp_path / "bare", bare), base_of(tmp_path / "base", BASE)]
    target = f"{registry.address}/compiled/image"

    def built(tag: str, base: str, count: int) -> list[str]:
        looked.clear()
        bento = write_bento(tmp_path / tag, "\n".join([*lines[:count], ""]))
        build_image(bento, f"{target}:{tag}", ImageOptions(base=base))
        return looked

    assert built("a", bases[0], 1) == []  # nobody asks, on a base without a C library
    assert built("b", bases[1], 1) == ["one"]
    assert built("c", bases[1], 1) == []
    assert built("d", bases[1], 2) == ["two"]


@pytest.mark.slow
def test_images_that_share_their_layers_start(
    registry: Registry, podman: list[str], tmp_path: Path, shared_cache: Path
) -> None:
    layers = []
    for name, more in (("one", "humanize"), ("two", "tabulate")):
        bento = write_bento(tmp_path / name, real_lock(tmp_path, more))
        target = f"{registry.address}/real/{name}"
        layers_at = f"{registry.address}/real/layers"
        options = ImageOptions(base="host", cache=shared_cache, cache_repository=layers_at)
        image = build_image(bento, target, options)
        layers.append(by_title(image))
        with serving(podman, "--tls-verify=false", image.reference) as url:
            assert status(f"{url}/livez") == 200
    one, two = ({layer.digest for layer in found.values()} for found in layers)
    assert len(one & two) >= len(two) - 3
    assert all(registry.times_stored(layer) == 1 for found in layers for layer in found.values())
