"""A base image whose documents can be spoilt before they are written down."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handmade import (
    MINOR,
    starting_files,
    write,
)

from kfp_bento.runtime.images.oci.image import parse_platform

if TYPE_CHECKING:
    pass

OCI = "application/vnd.oci.image"

ARCHITECTURE = parse_platform().architecture


class Base:
    """The documents of a base image, to be spoilt before they are written down."""

    def __init__(self) -> None:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("etc/base"))
            for member in starting_files():
                archive.addfile(member)
        self.layer = gzip.compress(plain.getvalue(), mtime=0)
        self.config: Any = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Env": [f"PYTHON_VERSION={MINOR}.1"], "Labels": {"a": "b"}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"],
            },
            "history": [{"created_by": "base", "created": "2026-01-01T00:00:00Z"}],
        }
        self.manifest: Any = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "layers": [describe(self.layer, f"{OCI}.layer.v1.tar+gzip")],
        }
        self.entry: dict[str, Any] = {"platform": {"os": "linux", "architecture": ARCHITECTURE}}
        self.index: Any = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json"}
        self.spoil_config_descriptor: dict[str, Any] = {}

    def write(self, directory: Path) -> str:
        config = as_bytes(self.config)
        if isinstance(self.manifest, dict):
            described = {**describe(config, f"{OCI}.config.v1+json")}
            self.manifest.setdefault("config", {**described, **self.spoil_config_descriptor})
        manifest = as_bytes(self.manifest)
        if isinstance(self.index, dict):
            described = describe(manifest, f"{OCI}.manifest.v1+json")
            self.index.setdefault("manifests", [{**described, **self.entry}])
        index = as_bytes(self.index)
        for content in (self.layer, config, manifest, index):
            write(directory / "blobs/sha256" / hashlib.sha256(content).hexdigest(), content)
        top = {"schemaVersion": 2, "manifests": [describe(index, f"{OCI}.index.v1+json")]}
        write(directory / "index.json", json.dumps(top))
        write(directory / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
        return f"oci:{directory}"


def as_bytes(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def describe(content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(content)}
