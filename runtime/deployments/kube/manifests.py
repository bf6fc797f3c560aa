"""Manifests as files: one per resource, the same bytes for the same content."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import yaml

from kfp_bento.runtime.errors import DeploymentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Kubernetes reads YAML with another parser than ours. What is left bare here is a string
# for every one of them; `12e4`, `1_000`, `on` or `2026-01-01` are not.
_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_./@-]*([:][A-Za-z0-9_./@-]+)*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))


# Written by the API server or by controllers, never by an apply.
_NOT_OURS = frozenset(
    (
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    )
)


class _ManifestDumper(yaml.SafeDumper):
    """PyYAML's safe dumper, with every string quoted that a parser could take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    bare = _BARE.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


_ManifestDumper.add_representer(str, _represent_text)


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Give a manifest as YAML: ASCII, keys sorted, no aliases, lines never folded."""
    return yaml.dump(
        dict(manifest),
        Dumper=_ManifestDumper,
        sort_keys=True,
        allow_unicode=False,
        default_flow_style=False,
        width=10**6,
    )


def normalised(live: Mapping[str, Any]) -> dict[str, Any]:
    """Give an object without what neither a user nor an apply writes."""
    metadata = {
        key: value for key, value in live.get("metadata", {}).items() if key not in _NOT_OURS
    }
    kept = {key: value for key, value in live.items() if key not in ("status", "metadata")}
    return {**kept, "metadata": metadata}


def write_manifests(manifests: Sequence[Mapping[str, Any]], directory: Path) -> list[Path]:
    """Write each manifest to `<kind in lower case>-<name>.yaml`.

    A file is replaced in one step, and left alone when its content is already right.

    Returns:
        The files, in the order of the manifests.

    Raises:
        DeploymentError: The directory cannot be written.
    """
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for manifest in manifests:
            path = directory / f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"
            _replace(path, manifest_text(manifest).encode("ascii"))
            paths.append(path)
    except OSError as error:
        raise DeploymentError(
            f"The manifests cannot be written to {directory}: {error.strerror or error}.",
            hint="Choose a directory that can be written and has space left.",
        ) from error
    return paths


def _replace(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
