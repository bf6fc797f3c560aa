"""Copies of whole images between registries, layouts and archives."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import MINOR, read_json, write_base
from moving import add_blob, change_image, digest_of, make_base, set_image, skopeo
from typer.testing import CliRunner

from kfp_bento.runtime.cli.application import app
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import ImageOptions, build_image, copy_image, rebase_image
from kfp_bento.runtime.images.oci.image import OCI_INDEX, OCI_MANIFEST, Descriptor, parse_platform
from kfp_bento.runtime.images.oci.reference import parse_reference
from kfp_bento.runtime.images.oci.transfer import AT_ONCE, BlobUpload, put_blobs
from kfp_bento.runtime.images.places.layout import LayoutSource, layout_sink
from kfp_bento.runtime.images.places.open import open_image, open_manifest
from kfp_bento.runtime.images.registry.repository import Repository

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images.copy import CopiedImage

SBOM = "application/vnd.cyclonedx+json"


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def image(bento: Bento, base: str, tmp_path: Path) -> str:
    build_image(bento, f"oci:{tmp_path}/image", ImageOptions(base=base))
    return f"oci:{tmp_path}/image:v1"


def placements(copied: CopiedImage) -> set[str]:
    return {transfer.placement for transfer in copied.transfers}


def test_a_copy_to_a_registry_keeps_manifest_and_digest(image: str, oci_registry: str) -> None:
    copied = copy_image(image, f"{oci_registry}/copy/tiny")
    before, after = open_image(image), open_image(f"{oci_registry}/copy/tiny:v1")
    assert after.content == before.content
    assert copied.digest == after.descriptor.digest == before.descriptor.digest
    assert (copied.tag, copied.converted, copied.changed) == ("v1", False, True)
    assert placements(copied) == {"sent"}
    # Five layers and the configuration; two documents and the empty configuration they share.
    assert len(copied.transfers) == 9


def test_a_second_copy_sends_nothing(image: str, oci_registry: str) -> None:
    copy_image(image, f"{oci_registry}/again/tiny")
    again = copy_image(image, f"{oci_registry}/again/tiny")
    assert placements(again) == {"present"}
    assert not again.changed


@pytest.mark.slow
def test_the_base_of_this_machine_becomes_an_image_for_others_to_build_on(
    bento: Bento, oci_registry: str, tmp_path: Path
) -> None:
    copied = copy_image("host", f"{oci_registry}/bases/python")
    assert (copied.source, copied.tag, copied.changed) == ("host", MINOR, True)
    assert placements(copied) == {"sent"}
    assert not copy_image("host", f"{oci_registry}/bases/python:{MINOR}").changed
    base = f"{oci_registry}/bases/python:{MINOR}"
    built = build_image(bento, f"oci:{tmp_path}/on-it", ImageOptions(base=base))
    assert built.layers[0].digest == copied.transfers[0].digest


def test_a_copy_within_a_registry_mounts_every_blob(image: str, oci_registry: str) -> None:
    copy_image(image, f"{oci_registry}/from/tiny")
    copied = copy_image(f"{oci_registry}/from/tiny:v1", f"{oci_registry}/to/tiny:stable")
    assert placements(copied) == {"mounted"}
    assert open_image(f"{oci_registry}/to/tiny:stable").descriptor.digest == copied.digest


def test_skopeo_finds_the_copy_the_same(image: str, oci_registry: str) -> None:
    copied = copy_image(image, f"{oci_registry}/seen/tiny")
    seen = json.loads(
        skopeo("inspect", "--tls-verify=false", f"docker://{oci_registry}/seen/tiny:v1")
    )
    assert seen["Digest"] == copied.digest


def test_registry_archive_layout_registry_keeps_diff_ids_and_configuration(
    image: str, oci_registry: str, tmp_path: Path
) -> None:
    places = [
        f"{oci_registry}/round/a:v1",
        f"docker-archive:{tmp_path}/round.tar:localhost/round:v1",
        f"oci:{tmp_path}/round:v1",
        f"{oci_registry}/round/b:v1",
    ]
    first = open_image(image)
    source = image
    for place in places:
        copy_image(source, place)
        opened = open_image(place)
        assert [x.diff_id for x in opened.layers] == [x.diff_id for x in first.layers]
        assert opened.manifest["config"]["digest"] == first.manifest["config"]["digest"]
        source = place
    for layer in opened.layers:
        assert sum(map(len, opened.blobs.open_blob(layer.descriptor))) == layer.size


def test_the_name_in_an_archive_is_that_of_the_source(
    image: str, oci_registry: str, tmp_path: Path
) -> None:
    copy_image(image, f"{oci_registry}/named/tiny")
    copied = copy_image(f"{oci_registry}/named/tiny:v1", f"docker-archive:{tmp_path}/a.tar")
    assert copied.converted
    assert copied.location == f"docker-archive:{tmp_path}/a.tar"
    opened = open_image(f"docker-archive:{tmp_path}/a.tar:v1")
    assert opened.repository == f"{oci_registry}/named/tiny"
    copy_image(image, f"docker-archive:{tmp_path}/b.tar")
    assert open_image(f"docker-archive:{tmp_path}/b.tar").repository == "localhost/tiny"


# Docker's own media types.


def test_a_docker_image_stays_as_it_is_in_a_registry(oci_registry: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "docker", docker_types=True)
    copied = copy_image(base, f"{oci_registry}/docker/base:1")
    assert not copied.converted
    assert copied.digest == open_image(base).descriptor.digest
    assert "docker" in open_image(f"{oci_registry}/docker/base:1").descriptor.media_type


def test_a_docker_image_becomes_an_oci_image_in_a_layout(tmp_path: Path) -> None:
    base = write_base(tmp_path / "docker", docker_types=True)
    copied = copy_image(base, f"oci:{tmp_path}/out:1")
    before, after = open_image(base), open_image(f"oci:{tmp_path}/out:1")
    assert copied.converted
    assert "docker" not in json.dumps(after.manifest)
    assert after.manifest["config"]["digest"] == before.manifest["config"]["digest"]
    assert [x.digest for x in after.layers] == [x.digest for x in before.layers]
    skopeo("copy", f"oci:{tmp_path}/out:1", f"oci:{tmp_path}/checked")


# Several platforms.


def test_one_platform_of_an_index_is_copied(base: str, tmp_path: Path) -> None:
    for name in ("arm64", "amd64"):
        copy_image(base, f"oci:{tmp_path}/{name}", platform=f"linux/{name}")
        assert open_image(f"oci:{tmp_path}/{name}").platform.architecture == name
    copy_image(base, f"oci:{tmp_path}/own")
    assert open_image(f"oci:{tmp_path}/own").platform == parse_platform()


def test_a_platform_that_is_not_there_is_refused(base: str, tmp_path: Path) -> None:
    other = "arm64" if parse_platform().architecture == "amd64" else "amd64"
    single = make_base(tmp_path / "single")
    only = write_base(tmp_path / "only", architectures=("s390x",))
    for source in (single, only):
        with pytest.raises(ImageError, match=f"no image for linux/{other}"):
            copy_image(source, f"oci:{tmp_path}/out", platform=f"linux/{other}")
    assert not (tmp_path / "out").exists()


def test_an_index_is_copied_as_a_whole(base: str, oci_registry: str, tmp_path: Path) -> None:
    before = open_manifest(base)
    copied = copy_image(base, f"{oci_registry}/all/base:1", all_platforms=True)
    assert copied.digest == before.descriptor.digest
    copy_image(f"{oci_registry}/all/base:1", f"oci:{tmp_path}/back", all_platforms=True)
    assert open_manifest(f"oci:{tmp_path}/back").content == before.content
    for name in ("amd64", "arm64"):
        opened = open_image(f"oci:{tmp_path}/back", parse_platform(f"linux/{name}"))
        assert opened.platform.architecture == name
        assert sum(map(len, opened.blobs.open_blob(opened.layers[0].descriptor)))


def test_an_index_as_a_whole_does_not_fit_into_an_archive(base: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="one platform only"):
        copy_image(base, f"docker-archive:{tmp_path}/a.tar", all_platforms=True)
    assert [x.name for x in tmp_path.iterdir()] == ["base"]
    with pytest.raises(InvalidInput, match="one platform or of all"):
        copy_image(base, f"oci:{tmp_path}/b", all_platforms=True, platform="linux/amd64")


# What refers to an image.


def attach(layout: Path, kind: str, content: bytes, subject: Descriptor) -> Descriptor:
    """Attaches a document to an image in a layout, as `put_referrers` would."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": add_blob(layout, b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [add_blob(layout, content, kind)],
        "subject": subject.to_dict(),
    }
    item = add_blob(layout, json.dumps(document).encode(), OCI_MANIFEST)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"].append({**item, "artifactType": kind})
    (layout / "index.json").write_text(json.dumps(index))
    return Descriptor(OCI_MANIFEST, item["digest"], item["size"])


