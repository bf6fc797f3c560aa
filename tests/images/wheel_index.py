"""A package index on this machine, of the wheels in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class PackageIndex(http.server.ThreadingHTTPServer):
    """A small package index on this machine; gives sizes only when asked to.

    Attributes:
        asked: The files that were asked for.
        way: How it gives files: whole, in ranges, without a length, or not (a status).
    """

    def __init__(self, shelf: Path, sizes: bool) -> None:
        self.shelf, self.sizes = shelf, sizes
        self.asked: list[str] = []
        self.lied_size = 0
        self.way = "whole"
        super().__init__(("127.0.0.1", 0), _IndexHandler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _IndexHandler(http.server.BaseHTTPRequestHandler):
    server: PackageIndex

    def do_GET(self) -> None:
        if not self.path.startswith("/simple/"):
            return self.give_file()
        files = []
        for wheel in sorted(self.server.shelf.iterdir()):
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            entry = {"filename": wheel.name, "url": f"/files/{wheel.name}"}
            files.append({**entry, "hashes": {"sha256": digest}})
            if self.server.sizes:
                files[-1]["size"] = self.server.lied_size or wheel.stat().st_size
        page = {"meta": {"api-version": "1.1"}, "name": self.path.split("/")[2], "files": files}
        content = json.dumps(page).encode()
        kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
        return self.respond(content, **kind, **{"Content-Length": str(len(content))})

    def give_file(self) -> None:
        self.server.asked.append(self.path)
        content = (self.server.shelf / self.path.rpartition("/")[2]).read_bytes()
        if self.server.way.isdecimal():
            return self.respond(b"", int(self.server.way))
        if self.server.way == "endless":
            return self.respond(content)
        if self.server.way == "ranges" and self.headers.get("Range") == "bytes=0-0":
            extent = {"Content-Range": f"bytes 0-0/{len(content)}", "Content-Length": "1"}
            return self.respond(content[:1], 206, **extent)
        return self.respond(content, **{"Content-Length": str(len(content))})

    def respond(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving_wheels(shelf: Path, *, sizes: bool = True) -> Iterator[PackageIndex]:
    with PackageIndex(shelf, sizes=sizes) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
