"""Registry credentials as Docker, podman and Kubernetes keep them: ``config.json`` files."""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.reference import DOCKER_HUB
from kfp_bento.runtime.storage import JSON_LIMIT, read_small_file

MOUNTED_SECRET = Path("/etc/kfp-bento/registry/.dockerconfigjson")
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", DOCKER_HUB)


@dataclass(frozen=True)
class Credentials:
    """A user name and a password or token; the secret never shows in a repr."""

    user: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def find_credentials(host: str, repository: str = "") -> Credentials | None:
    """Looks up the credentials for a registry; None means anonymous.

    Read in this order: ``$REGISTRY_AUTH_FILE``, the Secret that the pipelines mount at
    ``/etc/kfp-bento/registry``, ``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``.
    A key may name the host alone or, as podman allows, a part of the repository's path; the
    longest that fits wins. Hosts are compared whole, never by suffix.

    Raises:
        RegistryError: A file named by the environment cannot be read, or an entry is malformed.
    """
    for file, required in _files():
        try:
            auths = json.loads(read_small_file(file, JSON_LIMIT)).get("auths") or {}
            if not isinstance(auths, dict):
                raise ValueError("auths is no object")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            if not required and isinstance(error, OSError):
                continue
            raise RegistryError(
                f"The registry credentials in {file} cannot be read.",
                hint="It must be JSON as `docker login` or `podman login` writes it.",
            ) from error
        for key in _keys(host, repository):
            if entry := auths.get(key):
                return _parse(entry, file, key)
    return None


def _files() -> list[tuple[Path, bool]]:
    files: list[tuple[Path, bool]] = []
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        files.append((Path(named), True))
    files.append((MOUNTED_SECRET, False))
    if folder := os.environ.get("DOCKER_CONFIG"):
        files.append((Path(folder) / "config.json", False))
    home = os.environ.get("HOME")
    if home:
        files.append((Path(home) / ".docker" / "config.json", False))
    return files


def _keys(host: str, repository: str) -> list[str]:
    if host == DOCKER_HUB:
        return list(_HUB_KEYS)
    parts = [host, *(repository.split("/") if repository else [])]
    paths = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return [*paths, f"https://{host}", f"https://{host}/", f"https://{host}/v2/", f"http://{host}"]


def _parse(entry: Any, file: Path, key: str) -> Credentials | None:
    try:
        if packed := entry.get("auth"):
            user, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
            if not colon:
                raise ValueError("no colon")
            return Credentials(user, password)
        if "username" in entry:
            return Credentials(str(entry["username"]), str(entry.get("password", "")))
    except (ValueError, TypeError, AttributeError, binascii.Error):
        # The cause is left out on purpose: its text can hold the secret.
        raise RegistryError(
            f"The entry for {key} in {file} is malformed.",
            hint="Log in again, for example with `podman login`.",
        ) from None
    return None