def test_what_refers_to_an_image_comes_along(image: str, tmp_path: Path) -> None:
    subject = open_image(image).descriptor
    sbom = attach(tmp_path / "image", SBOM, b'{"bomFormat": "CycloneDX"}', subject)
    signature = attach(tmp_path / "image", "application/x-signature", b"signed", sbom)
    stranger = Descriptor(OCI_MANIFEST, f"sha256:{'1' * 64}", 1)
    attach(tmp_path / "image", SBOM, b"of another image", stranger)
    ours = [x["digest"] for x in LayoutSource(tmp_path / "image").referrers(subject.digest)]
    copied = copy_image(image, f"oci:{tmp_path}/out")
    assert len(ours) == 3
    assert set(copied.referrers) == {*ours, signature.digest}
    found = LayoutSource(tmp_path / "out")
    assert {x["digest"] for x in found.referrers(subject.digest)} == set(ours)
    assert [x["digest"] for x in found.referrers(sbom.digest)] == [signature.digest]
    assert (
        b"bomFormat"
        in (
            tmp_path
            / "out/blobs/sha256"
            / hashlib.sha256(b'{"bomFormat": "CycloneDX"}').hexdigest()
        ).read_bytes()
    )
    assert open_image(f"oci:{tmp_path}/out").descriptor == subject


