"""Other tools and the specification on our images: what we write is what everybody reads."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

import pytest
from generated_trees import (
    DIRECTORY,
    Tree,
    found_tree,
    laid_over,
    make_tree,
    write_tree,
)
from handmade import MINOR, write_base, write_bento
from image_specification import Read, check_image, sha256, uncompressed

from kfp_bento.runtime.images import Image, ImageOptions, build_image
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of
from kfp_bento.runtime.images.oci.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Layer
from kfp_bento.runtime.images.oci.layers import codec_named, write_layer
from kfp_bento.runtime.images.oci.tar import walk_tree
from kfp_bento.runtime.images.places.layout import layout_sink

OWNER = 1034
ROOT = os.geteuid() == 0


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def call(*command: object, **options: Any) -> bytes:
    done = subprocess.run([*map(str, command)], capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


# Generated trees, written by us and unpacked by umoci.


def write_image(layers: list[Layer], sink: Any) -> None:
    """An image of just these layers, whose blobs the sink has."""
    config = canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    sink.blobs.put_bytes(config, OCI_CONFIG)
    text = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor_of(config, OCI_CONFIG).to_dict(),
            "layers": [layer.descriptor.to_dict() for layer in layers],
        }
    )
    manifest = descriptor_of(text, OCI_MANIFEST)
    sink.put_manifest(manifest, text)
    sink.tag(manifest, text, "v1")


def unpack(layout: Path, bundle: Path) -> bytes:
    mode = [] if ROOT else ["--rootless"]
    call(tool("umoci"), "unpack", *mode, "--image", f"{layout}:v1", bundle)
    return os.fsencode(bundle / "rootfs")


@pytest.mark.parametrize("seed", range(12))
def test_a_generated_tree_comes_out_of_umoci_as_it_went_in(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    epoch = rng.choice([315532800, 1700000000, 0o77777777777])
    codec = codec_named(rng.choice(["gzip", "none"]))
    expected: Tree = {}
    layers = []
    with layout_sink(tmp_path / "out") as sink:
        for number in range(3):
            tree = make_tree(rng, expected)
            write_tree(tree, os.fsencode(tmp_path / f"tree{number}"))
            entries = walk_tree(tmp_path / f"tree{number}", "top", owner=OWNER)
            layers.append(
                write_layer(entries, sink.blobs, codec, kind="source", title="x", epoch=epoch)
            )
            expected = laid_over(expected, tree)
        write_image(layers, sink)
    root = unpack(tmp_path / "out", tmp_path / "bundle") + b"/top"
    found = found_tree(root)
    assert sorted(found) == sorted(expected)
    assert [path for path in expected if found[path] != expected[path]] == []
    for path in [b".", *expected]:
        status = os.lstat(root + b"/" + path)
        assert status.st_mtime == epoch, path
        if ROOT:
            assert (status.st_uid, status.st_gid) == (OWNER, OWNER), path


def test_generated_trees_hold_what_they_are_meant_to_test() -> None:
    trees = [make_tree(random.Random(seed), {}) for seed in range(12)]
    paths = [path for tree in trees for path in tree]
    nodes = [node for tree in trees for node in tree.values()]
    assert max(map(len, paths)) > 255
    assert max(path.count(b"/") for path in paths) >= 59
    assert any(b"\n" in path for path in paths)
    assert any(b"\xff" in path.split(b"/") for path in paths)
    assert {0, 512, 10240} <= {len(node.content) for node in nodes if node.kind == "file"}
    chained = [
        (tree, path, node)
        for tree in trees
        for path, node in tree.items()
        if node.kind == "symlink"
        if (target := os.path.normpath(path + b"/../" + node.content)) in tree
        if tree[target].kind == "symlink" and target != path
    ]
    assert chained
    empty = [
        path
        for tree in trees
        for path, node in tree.items()
        if node == DIRECTORY and not any(other.startswith(path + b"/") for other in tree)
    ]
    assert len(empty) > 12


# The rules of the image specification.


def reader(folder: Path) -> Read:
    return lambda digest: (folder / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("docker_types", [False, True])
def test_an_image_keeps_every_rule_of_the_specification(
    compression: str, docker_types: bool, tmp_path: Path
) -> None:
    bento = write_bento(tmp_path / "bento")
    base = write_base(tmp_path / "base", docker_types=docker_types)
    image = build_image(
        bento, f"oci:{tmp_path}/out", ImageOptions(base=base, compression=compression)
    )
    check_image(image.digest, reader(tmp_path / "out"))
    layout = json.loads((tmp_path / "out/oci-layout").read_bytes())
    assert layout == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((tmp_path / "out/index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (
        2,
        "application/vnd.oci.image.index.v1+json",
    )
    name = "org.opencontainers.image.ref.name"
    named = [item for item in index["manifests"] if name in item.get("annotations", {})]
    assert [item["annotations"][name] for item in named] == ["v1"]
    stored = {f"sha256:{path.name}" for path in (tmp_path / "out/blobs/sha256").iterdir()}
    needed = {image.digest}
    for item in index["manifests"]:
        manifest = json.loads(reader(tmp_path / "out")(item["digest"]))
        blobs = (manifest["config"], *manifest["layers"])
        needed |= {item["digest"], *(blob["digest"] for blob in blobs)}
    assert stored == needed


def test_the_checker_notices_a_wrong_image(tmp_path: Path) -> None:
    bento, base = write_bento(tmp_path / "bento"), write_base(tmp_path / "base")
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    read = reader(tmp_path / "out")

    def swapped(digest: str) -> bytes:
        # Two diff ids in the wrong order, with digests that are right.
        content = read(image.digest)
        manifest = json.loads(content)
        config = json.loads(read(manifest["config"]["digest"]))
        config["rootfs"]["diff_ids"].reverse()
        changed = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
        manifest["config"].update(digest=sha256(changed), size=len(changed))
        wrong = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        return {sha256(wrong): wrong, sha256(changed): changed, "": wrong}.get(digest) or read(
            digest
        )

    with pytest.raises(AssertionError):
        check_image(sha256(swapped("")), swapped)


# Tools that others use.


def probe() -> bytes:
    """The smallest program for Linux: it ends with status 42 and needs no other file."""
    code, number = {
        # mov edi, 42; mov eax, 60 (exit); syscall
        "x86_64": (bytes.fromhex("bf2a000000b83c0000000f05"), 62),
        # mov x0, #42; mov x8, #93 (exit); svc #0
        "aarch64": (bytes.fromhex("400580d2a80b80d2010000d4"), 183),
    }[machine()]
    start, size = 0x400000, 120 + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, start + 120, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 4096)
    return identity + header + segment + code


@dataclass(frozen=True)
class Built:
    """An image of a bento that holds a program, in a layout."""

    layout: Path
    image: Image
    compression: str

    @property
    def reference(self) -> str:
        return f"oci:{self.layout}:v1"

    @property
    def read(self) -> Read:
        return reader(self.layout)


@pytest.fixture(scope="module", params=["gzip", "zstd"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    if machine() not in {"x86_64", "aarch64"}:
        pytest.skip("the program of these tests is for amd64 and arm64")
    folder = tmp_path_factory.mktemp("interop")
    bento = write_bento(folder / "bento")
    (bento.directory / "src/probe").write_bytes(probe())
    (bento.directory / "src/probe").chmod(0o755)
    base = write_base(folder / "base")
    image = build_image(
        bento, f"oci:{folder}/out", ImageOptions(base=base, compression=request.param)
    )
    return Built(folder / "out", image, request.param)


def test_skopeo_inspects_manifest_and_configuration(built: Built) -> None:
    skopeo = tool("skopeo")
    shown = json.loads(call(skopeo, "inspect", built.reference))
    manifest = json.loads(built.read(built.image.digest))
    assert shown["Digest"] == built.image.digest
    assert shown["Layers"] == [item["digest"] for item in manifest["layers"]]
    assert call(skopeo, "inspect", "--raw", built.reference) == built.read(built.image.digest)
    config = json.loads(built.read(manifest["config"]["digest"]))
    # skopeo gives the configuration as its own types know it.
    seen = json.loads(call(skopeo, "inspect", "--config", built.reference))
    assert seen["rootfs"] == config["rootfs"]
    assert seen["history"] == config["history"]
    assert {
        key: value for key, value in config["config"].items() if value != seen["config"][key]
    } == {}


@pytest.mark.parametrize("kind", ["dir", "oci", "registry"])
def test_skopeo_copies_there_and_back_and_the_digest_stays(
    built: Built, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    skopeo = tool("skopeo")
    there, options = f"{kind}:{tmp_path}/there" + (":v1" if kind == "oci" else ""), ["", ""]
    if kind == "registry":
        address = request.getfixturevalue("oci_registry")
        there = f"docker://{address}/interop/{built.image.digest[7:19]}:v1"
        options = ["--dest-tls-verify=false", "--src-tls-verify=false"]
    for option, source, target in (
        (options[0], built.reference, there),
        (options[1], there, f"oci:{tmp_path}/back:v1"),
    ):
        flags = [option] if option else []
        call(skopeo, "copy", "--preserve-digests", *flags, source, target)
    check_image(built.image.digest, reader(tmp_path / "back"))
    index = json.loads((tmp_path / "back/index.json").read_bytes())
    assert [item["digest"] for item in index["manifests"]] == [built.image.digest]


def save(built: Built, archive: Path) -> None:
    """Writes the file that `docker load` takes."""
    command = [tool("skopeo"), "copy", built.reference, f"docker-archive:{archive}:tiny:v1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "zstd compression is not supported" in done.stderr:
        pytest.skip("this skopeo cannot convert zstd layers for Docker")
    assert done.returncode == 0, done.stderr


def test_a_docker_archive_of_it_has_the_same_layers(built: Built, tmp_path: Path) -> None:
    skopeo = tool("skopeo")
    save(built, tmp_path / "image.tar")
    seen = json.loads(call(skopeo, "inspect", "--config", f"docker-archive:{tmp_path}/image.tar"))
    assert seen["rootfs"]["diff_ids"] == [layer.diff_id for layer in built.image.layers]
    with tarfile.open(tmp_path / "image.tar") as archive:
        (entry,) = json.loads(read_member(archive, "manifest.json"))
        layers = [read_member(archive, name) for name in entry["Layers"]]
    assert [sha256(layer) for layer in layers] == seen["rootfs"]["diff_ids"]


def read_member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


def test_umoci_unpacks_what_the_layers_hold(built: Built, tmp_path: Path) -> None:
    if built.compression == "zstd":
        pytest.skip("umoci of Debian 12 knows no zstd")
    root = Path(os.fsdecode(unpack(built.layout, tmp_path / "bundle")))
    manifest = json.loads(built.read(built.image.digest))
    for item in manifest["layers"]:
        content = uncompressed(built.read(item["digest"]), item["mediaType"])
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive.getmembers():
                place = root / member.name
                if member.issym():
                    assert place.readlink() == Path(member.linkname)
                elif member.isdir():
                    assert stat.S_ISDIR(place.lstat().st_mode)
                else:
                    assert place.read_bytes() == read_member(archive, member.name)
    assert (root / "home/bentoml/bento/src/probe").stat().st_mode & 0o111 == 0o111


def test_podman_runs_it(built: Built, podman: list[str]) -> None:
    limits = ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048"]
    command = [*podman, "run", "--rm", "--network", "host", "--read-only", "--cap-drop", "ALL"]
    program = "/home/bentoml/bento/src/probe"
    done = subprocess.run(
        [*command, *limits, "--entrypoint", program, built.reference],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 125:
        pytest.skip(f"podman cannot run a container here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 42, done.stderr


CRANE = "github.com/google/go-containerregistry/cmd/crane"
CRANE_VERSION = "v0.22.1"


@pytest.fixture(scope="session")
def crane() -> Path:
    """go-containerregistry's command, built once from its module into build/, which git ignores."""
    go = tool("go")
    place = Path(__file__).parents[2] / "build/go"
    program = place / CRANE_VERSION / "crane"
    if not program.exists():
        settings = {
            "GOBIN": str(program.parent),
            "GOPATH": str(place),
            "GOCACHE": str(place / "cache"),
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        }
        try:
            subprocess.run(
                [go, "install", f"{CRANE}@{CRANE_VERSION}"],
                env={**os.environ, **settings},
                capture_output=True,
                text=True,
                check=True,
                timeout=600,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"crane cannot be built here: {str(error.stderr).strip()[-300:]}")
    return program


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_crane_reads_every_layer_of_it_from_a_registry(
    built: Built, crane: Path, oci_registry: str, tmp_path: Path
) -> None:
    name = f"{oci_registry}/crane/{built.image.digest[7:19]}:v1"
    # Otherwise skopeo compresses the model's layer on its way, and the digest becomes another.
    options = ["--preserve-digests", "--dest-tls-verify=false"]
    call(tool("skopeo"), "copy", *options, built.reference, f"docker://{name}")
    assert call(crane, "digest", "--insecure", name).decode().strip() == built.image.digest
    # Without --fast it takes every layer for gzip (go-containerregistry#1826), which ours are not.
    assert call(crane, "validate", "--fast", "--insecure", "--remote", name).startswith(b"PASS")
    call(crane, "export", "--insecure", name, tmp_path / "files.tar")
    with tarfile.open(tmp_path / "files.tar") as archive:
        found = {member.name.rstrip("/") for member in archive.getmembers()}
    held: set[str] = set()
    for layer in built.image.layers:
        content = uncompressed(built.read(layer.digest), layer.media_type)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            held |= set(archive.getnames())
    assert found == held


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_crane_finds_no_fault_with_it_in_an_archive(
    built: Built, crane: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    save(built, archive)
    assert call(crane, "validate", "--tarball", archive).startswith(b"PASS")


# Where, when and by whom it is built does not show.

BUILD = """
import sys
from pathlib import Path
from kfp_bento.runtime.bentos import load_bento
from kfp_bento.runtime.images import ImageOptions, build_image
bento, target, base, cache = sys.argv[1:]
kept = Path(cache) if cache else None
print(build_image(load_bento(Path(bento)), target, ImageOptions(base=base, cache=kept)).digest)
"""
# Also an interpreter outside of the virtual environment finds what is installed in it.
FOUND = {**os.environ, "HOME": "/", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
STRANGER = ["--reuid", "54321", "--regid", "54321", "--clear-groups"]


@dataclass(frozen=True)
class Surroundings:
    """Where a build runs."""

    folder: Path
    environment: tuple[tuple[str, str], ...]
    umask: int
    mtime: int
    python: tuple[str, ...] = (sys.executable,)
    backwards: bool = False
    builds: int = 1
    cached: bool = False


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="kfp-bento-anyone-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def copy_tree(source: Path, target: Path, *, backwards: bool, mtime: int) -> None:
    """Copies a tree, creating its files in one order or the other, with times of its own."""
    paths = sorted(source.rglob("*"), reverse=backwards)
    for path in paths:
        inside = target / path.relative_to(source)
        inside.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            inside.symlink_to(path.readlink())
        elif path.is_dir():
            inside.mkdir(exist_ok=True)
        else:
            inside.write_bytes(path.read_bytes())
            inside.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    for path in [target, *target.rglob("*")]:
        os.utime(path, (mtime, mtime), follow_symlinks=False)


def build_in(where: Surroundings, sources: Path) -> list[str]:
    folder = where.folder
    for name in ("home", "scratch", "out", "cache"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o777)
    for name in ("bento", "base"):
        copy_tree(sources / name, folder / name, backwards=where.backwards, mtime=where.mtime)
    dropped = {"SOURCE_DATE_EPOCH", "LANG", "LC_ALL", "TZ", "PYTHONHASHSEED", "KFP_BENTO_CACHE"}
    environment = {key: value for key, value in FOUND.items() if key not in dropped}
    environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "scratch")}
    return [
        call(
            *(*where.python, "-c", BUILD, folder / "bento"),
            *(f"oci:{folder}/out/{number}", f"oci:{folder}/base"),
            # Not the folder itself, where everybody can write: one for this user alone.
            folder / "cache/own" if where.cached else "",
            env=environment | dict(where.environment),
            umask=where.umask,
            cwd=folder,
        )
        .decode()
        .strip()
        for number in range(where.builds)
    ]


