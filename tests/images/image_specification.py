"""The rules of the OCI image specification 1.1, checked without any of our own code."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from typing import Any

Read = Callable[[str], bytes]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYERS = {f"application/vnd.oci.image.layer.v1.tar{x}" for x in ("", "+gzip", "+zstd")}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_strings(mapping: Any) -> None:
    assert isinstance(mapping, dict)
    assert all(isinstance(x, str) and x for x in mapping)
    assert all(isinstance(x, str) for x in mapping.values())


def check_descriptor(item: Any, read: Read) -> bytes:
    """descriptor.md: the required properties, and content that is what they say."""
    assert {"mediaType", "digest", "size"} <= set(item)
    assert set(item) <= {"mediaType", "digest", "size", "annotations", "artifactType", "platform"}
    assert DIGEST.fullmatch(item["digest"])
    assert type(item["size"]) is int
    check_strings(item.get("annotations", {}))
    content = read(item["digest"])
    assert (len(content), sha256(content)) == (item["size"], item["digest"])
    return content


def canonical(content: bytes) -> Any:
    parsed = json.loads(content)
    assert content == json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode()
    return parsed


def uncompressed(content: bytes, media_type: str) -> bytes:
    if media_type.endswith("+gzip"):
        return gzip.decompress(content)
    if media_type.endswith("+zstd"):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content


def check_image(digest: str, read: Read) -> dict[str, Any]:
    """manifest.md and config.md for one image manifest of ours."""
    content = read(digest)
    assert sha256(content) == digest
    assert b"vnd.docker" not in content
    manifest = canonical(content)
    assert {"schemaVersion", "mediaType", "config", "layers"} <= set(manifest)
    assert set(manifest) <= {"schemaVersion", "mediaType", "config", "layers", "annotations"}
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, MANIFEST)
    check_strings(manifest.get("annotations", {}))
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    config = canonical(check_descriptor(manifest["config"], read))
    assert manifest["layers"]
    assert {item["mediaType"] for item in manifest["layers"]} <= LAYERS
    tars = [
        uncompressed(check_descriptor(item, read), item["mediaType"]) for item in manifest["layers"]
    ]
    assert config["rootfs"] == {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]}
    check_config(config)
    for tar in tars[1:]:
        check_layer(tar)
    parsed: dict[str, Any] = manifest
    return parsed


def check_config(config: dict[str, Any]) -> None:
    known = {"created", "author", "architecture", "os", "os.version", "os.features", "variant"}
    assert set(config) <= known | {"config", "rootfs", "history"}
    assert config["architecture"] in {"amd64", "arm64"}
    assert config["os"] == "linux"
    assert MOMENT.fullmatch(config["created"])
    layered = [x for x in config["history"] if not x.get("empty_layer")]
    assert len(layered) == len(config["rootfs"]["diff_ids"])
    for entry in config["history"]:
        assert set(entry) <= {"created", "author", "created_by", "comment", "empty_layer"}
        assert MOMENT.fullmatch(entry.get("created", "2000-01-01T00:00:00Z"))
    settings = config["config"]
    assert set(settings) <= {
        *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
        *("StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
    }
    assert re.fullmatch(r"\d+:\d+", settings["User"])
    assert all(re.fullmatch(r"\d+/(tcp|udp)", port) for port in settings["ExposedPorts"])
    assert set(map(str, settings["ExposedPorts"].values())) == {"{}"}
    names = [pair.split("=", 1)[0] for pair in settings["Env"]]
    assert all(re.fullmatch(r"[^=]+=.*", pair, re.DOTALL) for pair in settings["Env"])
    assert len(names) == len(set(names))
    assert settings["WorkingDir"].startswith("/")
    check_strings(settings["Labels"])


def check_layer(content: bytes) -> None:
    """layer.md, and what makes a layer the same everywhere."""
    assert len(content) % 10240 == 0
    assert content.endswith(bytes(1024))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
    names = [member.name.encode("utf-8", "surrogateescape") for member in members]
    assert names == sorted(set(names))
    assert not [x for x in names if x.startswith(b"/") or b".." in x.split(b"/")]
    assert not [x for x in names if x.rpartition(b"/")[2].startswith(b".wh.")]
    assert len({member.mtime for member in members}) == 1
    for member in members:
        assert member.isreg() or member.isdir() or member.issym()
        assert (member.uname, member.gname) == ("", "")
        assert type(member.mtime) is int
        assert member.mode in {0o644, 0o755, 0o777}
    folders = {member.name for member in members if member.isdir()}
    # What lies above is written too; without it every tool makes up owner and mode.
    for member in members:
        above = member.name.rpartition("/")[0]
        assert above in folders | {"", "home"}, member.name
