"""A git server on loopback: git's own http-backend behind a handler of Python's."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class GitServer:
    """Repositories in a folder, each at `<address>/team/<name>.git`.

    Attributes:
        address: Such as http://127.0.0.1:4711.
        folder: Where they lie.
        arrived: Path and `Authorization` of every request.
    """

    address: str
    folder: Path
    arrived: list[tuple[str, str]] = field(default_factory=list)

    def has(self, name: str, files: Mapping[str, str], tag: str = "") -> str:
        """Adds a commit with these files to a repository; gives the commit."""
        work = self.folder / "work" / name
        bare = self.folder / "team" / f"{name}.git"
        if not work.exists():
            work.mkdir(parents=True)
            _git(work, "init", "--quiet", "--initial-branch=main")
            _git(work, "init", "--quiet", "--bare", str(bare))
            _git(bare, "config", "uploadpack.allowFilter", "true")
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        _git(work, "add", "--all")
        _git(work, "commit", "--quiet", "--message", "Change")
        if tag:
            _git(work, "tag", tag)
        _git(work, "push", "--quiet", "--tags", str(bare), "main")
        return _git(work, "rev-parse", "HEAD").strip()

    def of(self, name: str) -> str:
        """The address of a repository."""
        return f"git+{self.address}/team/{name}.git"


def _git(directory: Path, *arguments: str) -> str:
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "A"), ("EMAIL", "a@b.invalid"), ("DATE", "1700000000 +0000"))
    }
    alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", **identity}
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], **alone},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextlib.contextmanager
def git_server(folder: Path) -> Iterator[GitServer]:
    """Serves the repositories below a folder."""
    backend = Path(_git(folder, "--exec-path").strip()) / "git-http-backend"
    found: list[GitServer] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _answer(self, body: bytes) -> None:
            found[0].arrived.append((self.path, self.headers.get("Authorization", "")))
            path, _, query = self.path.partition("?")
            done = subprocess.run(
                [str(backend)],
                input=body,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_GLOBAL": "/dev/null",
                    "GIT_CONFIG_NOSYSTEM": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
                capture_output=True,
                check=True,
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.append(GitServer(f"http://127.0.0.1:{server.server_address[1]}", folder))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found[0]
        server.shutdown()
        thread.join()
