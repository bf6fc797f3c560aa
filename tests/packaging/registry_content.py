"""What is in a registry, read without our client, and what is left of a package on the disk."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def read(address: str) -> bytes | None:
    """What a registry gives below an address; None where it has nothing there."""
    asked = urllib.request.Request(f"http://{address}", headers={"Accept": MANIFEST})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def tags(repository: str) -> list[str]:
    """The tags of a repository's images."""
    host, _, name = repository.partition("/")
    found = read(f"{host}/v2/{name}/tags/list")
    every = (json.loads(found)["tags"] or []) if found else []
    return [tag for tag in every if not tag.startswith("kfp-bento.")]  # records


def tagged(repository: str, tag: str = "v1") -> str:
    """The digest below a tag, all of whose blobs are there and are what they are called."""
    host, _, name = repository.partition("/")
    content = read(f"{host}/v2/{name}/manifests/{tag}")
    if content is None:
        return ""
    manifest = json.loads(content)
    for blob in (manifest["config"], *manifest["layers"]):
        found = read(f"{host}/v2/{name}/blobs/{blob['digest']}")
        assert found is not None, blob
        assert f"sha256:{hashlib.sha256(found).hexdigest()}" == blob["digest"]
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def left_in(scratch: Path) -> list[str]:
    """What is left of a package; interpreters are looked for in folders of their own."""
    return [path.name for path in scratch.iterdir() if "package" in path.name]