def test_what_refers_to_an_image_is_pushed_with_it(
    image: str, oci_registry: str, tmp_path: Path
) -> None:
    sbom = attach(tmp_path / "image", SBOM, b"{}", open_image(image).descriptor)
    copy_image(image, f"{oci_registry}/pushed/tiny")
    repository = Repository(parse_reference(f"{oci_registry}/pushed/tiny"))
    assert repository.fetch_manifest(sbom.digest)[0] == sbom


def attach_index(layout: Path, subject: Descriptor, *, nested: bool = False) -> set[str]:
    """Attaches an index of two artifacts; gives the digests of all manifests."""
    inner = []
    for content in (b"for amd64", b"for arm64"):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": add_blob(layout, b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [add_blob(layout, content, "application/x-signature")],
        }
        inner.append(add_blob(layout, json.dumps(document).encode(), OCI_MANIFEST))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": inner}
    if nested:
        index["manifests"] = [add_blob(layout, json.dumps(index).encode(), OCI_INDEX)]
    about = {"artifactType": "application/x-signatures", "subject": subject.to_dict()}
    item = add_blob(layout, json.dumps({**index, **about}).encode(), OCI_INDEX)
    listed = json.loads((layout / "index.json").read_bytes())
    listed["manifests"].append({**item, "artifactType": "application/x-signatures"})
    (layout / "index.json").write_text(json.dumps(listed))
    return {x["digest"] for x in (item, *inner)}


def test_an_index_that_refers_to_an_image_comes_along_with_all_that_it_lists(
    image: str, oci_registry: str, tmp_path: Path
) -> None:
    subject = open_image(image).descriptor
    digests = attach_index(tmp_path / "image", subject)
    copied = copy_image(image, f"{oci_registry}/indexed/tiny")
    assert digests & set(copied.referrers)
    back = copy_image(f"{oci_registry}/indexed/tiny:v1", f"oci:{tmp_path}/back")
    assert set(back.referrers) == set(copied.referrers)
    stored = {f"sha256:{x.name}" for x in (tmp_path / "back/blobs/sha256").iterdir()}
    assert digests | {digest_of(b"for amd64"), digest_of(b"for arm64")} <= stored


