"""Every place does the same, and other programs agree on what is there."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers import S3Server
from stored_files import LARGE, Addresses, written

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.storage import open_place

SCHEMES = ("file", "s3", "minio")
pytestmark = pytest.mark.parametrize("scheme", SCHEMES)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [0, LARGE])
def test_what_was_written_is_read(
    scheme: str, size: int, address: Addresses, tmp_path: Path
) -> None:
    source = written(tmp_path / "source", size)
    place = open_place(address(scheme, "a folder/Ünïcode+%20 name.bin"))
    seen: list[tuple[int, int]] = []
    stored = place.write(source, progress=lambda *now: seen.append(now))
    assert (stored.size, stored.sha256) == (size, sha256(source))
    assert seen[-1] == (size, size)
    read = place.read(tmp_path / "read" / "back")
    assert read.sha256 == stored.sha256
    assert (tmp_path / "read" / "back").read_bytes() == source.read_bytes()
    assert [one.name for one in (tmp_path / "read").iterdir()] == ["back"]


def test_a_folder_is_listed_without_its_sums(
    scheme: str, address: Addresses, tmp_path: Path
) -> None:
    place = open_place(address(scheme, "folder"))
    for name in ("b/two", "a", "b/one"):
        place.write(written(tmp_path / "source", len(name)), name)
    assert [(one.name, one.size) for one in place.list()] == [("a", 1), ("b/one", 5), ("b/two", 5)]
    place.delete("b/one")
    place.delete("never there")
    assert [one.name for one in place.list()] == ["a", "b/two"]
    with pytest.raises(StorageError, match="There is no"):
        place.read(tmp_path / "read", "b/one")
    assert not (tmp_path / "read").exists()


def test_a_listing_says_since_when_things_are_there(
    scheme: str, address: Addresses, tmp_path: Path
) -> None:
    place = open_place(address(scheme, "folder"))
    began = datetime.now(UTC) - timedelta(seconds=2)  # S3 counts whole seconds
    place.write(written(tmp_path / "source", 3), "a")
    (listed,) = place.list()
    assert listed.modified
    assert began <= listed.modified <= datetime.now(UTC) + timedelta(seconds=2)
    stated = place.stat("a").modified
    assert stated
    assert abs(stated - listed.modified) < timedelta(seconds=1)


def test_a_neighbour_with_the_same_beginning_is_not_listed(
    scheme: str, address: Addresses, tmp_path: Path
) -> None:
    uri = address(scheme, "wine")
    open_place(f"{uri}-old").write(written(tmp_path / "source", 3), "x")
    open_place(uri).write(tmp_path / "source", "y")
    assert [one.name for one in open_place(uri).list()] == ["y"]


def test_an_object_is_replaced(scheme: str, address: Addresses, tmp_path: Path) -> None:
    place = open_place(address(scheme, "one"))
    place.write(written(tmp_path / "source", 10, "old"))
    place.write(written(tmp_path / "source", 12, "new"))
    assert place.stat().sha256 == sha256(tmp_path / "source")
    assert place.read(tmp_path / "read").size == 12


def test_bytes_that_are_not_those_recorded_are_refused(
    scheme: str, address: Addresses, tmp_path: Path
) -> None:
    place = open_place(address(scheme, "one"))
    place.write(written(tmp_path / "source", 10))
    with pytest.raises(StorageError, match="SHA-256"):
        place.read(tmp_path / "read", sha256="0" * 64)
    assert not (tmp_path / "read").exists()


def test_the_sum_beside_it_is_one_for_sha256sum(
    scheme: str, address: Addresses, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = address(scheme, "wine.bento")
    open_place(uri).write(written(tmp_path / "source", 1000))
    folder = Path(uri.removeprefix("file://")).parent
    if scheme != "file":
        folder = tmp_path / "fetched"
        folder.mkdir()
        server: S3Server = request.getfixturevalue("s3_server")
        for name in ("wine.bento", "wine.bento.sha256"):
            key = f"{uri.split('/')[3]}/{name}"
            server.client().download_file(server.bucket, key, str(folder / name))
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "wine.bento.sha256"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert checked.stdout == "wine.bento: OK\n"


def test_a_name_stays_below_the_address(scheme: str, address: Addresses, tmp_path: Path) -> None:
    place = open_place(address(scheme, "folder"))
    for name in ("../up", "a/../b", "a//b", "/a", "."):
        with pytest.raises(InvalidInput):
            place.write(written(tmp_path / "source", 1), name)
