"""Transfers that break: gone on with, tried again, or refused; never half-made."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from faulty_store import FaultyStore, Request, times
from servers import S3Server
from stored_files import LARGE, PART, Addresses, written

from kfp_bento.runtime.errors import StorageError
from kfp_bento.runtime.storage import open_place

CLIENTS = ("s3", "minio")


@pytest.fixture
def stored(s3_server: S3Server, address: Addresses, tmp_path: Path) -> tuple[str, Path]:
    """A large object that plain boto3 put, and the file it was."""
    source = written(tmp_path / "source", LARGE)
    uri = address("s3", "weights.bin")
    s3_server.client().upload_file(str(source), s3_server.bucket, key_of(uri))
    return uri, source


def key_of(uri: str) -> str:
    return uri.split("/", 3)[3]


def through(store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)


def is_range(request: Request) -> bool:
    return request.method == "GET" and "Range" in request.headers


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=" in request.path


def uploads(server: S3Server, uri: str) -> list[str]:
    listed = server.client().list_multipart_uploads(Bucket=server.bucket)
    return [one["UploadId"] for one in listed.get("Uploads", []) if one["Key"] == key_of(uri)]


@pytest.mark.parametrize(
    ("scheme", "fault"),
    [("s3", "busy"), ("s3", "reset"), ("s3", "cut"), ("minio", "busy"), ("minio", "cut")],
)
def test_a_range_that_breaks_is_asked_for_again(
    scheme: str,
    fault: str,
    stored: tuple[str, Path],
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri, source = stored
    with FaultyStore(s3_server.endpoint, times(2, fault, is_range)) as store:
        through(store, monkeypatch)
        open_place(uri.replace("s3:", f"{scheme}:")).read(tmp_path / "read")
    assert (tmp_path / "read").read_bytes() == source.read_bytes()
    met = [one.fault for one in store.requests if one.fault]
    assert met == [fault, fault]


def test_after_a_cut_only_the_rest_is_asked_for(
    stored: tuple[str, Path], s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = stored
    with FaultyStore(s3_server.endpoint, times(1, "cut", is_range)) as store:
        through(store, monkeypatch)
        open_place(uri).read(tmp_path / "read")
    # The client drops the piece of a mebibyte in which its connection ended.
    assert sum(one.sent for one in store.requests if is_range(one)) <= LARGE + (1 << 20)


def test_an_object_that_changes_while_it_is_read_is_refused(
    stored: tuple[str, Path], s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = stored

    def change(request: Request) -> str:
        if is_range(request) and "bytes=0-" in request.headers["Range"]:
            s3_server.client().put_object(
                Bucket=s3_server.bucket, Key=key_of(uri), Body=bytes(LARGE)
            )
        return ""

    with FaultyStore(s3_server.endpoint, change) as store:
        through(store, monkeypatch)
        with pytest.raises(StorageError, match="changed while it was being read"):
            open_place(uri).read(tmp_path / "read")
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize("scheme", CLIENTS)
def test_a_bit_that_flips_on_the_way_is_noticed(
    scheme: str,
    address: Addresses,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = open_place(address(scheme, "x"))
    place.write(written(tmp_path / "source", 1000))
    with FaultyStore(s3_server.endpoint, times(1, "flip", is_range)) as store:
        through(store, monkeypatch)
        place = open_place(place.address)
        with pytest.raises(StorageError, match="SHA-256"):
            place.read(tmp_path / "read")
        assert sorted(one.name for one in tmp_path.iterdir()) == ["source"]
        place.read(tmp_path / "read")


@pytest.mark.parametrize("scheme", CLIENTS)
def test_a_store_with_a_certificate_of_ones_own(
    scheme: str,
    address: Addresses,
    s3_server: S3Server,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = address(scheme, "x")
    source = written(tmp_path / "source", 10)
    with FaultyStore(s3_server.endpoint, certificate=certificate) as store:
        through(store, monkeypatch)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StorageError, match="certificate") as failure:
            open_place(uri).write(source)
        assert "AWS_CA_BUNDLE" in failure.value.hint
        monkeypatch.setenv("AWS_CA_BUNDLE", f"{certificate}.crt")
        open_place(uri).write(source)
        assert open_place(uri).read(tmp_path / "read").size == 10


READ = """
import sys
import threading
from contextlib import suppress
from pathlib import Path
from kfp_bento.runtime.storage import open_place, ranges
ranges.RANGE = int(sys.argv[3])
open_place(sys.argv[1]).read(Path(sys.argv[2]))
"""


def test_a_killed_download_is_gone_on_with(
    stored: tuple[str, Path], s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, source = stored
    to = tmp_path / "to" / "read"
    done = threading.Event()
    # The last range never comes, so that the process is waiting for it when it is killed.
    last = f"bytes={2 * PART}-"

    def stall(request: Request) -> str:
        if is_range(request) and request.headers["Range"].startswith(last):
            done.wait()
        return ""

    with FaultyStore(s3_server.endpoint, stall) as store:
        through(store, monkeypatch)
        process = subprocess.Popen([sys.executable, "-c", READ, uri, str(to), str(PART)])
        while not any(len(j.read_text().split()) == 2 for j in to.parent.glob("*/ranges")):
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended by itself: {process.wait(timeout=0.05)}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.set()
    assert not to.exists()
    with FaultyStore(s3_server.endpoint) as store:
        through(store, monkeypatch)
        open_place(uri).read(to)
    assert [one.headers["Range"] for one in store.requests if is_range(one)] == [
        f"{last}{LARGE - 1}"
    ]
    assert to.read_bytes() == source.read_bytes()
    assert [one.name for one in to.parent.iterdir()] == ["read"]


def test_what_a_killed_download_left_is_not_trusted_blindly(
    address: Addresses, tmp_path: Path
) -> None:
    place = open_place(address("s3", "x"))
    place.write(written(tmp_path / "source", 1000))
    to = tmp_path / "to" / "read"
    place.read(to)
    to.unlink()
    found, key = place.stat(), key_of(place.address)
    said = "\n".join((place.address, key, "1000", found.etag, found.sha256))
    left = to.with_name(f"read.download-{hashlib.sha256(said.encode()).hexdigest()[:16]}")
    left.mkdir()
    (left / "content").write_bytes(bytes(1000))
    (left / "ranges").write_text("0\n")
    place.read(to)
    assert not left.exists()
    assert to.read_bytes() == (tmp_path / "source").read_bytes()


@pytest.mark.parametrize(("scheme", "fault"), [("s3", "busy"), ("minio", "reset")])
def test_a_part_that_breaks_is_sent_again(
    scheme: str,
    fault: str,
    address: Addresses,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = address(scheme, "weights.bin")
    source = written(tmp_path / "source", LARGE)
    with FaultyStore(s3_server.endpoint, times(2, fault, is_part)) as store:
        through(store, monkeypatch)
        open_place(uri).write(source)
    fetched = tmp_path / "fetched"
    s3_server.client().download_file(s3_server.bucket, key_of(uri), str(fetched))
    assert fetched.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("scheme", CLIENTS)
def test_an_upload_that_fails_leaves_the_old_object_and_no_parts(
    scheme: str,
    address: Addresses,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = address(scheme, "weights.bin")
    open_place(uri).write(written(tmp_path / "old", 10))
    refused = times(99, "busy", lambda one: is_part(one) and "partNumber=3" in one.path)
    with FaultyStore(s3_server.endpoint, refused) as store:
        through(store, monkeypatch)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        with pytest.raises(StorageError, match="busy"):
            open_place(uri).write(written(tmp_path / "new", LARGE))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    assert uploads(s3_server, uri) == []
    open_place(uri).read(tmp_path / "read")
    assert (tmp_path / "read").read_bytes() == (tmp_path / "old").read_bytes()


@pytest.mark.parametrize("scheme", CLIENTS)
def test_what_a_killed_upload_left_is_cleared_by_the_next(
    scheme: str, address: Addresses, s3_server: S3Server, tmp_path: Path
) -> None:
    uri = address(scheme, "weights.bin")
    mine = {"Bucket": s3_server.bucket, "Key": key_of(uri)}
    neighbour = {"Bucket": s3_server.bucket, "Key": f"{key_of(uri)}-2"}
    client = s3_server.client()
    for where in (mine, neighbour):
        upload = client.create_multipart_upload(**where)["UploadId"]
        client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"left")
    assert uploads(s3_server, uri)
    open_place(uri).write(written(tmp_path / "source", 10))
    assert uploads(s3_server, uri) == []
    assert uploads(s3_server, f"{uri}-2")


@pytest.mark.slow
def test_nothing_stays_in_memory(s3_server: S3Server, address: Addresses, tmp_path: Path) -> None:
    uri = address("s3", "weights.bin")
    source = written(tmp_path / "source", 1 << 20)
    os.truncate(source, 400 << 20)
    program = """
import resource, sys
from pathlib import Path
from kfp_bento.runtime.storage import open_place
place = open_place(sys.argv[1])
small = Path(sys.argv[2] + "-small")
small.write_bytes(b"x")
place.write(small, "small")
place.read(Path(sys.argv[3]), "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
place.write(Path(sys.argv[2]), "large")
place.read(Path(sys.argv[3]), "large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, uri, str(source), str(tmp_path / "read")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(answer.stdout) < 64 << 10
