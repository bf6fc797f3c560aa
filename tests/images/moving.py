"""Images made and changed by hand, skopeo, and a look into archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import MINOR, read_json, starting_files, write

from kfp_bento.runtime.images.oci.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    parse_platform,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def skopeo(*arguments: str) -> str:
    """Runs skopeo; skips where there is none."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tar_of(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for member in more:
            archive.addfile(member, io.BytesIO(b""))
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return plain.getvalue()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def add_blob(layout: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = digest_of(content)
    write(layout / "blobs/sha256" / digest.removeprefix("sha256:"), content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def make_base(
    directory: Path,
    *,
    python: str = f"{MINOR}.1",
    files: dict[str, bytes] | None = None,
    environment: tuple[str, ...] = (),
    debian: str = "",
    architecture: str = "",
    labels: dict[str, str] | None = None,
    programs: bool = True,
) -> str:
    """A base image with one platform and two layers; gives its `oci:DIR`."""
    minor = ".".join(python.split(".")[:2]) if python else MINOR
    interpreter = f"/usr/{'local/' if python else ''}bin/python{minor}"
    layers = [
        tar_of({"etc/base": b"1"}, *(starting_files(interpreter) if programs else ())),
        tar_of(files or {"etc/more": b"1"}),
    ]
    version = (f"PYTHON_VERSION={python}",) if python else ()
    made_by = f"# debian.sh --arch 'amd64' out/ '{debian}' '@1739750400'" if debian else "ADD"
    config = {
        "architecture": architecture or parse_platform().architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *version, *environment],
            "Labels": labels or {},
        },
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [
            {"created_by": made_by},
            {"created_by": "ENV", "empty_layer": True},
            {"created_by": "RUN"},
        ],
    }
    return _write_image(directory, config, layers)


def base_of_layers(
    directory: Path, layers: list[bytes], *, environment: list[str] | None = None
) -> str:
    """A base image of these layers, with nothing said about its Python."""
    config = {
        "architecture": parse_platform().architecture,
        "os": "linux",
        "config": {"Env": environment or []},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    return _write_image(directory, config, layers)


def _write_image(directory: Path, config: dict[str, Any], layers: list[bytes]) -> str:
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": add_blob(directory, json.dumps(config).encode(), OCI_CONFIG),
        "layers": [
            add_blob(directory, gzip.compress(layer, mtime=0), f"{OCI_LAYER}+gzip")
            for layer in layers
        ],
    }
    return set_image(directory, manifest)


def set_image(layout: Path, manifest: dict[str, Any], tag: str = "") -> str:
    """Makes a manifest the only one of a layout; gives the layout's name."""
    entry = add_blob(layout, json.dumps(manifest).encode(), OCI_MANIFEST)
    if tag:
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    write(layout / "index.json", json.dumps(index))
    write(layout / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{layout}"


def change_image(
    layout: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], tag: str = "v1"
) -> str:
    """Rewrites the manifest and the configuration of the image in a layout."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = read_json(layout, index["manifests"][0]["digest"])
    config = read_json(layout, manifest["config"]["digest"])
    change(manifest, config)
    manifest["config"] = add_blob(layout, json.dumps(config).encode(), OCI_CONFIG)
    return set_image(layout, manifest, tag)


def archive_members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        found = {}
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
        return found
