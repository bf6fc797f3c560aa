"""Images, layers, archives and packages changed by chance: taken, or refused with a reason."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from debs import link, make_deb, member
from handmade import write, write_base, write_bento
from mutations import AMOUNTS, as_json, changed_bytes, changed_document, fuzzed
from small_wheels import make_wheel

from kfp_bento.runtime.images import ImageOptions, build_image
from kfp_bento.runtime.images.attestations.attachments import documents_of
from kfp_bento.runtime.images.attestations.sbom import sbom_on_base
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.cache.local import LayerCache
from kfp_bento.runtime.images.debian.deb import control_files, data_members
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem, probe_base
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.config import descriptor_of
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.image import OCI_LAYER, Layer, parse_platform
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.oci.reference import ArchiveReference, parse_source
from kfp_bento.runtime.images.places.archive import open_archive
from kfp_bento.runtime.images.places.layout import recorded_image
from kfp_bento.runtime.images.places.open import open_image
from kfp_bento.runtime.images.places.opened_image import parse_document
from kfp_bento.runtime.images.places.tar_index import TarIndex
from kfp_bento.runtime.images.python.environment import settle
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel, locked
from kfp_bento.runtime.images.registry.referrers import entries_of, referrer_entry
from kfp_bento.runtime.images.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

    Target = tuple[Callable[[Any], object], SearchStrategy[Any]]

PLATFORM = parse_platform()


# --- images


def image_documents(folder: Path) -> dict[str, Any]:
    """Index, manifest and configuration of a real image in a layout."""
    write_base(folder, architectures=(PLATFORM.architecture,))
    blobs = BlobDirectory(folder)

    def read(digest: str) -> Any:
        return json.loads(blobs.path(digest).read_bytes())

    top = json.loads((folder / "index.json").read_bytes())
    inner = read(top["manifests"][0]["digest"])
    manifest = read(inner["manifests"][0]["digest"])
    return {
        "top": top,
        "index": inner,
        "manifest": manifest,
        "config": read(manifest["config"]["digest"]),
    }


def reading(folder: Path, part: str) -> Target:
    """Reads an image of which one document was changed; all digests around it are right."""
    documents = image_documents(folder / "layout")
    blobs = BlobDirectory(folder / "layout")

    def check(content: bytes) -> None:
        top, index = documents["top"], documents["index"]
        manifest, config = documents["manifest"], as_json(documents["config"])
        if part == "config":
            config = content
        if part != "manifest":
            described = blobs.put_bytes(config, manifest["config"]["mediaType"])
            packed = as_json({**manifest, "config": described.to_dict()})
        else:
            packed = content
        if part != "index":
            entry = {**index["manifests"][0]}
            entry |= blobs.put_bytes(packed, entry["mediaType"]).to_dict()
            listed = as_json({**index, "manifests": [entry]})
        else:
            listed = content
        inner = blobs.put_bytes(listed, top["manifests"][0]["mediaType"])
        write(
            folder / "layout/index.json",
            content if part == "top" else as_json({**top, "manifests": [inner.to_dict()]}),
        )
        image = open_image(f"oci:{folder}/layout", PLATFORM)
        assert all(layer.size >= 0 for layer in image.layers)
        assert isinstance(image.platform.architecture, str)
        documents_of(image, "application/vnd.cyclonedx+json")

    return check, changed_document(documents[part]).map(as_json) | changed_bytes(
        as_json(documents[part])
    )


def recorded(folder: Path) -> Target:
    write_bento(folder / "bento")
    from kfp_bento.runtime.bentos import load_bento

    base = write_base(folder / "base")
    build_image(load_bento(folder / "bento"), f"oci:{folder}/out:v1", ImageOptions(base=base))
    index = folder / "out/index.json"
    good = json.loads(index.read_bytes())
    inputs = good["annotations"]["kfp-bento.inputs"]

    def check(content: bytes) -> None:
        index.write_bytes(content)
        recorded_image(folder / "out", inputs, "v1")

    return check, changed_document(good).map(as_json) | changed_bytes(as_json(good))


def referrers(folder: Path) -> Target:
    manifest = {"mediaType": "x", "artifactType": "y", "config": {"mediaType": "z"}}
    index = {"manifests": [{"digest": f"sha256:{'0' * 64}", "artifactType": "x", "size": 1}]}
    described = descriptor_of(b"", "x")

    def check(content: bytes) -> None:
        document = parse_document(content, "The list")
        entries_of(document, "name")
        referrer_entry(described, content)

    good = {**index, **manifest}
    return check, changed_document(good).map(as_json) | changed_bytes(as_json(good))


def addresses(folder: Path) -> Target:
    transport = Transport("quay.io", "a", None)  # type: ignore[arg-type]

    def check(content: bytes) -> None:
        text = content.decode("latin-1")
        joined = transport.joined("https://quay.io/v2/", text)
        assert "@" not in urllib.parse.urlsplit(joined).netloc

    return check, changed_bytes(b"https://ali:pw@[::1]:443/a/../b?x=y#z\\@quay.io:80")


def references(folder: Path) -> Target:
    good = b"docker://registry.example:5000/team/app:v1@sha256:" + b"0" * 64
    return lambda content: parse_source(content.decode("latin-1")), changed_bytes(good)


# --- layers and archives


def a_tar() -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in {
            "etc/os-release": b"ID=debian\nVERSION_CODENAME=bookworm\n",
            "var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nVersion: 1\n\n",
            "etc/apt/sources.list": b"deb http://deb.example bookworm main\n",
            "usr/" + "long/" * 40 + "name": b"x" * 700,
            "etc/.wh.gone": b"",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("lib")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/lib"
        archive.addfile(link)
        hard = tarfile.TarInfo("etc/copy")
        hard.type, hard.linkname = tarfile.LNKTYPE, "etc/os-release"
        archive.addfile(hard)
    return plain.getvalue()


def layers(folder: Path) -> Target:
    blobs = BlobDirectory(folder)

    def check(content: bytes) -> None:
        blob = blobs.put_bytes(content, OCI_LAYER)
        names = {"kind": "base", "origin": "base", "title": "x"}
        layer = Layer(
            digest=blob.digest, diff_id=blob.digest, size=blob.size, media_type=OCI_LAYER, **names
        )
        facts = probe_base([layer], blobs)
        assert RootFilesystem.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
        blobs.path(blob.digest).unlink()

    packed = a_tar()
    return check, changed_bytes(packed) | changed_bytes(gzip.compress(packed, mtime=0))


def compressed(folder: Path) -> Target:
    import zstandard

    packed = a_tar()

    def check(content: bytes) -> None:
        left = 64 << 20
        for piece in decompressed(iter([content[:100], content[100:]])):
            left -= len(piece)
            if left < 0:
                return

    zstd = zstandard.ZstdCompressor(write_checksum=True).compress(packed)
    return check, changed_bytes(gzip.compress(packed, mtime=0)) | changed_bytes(zstd)


def indexes(folder: Path) -> Target:
    file = folder / "some.tar"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        index = TarIndex(file)
        for name in ("etc/os-release", "etc/copy", "lib"):
            if name in index:
                assert all(len(piece) for piece in index.find(name).read())

    return check, changed_bytes(a_tar())


def archives(folder: Path) -> Target:
    base = write_base(folder / "base")
    build_image(
        write_bento(folder / "bento"), f"docker-archive:{folder}/good.tar", ImageOptions(base=base)
    )
    good = (folder / "good.tar").read_bytes()
    start = max(good.find(b"manifest.json"), 0)
    file = folder / "bad.tar"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        source = open_archive(ArchiveReference(file))
        json.loads(source.content)

    # Mostly headers and documents: what is in the layers is checked by digest.
    def changed(piece: bytes) -> bytes:
        return good[:start] + piece + good[start + 2048 :]

    return check, changed_bytes(good[start : start + 2048]).map(changed) | changed_bytes(good)


def packages(folder: Path) -> Target:
    made = make_deb(folder / "tiny_1.0_all.deb", [member("usr/a", b"b"), link("b", "a")])
    good = made.read_bytes()
    file = folder / "bad.deb"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        control_files(file)
        for _, content_file in data_members(file):
            if content_file is not None:
                content_file.read()

    return check, changed_bytes(good)


def installed(folder: Path) -> Target:
    """The RECORD of an unpacked wheel: what is settled stays in the tree."""
    packages = folder / "tree/lib/python3.11/site-packages"
    info = packages / "greeter-1.0.dist-info"
    write(packages / "greeter.py", "there = True\n")
    write(folder / "secret", "mine")
    good = b"greeter.py,sha256=abc,13\ngreeter-1.0.dist-info/RECORD,,\n../../../bin/greet,,10\n"

    def check(content: bytes) -> None:
        write(info / "RECORD", content)
        write(folder / "tree/bin/greet", "#!/usr/bin/python3\nprint()\n")
        settle(folder / "tree", "3.11")
        assert (folder / "secret").read_text() == "mine"

    return check, changed_bytes(good)


# --- records


def records(folder: Path) -> Target:
    cache = LayerCache(folder / "cache")
    described = descriptor_of(b"content", OCI_LAYER)
    cache.blobs.put_bytes(b"content", OCI_LAYER)
    names = {"kind": "base", "origin": "reused", "title": "x", "media_type": OCI_LAYER}
    layer = Layer(digest=described.digest, diff_id=described.digest, size=7, **names)
    cache.keep_facts("layer-a", layer.record())
    file = folder / "cache/records/layer-a.json"
    good = json.loads(file.read_bytes())

    def check(content: bytes) -> None:
        file.write_bytes(content)
        # Whatever it is, it is the layer that was kept or none.
        assert cache.find_layer("a") in (None, layer)

    return check, changed_document(good).map(as_json) | changed_bytes(as_json(good))


def layer_facts(folder: Path) -> Target:
    digest = f"sha256:{'0' * 64}"
    good = {"kind": "base", "digest": digest, "diff_id": digest, "size": 1}
    good |= {"media_type": OCI_LAYER, "origin": "built", "title": "x"}

    def check(document: Any) -> None:
        try:
            layer = Layer.from_dict(document)
        except ValueError:
            return
        assert key_of(layer.record())

    return check, changed_document(good)


def selections(folder: Path) -> Target:
    line = make_wheel(folder, "greeter")
    lock = Lock(write(folder / "lock.txt", line + "\n"), folder, "3.11")
    digest = line.rpartition(":")[2]
    good = [Wheel("greeter", "1.0", "greeter-1.0-py3-none-any.whl", digest, 1).to_dict()]

    def check(document: Any) -> None:
        try:
            wheels = [Wheel.from_dict(item) for item in document]
        except (TypeError, ValueError):
            return
        if locked(wheels, lock):
            assert [wheel.sha256 for wheel in wheels] == [digest]
            assert not any("\n" in str(value) for value in wheels[0].to_dict().values())

    return check, changed_document(good)


def bills(folder: Path) -> Target:
    good = {"metadata": {"component": {}, "timestamp": "", "tools": {"components": [{}]}}}
    good |= {"components": [{"type": "library", "bom-ref": "x"}]}
    content = as_json(good)
    base = BaseImage("host", "", {}, (), BlobDirectory(folder), "", "")
    return lambda text: sbom_on_base(text, base), changed_document(good).map(
        as_json
    ) | changed_bytes(content)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "top": lambda folder: reading(folder, "top"),
    "index": lambda folder: reading(folder, "index"),
    "manifest": lambda folder: reading(folder, "manifest"),
    "config": lambda folder: reading(folder, "config"),
    "recorded image": recorded,
    "referrers": referrers,
    "addresses": addresses,
    "references": references,
    "layers": layers,
    "compressed layers": compressed,
    "tar indexes": indexes,
    "docker archives": archives,
    "packages": packages,
    "installed wheels": installed,
    "cache records": records,
    "layer records": layer_facts,
    "selections": selections,
    "bills": bills,
}


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("target", TARGETS)
def test_what_was_changed_by_chance_is_taken_or_refused(
    target: str, amount: int, tmp_path: Path
) -> None:
    fuzzed(*TARGETS[target](tmp_path), amount)