def as_a_stranger() -> tuple[str, ...]:
    """A Python run by somebody else, if there is one that can start it and read our code."""
    setpriv = shutil.which("setpriv")
    if not ROOT or setpriv is None:
        return ()
    code = "import subprocess, sys, bentoml, kfp_bento.runtime.images; "
    # The installer starts the interpreter once more, and then without root's rights.
    code += "subprocess.run([sys.executable, '-c', ''], check=True)"
    for python in (sys.executable, f"/usr/bin/python{MINOR}"):
        command = (setpriv, *STRANGER, python)
        trial = subprocess.run(
            [*command, "-c", code], capture_output=True, check=False, env=FOUND, cwd="/"
        )
        if trial.returncode == 0:
            return command
    return ()


def test_where_when_and_by_whom_it_is_built_does_not_show(open_folder: Path) -> None:
    sources = open_folder / "sources"
    write_bento(sources / "bento")
    write_base(sources / "base")
    faketime = shutil.which("faketime")
    later = (faketime, "2040-02-29 12:00:00") if faketime else ()
    stranger = as_a_stranger()
    usual = (("PYTHONHASHSEED", "1"), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8"))
    plain = Surroundings(open_folder / "a", usual, 0o022, 1_000_000_000)
    other = Surroundings(
        open_folder / "a much longer path, with spaces" / ("x" * 100),
        (
            ("PYTHONHASHSEED", "2"),
            ("TZ", "Pacific/Kiritimati"),
            ("LC_ALL", "C"),
            ("USER", "somebody"),
            ("COLUMNS", "40"),
        ),
        0o077,
        2_000_000_000,
        python=(*later, *(stranger or (sys.executable,))),
        backwards=True,
        builds=2,
        cached=True,
    )
    digests = build_in(plain, sources) + build_in(other, sources)
    assert len(digests) == 3
    assert len(set(digests)) == 1


def test_the_layers_of_the_base_are_taken_over_byte_for_byte(tmp_path: Path) -> None:
    bento, base = write_bento(tmp_path / "bento"), write_base(tmp_path / "base")
    image = build_image(bento, f"oci:{tmp_path}/out", ImageOptions(base=base))
    below = image.layers[0]
    name = below.digest.removeprefix("sha256:")
    assert below.media_type == f"{OCI_LAYER}+gzip"
    assert (tmp_path / "out/blobs/sha256" / name).read_bytes() == (
        tmp_path / "base/blobs/sha256" / name
    ).read_bytes()
