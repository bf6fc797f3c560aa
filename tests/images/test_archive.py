"""Docker archives: others read ours, we read theirs, and hostile ones are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from containers import run
from handmade import read_json, read_manifest, write
from moving import archive_members, digest_of, make_base, skopeo, tar_of

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images import ImageOptions, build_image, copy_image
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.image import OCI_LAYER, OCI_MANIFEST, Descriptor
from kfp_bento.runtime.images.oci.reference import ArchiveReference, parse_destination
from kfp_bento.runtime.images.oci.tar import CHUNK
from kfp_bento.runtime.images.places.archive import ArchiveSink, archive_sink, open_archive
from kfp_bento.runtime.images.places.layout import LayoutSource
from kfp_bento.runtime.images.places.open import open_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.bentos import Bento


@pytest.fixture
def archive(bento: Bento, base: str, tmp_path: Path) -> Path:
    build_image(bento, f"docker-archive:{tmp_path}/tiny.tar", ImageOptions(base=base))
    return tmp_path / "tiny.tar"


def test_an_archive_holds_the_image_with_its_layers_uncompressed(
    bento: Bento, base: str, archive: Path, tmp_path: Path
) -> None:
    build_image(bento, f"oci:{tmp_path}/layout", ImageOptions(base=base))
    manifest = read_manifest(tmp_path / "layout")
    config = read_json(tmp_path / "layout", manifest["config"]["digest"])
    members = archive_members(archive)
    (described,) = json.loads(members["manifest.json"])
    assert described["RepoTags"] == ["localhost/tiny:v1"]
    assert json.loads(members[described["Config"]]) == config
    assert described["Config"] == f"{manifest['config']['digest'].removeprefix('sha256:')}.json"
    assert [digest_of(members[x]) for x in described["Layers"]] == config["rootfs"]["diff_ids"]


def test_skopeo_reads_an_archive(archive: Path, tmp_path: Path) -> None:
    seen = json.loads(skopeo("inspect", f"docker-archive:{archive}"))
    assert len(seen["Layers"]) == 5
    assert seen["Labels"]["org.opencontainers.image.title"] == "tiny"
    skopeo("copy", f"docker-archive:{archive}:localhost/tiny:v1", f"oci:{tmp_path}/copied:v1")
    ours = open_image(f"docker-archive:{archive}")
    theirs = open_image(f"oci:{tmp_path}/copied:v1")
    assert [x.diff_id for x in theirs.layers] == [x.diff_id for x in ours.layers]


def test_podman_loads_an_archive_and_runs_the_image(
    bento: Bento, podman: list[str], tmp_path: Path, shared_cache: Path
) -> None:
    file = tmp_path / "tiny.tar"
    build_image(bento, f"docker-archive:{file}", ImageOptions(base="host", cache=shared_cache))
    done = subprocess.run(
        [*podman, "load", "--input", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "localhost/tiny:v1" in done.stdout
    greeted = run(podman, "--rm", "--entrypoint", "/app/.venv/bin/greet", "localhost/tiny:v1")
    assert greeted.stdout.startswith("hello")


def test_an_archive_does_not_depend_on_the_order_that_blobs_come_in(
    archive: Path, tmp_path: Path
) -> None:
    opened = open_image(f"docker-archive:{archive}")
    packed = opened.manifest["config"]
    config = Descriptor(packed["mediaType"], packed["digest"], packed["size"])
    written = []
    for name, blobs in (("a", (1, -1)), ("b", (-1, 1))):
        with archive_sink(tmp_path / name, "localhost/x") as sink:
            wanted = [*(layer.descriptor for layer in opened.layers), config]
            for blob in wanted[:: blobs[0]]:
                sink.put_blob(blob, opened.blobs)
            assert sink.tag(opened.descriptor, opened.content, "v1")
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_an_archive_is_the_same_bytes_wherever_and_whenever_it_is_written(
    bento: Bento, base: str, archive: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        build_image(bento, f"docker-archive:{tmp_path}/else/where.tar", ImageOptions(base=base))
    finally:
        os.umask(before)
    assert (tmp_path / "else/where.tar").read_bytes() == archive.read_bytes()


def test_the_same_image_again_leaves_the_archive_alone(
    bento: Bento, base: str, archive: Path
) -> None:
    before = archive.stat()
    again = build_image(bento, f"docker-archive:{archive}", ImageOptions(base=base))
    assert again.reused
    assert (archive.stat().st_ino, archive.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )


def test_an_archive_cut_short_is_written_again(bento: Bento, base: str, archive: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1024])
    assert not build_image(bento, f"docker-archive:{archive}", ImageOptions(base=base)).reused
    assert archive.read_bytes() == whole


def test_an_archive_of_ours_is_replaced_by_another_image(
    bento: Bento, base: str, archive: Path
) -> None:
    build_image(bento, f"docker-archive:{archive}", ImageOptions(base=base, tag="v2"))
    assert open_image(f"docker-archive:{archive}").tag == "v2"


@pytest.mark.parametrize("kind", ["text", "archive of another", "directory", "dangling link"])
def test_what_we_did_not_write_is_left_alone(
    kind: str, bento: Bento, base: str, archive: Path, tmp_path: Path
) -> None:
    target = tmp_path / "mine.tar"
    if kind == "text":
        write(target, "precious")
    elif kind == "directory":
        target.mkdir()
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        skopeo("copy", f"docker-archive:{archive}", f"docker-archive:{target}:a:b")
    before = target.read_bytes() if target.is_file() else None
    with pytest.raises(ImageError, match=r"did not write|cannot be written"):
        build_image(bento, f"docker-archive:{target}", ImageOptions(base=base))
    assert before is None or target.read_bytes() == before
    assert target.is_symlink() == (kind == "dangling link")


def test_a_failure_leaves_neither_an_archive_nor_anything_beside_it(
    archive: Path, tmp_path: Path
) -> None:
    opened = open_image(f"docker-archive:{archive}")
    before = sorted(tmp_path.iterdir())
    with (
        pytest.raises(ImageError, match="never stored"),
        archive_sink(tmp_path / "new.tar", "localhost/x") as sink,
    ):
        sink.put_blob(opened.layers[0].descriptor, opened.blobs)
        sink.tag(opened.descriptor, opened.content, "v1")
    assert sorted(tmp_path.iterdir()) == before


def test_layers_that_the_configuration_does_not_name_are_refused(
    archive: Path, tmp_path: Path
) -> None:
    opened = open_image(f"docker-archive:{archive}")
    swapped = dict(opened.manifest, layers=opened.manifest["layers"][::-1])
    with archive_sink(tmp_path / "new.tar", "localhost/x") as sink:
        for item in [*swapped["layers"], swapped["config"]]:
            blob = Descriptor(item["mediaType"], item["digest"], item["size"])
            sink.put_blob(blob, opened.blobs)
        with pytest.raises(ImageError, match="not those that its configuration names"):
            sink.tag(opened.descriptor, json.dumps(swapped).encode(), "v1")


def test_an_archive_says_that_it_carries_no_referrers() -> None:
    assert ArchiveSink.carries_referrers is False


@pytest.mark.parametrize("packing", ["gzip", "two gzip members", "zstd", "two zstd frames"])
def test_a_layer_that_unpacks_to_a_thousand_times_its_size_takes_no_memory(packing: str) -> None:
    half = bytes(32 << 20)
    pack = gzip.compress if "gzip" in packing else zstandard.ZstdCompressor().compress
    packed = pack(half) * 2 if "two" in packing else pack(half * 2)
    tracemalloc.start()
    sizes = [len(piece) for piece in decompressed(iter([packed]))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= CHUNK
    assert peak < 16 << 20


def test_damaged_compression_is_an_error_in_a_sentence() -> None:
    with pytest.raises(ImageError, match="cannot be decompressed"):
        list(decompressed(iter([gzip.compress(b"x" * 1000)[:20] + b"junk" * 99])))


# Reading what others wrote.


def test_skopeos_archive_is_read(base: str, tmp_path: Path) -> None:
    file = tmp_path / "by-skopeo.tar"
    skopeo("copy", "--override-arch=amd64", base, f"docker-archive:{file}:localhost/base:v7")
    opened = open_image(f"docker-archive:{file}:localhost/base:v7")
    assert (opened.repository, opened.tag) == ("localhost/base", "v7")
    assert [x.diff_id for x in opened.layers] == opened.config["rootfs"]["diff_ids"]
    content = b"".join(opened.blobs.open_blob(opened.layers[0].descriptor))
    assert digest_of(content) == opened.layers[0].diff_id


def test_an_archive_can_be_a_base(bento: Bento, base: str, tmp_path: Path) -> None:
    file = tmp_path / "base.tar"
    skopeo("copy", "--override-arch=amd64", base, f"docker-archive:{file}")
    image = build_image(
        bento,
        f"oci:{tmp_path}/out",
        ImageOptions(base=f"docker-archive:{file}", platform="linux/amd64"),
    )
    assert [layer.kind for layer in image.layers] == [
        *("base", "dependencies", "dependencies", "model", "source")
    ]
    skopeo("copy", f"oci:{tmp_path}/out:v1", f"oci:{tmp_path}/checked")


def test_podmans_archive_of_several_images_is_read(podman: list[str], tmp_path: Path) -> None:
    def do(*arguments: str) -> None:
        done = subprocess.run([*podman, *arguments], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    bases = {
        name: make_base(tmp_path / name, files={"etc/name": name.encode()})
        for name in ("one", "two")
    }
    for name, base in bases.items():
        copy_image(base, f"docker-archive:{tmp_path}/{name}.tar:localhost/{name}:v1")
        do("load", "-q", "-i", f"{tmp_path}/{name}.tar")
    file = f"{tmp_path}/both.tar"
    save = ["save", "-q", "-m", "--format", "docker-archive", "-o", file]
    do(*save, "localhost/one:v1", "localhost/two:v1")
    for name, base in bases.items():
        opened = open_image(f"docker-archive:{file}:localhost/{name}:v1")
        assert [x.diff_id for x in opened.layers] == [x.diff_id for x in open_image(base).layers]
    for wanted in (":localhost/three:v1", ":v1", ""):
        with pytest.raises(ImageError, match="localhost/one:v1, localhost/two:v1"):
            open_image(f"docker-archive:{file}{wanted}")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("docker-archive:a.tar", ArchiveReference(Path("a.tar"))),
        ("docker-archive:/x/a.tar:v1", ArchiveReference(Path("/x/a.tar"), "", "v1")),
        (
            "docker-archive:a.tar:localhost:5000/x/y:v1",
            ArchiveReference(Path("a.tar"), "localhost:5000/x/y", "v1"),
        ),
        (
            "docker-archive:a.tar:python:3.11",
            ArchiveReference(Path("a.tar"), "docker.io/library/python", "3.11"),
        ),
        ("docker-archive:a.tar:quay.io/x", ArchiveReference(Path("a.tar"), "quay.io/x")),
    ],
)
def test_the_name_of_an_archive_is_read_as_skopeo_reads_it(
    text: str, reference: ArchiveReference
) -> None:
    assert parse_destination(text) == reference
    assert parse_destination(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["docker-archive:", "docker-archive::v1", f"docker-archive:a:b/c@sha256:{'0' * 64}"]
)
def test_a_wrong_name_of_an_archive_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_destination(text)


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, len(content)
    return info, content


def write_tar(file: Path, entries: list[Entry]) -> Path:
    with tarfile.open(file, "w") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file


LAYER = tar_of({"etc/x": b"1"})
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(LAYER)]},
    }
).encode()
CONFIG_NAME = f"{hashlib.sha256(CONFIG).hexdigest()}.json"


def manifest_of(layer: str, config: str = CONFIG_NAME, tags: list[str] | None = None) -> Entry:
    listed = [{"Config": config, "RepoTags": tags, "Layers": [layer]}]
    return entry("manifest.json", json.dumps(listed).encode())


def test_an_old_archive_of_docker_with_a_linked_layer_is_read(tmp_path: Path) -> None:
    file = write_tar(
        tmp_path / "old.tar",
        [
            entry("abc/", kind=tarfile.DIRTYPE),
            entry("abc/layer.tar", kind=tarfile.SYMTYPE, to="../def/layer.tar"),
            entry("def/layer.tar", LAYER),
            entry(CONFIG_NAME, CONFIG),
            manifest_of("abc/layer.tar", tags=["python:3.11"]),
        ],
    )
    opened = open_image(f"docker-archive:{file}:3.11")
    assert opened.repository == "docker.io/library/python"
    assert b"".join(opened.blobs.open_blob(opened.layers[0].descriptor)) == LAYER


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_new_archive_of_docker_with_compressed_blobs_is_read(
    packing: str, tmp_path: Path
) -> None:
    pack: Callable[[bytes], bytes] = {
        "gzip": gzip.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }[packing]
    packed = pack(LAYER)
    layer, config = (
        f"blobs/sha256/{hashlib.sha256(content).hexdigest()}" for content in (packed, CONFIG)
    )
    file = write_tar(
        tmp_path / "new.tar",
        [
            entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            entry(layer, packed),
            entry(config, CONFIG),
            manifest_of(layer, config, ["localhost/a:b"]),
        ],
    )
    opened = open_image(f"docker-archive:{file}")
    assert opened.layers[0].media_type == f"{OCI_LAYER}+{packing}"
    assert opened.layers[0].diff_id == digest_of(LAYER)
    copy_image(f"docker-archive:{file}", f"docker-archive:{tmp_path}/plain.tar")
    assert LAYER in archive_members(tmp_path / "plain.tar").values()


def with_size(name: str, size: int) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = size
    return info, b""


HOSTILE: dict[str, tuple[list[Entry], str]] = {
    "a path that leaves": ([entry("../x", b"1")], "leaves"),
    "an absolute path": ([entry("/etc/passwd", b"1")], "leaves"),
    "a link that leaves": (
        [entry("l.tar", kind=tarfile.SYMTYPE, to="../../etc/passwd"), manifest_of("l.tar")],
        "leaves",
    ),
    "an absolute link": (
        [entry("l.tar", kind=tarfile.SYMTYPE, to="/etc/passwd"), manifest_of("l.tar")],
        "leaves",
    ),
    "links in a circle": (
        [
            entry("l.tar", kind=tarfile.SYMTYPE, to="m.tar"),
            entry("m.tar", kind=tarfile.LNKTYPE, to="l.tar"),
            entry(CONFIG_NAME, CONFIG),
            manifest_of("l.tar"),
        ],
        "circle",
    ),
    "a device": ([entry("l.tar", kind=tarfile.BLKTYPE)], "neither file"),
    "a pipe": ([entry("l.tar", kind=tarfile.FIFOTYPE)], "neither file"),
    "a name twice": ([entry("a", b"1"), entry("a", b"2")], "twice"),
    "a missing layer": ([entry(CONFIG_NAME, CONFIG), manifest_of("l.tar")], "no 'l.tar'"),
    "a missing configuration": ([entry("l.tar", LAYER), manifest_of("l.tar")], "no '"),
    "another layer": (
        [entry(CONFIG_NAME, CONFIG), entry("l.tar", LAYER + b"x"), manifest_of("l.tar")],
        "not what the configuration says",
    ),
    "another configuration": (
        [entry(CONFIG_NAME, CONFIG + b" "), entry("l.tar", LAYER), manifest_of("l.tar")],
        "does not hold what its name says",
    ),
    "a blob under a wrong name": (
        [
            entry(CONFIG_NAME, CONFIG),
            entry(f"blobs/sha256/{'0' * 64}", LAYER),
            manifest_of(f"blobs/sha256/{'0' * 64}"),
        ],
        "does not hold what its name says",
    ),
    "a manifest that is no list": ([entry("manifest.json", b"{}")], "no list"),
    "a manifest that is no JSON": ([entry("manifest.json", b"[")], "no JSON"),
    "a manifest nested without end": ([entry("manifest.json", b"[" * 100_000)], "no JSON"),
    "an entry without layers": ([entry("manifest.json", b'[{"Config": "a"}]')], "lacks"),
    "no manifest": ([entry("index.json", b"{}")], "no docker archive"),
    "nothing": ([], "no docker archive"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    entries, reason = HOSTILE[case]
    file = write_tar(tmp_path / "bad.tar", entries)
    with pytest.raises(ImageError, match=reason):
        open_archive(ArchiveReference(file))


def raw(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    padded = content + bytes(-len(content) % 512)
    return info.tobuf(tarfile.GNU_FORMAT) + padded + bytes(10240)


@pytest.mark.parametrize("size", [1 << 40, -512, -(1 << 40)])
def test_a_member_of_absurd_size_is_refused(size: int, tmp_path: Path) -> None:
    file = write(tmp_path / "bad.tar", raw(with_size("l.tar", size)[0]))
    with pytest.raises(ImageError, match=r"absurd size|cut short|no uncompressed tar"):
        open_archive(ArchiveReference(file))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes_is_not_read(kind: bytes, tmp_path: Path) -> None:
    info = with_size("x", 1 << 32)[0]
    info.type = kind
    file = write(tmp_path / "bad.tar", raw(info))
    os.truncate(file, 1 << 32)
    with pytest.raises(ImageError, match="absurd size"):
        open_archive(ArchiveReference(file))


def test_long_chains_of_headers_are_refused(tmp_path: Path) -> None:
    info = with_size("x", 512)[0]
    info.type = tarfile.XHDTYPE
    one = info.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    file = write(tmp_path / "bad.tar", one * 5000)
    with pytest.raises(ImageError, match=r"no uncompressed tar|no docker archive"):
        open_archive(ArchiveReference(file))


@pytest.mark.parametrize("content", [b"", b"hello", gzip.compress(bytes(10240), mtime=0)])
def test_a_file_that_is_no_tar_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no uncompressed tar file"):
        open_archive(ArchiveReference(write(tmp_path / "bad.tar", content)))


def test_an_archive_that_changes_after_it_was_opened_is_noticed(archive: Path) -> None:
    opened = open_image(f"docker-archive:{archive}")
    content = bytearray(archive.read_bytes())
    content[-20_000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ImageError, match="not sha256"):
        for layer in opened.layers:
            for _ in opened.blobs.open_blob(layer.descriptor):
                pass


def test_an_index_does_not_fit_into_an_archive(base: str, tmp_path: Path) -> None:
    source = LayoutSource(Path(base.removeprefix("oci:")))
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}
    with (
        archive_sink(tmp_path / "new.tar", "localhost/x") as sink,
        pytest.raises(ImageError, match="one platform only"),
    ):
        sink.tag(source.find(), json.dumps(index).encode(), "v1")
