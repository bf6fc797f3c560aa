"""URLs by which others read an object: what a real store gives for them, and to whom."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from servers import S3Server
from stored_files import Addresses, written

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.storage import open_place

both_clients = pytest.mark.parametrize("scheme", ["s3", "minio"])


def downloaded(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


@both_clients
def test_a_presigned_url_needs_nothing_but_itself(
    scheme: str, address: Addresses, tmp_path: Path
) -> None:
    place = open_place(address(scheme, "a folder/Ünïcode+%20 name.bin"))
    place.write(written(tmp_path / "source", 100_000))
    url = place.presigned(seconds=60)
    assert downloaded(url) == (tmp_path / "source").read_bytes()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        downloaded(url.partition("?")[0])


@both_clients
def test_it_is_signed_as_every_region_takes_it_and_gives_no_secret_away(
    scheme: str, address: Addresses, s3_server: S3Server
) -> None:
    url = open_place(address(scheme, "wine.tar")).presigned(seconds=90)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Expires=90" in url
    assert s3_server.secret_key not in url


@both_clients
def test_it_is_over_when_its_time_is(scheme: str, address: Addresses, tmp_path: Path) -> None:
    place = open_place(address(scheme, "wine.tar"))
    place.write(written(tmp_path / "source", 10))
    url = place.presigned(seconds=1)
    for _ in range(100):
        try:
            downloaded(url)
        except urllib.error.HTTPError as refused:
            assert refused.code == 403
            return
        time.sleep(0.1)
    raise AssertionError("the URL is still good")


@both_clients
def test_nobody_signs_without_credentials(
    scheme: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(StorageError, match="no credentials to sign") as failure:
        open_place(f"{scheme}://{s3_server.bucket}/wine.tar").presigned(seconds=60)
    assert "mounted Secret" in failure.value.hint


@pytest.mark.parametrize("seconds", [0, 604_801])
def test_a_time_that_no_store_takes_is_refused(seconds: int, address: Addresses) -> None:
    with pytest.raises(InvalidInput, match=f"{seconds} seconds"):
        open_place(address("s3", "wine.tar")).presigned(seconds=seconds)


@pytest.mark.parametrize(
    ("uri", "way_out"),
    [("/tmp/wine.tar", "into a bucket"), ("https://store.example.com/wine.tar", "as it is")],
)
def test_what_is_in_no_bucket_is_not_signed(uri: str, way_out: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        open_place(uri).presigned(seconds=60)
    assert way_out in failure.value.hint
