"""The base image of both sides: a minimal Debian with Python, as an OCI layout made once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

# Its Python has to be the one that runs this, for the sake of bytecode.
SUITE, PYTHON = "bookworm", "3.11"
_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates,bash"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_OCI = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CHUNK = 1 << 20


def base_layout(directory: Path) -> Path:
    """Give the layout, with the tag `3.11`; made with mmdebstrap unless it is there already.

    It holds uv and this machine's certificates: BentoML's Dockerfile would otherwise `pip install`
    uv, which Debian's Python refuses (PEP 668), and uv looks at no certificates of the system.
    """
    layout = directory / "layout"
    if (layout / "index.json").exists():
        return layout
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    archive = directory / "base.tar"
    _bootstrap(archive)
    _write_layout(archive, layout)
    archive.unlink()
    return layout


def _bootstrap(archive: Path) -> None:
    from uv import find_uv_bin

    certificates = os.environ.get("SSL_CERT_FILE") or _CERTIFICATES
    hooks = [f"--customize-hook=copy-in {find_uv_bin()} /usr/local/bin"]
    if Path(certificates).is_file():
        hooks.append(f"--customize-hook=upload {certificates} {_CERTIFICATES}")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"]
    scratch = archive.parent / "tmp"
    scratch.mkdir()
    scratch.chmod(0o755)  # mmdebstrap's helper users have to pass
    done = subprocess.run(
        [*command, *hooks, SUITE, str(archive)],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode:
        raise SystemExit(f"mmdebstrap cannot make the base image:\n{done.stderr.strip()[-1500:]}")


def _write_layout(archive: Path, layout: Path) -> None:
    """Turn a root file system into an image of one gzip layer."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _put_compressed(archive, blobs)
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                f"SSL_CERT_FILE={_CERTIFICATES}",
            ]
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": f"mmdebstrap {SUITE}"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _put(config, "config.v1+json", blobs),
        "layers": [layer],
    }
    described = _put(manifest, "manifest.v1+json", blobs)
    described["annotations"] = {"org.opencontainers.image.ref.name": PYTHON}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))


def _put_compressed(archive: Path, blobs: Path) -> tuple[dict[str, Any], str]:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
    plain, packed = hashlib.sha256(), hashlib.sha256()
    partial = blobs / "partial"
    with archive.open("rb") as source, partial.open("wb") as target:
        while True:
            chunk = source.read(_CHUNK)
            plain.update(chunk)
            piece = squeeze.compress(chunk) if chunk else squeeze.flush()
            packed.update(piece)
            target.write(piece)
            if not chunk:
                break
    size = partial.stat().st_size
    partial.rename(blobs / packed.hexdigest())
    described = {
        "mediaType": f"{_OCI}.layer.v1.tar+gzip",
        "digest": f"sha256:{packed.hexdigest()}",
        "size": size,
    }
    return described, f"sha256:{plain.hexdigest()}"


def _put(content: dict[str, Any], kind: str, blobs: Path) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}
