"""The target of a run on one machine: a server of the same user that starts the image here."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import DeploymentError, InvalidInput
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError, ask

VARIABLE = "KFP_BENTO_LOCAL_TARGET"
# Long enough to unpack an image and start a service; the server has its own deadlines.
ANSWER_SECONDS = 300.0
LARGEST_ANSWER = 1 << 20


def local_target() -> str:
    """Give the address of the local target, empty when this run has none."""
    return os.environ.get(VARIABLE, "")


def start_locally(
    target: str,
    manifests: Sequence[Mapping[str, Any]],
    *,
    image: str,
    image_location: str,
    bento_directory: Path,
) -> str:
    """Ask the local target to serve the image and give the URL of the service.

    Args:
        target: Address of the target, `unix:PATH` of a socket.
        manifests: What a cluster would have received.
        image: Image reference by digest.
        image_location: Where the image lies, `oci:DIRECTORY` or `docker://...`.
        bento_directory: The bento in the image, for targets without a container engine.

    Raises:
        InvalidInput: The target is no socket on this machine.
        DeploymentError: Nobody answers there, or somebody else does, or it could not start the
            image.
    """
    path = _socket_path(target)
    request = {
        "manifests": list(manifests),
        "image": image,
        "image_location": _absolute_location(image_location),
        "bento_directory": str(bento_directory.absolute()),
    }
    status, answer = _post(path, "/releases", request)
    url = answer.get("url")
    if status == 200 and isinstance(url, str) and _is_loopback(url):
        return url.rstrip("/")
    raise DeploymentError(
        f"The local target did not start {image} ({status}): "
        f"{answer.get('error') or 'it gave no URL'}",
        hint=str(answer.get("hint") or ""),
    )


def settle_locally(target: str, url: str, *, confirm: bool) -> str:
    """Ask the local target to keep a release that it started, or to stop it.

    Args:
        target: Address of the target, `unix:PATH` of a socket.
        url: URL of the release.
        confirm: Keep it and stop the one before; otherwise the other way round.

    Returns:
        The URL of what serves now; empty where nothing does.

    Raises:
        InvalidInput: The target is no socket on this machine.
        DeploymentError: Nobody answers there, or it serves another release by now.
    """
    path = _socket_path(target)
    status, answer = _post(path, "/settlements", {"url": url, "confirm": confirm})
    serves = answer.get("url")
    if status == 200 and isinstance(serves, str) and (not serves or _is_loopback(serves)):
        return serves.rstrip("/")
    raise DeploymentError(
        f"The local target did not settle the release at {url} ({status}): "
        f"{answer.get('error') or 'it gave no answer'}",
        hint=str(answer.get("hint") or ""),
    )


def _socket_path(target: str) -> str:
    """Give the path in an address: a network, even the loopback one, has others on it."""
    kind, _, path = target.partition(":")
    if kind != "unix" or not path.startswith("/") or "\0" in path:
        raise InvalidInput(
            f"{VARIABLE}: it is no address of a socket on this machine.",
            hint="It is set by a local run, in the form unix:/PATH; otherwise unset it.",
        )
    return path


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    try:
        local = ipaddress.ip_address(parts.hostname or "").is_loopback
        return parts.scheme == "http" and local and bool(parts.port)
    except ValueError:
        return False


def _absolute_location(location: str) -> str:
    kind, colon, path = location.partition(":")
    return f"{kind}:{Path(path).absolute()}" if colon and kind == "oci" else location


def _post(path: str, resource: str, body: Any) -> tuple[int, dict[str, Any]]:
    try:
        answer = ask(
            "POST",
            f"http://localhost{resource}",
            seconds=ANSWER_SECONDS,
            largest=LARGEST_ANSWER,
            body=json.dumps(body).encode(),
            connect=lambda: _connected(path),
        )
    except (NoConnectionError, NoAnswerError) as error:
        raise DeploymentError(
            f"The local target at {path} does not answer: {error}",
            hint="It belongs to a local run that has ended; start the run again.",
        ) from error
    try:
        return answer.status, parse_json(answer.body)
    except ValueError:
        return answer.status, {}


def _connected(path: str) -> socket.socket:
    """Open a socket in the file system, to a server of the same user."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(path)
        if not is_of_this_user(connection):
            raise ConnectionError("it is another user's")
    except OSError:
        connection.close()
        raise
    return connection


def is_of_this_user(connection: socket.socket) -> bool:
    """Tell whether the kernel says that a process of this user is at the other end."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # then only the directory of the socket keeps others out
    form = "3i"
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    user: int = struct.unpack(form, told)[1]
    return user == os.geteuid()
