"""Debian packages, archives and base images made by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kfp_bento.runtime.images.debian.rootfs import RootFilesystem
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import Layer

STATUS = """\
Package: libc6
Status: install ok installed
Version: 2.36-9
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Description: C library
"""
DIRECTORIES = frozenset(
    (
        *("etc", "etc/alternatives", "tmp", "usr", "usr/bin", "usr/lib"),
        *("usr/lib/x86_64-linux-gnu", "usr/share", "usr/share/doc", "usr/share/man"),
        *("var", "var/lib", "var/lib/dpkg"),
    )
)


def facts(**changes: object) -> RootFilesystem:
    """A small Debian 12 with a merged /usr."""
    values: dict[str, object] = {
        "os_release": {"ID": "debian", "VERSION_ID": "12"},
        "status": STATUS,
        "sources": {},
        "preferences": {},
        "keyrings": {},
        "alternatives": {},
        "directories": DIRECTORIES,
        "links": {"bin": "usr/bin", "lib": "usr/lib"},
    }
    return RootFilesystem(**{**values, **changes})  # type: ignore[arg-type]


def member(
    name: str, content: bytes | None = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; a directory where there is no content."""
    info = tarfile.TarInfo(name)
    info.size = len(content or b"")
    info.mode = 0o755 if content is None else 0o644
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content or b""


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def make_deb(
    path: Path,
    members: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    *,
    control: dict[str, str] | None = None,
    depends: str = "",
    compression: str = "xz",
) -> Path:
    """A .deb named ``name_version_architecture.deb``, with these files and control files."""
    name, version, architecture = path.name.removesuffix(".deb").split("_")
    text = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
    text += "Maintainer: Nobody <nobody@example.org>\nDescription: handmade\n"
    text += f"Depends: {depends}\n" if depends else ""
    files = {"control": text, "md5sums": "", **(control or {})}
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(
            packed(member(f"./{key}", value.encode()) for key, value in files.items()), mtime=0
        ),
        f"data.tar.{compression}".removesuffix(".none"): compressed(packed(members), compression),
    }
    content = b"!<arch>\n"
    for part, data in parts.items():
        header = f"{part:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
        content += header.encode() + data + b"\n" * (len(data) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_in(deb: Path) -> list[str]:
    listed = subprocess.run(
        ["dpkg-deb", "--contents", deb], check=True, capture_output=True, text=True
    )
    paths = (line.split()[5].removeprefix("./") for line in listed.stdout.splitlines())
    return [path for path in paths if path and not path.endswith("/")]


def compressed(data: bytes, how: str) -> bytes:
    if how == "zst":
        import zstandard

        return zstandard.compress(data)
    return {"xz": lzma.compress, "gz": gzip.compress, "none": bytes}[how](data)


def make_archive(folder: Path, debs: Iterable[Path]) -> tuple[str, bytes]:
    """Signs an apt repository of these packages; gives its source and the public key."""
    folder.mkdir(parents=True, exist_ok=True)
    # The agent listens on a socket in its home, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        return _signed_archive(folder, debs, home)


def _signed_archive(folder: Path, debs: Iterable[Path], home: str) -> tuple[str, bytes]:
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--yes"]
    parameters = ["--passphrase", "", "--quick-generate-key", "archive", "ed25519", "sign"]
    subprocess.run([*gpg, *parameters, "never"], check=True, capture_output=True)
    pool = folder / "repository"
    pool.mkdir()
    stanzas, contents = [], ""
    for deb in debs:
        package = deb.name.partition("_")[0]
        contents += "".join(f"{path}  libs/{package}\n" for path in files_in(deb))
        (pool / deb.name).write_bytes(deb.read_bytes())
        shown = subprocess.run(
            ["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True
        )
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        stanzas.append(
            f"{shown.stdout.strip()}\nFilename: ./{deb.name}\n"
            f"Size: {deb.stat().st_size}\nSHA256: {digest}\n"
        )
    release = "Suite: handmade\nDate: Sat, 21 Nov 2020 10:00:00 UTC\nSHA256:\n"
    for name, lines in {"Packages": "\n".join(stanzas), "Contents-amd64": contents}.items():
        index = lines.encode()
        (pool / name).write_bytes(index)
        release += f" {hashlib.sha256(index).hexdigest()} {len(index)} {name}\n"
    (folder / "Release").write_text(release)
    sign = ["--clearsign", "--output", str(pool / "InRelease"), str(folder / "Release")]
    subprocess.run([*gpg, *sign], check=True, capture_output=True)
    key = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
    agent = ["gpgconf", "--homedir", home, "--kill", "gpg-agent"]
    subprocess.run(agent, check=False, capture_output=True)
    return f"deb file:{pool} ./\n", key


def base_layer(blobs: BlobDirectory, content: bytes, codec: str = "") -> Layer:
    """A tar as a base layer in a directory of blobs."""
    suffix = {"": "", "gz": "+gzip", "zst": "+zstd"}[codec]
    data = compressed(content, codec) if codec else content
    media_type = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    found = blobs.put_bytes(data, media_type)
    diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Layer("base", found.digest, diff_id, found.size, media_type, "base", "base layer")
