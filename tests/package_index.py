"""A little package index on loopback that writes down what arrives."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Index:
    """Files that are served below /files/ and listed below /simple/, also below any prefix.

    Attributes:
        address: Such as http://127.0.0.1:4711.
        files: Content by file name.
        arrived: Path and `Authorization` of every request.
        leads: Where paths are redirected to.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    arrived: list[tuple[str, str]] = field(default_factory=list)
    leads: dict[str, str] = field(default_factory=dict)

    @property
    def simple(self) -> str:
        return f"{self.address}/simple"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.arrived]

    def offers(self, filename: str) -> str:
        """The address of a file."""
        return f"{self.address}/files/{filename}"

    def has_wheel(self, name: str, version: str = "1.0", requires: Sequence[str] = ()) -> str:
        """Adds a wheel; gives its address."""
        filename = f"{name}-{version}-py3-none-any.whl"
        self.files[filename] = wheel(name, version, requires)
        return self.offers(filename)

    def has_sources(self, name: str, marker: str) -> str:
        """Adds a source distribution whose build writes a file; gives its address."""
        filename = f"{name}-1.0.tar.gz"
        self.files[filename] = sources(name, marker)
        return self.offers(filename)


def wheel(name: str, version: str = "1.0", requires: Sequence[str] = ()) -> bytes:
    """The content of a wheel with an empty module."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return content.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def project(marker: str) -> dict[str, str]:
    """The files of a project whose build shows that it ran, and needs nothing for it."""
    return {
        "backend.py": f"open({marker!r}, 'w').write('ran')\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\n"
        "backend-path = ['.']\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
    }


def sources(name: str, marker: str) -> bytes:
    """The content of a source distribution of such a project."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in project(marker).items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
    index: Index

    def do_GET(self) -> None:
        index = self.index
        index.arrived.append((self.path, self.headers.get("Authorization", "")))
        *_, last = self.path.rstrip("/").split("/")
        if self.path in index.leads:
            self.send_response(302)
            self.send_header("Location", index.leads[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif last in index.files:
            self.give(index.files[last], "application/octet-stream")
        elif "/simple/" in self.path:
            beginning = f"{last.replace('-', '_')}-"
            listed = [name for name in index.files if name.startswith(beginning)]
            if not listed:
                return self.send_error(404)
            page = "".join(f'<a href="{index.offers(name)}">{name}</a>\n' for name in listed)
            self.give(f"<html><body>{page}</body></html>".encode(), "text/html")
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def give(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def package_index() -> Iterator[Index]:
    """Runs an index for the length of a block."""
    index = Index()
    handler = type("Handler", (_Handler,), {"index": index})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        index.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield index
        server.shutdown()
        thread.join()