def test_an_index_within_an_attached_index_stays_behind_alone(image: str, tmp_path: Path) -> None:
    before = copy_image(image, f"oci:{tmp_path}/before")
    attach_index(tmp_path / "image", open_image(image).descriptor, nested=True)
    copied = copy_image(image, f"oci:{tmp_path}/out")
    assert "holds an index within an index" in copied.left_behind
    assert copied.referrers == before.referrers != ()


def test_what_cannot_come_along_is_told(image: str, tmp_path: Path) -> None:
    copied = copy_image(image, f"docker-archive:{tmp_path}/a.tar")
    assert copied.referrers == ()
    assert copied.left_behind.startswith("2 attached")
    nothing = copy_image(f"docker-archive:{tmp_path}/a.tar", f"docker-archive:{tmp_path}/b.tar")
    assert nothing.left_behind == ""


def test_a_layout_of_ours_with_attachments_needs_no_tag(image: str, tmp_path: Path) -> None:
    attach(tmp_path / "image", SBOM, b"{}", open_image(image).descriptor)
    assert open_image(f"oci:{tmp_path}/image").descriptor == open_image(image).descriptor


# To where it is already.


def test_a_layout_copied_to_itself_is_left_as_it_is(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "image/index.json").stat()
    (tmp_path / "link").symlink_to(tmp_path / "image")
    monkeypatch.chdir(tmp_path)
    for target in (image, f"oci:{tmp_path}/image", f"oci:{tmp_path}/link:v1", "oci:image"):
        copied = copy_image(image, target)
        assert (copied.changed, copied.converted, copied.transfers) == (False, False, ())
        assert copied.digest == open_image(image).descriptor.digest
    assert (tmp_path / "image/index.json").stat() == before


def test_an_archive_copied_to_itself_is_left_as_it_is(image: str, tmp_path: Path) -> None:
    archive = f"docker-archive:{tmp_path}/a.tar"
    copy_image(image, archive)
    before = (tmp_path / "a.tar").stat()
    assert not copy_image(archive, f"{archive}:v1").changed
    assert (tmp_path / "a.tar").stat() == before
    assert copy_image(archive, f"{archive}:localhost/other:v1").changed
    assert open_image(archive).repository == "localhost/other"


def test_a_foreign_layout_copied_to_itself_is_no_intrusion(tmp_path: Path) -> None:
    make_base(tmp_path / "theirs")
    theirs = change_image(tmp_path / "theirs", lambda manifest, config: None, "v7")
    assert not copy_image(theirs, theirs).changed
    with pytest.raises(ImageError, match="did not write"):
        copy_image(theirs, f"oci:{tmp_path}/theirs:v8")


def test_in_a_registry_only_another_tag_is_another_place(
    image: str, base: str, oci_registry: str
) -> None:
    place = f"{oci_registry}/itself/tiny"
    copied = copy_image(image, f"{place}:v1")
    assert copy_image(f"{place}:v1", place).transfers == ()
    assert copy_image(f"{place}:v1", f"{place}:v2").changed
    copy_image(base, f"{place}:v1", all_platforms=True)
    assert copy_image(f"{place}:v1", f"{place}:v1", all_platforms=True).transfers == ()
    assert copy_image(f"{place}@{copied.digest}", f"{place}:v1").changed
    copy_image(base, f"{place}:v1", all_platforms=True)
    assert copy_image(f"{place}:v1", f"{place}:v1", platform="linux/amd64").changed


def test_the_command_says_that_an_image_is_already_there(image: str) -> None:
    done = CliRunner().invoke(app, ["image", "copy", image, image])
    assert done.exit_code == 0, done.output
    assert "Already there" in done.stdout


# Failures.


def test_a_damaged_layer_leaves_nothing_behind(image: str, tmp_path: Path) -> None:
    layer = open_image(image).layers[-1]
    blob = tmp_path / "image/blobs/sha256" / layer.digest.removeprefix("sha256:")
    blob.write_bytes(bytes(layer.size))
    before = sorted(x.name for x in tmp_path.iterdir())
    for target in (f"oci:{tmp_path}/out", f"docker-archive:{tmp_path}/out.tar"):
        with pytest.raises(ImageError, match="not sha256"):
            copy_image(image, target)
    assert sorted(x.name for x in tmp_path.iterdir()) == before


