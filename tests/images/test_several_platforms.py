"""One image for two platforms: an index that stands for both, and is there once both are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bases import Root, debian
from handmade import MINOR, open_layer, read_json, real_lock, write, write_base, write_bento
from keys import openssl_pair
from kfp_bento_command import assert_refused, kfp_bento_here
from moving import add_blob, digest_of, skopeo
from registries import registry
from small_wheels import make_wheel

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import (
    Image,
    ImageOptions,
    build_image,
    copy_image,
    load_public_keys,
    own_platform,
    pack_image,
    plan_image,
    read_provenance,
    read_sboms,
    rebase_image,
    verify_image,
    write_attestations,
)
from kfp_bento.runtime.images.oci.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from kfp_bento.runtime.images.places.open import open_image, open_manifest
from kfp_bento.runtime.images.python.installer import MACHINES
from kfp_bento.runtime.local import try_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.bentos import Bento

BOTH = "linux/amd64,linux/arm64"
ARM, AMD = "linux/arm64", "linux/amd64"


@pytest.fixture
def two(tmp_path: Path) -> Bento:
    """A bento with a wheel for each processor, beside those for any."""
    return write_bento(tmp_path / "two", wheels_for(tmp_path / "two", *MACHINES.values()))


def wheels_for(folder: Path, *machines: str) -> str:
    lines = []
    for machine in machines:
        tag = f"py3-none-manylinux_2_28_{machine}"
        line = make_wheel(
            folder / "src/wheels", "fast", tag=tag, members={"fast.py": f"on = {machine!r}\n"}
        )
        marker = f"platform_machine == '{machine}'"
        digest = line.partition(" ")[2]
        lines.append(f"./wheels/fast-1.0-{tag}.whl ; {marker} {digest}\n")
    return "".join(lines)


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path / "registry") as address:
        yield address


@pytest.fixture(params=["layout", "registry"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "layout":
        return f"oci:{tmp_path}/out"
    return f"{request.getfixturevalue('own_registry')}/ml/two"


def raw(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(open_manifest(name).content)
    return document


def platforms_in(index: dict[str, Any]) -> list[str]:
    named = [item["platform"] for item in index["manifests"]]
    return [f"{one['os']}/{one['architecture']}" for one in named]


def titles(image: Image) -> list[str]:
    return [layer.title for layer in image.layers]


def test_an_index_stands_for_the_images_that_single_builds_give(
    two: Bento, base: str, place: str, tmp_path: Path
) -> None:
    options = ImageOptions(base=base, platform=BOTH)
    image = build_image(two, place, options)
    name = f"{place}:v1"
    index = raw(name)
    assert open_manifest(name).descriptor.digest == image.digest
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert platforms_in(index) == [AMD, ARM]
    assert [part.platform for part in image.parts] == [AMD, ARM]
    assert [part.digest for part in image.parts] == [x["digest"] for x in index["manifests"]]
    for part in image.parts:
        alone = build_image(
            two, f"oci:{tmp_path}/alone", ImageOptions(base=base, platform=part.platform)
        )
        assert alone.digest == part.digest
        assert open_image(name).platform  # whichever this machine's is, it is among them
        assert part.layers == alone.layers
    # What is the same for both is made and stored once.
    first, second = (set(part.layers) for part in image.parts)
    assert {layer.kind for layer in first & second} == {"dependencies", "model", "source"}
    assert len(image.layers) == len(first | second)
    assert image.platform == BOTH and image.tags == ("v1",)
    assert Image.from_dict(json.loads(json.dumps(image.to_dict()))) == image


def test_the_same_build_gives_the_same_bytes_in_whatever_order(
    two: Bento, base: str, place: str, tmp_path: Path
) -> None:
    first = build_image(two, place, ImageOptions(base=base, platform=BOTH))
    assert not first.reused
    said: list[str] = []
    turned = ImageOptions(base=base, platform=f" {ARM}, {AMD},{ARM}")
    again = build_image(two, place, turned, progress=said.append)
    assert again.digest == first.digest and again.reused
    if not place.startswith("oci:"):
        assert not [line for line in said if "packing" in line or "installing" in line]
        assert plan_image(two, place, turned).unchanged == first.digest
    elsewhere = build_image(two, f"oci:{tmp_path}/elsewhere", turned)
    assert elsewhere.digest == first.digest
    (two.directory / "src/service.py").write_text("# another service\n")
    changed = build_image(load_bento(two.directory), place, turned)
    assert changed.digest != first.digest and not changed.reused


def test_each_image_has_its_documents_and_the_index_the_signature(
    two: Bento, base: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, public = openssl_pair(tmp_path / "keys")
    monkeypatch.setenv("KFP_BENTO_SIGNING_KEY", str(key))
    image = build_image(two, place, ImageOptions(base=base, platform=BOTH))
    name = f"{place}:v1"
    for platform, machine in ((AMD, "x86_64"), (ARM, "aarch64")):
        (bill,), (statement,) = read_sboms(name, platform), read_provenance(name, platform)
        assert f"manylinux_2_28_{machine}" in bill.decode()
        part = next(part for part in image.parts if part.platform == platform)
        (subject,) = json.loads(statement)["subject"]
        assert f"sha256:{subject['digest']['sha256']}" == part.digest
    verified = verify_image(name, load_public_keys(public))
    assert verified.digest == image.digest
    assert verified.key == image.signed_by
    write_attestations(image, tmp_path / "bill.json", tmp_path / "statements.jsonl")
    assert "manylinux_2_28_x86_64" in (tmp_path / "bill.json").read_text()
    assert len((tmp_path / "statements.jsonl").read_text().splitlines()) == 2


def test_a_rebase_of_the_whole_gives_the_bytes_of_a_build_on_the_new_base(
    two: Bento, base: str, place: str, tmp_path: Path
) -> None:
    new = write_base(tmp_path / "new", python=f"{MINOR}.2")
    built = build_image(two, place, ImageOptions(base=base, platform=BOTH))
    assert not rebase_image(f"{place}:v1", base).changed
    rebased = rebase_image(f"{place}:v1", new)
    fresh = build_image(two, f"oci:{tmp_path}/fresh", ImageOptions(base=new, platform=BOTH))
    assert rebased.changed and rebased.digest == fresh.digest != built.digest
    assert open_manifest(f"{place}:v1").descriptor.digest == fresh.digest
    assert len(rebased.referrers) == 4
    for platform, machine in ((AMD, "x86_64"), (ARM, "aarch64")):
        (bill,) = read_sboms(f"{place}:v1", platform)
        assert f"manylinux_2_28_{machine}" in bill.decode()
    only = write_base(tmp_path / "only", python=f"{MINOR}.3", architectures=("arm64",))
    with pytest.raises(ImageError, match=r"^For linux/amd64: .* has no image for linux/amd64"):
        rebase_image(f"{place}:v1", only)
    assert open_manifest(f"{place}:v1").descriptor.digest == fresh.digest


def test_skopeo_reads_and_copies_the_whole(
    two: Bento, base: str, own_registry: str, tmp_path: Path
) -> None:
    image = build_image(two, f"{own_registry}/ml/two", ImageOptions(base=base, platform=BOTH))
    remote, insecure = f"docker://{own_registry}/ml/two:v1", "--tls-verify=false"
    index = json.loads(skopeo("inspect", "--raw", insecure, remote))
    assert platforms_in(index) == [AMD, ARM]
    folder = f"oci:{tmp_path}/copied:v1"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", remote, folder)
    assert open_manifest(folder).descriptor.digest == image.digest
    ours = copy_image(f"{own_registry}/ml/two:v1", f"oci:{tmp_path}/ours:v1", all_platforms=True)
    assert ours.digest == image.digest and len(ours.referrers) == 4
    for layout in ("copied", "ours"):
        for part in image.parts:
            architecture = part.platform.partition("/")[2]
            asked = ("inspect", "--config", f"--override-arch={architecture}")
            config = json.loads(skopeo(*asked, f"oci:{tmp_path}/{layout}:v1"))
            assert config["architecture"] == architecture
            assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in part.layers]


def test_what_one_platform_lacks_is_said_before_anything_is_sent(
    base: str, own_registry: str, tmp_path: Path
) -> None:
    folder = tmp_path / "bento"
    line = make_wheel(folder / "src/wheels", "fast", tag="py3-none-manylinux_2_28_x86_64")
    named = f"./wheels/fast-1.0-py3-none-manylinux_2_28_x86_64.whl {line.partition(' ')[2]}\n"
    bento = write_bento(folder, named)
    for carried_out in (build_image, plan_image):
        with pytest.raises(ImageError, match=r"^For linux/arm64: .*fast"):
            carried_out(bento, f"{own_registry}/ml/one", ImageOptions(base=base, platform=BOTH))
    only = write_base(tmp_path / "only", architectures=("amd64",))
    with pytest.raises(ImageError, match=r"^For linux/arm64: .* has no image for linux/arm64"):
        build_image(bento, f"{own_registry}/ml/one", ImageOptions(base=only, platform=BOTH))
    stored = [*(tmp_path / "registry").rglob("repositories/*")]
    assert [folder.name for folder in stored] == []


def test_a_build_that_ends_between_two_platforms_moves_no_tag(
    two: Bento, base: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_image(two, place, ImageOptions(base=base, platform=AMD))
    (two.directory / "src/service.py").write_text("# another service\n")
    bento = load_bento(two.directory)
    stored: list[str] = []

    def interrupt(sentence: str) -> None:
        stored.append(sentence)
        if sentence.startswith(f"{ARM}: packing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image(bento, place, ImageOptions(base=base, platform=BOTH), progress=interrupt)
    assert [line for line in stored if line.startswith(f"{AMD}: packing")]
    assert open_manifest(f"{place}:v1").descriptor.digest == before.digest
    done = build_image(bento, place, ImageOptions(base=base, platform=BOTH))
    assert open_manifest(f"{place}:v1").descriptor.digest == done.digest != before.digest


def test_where_only_one_can_be_this_is_said(two: Bento, base: str, tmp_path: Path) -> None:
    both = ImageOptions(base=base, platform=BOTH)
    with pytest.raises(ImageError, match="archive holds an image for one platform only"):
        build_image(two, f"docker-archive:{tmp_path}/x.tar", both)
    with pytest.raises(InvalidInput, match="'linux/amd64,linux/arm64' cannot be built"):
        pack_image(
            *(tmp_path / "lock.txt", f"oci:{tmp_path}/out", both),
            **{"name": "steps", "version": "1", "python": "3.11"},
        )
    for wrong in ("linux/amd64,linux/s390x", "linux/amd64 linux/arm64", ",", "linux/amd64,", " "):
        with pytest.raises(InvalidInput, match="cannot be built"):
            build_image(two, f"oci:{tmp_path}/out", ImageOptions(base=base, platform=wrong))
    build_image(two, f"oci:{tmp_path}/out", both)
    with pytest.raises(InvalidInput, match="images for several platforms"):
        rebase_image(f"oci:{tmp_path}/out:v1", base, platform=AMD)
    with pytest.raises(ImageError, match="archive holds an image for one platform only"):
        rebase_image(f"oci:{tmp_path}/out:v1", base, destination=f"docker-archive:{tmp_path}/x")


def test_the_command_shows_each_image_and_the_index(
    two: Bento, base: str, own_registry: str, tmp_path: Path
) -> None:
    command = ("image", "build", two.directory, "--base", base, "--platform", BOTH)
    to = ("--to", f"{own_registry}/ml/shown")
    planned = kfp_bento_here(*command, *to, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "build" in planned.stdout
    done = kfp_bento_here(*command, *to)
    assert done.returncode == 0, done.stderr
    index = raw(f"{own_registry}/ml/shown:v1")
    digests = [item["digest"] for item in index["manifests"]]
    told = " ".join(done.stdout.split())
    assert all(digest in told for digest in digests)
    assert open_manifest(f"{own_registry}/ml/shown:v1").descriptor.digest in told
    archive = kfp_bento_here(*command, "--to", f"docker-archive:{tmp_path}/x.tar")
    assert_refused(archive, "one platform only")


def base_for(folder: Path, layers: dict[str, bytes]) -> str:
    """A base with a layer for each processor, which says nothing about its Python."""
    found = []
    for architecture, layer in layers.items():
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": add_blob(folder, json.dumps(config).encode(), OCI_CONFIG),
            "layers": [add_blob(folder, layer, OCI_LAYER)],
        }
        entry = add_blob(folder, json.dumps(manifest).encode(), OCI_MANIFEST)
        found.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    outer = add_blob(folder, json.dumps(index).encode(), OCI_INDEX)
    write(folder / "index.json", json.dumps({"schemaVersion": 2, "manifests": [outer]}))
    write(folder / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{folder}"


def machines_in(layout: Path, image: Image) -> set[int]:
    """For which processors the compiled files of an environment are (ELF, `e_machine`)."""
    found = set()
    for layer in image.layers:
        if layer.kind != "dependencies":
            continue
        with open_layer(layout, layer) as files:
            for member in files:
                content = files.extractfile(member) if ".so" in member.name else None
                head = content.read(20) if content else b""
                if head[:4] == b"\x7fELF":
                    found.add(int.from_bytes(head[18:20], "little"))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_real_service_for_two_processors_is_started_on_this_one(
    podman: list[str], tmp_path: Path, shared_cache: Path
) -> None:
    if own_platform() != AMD or MINOR != "3.11":
        pytest.skip("Debian 12 has Python 3.11, and podman starts what is for amd64")
    # What is only unpacked has nothing but what is named, and what that depends on.
    packages = ("base-files", "bash", "coreutils", "libc6", "libpython3.11-stdlib", "libstdc++6")
    packages += ("python3-minimal", "zlib1g")
    layers = {
        "amd64": Root(debian(tmp_path, "bookworm", *packages)).layer(),
        "arm64": Root(debian(tmp_path, "bookworm", *packages, architecture="arm64")).layer(),
    }
    bento = write_bento(tmp_path / "bento", real_lock(tmp_path, "numpy"))
    options = ImageOptions(
        base=base_for(tmp_path / "base", layers), platform=BOTH, cache=shared_cache
    )
    image = build_image(bento, f"oci:{tmp_path}/out", options)
    amd, arm = image.parts
    assert machines_in(tmp_path / "out", amd) == {62}  # EM_X86_64
    assert machines_in(tmp_path / "out", arm) == {183}  # EM_AARCH64
    trial = try_image(image, bento)
    assert (trial.engine, trial.why_not) == ("podman", "")
    with registry(tmp_path / "registry") as address:
        pushed = build_image(bento, f"{address}/ml/two", options)
        assert pushed.digest == image.digest
        assert try_image(pushed, bento).why_not == ""


def test_a_layout_lists_the_index_and_both_images_blobs(
    two: Bento, base: str, tmp_path: Path
) -> None:
    image = build_image(two, f"oci:{tmp_path}/out", ImageOptions(base=base, platform=BOTH))
    index = json.loads((tmp_path / "out/index.json").read_bytes())
    assert index["manifests"][0]["digest"] == image.digest
    for part in image.parts:
        manifest = read_json(tmp_path / "out", part.digest)
        for item in (manifest["config"], *manifest["layers"]):
            blob = tmp_path / "out/blobs/sha256" / item["digest"].removeprefix("sha256:")
            assert blob.stat().st_size == item["size"]
