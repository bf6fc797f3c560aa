"""Bentos that start in no time, images that hold nothing, and whoever asks for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

IMAGE = "localhost/wine@sha256:" + "a1" * 32

# Says what it was given, and then serves.
ENTRYPOINT = """#!/bin/sh
exec python - <<'END'
import http.server, json, os

with open({marker!r} + ".partial", "w") as file:
    json.dump(dict(os.environ), file)
os.rename({marker!r} + ".partial", {marker!r})

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
END
"""


def write_small_bento(
    directory: Path,
    marker: Path,
    *,
    name: str = "wine",
    version: str = "v1",
    lock: str = "",
    entrypoint: str = ENTRYPOINT,
    status: int = 200,
) -> Path:
    """A bento whose service writes its environment to `marker`, and is alive or not."""
    (directory / "env" / "docker").mkdir(parents=True)
    (directory / "env" / "python").mkdir()
    (directory / "src").mkdir()
    (directory / "src" / "service.py").write_text("")
    facts = [f"name: {name}", f"version: {version}", "service: service:Wine", "models: []"]
    facts += ["docker: {python_version: '3.11'}", "bentoml_version: 1.4.39", ""]
    (directory / "bento.yaml").write_text("\n".join(facts))
    (directory / "env" / "python" / "requirements.txt").write_text(lock)
    script = directory / "env" / "docker" / "entrypoint.sh"
    script.write_text(
        entrypoint.replace("{marker!r}", repr(str(marker))).replace("{status}", str(status))
    )
    script.chmod(0o755)
    return directory


def write_small_layout(directory: Path, bento_tag: str) -> str:
    """An OCI layout with an image of nothing, made of a bento; gives its digest."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: Any, kind: str) -> dict[str, Any]:
        raw = json.dumps(content).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        media_type = f"application/vnd.oci.image.{kind}.v1+json"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw)}

    config = put({"config": {"Labels": {"kfp-bento.bento": bento_tag}}}, "config")
    manifest = put({"schemaVersion": 2, "config": config, "layers": []}, "manifest")
    index = {"schemaVersion": 2, "manifests": [manifest]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(manifest["digest"])


def body_of(bento: Path, **changes: Any) -> bytes:
    """The request for a release."""
    request = {"image": IMAGE, "image_location": "", "bento_directory": str(bento)}
    return json.dumps(request | changes).encode()


def spoken(body: bytes, **headers: str | None) -> bytes:
    """A whole HTTP request; a header of None is left out."""
    usual: dict[str, str | None] = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines = [
        f"{key.replace('_', '-')}: {value}" for key, value in (usual | headers).items() if value
    ]
    return "\r\n".join(["POST /releases HTTP/1.1", *lines, "", ""]).encode() + body


def said_to(address: str, request: bytes, seconds: float = 60) -> tuple[int, str]:
    """Send bytes to a target and give the status and body of its answer; 0 where it gave none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(address.removeprefix("unix:"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                answer += piece
    head, _, content = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1] if head.startswith(b"HTTP/1.") else b"0"
    return int(status), content.decode()
