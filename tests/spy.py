"""Code that looks for our secrets and for the network, in whatever runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from package_index import package_index

SECRET = "s3cr3t-T0ken"
_SOURCE = """\
import json, os, pathlib, urllib.request

found = dict(os.environ)
for path in ({netrc!r}, "/proc/{process}/environ"):
    try:
        found[path] = pathlib.Path(path).read_bytes().decode(errors="replace")
    except OSError:
        pass
pathlib.Path({marker!r}).write_text(json.dumps(found))
try:
    urllib.request.urlopen({address!r}, timeout=5)
except OSError:
    pass

"""


@dataclass(frozen=True)
class Spy:
    """The code to put at the top of a module, and the file that it tells what it saw."""

    source: str
    marker: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it saw, and files by their path."""
        found: dict[str, str] = json.loads(self.marker.read_text())
        return found


@contextmanager
def kept_from_a_spy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    """Have secrets in this process's environment and home; the spy must find and reach nothing."""
    netrc, marker = folder / ".netrc", folder / "found.json"
    netrc.write_text(f"default login robot password {SECRET}\n")
    monkeypatch.setenv("HOME", str(folder))
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "BENTO_CLOUD_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    with package_index() as server:
        source = _SOURCE.format(
            netrc=str(netrc), marker=str(marker), process=os.getpid(), address=server.address
        )
        yield Spy(source, marker)
        assert server.arrived == []
    assert SECRET not in marker.read_text()