def test_a_damaged_layer_gets_no_tag_in_a_registry(
    image: str, oci_registry: str, tmp_path: Path
) -> None:
    layer = open_image(image).layers[-1]
    blob = tmp_path / "image/blobs/sha256" / layer.digest.removeprefix("sha256:")
    blob.write_bytes(bytes(layer.size))
    with pytest.raises(ImageError):
        copy_image(image, f"{oci_registry}/damaged/tiny")
    repository = Repository(parse_reference(f"{oci_registry}/damaged/tiny"))
    assert repository.head_manifest("v1") is None


def test_a_layout_of_another_is_left_alone(image: str, base: str) -> None:
    index = Path(base.removeprefix("oci:")) / "index.json"
    before = index.read_bytes()
    with pytest.raises(ImageError, match="did not write"):
        copy_image(image, base)
    assert index.read_bytes() == before


class Meeting:
    """A source that gives nothing out before four ask at the same time."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(AT_ONCE, timeout=20)

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        self.barrier.wait()
        yield blob.media_type.encode()

    def local_path(self, blob: Descriptor) -> Path | None:
        return None


def test_four_blobs_are_moved_at_a_time_and_each_once(tmp_path: Path) -> None:
    blobs = [Descriptor(str(n), digest_of(str(n).encode()), 1) for n in range(AT_ONCE)]
    source = Meeting()
    loads = [BlobUpload("x", blob, source) for blob in [*blobs, *blobs]]
    with layout_sink(tmp_path / "out") as sink:
        transfers = put_blobs(sink, loads, lambda text: None)
    assert [x.digest for x in transfers] == [x.digest for x in blobs]


def test_an_image_that_is_no_image_of_ours_is_copied_as_it_is(tmp_path: Path) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["annotations"] = {"theirs": "kept"}
        manifest["unknown"] = [1]
        manifest["layers"][0]["mediaType"] = "application/x-unheard-of"

    make_base(tmp_path / "odd")
    odd = change_image(tmp_path / "odd", change)
    copied = copy_image(odd, f"oci:{tmp_path}/out")
    assert open_image(f"oci:{tmp_path}/out").content == open_image(odd).content
    assert not copied.converted


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": "abc"},
        {"layers": [1]},
        {"layers": [{"digest": "sha256:../x", "size": 1}]},
        {"layers": [{}]},
        {"config": 5},
        {"config": {"digest": f"sha256:{'0' * 64}", "size": 1 << 60}},
        {"annotations": [1]},
    ],
)
def test_a_malformed_manifest_is_an_error_in_a_sentence(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    make_base(tmp_path / "odd")
    index = json.loads((tmp_path / "odd/index.json").read_bytes())
    manifest = read_json(tmp_path / "odd", index["manifests"][0]["digest"])
    odd = set_image(tmp_path / "odd", {**manifest, **fields}, "v1")
    with pytest.raises(ImageError):
        copy_image(odd, f"docker-archive:{tmp_path}/out.tar")
    with pytest.raises(ImageError):
        rebase_image(odd, odd)
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("manifests", ["abc", [1], [{"platform": 1}], [{"digest": 1}]])
def test_a_malformed_index_is_an_error_in_a_sentence(manifests: Any, tmp_path: Path) -> None:
    make_base(tmp_path / "odd")
    odd = set_image(tmp_path / "odd", {"schemaVersion": 2, "manifests": manifests})
    content = (tmp_path / "odd/index.json").read_text()
    (tmp_path / "odd/index.json").write_text(content.replace(OCI_MANIFEST, OCI_INDEX))
    for all_platforms in (False, True):
        with pytest.raises(ImageError):
            copy_image(odd, f"oci:{tmp_path}/out", all_platforms=all_platforms)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_became_of_each_blob(
    image: str, oci_registry: str, tmp_path: Path
) -> None:
    runner = CliRunner()
    target = f"{oci_registry}/command/tiny"
    done = runner.invoke(app, ["image", "copy", image, target, "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["bytes"]["sent"] == sum(blob["size"] for blob in facts["blobs"]) > 0
    again = runner.invoke(app, ["image", "copy", image, target])
    assert "Already there" in again.stdout
    assert "present" in again.stdout
    refused = runner.invoke(app, ["image", "copy", image, "tiny"])
    assert refused.exit_code == 2
