"""The target of a run on one machine: a loopback server that starts the image here."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import DeploymentError, InvalidInput

VARIABLE = "KFP_BENTO_LOCAL_TARGET"
# Long enough to unpack an image and start a service; the server has its own deadlines.
ANSWER_SECONDS = 300.0


def local_target() -> str:
    """Give the URL of the local target, empty when this run has none."""
    return os.environ.get(VARIABLE, "").rstrip("/")


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
        target: Root URL of the target, on loopback.
        manifests: What a cluster would have received.
        image: Image reference by digest.
        image_location: Where the image lies, `oci:DIRECTORY` or `docker://...`.
        bento_directory: The bento in the image, for targets without a container engine.

    Raises:
        InvalidInput: The target is no http URL on loopback.
        DeploymentError: Nothing answers there, or it could not start the image.
    """
    host, port = _loopback(target)
    request = {
        "manifests": list(manifests),
        "image": image,
        "image_location": _absolute_location(image_location),
        "bento_directory": str(bento_directory.absolute()),
    }
    status, answer = _post(host, port, urlsplit(target).path + "/releases", request)
    url = answer.get("url")
    if status == 200 and isinstance(url, str) and url:
        return url.rstrip("/")
    raise DeploymentError(
        f"The local target did not start {image} ({status}): "
        f"{answer.get('error') or 'it gave no URL'}",
        hint=str(answer.get("hint") or ""),
    )


def _loopback(target: str) -> tuple[str, int]:
    parts = urlsplit(target)
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
        port = parts.port
    except ValueError:
        local, port = False, None
    if parts.scheme != "http" or not local or not port:
        raise InvalidInput(
            f"{VARIABLE}: {target!r} is no address on this machine.",
            hint="It is set by a local run, in the form http://127.0.0.1:PORT; otherwise unset it.",
        )
    return host, port


def _absolute_location(location: str) -> str:
    kind, colon, path = location.partition(":")
    return f"{kind}:{Path(path).absolute()}" if colon and kind == "oci" else location


def _post(host: str, port: int, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request(
            "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        status, raw = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(
            f"The local target at {host}:{port} does not answer: {error}",
            hint="It belongs to a local run that has ended; start the run again.",
        ) from error
    finally:
        connection.close()
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    return status, answer if isinstance(answer, dict) else {}
