"""Another base below an image: the same bytes as a build on it, or a refusal with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import BENTO_YAML, MINOR, write, write_base
from moving import change_image, make_base, skopeo
from typer.testing import CliRunner

from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.cli.application import app
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import build_image, copy_image, rebase_image
from kfp_bento.runtime.images.config import descriptor_of
from kfp_bento.runtime.images.image import OCI_INDEX, parse_platform
from kfp_bento.runtime.images.reference import parse_reference
from kfp_bento.runtime.images.registry import Repository
from kfp_bento.runtime.images.source import open_image

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images import RebasedImage

VARIABLES = """\
envs:
- {name: ZEBRA, value: z}
- {name: GREETING, value: hello}
- {name: FLAVOUR, value: own}
- {name: HOME, value: /elsewhere}
"""


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def old(tmp_path: Path) -> str:
    return make_base(
        tmp_path / "old",
        environment=("FLAVOUR=old", "GONE=1"),
        labels={"from": "old", "gone": "1", "org.opencontainers.image.title": "old base"},
        debian="bookworm",
    )


@pytest.fixture
def new(tmp_path: Path) -> str:
    return make_base(
        tmp_path / "new",
        python=f"{MINOR}.9",
        files={"etc/more": b"fixed", "etc/new": b"1"},
        environment=("ADDED=1", "FLAVOUR=new"),
        labels={"from": "new", "org.opencontainers.image.title": "new base"},
        debian="bookworm",
    )


@pytest.fixture
def rich(bento: Bento) -> Bento:
    """The bento with variables that add to, and override, those of base and builder."""
    greeting = "envs:\n- name: GREETING\n  value: hello\n"
    assert greeting in BENTO_YAML
    write(bento.directory / "bento.yaml", BENTO_YAML.replace(greeting, VARIABLES))
    return load_bento(bento.directory)


def placements(rebased: RebasedImage) -> dict[str, str]:
    return {transfer.title: transfer.placement for transfer in rebased.transfers}


def test_a_rebase_gives_the_bytes_of_a_build_on_the_new_base(
    rich: Bento, old: str, new: str, tmp_path: Path
) -> None:
    build_image(rich, f"oci:{tmp_path}/before", base=old)
    fresh = build_image(rich, f"oci:{tmp_path}/fresh", base=new)
    rebased = rebase_image(f"oci:{tmp_path}/before", new, destination=f"oci:{tmp_path}/after")
    assert rebased.digest == fresh.digest
    assert rebased.changed
    assert rebased.tag == "v1"
    found, built = (open_image(f"oci:{tmp_path}/{name}") for name in ("after", "fresh"))
    assert found.content == built.content
    environment = found.config["config"]["Env"]
    assert {"FLAVOUR=own", "ADDED=1", "HOME=/elsewhere"} <= set(environment)
    assert not [x for x in environment if x.startswith("GONE")]
    skopeo("copy", f"oci:{tmp_path}/after:v1", f"oci:{tmp_path}/checked")


def test_back_on_the_old_base_it_is_the_old_image(
    rich: Bento, old: str, new: str, tmp_path: Path
) -> None:
    before = build_image(rich, f"oci:{tmp_path}/image", base=old)
    assert rebase_image(f"oci:{tmp_path}/image", new).changed
    back = rebase_image(f"oci:{tmp_path}/image", old)
    assert back.digest == before.digest
    assert open_image(f"oci:{tmp_path}/image:v1").descriptor.digest == before.digest


def test_the_times_are_those_of_the_image_not_of_the_rebase(
    bento: Bento, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    build_image(bento, f"oci:{tmp_path}/image", base=old)
    fresh = build_image(bento, f"oci:{tmp_path}/fresh", base=new)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert rebase_image(f"oci:{tmp_path}/image", new).digest == fresh.digest


def test_in_a_registry_only_the_configuration_is_sent(
    bento: Bento, old: str, new: str, oci_registry: str
) -> None:
    for name, base in (("old", old), ("new", new)):
        copy_image(base, f"{oci_registry}/bases/python:{name}")
    bases = f"{oci_registry}/bases/python"
    image = f"{oci_registry}/rebase/tiny"
    build_image(bento, image, base=f"{bases}:old")
    fresh = build_image(bento, f"{oci_registry}/rebase/fresh", base=f"{bases}:new")
    rebased = rebase_image(f"{image}:v1", f"{bases}:new")
    assert rebased.digest == fresh.digest
    assert placements(rebased) == {
        "base layer 1": "present",
        "base layer 2": "mounted",
        "dependencies (1 wheel)": "present",
        "model factor:0123456789abcdef": "present",
        "source of tiny": "present",
        "configuration": "sent",
    }
    assert open_image(f"{image}:v1").descriptor.digest == fresh.digest


def test_into_another_repository_the_own_layers_are_mounted(
    bento: Bento, old: str, new: str, oci_registry: str
) -> None:
    copy_image(new, f"{oci_registry}/bases/two:new")
    image = f"{oci_registry}/mounts/tiny"
    before = build_image(bento, image, base=old)
    rebased = rebase_image(
        f"{image}@{before.digest}",
        f"{oci_registry}/bases/two:new",
        destination=f"{oci_registry}/mounts/other:fixed",
    )
    found = placements(rebased)
    assert found.pop("configuration") == "sent"
    assert set(found.values()) == {"mounted"}
    assert open_image(f"{image}:v1").descriptor.digest == before.digest


def test_a_rebase_onto_the_same_base_does_nothing_and_says_so(
    bento: Bento, old: str, tmp_path: Path
) -> None:
    before = build_image(bento, f"oci:{tmp_path}/image", base=old)
    told: list[str] = []
    stamp = (tmp_path / "image/index.json").stat().st_mtime_ns
    again = rebase_image(f"oci:{tmp_path}/image", old, progress=told.append)
    assert (again.changed, again.transfers, again.digest) == (False, (), before.digest)
    assert "stands on" in told[-1]
    assert (tmp_path / "image/index.json").stat().st_mtime_ns == stamp
    elsewhere = rebase_image(f"oci:{tmp_path}/image", old, destination=f"oci:{tmp_path}/copy")
    assert elsewhere.digest == before.digest


def test_an_image_without_annotations_is_known_by_its_history(
    rich: Bento, old: str, new: str, tmp_path: Path
) -> None:
    build_image(rich, f"docker-archive:{tmp_path}/image.tar", base=old)
    build_image(rich, f"oci:{tmp_path}/fresh", base=new)
    rebased = rebase_image(f"docker-archive:{tmp_path}/image.tar", new)
    assert rebased.changed
    found = open_image(f"docker-archive:{tmp_path}/image.tar:v1")
    built = open_image(f"oci:{tmp_path}/fresh")
    assert found.manifest["config"]["digest"] == built.manifest["config"]["digest"]
    onward = rebase_image(
        f"docker-archive:{tmp_path}/image.tar", old, destination=f"oci:{tmp_path}/onward"
    )
    manifest = open_image(onward.location).manifest
    assert manifest["layers"][-1]["annotations"]["kfp-bento.kind"] == "source"
    names = {"title", "version", "base.digest"}
    assert set(manifest["annotations"]) == {f"org.opencontainers.image.{x}" for x in names}


def test_the_host_can_be_the_new_base_and_the_old_one(
    bento: Bento, tmp_path: Path, new: str
) -> None:
    fresh = build_image(bento, f"oci:{tmp_path}/fresh", base="host")
    build_image(bento, f"oci:{tmp_path}/image", base=new)
    assert rebase_image(f"oci:{tmp_path}/image", "host").digest == fresh.digest
    copy_image(f"oci:{tmp_path}/fresh", f"docker-archive:{tmp_path}/fresh.tar")
    moved = rebase_image(
        f"docker-archive:{tmp_path}/fresh.tar", new, destination=f"oci:{tmp_path}/moved"
    )
    kinds = [layer.kind for layer in open_image(moved.location).layers]
    assert kinds == ["base", "base", "dependencies", "model", "source"]


# What is refused.


@pytest.fixture
def image(bento: Bento, old: str, tmp_path: Path) -> str:
    build_image(bento, f"oci:{tmp_path}/image", base=old)
    return f"oci:{tmp_path}/image:v1"


def test_another_python_is_refused(image: str, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", python="3.99.0")
    with pytest.raises(ImageError, match=r"has Python 3\.99\.0"):
        rebase_image(image, other)


def test_a_python_elsewhere_is_refused(image: str, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", python="")
    with pytest.raises(ImageError, match=f"/usr/bin/python{MINOR}.*/usr/local/bin/python{MINOR}"):
        rebase_image(image, other)


def test_another_platform_is_refused(image: str, tmp_path: Path) -> None:
    own = parse_platform().architecture
    other = "arm64" if own == "amd64" else "amd64"
    single = make_base(tmp_path / "single", architecture=other)
    several = write_base(tmp_path / "several", architectures=(other, "s390x"))
    for base in (single, several):
        with pytest.raises(ImageError, match=f"no image for linux/{own}"):
            rebase_image(image, base)


def test_an_image_that_we_did_not_build_is_refused(new: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not built by kfp-bento"):
        rebase_image(make_base(tmp_path / "theirs"), new)


def test_an_image_with_a_layer_put_on_top_is_refused(image: str, new: str, tmp_path: Path) -> None:
    def add(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"].append(dict(manifest["layers"][0]))
        config["rootfs"]["diff_ids"].append(config["rootfs"]["diff_ids"][0])
        config["history"].append({"created_by": "RUN patch"})

    with pytest.raises(ImageError, match="has been changed"):
        rebase_image(change_image(tmp_path / "image", add), new)


@pytest.mark.parametrize("label", ["kfp-bento.interpreter", "kfp-bento.environment"])
def test_an_image_without_our_labels_is_refused(
    label: str, image: str, new: str, tmp_path: Path
) -> None:
    def remove(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        del config["config"]["Labels"][label]

    with pytest.raises(ImageError, match=label):
        rebase_image(change_image(tmp_path / "image", remove), new)


def with_packages(manifest: dict[str, Any], config: dict[str, Any]) -> None:
    manifest["layers"][2]["annotations"]["kfp-bento.kind"] = "system"


def test_debian_packages_move_between_bases_of_one_release(
    image: str, new: str, tmp_path: Path
) -> None:
    rebased = rebase_image(
        change_image(tmp_path / "image", with_packages), new, destination=f"oci:{tmp_path}/out"
    )
    kinds = [layer.kind for layer in open_image(rebased.location).layers]
    assert kinds == ["base", "base", "system", "model", "source"]


@pytest.mark.parametrize(("release", "said"), [("trixie", "Debian trixie"), ("", "not tell")])
def test_debian_packages_stay_with_their_release(
    release: str, said: str, image: str, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "other", debian=release)
    with pytest.raises(ImageError, match=f"Debian packages.*Debian bookworm.*{said}") as caught:
        changed = change_image(tmp_path / "image", with_packages)
        rebase_image(changed, other, destination=f"oci:{tmp_path}/out")
    assert "Build the image again" in caught.value.hint


def test_unknown_layers_of_an_image_without_annotations_count_as_packages(
    image: str, tmp_path: Path
) -> None:
    def forget(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer.pop("annotations", None)
        config["history"][3]["created_by"] = "kfp-bento: libgomp1 and two more"

    other = make_base(tmp_path / "other", debian="trixie")
    with pytest.raises(ImageError, match="Debian packages"):
        changed = change_image(tmp_path / "image", forget)
        rebase_image(changed, other, destination=f"oci:{tmp_path}/out")


def test_a_digest_and_an_index_have_no_tag_to_move(
    bento: Bento, image: str, new: str, oci_registry: str, tmp_path: Path
) -> None:
    copied = copy_image(image, f"{oci_registry}/pinned/tiny")
    with pytest.raises(InvalidInput, match="names a digest"):
        rebase_image(f"{oci_registry}/pinned/tiny@{copied.digest}", new)
    index = tmp_path / "image/index.json"
    listed = json.loads(index.read_bytes())
    own = parse_platform()
    platform = {"os": own.os, "architecture": own.architecture}
    inner = {**listed, "manifests": [{**listed["manifests"][0], "platform": platform}]}
    content = json.dumps(inner).encode()
    pushed = f"{oci_registry}/pinned/several"
    copy_image(image, f"{pushed}:single")
    Repository(parse_reference(pushed)).tag(descriptor_of(content, OCI_INDEX), content, "all")
    with pytest.raises(InvalidInput, match="several platforms"):
        rebase_image(f"{pushed}:all", new)
    assert rebase_image(f"{pushed}:all", new, tag="fixed").changed


def test_a_refusal_leaves_the_image_as_it_was(image: str, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", python="3.99.0")
    before = sorted(x.name for x in tmp_path.iterdir())
    index = (tmp_path / "image/index.json").read_bytes()
    with pytest.raises(ImageError):
        rebase_image(image, other)
    assert (tmp_path / "image/index.json").read_bytes() == index
    assert sorted(x.name for x in tmp_path.iterdir()) == before


def test_the_command_rebases_in_place(image: str, old: str, new: str) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["image", "rebase", image, "--base", new, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["digest"] == open_image(image).descriptor.digest
    again = runner.invoke(app, ["image", "rebase", image, "--base", new])
    assert "Nothing to do" in again.stdout
