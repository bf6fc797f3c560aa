"""Bentos made by hand, a small base image, and a look into layers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING, Any

import pytest
from small_wheels import bentoml_line
from uv import find_uv_bin

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

# How a list of requirements names its package index.
INDEX_OPTION = "--index-url"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"

BENTO_YAML = f"""\
service: service:Tiny
name: tiny
version: v1
bentoml_version: 1.4.39
creation_time: '1980-01-01T00:00:00+00:00'
labels: {{}}
models: []
entry_service: Tiny
services:
- name: Tiny
  service: ''
  models:
  - tag: factor:0123456789abcdef
    module: ''
    creation_time: '1980-01-01T00:00:00+00:00'
  dependencies: []
  config: {{}}
envs:
- name: GREETING
  value: hello
schema:
  name: Tiny
  type: service
  routes: []
args: {{}}
spec: 2
image:
  base_image: python:{MINOR}-slim
  python_version: '{MINOR}'
  commands: []
  python_requirements: ''
  post_commands: []
  build_include: []
"""

SERVICE = """\
from pathlib import Path

import bentoml


@bentoml.service
class Tiny:
    model = bentoml.models.BentoModel("factor:0123456789abcdef")

    @bentoml.api
    def multiply(self, number: int) -> int:
        return number * int(Path(self.model.path_of("factor.txt")).read_text())
"""

MODEL_YAML = """\
name: factor
version: 0123456789abcdef
module: ''
labels: {}
options: {}
metadata: {}
context: {framework_name: '', framework_versions: {}, bentoml_version: 1.4.39, python_version: ''}
signatures: {}
api_version: v1
creation_time: '1980-01-01T00:00:00+00:00'
"""


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def write_wheel(file: Path) -> str:
    """A wheel with a module, a command and a data file; returns its SHA-256."""
    info = "greeter-1.0.dist-info"
    members = {
        "greeter.py": "def main():\n    print('hello', {'b', 'a', None}, ('x', 'main'))\n",
        "greeter-1.0.data/data/share/greeter/motto.txt": "be kind\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
        f"{info}/RECORD": "",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_bento(directory: Path, requirements: str = "") -> Bento:
    """A bento as BentoML 1.4 lays it out, with one model and, by default, one local wheel."""
    import bentoml

    from kfp_bento.runtime.bentos import load_bento

    package = Path(bentoml.__file__).parent
    script = package / "_internal/container/frontend/dockerfile/entrypoint.sh"
    if not requirements:
        digest = write_wheel(directory / "src/wheels/greeter-1.0-py3-none-any.whl")
        requirements = f"./wheels/greeter-1.0-py3-none-any.whl --hash=sha256:{digest}\n"
    write(directory / "bento.yaml", BENTO_YAML)
    write(directory / "src/service.py", SERVICE)
    write(directory / "src/__pycache__/service.cpython-311.pyc", b"noise")
    write(directory / "env/docker/entrypoint.sh", script.read_bytes())
    write(directory / "env/docker/Dockerfile", "FROM scratch\n")
    if "bentoml==" not in requirements:
        requirements += bentoml_line(directory)
    write(directory / "env/python/requirements.txt", requirements)
    write(directory / "models/factor/0123456789abcdef/factor.txt", "2\n")
    write(directory / "models/factor/0123456789abcdef/model.yaml", MODEL_YAML)
    write(directory / "models/factor/latest", "0123456789abcdef")
    write(directory / ".kfp-bento.json", "{}")
    return load_bento(directory)


def real_lock(folder: Path, *more: str) -> str:
    """Locks the real BentoML, and more, from the package index; skips where that cannot be had."""
    wanted = write(folder / "requirements.in", "\n".join([f"bentoml=={version('bentoml')}", *more]))
    command = [find_uv_bin(), "pip", "compile", "--generate-hashes", "--no-header", "--quiet"]
    command += ["--no-emit-index-url", "--python-platform", f"{machine()}-manylinux_2_28"]
    locked = subprocess.run(
        [*command, wanted], capture_output=True, text=True, check=False, cwd=folder
    )
    if locked.returncode != 0:
        pytest.skip(f"BentoML's dependencies cannot be locked here: {locked.stderr.strip()}")
    return locked.stdout


def starting_files(python: str = f"/usr/local/bin/python{MINOR}") -> list[tarfile.TarInfo]:
    """What a base is looked at for, as empty files: an interpreter and programs."""
    programs = ("bin/bash", "bin/sh", "bin/ls", "bin/ln", "bin/sleep", "usr/bin/env")
    found = [tarfile.TarInfo(name) for name in (python.lstrip("/"), *programs)]
    for member in found:
        member.mode = 0o755
    return found


def write_base(
    directory: Path,
    *,
    python: str = f"{MINOR}.1",
    docker_types: bool = False,
    architectures: tuple[str, ...] = ("amd64", "arm64"),
) -> str:
    """A multi-platform base image as an OCI layout; gives its `oci:DIR`."""

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        write(directory / "blobs/sha256" / digest, content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    docker = "application/vnd.docker"
    oci = "application/vnd.oci.image"
    types = (
        (
            f"{docker}.image.rootfs.diff.tar.gzip",
            f"{docker}.container.image.v1+json",
            f"{docker}.distribution.manifest.v2+json",
        )
        if docker_types
        else (f"{oci}.layer.v1.tar+gzip", f"{oci}.config.v1+json", f"{oci}.manifest.v1+json")
    )
    manifests = []
    for architecture in architectures:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("etc/arch"), io.BytesIO(b""))
            info = tarfile.TarInfo(f"etc/{architecture}")
            archive.addfile(info, io.BytesIO(b""))
            minor = ".".join(python.split(".")[:2])
            for member in starting_files(f"/usr/local/bin/python{minor}"):
                archive.addfile(member, io.BytesIO(b""))
        layer = blob(gzip.compress(plain.getvalue(), mtime=0), types[0])
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", f"PYTHON_VERSION={python}", "A=1"],
                "Cmd": ["python3"],
                "Labels": {"from": "base"},
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"],
            },
            "history": [{"created_by": "base"}, {"created_by": "env", "empty_layer": True}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": types[2],
            "config": blob(json.dumps(config).encode(), types[1]),
            "layers": [layer],
        }
        manifests.append(
            {
                **blob(json.dumps(manifest).encode(), types[2]),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = {"schemaVersion": 2, "manifests": manifests}
    inner = blob(json.dumps(index).encode(), f"{oci}.index.v1+json")
    write(directory / "index.json", json.dumps({"schemaVersion": 2, "manifests": [inner]}))
    write(directory / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{directory}"


def read_manifest(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_bytes())
    return read_json(layout, index["manifests"][0]["digest"])


def read_json(layout: Path, digest: str) -> dict[str, Any]:
    content = (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest.removeprefix("sha256:")
    parsed: dict[str, Any] = json.loads(content)
    return parsed


def open_layer(layout: Path, layer: Any) -> tarfile.TarFile:
    """A layer of an image in a layout, unpacked into memory."""
    import zstandard

    content = (layout / "blobs/sha256" / layer.digest.removeprefix("sha256:")).read_bytes()
    if layer.media_type.endswith("zstd"):
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    elif layer.media_type.endswith("gzip"):
        content = gzip.decompress(content)
    assert hashlib.sha256(content).hexdigest() == layer.diff_id.removeprefix("sha256:")
    return tarfile.open(fileobj=io.BytesIO(content))
