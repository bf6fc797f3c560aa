"""What a builder's pod does with `downloadUrl`: the programs of its init container, no other.

Read in `controllers/resources/bentorequest_controller.go` of bentoml/yatai-image-builder (1.1.3,
1.2.28, 3.0.42): `curl --fail -L` for http and https, then `tar -xvf` into the context of the build,
of which `env/docker/Dockerfile` is the file to build by. It has no credentials but the URL.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import yaml

_PLAIN = {"PATH": os.defpath}


class DownloadError(Exception):
    """The init container ended with another code than 0, or the builder finds nothing to build."""


def build_context(url: str, directory: Path) -> Path:
    """Downloads and unpacks the archive of a bento, as the builder's shell does."""
    context, archive = directory / "buildcontext", directory / "downloaded.tar"
    context.mkdir(parents=True)
    script = (
        f"set -e\ncurl --fail -s -S -L {shlex.quote(url)} --output {archive}\n"
        f"cd {context}\ntar -xf {archive}\n"
    )
    done = subprocess.run(
        ["sh", "-c", script], env=_PLAIN, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DownloadError(done.stderr)
    if not (context / "env" / "docker" / "Dockerfile").is_file():
        raise DownloadError("There is no env/docker/Dockerfile at the top of the archive.")
    return context


def tag_in(context: Path) -> str:
    """The tag of the bento in a context, as bento.yaml says it."""
    facts = yaml.safe_load((context / "bento.yaml").read_text())
    return f"{facts['name']}:{facts['version']}"
